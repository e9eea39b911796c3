"""InfoGraph: match nodes with their own graph's embedding against the other graphs of the batch.

Paper:   Sun et al., 2020, "InfoGraph: Unsupervised and Semi-supervised Graph-Level Representation Learning",
         arXiv:1908.01000, eq. 5 and 6 (Jensen-Shannon estimator)
Loss:    graphcl/objectives/jsd.py, jsd_matrix
Config:  configs/infograph.yaml
Differs: the two discriminator heads have one hidden layer, the authors' code has three and a shortcut; no prior term,
         which is off in the authors' code too. Of several processes each contrasts the graphs of its own batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphcl.heads import mlp
from graphcl.methods.method import Encoder, Method
from graphcl.objectives import jsd_matrix


class InfoGraph(Method):
    """encoder gives the local features [N, D], readout of them the global ones [B, D]."""

    levels = ("graph",)
    contrasts_batch = True

    def __init__(self, encoder: Encoder, readout: nn.Module, *, proj_dim: int | None = None) -> None:
        super().__init__()
        self.encoder, self.readout = encoder, readout
        width = encoder.out_dim if proj_dim is None else proj_dim
        self.local, self.whole = mlp(encoder.out_dim, width, width), mlp(encoder.out_dim, width, width)

    def loss(self, data: Data, group: str = "model") -> dict[str, Tensor]:
        h = self.encoder(data)  # [N, D]
        scores = self.local(h) @ self.whole(self.readout(h, data)).T  # [N, B]
        own = data.batch[:, None] == torch.arange(data.num_graphs, device=h.device)  # [N, B]
        return {"loss": jsd_matrix(scores, own)}

    def encode(self, data: Data) -> Tensor:
        return self.readout(self.encoder(data), data)
