"""Accuracy in the course of pretraining on one graph: the probe at every so many steps. Resumable by seed.

    python benchmarks/curve.py bgrl --data cora citeseer --seeds 0 1 2   # rows in results/curve.jsonl, a figure beside
    python benchmarks/curve.py bgrl --set train.epochs=1000              # for longer than the config says

Scoring on the way draws nothing from the generator of the training. Step 0: untrained.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from record import RESULTS, append, key_of, read

from graphcl import Config, build, embed, fit, linear_probe, load_config
from graphcl.process import set_threads


def main(method: str, data: list[str], seeds: list[int], every: int, settings: list[str]) -> None:
    """Train what has no rows yet, and draw all."""
    set_threads(1)
    for name in data:
        for seed in seeds:
            config = load_config(method, [f"data.name={name}", f"train.seed={seed}", *settings])
            key = {"method": method, "data": name, "seed": seed, "every": every, "settings": settings}
            key["config"] = key_of(config.model_dump(mode="json", exclude_defaults=True, exclude={"run"}))
            if not any(key.items() <= row.items() for row in read("curve")):
                one(key, config)
    draw()


def one(key: dict[str, Any], config: Config) -> None:
    """Train once, scored on the way; the rows are written when it is through."""
    run = build(config)
    total, after_step, begun = run.config.train.epochs, run.method.after_step, time.perf_counter()
    rows: list[dict[str, Any]] = []

    def score(step: int) -> None:
        found = linear_probe(embed(run.method, run.data), run.data.y, run.split)
        row = key | {"step": step, "score": found.mean, "protocol": found.protocol}
        rows.append(row | {"seconds": round(time.perf_counter() - begun, 1)})

    def scored(progress: float) -> None:
        after_step(progress)
        step = round(progress * total)
        if step % key["every"] == 0 or step == total:
            score(step)

    score(0)
    run.method.after_step = scored  # type: ignore[method-assign]
    fit(run, progress=False)
    for row in rows:
        append("curve", row)
    print(rows[-1], flush=True)


def draw() -> None:
    """results/curve.png: the mean over the seeds, and the span from the lowest to the highest."""
    rows = read("curve")
    names = list(dict.fromkeys(row["data"] for row in rows))
    figure, axes = plt.subplots(1, len(names), figsize=(4 * len(names), 3), squeeze=False)
    for name, axis in zip(names, axes[0], strict=True):
        lines: dict[str, dict[int, list[float]]] = {}
        for row in rows:
            if row["data"] == name:
                line = lines.setdefault("\n".join([row["method"], *row["settings"]]), {})
                line.setdefault(row["step"], []).append(100 * row["score"])
        for label, of_step in lines.items():
            steps = sorted(of_step)
            axis.plot(steps, [statistics.fmean(of_step[step]) for step in steps], "o-", label=label)
            axis.fill_between(steps, *([pick(of_step[step]) for step in steps] for pick in (min, max)), alpha=0.2)
        axis.set(title=name, xlabel="optimizer steps", ylabel="accuracy (%)")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, loc="lower right")
    figure.tight_layout()
    figure.savefig(RESULTS / "curve.png", dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", help="a config of a node-level method")
    parser.add_argument("--data", nargs="+", default=["cora"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--every", type=int, default=100, help="steps from one score to the next")
    parser.add_argument("--set", nargs="*", default=[], dest="settings", help="overrides of the config")
    given = parser.parse_args()
    main(given.method, given.data, given.seeds, given.every, given.settings)
