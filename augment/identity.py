"""Identity: the graph as it is.

Paper: You et al., 2020, "Graph Contrastive Learning with Augmentations", arXiv:2010.13902 (one view is the original).
"""

from __future__ import annotations

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from augment._plan import Plan
from augment._segments import Graphs


class Identity(BaseTransform):
    """The graph as it is. generator: taken as every view takes one; nothing is drawn."""

    def __init__(self, *, generator: torch.Generator | None = None) -> None:
        self.generator = generator

    def forward(self, data: Data) -> Data:
        return data

    def plan(self, data: Data, graphs: Graphs) -> Plan:
        """Nothing."""
        return Plan()
