"""Loops over nodes and edges for the CPU, compiled by numba at first use; without numba the torch path does the same.

The torch code beside each call is the reference: equal results, or equal distributions where the docstring says so.
Places are unsigned: of every signed index numba asks whether it counts from the end.
"""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = Any  # a numpy array; numba knows its type


def kernels(*tensors: Tensor) -> SimpleNamespace | None:
    """The compiled kernels if they can take these tensors: integers on the CPU that hold values; None otherwise."""
    return native() if all(on_host(tensor) for tensor in tensors) else None


def on_host(tensor: Tensor) -> bool:
    """Whether the values can be looked at without waiting: a real tensor (a fake has another type) on the CPU."""
    return type(tensor) is Tensor and tensor.device.type == "cpu" and not torch.compiler.is_compiling()


@cache
def native() -> SimpleNamespace | None:
    """The compiled kernels; None without numba."""
    try:
        from numba import njit
    except ImportError:
        return None
    try:
        return SimpleNamespace(**{kernel.__name__: njit(cache=True, nogil=True)(kernel) for kernel in KERNELS})
    except RuntimeError:  # no folder that a cache may be written to: compiled again in every process
        return SimpleNamespace(**{kernel.__name__: njit(nogil=True)(kernel) for kernel in KERNELS})


def seed(generator: torch.Generator | None) -> int:
    """A number for a kernel to draw from, drawn from a generator on the CPU."""
    return int(torch.randint(0, 1 << 62, (1,), generator=generator, device="cpu"))


def choose(ptr: Array, rate: float, spare: int, seed: int) -> Array:
    """`_segments.exact_share` in segments ptr[s] to ptr[s + 1]; equal in distribution.

    Floyd's draw without replacement (Bentley and Floyd, 1987), of those to take or, if they are fewer, to leave.
    """

    def below(n: int, state: Any) -> Any:  # a number in [0, n), by the splitmix64 generator (Steele et al., 2014)
        z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
        return np.int64(((z >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))

    golden: Any = np.uint64(0x9E3779B97F4A7C15)
    state: Any = np.uint64(seed)
    taken = np.zeros(ptr[-1], np.bool_)
    for s in range(len(ptr) - 1):
        start, n = ptr[s], ptr[s + 1] - ptr[s]
        want: Any = max(min(np.int64(np.rint(n * rate)), n - spare), 0)
        leave = 2 * want > n
        if leave:
            taken[start : start + n] = True
        for last in range(n - min(want, n - want), n):
            state += golden
            i = below(last + 1, state)
            if taken[start + i] != leave:
                i = last
            taken[start + i] = not leave
    return taken


def undirected_pairs(edge_index: Array, n: int) -> Array:
    """`_segments.undirected_pairs`: sorted edges are matched in one pass, others by two counting sorts."""
    src, dst = edge_index[0], edge_index[1]
    e = len(src)
    by_source = by_target = True
    for i in range(e):
        if src[i] < 0 or src[i] >= n or dst[i] < 0 or dst[i] >= n:
            raise IndexError("edge_index names a node that is not there")
        if i > 0:
            by_source &= src[i - 1] < src[i] or (src[i - 1] == src[i] and dst[i - 1] <= dst[i])
            by_target &= dst[i - 1] < dst[i] or (dst[i - 1] == dst[i] and src[i - 1] <= src[i])
    if by_source or by_target:
        major, minor = (dst, src) if by_target else (src, dst)
        first = np.zeros(n + 1, np.int64)  # of the edges of every major end
        for i in range(e):
            first[np.uintp(major[i] + 1)] += 1
        for v in range(n):
            first[v + 1] += first[v]
        upcoming = first[:n].copy()  # edges of a major end are asked for in their order, so none is looked at twice
        stands = np.arange(e)
        for i in range(e):
            if src[i] > dst[i]:
                other, end = np.uintp(minor[i]), first[np.uintp(minor[i] + 1)]
                at = upcoming[other]
                while at < end and minor[np.uintp(at)] < major[i]:
                    at += 1
                if at < end and minor[np.uintp(at)] == major[i]:
                    stands[i] = at
                    at += 1
                upcoming[other] = at
        return stands

    by_high, by_low = np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64)
    for i in range(e):
        by_high[np.uintp(max(src[i], dst[i]) + 1)] += 1
        by_low[np.uintp(min(src[i], dst[i]) + 1)] += 1
    for v in range(n):
        by_high[v + 1] += by_high[v]
        by_low[v + 1] += by_low[v]
    half, order = np.empty(e, np.int64), np.empty(e, np.int64)
    for i in range(e):
        large = np.uintp(max(src[i], dst[i]))
        half[np.uintp(by_high[large])] = i
        by_high[large] += 1
    for j in range(e):
        edge = np.uintp(half[np.uintp(j)])
        small = np.uintp(min(src[edge], dst[edge]))
        order[np.uintp(by_low[small])] = edge
        by_low[small] += 1
    stands = np.empty(e, np.int64)
    start = 0
    while start < e:  # one run of edges between the same two nodes at a time
        edge = order[start]
        low, high = min(src[edge], dst[edge]), max(src[edge], dst[edge])
        stop = start + 1
        while stop < e:
            edge = order[stop]
            if min(src[edge], dst[edge]) != low or max(src[edge], dst[edge]) != high:
                break
            stop += 1
        up = start  # the next edge from low to high without a partner
        for j in range(start, stop):
            edge = order[j]
            stands[edge] = edge
            if src[edge] > dst[edge]:
                while up < stop and src[order[up]] != low:
                    up += 1
                if up < stop:
                    stands[edge] = order[up]
                    up += 1
        start = stop
    return stands


