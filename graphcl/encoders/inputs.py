"""What the encoders share: checked input features with the mask token, widths, layers, and running them in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import BatchNorm

NO_FEATURES = "graphs have no node features (x); set data.features to degree or ones"


def features(data: Any, token: Tensor) -> Tensor:
    """Input features [N, F] in the type of `token` [F], which stands in the rows that `data.masked` [N] marks.

    Integer features become floats. With no row marked the token has no gradient (DDP: find_unused_parameters=True).
    Raises ValueError when x is missing or of another width, or edge_index is missing.
    """
    check_edges_given(data)
    x = data.x
    if x is None or (x.dim() == 2 and x.size(1) == 0):
        raise ValueError(NO_FEATURES)
    if x.dim() != 2:
        raise ValueError(
            f"node features must be [N, F], got shape {tuple(x.shape)}; one number a node is x.unsqueeze(1)"
        )
    if x.size(1) != token.numel():
        raise ValueError(
            f"features are {x.size(1)} wide, the encoder was built for {token.numel()}; give it graphs with the "
            f"features it was built on, or build one with in_dim={x.size(1)}"
        )
    x = x.to(token.dtype)
    masked = data.get("masked")
    return x if masked is None else torch.where(masked.unsqueeze(1), token, x)


def check_edges_given(data: Any) -> None:
    """Refuse a graph without edge_index."""
    if data.edge_index is None:
        raise ValueError("a graph has no edge_index; without edges it is torch.empty(2, 0, dtype=torch.long)")


def edge_weight(data: Any, h: Tensor) -> Tensor | None:
    """`data.edge_weight` [E] as floats, or None. Raises ValueError when it does not fit the edges."""
    weight = data.get("edge_weight")  # as an attribute torch.compile would not notice that a later graph has weights
    if weight is None:
        return None
    if weight.numel() != data.edge_index.size(1):
        raise ValueError(
            f"edge_weight has {weight.numel()} entries for {data.edge_index.size(1)} edges; it must be [E]"
        )
    weight = weight.reshape(-1)
    return weight if weight.is_floating_point() else weight.to(h.dtype)


def widths(in_dim: int, hidden: int, out: int | None, layers: int) -> list[int]:
    """Widths before, between and after the layers: [in_dim, hidden, ..., out or hidden]."""
    if in_dim == 0:
        raise ValueError(NO_FEATURES)
    if min(in_dim, hidden, layers) < 1 or (out is not None and out < 1):
        raise ValueError(
            f"widths and layers must be >= 1, got in_dim={in_dim}, hidden={hidden}, out={out}, layers={layers}"
        )
    return [in_dim] + [hidden] * (layers - 1) + [out or hidden]


def jumped(jk: str, outs: list[int]) -> int:
    """Width of the embedding, given the widths of the layers' outputs."""
    if jk not in {"last", "cat"}:
        raise ValueError(f"jk must be 'last' (the last layer) or 'cat' (all layers side by side), got {jk!r}")
    return sum(outs) if jk == "cat" else outs[-1]


def run_layers(layers: Iterable[nn.Module], h: Tensor, data: Any, jk: str) -> Tensor:
    """Embeddings [N, out_dim]: the last layer's, or with jk 'cat' those of all layers side by side."""
    outs = []
    for layer in layers:
        h = layer(h, data)
        outs.append(h)
    return torch.cat(outs, dim=1) if jk == "cat" else h


class ConvLayer(nn.Module):
    """A convolution that reads edge weights, and what follows it."""

    def __init__(self, conv: nn.Module, finish: nn.Module) -> None:
        super().__init__()
        self.conv, self.finish = conv, finish

    def forward(self, h: Tensor, data: Any) -> Tensor:
        """h: [N, in_dim]. Returns [N, out_dim]."""
        return self.finish(self.conv(h, data.edge_index, edge_weight(data, h)))


def finishes(
    outs: list[int], activation: str, last_activation: bool, norm: bool, dropout: float
) -> list[nn.Sequential]:
    """What follows the convolutions to these widths: batch norm if `norm`, activation, dropout.

    The last one has no activation unless `last_activation`.
    """
    activations: dict[str, Callable[[], nn.Module]] = {
        "relu": lambda: nn.ReLU(inplace=True),  # neither a convolution nor batch norm needs its output later
        "prelu": nn.PReLU,
        "none": nn.Identity,
    }
    if activation not in activations:
        raise ValueError(f"unknown activation {activation!r}; known: {', '.join(activations)}")
    kinds = [activation] * (len(outs) - 1) + [activation if last_activation else "none"]
    return [
        nn.Sequential(NodeNorm(width) if norm else nn.Identity(), activations[kind](), nn.Dropout(dropout))
        for width, kind in zip(outs, kinds, strict=True)
    ]


class NodeNorm(BatchNorm):
    """BatchNorm over nodes. One node alone has no variance: it is normalised by the running statistics instead."""

    def __init__(self, width: int) -> None:
        super().__init__(width, allow_single_element=True)

    def forward(self, h: Tensor) -> Tensor:
        """h: [N, D]. Returns [N, D]."""
        bn, training = self.module, self.training and h.size(0) > 1
        if training:
            bn.num_batches_tracked.add_(1)
        statistics = bn.running_mean, bn.running_var
        return torch.batch_norm(h, bn.weight, bn.bias, *statistics, training, bn.momentum, bn.eps, False)
