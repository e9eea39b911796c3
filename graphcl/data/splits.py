"""Splits into training, validation and test rows: public, at random, few labels, folds, a rate of labels, scaffolds."""

from __future__ import annotations

import warnings
from typing import Literal, NamedTuple

import torch
from sklearn.model_selection import StratifiedKFold
from torch import Tensor
from torch_geometric.data import Data

from graphcl.data.store import GraphStore


class Split(NamedTuple):
    """Row numbers (int64) of nodes or graphs."""

    train: Tensor
    val: Tensor
    test: Tensor


def public_split(data: Data) -> list[Split]:
    """The splits that the data came with: train_mask, val_mask, test_mask, each [N] or [N, k] (k splits)."""
    masks = [mask for part in ("train", "val", "test") if (mask := getattr(data, f"{part}_mask", None)) is not None]
    if len(masks) < 3:
        raise ValueError("the data has no public split (train_mask, val_mask, test_mask); use data.split=random or few")
    columns = [mask if mask.dim() == 2 else mask[:, None] for mask in masks]
    k = max(column.shape[1] for column in columns)
    for part, column in zip(("train", "val", "test"), columns, strict=True):
        if column.shape[1] not in (1, k) or column.dtype != torch.bool:
            raise ValueError(f"{part}_mask must be bool [N] or [N, {k}], got {column.dtype} {tuple(column.shape)}")
    columns = [column.expand(-1, k) for column in columns]
    return [Split(*(column[:, i].nonzero()[:, 0] for column in columns)) for i in range(k)]


def random_split(
    n: int, seed: int, repeats: int = 1, ratios: tuple[float, float, float] = (0.1, 0.1, 0.8)
) -> list[Split]:
    """Rows 0..n-1 at random into shares for training, validation and test, each at least one row."""
    if min(ratios) <= 0 or abs(sum(ratios) - 1) > 1e-6:
        raise ValueError(f"ratios must be three positive shares that sum to 1, got {ratios}")
    if n < 3:
        raise ValueError(
            f"{n} rows with a label cannot be split into training, validation and test; at least 3 are needed"
        )
    generator = torch.Generator().manual_seed(seed)
    train = min(max(round(n * ratios[0]), 1), n - 2)
    val = min(max(round(n * ratios[1]), 1), n - 1 - train)
    orders = [torch.randperm(n, generator=generator) for _ in range(repeats)]
    return [Split(order[:train], order[train : train + val], order[train + val :]) for order in orders]


