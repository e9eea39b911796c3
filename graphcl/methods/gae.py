"""GAE and VGAE: reconstruct the edges from inner products of node embeddings.

Paper:   Kipf and Welling, 2016, "Variational Graph Auto-Encoders", arXiv:1611.07308
Loss:    binary cross-entropy of sigmoid(z_u . z_v) on the edges and on as many random pairs, plus KL when variational
Config:  configs/gae.yaml
Differs: as many sampled non-edges as edges instead of all N^2 pairs with a weight. One end of each is that of an edge,
         so nodes of many edges have many non-edges; the other is uniform. All edges are trained on, since the
         aim is the encoder and not link prediction. Of a neighbour sample only the edges into its seeds count.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from graphcl.methods.method import Encoder, Method
from graphcl.methods.rows import is_sample, pooled


class GAE(Method):
    """variational adds a mean and a log-variance head; `encode` gives the mean. A readout makes it serve graphs."""

    levels = ("node", "graph")

    def __init__(self, encoder: Encoder, readout: nn.Module | None = None, *, variational: bool = False) -> None:
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
            # The reconstruction is a mean over all pairs of nodes, so the KL of the nodes is divided by as many.
            all_pairs = (data.ptr.diff() ** 2).sum() if isinstance(data, Batch) else data.num_nodes**2
            kl = -0.5 * (1 + logvar - mean**2 - logvar.exp()).sum() / all_pairs
        src, dst = edges_of(data)
        other, true = random_pairs(data, dst)
        edges = F.softplus(-(z[src] * z[dst]).sum(-1)).sum() / max(len(dst), 1)
        pairs = F.softplus((z[other] * z[dst]).sum(-1)).masked_fill(true, 0).sum() / (~true).sum().clamp(min=1)
        return {"loss": edges + pairs + kl, "edges": edges, "pairs": pairs, "kl": kl}

    def encode(self, data: Data) -> Tensor:
        h = self.encoder(data)
        return pooled(self.mean(h) if self.variational else h, data, self.readout)


def edges_of(data: Data) -> Tensor:
    """The edges [2, E] whose targets count: all of them, of a neighbour sample those of the seeds."""
    return data.edge_index[:, data.edge_index[1] < data.batch_size] if is_sample(data) else data.edge_index


def random_pairs(data: Data, dst: Tensor) -> tuple[Tensor, Tensor]:
    """For every node of dst [E] a random node of its graph [E], and whether the two are an edge or the same [E]."""
    if isinstance(data, Batch):
        first, count = data.ptr[data.batch[dst]], data.ptr.diff()[data.batch[dst]]
    else:
        first, count = torch.zeros_like(dst), torch.full_like(dst, data.num_nodes)
    other = first + (torch.rand(len(dst), device=dst.device, dtype=torch.float64) * count).long()
    src, end = data.edge_index
    return other, torch.isin(other * data.num_nodes + dst, src * data.num_nodes + end) | (other == dst)
