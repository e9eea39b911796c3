"""GraphStore: many graphs as flat arrays; a batch is one gather.

The arrays lie in memory or in memory-mapped `.npy` files. Nothing is pickled, and no loop runs over graphs once a store
is built.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

FORMAT, VERSION = "graphcl-store", 1
_ARRAYS = ("x", "src", "dst", "edge_attr", "y", "node_ptr", "edge_ptr")


class GraphStore:
    """Many graphs as flat arrays.

    x: [N, F] float or integer (small integers save memory; they leave the store as int64); [N, 0] without features.
    src, dst: [E] node numbers inside their own graph, kept as int32.  edge_attr: [E, Fe] or None.
    y: [B] classes (int64) or values (float), [B, T] for T tasks (NaN: missing), or None.
    node_ptr, edge_ptr: [B + 1] int64, graph i has rows ptr[i] to ptr[i + 1]; always on the CPU, so that the size of
    a batch is known without asking the device.  smiles: B strings or None; they stay in the store, not in batches.

    Raises ValueError if the shapes disagree; `check()` looks at the contents.
    """

    def __init__(
        self,
        x: Tensor,
        src: Tensor,
        dst: Tensor,
        node_ptr: Tensor,
        edge_ptr: Tensor,
        *,
        edge_attr: Tensor | None = None,
        y: Tensor | None = None,
        smiles: list[str] | None = None,
        name: str = "graphs",
    ) -> None:
        self.x, self.src, self.dst = x, src.to(torch.int32), dst.to(torch.int32)
        self.node_ptr, self.edge_ptr = node_ptr.to("cpu", torch.int64), edge_ptr.to("cpu", torch.int64)
        self.edge_attr, self.smiles, self.name = edge_attr, smiles, name
        self.y = y if y is None or y.is_floating_point() else y.to(torch.int64)
        self._check_shapes()

    def _check_shapes(self) -> None:
        if self.x.dim() != 2:
            raise ValueError(
                f"{self.name}: x must be [N, F], got {tuple(self.x.shape)}; use x[:, None] for one feature"
            )
        if self.src.shape != self.dst.shape or self.src.dim() != 1:
            shapes = f"src {tuple(self.src.shape)}, dst {tuple(self.dst.shape)}"
            raise ValueError(f"{self.name}: src and dst must both be [E], got {shapes}")
        for pointer, rows, what in (
            (self.node_ptr, len(self.x), "node_ptr"),
            (self.edge_ptr, len(self.src), "edge_ptr"),
        ):
            if pointer.dim() != 1 or len(pointer) < 2:
                raise ValueError(
                    f"{self.name}: {what} must be [B + 1] with at least one graph, got {tuple(pointer.shape)}"
                )
            if pointer[0] != 0 or pointer[-1] != rows or bool((pointer.diff() < 0).any()):
                raise ValueError(f"{self.name}: {what} must rise from 0 to {rows}, goes {pointer[0]} to {pointer[-1]}")
        graphs = len(self.node_ptr) - 1
        for got, want, what in (
            (len(self.edge_ptr) - 1, graphs, "edge_ptr"),
            (graphs if self.y is None else len(self.y), graphs, "y"),
            (graphs if self.smiles is None else len(self.smiles), graphs, "smiles"),
        ):
            if got != want:
                raise ValueError(f"{self.name}: {what} is for {got} graphs, node_ptr for {want}")
        if self.y is not None and self.y.dim() not in (1, 2):
            raise ValueError(f"{self.name}: y must be [B] or [B, T], got {tuple(self.y.shape)}")
        if self.edge_attr is not None and (self.edge_attr.dim() != 2 or len(self.edge_attr) != len(self.src)):
            raise ValueError(f"{self.name}: edge_attr must be [{len(self.src)}, Fe], got {tuple(self.edge_attr.shape)}")

    def check(self) -> GraphStore:
        """The store itself; ValueError naming the first graph that is empty, has an edge out of range, or NaN or inf."""
        nodes = self.node_ptr.diff()
        if bool((nodes == 0).any()):
            empty = int((nodes == 0).nonzero()[0])
            raise ValueError(f"{self.name}: graph {empty} has no nodes; leave it out, every graph needs at least one")
        limit = torch.repeat_interleave(nodes, self.edge_ptr.diff()).to(self.src.device)
        for what, ends in (("src", self.src), ("dst", self.dst)):
            bad = ((ends < 0) | (ends >= limit)).nonzero()
            if len(bad):
                edge = int(bad[0])
                graph = self._graph_of(edge, self.edge_ptr)
                raise ValueError(
                    f"{self.name}: graph {graph}, edge {edge - int(self.edge_ptr[graph])}: {what} is {int(ends[edge])}, "
                    f"the graph has {int(nodes[graph])} nodes, numbered from 0"
                )
        for what, values, pointer in (("x", self.x, self.node_ptr), ("edge_attr", self.edge_attr, self.edge_ptr)):
            if values is None or not values.is_floating_point():
                continue
            bad = (~values.isfinite()).nonzero()
            if len(bad):
                row, column = bad[0].tolist()
                graph = self._graph_of(row, pointer)
                raise ValueError(
                    f"{self.name}: graph {graph}: {what}[{row - int(pointer[graph])}, {column}] is "
                    f"{float(values[row, column])}; features must be finite, fill or drop them first"
                )
        return self

    @staticmethod
    def _graph_of(row: int, pointer: Tensor) -> int:
        return int(torch.searchsorted(pointer, torch.tensor(row), right=True)) - 1

    def __len__(self) -> int:
        return len(self.node_ptr) - 1

    def __iter__(self) -> Iterator[Data]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"GraphStore({self.name}: {len(self)} graphs, {len(self.x)} nodes, {len(self.src)} edges, x {tuple(self.x.shape)})"

    @property
    def num_graphs(self) -> int:
        """B."""
        return len(self)

    @property
    def num_features(self) -> int:
        """F, the width of x; 0 without features."""
        return self.x.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the graphs lie (the pointers are always on the CPU)."""
        return self.x.device

    def __getitem__(self, i: int) -> Data:
        """Graph i as its own Data (a copy)."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"{self.name}: no graph {i}, there are {len(self)}")
        i %= len(self)
        nodes = slice(int(self.node_ptr[i]), int(self.node_ptr[i + 1]))
        edges = slice(int(self.edge_ptr[i]), int(self.edge_ptr[i + 1]))
        return Data(
            x=_wide(self.x[nodes]).clone(),
            edge_index=torch.stack([self.src[edges], self.dst[edges]]).long(),
            edge_attr=None if self.edge_attr is None else _wide(self.edge_attr[edges]).clone(),
            y=None if self.y is None else self.y[i : i + 1].clone(),
        )

    def batch(self, index: Tensor, device: torch.device | str | None = None) -> Batch:
        """The graphs `index` [b] as a PyG Batch, gathered where the store lies and then moved to `device`.

        Equal to `Batch.from_data_list([store[i] for i in index])`, slice tables included, plus data-set-wide ids:
        graph_id [b] and n_id [n].  A graph may be asked for more than once.
        """
        index = index.cpu()
        if index.dim() != 1 or index.dtype not in (torch.int64, torch.int32) or len(index) == 0:
            raise ValueError(f"index must be [b] integers with b > 0, got {index.dtype} {tuple(index.shape)}")
        if bool((index < 0).any()) or bool((index >= len(self)).any()):
            raise ValueError(
                f"index goes from {int(index.min())} to {int(index.max())}, graphs from 0 to {len(self) - 1}"
            )
        n_id, graph_of_node, node_slices = self._rows(self.node_ptr, index)
        e_id, graph_of_edge, edge_slices = self._rows(self.edge_ptr, index)
        first_node = node_slices[:-1]
        shift = first_node.to(self.device)[graph_of_edge]  # [e]
        one_each = torch.arange(len(index) + 1)

        values = {"x": _wide(self.x[n_id])}
        values["edge_index"] = torch.stack([self.src[e_id] + shift, self.dst[e_id] + shift])  # int32 + int64: int64
        slices = {"x": node_slices, "edge_index": edge_slices}
        if self.edge_attr is not None:
            values["edge_attr"], slices["edge_attr"] = _wide(self.edge_attr[e_id]), edge_slices
        graph_id = index.to(self.device, torch.int64)
        if self.y is not None:
            values["y"], slices["y"] = self.y[graph_id], one_each
        values |= {"graph_id": graph_id, "n_id": n_id}
        slices |= {"graph_id": one_each, "n_id": node_slices}

        batch: Any = Batch(_base_cls=Data)
        for key, value in values.items():
            batch[key] = value
        batch.batch, batch.ptr = graph_of_node, node_slices.to(self.device)
        batch._num_graphs = len(index)
        batch._slice_dict = slices
        batch._inc_dict = {key: first_node if key == "edge_index" else torch.zeros_like(first_node) for key in values}
        return batch if device is None else batch.to(device, non_blocking=True)

    def _rows(self, pointer: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of the graphs `index`, the place in the batch that each belongs to (both [n]), and slices [b + 1]."""
        start = pointer[index]
        slices = torch.zeros(len(index) + 1, dtype=torch.int64)
        torch.cumsum(pointer[index + 1] - start, dim=0, out=slices[1:])
        total = int(slices[-1])
        owner = torch.arange(len(index), device=self.device)
        owner = torch.repeat_interleave(owner, slices.diff().to(self.device), output_size=total)
        rows = torch.arange(total, device=self.device) + (start - slices[:-1]).to(self.device)[owner]
        return rows, owner, slices

    def subset(self, index: Tensor) -> GraphStore:
        """A store of the graphs `index` [b], in that order; ids in its batches count from 0 again."""
        n_id, _, node_ptr = self._rows(self.node_ptr, index.cpu())
        e_id, _, edge_ptr = self._rows(self.edge_ptr, index.cpu())
        return GraphStore(
            self.x[n_id],
            self.src[e_id],
            self.dst[e_id],
            node_ptr,
            edge_ptr,
            edge_attr=None if self.edge_attr is None else self.edge_attr[e_id],
            y=None if self.y is None else self.y[index.to(self.y.device)],
            smiles=None if self.smiles is None else [self.smiles[i] for i in index.tolist()],
            name=self.name,
        )

    def with_x(self, x: Tensor) -> GraphStore:
        """The same graphs with other features, [N, F]."""
        return self._like(x=x)

    def to(self, device: torch.device | str) -> GraphStore:
        """The store with x, edges and labels on `device`."""
        moved = {
            key: value.to(device)
            for key in ("x", "src", "dst", "edge_attr", "y")
            if (value := getattr(self, key)) is not None
        }
        return self._like(**moved)

    def _like(self, **changed: Tensor) -> GraphStore:
        parts = {key: getattr(self, key) for key in (*_ARRAYS, "smiles", "name")} | changed
        return GraphStore(**parts)

    @classmethod
    def from_graphs(cls, graphs: Iterable[Data], name: str = "graphs") -> GraphStore:
        """Store of PyG graphs (a list, or an InMemoryDataset): x, edge_index, edge_attr and y; other attributes are left out.

        y: a number or [1] for each graph, or [1, T] for T tasks; all graphs have it or none.
        Raises ValueError naming the graph whose shapes, widths, types, edges or values do not fit.
        """
        listed = list(graphs)
        if not listed:
            raise ValueError(f"{name}: no graphs given")
        for i, graph in enumerate(listed):
            if not isinstance(graph, Data):
                raise ValueError(
                    f"{name}: graph {i} is a {type(graph).__name__}; a torch_geometric.data.Data is needed"
                )
        counts = torch.tensor([_num_nodes(graph, f"{name}: graph {i}") for i, graph in enumerate(listed)])
        edges = [_edges(graph, f"{name}: graph {i}") for i, graph in enumerate(listed)]
        edge_counts = [pair.shape[1] for pair in edges]
        x = _stack(listed, "x", counts.tolist(), name)
        edge_index = torch.cat(edges, dim=1)
        outside = edge_index.numel() and int(edge_index.abs().max()) >= 2**31  # before they are cut to int32
        if outside:
            raise ValueError(f"{name}: an edge index is beyond 2^31; node numbers count from 0 inside each graph")
        return cls(
            torch.zeros(int(counts.sum()), 0) if x is None else x,
            edge_index[0],
            edge_index[1],
            _pointer(counts),
            _pointer(torch.tensor(edge_counts)),
            edge_attr=_stack(listed, "edge_attr", edge_counts, name),
            y=_labels(listed, name),
            name=name,
        ).check()

    def save(self, folder: str | Path) -> None:
        """Write the store to a new folder: `.npy` arrays, `meta.json`, `smiles.txt`. Nothing half-written is left behind.

        Raises FileExistsError if the folder is there already, OSError if it cannot be written.
        """
        folder = Path(folder)
        if folder.exists():
            raise FileExistsError(f"{folder} is there already; remove it or give another folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            arrays = {key: value.cpu().numpy() for key in _ARRAYS if (value := getattr(self, key)) is not None}
            for key, array in arrays.items():
                np.save(building / f"{key}.npy", array, allow_pickle=False)
            if self.smiles is not None:
                (building / "smiles.txt").write_text("".join(f"{line}\n" for line in self.smiles), encoding="utf-8")
            meta = {
                "format": FORMAT,
                "version": VERSION,
                "name": self.name,
                "graphs": len(self),
                "smiles": self.smiles is not None,
                "arrays": {
                    key: {"dtype": str(array.dtype), "shape": list(array.shape)} for key, array in arrays.items()
                },
            }
            (building / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
            building.chmod(0o777 & ~_umask())  # mkdtemp makes it private
            os.rename(building, folder)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise

    @classmethod
    def open(cls, folder: str | Path) -> GraphStore:
        """Open a saved store, memory mapped. Raises ValueError if it is not one, is newer than this code, or truncated."""
        folder = Path(folder)
        meta = _read_meta(folder)
        arrays = {}
        for key, entry in meta["arrays"].items():
            path = folder / f"{key}.npy"
            try:
                # Copy on write: the tensors are writable, as torch wants them, and the file stays as it is.
                array = np.load(path, mmap_mode="c", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise ValueError(f"{path}: damaged or missing ({error}); delete {folder} and build it again") from None
            if str(array.dtype) != entry["dtype"] or list(array.shape) != entry["shape"]:
                raise ValueError(
                    f"{path}: holds {array.dtype} {list(array.shape)}, meta.json says {entry['dtype']} {entry['shape']}; "
                    f"delete {folder} and build it again"
                )
            arrays[key] = torch.from_numpy(array)
        try:
            smiles = (folder / "smiles.txt").read_text(encoding="utf-8").split("\n")[:-1] if meta["smiles"] else None
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{folder}: smiles.txt is not readable ({error}); delete the folder and build it again"
            ) from None
        return cls(**arrays, smiles=smiles, name=meta["name"])


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / "meta.json"
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is not a saved GraphStore: meta.json: {error}") from None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise ValueError(f"{folder} is not a saved GraphStore: meta.json does not say 'format': {FORMAT!r}")
    if meta.get("version") != VERSION:
        raise ValueError(
            f"{folder} has store version {meta.get('version')!r}, this graphcl reads {VERSION}; build it again or update"
        )
    arrays = meta.get("arrays")
    required = set(_ARRAYS) - {"edge_attr", "y"}
    if not isinstance(arrays, dict) or not required <= arrays.keys() <= set(_ARRAYS):
        raise ValueError(f"{path}: 'arrays' must name {', '.join(_ARRAYS)}; delete {folder} and build it again")
    if not all(isinstance(entry, dict) and {"dtype", "shape"} <= entry.keys() for entry in arrays.values()):
        raise ValueError(f"{path}: every array needs 'dtype' and 'shape'; delete {folder} and build it again")
    if not isinstance(meta.get("smiles"), bool) or not isinstance(meta.get("name"), str):
        raise ValueError(f"{path}: 'smiles' (true or false) and 'name' are needed; delete {folder} and build it again")
    return meta


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _wide(values: Tensor) -> Tensor:
    """Integers as int64, which embeddings and one-hot want; floats as they are."""
    return values if values.is_floating_point() else values.to(torch.int64)


def _pointer(counts: Tensor) -> Tensor:
    """[0, c0, c0 + c1, ...]"""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


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
    if edge_index.is_floating_point() and edge_index.numel() or edge_index.is_complex():
        raise ValueError(f"{where}: edge_index is {edge_index.dtype}; node numbers must be integers")
    return edge_index.to(torch.int64)


def _stack(graphs: Sequence[Data], key: str, rows: Sequence[int], name: str) -> Tensor | None:
    """The attribute of all graphs as one [sum of rows, width] tensor; None if no graph has it."""
    parts: list[Tensor] = []
    for i, graph in enumerate(graphs):
        value = graph[key] if key in graph else None
        if (value is None) != ((graphs[0][key] if key in graphs[0] else None) is None):
            raise ValueError(
                f"{name}: graph {i} has {'no ' if value is None else ''}{key}, graph 0 {'has' if value is None else 'has none'}"
            )
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
            raise ValueError(
                f"{name}: graph {i} has {'no y' if graph.y is None else 'y'}, graph 0 has not the same; label all (-1: unknown) or none"
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
