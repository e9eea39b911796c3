"""The figures in the README, in docs/performance.md and in the configs are those of results/."""

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
    pages = "".join(page.read_text(encoding="utf-8") for page in tables.PAGES)
    assert all(f"<!-- results: {name} -->" in pages for name in tables.tables()), "every table has its place"


def test_the_table_of_the_benchmark_says_which_rows_are_from_elsewhere(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import tables

    row = {"what": "this", "data": "that", "ratio": 3.14159, "floor": 2, "stretch": None, "ok": True, "at_most": False}
    here, there = {"machine": "ours", "device": "cpu"}, {"machine": "another", "device": "cpu"}
    rows = [row | {"name": "a", "limit": "copy", "of_limit": 0.5} | here, row | {"name": "b"} | there]
    result = {"rows": rows, "limits": {"copy": 2e9}, **here}
    made = tables.bench(result)
    assert "| `a` | this | that | 3.14 x | ≥ 2 |  | yes | 50% of copy |" in made
    assert made.endswith("ours, cpu; copy 2.0 GB/s. Measured on another machine, another, cpu: `b`.")
    short = tables.bench(result, short=True)
    assert "limit" not in short and "copy" not in short and "| `b` | this | that | 3.14 x | ≥ 2 |  | yes |" in short


def test_configs_open_with_their_own_score(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import shipped
    import tables

    assert shipped.names() == list(shipped.measured()), "run `python benchmarks/shipped.py`"
    for name in shipped.names():
        text = (ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
        assert tables.headed(name, text) == text, "run `python benchmarks/tables.py`"


def test_every_result_says_where_it_comes_from():
    import json

    lines = [line for path in ROOT.glob("results/*.jsonl") for line in path.read_text().splitlines()]
    lines += [path.read_text() for path in ROOT.glob("results/*.json")]
    assert lines
    for line in lines:
        assert {"commit", "torch", "machine", "threads"} <= json.loads(line).keys(), line


def test_the_cards_of_shipped_encoders_have_the_scores_of_results(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import cards

    from graphcl.hub import list_pretrained, read_card
    from graphcl.read_config import find_pretrained

    for name in list_pretrained():
        assert read_card(find_pretrained(name)).scores == cards.scores(name), "run `python benchmarks/cards.py`"
