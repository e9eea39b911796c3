"""PyG graphs into the flat arrays of a GraphStore; every mistake is told with the graph it is in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data


def flat_arrays(graphs: Sequence[Data], name: str) -> dict[str, Any]:
    """The arguments of GraphStore, see there; x is [N, 0] where the graphs have none."""
    if not graphs:
        raise ValueError(f"{name}: no graphs given")
    for i, graph in enumerate(graphs):
        if not isinstance(graph, Data):
            raise ValueError(f"{name}: graph {i} is a {type(graph).__name__}; a torch_geometric.data.Data is needed")
    nodes = [_num_nodes(graph, f"{name}: graph {i}") for i, graph in enumerate(graphs)]
    ends = [_edges(graph, f"{name}: graph {i}") for i, graph in enumerate(graphs)]
    edges = [pair.shape[1] for pair in ends]
    src, dst = torch.cat(ends, dim=1)
    x = _stack(graphs, "x", nodes, name)
    return {
        "x": torch.zeros(sum(nodes), 0) if x is None else x,
        "src": src,
        "dst": dst,
        "edge_attr": _stack(graphs, "edge_attr", edges, name),
        "y": _labels(graphs, name),
        "node_ptr": torch.tensor([0, *nodes]).cumsum(0),
        "edge_ptr": torch.tensor([0, *edges]).cumsum(0),
    }


def _num_nodes(graph: Data, where: str) -> int:
    given = graph._store.get("num_nodes")
    x = graph.x
    if x is not None and (not isinstance(x, Tensor) or x.dim() != 2):
        shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{where}: x must be a tensor [num_nodes, F], got {shape}")
    if x is not None and given is not None and len(x) != given:
        raise ValueError(f"{where}: x has {len(x)} rows, num_nodes is {given}")
    count = given if given is not None else (len(x) if x is not None else graph.num_nodes)
    if not count:
        raise ValueError(f"{where} has no nodes; leave it out, every graph needs at least one")
    return int(count)


def _edges(graph: Data, where: str) -> Tensor:
    edge_index = graph.edge_index
    if edge_index is None:
        return torch.zeros(2, 0, dtype=torch.int64)
    if not isinstance(edge_index, Tensor) or edge_index.dim() != 2 or edge_index.shape[0] != 2:
        shape = tuple(edge_index.shape) if isinstance(edge_index, Tensor) else type(edge_index).__name__
        raise ValueError(f"{where}: edge_index must be a tensor [2, E], got {shape}")
    if (edge_index.is_floating_point() and edge_index.numel()) or edge_index.is_complex():
        raise ValueError(f"{where}: edge_index is {edge_index.dtype}; node numbers must be integers")
    edge_index = edge_index.to(torch.int64)
    if edge_index.numel() and int(edge_index.abs().max()) >= 2**31:  # the store keeps int32
        raise ValueError(f"{where}: edge_index holds {int(edge_index.abs().max())}; nodes count from 0 in each graph")
    return edge_index


def _stack(graphs: Sequence[Data], key: str, rows: Sequence[int], name: str) -> Tensor | None:
    """The attribute of all graphs as one [sum of rows, width] tensor; None if no graph has it."""
    parts: list[Tensor] = []
    for i, graph in enumerate(graphs):
        value = getattr(graph, key)
        if (value is None) != (getattr(graphs[0], key) is None):
            with_it, without = (0, i) if value is None else (i, 0)
            raise ValueError(f"{name}: graph {with_it} has {key}, graph {without} has none; give it to all or to none")
        if value is None:
            continue
        if value.dim() == 1 and key == "edge_attr":
            value = value[:, None]
        if value.dim() != 2 or len(value) != rows[i]:
            raise ValueError(f"{name}: graph {i}: {key} must be [{rows[i]}, F], got {tuple(value.shape)}")
        if value.dtype == torch.bool or value.is_complex():
            raise ValueError(f"{name}: graph {i}: {key} is {value.dtype}; make it float or integer")
        if parts and (value.shape[1] != parts[0].shape[1] or value.dtype != parts[0].dtype):
            raise ValueError(
                f"{name}: graph {i}: {key} is {value.dtype} of width {value.shape[1]}, "
                f"graph 0 has {parts[0].dtype} of width {parts[0].shape[1]}; all must be alike"
            )
        parts.append(value)
    return torch.cat(parts) if parts else None


def _labels(graphs: Sequence[Data], name: str) -> Tensor | None:
    """[B] or [B, T]; None if no graph has y."""
    parts: list[Tensor] = []
    for i, graph in enumerate(graphs):
        if (graph.y is None) != (graphs[0].y is None):
            with_it, without = (0, i) if graph.y is None else (i, 0)
            raise ValueError(
                f"{name}: graph {with_it} has y, graph {without} has none; label all graphs (-1: unknown) or none"
            )
        if graph.y is None:
            continue
        y = torch.as_tensor(graph.y)
        y = y.reshape(1) if y.dim() == 0 else y
        if y.dim() > 2 or len(y) != 1:
            raise ValueError(f"{name}: graph {i}: y must be a number, [1], or [1, T] for T tasks, got {tuple(y.shape)}")
        if parts and (y.shape != parts[0].shape or y.dtype != parts[0].dtype):
            first = f"{parts[0].dtype} {tuple(parts[0].shape)}"
            raise ValueError(
                f"{name}: graph {i}: y is {y.dtype} {tuple(y.shape)}, graph 0 has {first}; all must be alike"
            )
        parts.append(y)
    return torch.cat(parts) if parts else None
