"""Per-graph primitives on a Data or a whole Batch: counts, exact choices, undirected pairs, filtering, slice tables.

Nothing here loops over graphs or waits for the device, but for sizes that depend on the data. Edge indices are not
checked (that would wait for the device): the data layer does it, and names the value.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data
from torch_geometric.utils import is_sparse

NODE_KEYS = ("x", "pos", "n_id", "feat", "node_type", "tf", "batch", "masked")
EDGE_KEYS = ("edge_attr", "edge_weight", "edge_type", "e_id")
SIZE_KEYS = ("x", "pos", "n_id", "feat", "node_type", "tf")  # PyG reads the number of nodes from them
OTHER_KEYS = ("edge_index", "ptr", "num_nodes", "batch_size", "input_id")
HOP_KEYS = ("num_sampled_nodes", "num_sampled_edges")  # sizes of a sampler's hops, wrong once rows are gone
RANDOM_BITS = 31  # of a sort key; its upper bits hold the segment


class Graphs(NamedTuple):
    """The graphs of a Data (one) or a Batch."""

    size: int  # B
    batch: Tensor  # [N], the graph of every node
    counts: Tensor  # [B], nodes of every graph


def graphs_of(data: Data) -> Graphs:
    """Graph of every node and nodes of every graph; a Data without `batch` is one graph."""
    if isinstance(data.get("batch"), Tensor):
        batch = data["batch"]
        if isinstance(data.get("ptr"), Tensor):
            return Graphs(data["ptr"].numel() - 1, batch, data["ptr"].diff())
        size = data.num_graphs if isinstance(data, Batch) else int(batch.max()) + 1
        return Graphs(size, batch, count(batch, size))
    n, device = data.num_nodes, device_of(data)
    if n is None:
        raise ValueError(f"cannot tell the number of nodes from {sorted(data.keys())}; set x, edge_index or num_nodes")
    return Graphs(1, torch.zeros(n, dtype=torch.long, device=device), torch.full((1,), n, device=device))


def device_of(data: Data) -> torch.device:
    """Device of the first tensor, the CPU if there is none."""
    return next((value.device for _, value in data if isinstance(value, Tensor)), torch.device("cpu"))


def edges_of(data: Data) -> Tensor:
    """`edge_index [2, E]` as a plain tensor, with E = 0 if there is none."""
    edge_index = data.get("edge_index")
    if edge_index is None:
        return torch.zeros(2, 0, dtype=torch.long, device=device_of(data))
    return edge_index.as_tensor() if isinstance(edge_index, EdgeIndex) else edge_index


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


def share(rate: float, counts: Tensor) -> Tensor:
    """round(rate * n) for every n of `counts`, rounded as Python does."""
    return (counts.double() * rate).round().long()


def shuffled(segment: Tensor, generator: torch.Generator | None, last: Tensor | None = None) -> Tensor:
    """[M], the places of `segment [M]` in the order of segments, in each by `last [M]` (0 to 254), then at random."""
    key = segment if last is None else segment * 256 + last
    bits = torch.randint(0, 1 << RANDOM_BITS, key.shape, generator=generator, device=key.device)
    return ((key << RANDOM_BITS) | bits).argsort()


def exact_k(
    segment: Tensor,
    k: Tensor,
    counts: Tensor,
    generator: torch.Generator | None,
    last: Tensor | None = None,
) -> Tensor:
    """Mask [M] that takes exactly k[s] of the counts[s] entries of every segment s, by one sort of int64 keys.

    segment: [M] in [0, S); k, counts: [S]; entries with a smaller `last [M]` are taken first, equal ones at random.
    """
    order = shuffled(segment, generator, last)
    stop = counts.cumsum(0) - counts + k  # [S], where the taken ones of a segment end
    taken = torch.arange(order.numel(), device=order.device) < stop.index_select(0, segment.index_select(0, order))
    return torch.empty_like(taken).scatter_(0, order, taken)


def nodes_by_graph(data: Data, graphs: Graphs) -> Tensor:
    """[N], the nodes listed graph by graph: in order, unless a `batch` built by hand is mixed up."""
    if graphs.size == 1 or data.get("ptr") is not None:
        return torch.arange(graphs.batch.numel(), device=graphs.batch.device)
    return graphs.batch.argsort(stable=True)


def local_numbers(order: Tensor, graphs: Graphs) -> Tensor:
    """[N], every node's number inside its own graph; `order` is `nodes_by_graph`."""
    start = graphs.counts.cumsum(0) - graphs.counts
    number = torch.arange(order.numel(), device=order.device) - start[graphs.batch.index_select(0, order)]
    return torch.empty_like(number).scatter_(0, order, number)


