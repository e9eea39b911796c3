"""Per-graph primitives on a Data or a whole Batch: counts, exact choices, undirected pairs.

Nothing here loops over graphs or waits for the device, but for sizes that depend on the data. Edge indices are not
checked (that would wait for the device): the data layer does it, and names the value. On a CPU with numba some of it
runs as compiled loops (`augment/_native.py`): the same results, and choices of the same distribution.
"""

from __future__ import annotations

from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data
from torch_geometric.utils import is_sparse

from augment import _native

RANDOM_BITS = 31  # of a sort key; its upper bits hold the segment
NARROW = 4096  # so many segments leave at least 19 random bits in an int32 key, which sorts in half the time


class Graphs(NamedTuple):
    """The graphs of a Data (one) or a Batch."""

    size: int  # B
    batch: Tensor  # [N], the graph of every node
    ptr: Tensor  # [B + 1], the first node of every graph, if `ordered`
    ordered: bool  # False where `batch` was set by hand, maybe mixed up

    @property
    def counts(self) -> Tensor:
        """[B], nodes of every graph."""
        return self.ptr.diff()


def graphs_of(data: Data) -> Graphs:
    """Graph of every node and nodes of every graph; a Data without `batch` is one graph."""
    batch, ptr = data.get("batch"), data.get("ptr")
    if isinstance(batch, Tensor):
        if isinstance(ptr, Tensor):
            if _native.on_host(ptr) and int(ptr[-1]) != batch.numel():
                raise ValueError(
                    f"ptr ends at {int(ptr[-1])}, batch has {batch.numel()} nodes; what removed or added nodes before "
                    "this view must write ptr too, or remove it"
                )
            return Graphs(ptr.numel() - 1, batch, ptr, True)
        size = data.num_graphs if isinstance(data, Batch) else int(batch.max()) + 1
        return Graphs(size, batch, pointer(count(batch, size)), False)
    n, device = data.num_nodes, device_of(data)
    if n is None:
        raise ValueError(f"cannot tell the number of nodes from {sorted(data.keys())}; set x, edge_index or num_nodes")
    return Graphs(1, torch.zeros(n, dtype=torch.long, device=device), torch.arange(2, device=device) * n, True)


def device_of(data: Data) -> torch.device:
    """Device of the first tensor, the CPU if there is none."""
    return next((value.device for _, value in data if isinstance(value, Tensor)), torch.device("cpu"))


def edges_of(data: Data) -> Tensor:
    """`edge_index [2, E]` as a plain tensor of int64, with E = 0 if there is none. ValueError for edges in `adj_t`."""
    edge_index = data.get("edge_index")
    if edge_index is None:
        for key, value in data:
            if "adj" in key and is_sparse(value):
                raise ValueError(f"'{key}' is a sparse matrix, whose edges no view changes; use edge_index instead")
        return torch.zeros(2, 0, dtype=torch.long, device=device_of(data))
    # Keys of pairs are numbers up to N^2, beyond int32.
    return (edge_index.as_tensor() if isinstance(edge_index, EdgeIndex) else edge_index).long()


def seeds_of(data: Data, n: int) -> Tensor | None:
    """Mask [N] of the seeds of a neighbour-sampled Data (its first `batch_size` rows), None elsewhere."""
    if isinstance(data, Batch) or data.get("batch_size") is None:
        return None
    return torch.arange(n, device=device_of(data)) < data["batch_size"]


def check_rate(name: str, rate: Any, what: str) -> float:
    """`rate` if it is a number in [0, 1], else ValueError; `what` says what it is a share of."""
    if isinstance(rate, bool) or not isinstance(rate, Real) or not 0 <= float(rate) <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {rate!r}; it is {what}")
    return float(rate)


# --- counting and choosing --------------------------------------------------------------------------------------------


def count(segment: Tensor, size: int) -> Tensor:
    """[size], how often each segment occurs in `segment [M]`."""
    return torch.zeros(size, dtype=torch.long, device=segment.device).scatter_add_(0, segment, torch.ones_like(segment))


def pointer(counts: Tensor) -> Tensor:
    """[S + 1], where segments of `counts [S]` begin when they lie one after another; the last entry is their sum."""
    return torch.cat([counts.new_zeros(1), counts]).cumsum(0)


def share(rate: float, counts: Tensor) -> Tensor:
    """round(rate * n) for every n of `counts`, rounded as Python does."""
    return (counts.double() * rate).round().long()


def shuffled(segment: Tensor, size: int, generator: torch.Generator | None) -> Tensor:
    """[M], the places of `segment [M]`, in [0, size), in the order of segments and at random in each."""
    bits, dtype = RANDOM_BITS, torch.long
    if size <= NARROW:
        bits, dtype = RANDOM_BITS - (size - 1).bit_length(), torch.int32
    draw = torch.randint(0, 1 << bits, segment.shape, dtype=dtype, generator=generator, device=segment.device)
    return ((segment.to(dtype) << bits) | draw).argsort()


