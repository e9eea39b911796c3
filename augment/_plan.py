"""What a view does to a batch, said as a plan before it is done, and the one place that does it.

A plan is masks over nodes and edges, new edges, and attributes bound anew. Views that only choose are plans, so several
of them can be merged graph by graph and carried out at once (OneOf). Carrying out filters and renumbers, and writes
attributes and slice tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch_geometric.data import Data
from torch_geometric.utils import is_sparse

from augment import _native
from augment._segments import Graphs, edges_of, graphs_of

NODE_KEYS = ("x", "pos", "n_id", "feat", "node_type", "tf", "batch", "masked")
EDGE_KEYS = ("edge_attr", "edge_weight", "edge_type", "e_id")
SIZE_KEYS = ("x", "pos", "n_id", "feat", "node_type", "tf")  # PyG reads the number of nodes from them
OTHER_KEYS = ("edge_index", "ptr", "num_nodes", "_num_nodes", "batch_size", "input_id")  # to_dict has _num_nodes too
HOP_KEYS = ("num_sampled_nodes", "num_sampled_edges")  # sizes of a sampler's hops, wrong once rows are gone


class Plan(NamedTuple):
    """What a view does to a batch of N nodes and E edges; None is nothing. All in the numbers of the batch as it is."""

    nodes: Tensor | None = None  # [N] bool, the nodes that stay
    edges: Tensor | None = None  # [E] bool, the edges that stay where both ends do
    added: Tensor | None = None  # [3, A], source and target of new edges, and the edge whose attributes they take
    node_values: dict[str, Tensor] | None = None  # attributes of nodes bound anew, [N, ...]
    edge_values: dict[str, Tensor] | None = None  # attributes of edges bound anew, [E, ...]


class Planned(Protocol):
    """A view that has a plan."""

    def plan(self, data: Data, graphs: Graphs) -> Plan:
        """What the view does to `data`, which is left as it is."""


class Kept(NamedTuple):
    """What a filter leaves of the nodes and the edges."""

    nodes: Tensor | None  # [N'], where the nodes were; None if all stay
    edges: Tensor  # [E'], where the edges were, or the edges whose attributes new ones take
    edge_index: Tensor  # [2, E'], renumbered
    batch: Tensor  # [N']
    ptr: Tensor  # [B + 1]
    edge_ptr: Tensor  # [B + 1]
    new: Tensor | None = None  # [E'] bool, edges that were not there


def carry_out(view: Planned, data: Data) -> Data:
    """The data as the plan of `view` wants it: what every view with a plan does in `forward`."""
    graphs = graphs_of(data)
    return carried_out(data, graphs, view.plan(data, graphs))


def carried_out(data: Data, graphs: Graphs, plan: Plan) -> Data:
    """The data as the plan wants it.

    Rebinds every per-node and per-edge attribute of `data`, and its slice tables. Edges keep their order; new ones are
    sorted in. ValueError if nodes go and another attribute holds node numbers (`face`, `edge_label_index`) or a sparse
    adjacency, which would no longer be right.
    """
    if plan.node_values:
        put(data, plan.node_values, node_table(data))
    if plan.edge_values:
        put(data, plan.edge_values, edge_table(data))
    if plan.nodes is None and plan.edges is None and plan.added is None:
        return data
    edge_index = edges_of(data)
    node_keys, edge_keys = levels(data, graphs, edge_index.size(1))
    if plan.nodes is not None:
        _refuse_references(data, node_keys, edge_keys)
    kept = _filter(plan, edge_index, graphs)
    edges = {key: _rows(data[key], dim, kept.edges) for key, dim in edge_keys.items()}
    if kept.new is not None and "e_id" in edges:
        edges["e_id"] = torch.where(kept.new, -1, edges["e_id"])
    if kept.nodes is not None:
        nodes = {key: _rows(data[key], dim, kept.nodes) for key, dim in node_keys.items() if key != "batch"}
        if "batch" in node_keys:
            nodes["batch"] = kept.batch
        set_nodes(data, nodes, kept.batch.numel(), kept.ptr)
    return set_edges(data, kept.edge_index, edges, kept.edge_ptr, kept.batch.numel(), kept.ptr)


def _filter(plan: Plan, edge_index: Tensor, graphs: Graphs) -> Kept:
    """The nodes and edges that stay, and the new edges."""
    if plan.added is not None:
        return _filter_and_add(plan, edge_index, graphs)
    kernels = _native.kernels(edge_index)
    if plan.nodes is None:
        assert plan.edges is not None
        if kernels is not None:
            parts = kernels.filter_edges(plan.edges.numpy(), edge_index.contiguous().numpy())
            edges, edge_index = map(torch.from_numpy, parts)
        else:
            edges = plan.edges.nonzero().view(-1)
            edge_index = _columns(edge_index, edges)
        return Kept(None, edges, edge_index, graphs.batch, graphs.ptr, edge_pointer(edge_index, graphs.ptr))
    if kernels is not None:
        edges = plan.nodes[:0] if plan.edges is None else plan.edges
        masks = plan.nodes.numpy(), edges.numpy()
        parts = kernels.filter_nodes(*masks, edge_index.contiguous().numpy(), graphs.batch.numpy(), graphs.ptr.numpy())
        return Kept(*map(torch.from_numpy, parts))
    number = _numbers(plan.nodes)
    nodes = plan.nodes.nonzero().view(-1)
    edges = _staying(plan, edge_index).nonzero().view(-1)
    edge_index, ptr = _renumbered(number, _columns(edge_index, edges)), number.index_select(0, graphs.ptr)
    return Kept(nodes, edges, edge_index, graphs.batch.index_select(0, nodes), ptr, edge_pointer(edge_index, ptr))


def edge_pointer(edge_index: Tensor, ptr: Tensor) -> Tensor:
    """[B + 1], where the edges of every graph begin, the nodes beginning at ptr [B + 1].

    Found by the first node: the edges of earlier graphs come before, with smaller numbers, whatever their order.
    """
    return torch.searchsorted(edge_index[0], ptr)


def _filter_and_add(plan: Plan, edge_index: Tensor, graphs: Graphs) -> Kept:
    assert plan.added is not None
    batch, ptr = graphs.batch, graphs.ptr
    edges = torch.ones_like(edge_index[0], dtype=torch.bool) if plan.edges is None else plan.edges
    added, nodes = plan.added, None
    if plan.nodes is not None:
        edges = _staying(plan, edge_index)
        added = _columns(added, _staying(Plan(plan.nodes), added[:2]).nonzero().view(-1))
    edges = edges.nonzero().view(-1)
    old, new = _columns(edge_index, edges), added[:2]
    order = _insertion_order(edge_index, old, new, batch.numel())
    origin = torch.cat([edges, added[2]]).index_select(0, order)
    is_new = order >= edges.numel()
    edge_index = _columns(torch.cat([old, new], dim=1), order)
    if plan.nodes is not None:
        number = _numbers(plan.nodes)
        nodes = plan.nodes.nonzero().view(-1)
        edge_index, ptr = _renumbered(number, edge_index), number.index_select(0, ptr)
        batch = batch.index_select(0, nodes)
    return Kept(nodes, origin, edge_index, batch, ptr, edge_pointer(edge_index, ptr), is_new)


def _numbers(keep: Tensor) -> Tensor:
    """[N + 1], how many of the mask `keep [N]` come before each: the new numbers of those that stay."""
    return torch.cat([keep.new_zeros(1), keep]).cumsum(0)


def _staying(plan: Plan, edge_index: Tensor) -> Tensor:
    """Mask [E] of the edges that stay, of those `edge_index [2, E]`."""
    assert plan.nodes is not None
    src, dst = edge_index
    staying = plan.nodes.index_select(0, src) & plan.nodes.index_select(0, dst)
    return staying if plan.edges is None else staying & plan.edges


def _columns(edge_index: Tensor, index: Tensor) -> Tensor:
    """edge_index[:, index], in a third of the time."""
    return torch.stack([row.index_select(0, index) for row in edge_index])


def _renumbered(number: Tensor, edge_index: Tensor) -> Tensor:
    return number.index_select(0, edge_index.view(-1)).view(2, -1)


def _insertion_order(all_old: Tensor, old: Tensor, new: Tensor, n: int) -> Tensor:
    """Order of [old, new] that leaves old edges in theirs and sorts new ones in: sorted edges stay sorted.

    By target, then source, if `all_old [2, E]` is sorted so, the edges before some went; else by source, then target.
    `old` is grouped by graph, sorted or not; the running maximum makes it fit for a binary search in any case, and
    keeps every new edge in its graph.
    """
    by_target = ((all_old[1] * n + all_old[0]).diff() >= 0).all()
    key, sorted_key = (torch.where(by_target, t * n + s, s * n + t) for s, t in (new, old))
    key, new_order = key.sort()
    before = torch.searchsorted(sorted_key.cummax(0).values, key, right=True)  # old edges before each new one
    old_order = torch.arange(old.size(1), device=old.device)
    old_place = old_order + torch.searchsorted(before, old_order, right=True)
    new_place = before + torch.arange(key.numel(), device=key.device)
    order = torch.cat([old_order, new_order + old.size(1)])
    return torch.empty_like(order).scatter_(0, torch.cat([old_place, new_place]), order)


# --- writing ----------------------------------------------------------------------------------------------------------


def _rows(value: Any, dim: int, index: Tensor) -> Any:
    """The rows `index` of a per-node or per-edge attribute."""
    if isinstance(value, Tensor):
        narrow = dim == 0 and value.dim() == 2 and value.dtype == torch.long and value.is_contiguous()
        kernels = _native.kernels(value) if narrow else None
        if kernels is not None:  # rows of few categories, which torch copies one memcpy each
            return torch.from_numpy(kernels.take_rows(value.numpy(), index.numpy()))
        return value.index_select(dim, index)
    return [value[i] for i in index.tolist()] if isinstance(value, list | tuple) else value[index.cpu()]


def set_nodes(data: Data, values: dict[str, Any], n: int, ptr: Tensor) -> Data:
    """Other nodes, n of them, ptr [B + 1]: rebinds `values`, ptr, num_nodes and slice tables."""
    _keep_size(data, n, ptr)
    put(data, values, ptr)
    have, increments = data.to_dict(), getattr(data, "_inc_dict", {})
    if "ptr" in have:
        data["ptr"] = ptr
    if "edge_index" in increments:
        data._inc_dict = {**increments, "edge_index": ptr[:-1]}
    return data


def set_edges(data: Data, edge_index: Tensor, values: dict[str, Any], edge_ptr: Tensor, n: int, ptr: Tensor) -> Data:
    """Other edges, edge_ptr [B + 1], with their attributes and slice tables; n nodes, ptr [B + 1], as they are now."""
    have = data.to_dict()
    for key in HOP_KEYS:
        if key in have:
            del data[key]
    if "edge_index" not in have:
        return data
    if "num_nodes" not in have:
        _keep_size(data, n, ptr)
    put(data, {"edge_index": edge_index, **values}, edge_ptr)
    return data


def _keep_size(data: Data, n: int, ptr: Tensor) -> None:
    """Write the number of nodes where it is written already, or where PyG would infer it from the ends of edges."""
    have = data.to_dict()
    if "num_nodes" in have or not any(key in have for key in SIZE_KEYS):
        data.num_nodes = n
        if hasattr(data, "_slice_dict"):
            data._num_nodes = NodeCounts(ptr)


def _refuse_references(data: Data, nodes: dict[str, int], edges: dict[str, int]) -> None:
    for key, value in data.to_dict().items():
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


def levels(data: Data, graphs: Graphs, e: int) -> tuple[dict[str, int], dict[str, int]]:
    """The per-node and the per-edge attributes (`edge_index` is in neither): name and the dimension of the rows.

    As PyG tells them: by length along the dimension that is concatenated, and by name if there are as many nodes as
    edges. A Batch's slice tables decide between attributes that happen to be of one length.
    """
    nodes: dict[str, int] = {}
    edges: dict[str, int] = {}
    n = graphs.batch.numel()
    tables = getattr(data, "_slice_dict", {})
    plain = type(data).__cat_dim__ is Data.__cat_dim__
    for key, value in data.to_dict().items():
        if key in OTHER_KEYS or key in HOP_KEYS or key.endswith("_ptr"):
            continue
        dense = plain and isinstance(value, Tensor) and value.layout is torch.strided
        if isinstance(value, list | tuple) or (dense and "index" not in key and key != "face"):
            dim = 0  # what PyG would find out too, in more time
        else:
            dim = data.__cat_dim__(key, value)
        length = _length(value, dim)
        if length is None:
            continue
        per_node, per_edge = _same_size(length, n), _same_size(length, e)
        if per_node and key in NODE_KEYS:
            nodes[key] = dim
        elif per_edge and key in EDGE_KEYS:
            edges[key] = dim
        elif per_node or per_edge:
            single = per_edge and _same_size(length, graphs.size)
            if isinstance(tables.get(key), Tensor):
                per_node = per_node and _same_table(tables[key], node_table(data))
                per_edge = per_edge and _same_table(tables[key], edge_table(data))
                single = single and per_edge and _native.on_host(tables[key]) and bool((tables[key].diff() == 1).all())
            if single and "edge" not in key:
                per_edge = False  # one edge a graph: y and its like belong to the graphs
            if per_node and not (per_edge and "edge" in key):
                nodes[key] = dim
            elif per_edge:
                edges[key] = dim
    return nodes, edges


def put(data: Data, values: dict[str, Any], table: Any) -> None:
    """Write attributes of nodes, of edges or of graphs, and their slice table [B + 1] if the data keeps any."""
    store = data._store
    store.__dict__.pop("_cached_attr", None)  # what PyG remembers of which attributes are of nodes
    store._mapping.update(values)  # one by one, through the data, it takes as long as all the rest
    for key in values:
        if f"{key}_ptr" in store._mapping:  # of PyG's follow_batch
            store._mapping[f"{key}_ptr"] = table
    tables, increments = store.__dict__.get("_slice_dict"), store.__dict__.get("_inc_dict")
    if tables is None:
        return
    keys = [key for key in values if not key.endswith("batch")]
    store._slice_dict = {**tables, **dict.fromkeys(keys, table)}
    keys = [key for key in keys if key not in increments]
    if keys:
        zeros = torch.zeros(table.numel() - 1, dtype=torch.long, device=values[keys[0]].device)
        store._inc_dict = {**increments, **dict.fromkeys(keys, zeros)}


def node_table(data: Data) -> Any:
    """Slice table [B + 1] of the nodes; None without tables."""
    if not hasattr(data, "_slice_dict"):
        return None
    n = data["batch"].numel()
    for key in NODE_KEYS:
        table = data._slice_dict.get(key)
        if isinstance(table, Tensor) and data.get(key) is not None and _same_size(_length(data[key], 0), n):
            return table
    counts = getattr(data, "_num_nodes", None)
    if isinstance(counts, NodeCounts):
        return counts.table
    return data["ptr"] if counts is None else torch.tensor([0, *counts], device="cpu").cumsum(0)


def edge_table(data: Data) -> Any:
    """Slice table [B + 1] of the edges; None without tables."""
    return getattr(data, "_slice_dict", {}).get("edge_index")


def _length(value: Any, dim: Any) -> Any:
    """Size along `dim`, the dimension that PyG concatenates; None for what has none."""
    if isinstance(value, list | tuple):
        return len(value)
    shape = getattr(value, "shape", ())
    return shape[dim] if isinstance(dim, int) and len(shape) > 0 else None


def _same_size(a: Any, b: Any) -> bool:
    return statically_known_true(a == b)  # while a step is traced, sizes are symbols


def _same_table(a: Any, b: Any) -> bool:
    """Whether two slice tables are equal. PyG's lie on the CPU; ours are one object, so that no device is asked."""
    return a is b or (isinstance(b, Tensor) and a.device == b.device and a.tolist() == b.tolist())
