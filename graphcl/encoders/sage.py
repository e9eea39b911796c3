"""GraphSAGE with mean aggregation.

Paper:   Hamilton et al., 2017, "Inductive Representation Learning on Large Graphs", arXiv:1706.02216
Differs: full neighbourhoods, no L2 normalisation between layers (as in PyG's SAGEConv); edges may have weights.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphcl.encoders.convs import SAGEConv
from graphcl.encoders.inputs import ConvLayer, features, finishes, jumped, run_layers, widths


class SAGE(nn.Module):
    """GraphSAGE: (data) -> [N, out or hidden], or all layers side by side with jk 'cat'.

    Reads `edge_weight` [E] >= 0, with gradient; does not read `edge_attr`. Rows marked in `data.masked` hold `token`.
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
    ) -> None:
        super().__init__()
        sizes = widths(in_dim, hidden, out, layers)
        self.jk, self.out_dim = jk, jumped(jk, sizes[1:])
        self.token = nn.Parameter(torch.zeros(in_dim))
        after = finishes(sizes[1:], activation, last_activation, batch_norm, dropout)
        self.layers = nn.ModuleList(
            ConvLayer(SAGEConv(a, b), finish) for a, b, finish in zip(sizes, sizes[1:], after, strict=False)
        )

    def start(self, data: Any) -> Tensor:
        """Input of the first layer [N, in_dim]."""
        return features(data, self.token)

    def forward(self, data: Any) -> Tensor:
        """Embeddings [N, out_dim]."""
        return run_layers(self.layers, self.start(data), data, self.jk)
