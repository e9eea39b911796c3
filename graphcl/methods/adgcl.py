"""AD-GCL: learn to drop edges so that the two views agree least, while the encoder makes them agree (min-max).

Paper:   Suresh et al., 2021, "Adversarial Graph Augmentation to Improve Graph Contrastive Learning", arXiv:2106.05819,
         eq. 8 (min-max with the drop-ratio regulariser), Gumbel reparametrisation of edge weights at temperature 1
Loss:    graphcl/objectives/infonce.py, infonce of the graph against its learned view
Config:  configs/adgcl.yaml
Differs: the positive stays in the denominator, and the encoder steps before the view learner; the authors' code leaves
         it out and has the view learner first.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphcl.distributed import gather_views
from graphcl.heads import mlp
from graphcl.methods.method import Encoder, Method
from graphcl.objectives import infonce


class ADGCL(Method):
    """encoder must read `edge_weight`; view_encoder is a second one, for the edges' scores; reg is lambda."""

    levels = ("graph",)
    contrasts_batch = True

    def __init__(
        self,
        encoder: Encoder,
        view_encoder: Encoder,
        readout: nn.Module,
        *,
        proj_dim: int | None = None,
        tau: float = 0.2,
        reg: float = 5.0,
        view_hidden: int = 64,
    ) -> None:
        super().__init__()
        self.encoder, self.readout, self.tau, self.reg = encoder, readout, tau, reg
        width = encoder.out_dim if proj_dim is None else proj_dim
        self.project = mlp(encoder.out_dim, width, width)
        self.view_encoder = view_encoder
        self.score = mlp(2 * view_encoder.out_dim, view_hidden, 1)
        self.reads_weights = False  # whether the encoder was seen to

    def groups(self) -> dict[str, Iterable[nn.Parameter]]:
        return {
            "encoder": [*self.encoder.parameters(), *self.project.parameters()],
            "views": [*self.view_encoder.parameters(), *self.score.parameters()],
        }

    def loss(self, data: Data, group: str = "encoder") -> dict[str, Tensor]:
        waiting = self.view_encoder if group == "encoder" else self.encoder
        training = waiting.training
        waiting.eval()  # the player whose turn it is not keeps its batch-norm statistics
        if group == "encoder":
            with torch.no_grad():
                weight = self.edge_weight(data)
            parts = {"loss": self.disagreement(data, weight)}
        else:
            weight = self.edge_weight(data)
            disagreement, dropped = self.disagreement(data, weight), mean_drop(data, weight)
            self.check_reads(disagreement, weight)
            parts = {"loss": self.reg * dropped - disagreement, "dropped": dropped}
        waiting.train(training)
        return parts

    def edge_weight(self, data: Data) -> Tensor:
        """Relaxed Bernoulli weights of the edges [E] in (0, 1)."""
        h = self.view_encoder(data)
        src, dst = data.edge_index
        logit = self.score(torch.cat([h[src], h[dst]], dim=-1)).squeeze(-1).float()  # 1 - 1e-4 is 1 in bf16
        uniform = torch.rand_like(logit).clamp(1e-4, 1 - 1e-4)
        return torch.sigmoid(torch.log(uniform) - torch.log1p(-uniform) + logit)

    def disagreement(self, data: Data, weight: Tensor) -> Tensor:
        """InfoNCE between the graphs and their views, whose edges count `weight` [E] of what they do in the graph."""
        view = copy.copy(data)
        view.edge_weight = weight if data.edge_weight is None else weight * data.edge_weight
        z1, z2 = self.project(self.encode(data)), self.project(self.encode(view))  # [B, P]
        keys: dict[str, Any] = gather_views(z1, z2)
        return infonce(z1, z2, self.tau, **keys)

    def check_reads(self, disagreement: Tensor, weight: Tensor) -> None:
        """Refuse, once, an encoder that ignores edge weights: the view learner would learn nothing, in silence."""
        if self.reads_weights or not weight.requires_grad:
            return
        used = disagreement.requires_grad  # false where the encoder's parameters are frozen for the views' turn
        if not used or torch.autograd.grad(disagreement, weight, retain_graph=True, allow_unused=True)[0] is None:
            raise ValueError(
                f"adgcl learns edge weights, but the encoder {type(self.encoder).__name__} does not read "
                "data.edge_weight; use gin, gcn, sage, resgcn or molecule_gin"
            )
        self.reads_weights = True

    def encode(self, data: Data) -> Tensor:
        return self.readout(self.encoder(data), data)


def mean_drop(data: Data, weight: Tensor) -> Tensor:
    """Share of a graph's edges that is dropped, mean over the graphs that have edges; 0 if none has."""
    graph = data.batch[data.edge_index[0]]
    none = torch.zeros(data.num_graphs, device=weight.device, dtype=weight.dtype)
    dropped, edges = none.index_add(0, graph, 1 - weight), none.index_add(0, graph, torch.ones_like(weight))
    return (dropped / edges.clamp(min=1)).sum() / (edges > 0).sum().clamp(min=1)
