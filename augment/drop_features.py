"""Feature dropping.

Paper: Zhu et al., 2020, "Deep Graph Contrastive Representation Learning" (GRACE), arXiv:2006.04131, section 3.2.2.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from augment._plan import Plan, carry_out
from augment._segments import Graphs, check_rate


class DropFeatures(BaseTransform):
    """Set features to zero, each with probability `rate`, independently.

    rate: probability in [0, 1]; ValueError otherwise.
    mode: "column" draws once for every graph and column of x and zeroes the column in the whole graph (GRACE);
        "entry" draws for every entry of x.
    generator: of the draws, on the data's device; None is torch's own.
    ValueError if the data has no x.
    """

    def __init__(
        self,
        rate: float = 0.1,
        mode: Literal["column", "entry"] = "column",
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        self.rate = check_rate("rate", rate, "the share of features to zero")
        if mode not in ("column", "entry"):
            raise ValueError(f"mode must be 'column' or 'entry', got {mode!r}")
        self.mode = mode
        self.generator = generator

    def forward(self, data: Data) -> Data:
        return carry_out(self, data)

    def plan(self, data: Data, graphs: Graphs) -> Plan:
        """x with zeros."""
        x = data.get("x")
        if x is None:
            raise ValueError("DropFeatures zeroes x, and the data has none; give it features first")
        if self.mode == "entry":
            drop = torch.rand(x.shape, generator=self.generator, device=x.device) < self.rate
        else:
            drop = torch.rand(graphs.size, *x.shape[1:], generator=self.generator, device=x.device) < self.rate
            if graphs.size > 1:
                drop = drop.index_select(0, graphs.batch)  # [N, F]
        return Plan(node_values={"x": x.masked_fill(drop, 0)})
