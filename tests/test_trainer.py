"""The loop against loops written out by hand, its errors, and what it writes."""

from __future__ import annotations

import copy
import functools
import json
import math
import sys
import types
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from small_run import Momentum, Rows, full_disk, small_config, small_run
from torch import Tensor, nn

from graphcl.checkpoint import CheckpointError, load_checkpoint
from graphcl.methods.method import Method
from graphcl.trainer import fit, lr_scale


class Regression(Method):
    """Learns y = sum of the columns."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 1)
        self.types: set[torch.dtype] = set()

    def loss(self, data: Any, group: str = "model") -> dict[str, Tensor]:
        out = self.layer(data.x)[:, 0]
        self.types.add(out.dtype)
        return {"loss": (out - data.x.sum(1)).square().mean()}


class MinMax(Method):
    """Two players on one product; each must see the gradient of its own loss only."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.views = nn.Linear(6, 3), nn.Linear(6, 3)

    def groups(self) -> dict[str, Iterable[nn.Parameter]]:
        return {"encoder": self.encoder.parameters(), "views": self.views.parameters()}

    def loss(self, data: Any, group: str = "encoder") -> dict[str, Tensor]:
        agree = (self.encoder(data.x) * self.views(data.x).tanh()).sum(1)
        sign = -1.0 if group == "encoder" else 1.0
        return {"loss": (sign * agree + agree.square()).mean(), "agree": agree.mean()}


