"""Loader: batches in an order that depends on the seed and the epoch alone, with the labels hidden."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphcl.data.store import GraphStore, edge_order

T = TypeVar("T")


class Loader:
    """Batches of a GraphStore, or the one graph of a Data again and again, on `device`.

    batch_size: graphs a batch over all processes; None: everything in one batch.  One graph (Data) is one batch.
    visible: rows whose labels may be seen, of graphs for a GraphStore and of nodes for a Data; every other label is
    -1 (NaN for float labels). None hides all.  Every batch carries data-set-wide ids, graph_id [b] and n_id [n].
    The edges of every graph are sorted by target, then source; per-edge attributes follow.
    A store that fits into half of a CUDA device's free memory is moved there and gathered there; batches of a larger
    one are gathered into pinned memory by a thread, one ahead. On the CPU no thread or process is started: a gather
    costs less than handing the batch over.
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
            fits = _fits(store, self.device)
            self.source: Data | GraphStore = store.to(self.device) if fits else store
            self._ahead = not fits  # batches are prepared by a thread
        else:
            if batch_size is not None:
                raise ValueError(f"batch_size {batch_size} is for many graphs; one graph is one batch, leave it unset")
            if world > 1:
                raise ValueError(f"one graph cannot be shared by {world} processes; run it in one (without torchrun)")
            self.num_items, self.batch_size = int(source.num_nodes or 0), 1
            self.source, self._ahead = self._with_ids(source, hidden), False

    def _with_ids(self, source: Data, y: Tensor | None) -> Data:
        """The graph on the device, edges sorted, with ids. What is no tensor (names, ...) stays with the source."""
        data = Data(
            **{key: value for key, value in source.to_dict().items() if isinstance(value, Tensor) and key != "y"}
        )
        data.y = y
        if data.x is None:
            data.num_nodes = self.num_items
        data.graph_id, data.n_id = torch.zeros(1, dtype=torch.int64), torch.arange(self.num_items)
        return _edges_sorted(data).to(self.device)

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
        return self._batches(self._share(order, step) for step in range(start, len(self)))

    def _share(self, order: Tensor, step: int) -> Tensor:
        chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
        share = len(chosen) // self.world
        return chosen[self.rank * share : (self.rank + 1) * share]

    def in_order(self) -> Iterator[Any]:
        """All the data in data-set order; every process gets the whole."""
        order = torch.arange(self.num_items if isinstance(self.source, GraphStore) else 1)
        return self._batches(order[first : first + self.batch_size] for first in range(0, len(order), self.batch_size))

    def _batches(self, parts: Iterable[Tensor]) -> Iterator[Any]:
        if isinstance(self.source, Data):
            for _ in parts:
                yield copy.copy(self.source)  # a fresh container; views rebind, they never write into tensors
        elif not self._ahead:
            for index in parts:
                yield self.source.batch(index, self.device)
        else:
            with contextlib.closing(_one_ahead(self._pinned, parts)) as batches:
                for batch in batches:
                    yield batch.to(self.device, non_blocking=True)

    def _pinned(self, index: Tensor) -> Any:
        assert isinstance(self.source, GraphStore)
        batch = self.source.batch(index)
        return batch.pin_memory() if self.device.type == "cuda" else batch


def _one_ahead(make: Callable[[Tensor], T], parts: Iterable[Tensor]) -> Generator[T, None, None]:
    """make(part) for every part, in order, the next one made by a thread while the last one is used.

    What the thread raises is raised here; it ends when the iterator is exhausted, closed or forgotten.
    """
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue()
    wanted = threading.Semaphore(1)  # one is made ahead, and another when that one is taken
    stopped = threading.Event()

    def work() -> None:
        try:
            for part in parts:
                wanted.acquire()
                if stopped.is_set():
                    return
                ready.put((make(part), None))
            ready.put((None, None))
        except BaseException as error:
            ready.put((None, error))

    thread = threading.Thread(target=work, name="graphcl-gather", daemon=True)
    thread.start()
    try:
        while True:
            made, error = ready.get()
            if error is not None:
                raise error
            if made is None:
                return
            wanted.release()
            yield made
    finally:
        stopped.set()
        wanted.release()
        thread.join()


def _edges_sorted(data: Data) -> Data:
    """The graph with its edges by target, then source, and every per-edge attribute (as PyG tells them) with them."""
    if data.edge_index is None:
        return data
    src, dst = data.edge_index
    whole = torch.tensor([0, int(data.num_nodes or 0)]), torch.tensor([0, len(src)])
    order = edge_order(src, dst, edge_ptr=whole[1], node_ptr=whole[0])
    for key in data.edge_attrs():
        data[key] = data[key].index_select(data.__cat_dim__(key, data[key]), order)
    return data


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
    y = y if y.is_floating_point() else y.to(torch.int64)  # bool and uint8 have no -1
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
