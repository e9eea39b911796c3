"""Node dropping.

Paper: You et al., 2020, "Graph Contrastive Learning with Augmentations", arXiv:2010.13902, table 1.
"""

from __future__ import annotations

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from augment._segments import check_rate, count, exact_k, filter_nodes, graphs_of, seeds_of, share


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
        graphs = graphs_of(data)
        seeds = seeds_of(data, graphs.batch.numel())
        droppable = graphs.counts - 1
        if seeds is not None:
            droppable = torch.minimum(droppable, graphs.counts - count(graphs.batch[seeds], graphs.size))
        drop = torch.minimum(share(self.rate, graphs.counts), droppable)
        dropped = exact_k(graphs.batch, drop, graphs.counts, self.generator, last=seeds)
        return filter_nodes(data, ~dropped, graphs)
