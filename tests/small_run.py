"""A run that trains in a moment: regression on random rows, with dropout, momentum weights and a queue."""

from __future__ import annotations

import copy
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphcl.config import Config
from graphcl.data.store import GraphStore
from graphcl.methods.method import Method
from graphcl.momentum import FeatureQueue, ema_update
from graphcl.objectives import queue_infonce
from graphcl.state import Run


class Rows:
    """Batches of four rows with ids, in an order of (seed, epoch) alone; stands for a Loader."""

    def __init__(self, batches: int = 5, width: int = 6, seed: int = 0) -> None:
        self.x = torch.randn(4 * batches, width, generator=torch.Generator().manual_seed(7))
        self.batches, self.seed = batches, seed

    def __len__(self) -> int:
        return self.batches

    def epoch(self, e: int, start: int = 0) -> Iterator[Data]:
        order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(1000 * self.seed + e))
        for index in order.split(4)[start:]:
            yield self.batch(index)

    def in_order(self) -> Iterator[Data]:
        for index in torch.arange(len(self.x)).split(4):
            yield self.batch(index)

    def batch(self, index: Tensor) -> Data:
        return Data(x=self.x[index], graph_id=index, n_id=index)


class Momentum(Method):
    """MoCo on rows: all that a checkpoint must keep (dropout, batch norm, momentum weights, queue, epoch hooks)."""

    def __init__(self, width: int = 6, dropout: float = 0.2) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(width, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
        self.keys = copy.deepcopy(self.encoder).requires_grad_(False)
        self.dropout, self.queue = nn.Dropout(dropout), FeatureQueue(11, 4)
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("seen", torch.zeros(3))  # after_epoch: calls, sum of the mean losses; before_epoch: calls
        self.fresh: list[tuple[Tensor, Tensor]] = []

    def loss(self, data: Any, group: str = "model") -> dict[str, Tensor]:
        q = self.encoder(self.dropout(data.x) - self.centre)
        with torch.no_grad():
            k = self.keys(self.dropout(data.x))
        self.fresh.append((k, data.graph_id))
        loss = queue_infonce(q, k, self.queue.items, 0.2, ids=data.graph_id, queue_ids=self.queue.ids)
        return {"loss": loss, "length": q.norm(dim=-1).mean()}

    def encode(self, data: Any) -> Tensor:
        return self.encoder(data.x)

    def after_step(self, progress: float) -> None:
        for k, ids in self.fresh:
            self.queue.enqueue(k, ids)
        self.fresh.clear()
        ema_update(self.keys, self.encoder, 0.9)

    def before_epoch(self, loader: Any, epoch: int) -> None:
        self.seen[2] += 1
        total = torch.stack([data.x.mean(0) for data in loader]).mean(0)
        self.centre.copy_(total + 0.01 * torch.randn(len(total)))  # draws, so that running it twice would show

    def after_epoch(self, metrics: dict[str, float]) -> None:
        self.seen[0] += 1
        self.seen[1] += metrics["loss"]


def small_config(**settings: Any) -> Config:
    """`train__lr=0.1` sets train.lr."""
    values: dict[str, Any] = {
        "name": "small",
        "data": {"name": "cora"},
        "encoder": {"name": "gcn"},
        "method": {"name": "gae"},
        "train": {"epochs": 4, "device": "cpu", "lr": 0.01},
        "run": {"checkpoint_every": 3, "log_every": 2},
    }
    for key, value in settings.items():
        section, name = key.split("__")
        values[section][name] = value
    return Config.model_validate(values)


def small_run(make: Callable[[], Method] = Momentum, loader: Any = None, **settings: Any) -> Run:
    """The method is made here, under a seed, so that two runs begin with the same weights."""
    torch.manual_seed(3)
    loader = Rows() if loader is None else loader
    data = GraphStore.from_graphs([Data(x=torch.zeros(20, 6), edge_index=torch.empty(2, 0, dtype=torch.long))])
    return Run(small_config(**settings), data, [], make(), loader)


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file can grow beyond `room` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
