"""Scores, and the protocol that all evaluations share: fit on train, choose on validation, report on test."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

METRICS = {"accuracy": "accuracy", "roc_auc": "ROC-AUC", "prc_auc": "PRC-AUC"}
RANKED = {"roc_auc": roc_auc_score, "prc_auc": average_precision_score}  # of scores for two classes
NAMES = METRICS | {"average_precision": "AP", "nmi": "NMI", "ari": "ARI", "r2": "R2", "rmse": "RMSE", "mae": "MAE"}
PLAIN = ("r2", "rmse", "mae")  # printed as they are; the others in percent

# (train embeddings [n, D], train classes [n] in 0..K-1, other embeddings [m, D]) -> a score for each class under each
# of S settings, [S, m, K]. It is given no other labels, so it cannot have seen those of the test rows.
Predict = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Scores:
    """A metric on the test rows of each split (`values`) and on the validation rows that chose a setting (`valid`).

    protocol: name/rule/version of the rule that made them, "" for settings that are no named protocol; numbers of two
    protocols are never compared.  also: further metrics on the test rows, by name, one value a split.
    """

    name: str
    metric: str
    values: tuple[float, ...]
    valid: tuple[float, ...]
    protocol: str = ""
    also: Mapping[str, tuple[float, ...]] = field(default_factory=dict, hash=False)

    @property
    def mean(self) -> float:
        """Mean over the splits."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float:
        """Sample standard deviation over the splits; 0 for one split."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    def __str__(self) -> str:
        spread = f" ± {_shown(self.metric, self.std)}" if len(self.values) > 1 else ""
        splits = f"{len(self.values)} split{'s' if len(self.values) > 1 else ''}"
        return f"{self.name} {NAMES.get(self.metric, self.metric)} {_shown(self.metric, self.mean)}{spread} ({splits})"


@dataclass(frozen=True)
class SeedScores:
    """Scores of several seeds: the mean of their means, and how far seeds and splits scatter, told apart."""

    name: str
    metric: str
    protocol: str
    mean: float
    std_seeds: float  # sample standard deviation of the seeds' means; 0 for one seed
    std_splits: float  # mean over the seeds of the standard deviation over their splits
    seeds: int
    splits: int

    def __str__(self) -> str:
        seeds = f" ± {_shown(self.metric, self.std_seeds)} over {self.seeds} seeds" if self.seeds > 1 else ""
        splits = f" ± {_shown(self.metric, self.std_splits)} over {self.splits} splits" if self.splits > 1 else ""
        return f"{self.name} {NAMES.get(self.metric, self.metric)} {_shown(self.metric, self.mean)}{seeds}{splits}"


def over_seeds(scores: Sequence[Scores]) -> SeedScores:
    """Combine the scores of one method under several seeds.

    Raises ValueError if there are none, or if they differ in protocol, metric or number of splits.
    """
    if not scores:
        raise ValueError("no scores given; combine those of at least one seed")
    for what, found in (
        ("protocols", {one.protocol for one in scores}),
        ("names", {one.name for one in scores}),
        ("metrics", {one.metric for one in scores}),
        ("numbers of splits", {len(one.values) for one in scores}),
    ):
        if len(found) > 1:
            raise ValueError(
                f"scores of different {what} cannot be combined: {', '.join(sorted(map(str, found)))}; score all seeds "
                "alike"
            )
    means = [one.mean for one in scores]
    first = scores[0]
    return SeedScores(
        name=first.name,
        metric=first.metric,
        protocol=first.protocol,
        mean=statistics.fmean(means),
        std_seeds=statistics.stdev(means) if len(means) > 1 else 0.0,
        std_splits=statistics.fmean(one.std for one in scores),
        seeds=len(scores),
        splits=len(first.values),
    )


def _shown(metric: str, value: float) -> str:
    return f"{value:.3f}" if metric in PLAIN else f"{100 * value:.2f}"


def evaluate(
    name: str, predict: Predict, embeddings: Any, labels: Any, split: Any, metric: str, protocol: str = ""
) -> Scores:
    """Fit `predict` on the train rows, choose the setting on the validation rows and score it on the test rows.

    The chosen model is not refitted on train and validation together.  embeddings: [n, D].  labels: [n] classes
    (integers), or [n, T] tasks of 0 and 1 with NaN (integers: -1) where unknown; of several tasks the mean counts, over
    those with both classes in train and test, and a warning names the others.  split: one Split or a list of them.

    Raises ValueError for embeddings that are not finite, labels missing in the split, one class only, rows that do not
    fit, parts of a split that are empty or overlap.
    """
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    x = check_embeddings(embeddings)
    tasks = check_classes(labels, len(x))
    valid, values = [], []
    for number, one in enumerate(listed(split)):
        where = f"split {number}"
        parts = check_split(one, len(x), where)
        check_labels(labels, tasks, parts, metric, where)
        chosen, test = _one_split(predict, x, tasks, parts, metric, f"{name}, {where}")
        valid.append(chosen)
        values.append(test)
    return Scores(name, metric, tuple(values), tuple(valid), protocol)


def listed(split: Any) -> list[Any]:
    """One split or several, as a list; ValueError if there is none."""
    splits = [split] if hasattr(split, "train") else list(split)
    if not splits:
        raise ValueError("no split given; make one with graphcl.data.splits, such as make_splits(data, 'random')")
    if not all(hasattr(one, "train") for one in splits):
        raise ValueError(
            f"a split is graphcl.Split(train, val, test) or a list of them, got a {type(split).__name__} of "
            f"{type(splits[0]).__name__}; use graphcl.Split(*parts) for three tensors of row numbers"
        )
    return splits


def _one_split(
    predict: Predict, x: Tensor, tasks: Tensor, parts: dict[str, Tensor], metric: str, where: str
) -> tuple[float, float]:
    """Validation and test score of the setting that is best on validation; of equals the first."""
    valid, tests = [], []
    for task, (train, val, test) in usable_tasks(tasks, parts, metric, where).items():
        y = tasks[:, task]
        classes = y[train].unique()
        other = torch.cat([val, test])
        scores = predict(x[train], torch.searchsorted(classes, y[train]), x[other])  # [S, v + t, K]
        valid.append(measure(metric, scores[:, : len(val)], classes, y[val]))
        tests.append((scores[:, len(val) :], classes, y[test]))
    over_tasks = mean_on_val(valid, metric, where)  # [S]
    best = int(over_tasks.argmax())
    test_scores = [measure(metric, scores[best : best + 1], classes, y) for scores, classes, y in tests]
    return float(over_tasks[best]), float(torch.cat(test_scores).mean())


def usable_tasks(
    tasks: Tensor, parts: dict[str, Tensor], metric: str, where: str, names: Sequence[str] | None = None
) -> dict[int, tuple[Tensor, Tensor, Tensor]]:
    """The tasks that train can teach and test can score, each with its labelled rows of train, val and test.

    tasks: [n, T], -1 where unknown.  A warning gives the others' names (none: numbers); ValueError if all are others.
    """
    usable, left_out = {}, []
    for task, y in enumerate(tasks.unbind(1)):
        train, val, test = (rows[y[rows] >= 0] for rows in parts.values())
        if len(y[train].unique()) < 2 or len(y[test].unique()) < (2 if metric in RANKED else 1):
            left_out.append(str(task) if names is None else names[task])
        else:
            usable[task] = (train, val, test)
    if not usable:
        raise ValueError(
            f"{where}: no task has both classes in train and test; use another split or seed, or more rows"
        )
    if left_out:
        warnings.warn(
            f"{where}: tasks {', '.join(left_out)} of {tasks.shape[1]} are left out of the mean: "
            "only one class in train or test",
            stacklevel=5,
        )
    return usable


def mean_on_val(values: list[Tensor], metric: str, where: str) -> Tensor:
    """Mean [S] over the tasks' validation scores, each [S]; a task that validation cannot score (NaN) has no say."""
    over_tasks = torch.stack(values).nanmean(0)
    if over_tasks.isnan().all():
        found, way = "are all of one class", "use metric='accuracy' or another split"
        if metric not in RANKED:
            found, way = "have no label of a task that counts", "use another split"
        raise ValueError(f"{where}: the validation rows {found}, so {metric} cannot choose the setting; {way}")
    return over_tasks


