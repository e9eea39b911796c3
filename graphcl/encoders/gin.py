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

from graphcl.encoders.convs import GINConv
from graphcl.encoders.inputs import ConvLayer, NodeNorm, features, jumped, run_layers, widths
from graphcl.encoders.sparse import SparseLinear


def gin_layer(in_dim: int, out_dim: int, norm: bool, dropout: float, sparse: bool) -> ConvLayer:
    """Convolution with an MLP, ReLU, batch norm, dropout."""
    first = SparseLinear(in_dim, out_dim, True, None) if sparse else nn.Linear(in_dim, out_dim)
    mlp = nn.Sequential(first, nn.ReLU(inplace=True), nn.Linear(out_dim, out_dim))
    bn = NodeNorm(out_dim) if norm else nn.Identity()
    return ConvLayer(GINConv(mlp), nn.Sequential(nn.ReLU(inplace=True), bn, nn.Dropout(dropout)))


class GIN(nn.Module):
    """Graph isomorphism network: (data) -> [N, hidden], or [N, layers * hidden] with jk 'cat'.

    Reads `edge_weight` [E], with gradient; does not read `edge_attr`. Rows marked in `data.masked` hold `token`.
    sparse_input: skip the zeros of the features in the first layer; much faster where nearly all are (bags of words).
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
        sparse_input: bool = False,
    ) -> None:
        super().__init__()
        sizes = widths(in_dim, hidden, None, layers)
        self.jk, self.out_dim = jk, jumped(jk, sizes[1:])
        self.token = nn.Parameter(torch.zeros(in_dim))
        self.layers = nn.ModuleList(
            gin_layer(a, b, batch_norm, dropout, sparse_input and i == 0) for i, (a, b) in enumerate(pairwise(sizes))
        )

    def start(self, data: Any) -> Tensor:
        """Input of the first layer [N, in_dim]."""
        return features(data, self.token)

    def forward(self, data: Any) -> Tensor:
        """Embeddings [N, out_dim]."""
        return run_layers(self.layers, self.start(data), data, self.jk)
