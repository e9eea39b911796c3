"""Every shipped config, run as its user runs it: time, memory, and accuracy beside the untrained encoder.

    python benchmarks/shipped.py                 # those without a row of today's config in results/configs.jsonl
    python benchmarks/shipped.py grace bgrl      # these, once more

The first lines of each config, and the README's first table, show what was found (`python benchmarks/tables.py`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import ROOT, append, key_of, read

from graphcl import ledger, load_config
from graphcl.process import set_threads

FOLDER = ROOT / "configs"


def names() -> list[str]:
    """All configs that `graphcl pretrain` takes by name."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def key(name: str) -> str:
    """Of the config as it is now; settings at their defaults do not count."""
    return key_of(load_config(name).model_dump(mode="json", exclude_defaults=True, exclude={"run"}))


def measured() -> dict[str, dict[str, Any]]:
    """The last row of each config, if the config has not changed since."""
    last = {row["config"]: row for row in read("configs")}
    return {name: last[name] for name in names() if name in last and last[name]["key"] == key(name)}


def measure(name: str) -> None:
    """Run it in a process of its own, and add a row."""
    set_threads()  # as the process does for itself; the row says how many
    commit = ledger.commit()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "graphcl", "pretrain", name, "--quiet", f"run.dir={folder}/run"]
        begun = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        if status:
            raise SystemExit(f"`graphcl pretrain {name}` failed")
        environment, scores = (
            json.loads((Path(folder) / "run" / file).read_text()) for file in ("environment.json", "scores.json")
        )
    row = {
        "config": name,
        "key": key(name),
        "seconds": round(environment["seconds"], 1),
        "whole_seconds": round(seconds, 1),
        "peak_memory_mb": round(used.ru_maxrss / 1024),
        "scores": scores,
        "commit": commit,
    }
    append("configs", row)
    print(row, flush=True)


def line(row: dict[str, Any]) -> str:
    """What a config says of its own run."""
    trained, untrained = row["scores"]["pretrained"], row["scores"]["untrained"]
    metric, spread = trained["metric"].replace("_", " "), f" ± {100 * trained['std']:.1f}" if trained["std"] else ""
    return (
        f"# {row['seconds']:.0f} s, {row['threads']} threads of {row['machine']}, one seed: {metric} "
        f"{100 * trained['mean']:.1f}{spread}, untrained {100 * untrained['mean']:.1f} (results/configs.jsonl)"
    )


if __name__ == "__main__":
    for name in sys.argv[1:] or [name for name in names() if name not in measured()]:
        measure(name)
