"""Rings and nodes of three classes that a few epochs of fine-tuning tell apart."""

import pytest
import torch
from torch_geometric.data import Data

from graphcl.data.splits import Split
from graphcl.data.store import GraphStore
from graphcl.encoders import GCN, GIN, Readout

FAST = {"epochs": 6, "lr": 0.02, "batch_size": 16}


def ring(n: int) -> torch.Tensor:
    i = torch.arange(n)
    return torch.stack([torch.cat([i, (i + 1) % n]), torch.cat([(i + 1) % n, i])])


def graphs(y: torch.Tensor, noise: float = 0.5) -> GraphStore:
    """Rings whose features stand around their class; y: [B] or [B, T]."""
    of = y if y.dim() == 1 else y[:, 0].nan_to_num(0).long()
    made = []
    for b in range(len(y)):
        x = torch.eye(3)[of[b]].expand(4 + b % 3, 3) + noise * torch.randn(4 + b % 3, 3)
        made.append(Data(x=x, edge_index=ring(len(x)), y=y[b : b + 1]))
    return GraphStore.from_graphs(made, name="rings")


def nodes(n: int = 90, noise: float = 0.5) -> Data:
    y = torch.arange(n) // (n // 3)
    return Data(x=torch.eye(3)[y] + noise * torch.randn(n, 3), edge_index=ring(n), y=y)


def thirds(n: int, seed: int = 0) -> Split:
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return Split(order[: n // 3], order[n // 3 : 2 * n // 3], order[2 * n // 3 :])


def either(kind: str, noise: float = 0.5):
    """(encoder, readout, source, rows) for nodes or graphs."""
    if kind == "nodes":
        return GCN(3, 8, dropout=0.2), None, nodes(noise=noise), 90
    return GIN(3, 8, layers=2, dropout=0.2), Readout("mean"), graphs(torch.arange(90) % 3, noise), 90


both = pytest.mark.parametrize("kind", ["nodes", "graphs"])


def several(n: int = 90) -> tuple[GraphStore, torch.Tensor]:
    y = (torch.rand(n, 3) < 0.5).float()
    y[:, 0] = torch.arange(n) % 2
    y[torch.rand(n, 3) < 0.2] = float("nan")
    return graphs(y), y
