"""Adaptive augmentation: what is central in a graph is kept more often.

Paper:   Zhu et al., 2021, "Graph Contrastive Learning with Adaptive Augmentation" (GCA), arXiv:2010.14945, section 3.2.
Differs: undirected pairs are dropped together. A weight w of zero (or below 1e-10 of the largest), whose logarithm the
         paper leaves open, gets the probability `threshold` and no part in the mean s. The authors' code takes
         log(w + 1) where the paper has log w, the target's centrality where it has the mean of both ends, and a
         PageRank without teleport; here it is as in the paper.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from augment._plan import Plan, carry_out
from augment._segments import Graphs, check_rate, count, edges_of, undirected_pairs

CENTRALITIES = ("degree", "pagerank", "eigenvector")
DAMPING, PAGERANK_STEPS, EIGENVECTOR_STEPS = 0.85, 100, 300  # 0.85 ** 100 < 1e-7
NEGLIGIBLE = 1e-10  # a weight below so much of its graph's largest counts as zero
ALIKE = 1e-5  # a smaller s_max - s_mean is rounding

Centrality = Literal["degree", "pagerank", "eigenvector"]


class AdaptiveDropEdges(BaseTransform):
    """Drop every undirected edge independently, with a probability that falls with the centrality of its ends.

    s = log w, w the mean centrality of the two ends (of the target, for an edge without a partner);
    p = min((s_max - s) / (s_max - s_mean) * rate, threshold), over the edges of each graph. If all edges of a graph are
    alike, p = min(rate, threshold). Edge attributes follow.

    rate: overall share, in [0, 1].   threshold: largest probability, in [0, 1]. ValueError otherwise.
    centrality: "degree" (incoming edges), "pagerank" (damping 0.85) or "eigenvector" (300 power iterations of A + I).
    generator: of the draws, on the data's device; None is torch's own.
    """

    def __init__(
        self,
        rate: float = 0.3,
        centrality: Centrality = "degree",
        threshold: float = 0.7,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        self.rate, self.threshold = check_rate("rate", rate, "the share of edges to drop"), _check_threshold(threshold)
        self.centrality = _check_centrality(centrality)
        self.generator = generator

    def forward(self, data: Data) -> Data:
        return carry_out(self, data)

    def plan(self, data: Data, graphs: Graphs) -> Plan:
        """The edges that stay."""
        edge_index = edges_of(data)
        src, dst = edge_index
        central = node_centrality(self.centrality, edge_index, graphs)
        pair = undirected_pairs(edge_index, graphs.batch.numel())
        paired = count(pair, pair.numel()).index_select(0, pair) == 2
        weight = torch.where(paired, (central[src] + central[dst]) / 2, central[dst])
        graph = graphs.batch.index_select(0, src)
        p = removal_probability(weight, graph, graphs.size, self.rate, self.threshold)
        draw = torch.rand(pair.shape, generator=self.generator, device=pair.device)
        return Plan(edges=(draw >= p).index_select(0, pair))


class AdaptiveMaskFeatures(BaseTransform):
    """Zero columns of x [N, F] in whole graphs independently, those that central nodes use less often than others.

    s = log w, w[f] = sum over nodes u of |x[u, f]| * centrality(u);
    p = min((s_max - s) / (s_max - s_mean) * rate, threshold), over the columns for each graph. If all of a graph's
    columns are alike, p = min(rate, threshold).

    rate, centrality, threshold, generator: as AdaptiveDropEdges. ValueError if the data has no x.
    """

    def __init__(
        self,
        rate: float = 0.3,
        centrality: Centrality = "degree",
        threshold: float = 0.7,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        self.rate, self.threshold = (
            check_rate("rate", rate, "the share of features to mask"),
            _check_threshold(threshold),
        )
        self.centrality = _check_centrality(centrality)
        self.generator = generator

    def forward(self, data: Data) -> Data:
        return carry_out(self, data)

    def plan(self, data: Data, graphs: Graphs) -> Plan:
        """x with zeros."""
        x = data.get("x")
        if x is None:
            raise ValueError("AdaptiveMaskFeatures zeroes x, and the data has none; give it features first")
        central = node_centrality(self.centrality, edges_of(data), graphs)
        size = (
            (x.flatten(1) if x.dim() > 1 else x.view(-1, 1))
            .to(torch.double if x.dtype == torch.double else torch.float)
            .abs()
        )
        weight = torch.zeros(graphs.size, size.size(1), dtype=size.dtype, device=x.device)  # [B, F]
        weight.index_add_(0, graphs.batch, size * central.to(size.dtype).view(-1, 1))
        graph = torch.arange(graphs.size, device=x.device).view(-1, 1).expand_as(weight).reshape(-1)
        p = removal_probability(weight.view(-1).double(), graph, graphs.size, self.rate, self.threshold)
        drop = torch.rand(p.shape, generator=self.generator, device=x.device) < p
        drop = drop.view(graphs.size, *x.shape[1:])
        if graphs.size > 1:
            drop = drop.index_select(0, graphs.batch)  # [N, F]
        return Plan(node_values={"x": x.masked_fill(drop, 0)})


def removal_probability(weight: Tensor, graph: Tensor, size: int, rate: float, threshold: float) -> Tensor:
    """p [M] of the GCA paper (its equations 3 and 6) for weights w [M] of the `size` graphs `graph [M]`."""
    largest = torch.zeros(size, dtype=weight.dtype, device=weight.device).scatter_reduce(0, graph, weight, "amax")
    counted = weight > NEGLIGIBLE * largest[graph]
    s = torch.where(counted, weight, 1).log()
    mean = torch.zeros_like(largest).index_add_(0, graph, s) / count(graph[counted], size)
    below, spread = largest.log()[graph] - s, (largest.log() - mean)[graph]
    # Rounding makes some difference of weights that are alike: theirs would be divided by another such.
    p = torch.where(spread > ALIKE, below / spread * rate, rate)
    p = torch.where(counted | (largest[graph] == 0), p, threshold)
    return torch.where(largest[graph] == 0, rate, p).clamp(max=threshold)


def node_centrality(name: Centrality, edge_index: Tensor, graphs: Graphs) -> Tensor:
    """Centrality of every node in its own graph: [N], double, not negative."""
    src, dst = edge_index
    n = graphs.batch.numel()
    if name == "degree":
        return count(dst, n).double()
    ones = torch.ones(n, dtype=torch.double, device=graphs.batch.device)
    if name == "pagerank":
        return _pagerank(src, dst, ones, graphs)
    central = ones
    for _ in range(EIGENVECTOR_STEPS):
        central = central.index_add(0, dst, central.index_select(0, src))  # A + I: A alone may go to and fro
        norm = _sums(central.square(), graphs).sqrt()
        central = central / norm.index_select(0, graphs.batch)
    return central


def _pagerank(src: Tensor, dst: Tensor, ones: Tensor, graphs: Graphs) -> Tensor:
    """PageRank that sums to the number of nodes in every graph; nodes without outgoing edges give to all."""
    degree = count(src, ones.numel())
    ends = degree == 0
    share = 1 / degree.clamp(min=1)
    rank = ones
    for _ in range(PAGERANK_STEPS):
        given = torch.zeros_like(rank).index_add_(0, dst, (rank * share).index_select(0, src))
        to_all = _sums(torch.where(ends, rank, 0), graphs) / graphs.counts
        rank = 1 - DAMPING + DAMPING * (given + to_all.index_select(0, graphs.batch))
    return rank


def _sums(value: Tensor, graphs: Graphs) -> Tensor:
    """[B], sum over the nodes of every graph."""
    return torch.zeros(graphs.size, dtype=value.dtype, device=value.device).index_add_(0, graphs.batch, value)


def _check_threshold(threshold: float) -> float:
    return check_rate("threshold", threshold, "the largest probability; GCA takes 0.7")


def _check_centrality(centrality: Centrality) -> Centrality:
    if centrality not in CENTRALITIES:
        raise ValueError(f"centrality must be one of {', '.join(CENTRALITIES)}, got {centrality!r}")
    return centrality
