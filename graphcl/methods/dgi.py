"""DGI: tell nodes of the graph from nodes of a corrupted graph, given the graph's summary.

Paper:   Velickovic et al., 2019, "Deep Graph Infomax", arXiv:1809.10341, eq. 1
Loss:    graphcl/objectives/jsd.py, dgi_bce
Config:  configs/dgi.yaml
Differs: on a batch of graphs each has a summary of its own (the paper has one graph); that of a
         neighbour sample is the mean of its seeds, since the context lacks neighbours of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from graphcl.encoders.readout import Readout
from graphcl.methods.method import Encoder, Method, View
from graphcl.methods.rows import seeds
from graphcl.objectives import dgi_bce


class DGI(Method):
    """view is the corruption, ShuffleNodes in the paper."""

    levels = ("node",)

    def __init__(self, encoder: Encoder, view: View) -> None:
        super().__init__()
        self.encoder, self.view, self.mean = encoder, view, Readout("mean")
        self.bilinear = nn.Parameter(torch.empty(encoder.out_dim, encoder.out_dim))
        nn.init.xavier_uniform_(self.bilinear)

    def loss(self, data: Data, group: str = "model") -> dict[str, Tensor]:
        corrupted = self.view(data)
        h, h_corrupted = self.encode(data), self.encode(corrupted)  # [N, D]
        mean = self.mean(h, data) if isinstance(data, Batch) else h.mean(0, keepdim=True)
        own = other = torch.sigmoid(mean) @ self.bilinear.T  # [B, D], W s of each graph
        if isinstance(data, Batch):
            own, other = own[data.batch], own[corrupted.batch]  # [N, D]
        return {"loss": dgi_bce((h * own).sum(-1), (h_corrupted * other).sum(-1))}

    def encode(self, data: Data) -> Tensor:
        return seeds(self.encoder(data), data)
