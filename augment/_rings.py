"""Rings and branches of all graphs at once: a depth-first walk, and which edges no cycle goes through.

Nothing here loops over graphs. The torch path takes a number of rounds that grows with the logarithm of the nodes:
a spanning forest (Boruvka, 1926), its Euler tour (Tarjan and Vishkin, 1985) ranked by pointer jumping (Wyllie, 1979).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from augment import _native
from augment._segments import Graphs, count, edges_of, nodes_by_graph, pointer, undirected_pairs

TRACED_ROUNDS = 16  # while a step is traced the number of nodes is a symbol
LABEL_BITS = 40


class Walk(NamedTuple):
    """A depth-first walk through all graphs, one after another.

    What lies below a node in its tree are the nodes number `pre` to `pre + size - 1`; a graph's nodes are numbered
    ptr[g] to ptr[g + 1] - 1, those of each of its components one after another.
    """

    pre: Tensor  # [N], when a node is reached
    size: Tensor  # [N], nodes below it and itself
    up: Tensor  # [N], the edge to the node above; -1 if it is the first of its component


class Rings(NamedTuple):
    """Undirected edges (pairs, without self-loops) of all graphs, and which of them lie in rings."""

    edges: Tensor  # [2, P], the ends of every undirected edge
    walk: Walk  # `up` names one of the P
    bridge: Tensor  # [N] bool, whether the edge `up` of a node lies in no ring
    ring_nodes: Tensor  # [N] bool, the nodes in rings


def rings_of(data: Data, graphs: Graphs, generator: torch.Generator | None) -> Rings:
    """Cycle-space sampling (Pritchard and Thurimella, 2011, "Fast Computation of Small Cuts via Cycle Space Sampling").

    A random amount flows around through every edge that the walk's trees leave out, back along the tree. What flows
    through a bridge is nothing; that it is nothing elsewhere comes less than once in 10 ** 12 edges.
    """
    n = graphs.batch.numel()
    edges = undirected_edges(edges_of(data), n)
    walk = depth_first(edges, torch.arange(edges.size(1), device=edges.device), nodes_by_graph(graphs))
    left_out = (count(walk.up + 1, edges.size(1) + 1)[1:] == 0).nonzero().view(-1)
    source, target = edges.index_select(1, left_out)
    flow = torch.randint(1, 1 << LABEL_BITS, source.shape, generator=generator, device=edges.device)
    through = below(torch.zeros_like(walk.up).index_add_(0, source, flow).index_add_(0, target, -flow), walk)
    bridge = (walk.up >= 0) & (through == 0)
    bridges = count(torch.where(bridge, walk.up + 1, 0), edges.size(1) + 1)[1:] > 0  # [P]
    ring_nodes = count(torch.where(bridges, n, edges).view(-1), n + 1)[:n] > 0
    return Rings(edges, walk, bridge, ring_nodes)


def undirected_edges(edge_index: Tensor, n: int) -> Tensor:
    """[2, P], the ends of one edge of every undirected pair, without self-loops."""
    pair = undirected_pairs(edge_index, n)
    stands = (pair == torch.arange(pair.numel(), device=pair.device)) & (edge_index[0] != edge_index[1])
    return edge_index.index_select(1, stands.nonzero().view(-1))


def below(value: Tensor, walk: Walk) -> Tensor:
    """[N], the sum of integers `value [N]` over the nodes below every node and itself."""
    total = pointer(torch.empty_like(value).scatter_(0, walk.pre, value))
    return total.index_select(0, walk.pre + walk.size) - total.index_select(0, walk.pre)


def depth_first(edges: Tensor, order: Tensor, start: Tensor) -> Walk:
    """Walk along `edges [2, P]`, both ways.

    order: [P], the edges in the order in which a node looks at those that it has; start: [N], the nodes graph by graph,
    where to begin: always at the first that is not yet reached.
    """
    kernels = _native.kernels(edges)
    if kernels is not None:
        parts = kernels.depth_first(edges.contiguous().numpy(), order.numpy(), start.numpy())
        return Walk(*map(torch.from_numpy, parts))
    n = start.numel()
    label, tree = _forest(edges, n)
    ranks = torch.arange(n, device=start.device)
    rank = torch.empty_like(start).scatter_(0, start, ranks)
    first = torch.full_like(rank, n).scatter_reduce_(0, label, rank, "amin")
    first = first.index_select(0, label)  # [N], the rank of one's root
    sizes = count(first, n)  # of the trees, by rank of their roots
    nodes_before, links = sizes.cumsum(0) - sizes, (sizes - 1).clamp(min=0)
    links_before = links.cumsum(0) - links

    chosen = tree.index_select(0, order).nonzero().view(-1)
    chosen = order.index_select(0, chosen)  # [T], the trees' edges in a random order
    a, b = edges.index_select(1, chosen)
    source, target = torch.cat([a, b]), torch.cat([b, a])  # [2T], the steps of the tour
    steps = torch.arange(chosen.size(0), device=start.device)
    back = torch.cat([steps + chosen.size(0), steps])  # the step back along the same edge
    left = steps_left(source, target, back, rank == first)
    down = left > left.index_select(0, back)
    tree_of = first.index_select(0, source)
    at = 2 * (links_before + links).index_select(0, tree_of) - 1 - left  # the trees' tours one after another
    downs = torch.zeros_like(at).scatter_(0, at, down.long()).cumsum(0).index_select(0, at)
    downs = downs - links_before.index_select(0, tree_of)
    node = torch.where(down, target, n)  # reached by this step; n if by none
    return Walk(
        pre=_put(nodes_before.index_select(0, first), node, nodes_before.index_select(0, tree_of) + downs),
        size=_put(sizes.index_select(0, first), node, (left - left.index_select(0, back) + 1) // 2),
        up=_put(torch.full_like(rank, -1), node, torch.cat([chosen, chosen])),
    )


def steps_left(source: Tensor, target: Tensor, back: Tensor, root: Tensor) -> Tensor:
    """[S], steps that are left of the tour around each tree after every step, the tour beginning at its root.

    source, target, back: [S], ends of the steps and the number of the step back; root: [N] bool. After the step from u
    to v comes the one out of v that follows the step from v to u in the order in which they are given.
    """
    n, steps = root.numel(), torch.arange(source.size(0), device=source.device)
    order = source.argsort(stable=True)
    begin = pointer(count(source, n))
    after = torch.empty_like(order).scatter_(0, order, steps).index_select(0, back) + 1
    wraps = after == begin.index_select(0, target + 1)
    upcoming = order.index_select(0, torch.where(wraps, begin.index_select(0, target), after))
    last = wraps & root.index_select(0, target)
    upcoming, left = torch.where(last, steps, upcoming), torch.where(last, 0, 1)
    for _ in range(rounds(n) + 1):
        left, upcoming = left + left.index_select(0, upcoming), upcoming.index_select(0, upcoming)
    return left


def _forest(edges: Tensor, n: Any) -> tuple[Tensor, Tensor]:
    """A node [N] that stands for everyone's component, and the edges [P] of a spanning forest."""
    p = edges.size(1)
    nodes, number = torch.arange(n, device=edges.device), torch.arange(p, device=edges.device)
    label, tree = nodes, torch.zeros(p + 1, dtype=torch.bool, device=edges.device)
    for _ in range(rounds(n)):
        one, other = label.index_select(0, edges[0]), label.index_select(0, edges[1])
        offer = torch.where(one != other, number, p)
        best = torch.full_like(nodes, p).scatter_reduce_(0, one, offer, "amin").scatter_reduce_(0, other, offer, "amin")
        tree = tree.scatter(0, best, True)
        ends = torch.cat([one + other, number.new_zeros(1)])
        to = torch.where(
            best < p, ends.index_select(0, best) - nodes, nodes
        )  # the component at the other end of the best edge
        to = torch.where(
            (to.index_select(0, to) == nodes) & (nodes < to), nodes, to
        )  # two that chose the same edge: the lower stays
        label = jump(to).index_select(0, label)
    return label, tree[:p]


def jump(to: Tensor) -> Tensor:
    """[N], where the pointers `to [N]` lead in the end; who stays points at itself."""
    for _ in range(rounds(to.numel())):
        to = to.index_select(0, to)
    return to


def rounds(n: Any) -> int:
    """Doublings that reach n."""
    return n.bit_length() if isinstance(n, int) else TRACED_ROUNDS


def _put(value: Tensor, node: Tensor, new: Tensor) -> Tensor:
    """`value [N]` with `new` written at the nodes `node`, in [0, N]; N is nowhere."""
    return torch.cat([value, value.new_zeros(1)]).scatter_(0, node, new)[:-1]
