"""What pretraining buys with size: the frozen probe after 10^4, 10^5, 10^6 molecules seen. Resumable.

    python benchmarks/molecule_size.py corpus.smi.gz    # rows in results/molecules-size.jsonl, a figure beside

One run a method, cut where so many molecules were seen: its encoder is scored, then it goes on. 0 is the untrained one.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from record import RESULTS, append, read

from graphcl import build, embed, fit, linear_probe, load_config, load_data
from graphcl.data.splits import make_splits
from graphcl.evaluate.ridge import ridge
from graphcl.hub import Frozen
from graphcl.process import set_threads

METHODS = {"attribute_masking": ["views=[]", "method={name: attribute_masking, rate: 0.15}"], "graphcl": []}
SEEN = (0, 10_000, 100_000, 1_000_000)
DATA = {"bbbp": "roc_auc", "tox21": "roc_auc", "esol": "rmse", "lipo": "rmse"}
BATCH = 256


def main(corpus: str, methods: list[str], seen: list[int], data: list[str], folder: Path, precision: str) -> None:
    """Train on, and score at each count what has no row yet."""
    set_threads()
    for method in methods:
        overrides = [f"data.name={corpus}", f"train.precision={precision}", "train.epochs=1000", *METHODS[method]]
        for count in seen:
            keys = [{"method": method, "seen": count, "data": name} for name in data]
            if all(any(key.items() <= row.items() for row in read("molecules-size")) for key in keys):
                continue
            steps = max(math.ceil(count / BATCH), 1)
            run = build(load_config("molecules", [*overrides, f"train.max_steps={steps}"]))
            begun = time.perf_counter()
            if count:
                place = folder / method
                fit(run, place, resume=(place / "checkpoints").is_dir())
            spent = time.perf_counter() - begun
            for key in keys:
                if not any(key.items() <= row.items() for row in read("molecules-size")):
                    scores = score(run.method, key["data"])
                    append(
                        "molecules-size",
                        key | {"steps": steps if count else 0, "seconds": spent, "precision": precision} | scores,
                    )
    draw()


def score(method: Any, name: str) -> dict[str, Any]:
    """The frozen probe on a scaffold split."""
    store = load_data(name)
    z = embed(Frozen(method.encoder, method.readout), store)
    rule = ridge if DATA[name] == "rmse" else linear_probe
    found = rule(z, store.y, make_splits(store, "scaffold"), metric=DATA[name])
    return {"metric": found.metric, "score": found.mean, "protocol": found.protocol}


def draw() -> None:
    """results/molecules-size.png: a panel a data set, a line a method."""
    rows = read("molecules-size")
    names = list(dict.fromkeys(row["data"] for row in rows))
    figure, axes = plt.subplots(1, len(names), figsize=(3.2 * len(names), 3), squeeze=False)
    for name, axis in zip(names, axes[0], strict=True):
        for method in dict.fromkeys(row["method"] for row in rows):
            line = sorted((row["seen"], row["score"]) for row in rows if (row["data"], row["method"]) == (name, method))
            axis.plot([max(seen, 1000) for seen, _ in line], [value for _, value in line], "o-", label=method)
        axis.set_xscale("log")
        axis.set(title=name, xlabel="molecules seen (leftmost: none)", ylabel=DATA[name].replace("_", "-"))
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(RESULTS / "molecules-size.png", dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", help="a file of SMILES, or a saved store")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seen", nargs="+", type=int, default=list(SEEN))
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=DATA)
    parser.add_argument("--folder", type=Path, default=Path("runs/molecules-size"))
    parser.add_argument("--precision", default="32", choices=("32", "bf16-mixed"))
    given = parser.parse_args()
    main(given.corpus, given.methods, given.seen, given.data, given.folder, given.precision)