def exact_share(
    segment: Tensor,
    rate: float,
    ptr: Tensor,
    generator: torch.Generator | None,
    *,
    ascending: bool,
    spare: int = 0,
) -> Tensor:
    """Mask [M] that takes exactly round(rate * n) of the n entries of every segment, at random, but spares `spare`.

    segment: [M] in [0, S), `ascending` or mixed; ptr: [S + 1], `pointer` of their counts n.
    """
    kernels = _native.kernels(segment) if ascending else None
    if kernels is not None:
        return torch.from_numpy(kernels.choose(ptr.numpy(), rate, spare, _native.seed(generator)))
    counts = ptr.diff()
    k = torch.minimum(share(rate, counts), counts - spare)
    return exact_k(segment, k, ptr, generator, ascending=ascending)


def exact_k(
    segment: Tensor,
    k: Tensor,
    ptr: Tensor,
    generator: torch.Generator | None,
    *,
    ascending: bool,
    last: Tensor | None = None,
) -> Tensor:
    """Mask [M] that takes exactly k[s] entries of every segment s, by one sort of integer keys.

    segment, ptr: as in exact_share; k: [S].
    last: [M] in 0 to 254; entries with a smaller one are taken first, equal ones at random.
    """
    key, size = (segment, k.numel()) if last is None else (segment * 256 + last, 256 * k.numel())
    order = shuffled(key, size, generator)
    stop = ptr[:-1] + k  # [S], where the taken ones of a segment end
    by_segment = segment if ascending else segment.index_select(0, order)
    taken = torch.arange(order.numel(), device=order.device) < stop.index_select(0, by_segment)
    return torch.empty_like(taken).scatter_(0, order, taken)


def grouped(segment: Tensor, graphs: Graphs) -> bool:
    """Whether the graphs of edges, segment [M], are known to be in order; on a device only of a single graph."""
    return graphs.size == 1 or (graphs.ordered and _native.on_host(segment) and bool((segment.diff() >= 0).all()))


def any_node(candidates: Tensor, graphs: Graphs, generator: torch.Generator | None) -> Tensor:
    """[B], one uniformly drawn node of every graph among the mask `candidates [N]`; -1 where there is none."""
    n = candidates.numel()
    draw = torch.randint(0, 1 << 31, (n,), generator=generator, device=candidates.device)
    key = torch.where(candidates, (draw << 31) | torch.arange(n, device=candidates.device), -1)
    best = torch.full((graphs.size,), -1, device=candidates.device).scatter_reduce(0, graphs.batch, key, "amax")
    return torch.where(best < 0, best, best & ((1 << 31) - 1))


def nodes_by_graph(graphs: Graphs) -> Tensor:
    """[N], the nodes listed graph by graph: in order, unless a `batch` built by hand is mixed up."""
    if graphs.ordered:
        return torch.arange(graphs.batch.numel(), device=graphs.batch.device)
    return graphs.batch.argsort(stable=True)


def local_numbers(order: Tensor, graphs: Graphs) -> Tensor:
    """[N], every node's number inside its own graph; `order` is `nodes_by_graph`."""
    number = torch.arange(order.numel(), device=order.device) - graphs.ptr[graphs.batch.index_select(0, order)]
    return torch.empty_like(number).scatter_(0, order, number)


def undirected_pairs(edge_index: Tensor, n: int) -> Tensor:
    """[E], for every edge the edge that stands for its undirected pair.

    The k-th copy of (v, u) belongs to the k-th copy of (u, v), u < v, which stands for both. Self-loops and edges
    without a partner stand for themselves. n < 2 ** 31.
    """
    kernels = _native.kernels(edge_index)
    if kernels is not None:
        return torch.from_numpy(kernels.undirected_pairs(edge_index.contiguous().numpy(), n))
    src, dst = edge_index
    key, order = ((torch.minimum(src, dst) * n + torch.maximum(src, dst)) * 2 + (src > dst)).sort(stable=True)
    place = torch.arange(order.numel(), device=order.device)
    before = torch.full((1,), -1, dtype=torch.long, device=order.device)
    same_way = torch.where(key.diff(prepend=before) != 0, place, 0).cummax(0).values  # first place of equal (src, dst)
    either_way = torch.where((key >> 1).diff(prepend=before) != 0, place, 0).cummax(0).values
    partner = either_way + place - same_way  # the k-th of the other direction, if there are that many
    stands = order.index_select(0, torch.where(partner < same_way, partner, place))
    return torch.empty_like(stands).scatter_(0, order, stands)


def choose_pairs(
    edge_index: Tensor, rate: float, graphs: Graphs, generator: torch.Generator | None, pair: Tensor
) -> Tensor:
    """Mask [E] of exactly round(rate * e) of the e undirected pairs of every graph, both directions alike."""
    standing = (pair == torch.arange(pair.numel(), device=pair.device)).nonzero().view(-1)
    graph = graphs.batch.index_select(0, edge_index[0].index_select(0, standing))
    ptr = pointer(count(graph, graphs.size))
    taken = exact_share(graph, rate, ptr, generator, ascending=grouped(graph, graphs))
    chosen = torch.zeros_like(pair, dtype=torch.bool).scatter_(0, standing, taken)
    return chosen.index_select(0, pair)