def measure(metric: str, scores: Tensor, classes: Tensor, y: Tensor) -> Tensor:
    """[S] of scores [S, m, K] for the true classes y [m]; NaN where the metric is not defined."""
    if metric == "accuracy":
        return (classes[scores.argmax(-1)] == y).double().mean(-1)
    if len(y.unique()) < 2:
        return torch.full((len(scores),), float("nan"), dtype=torch.float64)
    truth = (y == classes[1]).numpy()
    return torch.tensor([RANKED[metric](truth, one[:, 1].numpy()) for one in scores], dtype=torch.float64)


def check_embeddings(embeddings: Any) -> Tensor:
    """Embeddings [n, D] on the CPU, float32 or float64."""
    x = torch.as_tensor(embeddings).detach().cpu()
    if x.dim() != 2 or x.numel() == 0:
        raise ValueError(f"embeddings must be [n, D] with n, D > 0, got {tuple(x.shape)}")
    x = x if x.dtype == torch.float64 else x.float()
    bad = (~x.isfinite()).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise ValueError(
            f"embeddings must be finite, row {row} has {float(x[row, column])} in column {column}; "
            "look for NaN or infinity in its features, or lower the learning rate"
        )
    return x


def check_classes(labels: Any, rows: int) -> Tensor:
    """Labels as classes [n, T], -1 where unknown."""
    if labels is None:
        raise ValueError("no labels given; the data has no y, so its embeddings can be written but not scored")
    y = torch.as_tensor(labels).detach().cpu()
    if y.dim() not in (1, 2) or y.numel() == 0:
        raise ValueError(f"labels must be [n] classes or [n, T] tasks, got {tuple(y.shape)}")
    if len(y) != rows:
        raise ValueError(f"embeddings have {rows} rows, labels {len(y)}; give one label to each row, -1 where unknown")
    y = y if y.dim() == 2 else y[:, None]
    if y.is_floating_point():
        y = y.nan_to_num(-1.0, posinf=2.0, neginf=2.0).where(y != -1, 2.0)  # -1 marks NaN only, 2 what is no label
    if y.is_floating_point() or y.shape[1] > 1:
        bad = ((y != 0) & (y != 1) & (y != -1)).nonzero()
        if len(bad):
            row, task = bad[0].tolist()
            got = torch.as_tensor(labels).reshape(len(y), -1)[row, task].item()
            raise ValueError(
                f"labels of several tasks, and float labels, must be 0, 1 or NaN; row {row}, task {task} is {got}; "
                "classes are integers [n], regression is not supported"
            )
    return y.to(torch.int64).clamp(min=-1)


