"""Graph diffusion: personalised PageRank and heat kernel, sparse, inside every graph.

Papers:  Gasteiger et al., 2019, "Diffusion Improves Graph Learning" (GDC), arXiv:1911.05485, section 3;
         Hassani and Khasahmadi, 2020, "Contrastive Multi-View Representation Learning on Graphs" (MVGRL),
         arXiv:2006.05582, section 3.1.
Differs: the series is cut where its remainder is below eps / 100. The sparsified matrix is not normalised again (GDC
         does, MVGRL does not).
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from augment._native import on_host
from augment._plan import edge_pointer, levels, set_edges
from augment._segments import edges_of, graphs_of, local_numbers, nodes_by_graph

COLUMNS = 512  # of the dense rows that are held at once


class PPRDiffusion(BaseTransform):
    """Replace the edges by S = alpha (I - (1 - alpha) T)^-1, T = D^-1/2 (A + I) D^-1/2, sparsified.

    A[i, j] is the `edge_weight` >= 0 (1 without) of the edge (j, i), D the row sums with the added loops. Computed as
    the series alpha * sum_k (1 - alpha)^k T^k, cut so that no entry of an undirected graph is off by more than eps /
    100, apart from rounding. Entries of at least eps are kept, loops included; the edge (j, i) gets the weight S[i, j].

    Every other per-edge attribute (edge_attr, ...) is dropped: the new edges have none. Memory: N x 512 floats.

    alpha: teleport probability in (0, 1).   eps: > 0.
    top_k: keep instead, for every node, the top_k largest entries of its row: incoming edges.
    generator: taken as every view takes one; nothing is drawn.
    """

    def __init__(
        self,
        alpha: float = 0.2,
        eps: float = 1e-3,
        top_k: int | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        if not _is_number(alpha) or not 0 < alpha < 1:
            raise ValueError(f"alpha must lie in (0, 1), got {alpha!r}; MVGRL takes 0.2, GDC 0.05 to 0.2")
        _check_sparsity(eps, top_k)
        self.alpha, self.eps, self.top_k = float(alpha), float(eps), top_k
        self.generator = generator
        terms = max(1, math.ceil(math.log(min(self.eps / 100, 0.5)) / math.log1p(-self.alpha)))
        self.theta = [self.alpha * (1 - self.alpha) ** k for k in range(terms)]

    def forward(self, data: Data) -> Data:
        return _diffuse(data, self.theta, self.eps, self.top_k)


class HeatDiffusion(BaseTransform):
    """Replace the edges by S = exp(-t (I - T)), T = D^-1/2 (A + I) D^-1/2, sparsified.

    Computed as exp(-t) * sum_k t^k / k! T^k, with the same bound on the error, and the rest as PPRDiffusion.

    t: diffusion time > 0.   eps, top_k, generator: as PPRDiffusion.
    """

    def __init__(
        self, t: float = 5.0, eps: float = 1e-3, top_k: int | None = None, *, generator: torch.Generator | None = None
    ) -> None:
        if not _is_number(t) or not 0 < t < math.inf:
            raise ValueError(f"t must be > 0 and finite, got {t!r}; MVGRL takes 5")
        _check_sparsity(eps, top_k)
        self.t, self.eps, self.top_k = float(t), float(eps), top_k
        self.generator = generator
        self.theta = [math.exp(-self.t)]
        k = 0
        # Once k > t the terms shrink by at least t / (k + 1), which bounds what is left by a geometric series.
        while k <= self.t or self.theta[-1] * self.t / (k + 1 - self.t) > min(self.eps / 100, 0.5):
            k += 1
            self.theta.append(math.exp(k * math.log(self.t) - self.t - math.lgamma(k + 1)))

    def forward(self, data: Data) -> Data:
        return _diffuse(data, self.theta, self.eps, self.top_k)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _check_sparsity(eps: float, top_k: int | None) -> None:
    if not _is_number(eps) or not 0 < eps < math.inf:
        raise ValueError(f"eps must be > 0 and finite, got {eps!r}; 1e-4 to 1e-2 is usual")
    if top_k is not None and (not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1):
        raise ValueError(
            f"top_k must be an integer >= 1 or None, got {top_k!r}; None keeps every entry of at least eps"
        )


def _diffuse(data: Data, theta: list[float], eps: float, top_k: int | None) -> Data:
    """Rebind the edges of `data` to the sparsified sum_k theta[k] T^k, sorted by target, then source."""
    if "edge_index" not in data:
        raise ValueError(
            "a diffusion spreads along edges, and the data has no edge_index; set it, [2, 0] if there are none"
        )
    graphs, edge_index = graphs_of(data), edges_of(data)
    n = graphs.batch.numel()
    if n == 0:
        return data
    transition = _transition(data, edge_index, n)
    nodes = nodes_by_graph(graphs)
    local = local_numbers(nodes, graphs)
    # Column j of the rows [N, C] is node j of the row's own graph, so that a batch of small graphs takes little.
    columns = torch.arange(n, device=local.device)
    if graphs.size > 1:
        columns = columns[columns < graphs.counts.amax()]
    chunks = columns.split(COLUMNS) if n > COLUMNS else (columns,)
    parts = [_sparsify(_series(theta, chunk, local, *transition), chunk, eps, top_k) for chunk in chunks]
    target, column, weight = (torch.cat(part) for part in zip(*parts, strict=True))
    if top_k is not None and len(parts) > 1:  # the largest of every chunk's largest
        order = weight.argsort(descending=True)
        order = order[target[order].argsort(stable=True)]
        start = torch.searchsorted(target[order], torch.arange(n, device=target.device))
        order = order[torch.arange(order.numel(), device=order.device) - start[target[order]] < top_k]
        target, column, weight = target[order], column[order], weight[order]
    source = nodes[graphs.ptr[graphs.batch[target]] + column]
    order = (target * n + source).argsort()

    _, keys = levels(data, graphs, edge_index.size(1))
    for key in keys:
        data[key] = data[f"{key}_ptr"] = None  # to PyG that is to delete
    edge_index = torch.stack([source[order], target[order]])
    return set_edges(
        data, edge_index, {"edge_weight": weight[order]}, edge_pointer(edge_index, graphs.ptr), n, graphs.ptr
    )


def _transition(data: Data, edge_index: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """T by its rows, the targets of edges, loops added: (pointer [N + 1], source [E + N], weight [E + N])."""
    nodes = torch.arange(n, device=edge_index.device)
    src, dst = torch.cat([edge_index, nodes.expand(2, -1)], dim=1)
    weight, x = data.get("edge_weight"), data.get("x")
    double = any(isinstance(value, Tensor) and value.dtype == torch.double for value in (weight, x))
    dtype = torch.double if double else torch.float
    if weight is None:
        weight = torch.ones(edge_index.size(1), dtype=dtype, device=src.device)
    elif on_host(weight) and not bool((weight >= 0).all()):
        edge = int((weight.view(-1) >= 0).int().argmin())
        raise ValueError(f"edge_weight[{edge}] is {weight.view(-1)[edge].item()}; a diffusion needs weights >= 0")
    weight = torch.cat([weight.view(-1).to(dtype), torch.ones(n, dtype=dtype, device=src.device)])
    scale = torch.zeros(n, dtype=dtype, device=src.device).index_add_(0, dst, weight).rsqrt()
    dst, order = dst.sort(stable=True)
    src = src.index_select(0, order)
    weight = weight.index_select(0, order) * scale.index_select(0, src) * scale.index_select(0, dst)
    return torch.searchsorted(dst, torch.arange(n + 1, device=dst.device)), src, weight


def _series(
    theta: list[float], columns: Tensor, local: Tensor, pointer: Tensor, source: Tensor, weight: Tensor
) -> Tensor:
    """Columns [N, C] of sum_k theta[k] T^k, by Horner's rule."""
    here = ((local >= columns[0]) & (local <= columns[-1])).nonzero().view(-1)
    diagonal = here * columns.numel() + local.index_select(0, here) - columns[0]  # places of the identity matrix
    one = torch.ones(here.shape, dtype=weight.dtype, device=weight.device)
    total = torch.zeros(local.numel(), columns.numel(), dtype=weight.dtype, device=weight.device)
    total.view(-1).index_add_(0, diagonal, one, alpha=theta[-1])
    for factor in reversed(theta[:-1]):
        total = F.embedding_bag(source, total, pointer, mode="sum", per_sample_weights=weight, include_last_offset=True)
        total.view(-1).index_add_(0, diagonal, one, alpha=factor)
    return total


def _sparsify(dense: Tensor, columns: Tensor, eps: float, top_k: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """(row, column, value) of the entries [N, C] that stay; of top_k, as if these columns were all."""
    if top_k is None:
        row, place = (dense >= eps).nonzero().unbind(1)
        return row, columns[place], dense[row, place]
    spare = torch.zeros(dense.size(0), top_k, dtype=dense.dtype, device=dense.device)  # top_k may exceed the columns
    value, place = torch.cat([dense, spare], dim=1).topk(top_k, dim=1)
    row, rank = (value > 0).nonzero().unbind(1)
    return row, columns[place[row, rank]], value[row, rank]
