"""GAE and VGAE: reconstruct the edges from inner products of node embeddings.

Paper:   Kipf and Welling, 2016, "Variational Graph Auto-Encoders", arXiv:1611.07308
Loss:    binary cross-entropy of sigmoid(z_u . z_v) on the edges and on as many random pairs, plus KL / N when variational
Config:  configs/gae.yaml
Differs: as many sampled non-edges as edges instead of all N^2 pairs with a weight; all edges are trained on, since the
         aim is the encoder and not link prediction.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from graphcl.methods.method import Method
from graphcl.methods.rows import pooled


class GAE(Method):
    """variational adds a mean and a log-variance head; `encode` gives the mean. A readout makes it serve graphs."""

    levels = ("node", "graph")

    def __init__(self, encoder: nn.Module, readout: nn.Module | None = None, *, variational: bool = False) -> None:
        super().__init__()
        self.encoder, self.readout, self.variational = encoder, readout, variational
        if variational:
            self.mean = nn.Linear(encoder.out_dim, encoder.out_dim)
            self.logvar = nn.Linear(encoder.out_dim, encoder.out_dim)

    def loss(self, data: Data, group: str = "model") -> dict[str, Tensor]:
        h = self.encoder(data)  # [N, D]
        kl = h.new_zeros(())
        z = h
        if self.variational:
            mean, logvar = self.mean(h), self.logvar(h).clamp(-10, 10)
            z = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
            kl = -0.5 * (1 + logvar - mean**2 - logvar.exp()).sum(-1).mean() / data.num_nodes
        src, dst = data.edge_index
        other, false = random_pairs(data)
        edges = F.softplus(-(z[src] * z[dst]).sum(-1)).sum() / torch.ones_like(src).sum().clamp(min=1)
        pairs = F.softplus((z[src] * z[other]).sum(-1)).masked_fill(false, 0).sum() / (~false).sum().clamp(min=1)
        return {"loss": edges + pairs + kl, "edges": edges, "pairs": pairs, "kl": kl}

    def encode(self, data: Data) -> Tensor:
        h = self.encoder(data)
        return pooled(self.mean(h) if self.variational else h, data, self.readout)


def random_pairs(data: Data) -> tuple[Tensor, Tensor]:
    """For every edge's source a random node of the same graph [E], and whether that pair is an edge or a loop [E]."""
    src, dst = data.edge_index
    if isinstance(data, Batch):
        first, count = data.ptr[data.batch[src]], (data.ptr[1:] - data.ptr[:-1])[data.batch[src]]
    else:
        first, count = torch.zeros_like(src), torch.full_like(src, data.num_nodes)
    other = first + (torch.rand(len(src), device=src.device, dtype=torch.float64) * count).long()
    return other, torch.isin(src * data.num_nodes + other, src * data.num_nodes + dst) | (src == other)