def check_split(split: Any, rows: int, where: str) -> dict[str, Tensor]:
    """The checked row numbers of a split."""
    parts = {}
    for part in ("train", "val", "test"):
        index = torch.as_tensor(getattr(split, part)).cpu()
        if index.numel() == 0:
            raise ValueError(
                f"{where}: {part} is empty; the probe is fitted on train, chosen on val and scored on test, "
                "so give each at least one row"
            )
        if index.dim() != 1 or index.dtype == torch.bool or index.is_floating_point():
            raise ValueError(
                f"{where}: {part} must be row numbers [n], got {index.dtype} {tuple(index.shape)}; "
                "of a mask use mask.nonzero()[:, 0]"
            )
        if int(index.min()) < 0 or int(index.max()) >= rows:
            raise ValueError(
                f"{where}: {part} goes from {int(index.min())} to {int(index.max())}, embeddings have {rows} rows; "
                "is the split of other data?"
            )
        parts[part] = index.long()
    numbers, count = torch.cat(list(parts.values())).unique(return_counts=True)
    if (count > 1).any():
        row = int(numbers[count > 1][0])
        inside = " and ".join(part for part, index in parts.items() if row in index)
        raise ValueError(f"{where}: row {row} stands more than once, in {inside}; the parts must not overlap")
    return parts


def check_labels(labels: Any, tasks: Tensor, parts: dict[str, Tensor], metric: str, where: str) -> None:
    """One task has to be whole: no label missing, two classes at least. Of several tasks some may be left out."""
    if tasks.shape[1] > 1:
        return
    y = tasks[:, 0]
    if not torch.as_tensor(labels).is_floating_point():
        for part, rows in parts.items():
            missing = rows[y[rows] < 0]
            if len(missing):
                raise ValueError(
                    f"{where}: {len(missing)} of {len(rows)} {part} rows have no label (-1), first row "
                    f"{int(missing[0])}; leave them out of the split"
                )
    known = {part: y[rows][y[rows] >= 0].unique() for part, rows in parts.items()}
    if len(every := y[y >= 0].unique()) == 1:
        raise ValueError(
            f"{where}: all labels that are known are of class {int(every)} (-1 is unknown); a probe needs two classes: "
            "leave the labels out to train without scores"
        )
    if len(known["train"]) < 2:
        only = f"class {int(known['train'][0])} only" if len(known["train"]) else "no label"
        raise ValueError(f"{where}: train has {only}; a probe needs two classes: use another split or more train rows")
    if metric in RANKED:
        classes = torch.cat(list(known.values())).unique()
        if len(classes) > 2:
            raise ValueError(
                f"{where}: {metric} needs two classes (or several tasks of 0 and 1), the labels have {len(classes)}; "
                "use metric='accuracy'"
            )
        if len(known["test"]) < 2:
            raise ValueError(
                f"{where}: {metric} is not defined, all test rows are of one class; "
                "use metric='accuracy' or another split"
            )
