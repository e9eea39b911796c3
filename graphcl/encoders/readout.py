"""From node embeddings to graph embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from graphcl.encoders.aggregate import CSR, entry_sum


class Readout(nn.Module):
    """Pool the nodes of each graph: (h [N, D], data) -> [B, D]. `kind` is sum, mean or max.

    Half-precision embeddings are pooled, and come out, in float32. Pools of nothing (a graph without nodes) are 0.
    """

    def __init__(self, kind: str = "sum") -> None:
        super().__init__()
        if kind not in {"sum", "mean", "max"}:
            raise ValueError(f"unknown readout {kind!r}; known: sum, mean, max")
        self.kind = kind

    def forward(self, h: Tensor, data: Any) -> Tensor:
        """h: [N, D]; data: the graphs that h was computed from. Returns [B, D]."""
        batch = data.batch
        if batch is None:
            batch, graphs = torch.zeros(data.num_nodes, dtype=torch.long, device=h.device), 1
        else:
            graphs = data.num_graphs if hasattr(data, "num_graphs") else int(batch.max()) + 1
        if h.size(0) != batch.size(0):
            raise ValueError(
                f"embeddings of {h.size(0)} nodes for graphs of {batch.size(0)}; give it the view that they came from"
            )
        # In bf16 a sum over some hundred nodes would lose the small ones.
        h = h.to(torch.promote_types(h.dtype, torch.float32))
        if self.kind == "max":
            return scatter(h, batch, dim_size=graphs, reduce="max")
        groups = CSR.of_groups(batch, graphs)
        pooled = entry_sum(h, groups, None)
        return pooled / groups.rowptr.diff().clamp(min=1)[:, None] if self.kind == "mean" else pooled

    def extra_repr(self) -> str:
        """Shown by print."""
        return self.kind
