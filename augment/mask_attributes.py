"""Attribute masking.

Paper:   You et al., 2020, "Graph Contrastive Learning with Augmentations", arXiv:2010.13902, table 1.
Differs: round(rate * n) nodes; the authors' code rounds down.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from augment._plan import Plan, carry_out
from augment._segments import Graphs, check_rate, exact_share

MODES = ("token", "category", "mean", "zero", "gaussian")
MARKED = ("token", "category")  # the other modes write features that an encoder is to read


class MaskAttributes(BaseTransform):
    """Hide the features of exactly round(rate * n) nodes of every graph, chosen uniformly.

    rate: share of the nodes, in [0, 1]; ValueError otherwise.
    mode: what hidden rows of x [N, F] become:
        "token": zero, and `masked [N]` says where; there the encoder puts its learned token (floating point x)
        "category": `category`, an id that the encoder reserves, and `masked` says where (integer x)
        "mean": the mean of x over the graph (floating point x; GraphCL, semi-supervised)
        "zero": zero (any x)
        "gaussian": draws from N(0.5, 0.5), 0.5 being the standard deviation (floating point x; GraphCL, unsupervised)
    category: the reserved id, or one for each column of x; required by mode "category".
    generator: of the draws, on the data's device; None is torch's own.

    `masked` is bool and joined to the one that the data has. ValueError for x that is missing or of the wrong type.
    """

    def __init__(
        self,
        rate: float = 0.1,
        mode: Literal["token", "category", "mean", "zero", "gaussian"] = "token",
        category: int | Sequence[int] | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        self.rate = check_rate("rate", rate, "the share of nodes to mask")
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
        if mode == "category":
            check_category("mode 'category'", category)
        self.mode, self.category = mode, category
        self.generator = generator

    def forward(self, data: Data) -> Data:
        return carry_out(self, data)

    def plan(self, data: Data, graphs: Graphs) -> Plan:
        """x with hidden rows, and in some modes `masked`."""
        x = data.get("x")
        if x is None:
            raise ValueError("MaskAttributes hides x, and the data has none; give it features first")
        if self.mode in ("token", "mean", "gaussian") and not x.is_floating_point():
            raise ValueError(
                f"mode {self.mode!r} needs floating point x, got {x.dtype}; "
                "mask integer features with mode='category', or turn x into floats"
            )
        mask = exact_share(graphs.batch, self.rate, graphs.ptr, self.generator, ascending=graphs.ordered)
        index = mask.nonzero().view(-1)
        x = x.index_copy(0, index, self._hidden(x, index, graphs))
        if self.mode in MARKED:
            return Plan(node_values={"x": x, "masked": mask | data.masked if "masked" in data else mask})
        return Plan(node_values={"x": x})  # rows that are masked already stay so: the encoder hides them anyway

    def _hidden(self, x: Tensor, index: Tensor, graphs: Graphs) -> Tensor:
        """[len(index), F], what takes the place of those rows of x."""
        shape = (index.numel(), *x.shape[1:])
        if self.mode == "category":
            assert self.category is not None
            return category_rows(x, shape, self.category, "x")
        if self.mode == "mean":
            total = torch.zeros(graphs.size, *x.shape[1:], dtype=x.dtype, device=x.device)
            total.index_add_(0, graphs.batch, x)
            mean = total / graphs.counts.clamp(min=1).to(x.dtype).view(-1, *[1] * (x.dim() - 1))
            return mean.index_select(0, graphs.batch.index_select(0, index))
        if self.mode == "gaussian":
            return torch.randn(shape, dtype=x.dtype, generator=self.generator, device=x.device) * 0.5 + 0.5
        return torch.zeros(shape, dtype=x.dtype, device=x.device)


def check_category(place: str, category: int | Sequence[int] | None) -> None:
    """ValueError unless `category` is an integer or some of them."""
    ids = [category] if isinstance(category, int) else category
    if ids is None:
        raise ValueError(
            f"{place} needs category: the id, or one for each column, that the encoder reserves for masked rows"
        )
    numbers = isinstance(ids, list | tuple) and all(isinstance(i, int) and not isinstance(i, bool) for i in ids)
    if not numbers or not ids:
        raise ValueError(f"category must be an integer or one for each column, got {category!r}")


def category_rows(value: Tensor, shape: Sequence[int], category: int | Sequence[int], name: str) -> Tensor:
    """Tensor of `shape` whose rows are the reserved category, in the type of `value`, an integer attribute `name`."""
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise ValueError(
            f"mode 'category' needs integer {name}, got {value.dtype}; "
            "mask floating point features with mode='token' or 'zero' (edges: 'zero')"
        )
    ids = [category] if isinstance(category, int) else list(category)
    width = 1 if value.dim() == 1 else value.size(-1)
    if len(ids) not in (1, width) or (len(ids) == 1 and width > 1 and not isinstance(category, int)):
        raise ValueError(f"category has {len(ids)} ids, {name} has {width} columns; give one id for each column")
    limits = torch.iinfo(value.dtype)
    if not all(limits.min <= i <= limits.max for i in ids):
        raise ValueError(f"category {category!r} does not fit into {name} of type {value.dtype}; widen {name} first")
    if len(ids) == 1:
        return torch.full(tuple(shape), ids[0], dtype=value.dtype, device=value.device)
    # One fill a column: a tensor made from the list would be copied from the host at every call.
    columns = [torch.full((1,), i, dtype=value.dtype, device=value.device) for i in ids]
    return torch.cat(columns).expand(tuple(shape))
