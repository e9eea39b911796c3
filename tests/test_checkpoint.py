"""Files that appear whole or not at all, and are checked before they are read."""

from __future__ import annotations

import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import full_disk
from torch import nn

from graphcl import checkpoint
from graphcl.checkpoint import (
    CheckpointError,
    list_checkpoints,
    load_checkpoint,
    load_weights,
    make_folder,
    remove_leftovers,
    save_checkpoint,
    save_weights,
)


def state(step: int) -> dict[str, Any]:
    return {"step": step, "weights": torch.full((1000,), float(step)), "names": ["a", "b"], "lr": 0.1 + 0.2}


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.target,)


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_what_is_saved_comes_back(tmp_path):
    path = save_checkpoint(tmp_path, 12, state(12), keep=2)
    found, back = load_checkpoint(tmp_path)
    assert found == path == tmp_path / "step-00000012.ckpt"
    assert torch.equal(back["weights"], state(12)["weights"])
    assert {key: back[key] for key in ("step", "names", "lr")} == {"step": 12, "names": ["a", "b"], "lr": 0.1 + 0.2}


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(tmp_path, keep):
    for step in (5, 10, 15, 200):
        save_checkpoint(tmp_path, step, state(step), keep)
    assert [load.stem for load in list_checkpoints(tmp_path)] == [
        f"step-{step:08d}" for step in (5, 10, 15, 200)[-keep:]
    ]


def test_checkpoints_of_a_future_that_was_given_up_are_removed(tmp_path):
    for step in (10, 20, 30):
        save_checkpoint(tmp_path, step, state(step), keep=3)
    list_checkpoints(tmp_path)[-1].write_bytes(b"cut")  # so the run goes on from 20, with checkpoints every 5
    save_checkpoint(tmp_path, 25, state(25), keep=2)
    assert [path.stem for path in list_checkpoints(tmp_path)] == ["step-00000020", "step-00000025"]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_one_is_passed_over_with_a_warning(tmp_path, share):
    save_checkpoint(tmp_path, 10, state(10), keep=2)
    newest = save_checkpoint(tmp_path, 20, state(20), keep=2)
    newest.write_bytes(newest.read_bytes()[: int(share * newest.stat().st_size)])
    with pytest.warns(UserWarning, match=r"passed over step-00000020.ckpt: truncated.* from step-00000010.ckpt"):
        path, back = load_checkpoint(tmp_path)
    assert path.stem == "step-00000010" and back["step"] == 10


def test_one_flipped_bit_is_noticed(tmp_path):
    save_checkpoint(tmp_path, 10, state(10), keep=2)
    newest = save_checkpoint(tmp_path, 20, state(20), keep=2)
    raw = bytearray(newest.read_bytes())
    place = raw.index(torch.full((4,), 20.0).numpy().tobytes()) + 1000
    raw[place] ^= 1
    newest.write_bytes(raw)
    with pytest.warns(UserWarning, match="step-00000020.ckpt: damaged, its checksum does not match"):
        assert load_checkpoint(tmp_path)[1]["step"] == 10


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_bomb_is_refused_unread(tmp_path, how):
    harm, folder = tmp_path / "harm", tmp_path / "checkpoints"
    make_folder(folder)
    bomb = folder / "step-00000030.ckpt"
    if how == "torch":
        torch.save({"step": 30, "bomb": Bomb(harm)}, bomb)
    else:
        bomb.write_bytes(pickle.dumps(Bomb(harm)))
    reason = "holds more than tensors and plain values, refused unread" if how == "torch" else "no checkpoint at all"
    with pytest.raises(CheckpointError, match=rf"no checkpoint can be read: step-00000030.ckpt: .*{reason}"):
        load_checkpoint(folder)
    save_checkpoint(folder, 20, state(20), keep=2)
    bomb.write_bytes(pickle.dumps(Bomb(harm)))
    with pytest.warns(UserWarning, match="passed over step-00000030"):
        assert load_checkpoint(folder)[1]["step"] == 20
    assert not harm.exists()


