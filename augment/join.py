"""Batches side by side: two views as one Batch, so that an encoder sees both in one pass."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.utils import is_sparse

from augment._plan import HOP_KEYS, NodeCounts, edge_table, node_table
from augment._segments import edges_of, graphs_of, pointer

FILL = {"masked": False, "edge_weight": 1.0}  # what a view that does not write them means
SAMPLED = ("batch_size", "input_id", *HOP_KEYS)  # of one neighbour sample, not of several


def join(batches: Sequence[Data]) -> Batch:
    """One Batch of all the graphs, in order: what `Batch.from_data_list` makes of them, without a loop over graphs.

    batches: at least one; Batches, or Data of one graph each. Nodes of the first come first, so `h.split(sizes)` with
    each part's number of nodes, and `z.split(sizes)` with its number of graphs, give the parts back. An attribute that
    only some of them have is dropped, but `masked`, filled with False, and `edge_weight`, filled with 1. What marks a
    Data as a neighbour sample (batch_size, ...) is dropped: its seeds are the first rows of its part.

    ValueError for none, for a Data with a `batch` of its own (which has no slice tables), for rows of different shapes,
    and for attributes that are neither tensors nor lists.
    """
    if not batches:
        raise ValueError("join puts batches side by side, got none; give it at least one")
    parts = [part if isinstance(part, Batch) else _alone(part) for part in batches]
    graphs = [graphs_of(part) for part in parts]

    out = copy.copy(parts[0])
    for key in list(out.keys()):
        del out[key]
    tables: dict[str, Any] = {}
    increments: dict[str, Any] = {}
    for key in dict.fromkeys(key for part in parts for key in part.keys()):  # noqa: SIM118 (a Data iterates over pairs)
        if key in ("batch", "ptr", "num_nodes") or not (key in FILL or all(key in part for part in parts)):
            continue
        values = [part[key] if key in part else _filled(part, key, parts) for part in parts]
        steps: list[Any] = [part.size for part in graphs]
        if key.endswith("_ptr"):  # this and `_batch` are PyG's follow_batch
            out[key] = _pointers(values)
        elif key.endswith("_batch"):
            out[key] = _shifted(key, values, steps, 0)
        elif isinstance(values[0], list):
            out[key], increments[key] = [item for value in values for item in value], None
        elif isinstance(values[0], Tensor) and not is_sparse(values[0]):
            steps = [part.__inc__(key, value) for part, value in zip(parts, values, strict=True)]
            out[key] = _shifted(key, values, steps, parts[0].__cat_dim__(key, values[0]) or 0)
            own = [inc for part in parts if (inc := _increment(part, key)) is not None]
            increments[key] = _shifted(key, own, steps, 0) if len(own) == len(parts) else None
        else:
            raise ValueError(f"cannot join '{key}', a {type(values[0]).__name__}; remove it from the batches first")
        own = [table for part in parts if (table := _table(part, key)) is not None]
        if key in increments and len(own) == len(parts):
            tables[key] = _pointers(own)
    out.batch = _shifted("batch", [part.batch for part in graphs], [part.size for part in graphs], 0)
    out.ptr = pointer(torch.cat([part.counts for part in graphs]))
    if all("num_nodes" in part for part in parts):
        out.num_nodes = sum(part["num_nodes"] for part in parts)
        out._num_nodes = NodeCounts(out.ptr)
    out._num_graphs = sum(part.size for part in graphs)
    out._slice_dict, out._inc_dict = tables, {key: increments[key] for key in tables}
    return out


def _alone(data: Data) -> Batch:
    """The Batch of one graph."""
    if not isinstance(data, Data) or data.get("batch") is not None:
        raise ValueError(f"join takes Batches, or Data of one graph without `batch`, got {data!r}")
    data = copy.copy(data)
    for key in SAMPLED:
        if key in data:
            del data[key]
    return Batch.from_data_list([data])


def _filled(part: Batch, key: str, parts: list[Batch]) -> Tensor:
    """`masked` or `edge_weight` for a batch without, as the others have it."""
    found = next(other[key] for other in parts if key in other)
    length = part["batch"].numel() if key == "masked" else edges_of(part).size(1)
    return found.new_full((length, *found.shape[1:]), FILL[key])


def _table(part: Batch, key: str) -> Tensor | None:
    """Slice table of an attribute, one that is filled in included."""
    if key not in part:
        return node_table(part) if key == "masked" else edge_table(part)
    return getattr(part, "_slice_dict", {}).get(key)


def _increment(part: Batch, key: str) -> Tensor | None:
    """What PyG added to the attribute, for every graph."""
    if key not in part:
        return torch.zeros(part.num_graphs, dtype=torch.long, device=part["batch"].device)
    return getattr(part, "_inc_dict", {}).get(key)


def _shifted(key: str, values: list[Tensor], steps: list[Any], dim: int) -> Tensor:
    """The values end to end along `dim`, each raised by the steps of those before."""
    widths = {
        (value.dim(), *(size for d, size in enumerate(value.shape) if d != dim % value.dim())) for value in values
    }
    if len(widths) > 1:
        shapes = " and ".join(str(tuple(value.shape)) for value in values)
        raise ValueError(f"cannot join '{key}' of shapes {shapes}; give the batches the same features")
    shift: Any = 0
    parts = []
    for value, step in zip(_on_one_device(values), steps, strict=True):
        # Nothing to add is no sum: features would be copied, and flags become numbers.
        parts.append(value if isinstance(shift, int) and shift == 0 else value + shift)
        shift = step if isinstance(shift, int) and shift == 0 else shift + step
    return torch.cat(parts, dim=dim)


def _pointers(tables: list[Tensor]) -> Tensor:
    """Pointers [B + 1] into rows that are laid end to end, as one."""
    tables = _on_one_device(tables)
    return pointer(torch.cat([table.diff() for table in tables]))


def _on_one_device(values: list[Tensor]) -> list[Tensor]:
    """PyG's slice tables lie on the CPU, ours beside the data: the CPU's go to the others."""
    device = next((value.device for value in values if value.device.type != "cpu"), values[0].device)
    return [value.to(device) for value in values]
