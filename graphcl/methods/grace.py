"""GRACE: contrast the nodes of two corrupted views of one graph.

Paper:   Zhu et al., 2020, "Deep Graph Contrastive Representation Learning", arXiv:2006.04131
Loss:    graphcl/objectives/infonce.py, ntxent (the paper's eq. 1 and 2 are NT-Xent over 2N nodes)
Config:  configs/grace.yaml
Differs: the view `perturb_edges` drops both directions of an edge together, the authors' code each on its own.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphcl.distributed import gather_views
from graphcl.heads import mlp
from graphcl.methods.method import Encoder, Method, View
from graphcl.methods.rows import both, matched, seeds
from graphcl.objectives import ntxent


class GRACE(Method):
    """encoder gives [N, D]; view1 and view2 corrupt the graph; proj_dim is the projector's hidden width.

    block: contrast this many nodes with each other, drawn anew at each step, where the graph has more. None: all.
    one_pass: both views through the encoder at once (methods/rows.py, both); the authors take one after the other.
    """

    levels = ("node",)

    def __init__(
        self,
        encoder: Encoder,
        view1: View,
        view2: View,
        *,
        proj_dim: int = 128,
        tau: float = 0.4,
        block: int | None = None,
        one_pass: bool = False,
    ) -> None:
        super().__init__()
        if block is not None and block < 2:
            raise ValueError(f"block must be at least 2 nodes, got {block}; leave it out to contrast all")
        self.encoder, self.view1, self.view2, self.tau = encoder, view1, view2, tau
        self.block, self.one_pass = block, one_pass
        self.project = mlp(encoder.out_dim, proj_dim, encoder.out_dim, activation="elu")

    def loss(self, data: Data, group: str = "model") -> dict[str, Tensor]:
        data1, data2 = self.view1(data), self.view2(data)
        h1, h2 = both(self.encoder, data1, data2, one_pass=self.one_pass)  # [N, D]
        h1, h2, _ = matched(h1, data1, h2, data2)
        if self.block is not None and self.block < len(h1):
            rows = torch.randperm(len(h1), device=h1.device)[: self.block]
            h1, h2 = h1.index_select(0, rows), h2.index_select(0, rows)
        z1, z2 = self.project(h1), self.project(h2)
        return {"loss": ntxent(z1, z2, self.tau, **gather_views(z1, z2))}

    def encode(self, data: Data) -> Tensor:
        return seeds(self.encoder(data), data)
