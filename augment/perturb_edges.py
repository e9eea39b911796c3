"""Edge perturbation.

Papers:  You et al., 2020, "Graph Contrastive Learning with Augmentations", arXiv:2010.13902, table 1 (exact shares);
         Zhu et al., 2020, "Deep Graph Contrastive Representation Learning" (GRACE), arXiv:2006.04131, section 3.2.1
         (independent draws).
Differs: exact shares are rounded; GraphCL's code rounds them down.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from augment._plan import Plan, carry_out
from augment._segments import (
    Graphs,
    check_rate,
    choose_pairs,
    count,
    edges_of,
    exact_k,
    grouped,
    local_numbers,
    nodes_by_graph,
    pointer,
    share,
    undirected_pairs,
)


class PerturbEdges(BaseTransform):
    """Drop a share of the edges of every graph, and add a share of new ones inside it.

    An edge is an undirected pair: both directions go and come together (with multi-edges the k-th copy of one
    direction and the k-th of the other). A self-loop, or an edge without a partner, is one of its own.

    New edges are drawn uniformly from the places that are free in the graph as it came: no self-loop, no second copy of
    an edge, nor one that was just dropped. A graph without enough free places gets as many as there are: a complete one
    gets none. If every edge of a graph (but self-loops) has a partner, new ones have both directions; else only one.
    The attributes of a new edge (edge_attr, edge_weight, ...) are those of one edge of the same graph, drawn uniformly,
    for both directions of the same; its `e_id` is -1. Where edges are sorted (by target, or by source) they stay so.

    drop: share of the e edges of a graph to drop, in [0, 1]: exactly round(drop * e), or with `exact=False` each edge
        independently with this probability (GRACE).
    add: share to add, in [0, 1]: round(add * e) new edges.
    generator: of the draws, on the data's device; None is torch's own.
    ValueError for a share outside [0, 1].
    """

    def __init__(
        self, drop: float = 0.1, add: float = 0.0, exact: bool = True, *, generator: torch.Generator | None = None
    ) -> None:
        self.drop = check_rate("drop", drop, "the share of edges to drop")
        self.add = check_rate("add", add, "the share of edges to add")
        self.exact = exact
        self.generator = generator

    def forward(self, data: Data) -> Data:
        return carry_out(self, data)

    def plan(self, data: Data, graphs: Graphs) -> Plan:
        """The edges that stay, and new ones."""
        edge_index = edges_of(data)
        pair = undirected_pairs(edge_index, graphs.batch.numel())
        if self.exact:
            keep = ~choose_pairs(edge_index, self.drop, graphs, self.generator, pair)
        else:
            draw = torch.rand(pair.shape, generator=self.generator, device=pair.device)
            keep = draw.index_select(0, pair) >= self.drop
        return Plan(edges=keep, added=self._added(pair, edge_index, graphs) if self.add > 0 else None)

    def _added(self, pair: Tensor, edge_index: Tensor, graphs: Graphs) -> Tensor:
        """[3, A], source and target of new edges, and the old edge whose attributes they take."""
        graph = graphs.batch.index_select(0, edge_index[0])  # [E]
        alone = count(pair, pair.numel()).index_select(0, pair) == 1
        one_way = count(graph[alone & (edge_index[0] != edge_index[1])], graphs.size) > 0  # [B]
        pairs = count(graph[pair == torch.arange(pair.numel(), device=pair.device)], graphs.size)
        add = share(self.add, pairs)
        new, new_graph = _free_places(edge_index, add, one_way, graphs, self.generator)

        edges = count(graph, graphs.size)
        draw = torch.rand(new_graph.shape, dtype=torch.double, generator=self.generator, device=pair.device)
        place = (edges.cumsum(0) - edges)[new_graph] + (draw * edges[new_graph]).long()
        donor = place if grouped(graph, graphs) else graph.argsort(stable=True).index_select(0, place)

        new = torch.cat([new, donor.view(1, -1)])
        both_ways = (~one_way)[new_graph].nonzero().view(-1)
        src, dst, donor = new.index_select(1, both_ways)
        return torch.cat([new, torch.stack([dst, src, donor])], dim=1)


def _free_places(
    edge_index: Tensor, add: Tensor, one_way: Tensor, graphs: Graphs, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """add[g] different pairs of nodes of every graph g that have no edge, as far as there are: [2, A], and graphs [A].

    The places of all graphs, u < v (or u != v if `one_way`), are numbered through; the r-th free one is found by binary
    search among the taken ones. Drawn is from all free places of a graph if they are few, else from some random ones,
    twice as many as are needed and 16, so that too few different ones come less than once in a billion times.
    """
    n, nodes = graphs.counts, nodes_by_graph(graphs)
    places = torch.where(one_way, n * (n - 1), n * (n - 1) // 2)
    offset = places.cumsum(0) - places
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]
    graph = graphs.batch.index_select(0, edge_index[0])
    u, v = local_numbers(nodes, graphs)[edge_index]
    low, high = torch.minimum(u, v), torch.maximum(u, v)
    place = torch.where(one_way[graph], u * (n[graph] - 1) + v - (v > u).long(), high * (high - 1) // 2 + low)
    taken = torch.unique(place + offset[graph])
    free = places - torch.searchsorted(taken, offset + places) + torch.searchsorted(taken, offset)
    add = torch.minimum(add, free)

    few = free <= 4 * add + 32
    pool = torch.where(few, free, 2 * add + 16) * (add > 0)
    graph = torch.repeat_interleave(torch.arange(graphs.size, device=n.device), pool)
    number = torch.arange(graph.numel(), device=n.device) - (pool.cumsum(0) - pool)[graph]
    draw = torch.rand(graph.shape, dtype=torch.double, generator=generator, device=n.device)
    rank = torch.where(few[graph], number, (draw * free[graph]).long()) + (free.cumsum(0) - free)[graph]
    rank = torch.unique(rank)
    graph = torch.searchsorted(free.cumsum(0), rank, right=True)
    chosen = exact_k(graph, add, pointer(count(graph, graphs.size)), generator, ascending=True)
    rank, graph = rank[chosen], graph[chosen]

    before = taken - torch.arange(taken.numel(), device=n.device)  # free places before each taken one
    place = rank + torch.searchsorted(before, rank, right=True) - offset[graph]
    high = ((1 + (1 + 8 * place.double()).sqrt()) / 2).long()
    high -= (high * (high - 1) // 2 > place).long()  # the root is rounded, one way or the other
    high += (high * (high + 1) // 2 <= place).long()
    low = place - high * (high - 1) // 2
    others = n[graph] - 1
    u, v = place // others, place % others
    u, v = torch.where(one_way[graph], u, low), torch.where(one_way[graph], v + (v >= u).long(), high)
    start = graphs.ptr[graph]
    return torch.stack([nodes[start + u], nodes[start + v]]), graph
