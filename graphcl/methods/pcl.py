"""PCL: InfoNCE with a queue, plus contrast with cluster prototypes that k-means finds anew each epoch (EM).

Paper:   Li et al., 2021, "Prototypical Contrastive Learning of Unsupervised Representations", arXiv:2005.04966,
         eq. 11 (ProtoNCE) and eq. 12 (concentration phi)
Loss:    graphcl/objectives/infonce.py, queue_infonce, and proto_nce below
Config:  configs/pcl.yaml
Differs: every other prototype is a negative, the paper samples r of them (its sets have 25,000 clusters and more);
         k-means is scikit-learn's; phi is at least tau / 10, as clusters of equal items have no width at all; empty
         slots and own ids of the queue are left out, as in moco.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch_geometric.data import Data

from graphcl.distributed import gather, gather_ids
from graphcl.heads import mlp
from graphcl.methods.method import Encoder, Method, View
from graphcl.methods.rows import item_ids, matched, pooled
from graphcl.momentum import FeatureQueue, ema_update
from graphcl.objectives import queue_infonce
from graphcl.objectives._cosine import product, unit


class PCL(Method):
    """num_items is the number of graphs (with a readout) or nodes in the data; clusters are the k of each k-means."""

    levels = ("graph", "node")
    assigned: Tensor
    centroids: Tensor
    phi: Tensor

    def __init__(
        self,
        encoder: Encoder,
        view1: View,
        view2: View,
        num_items: int,
        readout: nn.Module | None = None,
        *,
        proj_dim: int = 128,
        clusters: Sequence[int] = (10, 20, 40),
        warmup_epochs: int = 5,
        queue: int = 1024,
        momentum: float = 0.999,
        tau: float = 0.2,
    ) -> None:
        super().__init__()
        if max(clusters) > num_items:
            raise ValueError(
                f"clusters must be at most the {num_items} items of the data, got {max(clusters)}; set method.clusters"
            )
        self.encoder, self.readout, self.view1, self.view2 = encoder, readout, view1, view2
        self.project = mlp(encoder.out_dim, encoder.out_dim, proj_dim)
        self.key_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.key_project = copy.deepcopy(self.project).requires_grad_(False)
        self.queue = FeatureQueue(queue, proj_dim)
        self.clusters, self.warmup_epochs, self.momentum, self.tau = tuple(clusters), warmup_epochs, momentum, tau
        # The E-step's results are saved, so that a run goes on with them. Rows of zeros are no prototypes (yet).
        self.register_buffer("assigned", torch.zeros(len(clusters), num_items, dtype=torch.long))
        self.register_buffer("centroids", torch.zeros(sum(clusters), proj_dim))
        self.register_buffer("phi", torch.ones(sum(clusters)))
        self.fresh: list[tuple[Tensor, Tensor]] = []  # keys and ids of this step, enqueued after it

    def loss(self, data: Data, group: str = "model") -> dict[str, Tensor]:
        data1, data2 = self.view1(data), self.view2(data)
        q = self.project(pooled(self.encoder(data1), data1, self.readout))
        with torch.no_grad():
            k = self.key_project(pooled(self.key_encoder(data2), data2, self.readout))
        q, k, ids = matched(q, data1, k, data2, self.readout)
        if self.training:
            self.fresh.append((gather(k)[0], gather_ids(ids)))
        instance = queue_infonce(q, k, self.queue.items, self.tau, ids=ids, queue_ids=self.queue.ids, normalized=True)
        parts = [
            proto_nce(q, centroids, phi, assigned[ids])
            for centroids, phi, assigned in zip(
                self.centroids.split(self.clusters), self.phi.split(self.clusters), self.assigned, strict=True
            )
        ]
        proto = torch.stack(parts).mean()  # 0 before the first E-step
        return {"loss": instance + proto, "instance": instance, "proto": proto}

    def encode(self, data: Data) -> Tensor:
        return pooled(self.encoder(data), data, self.readout)

    def after_step(self, progress: float) -> None:
        for keys, ids in self.fresh:
            self.queue.enqueue(keys, ids)
        self.fresh.clear()
        ema_update(self.key_encoder, self.encoder, self.momentum)
        ema_update(self.key_project, self.project, self.momentum)

    @torch.no_grad()
    def before_epoch(self, loader: Iterable[Data], epoch: int) -> None:
        """The E-step: cluster the momentum embeddings of all items."""
        if epoch < self.warmup_epochs:
            return
        features = torch.zeros(self.assigned.shape[1], self.centroids.shape[1], device=self.centroids.device)
        training = self.training
        self.eval()
        for data in loader:
            z = self.key_project(pooled(self.key_encoder(data), data, self.readout))
            features[item_ids(data, self.readout)] = F.normalize(z.float(), dim=-1)
        self.train(training)
        found = [cluster(features.cpu(), k, self.tau) for k in self.clusters]
        self.assigned.copy_(torch.stack([assigned for assigned, _, _ in found]))
        self.centroids.copy_(torch.cat([centroids for _, centroids, _ in found]))
        self.phi.copy_(torch.cat([phi for _, _, phi in found]))


def cluster(features: Tensor, k: int, tau: float) -> tuple[Tensor, Tensor, Tensor]:
    """k-means of features [n, D] on the CPU: clusters [n], prototypes [k, D] of length 1, concentrations [k]."""
    seed = int(torch.randint(2**31 - 1, ()))
    # Several threads would add up in an order of their own, and a resumed run might find other clusters.
    with threadpool_limits(1):
        labels = KMeans(k, n_init=5, max_iter=20, random_state=seed).fit_predict(features.numpy())
    assigned = torch.from_numpy(labels).long()
    count = assigned.bincount(minlength=k)
    centre = torch.zeros(k, features.shape[1]).index_add_(0, assigned, features) / count.clamp(min=1)[:, None]
    return assigned, F.normalize(centre, dim=-1), concentration(features, centre, assigned, tau)


def concentration(features: Tensor, centre: Tensor, assigned: Tensor, tau: float) -> Tensor:
    """phi [k] of eq. 12: mean distance to the centre / log(n + 10), between its percentiles 10 and 90, mean tau."""
    distance = (features - centre[assigned]).norm(dim=-1)
    count = assigned.bincount(minlength=len(centre))
    phi = torch.zeros(len(centre)).index_add_(0, assigned, distance) / count.clamp(min=1) / (count + 10).log()
    phi = torch.where(count > 1, phi, phi.max())  # a cluster of one is no evidence of a tight cluster
    low, high = phi.quantile(torch.tensor([0.1, 0.9]))
    phi = phi.clamp(low, high)
    mean = float(phi.mean())
    return (tau * phi / mean).clamp(min=tau / 10) if mean > 0 else torch.full_like(phi, tau)


def proto_nce(q: Tensor, centroids: Tensor, phi: Tensor, assigned: Tensor) -> Tensor:
    """-log exp(q.c_s / phi_s) / sum_j exp(q.c_j / phi_j), mean over q [N, D]; centroids [k, D], phi [k], assigned [N].

    A centroid of zeros belongs to an empty cluster and is left out.
    """
    logits = product(unit(q), centroids) / phi  # [N, k]
    other = assigned[:, None] != torch.arange(len(centroids), device=q.device)
    return F.cross_entropy(logits.masked_fill(other & ~centroids.any(dim=1), -torch.inf), assigned)