def undirected_pairs(edge_index: Tensor, n: int) -> Tensor:
    """[E], for every edge the edge that stands for its undirected pair.

    The k-th copy of (v, u) belongs to the k-th copy of (u, v), u < v, which stands for both. Self-loops and edges
    without a partner stand for themselves. n < 2 ** 31.
    """
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
    e = count(graph, graphs.size)
    chosen = torch.zeros_like(pair, dtype=torch.bool)
    chosen.scatter_(0, standing, exact_k(graph, share(rate, e), e, generator))
    return chosen.index_select(0, pair)


# --- filtering --------------------------------------------------------------------------------------------------------


def filter_nodes(data: Data, keep: Tensor, graphs: Graphs) -> Data:
    """Only the nodes where `keep [N]`, renumbered, and the edges between them, in their old order.

    Rebinds every per-node and per-edge attribute of `data`, and its slice tables. ValueError if another attribute holds
    node numbers (`face`, `edge_label_index`) or a sparse adjacency, which would no longer be right.
    """
    edge_index = edges_of(data)
    node_keys, edge_keys = levels(data, graphs, edge_index.size(1))
    _refuse_references(data, node_keys, edge_keys)
    index = keep.nonzero().view(-1)
    number = keep.cumsum(0) - 1
    between = keep.index_select(0, edge_index[0]) & keep.index_select(0, edge_index[1])
    kept = between.nonzero().view(-1)
    edge_index = number.index_select(0, edge_index.index_select(1, kept).view(-1)).view(2, -1)
    edges = {key: rows(data, key, index=kept) for key in edge_keys}
    batch = graphs.batch.index_select(0, index)
    set_nodes(data, {key: rows(data, key, index=index) for key in node_keys}, batch, graphs.size)
    return set_edges(data, edge_index, edges, batch, graphs.size)


def filter_edges(data: Data, keep: Tensor, graphs: Graphs) -> Data:
    """Only the edges where `keep [E]`, in their old order, with their attributes."""
    edge_index = edges_of(data)
    kept = keep.nonzero().view(-1)
    _, keys = levels(data, graphs, edge_index.size(1))
    edges = {key: rows(data, key, index=kept) for key in keys}
    return set_edges(data, edge_index.index_select(1, kept), edges, graphs.batch, graphs.size)


def rows(data: Data, key: str, *, index: Tensor) -> Any:
    """The rows `index` of a per-node or per-edge attribute."""
    value = data[key]
    if isinstance(value, Tensor):
        return value.index_select(data.__cat_dim__(key, value), index)
    return [value[i] for i in index.tolist()] if isinstance(value, list | tuple) else value[index.cpu()]


def set_nodes(data: Data, values: dict[str, Any], batch: Tensor, size: int) -> Data:
    """Other nodes, of the graphs `batch [N']` in ascending order: rebinds `values`, ptr, num_nodes and slice tables."""
    table = torch.searchsorted(batch, torch.arange(size + 1, device=batch.device))
    _keep_size(data, batch.numel(), table)
    for key, value in values.items():
        put(data, key, value, table)
    if data.get("ptr") is not None:
        data.ptr = table
    if "edge_index" in getattr(data, "_inc_dict", ()):
        data._inc_dict = {**data._inc_dict, "edge_index": table[:-1]}
    return data


def set_edges(data: Data, edge_index: Tensor, values: dict[str, Any], batch: Tensor, size: int) -> Data:
    """Other edges, grouped by graph, with their attributes and slice tables; batch [N] as the nodes are now."""
    for key in HOP_KEYS:
        if data.get(key) is not None:
            del data[key]
    if data.get("edge_index") is None:
        return data
    if data.get("num_nodes") is None:
        _keep_size(data, batch.numel(), data.get("ptr"))
    graph = batch.index_select(0, edge_index[0])
    table = torch.searchsorted(graph, torch.arange(size + 1, device=graph.device))
    for key, value in {"edge_index": edge_index, **values}.items():
        put(data, key, value, table)
    return data


def _keep_size(data: Data, n: int, table: Any) -> None:
    """Write the number of nodes where it is written already, or where PyG would infer it from the ends of edges."""
    if data.get("num_nodes") is not None or not any(data.get(key) is not None for key in SIZE_KEYS):
        data.num_nodes = n
        if hasattr(data, "_slice_dict"):
            data._num_nodes = NodeCounts(table)


