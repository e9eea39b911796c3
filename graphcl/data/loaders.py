"""Loader: batches in an order that depends on the seed and the epoch alone, with the labels hidden."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphcl.data.store import GraphStore


class Loader:
    """Batches of a GraphStore, or the one graph of a Data again and again, on `device`.

    batch_size: graphs a batch over all processes; None: everything in one batch.  One graph (Data) is one batch.
    visible: rows whose labels may be seen, of graphs for a GraphStore and of nodes for a Data; every other label is
    -1 (NaN for float labels). None hides all.  Every batch carries data-set-wide ids, graph_id [b] and n_id [n].
    rank, world: which of how many processes this is. A batch is cut into `world` equal contiguous shares, and what
    does not divide evenly at the end of the last batch is left out of that epoch.

    Raises ValueError for a batch size below 1 or not a multiple of `world`, for `visible` out of range, and for one
    graph in several processes.
    """

    def __init__(
        self,
        source: Data | GraphStore,
        batch_size: int | None = None,
        *,
        shuffle: bool = True,
        seed: int = 0,
        device: torch.device | str | None = None,
        visible: Tensor | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"rank must be in 0..{world - 1}, got {rank}")
        self.shuffle, self.seed, self.rank, self.world = shuffle, seed, rank, world
        self.device = torch.device(device) if device is not None else _device(source)
        hidden = _hide_labels(source, visible)
        if isinstance(source, GraphStore):
            self.num_items = len(source)
            self.batch_size = len(source) if batch_size is None else batch_size
            if self.batch_size < 1:
                raise ValueError(f"batch_size must be at least 1, got {batch_size}")
            if batch_size is not None and batch_size % world:
                raise ValueError(f"batch_size {batch_size} cannot be shared by {world} processes; make it a multiple")
            store = source._like(y=hidden)
            self.source: Data | GraphStore = store.to(self.device) if _fits(store, self.device) else store
        else:
            if batch_size is not None:
                raise ValueError(f"batch_size {batch_size} is for many graphs; one graph is one batch, leave it unset")
            if world > 1:
                raise ValueError(f"one graph cannot be shared by {world} processes; run it in one (without torchrun)")
            self.num_items, self.batch_size = int(source.num_nodes or 0), 1
            self.source = self._with_ids(source, hidden)

    def _with_ids(self, source: Data, y: Tensor | None) -> Data:
        """The graph on the device, with ids. Names and other attributes that are no tensors stay with the source."""
        data = Data(
            **{key: value for key, value in source.to_dict().items() if isinstance(value, Tensor) and key != "y"}
        )
        data.y = y
        if data.x is None:
            data.num_nodes = self.num_items
        data.graph_id, data.n_id = torch.zeros(1, dtype=torch.int64), torch.arange(self.num_items)
        return data.to(self.device)

    def __len__(self) -> int:
        """Batches an epoch."""
        if isinstance(self.source, Data):
            return 1
        whole, rest = divmod(self.num_items, self.batch_size)
        return whole + (rest >= self.world)

    def __iter__(self) -> Iterator[Any]:
        return self.epoch(0)

    def epoch(self, e: int, start: int = 0) -> Iterator[Any]:
        """Batches of epoch `e` from batch `start` on; the order depends on (seed, e) alone."""
        if not 0 <= start <= len(self):
            raise ValueError(f"start must be in 0..{len(self)} (batches of an epoch), got {start}")
        order = torch.arange(self.num_items)
        if self.shuffle and isinstance(self.source, GraphStore):
            order = torch.randperm(self.num_items, generator=_generator(self.seed, e))
        for step in range(start, len(self)):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            share = len(chosen) // self.world
            yield self._batch(chosen[self.rank * share : (self.rank + 1) * share])

    def in_order(self) -> Iterator[Any]:
        """All the data in data-set order; every process gets the whole."""
        order = torch.arange(self.num_items if isinstance(self.source, GraphStore) else 1)
        for first in range(0, len(order), self.batch_size):
            yield self._batch(order[first : first + self.batch_size])

    def _batch(self, index: Tensor) -> Any:
        if isinstance(self.source, Data):
            return copy.copy(self.source)  # a fresh container; views rebind, they never write into tensors
        return self.source.batch(index, self.device)


def _generator(seed: int, e: int) -> torch.Generator:
    # torch's CPU generator looks at the low 32 bits of a seed only, so (seed, epoch) is mixed by a hash.
    mixed = hashlib.sha256(f"{seed} {e}".encode()).digest()[:4]
    return torch.Generator().manual_seed(int.from_bytes(mixed, "little"))


def _device(source: Data | GraphStore) -> torch.device:
    if isinstance(source, GraphStore):
        return source.device
    return next((value.device for value in source.to_dict().values() if isinstance(value, Tensor)), torch.device("cpu"))


def _fits(store: GraphStore, device: torch.device) -> bool:
    """Whether the whole store may lie on the device: then batches are gathered there."""
    if device.type != "cuda":
        return True
    parts = (store.x, store.src, store.dst, store.edge_attr)
    size = sum(part.numel() * part.element_size() for part in parts if part is not None)
    free, _ = torch.cuda.mem_get_info(device)
    return size < free // 2


def _hide_labels(source: Data | GraphStore, visible: Tensor | None) -> Tensor | None:
    y = source.y
    if y is None:
        return None
    if not isinstance(y, Tensor):
        raise ValueError(f"y must be a tensor, got {type(y).__name__}")
    hidden = torch.full_like(y, float("nan") if y.is_floating_point() else -1)
    if visible is not None:
        rows = visible.to(y.device)
        if rows.dtype == torch.bool or rows.is_floating_point() or rows.dim() != 1:
            raise ValueError(
                f"visible must be row numbers [n], got {rows.dtype} {tuple(rows.shape)}; use mask.nonzero()[:, 0]"
            )
        if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= len(y)):
            raise ValueError(f"visible goes from {int(rows.min())} to {int(rows.max())}, rows from 0 to {len(y) - 1}")
        hidden[rows] = y[rows]
    return hidden