def test_something_else_than_a_state_is_refused(tmp_path):
    torch.save(torch.ones(3), tmp_path / "step-00000001.ckpt")
    with pytest.raises(CheckpointError, match="not a checkpoint of graphcl"):
        load_checkpoint(tmp_path)


def test_no_checkpoint_is_a_clear_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*nowhere; give the folder of a run"):
        load_checkpoint(tmp_path / "nowhere")


def test_good_files_load_without_a_warning(tmp_path):
    save_checkpoint(tmp_path, 10, state(10), keep=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_checkpoint(tmp_path)


def test_a_full_disk_leaves_the_last_one_intact(tmp_path):
    save_checkpoint(tmp_path, 10, state(10), keep=1)
    with (
        full_disk(2000),
        pytest.raises(CheckpointError, match=r"step-00000020.ckpt could not be written: .*[Mm]ake room"),
    ):
        save_checkpoint(tmp_path, 20, state(20), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000010.ckpt"]  # no temporary file either
    assert load_checkpoint(tmp_path)[1]["step"] == 10


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_write_that_is_cut_short_is_not_seen(tmp_path, monkeypatch, moment):
    save_checkpoint(tmp_path, 10, state(10), keep=1)

    def die(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(checkpoint.os, moment, die)
        save_checkpoint(tmp_path, 20, state(20), keep=1)
    assert load_checkpoint(tmp_path)[1]["step"] == 10
    assert len(list(tmp_path.iterdir())) == 2
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000010.ckpt"]


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"cannot write to the run folder .*file/run: .*run.dir="):
        make_folder(tmp_path / "file" / "run")


# --- weights ----------------------------------------------------------------------------------------------------------


class Tied(nn.Module):
    """Shares a tensor, has buffers of other types and a view as a parameter's storage."""

    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(width, 3), nn.Linear(width, 3)
        self.two.weight = self.one.weight
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("ids", torch.arange(4))
        self.register_buffer("some", self.ids[1:3])


class Other(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(2, 2) for _ in range(4)))


def test_weights_come_back_to_the_bit(tmp_path):
    saved, loaded = Tied(), Tied()
    path = save_weights(tmp_path, saved)
    load_weights(path, loaded)
    assert path == tmp_path / "model.safetensors"
    for name, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert loaded.one.weight is loaded.two.weight


def test_missing_and_damaged_weights(tmp_path):
    with pytest.raises(CheckpointError, match=r"no weights at .*model.safetensors; they are written when a run ends"):
        load_weights(tmp_path / "model.safetensors", Tied())
    path = save_weights(tmp_path, Tied())
    whole = path.read_bytes()
    for cut in (
        b"",
        whole[:5],
        whole[: len(whole) // 2],
        whole[:-1],
        b"\xff" * 100,
        pickle.dumps(Bomb(tmp_path / "harm")),
    ):
        path.write_bytes(cut)
        with pytest.raises(CheckpointError, match="is damaged or not a safetensors file"):
            load_weights(path, Tied())
    assert not (tmp_path / "harm").exists()


def test_weights_of_another_model_are_refused(tmp_path):
    path, method = save_weights(tmp_path, Tied()), Other()
    before = method.layers[0].weight.clone()
    with pytest.raises(CheckpointError) as caught:
        load_weights(path, method)
    message = str(caught.value)
    assert "is of another model (Tied): lacks layers.0.bias, layers.0.weight, layers.1.bias and 5 more" in message
    assert "has the unknown ids" in message and "build Other from the config" in message
    assert torch.equal(before, method.layers[0].weight)


def test_weights_for_other_features_are_refused(tmp_path):
    path = save_weights(tmp_path, Tied(width=5))
    with pytest.raises(CheckpointError, match=r"one.weight is \[3, 5\], but this model has \[3, 7\]; .*another width"):
        load_weights(path, Tied(width=7))


def test_full_disk_keeps_the_weights_of_before(tmp_path):
    path = save_weights(tmp_path, Tied())
    before = path.read_bytes()
    with full_disk(64), pytest.raises(CheckpointError, match=r"model.safetensors could not be written"):
        save_weights(tmp_path, Tied())
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