def _refuse_references(data: Data, nodes: list[str], edges: list[str]) -> None:
    for key, value in data:
        if key == "edge_index" or key in nodes or key in edges:
            continue
        if is_sparse(value):
            raise ValueError(
                f"'{key}' is a sparse matrix, which is not renumbered when nodes go; use edge_index instead"
            )
        if isinstance(value, Tensor) and ("index" in key or key == "face"):
            raise ValueError(
                f"'{key}' holds node numbers, which are not renumbered when nodes go; remove it before this view, "
                "or rename it without 'index' if they are none"
            )


# --- attributes and slice tables --------------------------------------------------------------------------------------


class NodeCounts(Sequence[int]):
    """Nodes of every graph, where PyG wants a list of Python numbers: read from the device only when asked for."""

    def __init__(self, table: Tensor) -> None:
        self.table = table  # [B + 1]

    def __len__(self) -> int:
        return self.table.numel() - 1

    def __getitem__(self, i: Any) -> Any:
        return self.table.diff()[i].tolist()


def levels(data: Data, graphs: Graphs, e: int) -> tuple[list[str], list[str]]:
    """The names of the per-node and of the per-edge attributes (`edge_index` is in neither).

    As PyG tells them: by length along the dimension that is concatenated, and by name if there are as many nodes as
    edges. A Batch's slice tables decide between attributes that happen to be of one length.
    """
    nodes, edges = [], []
    n = graphs.batch.numel()
    tables = getattr(data, "_slice_dict", {})
    for key, value in data:
        length = _length(data, key, value)
        if length is None or key in OTHER_KEYS or key in HOP_KEYS or key.endswith("_ptr"):
            continue
        per_node, per_edge = _same_size(length, n), _same_size(length, e)
        if per_node and key in NODE_KEYS:
            nodes.append(key)
        elif per_edge and key in EDGE_KEYS:
            edges.append(key)
        elif per_node or per_edge:
            if isinstance(tables.get(key), Tensor):
                per_node = per_node and _same_table(tables[key], node_table(data))
                per_edge = per_edge and _same_table(tables[key], edge_table(data))
            if per_edge and _same_size(length, graphs.size) and "edge" not in key:
                per_edge = False  # one edge a graph: y and its like belong to the graphs
            if per_node and not (per_edge and "edge" in key):
                nodes.append(key)
            elif per_edge:
                edges.append(key)
    return nodes, edges


def put(data: Data, key: str, value: Any, table: Any) -> None:
    """Write an attribute, and its slice table [B + 1] if the data keeps any."""
    data[key] = value
    if data.get(f"{key}_ptr") is not None:  # of PyG's follow_batch
        data[f"{key}_ptr"] = table
    tables = getattr(data, "_slice_dict", None)
    if tables is None or key.endswith("batch"):
        return
    data._slice_dict = {**tables, key: table}
    if key not in data._inc_dict:
        zeros = torch.zeros(table.numel() - 1, dtype=torch.long, device=value.device)
        data._inc_dict = {**data._inc_dict, key: zeros}


def node_table(data: Data) -> Any:
    """Slice table [B + 1] of the nodes; None without tables."""
    if not hasattr(data, "_slice_dict"):
        return None
    n = data["batch"].numel()
    for key in NODE_KEYS:
        table = data._slice_dict.get(key)
        if isinstance(table, Tensor) and data.get(key) is not None and _same_size(_length(data, key, data[key]), n):
            return table
    counts = getattr(data, "_num_nodes", None)
    if isinstance(counts, NodeCounts):
        return counts.table
    return data["ptr"] if counts is None else torch.tensor([0, *counts], device="cpu").cumsum(0)


def edge_table(data: Data) -> Any:
    """Slice table [B + 1] of the edges; None without tables."""
    return getattr(data, "_slice_dict", {}).get("edge_index")


def _length(data: Data, key: str, value: Any) -> Any:
    """Size along the dimension that PyG concatenates, None for what has none."""
    if isinstance(value, list | tuple):
        return len(value)
    dim, shape = data.__cat_dim__(key, value), getattr(value, "shape", ())
    return shape[dim] if isinstance(dim, int) and len(shape) > 0 else None


def _same_size(a: Any, b: Any) -> bool:
    return statically_known_true(a == b)  # while a step is traced, sizes are symbols


def _same_table(a: Any, b: Any) -> bool:
    """Whether two slice tables are equal. PyG's lie on the CPU; ours are one object, so that no device is asked."""
    return a is b or (isinstance(b, Tensor) and a.device == b.device and a.tolist() == b.tolist())