def few_split(y: Tensor, per_class: int, seed: int, repeats: int = 1, val: int = 500, test: int = 1000) -> list[Split]:
    """`per_class` training rows of each class; `val` and `test` rows of the others.

    y: [N] classes, -1 where unknown.  Where fewer rows are left, a third is for validation and the rest for the test.
    """
    classes = _classes(y, "few")
    generator = torch.Generator().manual_seed(seed)
    present, counts = (found.tolist() for found in classes[classes >= 0].unique(return_counts=True))
    for c, count in zip(present, counts, strict=True):
        if count < per_class:
            raise ValueError(
                f"class {c} has {count} labelled rows, per_class={per_class} needs more; set a smaller data.per_class"
            )
    left = sum(counts) - per_class * len(present)
    if left < 2:
        way = "set a smaller data.per_class" if per_class > 1 else "label more rows"
        raise ValueError(f"per_class={per_class} leaves {left} rows for validation and test; {way}")
    if left < val + test:
        val = max(left // 3, 1)
        test = left - val
    splits = []
    for _ in range(repeats):
        order = torch.randperm(len(classes), generator=generator)
        order = order[classes[order] >= 0]
        chosen = torch.cat([(classes[order] == c).nonzero()[:per_class, 0] for c in present])
        rest = torch.ones(len(order), dtype=torch.bool)
        rest[chosen] = False
        others = order[rest]
        splits.append(Split(order[chosen], others[:val], others[val : val + test]))
    return splits


def kfold_split(y: Tensor, folds: int, seed: int) -> list[Split]:
    """Stratified folds: fold i is the test set, fold i + 1 the validation set, the others are for training.

    y: [N] classes, -1 where unknown (left out).
    """
    if folds < 3:
        raise ValueError(f"kfold needs at least 3 folds (training, validation, test), got {folds}; set data.repeats=10")
    classes = _classes(y, "kfold")
    rows = (classes >= 0).nonzero()[:, 0]
    present, counts = classes[rows].unique(return_counts=True)
    least, c = int(counts.min()), int(present[counts.argmin()])
    if least < folds:
        ways = f"set data.repeats={least}" if least >= 3 else "make its rows unknown (-1) or use data.split=random"
        raise ValueError(f"class {c} has {least} labelled rows, {folds} folds need {folds}; {ways}")
    generator = torch.Generator().manual_seed(seed)
    state = int(torch.randint(2**31 - 1, (1,), generator=generator))
    cut = StratifiedKFold(folds, shuffle=True, random_state=state).split(rows.numpy(), classes[rows].numpy())
    parts = [rows[torch.from_numpy(test)] for _, test in cut]
    splits = []
    for i in range(folds):
        val = (i + 1) % folds
        train = torch.cat([part for j, part in enumerate(parts) if j not in (i, val)]).sort().values
        splits.append(Split(train, parts[val], parts[i]))
    return splits


def rate_split(y: Tensor, rate: float, folds: int, seed: int) -> list[Split]:
    """The folds of `kfold_split`, with a share `rate` of the training rows of each class kept, at least one.

    As semi-supervised GraphCL has it (1 % and 10 % of each training fold), but for the fold that is for validation.
    y: [N] classes, -1 where unknown.  rate in (0, 1].
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate must be in (0, 1], got {rate!r}; 0.01 and 0.1 are usual")
    generator = torch.Generator().manual_seed(seed)
    splits = []
    for train, val, test in kfold_split(y, folds, seed):
        order = train[torch.randperm(len(train), generator=generator)]
        splits.append(Split(_kept(order, y, rate), val, test))
    return splits


def share_of(train: Tensor, y: Tensor, rate: float, seed: int) -> Tensor:
    """A share `rate` of the training rows that have a label, drawn at random; at least one.

    y: [N] classes: the share is of each class.  [N] or [N, T] float: rows with at least one known label count alike.
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate must be in (0, 1], got {rate!r}; 0.01 and 0.1 are usual")
    if not isinstance(y, Tensor):
        raise TypeError(f"labels must be a tensor [N], got {type(y).__name__}; use torch.as_tensor(labels)")
    y = y.cpu()
    order = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))]
    order = order[_labelled(y)[order]]
    return _kept(order, y if y.dim() == 1 and not y.is_floating_point() else torch.zeros(len(y)), rate)


def _kept(order: Tensor, y: Tensor, rate: float) -> Tensor:
    """The first of each class in that order, sorted."""
    of_class = [order[y[order] == c] for c in y[order].unique()]
    return torch.cat([rows[: max(round(rate * len(rows)), 1)] for rows in of_class]).sort().values


