"""ResGCN, the encoder of semi-supervised GraphCL.

Papers:  Chen et al., 2019, "Are Powerful Graph Neural Nets Necessary?", arXiv:1905.04579;
         You et al., 2020, "Graph Contrastive Learning with Augmentations", arXiv:2010.13902
Shape:   batch norm, linear layer and ReLU on the features, then 3 blocks of batch norm, GCN convolution, ReLU;
         hidden 128
Differs: nothing known up to the pooling; the batch norms and the linear layer after it belong to the head. In spite of
         the name there is no residual connection: the authors' code leaves it switched off by default.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import Linear

from graphcl.encoders.convs import GCNConv
from graphcl.encoders.inputs import NodeNorm, edge_weight, features, run_layers, widths


class ResGCNBlock(nn.Module):
    """Batch norm, convolution, ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = NodeNorm(width)
        self.conv = GCNConv(width, width)  # never cached: every view has other edges

    def forward(self, h: Tensor, data: Any) -> Tensor:
        """h: [N, width]. Returns [N, width]."""
        return self.conv(self.norm(h), data.edge_index, edge_weight(data, h)).relu_()


class ResGCN(nn.Module):
    """GCN with a feature layer and batch norm before every convolution: (data) -> [N, hidden].

    Reads `edge_weight` [E] >= 0, with gradient; does not read `edge_attr`. Rows marked in `data.masked` hold `token`.
    """

    takes_in_dim: ClassVar[bool] = True

    def __init__(self, in_dim: int, hidden: int = 128, *, layers: int = 3) -> None:
        super().__init__()
        self.out_dim = widths(in_dim, hidden, None, layers)[-1]
        self.token = nn.Parameter(torch.zeros(in_dim))
        self.norm = NodeNorm(in_dim)
        self.linear = Linear(in_dim, hidden, weight_initializer="glorot", bias_initializer="zeros")
        self.layers = nn.ModuleList(ResGCNBlock(hidden) for _ in range(layers))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                nn.init.constant_(module.bias, 1e-4)  # as in the original

    def start(self, data: Any) -> Tensor:
        """Input of the first layer [N, hidden]."""
        return self.linear(self.norm(features(data, self.token))).relu_()

    def forward(self, data: Any) -> Tensor:
        """Embeddings [N, out_dim]."""
        return run_layers(self.layers, self.start(data), data, "last")