def lines(folder: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# --- the loop ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("accumulate, clip", [(1, None), (2, None), (3, 0.05)])
def test_fit_equals_a_loop_written_by_hand(optimizer, accumulate, clip):
    settings = {"train__lr": 0.05, "train__weight_decay": 0.1, "train__optimizer": optimizer}
    run = small_run(Regression, train__accumulate=accumulate, train__clip=clip, **settings)
    hand, loader = copy.deepcopy(run.method), Rows()
    kind = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "sgd": functools.partial(torch.optim.SGD, momentum=0.9),
    }[optimizer]
    stepper = kind(hand.parameters(), lr=0.05, weight_decay=0.1)
    steps = 0
    for epoch in range(4):
        batches = list(loader.epoch(epoch))
        for first in range(0, 5, accumulate):
            group = batches[first : first + accumulate]  # the last one of an epoch may be short, and steps all the same
            stepper.zero_grad()
            (sum(hand.loss(batch)["loss"] for batch in group) / len(group)).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(hand.parameters(), clip)
            stepper.step()
            steps += 1
    summary = fit(run, progress=False)
    assert summary["steps"] == steps and summary["epochs"] == 4
    assert math.isfinite(summary["loss"]) and summary["items_per_second"] > 0 and summary["peak_memory_mb"] > 0
    for ours, theirs in zip(run.method.parameters(), hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_each_player_takes_its_own_step(tmp_path):
    run = small_run(MinMax, train__optimizer="sgd", train__lr=0.02, train__group_lr={"views": 0.05})
    hand, loader = copy.deepcopy(run.method), Rows()
    players = {
        "encoder": torch.optim.SGD(hand.encoder.parameters(), lr=0.02, momentum=0.9),
        "views": torch.optim.SGD(hand.views.parameters(), lr=0.05, momentum=0.9),
    }
    for epoch in range(4):
        for batch in loader.epoch(epoch):
            for name, stepper in players.items():
                hand.zero_grad()
                hand.loss(batch, name)["loss"].backward()
                stepper.step()
                if name == "encoder":
                    last = hand.encoder.weight.grad.clone()
    fit(run, tmp_path, progress=False)
    for ours, theirs in zip(run.method.parameters(), hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(run.method.encoder.weight.grad, last)  # the views' loss left none of its own there
    assert all(parameter.requires_grad for parameter in run.method.parameters())
    keys = ["step", "epoch", "lr", "loss", "encoder.loss", "encoder.agree", "views.loss", "views.agree"]
    assert all(list(line) == keys and line["loss"] == line["encoder.loss"] for line in lines(tmp_path))


def test_the_hooks_are_called_in_order():
    calls: list[Any] = []

    class Watching(Regression):
        def before_epoch(self, loader: Any, epoch: int) -> None:
            calls.append(("before", epoch, torch.cat([data.n_id for data in loader]).tolist() == list(range(20))))

        def after_step(self, progress: float) -> None:
            calls.append(("step", progress))

        def after_epoch(self, metrics: dict[str, float]) -> None:
            calls.append(("after", metrics))

        def loss(self, data: Any, group: str = "model") -> dict[str, Tensor]:
            assert self.training
            return super().loss(data) | {"size": torch.tensor(float(len(data.x))), "two": 2.0}

    fit(small_run(Watching, train__epochs=2), progress=False)
    assert [call[0] for call in calls] == (["before"] + ["step"] * 5 + ["after"]) * 2
    assert [call[1:] for call in calls if call[0] == "before"] == [(0, True), (1, True)]
    assert [call[1] for call in calls if call[0] == "step"] == [pytest.approx(step / 10) for step in range(1, 11)]
    means = [call[1] for call in calls if call[0] == "after"]
    assert all(mean["size"] == 4.0 and mean["two"] == 2.0 for mean in means) and means[1]["loss"] < means[0]["loss"]


def test_the_means_are_those_of_the_epoch(tmp_path):
    seen: list[dict[str, float]] = []

    class Watching(Regression):
        def after_epoch(self, metrics: dict[str, float]) -> None:
            seen.append(metrics)

    fit(small_run(Watching, run__log_every=3), tmp_path, progress=False)
    for epoch, means in enumerate(seen, start=1):
        losses = [line["loss"] for line in lines(tmp_path) if line["epoch"] == epoch]
        assert len(losses) == 5 and means["loss"] == pytest.approx(sum(losses) / 5)
    assert len(seen) == 4


def test_max_steps_ends_the_run(tmp_path):
    summary = fit(small_run(train__max_steps=7), tmp_path, progress=False)
    assert summary["steps"] == 7 and summary["epochs"] == 1 and len(lines(tmp_path)) == 7
    place = load_checkpoint(tmp_path / "checkpoints")[1]["place"]
    assert place.items() >= {"step": 7, "epoch": 1, "batch": 2}.items()


def test_equal_seeds_give_equal_runs_and_others_do_not():
    weights = []
    for seed in (0, 0, 1):
        run = small_run(lambda: Momentum(dropout=0.5), train__seed=seed)
        fit(run, progress=False)
        weights.append(run.method.encoder[0].weight)
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_library_use_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(small_run(), progress=False)
    assert not list(tmp_path.iterdir())


def test_bf16_runs_the_loss_under_autocast():
    run = small_run(Regression, train__precision="bf16-mixed")
    fit(run, progress=False)
    assert run.method.types == {torch.bfloat16} and run.method.layer.weight.dtype == torch.float32


def test_compile_gives_the_same_weights(monkeypatch):
    plain, fast = small_run(Regression), small_run(Regression, train__compile=True)
    graphs = []

    def backend(graph: Any, example: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    for run in (plain, fast):
        fit(run, progress=False)
    assert graphs and "forward" not in vars(fast.method.layer)
    torch.testing.assert_close(plain.method.layer.weight, fast.method.layer.weight)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["32", "bf16-mixed", "16-mixed"])
def test_fit_on_cuda(precision, tmp_path):
    settings = {"train__device": "cuda", "train__precision": precision, "train__clip": 1.0, "train__epochs": 20}
    run = small_run(Regression, **settings)
    fit(run, tmp_path, progress=False)
    losses = [line["loss"] for line in lines(tmp_path)]
    assert sum(losses[-5:]) < sum(losses[:5]) and run.method.layer.weight.is_cuda
    fit(small_run(Regression, **settings | {"train__epochs": 25}), tmp_path, resume=True, progress=False)
    assert len(lines(tmp_path)) == 125


# --- learning rate ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("warmup, total", [(0, 10), (4, 10), (10, 10), (20, 10), (0, 1)])
def test_warmup_is_linear_and_cosine_falls(warmup, total):
    train = small_config(train__warmup=warmup, train__schedule="cosine").train
    scales = [lr_scale(done, total, train) for done in range(total)]
    rising, falling = scales[:warmup], scales[warmup:]
    assert rising == pytest.approx([(done + 1) / warmup for done in range(min(warmup, total))] if warmup else [])
    assert falling == sorted(falling, reverse=True) and all(0 < scale <= 1 for scale in scales)
    if falling:
        assert falling[0] == 1.0


def test_cosine_is_a_half_cosine_and_constant_is_constant():
    cosine, constant = small_config(train__schedule="cosine").train, small_config(train__warmup=2).train
    for done in range(8):
        assert lr_scale(done, 8, cosine) == pytest.approx((1 + math.cos(math.pi * done / 8)) / 2)
    assert [lr_scale(done, 5, constant) for done in range(5)] == [0.5, 1, 1, 1, 1]


def test_the_learning_rates_are_logged_as_used(tmp_path):
    settings = {"train__warmup": 3, "train__schedule": "cosine", "train__lr": 0.2}
    fit(small_run(Regression, **settings), tmp_path, progress=False)
    train = small_config(**settings).train
    assert [line["lr"] for line in lines(tmp_path)] == [0.2 * lr_scale(done, 20, train) for done in range(20)]


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"train__precision": "16-mixed"}, r"16-mixed needs a CUDA device; on a CPU use bf16-mixed or 32"),
        ({"train__group_lr": {"modl": 0.1}}, r"train.group_lr: unknown group 'modl'; did you mean 'model'\?"),
        ({"train__group_lr": {"views": 0.1}}, r"unknown group 'views'; Regression has: model"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        fit(small_run(Regression, **settings), progress=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_cuda_is_refused():
    with pytest.raises(ValueError, match=r"train.device=cuda, but torch finds no CUDA device here"):
        fit(small_run(train__device="cuda"), progress=False)


def test_a_method_without_weights_or_loss_is_refused():
    frozen = Regression()
    frozen.requires_grad_(False)
    with pytest.raises(ValueError, match="group 'model' of Regression has no parameter that requires a gradient"):
        fit(small_run(lambda: frozen), progress=False)

    class Wrong(Regression):
        def loss(self, data: Any, group: str = "model") -> Any:
            return super().loss(data)["loss"]

    with pytest.raises(ValueError, match=r"loss\(\) must return a dict with the key 'loss', got tensor"):
        fit(small_run(Wrong), progress=False)


def test_no_batches_is_refused():
    with pytest.raises(ValueError, match="the loader has no batches"):
        fit(small_run(loader=Rows(0)), progress=False)


def test_a_run_is_not_written_over(tmp_path):
    fit(small_run(), tmp_path, progress=False)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match=r"holds a run already \(step-00000020.ckpt\); go on with --resume"):
        fit(small_run(), tmp_path, progress=False)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_unwritable_folder_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"cannot write to the run folder .*run.dir="):
        fit(small_run(), tmp_path / "file" / "run", progress=False)


