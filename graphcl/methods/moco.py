"""MoCo: contrast queries with a queue of keys from a momentum encoder; for graphs, or for nodes without a readout.

Paper:   He et al., 2020, "Momentum Contrast for Unsupervised Visual Representation Learning", arXiv:1911.05722,
         eq. 1 and 2
Loss:    graphcl/objectives/infonce.py, queue_infonce; queue and momentum update in graphcl/momentum.py
Config:  configs/moco.yaml
Differs: empty slots of the queue are left out, the paper starts from random keys; keys of the query's own graph or node
         that are still in the queue are left out, since these sets are small; no shuffled batch norm.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphcl.distributed import gather, gather_ids
from graphcl.heads import mlp
from graphcl.methods.method import Encoder, Method, View
from graphcl.methods.rows import matched, pooled
from graphcl.momentum import FeatureQueue, ema_update
from graphcl.objectives import queue_infonce


class MoCo(Method):
    """With a readout it contrasts graphs, without one nodes. queue is K, the number of keys kept."""

    levels = ("graph", "node")

    def __init__(
        self,
        encoder: Encoder,
        view1: View,
        view2: View,
        readout: nn.Module | None = None,
        *,
        proj_dim: int = 128,
        queue: int = 1024,
        momentum: float = 0.999,
        tau: float = 0.07,
    ) -> None:
        super().__init__()
        self.encoder, self.readout, self.view1, self.view2 = encoder, readout, view1, view2
        self.project = mlp(encoder.out_dim, encoder.out_dim, proj_dim)
        self.key_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.key_project = copy.deepcopy(self.project).requires_grad_(False)
        self.queue = FeatureQueue(queue, proj_dim)
        self.momentum, self.tau = momentum, tau
        self.fresh: list[tuple[Tensor, Tensor]] = []  # keys and ids of this step, enqueued after it

    def loss(self, data: Data, group: str = "model") -> dict[str, Tensor]:
        data1, data2 = self.view1(data), self.view2(data)
        q = self.project(pooled(self.encoder(data1), data1, self.readout))
        with torch.no_grad():
            k = self.key_project(pooled(self.key_encoder(data2), data2, self.readout))
        q, k, ids = matched(q, data1, k, data2, self.readout)
        if self.training:
            self.fresh.append((gather(k)[0], gather_ids(ids)))
        keys, slots = self.queue.items, self.queue.ids
        return {"loss": queue_infonce(q, k, keys, self.tau, ids=ids, queue_ids=slots, normalized=True)}

    def encode(self, data: Data) -> Tensor:
        return pooled(self.encoder(data), data, self.readout)

    def after_step(self, progress: float) -> None:
        for keys, ids in self.fresh:
            self.queue.enqueue(keys, ids)
        self.fresh.clear()
        ema_update(self.key_encoder, self.encoder, self.momentum)
        ema_update(self.key_project, self.project, self.momentum)
