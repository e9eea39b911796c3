"""Dropping a side chain.

Source:  JOAO (You et al., 2021, arXiv:2106.07594) and GraphCL (You et al., 2020, arXiv:2010.13902) drop any nodes, the
         subgraph removal of MolCLR (Wang et al., 2022, arXiv:2102.10056) all around a random atom.
Differs: what goes here is what hangs on one bond, as a chemist would cut it, so rings stay whole and nothing breaks up.
"""

from __future__ import annotations

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from augment._plan import Plan, carry_out
from augment._rings import below, rings_of
from augment._segments import Graphs, any_node, check_rate, seeds_of, share


class DropSideChain(BaseTransform):
    """Cut one edge of every graph that lies in no ring, and remove the smaller part, the side chain.

    The edge is drawn uniformly from those whose smaller part has no ring and at most round(at_most * n) of the graph's
    n nodes; a graph without such an edge stays as it is. Of two equal parts one without a ring goes. Of a graph in
    pieces a part is one of the piece that the edge lies in. A part with seeds of a neighbour-sampled Data stays.

    at_most: the largest share of the nodes that may go, in [0, 1]; more than a half is never reached. ValueError
        otherwise.
    generator: of the draws, on the data's device; None is torch's own.
    """

    def __init__(self, at_most: float = 0.25, *, generator: torch.Generator | None = None) -> None:
        self.at_most = check_rate("at_most", at_most, "the largest share of nodes to drop")
        self.generator = generator

    def forward(self, data: Data) -> Data:
        return carry_out(self, data)

    def plan(self, data: Data, graphs: Graphs) -> Plan:
        """The nodes that stay."""
        rings = rings_of(data, graphs, self.generator)
        pre, size, up = rings.walk
        place = torch.arange(pre.numel(), device=pre.device)
        order = torch.empty_like(pre).scatter_(0, pre, place)
        first = torch.where(up[order] < 0, place, 0).cummax(0).values
        root = order[first][pre]  # [N], the node that the walk came to first of one's piece
        stays = rings.ring_nodes.long()
        seeds = seeds_of(data, pre.numel())
        if seeds is not None:
            stays = stays + seeds.long()
        held = below(stays, rings.walk)
        lower = 2 * size + (held > 0) <= size[root]  # the part below the edge is the one to go
        part = torch.where(lower, size, size[root] - size)
        held = torch.where(lower, held, held[root] - held)
        fits = rings.bridge & (held == 0) & (part <= share(self.at_most, graphs.counts)[graphs.batch])

        cut = any_node(fits, graphs, self.generator)[graphs.batch]  # [N], the node below the edge; -1 if none
        none, cut = cut < 0, cut.clamp(min=0)
        inside = (pre >= pre[cut]) & (pre < pre[cut] + size[cut])
        return Plan(nodes=none | torch.where(lower[cut], ~inside, inside | (root != root[cut])))
