"""GraphStore: many graphs as flat arrays; a batch is one gather.

The arrays lie in memory or in memory-mapped files (store_file.py). Nothing is pickled, and no loop runs over graphs
once a store is built.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Batch, Data

from graphcl.data import _native
from graphcl.data.pyg import flat_arrays

_ARRAYS = ("x", "src", "dst", "edge_attr", "y", "node_ptr", "edge_ptr")
_TEXTS = ("smiles", "names")
_INTEGERS = (torch.uint8, torch.int16, torch.int32, torch.int64)
_OF_NUMPY = (*_INTEGERS, torch.float32, torch.float64)  # what is gathered by numpy, or by compiled kernels
_DAMAGED = "{0.name}: the pointers are damaged; delete {0.folder} and build it again"
_EMPTY = Batch(_base_cls=Data)  # a copy of it costs a tenth of a new one


class GraphStore:
    """Many graphs as flat arrays.

    x: [N, F] float or integer; [N, 0] without features.
    src, dst: [E] node numbers inside their own graph.  edge_attr: [E, Fe] or None.
    y: [B] classes (int64) or values (float), [B, T] for T tasks (NaN: missing), or None.
    node_ptr, edge_ptr: [B + 1] int64, graph i has rows ptr[i] to ptr[i + 1]; always on the CPU, so that the size of
    a batch is known without asking the device.
    smiles, names: B strings or None; they stay in the store, batches do not carry them.

    The edges of each graph are sorted by target, then source, and edge_attr with them; equal ones keep their order.
    Integers (x, src, dst, edge_attr) are kept in the smallest of uint8, int16, int32, int64 that holds them all, and
    leave the store as int64. What is in its type and order already is not copied: to write to it writes to the store.

    Raises ValueError if the shapes disagree or an edge is out of range; `check()` looks at the contents.
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
        smiles: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        name: str = "graphs",
    ) -> None:
        self.x, self.src, self.dst, self.edge_attr = x.detach(), src, dst, edge_attr
        self.node_ptr, self.edge_ptr = node_ptr.to("cpu", torch.int64), edge_ptr.to("cpu", torch.int64)
        self.y = y if y is None or y.is_floating_point() else y.to(torch.int64)
        self.smiles, self.names, self.name = smiles, names, name
        self.folder: Path | None = None  # where it was opened
        self._check_shapes()
        for pointer, what in ((self.node_ptr, "node_ptr"), (self.edge_ptr, "edge_ptr")):
            if bool((pointer.diff() < 0).any()):
                raise ValueError(f"{name}: {what} must rise from 0 to {int(pointer[-1])}, it falls in between")
        self._check_edges()
        self._sort_edges()
        self.x = _narrow(self.x).contiguous()
        self.src, self.dst = _narrow(torch.stack([self.src, self.dst])).contiguous()
        if self.edge_attr is not None:
            self.edge_attr = _narrow(self.edge_attr.detach()).contiguous()

    def _check_shapes(self) -> None:
        if self.x.dim() != 2:
            raise ValueError(
                f"{self.name}: x must be [N, F], got {tuple(self.x.shape)}; use x[:, None] for one feature"
            )
        for what, ends in (("src", self.src), ("dst", self.dst)):
            if ends.dtype == torch.bool or ends.is_floating_point():
                raise ValueError(f"{self.name}: {what} must be node numbers, integers, got {ends.dtype}")
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
            if pointer[0] != 0 or pointer[-1] != rows:
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

    def _check_edges(self) -> None:
        nodes = self.node_ptr.diff()
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

    def _sort_edges(self) -> None:
        # The graphs' own numbers tell nothing across graphs, so where one ends and the next begins is no disorder.
        fall = self.dst[1:] < self.dst[:-1]
        fall |= (self.dst[1:] == self.dst[:-1]) & (self.src[1:] < self.src[:-1])
        begins = self.edge_ptr[(self.edge_ptr > 0) & (self.edge_ptr < len(self.src))]
        fall[(begins - 1).to(fall.device)] = False
        if not bool(fall.any()):
            return
        order = edge_order(self.src, self.dst, self.edge_ptr, self.node_ptr)
        self.src, self.dst = self.src[order], self.dst[order]
        if self.edge_attr is not None:
            self.edge_attr = self.edge_attr[order]

    def check(self) -> GraphStore:
        """The store itself; ValueError naming the first graph that is empty or has an edge out of range, NaN or inf."""
        nodes = self.node_ptr.diff()
        if bool((nodes == 0).any()):
            empty = int((nodes == 0).nonzero()[0])
            raise ValueError(f"{self.name}: graph {empty} has no nodes; leave it out, every graph needs at least one")
        self._check_edges()
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
        try:
            i = operator.index(i)
        except TypeError:
            wanted = f"a graph is asked for by its number, got {type(i).__name__}"
            raise TypeError(f"{self.name}: {wanted}; for several use batch(index) or subset(index)") from None
        if not -len(self) <= i < len(self):
            raise IndexError(f"{self.name}: no graph {i}, there are {len(self)}")
        i %= len(self)
        nodes, edges = self._span(self.node_ptr, i), self._span(self.edge_ptr, i)
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
        rows = self._checked(index)
        numpy = self._in_numpy()
        kernels = _native.native() if numpy else None
        nodes, edges = self._places(self.node_ptr, rows, kernels), self._places(self.edge_ptr, rows, kernels)
        if kernels is not None:
            values = _native.gather(kernels, self, rows, nodes, edges)
        elif numpy:
            values = _native.gather_plainly(self, rows, nodes, edges)
        else:
            values = self._gather(rows, nodes, edges)

        # From numpy, since torch takes five times as long for such small tensors; on the CPU wherever the store lies.
        slices_of_nodes, slices_of_edges = torch.from_numpy(nodes.slices), torch.from_numpy(edges.slices)
        one_each, none = torch.from_numpy(np.arange(len(rows) + 1)), torch.from_numpy(np.zeros_like(rows))
        slices = {"x": slices_of_nodes, "edge_index": slices_of_edges}
        if self.edge_attr is not None:
            slices["edge_attr"] = slices_of_edges
        if self.y is not None:
            slices["y"] = one_each
        slices |= {"graph_id": one_each, "n_id": slices_of_nodes}
        batch: Any = _EMPTY.__copy__()
        vars(batch._store).update(
            _mapping=values,
            _num_graphs=len(rows),
            _slice_dict=slices,
            _inc_dict=dict.fromkeys(slices, none) | {"edge_index": slices_of_nodes[:-1]},
        )
        if device is None or torch.device(device) == self.device:
            return batch
        return batch.to(device, non_blocking=True)

    def _checked(self, index: Tensor) -> NDArray[np.int64]:
        """The numbers of graphs that `index` [b] has; ValueError if it has none, or others."""
        if not isinstance(index, Tensor):
            raise TypeError(f"index must be a tensor, got {type(index).__name__}; use torch.as_tensor(index)")
        if index.dim() != 1 or index.dtype not in (torch.int64, torch.int32) or len(index) == 0:
            way = "; of a mask use mask.nonzero()[:, 0]" if index.dtype == torch.bool else ""
            raise ValueError(f"index must be [b] integers with b > 0, got {index.dtype} {tuple(index.shape)}{way}")
        rows: NDArray[np.int64] = index.cpu().numpy().astype(np.int64)
        if np.minimum.reduce(rows | (len(self) - 1 - rows)) < 0:  # the sign of one is the sign of both
            raise ValueError(f"index goes from {rows.min()} to {rows.max()}, graphs from 0 to {len(self) - 1}")
        return rows

    def _in_numpy(self) -> bool:
        given = (self.x, self.src) if self.edge_attr is None else (self.x, self.src, self.edge_attr)
        return self.device.type == "cpu" and all(value.dtype in _OF_NUMPY for value in given)

    def _places(self, pointer: Tensor, rows: NDArray[np.int64], kernels: Any = None) -> _native.Places:
        ends, start, slices = pointer.numpy(), np.empty_like(rows), np.zeros(len(rows) + 1, dtype=np.int64)
        if kernels is not None:
            good = kernels.places(ends, rows, start, slices)
        else:
            start, stop = ends[rows], ends[rows + 1]
            counts = stop - start
            counts.cumsum(out=slices[1:])
            good = np.minimum.reduce(start | counts | (ends[-1] - stop)) >= 0
        if not good:
            raise ValueError(_DAMAGED.format(self))
        return _native.Places(start, slices)

    def _span(self, pointer: Tensor, i: int) -> slice:
        start, stop = pointer[i : i + 2].tolist()
        if not 0 <= start <= stop <= int(pointer[-1]):
            raise ValueError(_DAMAGED.format(self))
        return slice(start, stop)

    def _gather(self, rows: NDArray[np.int64], nodes: _native.Places, edges: _native.Places) -> dict[str, Tensor]:
        """The batch's tensors, made where the store lies."""
        numbers = [rows]
        for start, slices in (nodes, edges):
            numbers += [slices[1:] - slices[:-1], start - slices[:-1]]
        small = torch.from_numpy(np.concatenate([*numbers, nodes.slices]))
        if self.device.type == "cuda":
            small = small.pin_memory()  # one copy to the device, and nobody waits for it
        small = small.to(self.device, non_blocking=True)
        index, node_counts, node_shift, edge_counts, edge_shift = small[: 5 * len(rows)].view(5, -1)
        ptr = small[5 * len(rows) :]
        n, e = int(nodes.slices[-1]), int(edges.slices[-1])
        places = torch.arange(max(n, e), device=self.device)
        graph_of_node = torch.repeat_interleave(node_counts, output_size=n)
        graph_of_edge = torch.repeat_interleave(edge_counts, output_size=e)
        n_id = node_shift.index_select(0, graph_of_node).add_(places[:n])
        e_id = edge_shift.index_select(0, graph_of_edge).add_(places[:e])
        ends = torch.stack([self.src.index_select(0, e_id), self.dst.index_select(0, e_id)])
        values = {"x": _wide(_rows(self.x, n_id)), "edge_index": _wide(ends).add_(ptr.index_select(0, graph_of_edge))}
        if self.edge_attr is not None:
            values["edge_attr"] = _wide(_rows(self.edge_attr, e_id))
        if self.y is not None:
            values["y"] = self.y.index_select(0, index)
        return values | {"graph_id": index, "n_id": n_id, "batch": graph_of_node, "ptr": ptr}

    def subset(self, index: Tensor) -> GraphStore:
        """A store of the graphs `index` [b], b > 0, in that order; ids in its batches count from 0 again."""
        rows = self._checked(index)
        ids: dict[str, Tensor] = {}
        pointers: dict[str, Tensor] = {}
        for what in ("node_ptr", "edge_ptr"):
            places = self._places(getattr(self, what), rows)
            ids[what], pointers[what] = torch.from_numpy(_native.rows_of(places)), torch.from_numpy(places.slices)
        n_id, e_id = ids["node_ptr"].to(self.device), ids["edge_ptr"].to(self.device)
        return self._like(
            x=self.x[n_id],
            src=self.src[e_id],
            dst=self.dst[e_id],
            edge_attr=None if self.edge_attr is None else self.edge_attr[e_id],
            y=None if self.y is None else self.y[torch.from_numpy(rows).to(self.y.device)],
            smiles=None if self.smiles is None else [self.smiles[i] for i in rows],
            names=None if self.names is None else [self.names[i] for i in rows],
            **pointers,
        )

    def with_x(self, x: Tensor) -> GraphStore:
        """The same graphs with other features, [N, F]."""
        return self._like(x=_narrow(x.detach()).contiguous())

    def to(self, device: torch.device | str) -> GraphStore:
        """The store with x, edges and labels on `device`."""
        moved = {
            key: value.to(device)
            for key in ("x", "src", "dst", "edge_attr", "y")
            if (value := getattr(self, key)) is not None
        }
        return self._like(**moved)

    def _like(self, **changed: Any) -> GraphStore:
        """The store with other arrays, which are in order already."""
        other = copy.copy(self)
        vars(other).update(changed, folder=None)
        other._check_shapes()
        return other

    @classmethod
    def concat(cls, stores: Sequence[GraphStore], name: str | None = None) -> GraphStore:
        """The graphs of all stores in one. Raises ValueError if one has an attribute that another lacks, or others."""
        if not len(stores):
            raise ValueError("concat was given no store; it needs at least one")
        first = stores[0]
        parts: dict[str, Any] = {"name": first.name if name is None else name}
        for key in ("x", "src", "dst", "edge_attr", "y"):
            values = [getattr(store, key) for store in stores]
            kinds = [None if v is None else (v.shape[1:], v.is_floating_point() and v.dtype) for v in values]
            if len(set(kinds)) > 1:
                other = next(place for place, kind in enumerate(kinds) if kind != kinds[0])
                one, two = ("none" if v is None else f"{v.dtype} {list(v.shape)}" for v in (values[0], values[other]))
                has = f"store 0 has {one}, store {other} has {two}"
                raise ValueError(f"{first.name}: the stores differ in {key}, {has}; all must be of one width and type")
            parts[key] = None if values[0] is None else torch.cat(values)
        for key in ("node_ptr", "edge_ptr"):
            counts = torch.cat([getattr(store, key).diff() for store in stores])
            parts[key] = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        for key in _TEXTS:
            texts = [getattr(store, key) for store in stores]
            if len({text is None for text in texts}) > 1:
                raise ValueError(f"{first.name}: some of the stores have {key}, others not")
            parts[key] = None if texts[0] is None else [one for text in texts for one in text]
        return first._like(**parts)

    @classmethod
    def from_graphs(cls, graphs: Iterable[Data], name: str = "graphs") -> GraphStore:
        """Store of PyG graphs (a list, an InMemoryDataset): x, edge_index, edge_attr, y; other attributes are left out.

        y: a number or [1] for each graph, or [1, T] for T tasks; all graphs have it or none.
        Raises ValueError naming the graph whose shapes, widths, types, edges or values do not fit.
        """
        return cls(**flat_arrays(list(graphs), name), name=name).check()

    def save(self, folder: str | Path) -> None:
        """Write the store to a new folder, see `StoreWriter`; nothing half-written stays behind.

        Raises FileExistsError if the folder is there already, OSError if it cannot be written.
        """
        from graphcl.data.store_file import StoreWriter  # it imports this file

        with StoreWriter(folder, name=self.name) as writer:
            writer.append(self)

    @classmethod
    def open(cls, folder: str | Path) -> GraphStore:
        """Open a saved store, memory mapped: in milliseconds, whatever its size.

        Raises ValueError if the folder is no store, of another version, or its files have other sizes than they must.
        """
        from graphcl.data.store_file import read_store

        parts = read_store(Path(folder))
        store = cls.__new__(cls)
        vars(store).update(dict.fromkeys((*_ARRAYS, *_TEXTS)) | parts, folder=Path(folder))
        store._check_shapes()
        return store

    def verify(self) -> GraphStore:
        """The store itself; ValueError naming the file that is not as it was written. Reads every byte."""
        from graphcl.data.store_file import verify_files

        if self.folder is None:
            raise ValueError(f"{self.name}: not opened from a folder, so there are no files to verify")
        verify_files(self.folder)
        return self


