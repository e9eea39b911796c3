"""Time of one epoch of each method on its home data set.

    python benchmarks/epochs.py            # results/epochs.jsonl, one thread

An epoch's time is the median of five after one to warm up; methods take turns, so that noise falls on all alike.
"""

from __future__ import annotations

import statistics

import torch
from record import RESULTS, append

from graphcl import build, fit, load_config

CONFIGS = ["grace", "bgrl", "dgi", "gae", "moco-nodes", "pcl", "graphcl", "moco", "infograph", "adgcl"]
CONFIGS += ["molecules"]


def epochs() -> None:
    """Median time of an epoch of each method, interleaved."""
    torch.set_num_threads(1)
    runs = {}
    for name in CONFIGS:
        warm = ["method.warmup_epochs=0"] if name == "pcl" else []  # so that its epoch has the E-step
        runs[name] = build(load_config(name, ["train.epochs=1", "train.warmup=0", *warm]))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(6):
        for name, run in runs.items():
            seconds = fit(run, progress=False)["seconds"]
            if turn:
                times[name].append(seconds)
    (RESULTS / "epochs.jsonl").unlink(missing_ok=True)
    for name, run in runs.items():
        row = {"config": name, "data": run.config.data.name, "seconds": round(statistics.median(times[name]), 4)}
        append("epochs", {**row, "items": run.loader.num_items})
        print(row)


if __name__ == "__main__":
    RESULTS.mkdir(exist_ok=True)
    epochs()
