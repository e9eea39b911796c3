"""Random-walk subgraph.

Paper:   You et al., 2020, "Graph Contrastive Learning with Augmentations", arXiv:2010.13902, table 1.
Differs: the authors' code walks nowhere (it takes the start and some of its neighbours); this is a walk.
         round(rate * n) nodes; theirs rounds down, and may keep one more.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from augment import _native
from augment._plan import Plan, carry_out
from augment._segments import Graphs, any_node, check_rate, count, edges_of, exact_k, seeds_of, share

WALKER_NODES = 32  # a graph has one walker for every so many nodes, so that the steps need not grow with the graph
PHASES, STEPS = 4, 32
ROUNDS = (4, 12, 48)  # of growth; before each lot the edges to nodes that are reached are let go
UNSEEN = (
    PHASES * (STEPS + 1) + sum(ROUNDS) + 1
)  # the time of nodes that nothing has reached; exact_k takes times below 255


class Subgraph(BaseTransform):
    """Keep exactly round(keep * n) nodes of every graph, at least one: those that a random walk visits first.

    The walk starts at a random node and goes to a uniformly drawn neighbour at each step; edges are walked both ways. A
    graph of more than 32 nodes has several walks from the same start, one for every 32 nodes. All graphs walk in
    lock-step, 128 steps. A walk that has seen its whole component (looked at after 32, 64 and 96 steps) goes on at a
    random node that it has not seen. If the steps do not reach enough nodes, neighbours of visited ones are taken, then
    their neighbours, and so on, nearest first; then any nodes. So what is kept of a connected graph is connected. Where
    numba does not run (on a GPU, without numba) "and so on" ends after 64 times, and of what is little more than a
    chain of hundreds of nodes the kept part may be in pieces.

    The seeds of a neighbour-sampled Data are all kept, and the walk starts at one of them.

    keep: share of the nodes, in [0, 1]; ValueError otherwise.
    generator: of the draws, on the data's device; None is torch's own.
    """

    def __init__(self, keep: float = 0.8, *, generator: torch.Generator | None = None) -> None:
        self.keep = check_rate("keep", keep, "the share of nodes to keep")
        self.generator = generator

    def forward(self, data: Data) -> Data:
        return carry_out(self, data)

    def plan(self, data: Data, graphs: Graphs) -> Plan:
        """The nodes that stay."""
        seeds, edge_index = seeds_of(data, graphs.batch.numel()), edges_of(data)
        kernels = _native.kernels(edge_index) if graphs.ordered and seeds is None else None
        if kernels is not None:
            ends, rule = edge_index.contiguous().numpy(), (WALKER_NODES, PHASES, STEPS)
            nodes = kernels.walk(ends, graphs.ptr.numpy(), self.keep, _native.seed(self.generator), rule)
            return Plan(nodes=torch.from_numpy(nodes))
        size = torch.minimum(share(self.keep, graphs.counts).clamp(min=1), graphs.counts)
        if seeds is not None:
            size = torch.maximum(size, count(graphs.batch[seeds], graphs.size))
        time = _first_visits(edge_index, graphs, seeds, self.generator)
        nodes = exact_k(graphs.batch, size, graphs.ptr, self.generator, ascending=graphs.ordered, last=time)
        return Plan(nodes=nodes)


def _first_visits(
    edge_index: Tensor, graphs: Graphs, seeds: Tensor | None, generator: torch.Generator | None
) -> Tensor:
    """[N], when each node was reached: 0 for a start, the step, a round after the last step, or UNSEEN."""
    batch, device = graphs.batch, graphs.batch.device
    n = batch.numel()
    row, col = torch.cat([edge_index, edge_index.flip(0)], dim=1)
    degree = count(row, n)
    order = row.int().argsort()  # of int32, a third of the time
    row, neighbour = row.index_select(0, order), col.index_select(0, order)
    # A node without neighbours has one way to go: to itself, in the last N places of `col`.
    nodes = torch.arange(n, device=device)
    first = torch.where(degree > 0, degree.cumsum(0) - degree, row.numel() + nodes)
    col = torch.cat([neighbour, nodes])
    ways = degree.clamp(min=1).float()

    graph = torch.repeat_interleave(torch.arange(graphs.size, device=device), _walkers(graphs.counts))  # [W]
    time = torch.full((n,), UNSEEN, device=device)
    candidates = torch.ones_like(batch, dtype=torch.bool)
    if seeds is not None:
        time = torch.where(seeds, 0, time)
        candidates = seeds | (count(batch[seeds], graphs.size) == 0)[batch]
    at = any_node(candidates, graphs, generator).index_select(0, graph)  # [W], where each walker is
    for phase in range(PHASES):
        if phase > 0:
            seen = (time < UNSEEN).int()
            growth = torch.zeros(graphs.size, dtype=torch.int32, device=device)
            growth.index_add_(0, batch, _grown(seen, row, neighbour) - seen)
            stuck = growth.index_select(0, graph) == 0
            start = any_node(seen == 0, graphs, generator).index_select(0, graph)
            at = torch.where(stuck & (start >= 0), start, at)
        visits = [at]
        for draw in torch.rand(STEPS, at.numel(), generator=generator, device=device).unbind():
            way = (draw * ways.index_select(0, at)).long()
            at = col.index_select(0, first.index_select(0, at) + way)
            visits.append(at)
        when = torch.arange(phase * (STEPS + 1), (phase + 1) * (STEPS + 1), device=device).view(-1, 1)
        time = time.scatter_reduce(0, torch.cat(visits), when.expand(-1, at.numel()).reshape(-1), "amin")

    visited = time < UNSEEN
    seen, rounds = visited.int(), torch.zeros_like(time)
    for lot in ROUNDS:
        open_edges = (seen.index_select(0, row) == 0).nonzero().view(-1)
        row, neighbour = row.index_select(0, open_edges), neighbour.index_select(0, open_edges)
        for _ in range(lot):
            seen = _grown(seen, row, neighbour)
            rounds += seen  # how many of the rounds a node was in
    return torch.where(visited, time, UNSEEN - rounds)


def _walkers(counts: Tensor) -> Tensor:
    return (counts + WALKER_NODES - 1) // WALKER_NODES


def _grown(seen: Tensor, row: Tensor, neighbour: Tensor) -> Tensor:
    """`seen [N]`, 0 or 1, and the nodes `row [2E]` whose `neighbour [2E]` is in it."""
    return seen.scatter_reduce(0, row, seen.index_select(0, neighbour), "amax")
