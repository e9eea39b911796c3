"""Code that no row is older than, and a report of rows."""

import json

import pytest

from graphcl import stale
from graphcl.report import load_report


@pytest.fixture(autouse=True)
def current_code(monkeypatch):
    """Rows are of today's code, unless a test says otherwise."""
    stale.changed.cache_clear()
    monkeypatch.setattr(stale, "changes_since", lambda commit, files: [])


@pytest.fixture
def results(tmp_path):
    def write(rows):
        path = tmp_path / "study.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return load_report(str(path))

    return write
