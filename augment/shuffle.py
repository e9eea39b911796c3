"""Node shuffling, the corruption of Deep Graph Infomax.

Paper: Velickovic et al., 2019, "Deep Graph Infomax", arXiv:1809.10341, section 4.2.
"""

from __future__ import annotations

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from augment._segments import graphs_of, nodes_by_graph, shuffled


class ShuffleNodes(BaseTransform):
    """Permute the rows of x inside every graph, uniformly; edges, ids and labels stay.

    `masked`, where it is, goes with the rows of x that it speaks of. ValueError without x.
    generator: of the draws, on the data's device; None is torch's own.
    """

    def __init__(self, *, generator: torch.Generator | None = None) -> None:
        self.generator = generator

    def forward(self, data: Data) -> Data:
        if data.get("x") is None:
            raise ValueError("ShuffleNodes permutes x, and the data has none; give it features first")
        graphs = graphs_of(data)
        drawn = shuffled(graphs.batch, self.generator)
        source = torch.empty_like(drawn).scatter_(0, nodes_by_graph(data, graphs), drawn)
        data.x = data.x.index_select(0, source)
        if "masked" in data:
            data.masked = data.masked.index_select(0, source)
        return data
