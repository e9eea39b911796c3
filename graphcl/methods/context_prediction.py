"""Context prediction: tell the surroundings of an atom's neighbourhood from those of another molecule's.

Paper:   Hu et al., 2020, "Strategies for Pre-training Graph Neural Networks", arXiv:1905.12265, section 3.1.1
Loss:    binary cross entropy of the inner products of neighbourhoods and contexts, true ones and shifted ones
Config:  configs/context_prediction.yaml
Differs: a context never serves as its own negative, which it does in the authors' code if it is the batch's only one;
         sums are in float32, theirs in float64. Of several processes each contrasts the molecules of its own batch.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from augment._plan import Plan, carried_out
from augment._segments import Graphs, graphs_of
from graphcl.methods.method import Encoder, Method


class ContextPrediction(Method):
    """One random atom of every molecule is the centre. Its neighbourhood, the atoms at most `hops` bonds away, is what
    encoder makes of the centre in them. Its context, those more than hops - 1 and at most hops - 1 + context_size
    away, is the mean of what context_encoder makes of the anchors, the atoms that are in both. Molecules that lie
    whole within hops - 1 of the centre take no part; `part` is the share that does.

    hops: the encoder's number of layers if None. negatives: other molecules' contexts for each neighbourhood.
    """

    levels = ("graph",)
    contrasts_batch = True

    def __init__(
        self,
        encoder: Encoder,
        context_encoder: Encoder,
        readout: nn.Module,
        *,
        hops: int | None = None,
        context_size: int = 3,
        negatives: int = 1,
    ) -> None:
        super().__init__()
        if encoder.out_dim != context_encoder.out_dim:
            raise ValueError(
                f"the encoder makes {encoder.out_dim} numbers, the context's encoder {context_encoder.out_dim}; "
                "context_prediction multiplies them, so set encoder.jk=last"
            )
        if hops is None and not hasattr(encoder, "layers"):
            raise ValueError(f"{type(encoder).__name__} does not tell its layers; set hops, how far it sees")
        self.encoder, self.context_encoder, self.readout = encoder, context_encoder, readout
        self.hops = len(encoder.layers) if hops is None else hops
        self.context_size, self.negatives = context_size, negatives
        if min(self.hops, context_size, negatives) < 1:
            raise ValueError(
                f"hops, context_size and negatives must be >= 1, got {self.hops}, {context_size} and {negatives}"
            )

    def loss(self, data: Data, group: str = "model") -> dict[str, Tensor]:
        graphs = graphs_of(data)
        centre = self.choose(graphs)  # [B]
        distance = self.distances(data, centre)  # [N]
        near, ring = distance <= self.hops, (distance >= self.hops) & (distance < self.hops + self.context_size)
        anchors = distance == self.hops
        takes_part = scatter(anchors.long(), graphs.batch, dim_size=graphs.size, reduce="max") > 0  # [B]
        rows = takes_part.nonzero().view(-1)  # [M]

        near, ring = near & takes_part[graphs.batch], ring & takes_part[graphs.batch]
        h = self.encoder(carried_out(copy.copy(data), graphs, Plan(nodes=near)))
        z = h[(near.long().cumsum(0) - 1)[centre[rows]]]  # [M, D], neighbourhoods
        h = self.context_encoder(carried_out(copy.copy(data), graphs, Plan(nodes=ring)))
        of_anchors, graph = h[anchors[ring]], graphs.batch[ring][anchors[ring]]
        c = scatter(of_anchors.float(), graph, dim_size=graphs.size, reduce="mean")[rows]  # [M, D], contexts
        return {**contrast(z.float(), c, self.negatives), "part": takes_part.float().mean()}

    def choose(self, graphs: Graphs) -> Tensor:
        """A random node of every graph [B]."""
        draw = torch.rand(graphs.size, dtype=torch.double, device=graphs.batch.device)
        place = graphs.ptr[:-1] + (draw * graphs.counts).long()
        return place if graphs.ordered else graphs.batch.argsort(stable=True)[place]

    def distances(self, data: Data, centre: Tensor) -> Tensor:
        """Bonds [N] between every atom and the centre of its molecule, hops + context_size where there are as many."""
        far = self.hops + self.context_size
        distance = torch.full((data.num_nodes,), far, device=centre.device).index_fill(0, centre, 0)
        src, dst = data.edge_index
        for _ in range(far - 1):
            distance = distance.scatter_reduce(0, dst, distance[src] + 1, "amin")
        return distance

    def after_epoch(self, metrics: dict[str, float]) -> None:
        if metrics.get("part") == 0:
            raise ValueError(
                f"no graph reaches {self.hops} hops from its centre, so there is no context to predict; "
                "set method.hops lower, or take another method for such small graphs"
            )

    def encode(self, data: Data) -> Tensor:
        return self.readout(self.encoder(data), data)


def contrast(z: Tensor, c: Tensor, negatives: int) -> dict[str, Tensor]:
    """Loss and share of right answers of neighbourhoods z and contexts c, [M, D]; 0, with gradient, of nothing.

    Row i's true context is row i of c, its false ones are rows i + 1 to i + negatives, counted in a circle.
    """
    own = torch.arange(z.size(0), device=z.device)
    pairs = torch.ones_like(own).sum().clamp(min=1)
    shift = torch.arange(negatives, device=z.device) + 1
    other = (own + shift[:, None]) % pairs  # [negatives, M]
    false = (other != own).float()
    right, wrong = (z * c).sum(1), (z * c[other]).sum(2)  # [M], [negatives, M]
    count = false.sum().clamp(min=1)
    loss = F.softplus(-right).sum() / pairs + negatives * (F.softplus(wrong) * false).sum() / count
    hits = (right > 0).sum() / pairs + ((wrong < 0) * false).sum() / count
    return {"loss": loss, "accuracy": hits / 2}
