"""Bond deletion.

Paper:   Wang et al., 2022, "Molecular contrastive learning of representations via graph neural networks",
         arXiv:2102.10056 (MolCLR), section 4.2.
Differs: round(rate * e) bonds, theirs is rounded down.
"""

from __future__ import annotations

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from augment._plan import Plan, carry_out
from augment._segments import Graphs, check_rate, choose_pairs, edges_of, undirected_pairs


class DropBonds(BaseTransform):
    """Remove exactly round(rate * e) bonds of every molecule, chosen uniformly: both directions and their attributes.

    e counts undirected pairs; a self-loop, or an edge without a partner, is one of its own. The atoms stay.

    rate: share of the bonds, in [0, 1]; ValueError otherwise.
    generator: of the draws, on the data's device; None is torch's own.
    """

    def __init__(self, rate: float = 0.25, *, generator: torch.Generator | None = None) -> None:
        self.rate = check_rate("rate", rate, "the share of bonds to drop")
        self.generator = generator

    def forward(self, data: Data) -> Data:
        return carry_out(self, data)

    def plan(self, data: Data, graphs: Graphs) -> Plan:
        """The edges that stay."""
        edge_index = edges_of(data)
        pair = undirected_pairs(edge_index, graphs.batch.numel())
        return Plan(edges=~choose_pairs(edge_index, self.rate, graphs, self.generator, pair))
