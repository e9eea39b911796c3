"""The targets of an assay one by one: how many labels each part of the split has of them, and their scores on test."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from graphcl.data.splits import Split
from graphcl.evaluate.ridge import ERRORS
from graphcl.evaluate.scores import RANKED

ADVICE = "use another --split (random_scaffold, random) or --split-seed, or more molecules"
FEW = 10  # below so many of the rarer class, or values, a score on test says little


def counts(y: Tensor, targets: Sequence[str], split: Split, *, classes: bool) -> dict[str, dict[str, list[int]]]:
    """How many molecules have a value of each target in each part: [known], of classes [inactive, active].

    y: [B, T], NaN where unknown.
    """
    found: dict[str, dict[str, list[int]]] = {}
    for name, column in zip(targets, y.unbind(1), strict=True):
        of_parts = {part: column[rows] for part, rows in split._asdict().items()}
        found[name] = {
            part: [int((known == 0).sum()), int((known == 1).sum())] if classes else [int((~known.isnan()).sum())]
            for part, known in of_parts.items()
        }
    return found


def check_counts(
    found: Mapping[str, Mapping[str, Sequence[int]]], metric: str, where: str, advice: str = ADVICE
) -> None:
    """ValueError where no target can be learned and scored; a warning that names those of which a part has few."""
    if not any(enough(parts["train"]) and enough(parts["test"]) for parts in found.values()):
        told = "; ".join(f"{name}: {said(parts)}" for name, parts in list(found.items())[:3])
        raise ValueError(f"{where}: no target has two values, of classes both, in train and test ({told}); {advice}")
    if metric in RANKED and not any(min(parts["val"]) for parts in found.values()):
        told = "; ".join(f"{name}: {said(parts)}" for name, parts in list(found.items())[:3])
        raise ValueError(
            f"{where}: the validation molecules are all of one class ({told}), so {metric} cannot choose the epoch; "
            f"{advice}, or --metric accuracy"
        )
    few = [name for name, parts in found.items() if min(min(parts["val"]), min(parts["test"])) < FEW]
    if few:
        told = "; ".join(f"{name}: {said(found[name])}" for name in few[:3])
        warnings.warn(
            f"{where}: {told}{' and more' if len(few) > 3 else ''}; under {FEW} of a kind in val or test a score, and "
            f"the choice of the epoch, is mostly chance; {advice}",
            stacklevel=3,
        )


def enough(numbers: Sequence[int]) -> bool:
    """Whether a part can be learned from or scored: two values, or a molecule of each class."""
    return min(numbers) >= (2 if len(numbers) == 1 else 1)


def said(parts: Mapping[str, Sequence[int]]) -> str:
    """`train 90 + 14, val 12 + 1, test 11 + 2`: inactive and active molecules, or how many have a value."""
    return ", ".join(f"{part} {' + '.join(f'{count:,}' for count in numbers)}" for part, numbers in parts.items())


def scores_by_target(
    y: Tensor, targets: Sequence[str], test: Tensor, made: Tensor, metrics: Sequence[str]
) -> dict[str, dict[str, list[float]]]:
    """The metrics on the test rows for each target that they are defined for, one value a training.

    y: [B, T], NaN where unknown.  made: [S, t, T], predictions of S trainings (of classes probabilities) for the rows
    `test`.  metrics: of "roc_auc", "prc_auc", "accuracy", or of "rmse", "mae".
    """
    found: dict[str, dict[str, list[float]]] = {}
    for place, name in enumerate(targets):
        truth = y[test, place]
        known = ~truth.isnan()
        one_class = len(truth[known].unique()) < 2
        learned = bool(made[:, known, place].isfinite().all())  # a target that was left out has no predictions
        if not bool(known.any()) or not learned or (one_class and "rmse" not in metrics):
            continue
        each = [one[known, place].double() for one in made]
        found[name] = {metric: [_measured(metric, truth[known].double(), one) for one in each] for metric in metrics}
    return found


def _measured(metric: str, truth: Tensor, made: Tensor) -> float:
    if metric in ERRORS:
        return float(ERRORS[metric](made, truth))
    if metric == "accuracy":
        return float(((made > 0.5) == (truth == 1)).double().mean())
    return float(RANKED[metric]((truth == 1).numpy(), made.numpy()))


def table_of_targets(report: Mapping[str, Any], show: Any, head: Mapping[str, str]) -> list[str]:
    """Lines of a Markdown table: each target with its counts, and its score by each model; empty for one target."""
    if len(report["counts"]) < 2:
        return []
    metric, models = report["metric"], list(report["by_target"])
    parts = "/".join(Split._fields)
    kind = "inactive + active" if report["kind"] == "classification" else "values"
    names = [f"{model}: {head[metric]}" for model in models]
    lines = [["target", f"{kind}, {parts}", *names], ["---"] * (2 + len(names))]
    for name, numbers in report["counts"].items():
        scored = [report["by_target"][model].get(name) for model in models]
        cells = [show(metric, one[metric]) if one else "" for one in scored]
        lines.append([name, " / ".join(" + ".join(f"{n:,}" for n in numbers[part]) for part in Split._fields), *cells])
    return ["| " + " | ".join(cells) + " |" for cells in lines]