# --- what is seen -----------------------------------------------------------------------------------------------------


def test_progress_is_a_line_each_tenth_where_there_is_no_terminal(capsys):
    fit(small_run(train__epochs=8))
    shown = capsys.readouterr()
    assert shown.out == "" and len(shown.err.splitlines()) == 10
    assert shown.err.splitlines()[-1].startswith("step 40/40  epoch 8")
    assert "graphs/s" in shown.err and "loss " in shown.err
    fit(small_run(), progress=False)
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err == ""


def test_progress_is_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes this for a terminal
    fit(small_run(train__epochs=8))
    shown = capsys.readouterr().err
    assert "epoch 8" in shown and "40/40" in shown and "graphs/s" in shown and "loss" in shown


def test_tensorboard_that_is_not_installed_is_named_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"pip install graphcl\[tensorboard\]"):
        fit(small_run(run__tensorboard=True), tmp_path, progress=False)


def test_tensorboard_gets_every_value(tmp_path, monkeypatch):
    written: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path / "tensorboard")

        def add_scalar(self, *values: Any) -> None:
            written.append(values)

        def close(self) -> None:
            written.append(("closed", 0, 0))

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    fit(small_run(run__tensorboard=True), tmp_path, progress=False)
    assert written.pop()[0] == "closed"
    expected = [
        (key, value, line["step"])
        for line in lines(tmp_path)
        for key, value in line.items()
        if key in {"lr", "loss", "length"}
    ]
    assert written == expected


@pytest.mark.parametrize("every, name", [(3, "step-00000003.ckpt"), (1000, "metrics.jsonl")])
def test_a_full_disk_is_a_clear_error_and_can_be_resumed_from(tmp_path, every, name):
    fit(small_run(), tmp_path / "whole", progress=False)
    with full_disk(1000), pytest.raises(CheckpointError, match=rf"{name} could not be written: .*Make room .*--resume"):
        fit(small_run(run__checkpoint_every=every), tmp_path / "full", progress=False)
    with pytest.warns(UserWarning, match="has no checkpoint yet; starting from the beginning"):
        fit(small_run(), tmp_path / "full", resume=True, progress=False)
    assert lines(tmp_path / "full") == lines(tmp_path / "whole")
