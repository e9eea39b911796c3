"""AD-GCL: learn to drop edges so that the two views agree least, while the encoder makes them agree (min-max).

Paper:   Suresh et al., 2021, "Adversarial Graph Augmentation to Improve Graph Contrastive Learning", arXiv:2106.05819,
         eq. 8 (min-max with the drop-ratio regulariser), Gumbel reparametrisation of edge weights
Loss:    graphcl/objectives/infonce.py, infonce of the graph against its learned view
Config:  configs/adgcl.yaml
Differs: the positive stays in the denominator (the authors' code leaves it out).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphcl.distributed import gather_views
from graphcl.heads import mlp
from graphcl.methods.method import Method
from graphcl.objectives import infonce


class ADGCL(Method):
    """encoder must read `edge_weight`; view_encoder is a second one, for the edges' scores; reg is lambda."""

    levels = ("graph",)
    contrasts_batch = True

    def __init__(
        self,
        encoder: nn.Module,
        view_encoder: nn.Module,
        readout: nn.Module,
        *,
        proj_dim: int | None = None,
        tau: float = 0.2,
        reg: float = 5.0,
        view_hidden: int = 64,
    ) -> None:
        super().__init__()
        self.encoder, self.readout, self.tau, self.reg = encoder, readout, tau, reg
        self.project = mlp(encoder.out_dim, proj_dim or encoder.out_dim, proj_dim or encoder.out_dim)
        self.view_encoder = view_encoder
        self.score = mlp(2 * view_encoder.out_dim, view_hidden, 1)

    def groups(self) -> dict[str, Iterable[nn.Parameter]]:
        return {
            "encoder": [*self.encoder.parameters(), *self.project.parameters()],
            "views": [*self.view_encoder.parameters(), *self.score.parameters()],
        }

    def loss(self, data: Data, group: str = "encoder") -> dict[str, Tensor]:
        if group == "encoder":
            with torch.no_grad():
                weight = self.edge_weight(data)
            return {"loss": self.disagreement(data, weight)}
        training = self.encoder.training
        self.encoder.eval()  # its batch-norm statistics are the encoder's own affair
        weight = self.edge_weight(data)
        disagreement = self.disagreement(data, weight)
        self.encoder.train(training)
        dropped = mean_drop(data, weight)
        return {"loss": self.reg * dropped - disagreement, "dropped": dropped}

    def edge_weight(self, data: Data) -> Tensor:
        """Relaxed Bernoulli weights of the edges [E] in (0, 1)."""
        h = self.view_encoder(data)
        src, dst = data.edge_index
        logit = self.score(torch.cat([h[src], h[dst]], dim=-1)).squeeze(-1)
        uniform = torch.rand_like(logit).clamp(1e-4, 1 - 1e-4)
        return torch.sigmoid(torch.log(uniform) - torch.log1p(-uniform) + logit)

    def disagreement(self, data: Data, weight: Tensor) -> Tensor:
        """InfoNCE between the graphs and their views under edge weights [E]."""
        view = copy.copy(data)
        view.edge_weight = weight
        z1, z2 = self.project(self.encode(data)), self.project(self.encode(view))  # [B, P]
        return infonce(z1, z2, self.tau, **gather_views(z1, z2))

    def encode(self, data: Data) -> Tensor:
        return self.readout(self.encoder(data), data)


def mean_drop(data: Data, weight: Tensor) -> Tensor:
    """Mean over the graphs of the share of edge weight that is dropped; a graph without edges drops nothing."""
    graph = data.batch[data.edge_index[0]]
    count = torch.zeros(data.num_graphs, device=weight.device, dtype=weight.dtype)
    dropped = count.index_add(0, graph, 1 - weight)
    return (dropped / count.index_add(0, graph, torch.ones_like(weight)).clamp(min=1)).mean()
