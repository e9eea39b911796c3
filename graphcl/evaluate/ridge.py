"""Ridge regression on frozen embeddings, for labels that are values."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from graphcl.evaluate.scores import Scores, check_embeddings, check_split, listed
from graphcl.evaluate.svm import standardised

PROTOCOL = "ridge/clean/1"
Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
STRENGTHS = tuple(10.0**power for power in range(4, -6, -1))  # alpha, from the strongest regularisation on


def ridge(embeddings: Tensor, labels: Tensor, split: Any, *, metric: str = "rmse", seed: int = 0) -> Scores:
    """Ridge regression on the train rows, alpha in 1e4 ... 1e-5 chosen on the validation rows, scored on the test rows.

    Columns and targets are standardised by the train rows alone; errors are in the labels' own unit.  labels: [n] or
    [n, T] values, NaN where unknown; of several tasks alpha is common (lowest mean squared error in train deviations)
    and the mean counts, over those with two different values in train and test; the others are named in a warning.
    metric: "rmse", "mae" or "r2"; the other two are in `also`, and `valid` is the metric on validation.
    seed: nothing is drawn here.

    Raises ValueError for embeddings or labels that are not finite, rows that do not fit, splits as in `linear_probe`.
    """

    def predict(train: Tensor, y: Tensor, other: Tensor) -> Tensor:
        a, b = standardised(train, other)
        return torch.stack([torch.from_numpy(Ridge(alpha=alpha).fit(a, y.numpy()).predict(b)) for alpha in STRENGTHS])

    return values_by_setting("ridge regression", predict, embeddings, labels, split, metric, PROTOCOL)


def values_by_setting(
    name: str, predict: Predict, embeddings: Any, labels: Any, split: Any, metric: str, protocol: str
) -> Scores:
    """Fit `predict` on the train rows, choose its setting on the validation rows, score it on the test rows.

    predict: (train embeddings [n, D], their targets [n], standardised, other embeddings [m, D]) -> [S, m] under each of
    S settings; the first of equals is taken. All else is as in `ridge`.
    """
    if metric not in ERRORS:
        raise ValueError(f"metric must be one of {', '.join(ERRORS)}, got {metric!r}")
    x = check_embeddings(embeddings)
    y = _targets(labels, len(x))
    values: dict[str, list[float]] = {key: [] for key in ERRORS}
    valid = []
    for number, one in enumerate(listed(split)):
        chosen, tested = _one_split(predict, x, y, check_split(one, len(x), f"split {number}"), f"split {number}")
        valid.append(chosen[metric])
        for key, value in tested.items():
            values[key].append(value)
    others = {key: tuple(found) for key, found in values.items() if key != metric}
    return Scores(name, metric, tuple(values[metric]), tuple(valid), protocol, others)


def _one_split(
    predict: Predict, x: Tensor, y: Tensor, parts: dict[str, Tensor], where: str
) -> tuple[dict[str, float], dict[str, float]]:
    """Every metric on validation and on test, under the setting of the lowest squared error on validation."""
    squared, found, left_out = [], [], []
    for task, target in enumerate(y.unbind(1)):
        train, val, test = (rows[~target[rows].isnan()] for rows in parts.values())
        if len(val) == 0 or min(len(target[rows].unique()) for rows in (train, test)) < 2:
            left_out.append(task)
            continue
        centre, scale = target[train].mean(), target[train].std(correction=0)
        made = predict(x[train], (target[train] - centre) / scale, x[torch.cat([val, test])])
        on_val, on_test = (centre + scale * made).split([len(val), len(test)], dim=1)  # [S, v], [S, t]
        squared.append(((on_val - target[val]) / scale).square().mean(1))
        found.append((on_val, target[val], on_test, target[test]))
    if left_out and found:
        warnings.warn(
            f"{where}: tasks {', '.join(map(str, left_out))} of {y.shape[1]} are left out of the mean: no two "
            "different values in train or test, or none in val",
            stacklevel=3,
        )
    if not found:
        raise ValueError(
            f"{where}: no task has two different values in train and test and one in val; use another split or seed"
        )
    best = int(torch.stack(squared).mean(0).argmin())
    chosen = {name: _mean(error(p[best], truth) for p, truth, _, _ in found) for name, error in ERRORS.items()}
    tested = {name: _mean(error(p[best], truth) for _, _, p, truth in found) for name, error in ERRORS.items()}
    return chosen, tested


def _mean(values: Iterable[Tensor]) -> float:
    return float(torch.stack(list(values)).mean())


def _targets(labels: Any, rows: int) -> Tensor:
    """Values [n, T], NaN where unknown."""
    if labels is None:
        raise ValueError("no labels given; the data has no y, so its embeddings can be written but not scored")
    y = torch.as_tensor(labels).detach().cpu().double()
    if y.dim() not in (1, 2) or y.numel() == 0:
        raise ValueError(f"labels must be [n] or [n, T] values, got {tuple(y.shape)}")
    if len(y) != rows:
        raise ValueError(f"embeddings have {rows} rows, labels {len(y)}; give one to each row, NaN where unknown")
    y = y.reshape(rows, -1)
    bad = y.isinf().nonzero()
    if len(bad):
        row, task = bad[0].tolist()
        raise ValueError(f"labels must be finite or NaN; row {row}, task {task} is {float(y[row, task])}")
    return y


def _r2(predicted: Tensor, truth: Tensor) -> Tensor:
    """Share of the variance that is explained; NaN where all values are the same."""
    spread = (truth - truth.mean()).square().sum()
    return torch.where(spread > 0, 1 - (predicted - truth).square().sum() / spread, float("nan"))


ERRORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rmse": lambda predicted, truth: (predicted - truth).square().mean().sqrt(),
    "mae": lambda predicted, truth: (predicted - truth).abs().mean(),
    "r2": _r2,
}
