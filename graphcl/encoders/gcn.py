"""GCN, the encoder of GRACE, BGRL and DGI.

Papers:  Kipf and Welling, 2017, "Semi-Supervised Classification with Graph Convolutional Networks", arXiv:1609.02907
Shapes:  GRACE hidden = 2 * out, ReLU; BGRL 512, 256, batch norm, PReLU; DGI one layer of 512, PReLU
Differs: the activation follows every layer, the last too, as those three have it; a classifier's GCN and GAE's end
         without one (`last_activation=False`).
         BGRL's code gives batch norm 0.99 for torch's momentum, so that the running mean is nearly the last step's;
         ours has torch's 0.1.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphcl.encoders.convs import GCNConv
from graphcl.encoders.inputs import ConvLayer, features, finishes, jumped, run_layers, widths
from graphcl.encoders.sparse import SparseLinear


def gcn_conv(in_dim: int, out_dim: int, sparse: bool) -> GCNConv:
    """The convolution, never cached: every view has other edges."""
    conv = GCNConv(in_dim, out_dim)
    if sparse:
        conv.lin = SparseLinear(in_dim, out_dim)
    return conv


class GCN(nn.Module):
    """Graph convolutional network: (data) -> [N, out or hidden], or all layers side by side with jk 'cat'.

    Reads `edge_weight` [E] >= 0, with gradient; does not read `edge_attr`. Rows marked in `data.masked` hold `token`.
    sparse_input: skip the zeros of the features in the first layer; much faster where nearly all are (bags of words).
    """

    takes_in_dim: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        hidden: int = 256,
        *,
        out: int | None = None,
        layers: int = 2,
        activation: str = "relu",
        batch_norm: bool = False,
        dropout: float = 0.0,
        jk: str = "last",
        last_activation: bool = True,
        sparse_input: bool = False,
    ) -> None:
        super().__init__()
        sizes = widths(in_dim, hidden, out, layers)
        self.jk, self.out_dim = jk, jumped(jk, sizes[1:])
        self.token = nn.Parameter(torch.zeros(in_dim))
        after = finishes(sizes[1:], activation, last_activation, batch_norm, dropout)
        self.layers = nn.ModuleList(
            ConvLayer(gcn_conv(a, b, sparse_input and i == 0), finish)
            for i, (a, b, finish) in enumerate(zip(sizes, sizes[1:], after, strict=False))
        )

    def start(self, data: Any) -> Tensor:
        """Input of the first layer [N, in_dim]."""
        return features(data, self.token)

    def forward(self, data: Any) -> Tensor:
        """Embeddings [N, out_dim]."""
        return run_layers(self.layers, self.start(data), data, self.jk)
