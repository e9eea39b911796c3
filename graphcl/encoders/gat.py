"""Graph attention network.

Paper:   Velickovic et al., 2018, "Graph Attention Networks", arXiv:1710.10903
Differs: the heads are concatenated in the last layer too (the paper averages them there), so that `out` is their width
         together; PReLU where the paper has ELU; no dropout of attention coefficients. `edge_weight` is not read:
         attention sets the weights. Views that differ in edge weights alone look alike to it.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv

from graphcl.encoders.inputs import features, finishes, jumped, run_layers, widths


class GATLayer(nn.Module):
    """Convolution, and what follows it."""

    def __init__(self, in_dim: int, out_dim: int, heads: int, finish: nn.Module) -> None:
        super().__init__()
        self.conv = GATConv(in_dim, out_dim // heads, heads=heads)
        self.finish = finish

    def forward(self, h: Tensor, data: Any) -> Tensor:
        """h: [N, in_dim]. Returns [N, out_dim]."""
        return self.finish(self.conv(h, data.edge_index))


class GAT(nn.Module):
    """Graph attention network: (data) -> [N, out or hidden], or all layers side by side with jk 'cat'.

    `hidden` and `out` are the width of all heads together. Reads neither `edge_weight` nor `edge_attr`. Rows marked in
    `data.masked` hold `token`.
    """

    takes_in_dim: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        hidden: int = 256,
        *,
        out: int | None = None,
        layers: int = 2,
        heads: int = 4,
        activation: str = "prelu",
        batch_norm: bool = False,
        dropout: float = 0.0,
        jk: str = "last",
        last_activation: bool = True,
    ) -> None:
        super().__init__()
        sizes = widths(in_dim, hidden, out, layers)
        if heads < 1 or any(size % heads for size in sizes[1:]):
            raise ValueError(f"hidden ({hidden}) and out ({out}) must be multiples of heads, got heads={heads}")
        self.jk, self.out_dim = jk, jumped(jk, sizes[1:])
        self.token = nn.Parameter(torch.zeros(in_dim))
        after = finishes(sizes[1:], activation, last_activation, batch_norm, dropout)
        self.layers = nn.ModuleList(
            GATLayer(a, b, heads, finish) for a, b, finish in zip(sizes, sizes[1:], after, strict=False)
        )

    def start(self, data: Any) -> Tensor:
        """Input of the first layer [N, in_dim]."""
        return features(data, self.token)

    def forward(self, data: Any) -> Tensor:
        """Embeddings [N, out_dim]."""
        return run_layers(self.layers, self.start(data), data, self.jk)
