"""The figures in the README and in docs/performance.md are those of results/."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_tables_are_current(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import tables

    assert tables.tables(), "results/ is empty"
    for page in tables.PAGES:
        text = page.read_text(encoding="utf-8")
        assert tables.filled(text) == text, "run `python benchmarks/tables.py`"


def test_every_result_says_where_it_comes_from():
    import json

    lines = [line for path in ROOT.glob("results/*.jsonl") for line in path.read_text().splitlines()]
    lines += [path.read_text() for path in ROOT.glob("results/*.json")]
    assert lines
    for line in lines:
        assert {"commit", "torch", "machine", "threads"} <= json.loads(line).keys(), line
