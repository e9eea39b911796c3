"""Results files that survive everything."""

import json
import os
import subprocess
import sys

import pytest

from graphcl.ledger import Ledger, read_rows


def test_a_line_that_was_cut_off_does_not_count_and_is_written_over(tmp_path):
    ledger = Ledger(tmp_path / "rows.jsonl")
    first, second = ({"hash": name, "protocol": "p", "version": 1} for name in "ab")
    ledger.append(first)
    with open(ledger.path, "a") as half:
        half.write(json.dumps(second)[:20])
    assert ledger.rows() == [first]
    ledger.append(second)
    assert ledger.path.read_text() == f"{json.dumps(first)}\n{json.dumps(second)}\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", r"line 2 is not a JSON object: 'nonsense'; take the line out"),
        ("[1]", "line 2 is not a JSON object"),
        ("", "line 2 is not a JSON object"),
        ('{"a": 1}', "line 2 is no row of a benchmark; choose another file with --results"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path, line, message):
    (tmp_path / "rows.jsonl").write_text(f'{{"hash": "a", "protocol": "p", "version": 1}}\n{line}\n')
    with pytest.raises(ValueError, match=message):
        read_rows(tmp_path / "rows.jsonl")


OTHER = """
import sys
from pathlib import Path
from graphcl.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
for i in range(200):
    ledger.append({"hash": "a", "protocol": "p", "version": 1, "i": i, "fill": "x" * 5000})
with ledger.claim("abc") as ours, ledger.claim("abd") as free:
    print(ours, free, flush=True)
"""


def test_processes_write_whole_lines_and_respect_claims(tmp_path):
    ledger = Ledger(tmp_path / "rows.jsonl")
    with ledger.claim("abc") as ours:
        assert ours
        command = [sys.executable, "-c", OTHER, str(ledger.path)]
        others = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        told = [other.communicate()[0].split() for other in others]
    assert [ours for ours, _ in told] == ["False", "False"]
    assert "True" in [free for _, free in told]
    assert sorted(row["i"] for row in ledger.rows()) == sorted([*range(200)] * 2)


def test_a_row_that_does_not_fit_on_the_disk_is_told_and_cut_off(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "rows.jsonl")
    row = {"hash": "a", "protocol": "p", "version": 1}
    ledger.append(row)
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, line: write(file, line[:10]))
    with pytest.raises(OSError, match=r"could not be written whole; make room and run it again: .*rows\.jsonl"):
        ledger.append(row)
    monkeypatch.setattr(os, "write", write)
    assert ledger.rows() == [row]
    ledger.append(row)
    assert ledger.rows() == [row, row]
