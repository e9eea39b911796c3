"""Edge-attribute masking: GraphCL's attribute masking (arXiv:2010.13902), done to edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from augment._plan import Plan, carry_out
from augment._segments import Graphs, check_rate, choose_pairs, edges_of, undirected_pairs
from augment.mask_attributes import category_rows, check_category


class MaskEdgeAttributes(BaseTransform):
    """Hide the attributes of exactly round(rate * e) edges of every graph, chosen uniformly, both directions alike.

    e counts undirected pairs; a self-loop, or an edge without a partner, is one of its own.

    rate: share of the edges, in [0, 1]; ValueError otherwise.
    mode: "zero" (any edge_attr) or "category" (integer edge_attr).
    category: the id that the encoder reserves, or one for each column of edge_attr; required by mode "category".
    generator: of the draws, on the data's device; None is torch's own.
    ValueError if the data has no edge_attr, or one of the wrong type.
    """

    def __init__(
        self,
        rate: float = 0.1,
        mode: Literal["zero", "category"] = "zero",
        category: int | Sequence[int] | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        self.rate = check_rate("rate", rate, "the share of edges to mask")
        if mode not in ("zero", "category"):
            raise ValueError(f"mode must be 'zero' or 'category', got {mode!r}")
        if mode == "category":
            check_category("mode 'category'", category)
        self.mode, self.category = mode, category
        self.generator = generator

    def forward(self, data: Data) -> Data:
        return carry_out(self, data)

    def plan(self, data: Data, graphs: Graphs) -> Plan:
        """edge_attr with hidden rows."""
        value = data.get("edge_attr")
        if value is None:
            raise ValueError("MaskEdgeAttributes hides edge_attr, and the data has none; leave this view out")
        edge_index = edges_of(data)
        pair = undirected_pairs(edge_index, graphs.batch.numel())
        index = choose_pairs(edge_index, self.rate, graphs, self.generator, pair).nonzero().view(-1)
        shape = (index.numel(), *value.shape[1:])
        if self.mode == "category":
            assert self.category is not None
            hidden = category_rows(value, shape, self.category, "edge_attr")
        else:
            hidden = torch.zeros(shape, dtype=value.dtype, device=value.device)
        return Plan(edge_values={"edge_attr": value.index_copy(0, index, hidden)})
