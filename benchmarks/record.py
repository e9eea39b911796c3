"""Result files: one JSON line a run, with what is needed to trace and to repeat it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from graphcl import ledger

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
COMMIT = ledger.commit()  # when the run began, with + if the tree differed from it; at its end the tree may be another


def key_of(values: Mapping[str, Any]) -> str:
    """A short hash of whatever defines a run."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def read(name: str) -> list[dict[str, Any]]:
    """The rows of results/<name>.jsonl; none if it is not there yet."""
    path = RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def append(name: str, row: Mapping[str, Any]) -> None:
    """Add a row with commit (if it has none), versions and hardware."""
    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / f"{name}.jsonl", "a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps({**row, **where(), "commit": row.get("commit", COMMIT)}) + "\n")


def where() -> dict[str, Any]:
    """Commit, versions, processor."""
    return {
        "commit": COMMIT,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": processor(),
        "threads": torch.get_num_threads(),
    }


def processor() -> str:
    """Name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor() or platform.machine()
