"""What labels ask of a model: how many outputs, which loss, which scores. Classes, tasks of 0 and 1, or values."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from graphcl.evaluate.ridge import ERRORS, _targets
from graphcl.evaluate.scores import (
    METRICS,
    RANKED,
    check_classes,
    check_labels,
    check_split,
    mean_on_val,
    measure,
    usable_tasks,
)

VALUE_METRICS = ("rmse", "mae")
FINE_TUNING_METRICS = (*METRICS, *VALUE_METRICS)


class Judged(NamedTuple):
    """How good the outputs for the rows of validation and test are."""

    choice: float  # what chooses the epoch: of validation, higher is better
    val: float
    test: float
    also: dict[str, float]  # further metrics on test


class Classes:
    """One class a row: cross entropy. Or several tasks of 0 and 1: binary cross entropy over the known labels.

    tasks: [n, T], -1 where unknown.  parts: rows of train, val and test.  Of several tasks the mean counts, over those
    with both classes in train and test; a warning names the others, and of them nothing is learned.

    width: outputs of the model, K or T.  train: rows with a label to learn from.  other: rows of val, then test.
    """

    def __init__(
        self,
        tasks: Tensor,
        parts: dict[str, Tensor],
        metric: str,
        where: str,
        device: torch.device,
        names: Sequence[str] | None = None,
    ) -> None:
        self.tasks, self.metric, self.where = tasks, metric, where
        self.usable = usable_tasks(tasks, parts, metric, where, names)
        self.train = torch.cat([rows for rows, _, _ in self.usable.values()]).unique()
        self.other = torch.cat([parts["val"], parts["test"]])
        self.classes = tasks[self.train].unique() if tasks.shape[1] == 1 else torch.tensor([0, 1])
        self.width = len(self.classes) if tasks.shape[1] == 1 else tasks.shape[1]
        # Only rows of train have a label here.
        seen = torch.full_like(tasks, -1)
        for task, (rows, _, _) in self.usable.items():
            seen[rows, task] = torch.searchsorted(self.classes, tasks[rows, task])
        self.seen = seen.to(device)

    def loss(self, out: Tensor, rows: Tensor) -> Tensor:
        """Mean loss over the known labels; out: [b, K or T] of the train rows [b]."""
        y = self.seen[rows]
        if y.shape[1] == 1:
            return F.cross_entropy(out, y[:, 0])
        known = y >= 0
        each = F.binary_cross_entropy_with_logits(out, y.clamp(min=0).to(out.dtype), reduction="none")
        return (each * known).sum() / known.sum().clamp(min=1)

    def judge(self, out: Tensor, also: bool = False) -> Judged:
        """Mean scores over the tasks; out: [v + t, K or T] of the rows `other`.  also: more metrics than the one."""
        out = finite(out, self.where)
        place = places(self.other, len(self.tasks))
        metrics = [self.metric, *(RANKED if also and self.metric in RANKED else ())]
        on_val: list[Tensor] = []
        on_test: dict[str, list[Tensor]] = {metric: [] for metric in metrics}
        for task, (_, val, test) in self.usable.items():
            if self.tasks.shape[1] == 1:
                values = out.log_softmax(1)
            else:
                values = torch.stack([-out[:, task], out[:, task]], dim=1)
            on_val.append(measure(self.metric, values[place[val]][None], self.classes, self.tasks[val, task]))
            for metric, into in on_test.items():
                into.append(measure(metric, values[place[test]][None], self.classes, self.tasks[test, task]))
        valid = float(mean_on_val(on_val, self.metric, self.where)[0])
        tested = {metric: float(torch.cat(values).mean()) for metric, values in on_test.items()}
        return Judged(valid, valid, tested.pop(self.metric), tested)


class Values:
    """Values [n, T], NaN where unknown: mean squared error on targets standardised by the train rows alone.

    Errors are in the targets' own units; the mean over the tasks counts, over those with two different values in train
    and test and one in val, and a warning names the others. The epoch is chosen by the errors in train deviations.

    width, train, other: as of `Classes`.  centre, scale: [T], of the train rows; 0 and 1 for a task that is left out.
    """

    def __init__(
        self,
        targets: Tensor,
        parts: dict[str, Tensor],
        metric: str,
        where: str,
        device: torch.device,
        names: Sequence[str] | None = None,
    ) -> None:
        self.targets, self.metric, self.where = targets, metric, where
        self.width = targets.shape[1]
        self.other = torch.cat([parts["val"], parts["test"]])
        self.centre, self.scale = targets.new_zeros(self.width), targets.new_ones(self.width)
        self.usable: dict[int, tuple[Tensor, Tensor]] = {}
        seen = torch.full_like(targets, float("nan"))
        left_out = []
        for task, target in enumerate(targets.unbind(1)):
            train, val, test = (rows[~target[rows].isnan()] for rows in parts.values())
            if len(val) == 0 or min(len(target[rows].unique()) for rows in (train, test)) < 2:
                left_out.append(str(task) if names is None else names[task])
                continue
            self.usable[task] = val, test
            self.centre[task], self.scale[task] = target[train].mean(), target[train].std(correction=0)
            seen[train, task] = (target[train] - self.centre[task]) / self.scale[task]
        if not self.usable:
            raise ValueError(
                f"{where}: no task has two different values in train and test and one in val; use another split or seed"
            )
        if left_out:
            warnings.warn(
                f"{where}: tasks {', '.join(left_out)} of {self.width} are left out of the mean: no two different "
                "values in train or test, or none in val",
                stacklevel=5,
            )
        self.train = (~seen.isnan()).any(1).nonzero()[:, 0]
        self.seen = seen.float().to(device)

    def loss(self, out: Tensor, rows: Tensor) -> Tensor:
        """Mean squared error over the known values; out: [b, T] of the train rows [b], standardised."""
        y = self.seen[rows]
        known = ~y.isnan()
        each = (out - torch.where(known, y, 0)).square() * known
        return each.sum() / known.sum().clamp(min=1)

    def judge(self, out: Tensor, also: bool = False) -> Judged:
        """Mean errors over the tasks; out: [v + t, T] of the rows `other`, standardised."""
        made = self.centre + self.scale * finite(out, self.where)
        place = places(self.other, len(self.targets))
        choice, valid = [], []
        tested: dict[str, list[Tensor]] = {metric: [] for metric in (VALUE_METRICS if also else (self.metric,))}
        for task, (val, test) in self.usable.items():
            valid.append(ERRORS[self.metric](made[place[val], task], self.targets[val, task]))
            choice.append(-valid[-1] / self.scale[task])
            for metric, into in tested.items():
                into.append(ERRORS[metric](made[place[test], task], self.targets[test, task]))
        means = {metric: float(torch.stack(values).mean()) for metric, values in tested.items()}
        return Judged(
            float(torch.stack(choice).mean()), float(torch.stack(valid).mean()), means.pop(self.metric), means
        )


Task = Classes | Values


def make_task(
    labels: Any,
    rows: int,
    split: Any,
    metric: str,
    where: str,
    device: torch.device,
    names: Sequence[str] | None = None,
) -> Task:
    """The task of these labels under one split; the metric says whether they are classes or values.

    labels: [n] classes, or [n, T] tasks of 0 and 1 (NaN: unknown), or with rmse and mae [n] or [n, T] values (NaN:
    unknown).  names: of the tasks, for the warning. Raises ValueError for labels and splits that do not fit.
    """
    if metric not in FINE_TUNING_METRICS:
        raise ValueError(f"metric must be one of {', '.join(FINE_TUNING_METRICS)}, got {metric!r}")
    if metric in VALUE_METRICS:
        targets = _targets(labels, rows)
        return Values(targets, check_split(split, rows, where), metric, f"fine-tuning, {where}", device, names)
    tasks = check_classes(labels, rows)
    parts = check_split(split, rows, where)
    check_labels(labels, tasks, parts, metric, where)
    return Classes(tasks, parts, metric, f"fine-tuning, {where}", device, names)


def finite(out: Tensor, where: str) -> Tensor:
    """The outputs on the CPU, float64; ValueError if they are not finite."""
    if not bool(out.isfinite().all()):
        raise ValueError(f"{where}: the model's output is not finite; look for NaN in x, or lower lr")
    return out.double().cpu()


def places(rows: Tensor, n: int) -> Tensor:
    """[n], where each row number stands in `rows`; -1 where it does not."""
    return torch.full((n,), -1).scatter_(0, rows, torch.arange(len(rows)))
