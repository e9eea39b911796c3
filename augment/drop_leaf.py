"""Dropping the ends of branches.

Source: atoms that hang on one bond (a halogen, a hydroxyl, a methyl group), as chemists vary a scaffold; the smallest
        case of the subgraph removal of MolCLR (Wang et al., 2022, arXiv:2102.10056).
"""

from __future__ import annotations

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from augment._plan import Plan, carry_out
from augment._rings import undirected_edges
from augment._segments import Graphs, count, edges_of, exact_k, seeds_of


class DropLeaf(BaseTransform):
    """Remove `leaves` nodes of every graph that hang on one edge, chosen uniformly; fewer where there are fewer.

    Leaves are those of the graph as it came. Of two nodes that have but each other the second is one, so that no graph
    becomes empty. Self-loops do not count, and both directions are one edge. Seeds of a neighbour-sampled Data stay.

    leaves: how many, >= 0; ValueError otherwise.
    generator: of the draws, on the data's device; None is torch's own.
    """

    def __init__(self, leaves: int = 1, *, generator: torch.Generator | None = None) -> None:
        if isinstance(leaves, bool) or not isinstance(leaves, int) or leaves < 0:
            raise ValueError(f"leaves must be an integer >= 0, got {leaves!r}; it is how many nodes go")
        self.leaves = leaves
        self.generator = generator

    def forward(self, data: Data) -> Data:
        return carry_out(self, data)

    def plan(self, data: Data, graphs: Graphs) -> Plan:
        """The nodes that stay."""
        n = graphs.batch.numel()
        edges = undirected_edges(edges_of(data), n)
        degree = count(edges.reshape(-1), n)
        src, dst = edges
        pairs = (degree.index_select(0, src) == 1) & (degree.index_select(0, dst) == 1)
        alone = count(torch.where(pairs, torch.minimum(src, dst), n), n + 1)[:n] > 0
        leaf = (degree == 1) & ~alone
        seeds = seeds_of(data, n)
        if seeds is not None:
            leaf = leaf & ~seeds
        k = count(torch.where(leaf, graphs.batch, graphs.size), graphs.size + 1)[:-1].clamp(max=self.leaves)
        dropped = exact_k(graphs.batch, k, graphs.ptr, self.generator, ascending=graphs.ordered, last=(~leaf).long())
        return Plan(nodes=~dropped)
