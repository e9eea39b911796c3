"""A connected subgraph of whole rings.

Source:  the subgraph views of GraphCL (You et al., 2020, arXiv:2010.13902) and MolCLR (Wang et al., 2022,
         arXiv:2102.10056).
Differs: theirs open rings, which no chemist would call a part of the molecule; this one takes a ring whole or not.
"""

from __future__ import annotations

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from augment._plan import Plan, carry_out
from augment._rings import depth_first, jump, rings_of
from augment._segments import Graphs, check_rate, count, pointer, seeds_of, share, shuffled


class RingSubgraph(BaseTransform):
    """Keep at least round(keep * n) nodes of every graph, and at least one: whole ring systems and nodes outside rings.

    A ring system is what hangs together by edges that lie in rings (fused, bridged and spiro rings). The subgraph
    starts at a random ring system or node outside rings and takes what it comes to on a depth-first walk, neighbours in
    a random order, until it has enough: it is connected, and too large by less than the last ring system. Of a graph in
    pieces others follow when one is used up. The seeds of a neighbour-sampled Data stay besides.

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
        rings, device = rings_of(data, graphs, self.generator), graphs.batch.device
        up, nodes = rings.walk.up, torch.arange(rings.bridge.numel(), device=device)
        both_ends = torch.cat([rings.edges.sum(0), nodes.new_zeros(1)])
        above = both_ends[up] - nodes  # nonsense where there is no edge up
        system = jump(torch.where(rings.bridge | (up < 0), nodes, above))  # [N], a node that stands for it

        between = system[rings.edges]
        between = between[:, between[0] != between[1]]
        order = torch.rand(between.size(1), generator=self.generator, device=device).argsort()
        walk = depth_first(between, order, shuffled(graphs.batch, graphs.size, self.generator))
        weight = count(system, nodes.numel())  # 0 for all but those that stand for a system
        before = pointer(torch.empty_like(weight).scatter_(0, walk.pre, weight))[walk.pre]
        enough = graphs.ptr[:-1] + share(self.keep, graphs.counts).clamp(min=1)
        keep = (before < enough[graphs.batch])[system]
        seeds = seeds_of(data, nodes.numel())
        return Plan(nodes=keep if seeds is None else keep | seeds)
