"""TU collection text files (Morris et al., 2020, arXiv:2007.08663) into a GraphStore, without a loop over graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from graphcl.data.store import GraphStore


def read_tu(folder: Path, prefix: str) -> GraphStore:
    """Store of the files `<prefix>_A.txt`, `_graph_indicator`, `_graph_labels`, `_node_labels`, ... in `folder`.

    As PyG's TUDataset gives them: x is the one-hot node labels (the node attributes where there are no labels), the
    same for edge_attr; self loops are dropped and repeated edges merged (their attributes added up);
    classes are numbered 0, 1, ... in the order of the labels.  Raises ValueError naming file, line and value.
    """
    parts = {path.stem[len(prefix) + 1 :]: path for path in sorted(folder.glob(f"{prefix}_*.txt"))}
    for needed in ("A", "graph_indicator"):
        if needed not in parts:
            raise ValueError(f"{folder}: {prefix}_{needed}.txt is missing; the TU format needs it")
    graph_of_node = _numbers(parts["graph_indicator"], np.int32)[:, 0] - 1
    steps = np.diff(graph_of_node, prepend=0)
    if len(graph_of_node) == 0 or graph_of_node[0] != 0 or steps.min() < 0 or steps.max() > 1:
        raise ValueError(f"{parts['graph_indicator']}: graph numbers must rise from 1 without gaps, one line a node")
    counts = np.bincount(graph_of_node)
    node_ptr = np.concatenate([[0], counts.cumsum()])
    src, dst, edge_attr = _edges(parts, graph_of_node)
    edge_ptr = np.searchsorted(dst, node_ptr)  # dst is sorted, and so are the graphs
    first_node = np.repeat(node_ptr[:-1].astype(np.int32), np.diff(edge_ptr))
    src -= first_node
    dst -= first_node
    x = _features(parts, "node", len(graph_of_node))
    return GraphStore(
        torch.zeros(len(graph_of_node), 0) if x is None else x,
        torch.from_numpy(src),
        torch.from_numpy(dst),
        torch.from_numpy(node_ptr),
        torch.from_numpy(edge_ptr),
        edge_attr=edge_attr,
        y=_targets(parts, len(counts)),
        name=prefix,
    ).check()


def _numbers(path: Path, dtype: type) -> np.ndarray:
    """[lines, columns]"""
    try:
        return np.loadtxt(path, delimiter=",", dtype=dtype, ndmin=2, comments=None)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: {error}; rows count from 0, all must hold equally many numbers") from None


def _edges(parts: dict[str, Path], graph_of_node: np.ndarray) -> tuple[np.ndarray, np.ndarray, Tensor | None]:
    """Source and target [E], numbered from 0 over the whole data set, sorted as in a store; the edges' features."""
    path = parts["A"]
    ends = _numbers(path, np.int32).reshape(-1, 2) if path.stat().st_size else np.zeros((0, 2), np.int32)
    ends -= 1
    nodes = len(graph_of_node)
    outside = ((ends < 0) | (ends >= nodes)).any(axis=1)
    if outside.any():
        line = int(outside.argmax())
        value = (ends[line] + 1).tolist()
        raise ValueError(f"{path}: line {line + 1}: edge {value}, but nodes are numbered 1 to {nodes}")
    across = graph_of_node[ends[:, 0]] != graph_of_node[ends[:, 1]]
    if across.any():
        line = int(across.argmax())
        graphs = (graph_of_node[ends[line]] + 1).tolist()
        raise ValueError(f"{path}: line {line + 1}: edge {(ends[line] + 1).tolist()} joins graphs {graphs}")
    del across
    attr = _features(parts, "edge", len(ends))
    kept = ends[:, 0] != ends[:, 1]
    key = ends[kept, 1].astype(np.int64) * nodes + ends[kept, 0]
    del ends
    if attr is None:
        key.sort()  # in place: COLLAB has 25 million edges
        key = key[np.diff(key, prepend=-1) > 0]
    else:
        key, owner = np.unique(key, return_inverse=True)
        summed = torch.zeros(len(key), attr.shape[1])
        attr = summed.index_add_(0, torch.from_numpy(owner), attr[torch.from_numpy(kept)])
    return (key % nodes).astype(np.int32), (key // nodes).astype(np.int32), attr


def _features(parts: dict[str, Path], what: str, rows: int) -> Tensor | None:
    """One-hot labels, or else the attributes, of nodes or edges: [rows, F] float32."""
    if f"{what}_labels" in parts:
        path = parts[f"{what}_labels"]
        labels = torch.from_numpy(_numbers(path, np.int64))
        labels = labels - labels.min(dim=0).values
        if int(labels.max()) > 10_000:
            raise ValueError(f"{path}: labels span {int(labels.max()) + 1} values, too many for one-hot features")
        values = torch.cat([torch.nn.functional.one_hot(column) for column in labels.unbind(1)], dim=1).float()
    elif f"{what}_attributes" in parts:
        path = parts[f"{what}_attributes"]
        values = torch.from_numpy(_numbers(path, np.float32))
    else:
        return None
    if len(values) != rows:
        raise ValueError(f"{path}: {len(values)} lines for {rows} {what}s; there must be one line each")
    return values


def _targets(parts: dict[str, Path], graphs: int) -> Tensor | None:
    """[B] classes, or [B] values where the set is a regression."""
    if "graph_attributes" in parts:
        path = parts["graph_attributes"]
        y = torch.from_numpy(_numbers(path, np.float32))
        y = y[:, 0] if y.shape[1] == 1 else y
    elif "graph_labels" in parts:
        path = parts["graph_labels"]
        y = torch.from_numpy(np.unique(_numbers(path, np.int64)[:, 0], return_inverse=True)[1])
    else:
        return None
    if len(y) != graphs:
        raise ValueError(f"{path}: {len(y)} lines for {graphs} graphs; there must be one line each")
    return y
