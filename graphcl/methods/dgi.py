"""DGI: tell nodes of the graph from nodes of a corrupted graph, given the graph's summary.

Paper:   Velickovic et al., 2019, "Deep Graph Infomax", arXiv:1809.10341, eq. 1
Loss:    graphcl/objectives/jsd.py, dgi_bce
Config:  configs/dgi.yaml
Differs: on a batch of graphs each has a summary of its own (the paper has one graph).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from graphcl.encoders import Readout
from graphcl.methods.method import Method, View
from graphcl.methods.rows import seeds
from graphcl.objectives import dgi_bce


class DGI(Method):
    """view is the corruption, ShuffleNodes in the paper."""

    levels = ("node",)

    def __init__(self, encoder: nn.Module, view: View) -> None:
        super().__init__()
        self.encoder, self.view, self.mean = encoder, view, Readout("mean")
        self.bilinear = nn.Parameter(torch.empty(encoder.out_dim, encoder.out_dim))
        nn.init.xavier_uniform_(self.bilinear)

    def loss(self, data: Data, group: str = "model") -> dict[str, Tensor]:
        h, corrupt = self.encoder(data), self.encoder(self.view(data))  # [N, D]
        summary = torch.sigmoid(self.mean(h, data)) @ self.bilinear.T  # [B, D]
        own = summary[data.batch] if isinstance(data, Batch) else summary  # [N, D] or [1, D]
        return {"loss": dgi_bce(seeds((h * own).sum(-1), data), seeds((corrupt * own).sum(-1), data))}

    def encode(self, data: Data) -> Tensor:
        return seeds(self.encoder(data), data)
