"""GIN, the encoder of unsupervised GraphCL.

Papers:  Xu et al., 2019, "How Powerful are Graph Neural Networks?", arXiv:1810.00826;
         You et al., 2020, "Graph Contrastive Learning with Augmentations", arXiv:2010.13902
Shape:   3 layers of 32, each a sum over neighbours, an MLP of two linear layers, ReLU, batch norm;
         all layers side by side
Differs: nothing known; `Readout("sum")` of the concatenation is the concatenation of every layer's sum.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import GINConv
from torch_geometric.typing import OptPairTensor, OptTensor

from graphcl.encoders.inputs import edge_weight, features, jumped, node_norm, run_layers, widths


class WeightedGINConv(GINConv):
    """PyG's GINConv with an optional weight for each edge: nn((1 + eps) x_i + sum_j w_ji x_j)."""

    propagate_type: ClassVar[dict[str, Any]] = {"x": OptPairTensor, "edge_weight": OptTensor}

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """x: [N, F]; edge_index: [2, E]; edge_weight: [E]. Returns [N, F']."""
        out = self.propagate(edge_index, x=(x, x), edge_weight=edge_weight, size=None)
        return self.nn(out + (1 + self.eps) * x)

    def message(self, x_j: Tensor, edge_weight: Tensor | None) -> Tensor:
        """A neighbour's row, times the weight of its edge."""
        return x_j if edge_weight is None else edge_weight.unsqueeze(1) * x_j


class GINLayer(nn.Module):
    """Convolution, ReLU, batch norm, dropout."""

    def __init__(self, in_dim: int, out_dim: int, norm: bool, dropout: float) -> None:
        super().__init__()
        self.conv = WeightedGINConv(nn.Sequential(nn.Linear(in_dim, out_dim), nn.ReLU(), nn.Linear(out_dim, out_dim)))
        self.finish = nn.Sequential(nn.ReLU(), node_norm(out_dim) if norm else nn.Identity(), nn.Dropout(dropout))

    def forward(self, h: Tensor, data: Any) -> Tensor:
        """h: [N, in_dim]. Returns [N, out_dim]."""
        return self.finish(self.conv(h, data.edge_index, edge_weight(data, h)))


class GIN(nn.Module):
    """Graph isomorphism network: (data) -> [N, hidden], or [N, layers * hidden] with jk 'cat'.

    Reads `edge_weight` [E], with gradient; does not read `edge_attr`. Rows marked in `data.masked` hold `token`.
    """

    takes_in_dim: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        hidden: int = 32,
        *,
        layers: int = 3,
        jk: str = "cat",
        batch_norm: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = widths(in_dim, hidden, None, layers)
        self.jk, self.out_dim = jk, jumped(jk, sizes[1:])
        self.token = nn.Parameter(torch.zeros(in_dim))
        self.layers = nn.ModuleList(GINLayer(a, b, batch_norm, dropout) for a, b in pairwise(sizes))

    def start(self, data: Any) -> Tensor:
        """Input of the first layer [N, in_dim]."""
        return features(data, self.token)

    def forward(self, data: Any) -> Tensor:
        """Embeddings [N, out_dim]."""
        return run_layers(self.layers, self.start(data), data, self.jk)
