"""Time and memory of the quickstart, and time of one epoch of each method on its home data set.

    python benchmarks/epochs.py            # results/quickstart.json and results/epochs.jsonl, one thread an epoch

An epoch's time is the median of five after one to warm up; methods take turns, so that noise falls on all alike.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from record import RESULTS, append, where

from graphcl import build, fit, load_config

CONFIGS = ["grace", "bgrl", "dgi", "gae", "moco-nodes", "pcl", "graphcl", "moco", "infograph", "adgcl"]


def quickstart() -> None:
    """Run the README's first command as a user does."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, "-m", "graphcl", "pretrain", "quickstart", "--quiet", f"run.dir={folder}/run"]
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - start
        environment = json.loads((Path(folder) / "run" / "environment.json").read_text())
        scores = json.loads((Path(folder) / "run" / "scores.json").read_text())
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    result = {
        "command": "graphcl pretrain quickstart",
        "whole_seconds": round(seconds, 1),
        "training_seconds": round(environment["seconds"], 1),
        "peak_memory_mb": round(peak),
        "scores": {name: {"mean": row["mean"], "std": row["std"]} for name, row in scores.items()},
        **where(),
    }
    (RESULTS / "quickstart.json").write_text(json.dumps(result, indent=1) + "\n")
    print(result)


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
    quickstart()
    epochs()
