"""GraphStore: many graphs as flat arrays; a batch is one gather.

The arrays lie in memory or in memory-mapped `.npy` files. Nothing is pickled, and no loop runs over graphs once a store
is built.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from graphcl.data.pyg import flat_arrays

FORMAT, VERSION = "graphcl-store", 1
_ARRAYS = ("x", "src", "dst", "edge_attr", "y", "node_ptr", "edge_ptr")
_TEXTS = ("smiles", "names")


class GraphStore:
    """Many graphs as flat arrays.

    x: [N, F] float or integer (small integers save memory; they leave the store as int64); [N, 0] without features.
    src, dst: [E] node numbers inside their own graph, kept as int32.  edge_attr: [E, Fe] or None.
    y: [B] classes (int64) or values (float), [B, T] for T tasks (NaN: missing), or None.
    node_ptr, edge_ptr: [B + 1] int64, graph i has rows ptr[i] to ptr[i + 1]; always on the CPU, so that the size of
    a batch is known without asking the device.
    smiles, names: B strings or None; they stay in the store, batches do not carry them.

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
        names: list[str] | None = None,
        name: str = "graphs",
    ) -> None:
        self.x, self.src, self.dst = x, src.to(torch.int32), dst.to(torch.int32)
        self.node_ptr, self.edge_ptr = node_ptr.to("cpu", torch.int64), edge_ptr.to("cpu", torch.int64)
        self.edge_attr, self.smiles, self.names, self.name = edge_attr, smiles, names, name
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
            (graphs if self.names is None else len(self.names), graphs, "names"),
        ):
            if got != want:
                raise ValueError(f"{self.name}: {what} is for {got} graphs, node_ptr for {want}")
        if self.y is not None and self.y.dim() not in (1, 2):
            raise ValueError(f"{self.name}: y must be [B] or [B, T], got {tuple(self.y.shape)}")
        if self.edge_attr is not None and (self.edge_attr.dim() != 2 or len(self.edge_attr) != len(self.src)):
            raise ValueError(f"{self.name}: edge_attr must be [{len(self.src)}, Fe], got {tuple(self.edge_attr.shape)}")

    def check(self) -> GraphStore:
        """The store itself; ValueError naming the first graph that is empty or has an edge out of range, NaN or inf."""
        nodes = self.node_ptr.diff()
        if bool((nodes == 0).any()):
            empty = int((nodes == 0).nonzero()[0])
            raise ValueError(f"{self.name}: graph {empty} has no nodes; leave it out, every graph needs at least one")
        limit = torch.repeat_interleave(nodes.to(torch.int32), self.edge_ptr.diff()).to(self.src.device)
        for what, ends in (("src", self.src), ("dst", self.dst)):
            bad = ((ends < 0) | (ends >= limit)).nonzero()
            if len(bad):
                edge = int(bad[0])
                graph = self._graph_of(edge, self.edge_ptr)
                raise ValueError(
                    f"{self.name}: graph {graph}, edge {edge - int(self.edge_ptr[graph])}: "
                    f"{what} is {int(ends[edge])}, the graph has {int(nodes[graph])} nodes, numbered from 0"
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
        sizes = f"{len(self)} graphs, {len(self.x)} nodes, {len(self.src)} edges, {self.num_features} features"
        return f"GraphStore({self.name}: {sizes})"

    @property
    def num_graphs(self) -> int:
        """B."""
        return len(self)

    @property
    def num_nodes(self) -> int:
        """Nodes of all graphs."""
        return self.x.shape[0]

    @property
    def num_edges(self) -> int:
        """Directed edges of all graphs."""
        return self.src.shape[0]

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
            names=None if self.names is None else [self.names[i] for i in index.tolist()],
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

    def _like(self, **changed: Tensor | None) -> GraphStore:
        parts: dict[str, Any] = {key: getattr(self, key) for key in (*_ARRAYS, *_TEXTS, "name")} | changed
        return GraphStore(**parts)

    @classmethod
    def from_graphs(cls, graphs: Iterable[Data], name: str = "graphs") -> GraphStore:
        """Store of PyG graphs (a list, an InMemoryDataset): x, edge_index, edge_attr, y; other attributes are left out.

        y: a number or [1] for each graph, or [1, T] for T tasks; all graphs have it or none.
        Raises ValueError naming the graph whose shapes, widths, types, edges or values do not fit.
        """
        return cls(**flat_arrays(list(graphs), name), name=name).check()

    def save(self, folder: str | Path) -> None:
        """Write the store to a new folder: `.npy` arrays and JSON; nothing half-written stays behind.

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
            texts = [key for key in _TEXTS if getattr(self, key) is not None]
            for key in texts:
                (building / f"{key}.json").write_text(json.dumps(getattr(self, key)), encoding="utf-8")
            meta = {
                "format": FORMAT,
                "version": VERSION,
                "name": self.name,
                "graphs": len(self),
                "texts": texts,
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
        """Open a saved store, memory mapped. Raises ValueError if it is not one, of another version, or truncated."""
        folder = Path(folder)
        meta = _read_meta(folder)
        arrays: dict[str, Any] = {}
        for key, entry in meta["arrays"].items():
            path = folder / f"{key}.npy"
            try:
                # Copy on write: the tensors are writable, as torch wants them, and the file stays as it is.
                array = np.load(path, mmap_mode="c", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise ValueError(f"{path}: damaged or missing ({error}); delete {folder} and build it again") from None
            if str(array.dtype) != entry["dtype"] or list(array.shape) != entry["shape"]:
                raise ValueError(
                    f"{path}: holds {array.dtype} {list(array.shape)}, meta.json says "
                    f"{entry['dtype']} {entry['shape']}; delete {folder} and build it again"
                )
            arrays[key] = torch.from_numpy(array)
        texts: dict[str, Any] = {}
        for key in meta["texts"]:
            try:
                texts[key] = json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise ValueError(f"{folder / key}.json: damaged or missing ({error}); delete {folder}") from None
        return cls(**arrays, **texts, name=meta["name"])


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
            f"{folder} has store version {meta.get('version')!r}, this graphcl reads {VERSION}; "
            "delete it and build it again, or update graphcl"
        )
    arrays = meta.get("arrays")
    required = set(_ARRAYS) - {"edge_attr", "y"}
    if not isinstance(arrays, dict) or not required <= arrays.keys() <= set(_ARRAYS):
        raise ValueError(f"{path}: 'arrays' must name {', '.join(_ARRAYS)}; delete {folder} and build it again")
    if not all(isinstance(entry, dict) and {"dtype", "shape"} <= entry.keys() for entry in arrays.values()):
        raise ValueError(f"{path}: every array needs 'dtype' and 'shape'; delete {folder} and build it again")
    texts = meta.get("texts")
    if not isinstance(texts, list) or not set(texts) <= set(_TEXTS) or not isinstance(meta.get("name"), str):
        raise ValueError(f"{path}: 'texts' (of {', '.join(_TEXTS)}) and 'name' are needed; delete {folder}")
    return meta


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _wide(values: Tensor) -> Tensor:
    """Integers as int64, which embeddings and one-hot want; floats as they are."""
    return values if values.is_floating_point() else values.to(torch.int64)