def make_splits(
    source: Data | GraphStore,
    kind: Literal["public", "random", "few", "scaffold", "random_scaffold", "scaffold_rate", "kfold", "rate"],
    *,
    seed: int = 0,
    repeats: int = 1,
    per_class: int = 20,
    rate: float = 0.1,
    ratios: tuple[float, float, float] | None = None,
) -> list[Split]:
    """Splits as the config names them; `repeats` draws (random, few, random_scaffold, scaffold_rate) or folds (kfold,
    rate).

    public and scaffold are fixed: they give what there is, whatever `repeats` says. Only rows with a label take part;
    the scaffold splits are drawn over all molecules, and of one target those that it has no label for are left out
    then, unless it has none at all. Draw i under random_scaffold and scaffold_rate has the seed `seed` + i,
    so seeds must be `repeats` apart to share none.
    rate: share of the training rows that rate and scaffold_rate keep, of each class where there is one a row.
    ratios: shares for training, validation and test; None: 10/10/80 under random, as node classification has it, and
    80/10/10 under the scaffold splits, as molecules have it.
    """
    if ratios is not None and kind != "random" and "scaffold" not in kind:
        raise ValueError(f"data.ratios={ratios} is for the splits random and those by scaffold, not {kind}")
    if kind == "public":
        if isinstance(source, GraphStore) and source.name.startswith("ogbg-mol"):
            from graphcl.data.ogb import ogb_split  # rdkit

            return [ogb_split(source.name, len(source))]
        if isinstance(source, GraphStore):
            raise ValueError(
                f"{source.name} has no public split; use data.split=random, kfold, or scaffold (molecules)"
            )
        return public_split(source)
    if kind in ("random_scaffold", "scaffold_rate") and repeats > 1 and seed % repeats:
        warnings.warn(
            f"draw i of data.split={kind} has the seed {seed} + i, so seeds less than data.repeats={repeats} apart "
            f"share draws; take multiples of {repeats} as seeds",
            stacklevel=2,
        )
    if "scaffold" in kind:
        if not isinstance(source, GraphStore) or source.smiles is None:
            raise ValueError(f"data.split={kind} needs molecules (SMILES); use random, few or kfold")
        from graphcl.data.scaffolds import random_scaffold_split, scaffold_split  # rdkit

        shares = ratios or (0.8, 0.1, 0.1)
        if kind == "random_scaffold":
            return [_measured(random_scaffold_split(source.smiles, seed + i, shares), source.y) for i in range(repeats)]
        train, val, test = _measured(scaffold_split(source.smiles, shares), source.y)
        if kind == "scaffold":
            return [Split(train, val, test)]
        if source.y is None:
            raise ValueError("data.split=scaffold_rate needs labels, the data has none")
        return [Split(share_of(train, source.y, rate, seed + i), val, test) for i in range(repeats)]
    if source.y is None:
        raise ValueError(f"data.split={kind} needs labels, the data has none")
    y = source.y.cpu()
    if kind == "random":
        rows = _labelled(y).nonzero()[:, 0]
        shares = ratios or (0.1, 0.1, 0.8)
        return [Split(*(rows[part] for part in split)) for split in random_split(len(rows), seed, repeats, shares)]
    if kind == "few":
        return few_split(y, per_class, seed, repeats)
    if kind == "kfold":
        return kfold_split(y, repeats, seed)
    if kind == "rate":
        return rate_split(y, rate, repeats, seed)
    raise ValueError(
        f"unknown split {kind!r}; known: public, random, few, scaffold, random_scaffold, scaffold_rate, kfold, rate"
    )


def _measured(split: Split, y: Tensor | None) -> Split:
    """Of one target the rows with a label, if there are any; of several all rows."""
    if y is None or y.dim() > 1 or not bool((known := _labelled(y.cpu())).any()):
        return split
    return Split(*(rows[known[rows]] for rows in split))


def _labelled(y: Tensor) -> Tensor:
    """[N] bool: rows with at least one label."""
    known = ~y.isnan() if y.is_floating_point() else y >= 0
    return known if known.dim() == 1 else known.any(dim=1)


def _classes(y: Tensor, kind: str) -> Tensor:
    if not isinstance(y, Tensor):
        raise TypeError(f"labels must be a tensor [N], got {type(y).__name__}; use torch.as_tensor(labels)")
    if y.dim() != 1 or y.is_floating_point():
        raise ValueError(
            f"data.split={kind} needs one class a row (integers [N]), got {y.dtype} {tuple(y.shape)}; "
            "use random or scaffold"
        )
    if not bool((y >= 0).any()):
        raise ValueError(f"data.split={kind} needs labels, all {len(y)} are unknown (-1)")
    return y.cpu()
