"""Every encoder of width 8, and odd batches with features that it reads."""

from __future__ import annotations

from typing import Any

import torch
from graphs import odd_batches
from torch import nn
from torch_geometric.data import Batch

from graphcl.encoders import ENCODERS

FLOAT = [name for name in ENCODERS if not name.startswith("molecule")]
WEIGHTED = [name for name in ENCODERS if name != "gat"]
ODD = odd_batches()


def small(name: str, in_dim: int = 3, **settings: Any) -> nn.Module:
    """An encoder of width 8."""
    cls = ENCODERS[name]
    return cls(in_dim, hidden=8, **settings) if cls.takes_in_dim else cls(hidden=8, **settings)


def fit_for(name: str, data: Any, dtype: torch.dtype = torch.float64) -> Any:
    """The same graphs with features that the encoder reads, different for every row."""
    data = data.clone()
    n, e = data.num_nodes, data.num_edges
    if name.startswith("molecule"):
        data.x = torch.stack([torch.arange(n) * 7 % 120, torch.arange(n) % 3], dim=1)
        data.edge_attr = torch.stack([torch.arange(e) % 4, torch.arange(e) % 3], dim=1)
    else:
        data.x = torch.randn(n, 3, generator=torch.Generator().manual_seed(n), dtype=dtype)
    return data


def ordinary(name: str) -> Batch:
    return fit_for(name, ODD["ordinary"])


def copied(conv: nn.Module, source: nn.Module) -> nn.Module:
    conv.load_state_dict(source.state_dict())
    return conv.double()


def mlp(a: int, b: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, b))
