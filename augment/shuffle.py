"""Node shuffling, the corruption of Deep Graph Infomax.

Paper: Velickovic et al., 2019, "Deep Graph Infomax", arXiv:1809.10341, section 4.2.
"""

from __future__ import annotations

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from augment._plan import Plan, carry_out
from augment._segments import Graphs, nodes_by_graph, shuffled


class ShuffleNodes(BaseTransform):
    """Permute the rows of x inside every graph, uniformly; edges, ids and labels stay.

    `masked`, where it is, goes with the rows of x that it speaks of. ValueError without x.
    generator: of the draws, on the data's device; None is torch's own.
    """

    def __init__(self, *, generator: torch.Generator | None = None) -> None:
        self.generator = generator

    def forward(self, data: Data) -> Data:
        return carry_out(self, data)

    def plan(self, data: Data, graphs: Graphs) -> Plan:
        """x, and `masked`, with its rows in another order."""
        if data.get("x") is None:
            raise ValueError("ShuffleNodes permutes x, and the data has none; give it features first")
        drawn = shuffled(graphs.batch, graphs.size, self.generator)
        source = torch.empty_like(drawn).scatter_(0, nodes_by_graph(graphs), drawn)
        return Plan(node_values={key: data[key].index_select(0, source) for key in ("x", "masked") if key in data})
