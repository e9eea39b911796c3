"""GraphSAGE with mean aggregation.

Paper:   Hamilton et al., 2017, "Inductive Representation Learning on Large Graphs", arXiv:1706.02216
Differs: full neighbourhoods, no L2 normalisation between layers (as in PyG's SAGEConv); edges may have weights.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import SAGEConv
from torch_geometric.typing import OptPairTensor, OptTensor
from torch_geometric.utils import scatter

from graphcl.encoders.inputs import edge_weight, features, finish, jumped, run_layers, widths


class WeightedSAGEConv(SAGEConv):
    """PyG's SAGEConv with an optional weight for each edge: W_l sum_j w_ji x_j / sum_j w_ji + W_r x_i.

    An edge of weight 0 is no edge; so a node whose edges all weigh 0 has no neighbours.
    """

    propagate_type: ClassVar[dict[str, Any]] = {"x": OptPairTensor, "edge_weight": OptTensor}

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """x: [N, F]; edge_index: [2, E]; edge_weight: [E] >= 0. Returns [N, F']."""
        if edge_weight is not None:
            # Relative to the mean weight of the target's edges, so that the mean over edges is the weighted mean.
            mean = scatter(edge_weight, edge_index[1], dim_size=len(x), reduce="mean")
            edge_weight = edge_weight / mean.masked_fill(mean == 0, 1)[edge_index[1]]
        out = self.propagate(edge_index, x=(x, x), edge_weight=edge_weight, size=None)
        return self.lin_l(out) + self.lin_r(x)

    def message(self, x_j: Tensor, edge_weight: Tensor | None) -> Tensor:
        """A neighbour's row, times the weight of its edge."""
        return x_j if edge_weight is None else edge_weight.unsqueeze(1) * x_j


class SAGELayer(nn.Module):
    """Convolution, batch norm if asked for, activation, dropout."""

    def __init__(self, in_dim: int, out_dim: int, activation: str, norm: bool, dropout: float) -> None:
        super().__init__()
        self.conv = WeightedSAGEConv(in_dim, out_dim)
        self.finish = finish(out_dim, activation, norm, dropout)

    def forward(self, h: Tensor, data: Any) -> Tensor:
        """h: [N, in_dim]. Returns [N, out_dim]."""
        return self.finish(self.conv(h, data.edge_index, edge_weight(data, h)))


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
        after = [activation] * (layers - 1) + [activation if last_activation else "none"]
        self.layers = nn.ModuleList(
            SAGELayer(a, b, kind, batch_norm, dropout) for (a, b), kind in zip(pairwise(sizes), after, strict=True)
        )

    def start(self, data: Any) -> Tensor:
        """Input of the first layer [N, in_dim]."""
        return features(data, self.token)

    def forward(self, data: Any) -> Tensor:
        """Embeddings [N, out_dim]."""
        return run_layers(self.layers, self.start(data), data, self.jk)
