"""The folder that `graphcl pretrain` writes: a mistake loses nothing, and one run trains in it at a time."""

import numpy as np
import pytest

from graphcl.run_folder import LOCK, aside, locked

SHORT = ["data.name=g.npz", "data.split=random", "train.epochs=2", "encoder.hidden=8", "run.dir=r"]


@pytest.fixture
def pretrain(command, monkeypatch, tmp_path):
    """Calls `graphcl pretrain dgi` in a folder with a small graph."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    ends = rng.integers(0, 30, (2, 90))
    x, y = rng.random((30, 5)).astype(np.float32), rng.integers(0, 2, 30)
    np.savez(tmp_path / "g.npz", edge_index=np.concatenate([ends, ends[::-1]], axis=1), x=x, y=y)
    return lambda *args: command("pretrain", "dgi", *SHORT, "--quiet", *args)


def earlier_run(tmp_path):
    """A folder as a run leaves it, in short."""
    (tmp_path / "r" / "checkpoints").mkdir(parents=True)
    (tmp_path / "r" / "config.yaml").write_text("name: earlier\n")
    (tmp_path / "r" / "metrics.jsonl").write_text("{}\n")
    (tmp_path / "r" / "checkpoints" / "step-00000002.ckpt").write_bytes(b"weights")


def held(folder):
    """All files under a folder, but for locks."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != LOCK
    }


MISTAKES = [
    ("train.group_lr.foo=1", "unknown group 'foo'"),
    ("train.precision=16-mixed", "needs a CUDA device"),
    ("encoder.name=molecule_gin", "got torch.float32"),  # told in the first step
]


@pytest.mark.parametrize(("override", "told"), MISTAKES)
def test_a_mistake_leaves_the_earlier_run_as_it_was(pretrain, tmp_path, override, told):
    earlier_run(tmp_path)
    before = held(tmp_path)
    code, text = pretrain("--overwrite", "train.device=cpu", override)
    assert code == 2 and told in text, text
    assert held(tmp_path) == before


@pytest.mark.parametrize(("override", "told"), MISTAKES)
def test_a_mistake_leaves_no_folder_behind(pretrain, tmp_path, override, told):
    (tmp_path / "empty").mkdir()
    for folder in ("new/deep/r", "empty"):
        code, text = pretrain("train.device=cpu", f"run.dir={folder}", override)
        assert code == 2 and told in text, text
    assert {path.name for path in tmp_path.rglob("*")} == {"g.npz", "empty"}


def test_ctrl_c_before_the_first_step_leaves_the_earlier_run_as_it_was(pretrain, tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    earlier_run(tmp_path)
    before = held(tmp_path)
    monkeypatch.setattr("graphcl.trainer.take_turn", interrupted)
    assert pretrain("--overwrite")[0] != 0
    assert held(tmp_path) == before


def test_overwriting_replaces_the_earlier_run(pretrain, tmp_path):
    earlier_run(tmp_path)
    (tmp_path / "r" / "rejected.csv").write_text("of the earlier one")
    code, text = pretrain("--overwrite")
    assert code == 0, text
    assert not (tmp_path / "r" / "rejected.csv").exists() and not aside(tmp_path / "r").exists()
    assert "name: dgi" in (tmp_path / "r" / "config.yaml").read_text()


def test_what_lies_where_one_stands_is_not_replaced(pretrain, tmp_path, monkeypatch):
    earlier_run(tmp_path)
    monkeypatch.chdir(tmp_path / "r")
    code, text = pretrain("--overwrite", "run.dir=.", "data.name=../g.npz")
    assert code == 2 and "run folder . holds the current folder; go to another one, then replace it" in text
    assert (tmp_path / "r" / "checkpoints" / "step-00000002.ckpt").exists()


@pytest.mark.parametrize("options", [[], ["--overwrite"], ["--resume"]])
def test_a_run_under_way_is_left_alone(pretrain, tmp_path, options):
    pytest.importorskip("fcntl")
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "config.yaml").write_text("name: running\n")
    with locked(tmp_path / "r", tmp_path / "r"):
        code, text = pretrain(*options)
        told = "another process trains in run folder r; wait until it ends, or choose another with run.dir=FOLDER"
        assert code == 2 and told in text, text
        assert (tmp_path / "r" / "config.yaml").read_text() == "name: running\n"
    if options != ["--resume"]:
        assert pretrain(*options)[0] == 0  # one that was killed before its first step is no run


@pytest.mark.parametrize("later", ["not there", "no step", "trained", "not a run"])
def test_what_a_killed_process_set_aside(pretrain, tmp_path, later):
    earlier_run(tmp_path)
    before = held(tmp_path / "r")
    (tmp_path / "r").rename(aside(tmp_path / "r"))
    if later != "not there":
        (tmp_path / "r").mkdir()
        name = "thesis.tex" if later == "not a run" else "config.yaml"
        (tmp_path / "r" / name).write_text("name: later\n")
    if later == "trained":
        (tmp_path / "r" / "metrics.jsonl").write_text("{}\n")
    code, text = pretrain()
    assert code == 2 and "holds something else" * (later == "not a run") in text, text
    if later in ("not there", "no step"):
        assert "holds a run already" in text and held(tmp_path / "r") == before
    assert aside(tmp_path / "r").exists() == (later == "not a run")
