"""Node dropping.

Paper:   You et al., 2020, "Graph Contrastive Learning with Augmentations", arXiv:2010.13902, table 1.
Differs: round(rate * n) nodes; the authors' code rounds down, so that small graphs lose fewer.
"""

from __future__ import annotations

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from augment._plan import Plan, carry_out
from augment._segments import Graphs, check_rate, count, exact_k, exact_share, seeds_of, share


class DropNodes(BaseTransform):
    """Remove exactly round(rate * n) nodes of every graph, chosen uniformly, with their edges and attributes.

    At least one node of every graph is left, and all seeds of a neighbour-sampled Data. `masked`, labels, masks and ids
    go with their nodes; edges keep their order.

    rate: share of the nodes, in [0, 1]; ValueError otherwise.
    generator: of the draws, on the data's device; None is torch's own.
    """

    def __init__(self, rate: float = 0.1, *, generator: torch.Generator | None = None) -> None:
        self.rate = check_rate("rate", rate, "the share of nodes to drop")
        self.generator = generator

    def forward(self, data: Data) -> Data:
        return carry_out(self, data)

    def plan(self, data: Data, graphs: Graphs) -> Plan:
        """The nodes that stay."""
        seeds = seeds_of(data, graphs.batch.numel())
        if seeds is None:
            dropped = exact_share(
                graphs.batch, self.rate, graphs.ptr, self.generator, ascending=graphs.ordered, spare=1
            )
            return Plan(nodes=~dropped)
        keep = torch.maximum(graphs.counts - share(self.rate, graphs.counts), count(graphs.batch[seeds], graphs.size))
        return Plan(
            nodes=exact_k(graphs.batch, keep, graphs.ptr, self.generator, ascending=graphs.ordered, last=~seeds)
        )
