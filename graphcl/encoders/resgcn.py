"""ResGCN, the encoder of semi-supervised GraphCL.

Papers:  Chen et al., 2019, "Are Powerful Graph Neural Nets Necessary?", arXiv:1905.04579;
         You et al., 2020, "Graph Contrastive Learning with Augmentations", arXiv:2010.13902
Shape:   batch norm, linear layer and ReLU on the features, then 3 blocks of batch norm, GCN convolution, ReLU;
         hidden 128
Differs: the linear layer on the features has a bias, theirs has none. The batch norms and the linear layer after the
         pooling belong to the head. `degrees`
         are those of the graph that comes in, in a view those of the view; the authors' code has a node of a view
         keep those of the whole graph. In spite of the name there is no residual connection: their code leaves it
         switched off by default.
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
    degrees: beside the features the degree of a node and one column for each degree 0, 1, ... `degrees`, larger ones
    share the last; the original has 100, on REDDIT-BINARY and DD 10.
    """

    takes_in_dim: ClassVar[bool] = True

    def __init__(self, in_dim: int, hidden: int = 128, *, layers: int = 3, degrees: int | None = None) -> None:
        super().__init__()
        self.out_dim = widths(in_dim, hidden, None, layers)[-1]
        if degrees is not None and degrees < 1:
            raise ValueError(f"degrees must be at least 1, got {degrees}; None leaves them out, the original has 100")
        self.degrees = degrees
        self.token = nn.Parameter(torch.zeros(in_dim))
        width = in_dim + (0 if degrees is None else degrees + 2)
        self.norm = NodeNorm(width)
        self.linear = Linear(width, hidden, weight_initializer="glorot", bias_initializer="zeros")
        self.layers = nn.ModuleList(ResGCNBlock(hidden) for _ in range(layers))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                nn.init.constant_(module.bias, 1e-4)  # as in the original

    def start(self, data: Any) -> Tensor:
        """Input of the first layer [N, hidden]."""
        x = features(data, self.token)
        if self.degrees is not None:
            x = torch.cat([x, degree_columns(data, x, self.degrees)], dim=1)
        return self.linear(self.norm(x)).relu_()

    def forward(self, data: Any) -> Tensor:
        """Embeddings [N, out_dim]."""
        return run_layers(self.layers, self.start(data), data, "last")


def degree_columns(data: Any, x: Tensor, most: int) -> Tensor:
    """[N, most + 2] sums of the weights of incoming edges (their number where they have none), and these one-hot."""
    weight = edge_weight(data, x)
    target = data.edge_index[1]
    weight = x.new_ones(target.size(0)) if weight is None else weight.to(x.dtype)
    degree = x.new_zeros(x.size(0)).scatter_add(0, target, weight).unsqueeze(1)
    columns = degree.round().clamp(max=most) == torch.arange(most + 1, device=x.device)
    return torch.cat([degree, columns.to(x.dtype)], dim=1)
