"""BGRL: predict, from the nodes of one view, a momentum encoder's nodes of the other; no negatives.

Paper:   Thakoor et al., 2022, "Large-Scale Representation Learning on Graphs via Bootstrapping", arXiv:2102.06514,
         eq. 3
Loss:    graphcl/objectives/bootstrap.py, in both directions
Config:  configs/bgrl.yaml
Differs: the target encoder starts as a copy of the encoder; the authors' code draws it anew. The view
         `perturb_edges` drops both directions of an edge together, theirs each on its own.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphcl.heads import mlp
from graphcl.methods.method import Encoder, Method, View
from graphcl.methods.rows import both, matched, seeds
from graphcl.momentum import cosine_momentum, ema_update
from graphcl.objectives import bootstrap


class BGRL(Method):
    """momentum is the EMA factor at the start; it rises to 1 along a cosine.

    one_pass: both views through each encoder at once (methods/rows.py, both); the authors take one after the other.
    """

    levels = ("node",)

    def __init__(
        self,
        encoder: Encoder,
        view1: View,
        view2: View,
        *,
        pred_hidden: int = 512,
        momentum: float = 0.99,
        one_pass: bool = False,
    ) -> None:
        super().__init__()
        self.encoder, self.view1, self.view2 = encoder, view1, view2
        self.momentum, self.one_pass = momentum, one_pass
        self.predict = mlp(encoder.out_dim, pred_hidden, encoder.out_dim, activation="prelu")
        self.target = copy.deepcopy(encoder).requires_grad_(False)

    def loss(self, data: Data, group: str = "model") -> dict[str, Tensor]:
        data1, data2 = self.view1(data), self.view2(data)
        h1, h2 = both(self.encoder, data1, data2, one_pass=self.one_pass)  # [N, D]
        p1, p2 = self.predict(h1), self.predict(h2)
        with torch.no_grad():
            t1, t2 = both(self.target, data1, data2, one_pass=self.one_pass)
        p1, t2, _ = matched(p1, data1, t2, data2)
        p2, t1, _ = matched(p2, data2, t1, data1)
        return {"loss": bootstrap(p1, t2) + bootstrap(p2, t1)}

    def encode(self, data: Data) -> Tensor:
        return seeds(self.encoder(data), data)

    def after_step(self, progress: float) -> None:
        ema_update(self.target, self.encoder, cosine_momentum(progress, self.momentum))
