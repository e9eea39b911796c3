"""A training that ends early: a loss or weight that is not finite, Ctrl-C."""

from __future__ import annotations

import math
import os
import signal
from typing import Any

import pytest
from small_run import Momentum, Rows, small_run
from test_trainer import Regression, lines
from torch import Tensor

from graphcl.checkpoint import load_checkpoint
from graphcl.runlog import NonFiniteLoss
from graphcl.trainer import Stopped, fit

# --- not finite -------------------------------------------------------------------------------------------------------


class Breaks(Regression):
    """The loss, or only its gradient, is nan from the batch on that comes after `good` others."""

    def __init__(self, good: int, gradient: bool = False) -> None:
        super().__init__()
        self.good, self.gradient = good, gradient

    def loss(self, data: Any, group: str = "model") -> dict[str, Tensor]:
        loss = super().loss(data)["loss"]
        self.good -= 1
        if self.good < 0 and self.gradient:
            loss = loss + (self.layer.bias - self.layer.bias.detach()).sum().abs().sqrt()  # 0, of slope infinity
        elif self.good < 0:
            loss = loss * math.nan
        return {"loss": loss, "part": loss.detach() / 0}  # a part may be infinite: it is no loss


@pytest.mark.parametrize("log_every", [1, 4, 100])
def test_a_nan_loss_names_its_step_and_keeps_the_last_good_checkpoint(tmp_path, log_every):
    run = small_run(lambda: Breaks(good=8), run__log_every=log_every, run__checkpoint_every=3)
    with pytest.raises(NonFiniteLoss) as caught:
        fit(run, tmp_path, progress=False)
    message = str(caught.value)
    ids = list(Rows().epoch(1))[3].graph_id.tolist()
    assert f"loss is nan at step 9 (epoch 2, batch 3, ids {', '.join(map(str, ids))})" in message
    assert "The last good checkpoint is" in message and "step-00000006.ckpt" in message and "lower train.lr" in message
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 9))
    assert all(line["part"] is None for line in lines(tmp_path))
    state = load_checkpoint(tmp_path / "checkpoints")[1]
    assert state["place"]["step"] == 6 and all(value.isfinite().all() for value in state["method"].values())
    assert not (tmp_path / "model.safetensors").exists()


def test_a_nan_gradient_never_reaches_a_checkpoint(tmp_path):
    run = small_run(lambda: Breaks(good=5, gradient=True), run__checkpoint_every=3, train__epochs=2)
    with pytest.raises(
        NonFiniteLoss, match=r"weight layer.bias is nan or infinite after step 6, though the loss was not"
    ):
        fit(run, tmp_path, progress=False)
    assert load_checkpoint(tmp_path / "checkpoints")[1]["place"]["step"] == 3


def test_an_infinite_buffer_never_reaches_a_checkpoint(tmp_path):
    class Overflows(Momentum):
        def after_step(self, progress):
            super().after_step(progress)
            self.centre.fill_(float("inf"))

    with pytest.raises(NonFiniteLoss, match=r"buffer centre is nan or infinite after step 1, though the loss was not"):
        fit(small_run(Overflows, run__checkpoint_every=1), tmp_path, progress=False)
    assert not list((tmp_path / "checkpoints").iterdir()) and not (tmp_path / "model.safetensors").exists()


def test_a_nan_before_any_checkpoint_says_so():
    with pytest.raises(NonFiniteLoss, match=r"at step 1 .*No checkpoint was written before it"):
        fit(small_run(lambda: Breaks(good=0)), progress=False)


def test_nan_in_the_last_step_is_noticed():
    with pytest.raises(NonFiniteLoss, match="at step 20"):
        fit(small_run(lambda: Breaks(good=19), run__log_every=100), progress=False)
    with pytest.raises(NonFiniteLoss, match="after step 20"):
        fit(small_run(lambda: Breaks(good=19, gradient=True), run__log_every=100), progress=False)


# --- stopping ---------------------------------------------------------------------------------------------------------


class Interrupted(Regression):
    """Sends itself signals within a step."""

    def __init__(self, at: int, *numbers: int) -> None:
        super().__init__()
        self.at, self.numbers = at, numbers

    def loss(self, data: Any, group: str = "model") -> dict[str, Tensor]:
        self.at -= 1
        for number in self.numbers if self.at == 0 else ():
            os.kill(os.getpid(), number)
        return super().loss(data)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_finishes_the_step_and_saves(tmp_path, number):
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match="stopped at step 8; go on with --resume") as caught:
        fit(small_run(lambda: Interrupted(8, number)), tmp_path, progress=False)
    assert caught.value.step == 8 and signal.getsignal(number) is before
    place = load_checkpoint(tmp_path / "checkpoints")[1]["place"]
    assert place.items() >= {"step": 8, "epoch": 1, "batch": 3}.items()
    assert len(lines(tmp_path)) == 8 and not (tmp_path / "model.safetensors").exists()
    assert fit(small_run(Regression), tmp_path, resume=True, progress=False)["steps"] == 20


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(small_run(lambda: Interrupted(8, signal.SIGINT, signal.SIGINT)), tmp_path, progress=False)
    assert not isinstance(caught.value, Stopped)
    assert load_checkpoint(tmp_path / "checkpoints")[1]["place"]["step"] == 6


def test_without_a_folder_ctrl_c_is_the_usual_one():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(small_run(lambda: Interrupted(8, signal.SIGINT)), progress=False)
    signal.signal(signal.SIGINT, before)
    assert not isinstance(caught.value, Stopped)
