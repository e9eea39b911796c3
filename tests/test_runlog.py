"""environment.json; the rest of the log is tested with the trainer."""

from __future__ import annotations

import json

import torch

from graphcl import runlog
from graphcl.runlog import write_environment


def test_the_environment_is_written(tmp_path):
    write_environment(tmp_path, seed=3, seconds=1.5)
    values = json.loads((tmp_path / "environment.json").read_text())
    assert values["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert values["seed"] == 3 and values["seconds"] == 1.5 and values["threads"] == torch.get_num_threads()
    assert values["commit"] is None or len(values["commit"].rstrip("+")) == 40


def test_outside_a_checkout_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(runlog, "__file__", str(tmp_path / "graphcl" / "runlog.py"))
    write_environment(tmp_path)
    assert json.loads((tmp_path / "environment.json").read_text())["commit"] is None