def filter_nodes(keep: Array, edges: Array, edge_index: Array, batch: Array, ptr: Array) -> tuple[Array, ...]:
    """`_plan.Kept` of the nodes where `keep [N]`: nodes, edges, edge_index, batch, ptr, edge_ptr.

    edges: mask [E] of the edges that may stay, or [0] for all.
    """
    src, dst = edge_index[0], edge_index[1]
    n, e = len(keep), len(src)
    number = np.empty(n + 1, np.int64)
    number[0] = 0
    for i in range(n):
        number[i + 1] = number[i] + keep[i]
    # What does not stay is written too, and then overwritten: cheaper than a branch that no processor can foresee.
    nodes, graph = np.empty(number[n] + 1, np.int64), np.empty(number[n] + 1, np.int64)
    for i in range(n):
        place = np.uintp(number[i])
        nodes[place] = i
        graph[place] = batch[i]
    kept, ends, targets = np.empty(e + 1, np.int64), np.empty(2 * e + 1, np.int64), np.empty(e + 1, np.int64)
    left = np.uintp(0)
    for i in range(e):
        u, v = np.uintp(src[i]), np.uintp(dst[i])
        if u >= np.uintp(n) or v >= np.uintp(n):  # as is a negative one
            raise IndexError("edge_index names a node that is not there")
        kept[left] = i
        ends[left] = number[u]
        targets[left] = number[v]
        stays = keep[u] & keep[v]
        if len(edges) > 0:
            stays &= edges[i]
        left += np.uintp(stays)
    count = np.intp(left)
    ends[count : 2 * count] = targets[:count]
    first_node = np.empty(len(ptr), np.int64)
    for s in range(len(ptr)):
        first_node[s] = number[np.uintp(ptr[s])]
    first_edge = np.searchsorted(ends[:count], first_node)
    ends = ends[: 2 * count].reshape((2, count))
    return nodes[: number[n]], kept[:count], ends, graph[: number[n]], first_node, first_edge


def filter_edges(keep: Array, edge_index: Array) -> tuple[Array, Array]:
    """Where the edges were, [E'], and edge_index [2, E'], of the edges where `keep [E]`."""
    src, dst = edge_index[0], edge_index[1]
    e, left = len(keep), np.uintp(0)
    kept, ends, targets = np.empty(e + 1, np.int64), np.empty(2 * e + 1, np.int64), np.empty(e + 1, np.int64)
    for i in range(e):
        kept[left] = i
        ends[left] = src[i]
        targets[left] = dst[i]
        left += np.uintp(keep[i])
    count = np.intp(left)
    ends[count : 2 * count] = targets[:count]
    return kept[:count], ends[: 2 * count].reshape((2, count))


def take_rows(words: Array, index: Array) -> Array:
    """words[index] of `words [M, W]`."""
    taken = np.empty((len(index), words.shape[1]), np.int64)
    for i in range(len(index)):
        row = np.uintp(index[i])
        for j in range(words.shape[1]):
            taken[i, j] = words[row, j]
    return taken