def edge_order(src: Tensor, dst: Tensor, edge_ptr: Tensor, node_ptr: Tensor) -> Tensor:
    """The order [E] in which the edges of every graph are sorted by target, then source; equal edges keep theirs."""
    first_node = torch.repeat_interleave(node_ptr[:-1], edge_ptr.diff()).to(dst.device)
    largest = int(node_ptr.diff().max())
    return ((first_node + dst) * largest + src).argsort(stable=True)


def _narrow(values: Tensor) -> Tensor:
    """Integers in the smallest type that holds them all; floats as they are."""
    if values.is_floating_point() or values.dtype == torch.uint8:
        return values
    low, high = (int(values.min()), int(values.max())) if values.numel() else (0, 0)
    fitting = (dtype for dtype in _INTEGERS if torch.iinfo(dtype).min <= low and high <= torch.iinfo(dtype).max)
    return values.to(next(fitting))


def _wide(values: Tensor) -> Tensor:
    """Integers as int64, which embeddings and one-hot want; floats as they are."""
    return values if values.is_floating_point() else values.to(torch.int64)


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """values[index], [n, F]."""
    if values.element_size() == 1 and values.shape[1] == 2:
        # Two bytes (molecules: type and chirality) are taken as one number: 1-D is gathered several times faster.
        return values.view(torch.int16)[:, 0].index_select(0, index)[:, None].view(values.dtype)
    return values.index_select(0, index)
