"""PyG's GINConv, GCNConv and SAGEConv with the fused sum of aggregate.py, and edge weights for all three.

Constructor, parameters and results are PyG's, so weights load both ways. What the fused sum cannot do (bipartite
graphs, sparse adjacency, other aggregations, explainers, hooks) goes PyG's way, without edge weights if PyG has none.
What is known of edges is kept with their tensor (`remembered`), so write to it as torch does, not by `.data` or numpy.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch_geometric import EdgeIndex
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.typing import OptPairTensor, OptTensor

from graphcl.encoders.aggregate import CSR, csr_of, entry_sum, on_host, remembered, weight_sums
from graphcl.encoders.sparse import SparseLinear

HOOKS = ("propagate", "message", "aggregate", "message_and_aggregate")


class GINConv(pyg.GINConv):
    """nn((1 + eps) x_i + sum_j w_ji x_j)."""

    propagate_type: ClassVar[dict[str, Any]] = {"x": OptPairTensor}  # of PyG's way, which a subclass must say again

    def forward(self, x: Any, edge_index: Any, edge_weight: Tensor | None = None, size: Any = None) -> Tensor:
        """x: [N, F]; edge_index: [2, E]; edge_weight: [E]. Returns [N, F']."""
        if not fusible(self, x, edge_index, "add"):
            return super().forward(x, without_weight(self, edge_index, edge_weight), size)
        edge_index = plain(edge_index)
        check_weight(edge_weight, edge_index)
        csr = csr_of(edge_index, x.size(0), loops=True)
        plain_sum = edge_weight is None and on_host(self.eps) and self.eps.item() == 0  # as it is unless trained
        weight = None if plain_sum else gin_weights(csr, edge_weight, self.eps, x)
        first: Any = self.nn[0] if type(self.nn) is nn.Sequential and len(self.nn) and not hooked(self.nn) else None
        if not bare(first) or not narrows(first):
            return self.nn(entry_sum(x, csr, weight))
        # The sum of the products is the product of the sum, and here the products are much narrower.
        h = entry_sum(product(first, x), csr, weight)
        h = h if first.bias is None else h.add_(first.bias)
        for module in list(self.nn)[1:]:
            h = module(h)
        return h


class GCNConv(pyg.GCNConv):
    """W^T sum_j w_ji x_j / sqrt(d_j d_i) over the neighbours and the node itself, d the sum of weights.

    Where several self-loops of one node have weights the last one counts, as in PyG; the gradient goes to that one only
    (PyG's goes to all).
    """

    propagate_type: ClassVar[dict[str, Any]] = {"x": Tensor, "edge_weight": OptTensor}

    def forward(self, x: Any, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        """x: [N, F]; edge_index: [2, E]; edge_weight: [E] >= 0. Returns [N, F']."""
        if (
            self.cached
            or isinstance(self.lin.weight, UninitializedParameter)
            or not fusible(self, x, edge_index, "add")
        ):
            return super().forward(x, edge_index, edge_weight)
        edge_index = plain(edge_index)
        check_weight(edge_weight, edge_index)
        csr = csr_of(edge_index, x.size(0), self.add_self_loops)
        if self.normalize:
            weight = gcn_weights(csr, edge_index, edge_weight, x, self.add_self_loops, self.improved)
        else:
            weight = None if edge_weight is None else csr.entries(edge_weight)  # type: ignore[assignment]
        if not bare(self.lin) or narrows(self.lin, by=1):
            h = entry_sum(product(self.lin, x) if bare(self.lin) else self.lin(x), csr, weight)
            return h if self.bias is None else h.add_(self.bias)
        return F.linear(entry_sum(x, csr, weight), self.lin.weight, self.bias)


class SAGEConv(pyg.SAGEConv):
    """W_l sum_j w_ji x_j / sum_j w_ji + W_r x_i.

    An edge of weight 0 is no edge; so a node whose edges all weigh 0 has no neighbours.
    """

    propagate_type: ClassVar[dict[str, Any]] = {"x": OptPairTensor}

    def forward(self, x: Any, edge_index: Any, edge_weight: Tensor | None = None, size: Any = None) -> Tensor:
        """x: [N, F]; edge_index: [2, E]; edge_weight: [E] >= 0. Returns [N, F']."""
        if isinstance(self.lin_l.weight, UninitializedParameter) or not fusible(self, x, edge_index, "mean"):
            return super().forward(x, without_weight(self, edge_index, edge_weight), size)
        edge_index = plain(edge_index)
        check_weight(edge_weight, edge_index)
        csr = csr_of(edge_index, x.size(0))
        weight = mean_weights(csr, edge_weight, x)
        neighbours = self.lin(x).relu() if self.project else x
        if bare(self.lin_l) and narrows(self.lin_l):
            h = entry_sum(product(self.lin_l, neighbours), csr, weight)
            h = h if self.lin_l.bias is None else h.add_(self.lin_l.bias)
        else:
            h = self.lin_l(entry_sum(neighbours, csr, weight))
        if self.root_weight:
            dense = bare(self.lin_r) and not isinstance(self.lin_r, SparseLinear)
            h = h + self.lin_r(x) if not dense else h.addmm_(x.to(h.dtype), self.lin_r.weight.t().to(h.dtype))
        return F.normalize(h, dim=-1) if self.normalize else h


def fusible(conv: MessagePassing, x: Any, edge_index: Any, aggr: str) -> bool:
    """Whether PyG's `propagate` would do no more than the sum or mean of the neighbours' rows."""
    return (
        isinstance(x, Tensor)
        and x.dim() == 2
        and x.is_floating_point()
        and isinstance(edge_index, Tensor)
        and edge_index.layout == torch.strided
        and edge_index.dim() == 2
        and edge_index.size(0) == 2
        and edge_index.dtype in (torch.int32, torch.int64)
        and conv.aggr == aggr
        and conv.flow == "source_to_target"
        and conv.node_dim in (-2, 0)
        and not conv.explain
        and not any(getattr(conv, f"_{stage}_forward_{hook}") for stage in HOOKS for hook in ("hooks", "pre_hooks"))
    )


def plain(edge_index: Tensor) -> Tensor:
    """The edges as an ordinary tensor."""
    return edge_index.as_tensor() if isinstance(edge_index, EdgeIndex) else edge_index


def without_weight(conv: nn.Module, edge_index: Any, edge_weight: Tensor | None) -> Any:
    """`edge_index`; ValueError if there are weights, which PyG's own layer would not read."""
    if edge_weight is not None:
        raise ValueError(
            f"{type(conv).__name__} reads edge_weight for x [N, F] and edge_index [2, E], without explainer, hooks or "
            "another aggregation; leave edge_weight out, or put the weights into a GCNConv"
        )
    return edge_index


def check_weight(edge_weight: Tensor | None, edge_index: Tensor) -> None:
    """Refuse weights that are not one for each edge."""
    if edge_weight is not None and edge_weight.shape != edge_index.shape[1:]:
        raise ValueError(
            f"edge_weight has shape {list(edge_weight.shape)} for {edge_index.size(1)} edges; it must be [E], here "
            f"[{edge_index.size(1)}]"
        )


def hooked(module: nn.Module) -> bool:
    """Whether a call of the module does more than its `forward`: weight_norm and spectral_norm are such hooks."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def bare(linear: Any) -> bool:
    """Whether it is x W^T + b and no more, so that its weight may be used without calling it."""
    known = type(linear) in (nn.Linear, Linear, SparseLinear)
    return known and not hooked(linear) and not isinstance(linear.weight, UninitializedParameter)


def narrows(linear: Any, by: int = 2) -> bool:
    """Whether rows are better multiplied before they are summed: afterwards they are more than `by` times narrower.

    The first layer's features need no gradient but their products do, which costs a sum in the backward pass.
    """
    rows, columns = linear.weight.shape
    return isinstance(linear, SparseLinear) or columns > by * rows


def product(linear: Any, x: Tensor) -> Tensor:
    """x W^T, without the bias."""
    return linear.product(x) if isinstance(linear, SparseLinear) else F.linear(x, linear.weight)


def gin_weights(csr: CSR, edge_weight: Tensor | None, eps: Tensor, x: Tensor) -> Tensor:
    """Weights of the entries [E + N]: those of the edges (none: 1), and 1 + eps of every node's own."""
    dtype = torch.promote_types(x.dtype, torch.float32)

    def make() -> Tensor:
        own = (1 + eps.to(dtype)).expand(csr.width)
        weight = own.new_ones(csr.col.size(0) - csr.width) if edge_weight is None else edge_weight.to(dtype)
        return csr.entries(torch.cat([weight, own]))

    return remembered(("gin", dtype), make, csr.rowptr, edge_weight, eps)


def gcn_weights(
    csr: CSR, edge_index: Tensor, edge_weight: Tensor | None, x: Tensor, loops: bool, improved: bool
) -> Tensor:
    """Weights of the entries, of the edges and with `loops` of every node's own, normalised on both sides."""
    dtype = torch.promote_types(x.dtype, torch.float32)

    def make() -> Tensor:
        src, dst = edge_index.unbind()
        if edge_weight is None:
            weight = torch.ones(src.size(0), dtype=dtype, device=src.device)
        else:
            weight = edge_weight.to(dtype)
        if loops:
            loop = src == dst
            own = torch.ones(csr.width, dtype=dtype, device=src.device)
            if edge_weight is not None:
                places = torch.where(loop, torch.arange(src.size(0), device=src.device), -1)
                last = torch.full_like(own, -1, dtype=torch.long).scatter_reduce_(0, dst, places, "amax")
                # A zero at the end, so that without edges there is something to look up.
                padded = torch.cat([weight, weight.new_zeros(1)])
                own = torch.where(last >= 0, padded[last], 2.0 if improved else 1.0)
            weight = torch.cat([weight.masked_fill(loop, 0), own])
        weight = csr.entries(weight)
        degree = weight_sums(csr, weight)
        none = degree == 0
        scale = degree.masked_fill(none, 1).rsqrt().masked_fill(none, 0)
        return scale.index_select(0, csr.col) * weight * scale.index_select(0, csr.row)

    return remembered(("gcn", dtype, loops, improved), make, csr.rowptr, edge_weight)


def mean_weights(csr: CSR, edge_weight: Tensor | None, x: Tensor) -> Tensor:
    """Weights of the entries [E] that sum to 1 for every node, or to 0 where there are no neighbours."""
    dtype = torch.promote_types(x.dtype, torch.float32)

    def make() -> Tensor:
        if edge_weight is None:
            return csr.rowptr.diff().to(dtype).reciprocal().index_select(0, csr.row)
        weight = csr.entries(edge_weight.to(dtype))
        total = weight_sums(csr, weight)
        return weight / total.masked_fill(total == 0, 1).index_select(0, csr.row)

    return remembered(("mean", dtype), make, csr.rowptr, edge_weight)