def walk(edge_index: Array, ptr: Array, keep: float, seed: int, rule: tuple[int, int, int]) -> Array:
    """Mask [N] of round(keep * n) nodes of every graph, chosen as `Subgraph` says; rule: nodes a walker, phases, steps.

    Equal in distribution to the torch path, but that neighbours of neighbours are taken without an end.
    """

    def below(n: int, state: Any) -> Any:  # a number in [0, n), by the splitmix64 generator (Steele et al., 2014)
        z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
        return np.int64(((z >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))

    src, dst = edge_index[0], edge_index[1]
    n, e = ptr[-1], len(src)
    first = np.zeros(n + 2, np.int64)  # of the neighbours of every node, edges taken both ways
    for i in range(e):
        if src[i] < 0 or src[i] >= n or dst[i] < 0 or dst[i] >= n:
            raise IndexError("edge_index names a node that is not there")
        first[np.uintp(src[i] + 2)] += 1
        first[np.uintp(dst[i] + 2)] += 1
    for v in range(n):
        first[v + 2] += first[v + 1]
    neighbour = np.empty(2 * e, np.int64)
    for i in range(e):
        one, other = np.uintp(src[i] + 1), np.uintp(dst[i] + 1)
        neighbour[np.uintp(first[one])] = dst[i]
        first[one] += 1
        neighbour[np.uintp(first[other])] = src[i]
        first[other] += 1

    golden: Any = np.uint64(0x9E3779B97F4A7C15)
    state: Any = np.uint64(seed)
    per_walker, phases, steps = rule
    kept, seen = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    found = np.empty(n, np.int64)  # nodes of one graph in the order in which they are reached
    at = np.empty(n // per_walker + 1, np.int64)
    for g in range(len(ptr) - 1):
        start, stop = ptr[g], ptr[g + 1]
        want: Any = max(np.int64(np.rint((stop - start) * keep)), 1)
        if want >= stop - start:
            kept[start:stop] = True
            continue
        walkers = (stop - start + per_walker - 1) // per_walker
        state += golden
        here = start + below(stop - start, state)
        at[:walkers] = here
        seen[here] = True
        found[0] = here
        before, reached = 0, 1  # how many were reached before this step, and with it
        for t in range(phases * steps):
            if reached >= want:
                break
            before = reached
            if t > 0 and t % steps == 0:
                stuck, j = True, reached - 1
                while stuck and j >= 0:
                    for i in range(first[found[j]], first[found[j] + 1]):
                        stuck = stuck and seen[neighbour[i]]
                    j -= 1
                if stuck:
                    state += golden
                    skip = below(stop - start - reached, state)
                    here = start
                    while seen[here] or skip > 0:
                        skip -= not seen[here]
                        here += 1
                    at[:walkers] = here
                    seen[here] = True
                    found[reached] = here
                    before, reached = reached, reached + 1
                    if reached >= want:
                        break
                    before = reached
            for w in range(walkers):
                spot = np.uintp(at[w])
                ways = first[spot + np.uintp(1)] - first[spot]
                if ways > 0:
                    state += golden
                    to = neighbour[np.uintp(first[spot] + below(ways, state))]
                    at[w] = to
                    if not seen[np.uintp(to)] and start <= to < stop:  # an edge may lead out, if the data is wrong
                        seen[np.uintp(to)] = True
                        found[reached] = to
                        reached += 1
        scanned = 0
        while reached < want:  # one round of neighbours at a time
            before = reached
            while scanned < before:
                here = found[scanned]
                for i in range(first[here], first[here + 1]):
                    to = neighbour[np.uintp(i)]
                    if not seen[to] and start <= to < stop:
                        seen[to] = True
                        found[reached] = to
                        reached += 1
                scanned += 1
            if reached == before:  # all that can be reached is: any nodes
                for v in range(start, stop):
                    if not seen[v]:
                        found[reached] = v
                        reached += 1
        for i in range(before if reached > want else want, want):  # of the last step or round some, at random
            state += golden
            j = i + below(reached - i, state)
            found[i], found[j] = found[j], found[i]
        for i in range(want):
            kept[found[i]] = True
    return kept


def depth_first(edges: Array, order: Array, start: Array) -> tuple[Array, Array, Array]:
    """`_rings.Walk` along `edges [2, P]`; order, start: as there.

    Another tree than the torch path walks along, numbered alike.
    """
    src, dst = edges[0], edges[1]
    n, p = len(start), len(src)
    first = np.zeros(n + 2, np.int64)  # of the edges of every node, taken both ways
    for i in range(p):
        if src[i] < 0 or src[i] >= n or dst[i] < 0 or dst[i] >= n:
            raise IndexError("edge_index names a node that is not there")
        first[np.uintp(src[i] + 2)] += 1
        first[np.uintp(dst[i] + 2)] += 1
    for v in range(n):
        first[v + 2] += first[v + 1]
    neighbour, way = np.empty(2 * p, np.int64), np.empty(2 * p, np.int64)
    for j in range(p):
        edge = np.uintp(order[j])
        for one, other in ((src[edge], dst[edge]), (dst[edge], src[edge])):
            place = first[np.uintp(one + 1)]
            neighbour[np.uintp(place)] = other
            way[np.uintp(place)] = edge
            first[np.uintp(one + 1)] += 1
    pre, up, above = np.full(n, -1), np.full(n, -1), np.full(n, -1)
    size, upcoming = np.ones(n, np.int64), first[:n].copy()
    reached = 0
    for root in start:
        here = root
        if pre[here] >= 0:
            continue
        pre[here] = reached
        reached += 1
        while here >= 0:
            place = upcoming[here]
            if place < first[here + 1]:
                upcoming[here] += 1
                other = neighbour[place]
                if pre[other] < 0:
                    pre[other], up[other], above[other] = reached, way[place], here
                    reached += 1
                    here = other
            else:
                if above[here] >= 0:
                    size[above[here]] += size[here]
                here = above[here]
    return pre, size, up


KERNELS = (choose, undirected_pairs, filter_nodes, filter_edges, take_rows, walk, depth_first)
