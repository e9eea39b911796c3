"""Gathering a batch on the CPU: by kernels that numba compiles at first use, or without numba by numpy."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from graphcl.data.store import GraphStore


class Places(NamedTuple):
    """Where the rows of each graph of a batch begin in the store [b], and their slices in the batch [b + 1]."""

    start: NDArray[np.int64]
    slices: NDArray[np.int64]


@cache
def native() -> SimpleNamespace | None:
    """The compiled kernels; None without numba."""
    try:
        from numba import njit
    except ImportError:
        return None
    kernels = (places, widen, edges, number)
    try:
        return SimpleNamespace(**{kernel.__name__: njit(cache=True, nogil=True)(kernel) for kernel in kernels})
    except RuntimeError:  # no folder that a cache may be written to: compiled again in every process
        return SimpleNamespace(**{kernel.__name__: njit(nogil=True)(kernel) for kernel in kernels})


def gather(
    kernels: SimpleNamespace, store: GraphStore, rows: NDArray[np.int64], nodes: Places, edges: Places
) -> dict[str, Tensor]:
    """The tensors of the batch of the graphs `rows` [b], made on the CPU."""

    def widened(values: Tensor, places: Places) -> Tensor:
        held, width = values.numpy(), values.shape[1]
        out = np.empty((places.slices[-1], width), held.dtype if held.dtype.kind == "f" else np.int64)
        kernels.widen(held.reshape(-1), places.start, places.slices, width, out.reshape(-1))
        return torch.from_numpy(out)

    # Made by numpy: with tensors the bookkeeping would take as long as the gather.
    n_id, graph_of_node = np.empty((2, nodes.slices[-1]), np.int64)
    kernels.number(nodes.start, nodes.slices, graph_of_node, n_id)
    edge_index = np.empty((2, edges.slices[-1]), np.int64)
    kernels.edges(store.src.numpy(), store.dst.numpy(), edges.start, edges.slices, nodes.slices, edge_index)
    values = {"x": widened(store.x, nodes), "edge_index": torch.from_numpy(edge_index)}
    if store.edge_attr is not None:
        values["edge_attr"] = widened(store.edge_attr, edges)
    return values | of_graphs(store, rows, nodes, graph_of_node, n_id)


def gather_plainly(store: GraphStore, rows: NDArray[np.int64], nodes: Places, edges: Places) -> dict[str, Tensor]:
    """`gather` by numpy, whose calls on small arrays are quicker than torch's."""
    graph_of_node = np.repeat(np.arange(len(rows)), np.diff(nodes.slices))
    n_id, e_id = rows_of(nodes), rows_of(edges)
    shift = np.repeat(nodes.slices[:-1], np.diff(edges.slices))
    edge_index = np.empty((2, len(e_id)), np.int64)
    for ends, out in zip((store.src, store.dst), edge_index, strict=True):
        np.add(ends.numpy().take(e_id), shift, out=out)

    def widened(values: Tensor, ids: NDArray[np.int64]) -> Tensor:
        taken = values.numpy().take(ids, 0)
        return torch.from_numpy(taken if taken.dtype.kind == "f" else taken.astype(np.int64))

    values = {"x": widened(store.x, n_id), "edge_index": torch.from_numpy(edge_index)}
    if store.edge_attr is not None:
        values["edge_attr"] = widened(store.edge_attr, e_id)
    return values | of_graphs(store, rows, nodes, graph_of_node, n_id)


def of_graphs(
    store: GraphStore,
    rows: NDArray[np.int64],
    nodes: Places,
    graph_of_node: NDArray[np.int64],
    n_id: NDArray[np.int64],
) -> dict[str, Tensor]:
    """Labels, ids and pointer of a batch of the graphs `rows` [b]."""
    index = torch.from_numpy(rows)
    values = {} if store.y is None else {"y": store.y.index_select(0, index)}
    values |= {"graph_id": index, "n_id": torch.from_numpy(n_id), "batch": torch.from_numpy(graph_of_node)}
    return values | {"ptr": torch.from_numpy(nodes.slices)}


def rows_of(places: Places) -> NDArray[np.int64]:
    """Rows of the store, in the order of the batch [n]."""
    rows = np.repeat(places.start - places.slices[:-1], np.diff(places.slices))
    rows += np.arange(len(rows))
    return rows


# Places are unsigned: numba asks of every signed index whether it counts from the end, and then nothing is vectorized.


def places(pointer, index, start, slices):
    """First rows [b] of the graphs `index` [b], their slices [b + 1] in the batch; False if the pointer is broken."""
    rows, total = pointer[len(pointer) - 1], 0
    for g in range(len(index)):
        first, end = pointer[index[g]], pointer[index[g] + 1]
        if first < 0 or end < first or end > rows:
            return False
        start[g] = first
        slices[g] = total
        total += end - first
    slices[len(index)] = total
    return True


def widen(values, start, slices, width, out):
    """Rows of `width` numbers, flat, into `out` [n * width], whose type may be wider."""
    for g in range(len(start)):
        a, o = np.uintp(start[g] * width), np.uintp(slices[g] * width)
        for k in range(np.uintp((slices[g + 1] - slices[g]) * width)):
            out[o + k] = values[a + k]


def edges(src, dst, start, slices, first_node, out):
    """Both ends of the edges into `out` [2, e], numbered over the batch."""
    sources, targets = out[0], out[1]
    for g in range(len(start)):
        a, o, count = np.uintp(start[g]), np.uintp(slices[g]), np.uintp(slices[g + 1] - slices[g])
        shift = first_node[g]
        for k in range(count):
            sources[o + k] = src[a + k] + shift
        for k in range(count):
            targets[o + k] = dst[a + k] + shift


def number(start, slices, owner, n_id):
    """For each row its graph's place in the batch, and its row in the store; both [n]."""
    for g in range(len(start)):
        first, o = start[g], np.uintp(slices[g])
        for k in range(np.uintp(slices[g + 1] - slices[g])):
            owner[o + k] = g
            n_id[o + k] = first + np.intp(k)
