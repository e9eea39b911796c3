"""GRACE: contrast the nodes of two corrupted views of one graph.

Paper:   Zhu et al., 2020, "Deep Graph Contrastive Representation Learning", arXiv:2006.04131
Loss:    graphcl/objectives/infonce.py, ntxent (the paper's eq. 1 and 2 are NT-Xent over 2N nodes)
Config:  configs/grace.yaml
Differs: the view `perturb_edges` drops both directions of an edge together, the authors' code each on its own.
"""

from __future__ import annotations

from torch import Tensor
from torch_geometric.data import Data

from graphcl.distributed import gather_views
from graphcl.heads import mlp
from graphcl.methods.method import Encoder, Method, View
from graphcl.methods.rows import matched, seeds
from graphcl.objectives import ntxent


class GRACE(Method):
    """encoder gives [N, D]; view1 and view2 corrupt the graph; proj_dim is the projector's hidden width."""

    levels = ("node",)

    def __init__(self, encoder: Encoder, view1: View, view2: View, *, proj_dim: int = 128, tau: float = 0.4) -> None:
        super().__init__()
        self.encoder, self.view1, self.view2, self.tau = encoder, view1, view2, tau
        self.project = mlp(encoder.out_dim, proj_dim, encoder.out_dim, activation="elu")

    def loss(self, data: Data, group: str = "model") -> dict[str, Tensor]:
        data1, data2 = self.view1(data), self.view2(data)
        z1, z2 = self.project(self.encode(data1)), self.project(self.encode(data2))  # [N, D]
        z1, z2, _ = matched(z1, data1, z2, data2)
        return {"loss": ntxent(z1, z2, self.tau, **gather_views(z1, z2))}

    def encode(self, data: Data) -> Tensor:
        return seeds(self.encoder(data), data)
