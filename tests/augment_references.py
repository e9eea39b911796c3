"""Slow references for the views: plain Python, NetworkX and dense float64, written from the papers."""

from __future__ import annotations

import math
import random
from collections import defaultdict

import networkx as nx
import torch
from torch import Tensor


def pairs_by_hand(edge_index: Tensor) -> list[list[int]]:
    """Positions of the directed edges, grouped into undirected pairs.

    The k-th copy of (u, v) belongs to the k-th copy of (v, u). An edge without partner, and a self-loop, stand alone.
    """
    copies: dict[tuple[int, int], list[int]] = defaultdict(list)
    for position, (u, v) in enumerate(edge_index.T.tolist()):
        copies[u, v].append(position)
    pairs = []
    for (u, v), there in copies.items():
        back = copies.get((v, u), [])
        for k, position in enumerate(there):
            if u == v or k >= len(back):
                pairs.append([position])
            elif u < v:
                pairs.append([position, back[k]])
    return pairs


def is_undirected_by_hand(edge_index: Tensor) -> bool:
    """Whether every edge that is no self-loop has a partner."""
    loops = {i for i, (u, v) in enumerate(edge_index.T.tolist()) if u == v}
    return all(len(pair) == 2 or pair[0] in loops for pair in pairs_by_hand(edge_index))


def walk_by_hand(network: nx.Graph, size: int, rng: random.Random) -> set[int]:
    """Nodes of a simple random walk from a random node of a connected graph, until `size` different ones are seen."""
    node = rng.choice(list(network))
    seen = {node}
    while len(seen) < size:
        node = rng.choice(list(network[node]))
        seen.add(node)
    return seen


def transition_by_hand(adjacency: Tensor) -> Tensor:
    """D^-1/2 (A + I) D^-1/2 of a dense adjacency [N, N], D the degrees with the loops (GDC, arXiv:1911.05485)."""
    looped = adjacency.double() + torch.eye(len(adjacency), dtype=torch.double)
    scale = looped.sum(1).rsqrt()
    return scale.view(-1, 1) * looped * scale


def ppr_by_hand(adjacency: Tensor, alpha: float) -> Tensor:
    """alpha (I - (1 - alpha) T)^-1 (GDC, section 3)."""
    transition = transition_by_hand(adjacency)
    return alpha * torch.linalg.inv(torch.eye(len(transition), dtype=torch.double) - (1 - alpha) * transition)


def heat_by_hand(adjacency: Tensor, t: float) -> Tensor:
    """exp(-t (I - T)) (GDC, section 3)."""
    transition = transition_by_hand(adjacency)
    return torch.linalg.matrix_exp(-t * (torch.eye(len(transition), dtype=torch.double) - transition))


def centrality_by_hand(network: nx.Graph, kind: str) -> dict[int, float]:
    """NetworkX's own centralities, unweighted."""
    if kind == "degree":
        return dict(network.degree())
    if kind == "pagerank":
        return nx.pagerank(network, weight=None, tol=1e-10, max_iter=10000)
    return nx.eigenvector_centrality(network, max_iter=10000, tol=1e-10)


def edge_drop_by_hand(network: nx.Graph, kind: str, rate: float, threshold: float) -> dict[tuple[int, int], float]:
    """Probability with which each undirected edge is dropped (GCA, arXiv:2010.14945, equations 2 and 3)."""
    centrality = centrality_by_hand(network, kind)
    score = {(u, v): math.log((centrality[u] + centrality[v]) / 2) for u, v in network.edges()}
    return _probability(score, rate, threshold)


def feature_mask_by_hand(network: nx.Graph, x: Tensor, kind: str, rate: float, threshold: float) -> list[float]:
    """Probability with which each column of x [N, F] is zeroed (GCA, equations 5 and 6, |x| as weights)."""
    centrality = centrality_by_hand(network, kind)
    weights = [sum(abs(float(x[u, i])) * centrality[u] for u in network) for i in range(x.shape[1])]
    probability = _probability({i: math.log(w) for i, w in enumerate(weights)}, rate, threshold)
    return [probability[i] for i in range(x.shape[1])]


def _probability(score: dict, rate: float, threshold: float) -> dict:
    largest, mean = max(score.values()), sum(score.values()) / len(score)
    return {key: min((largest - s) / (largest - mean) * rate, threshold) for key, s in score.items()}


def sigmas(hits: float, trials: int, probability: float) -> float:
    """By how many standard deviations a count of independent trials is off; half a count is forgiven."""
    spread = math.sqrt(trials * probability * (1 - probability))
    return max(abs(hits - trials * probability) - 0.5, 0.0) / max(spread, 1e-9)


def network_by_hand(edge_index: Tensor, n: int) -> nx.MultiGraph:
    """The undirected pairs of a graph, without self-loops; two of them between the same nodes make a ring."""
    network = nx.MultiGraph()
    network.add_nodes_from(range(n))
    ends = [edge_index[:, pair[0]].tolist() for pair in pairs_by_hand(edge_index)]
    network.add_edges_from((u, v) for u, v in ends if u != v)
    return network


def bridges_by_hand(network: nx.MultiGraph) -> set[frozenset[int]]:
    """The edges that lie in no ring."""
    simple = nx.Graph(network)
    return {frozenset(edge) for edge in nx.bridges(simple) if network.number_of_edges(*edge) == 1}


def ring_systems_by_hand(network: nx.MultiGraph) -> list[set[int]]:
    """What hangs together by edges in rings; a node outside rings is one of its own."""
    cut = nx.Graph(network)
    cut.remove_edges_from([tuple(edge) for edge in bridges_by_hand(network)])
    return list(nx.connected_components(cut))


def side_chains_by_hand(network: nx.MultiGraph, at_most: float) -> list[set[frozenset[int]]]:
    """For every edge outside rings with a fitting side chain the parts that may go: the smaller, or two equal ones."""
    in_rings = set().union(*[system for system in ring_systems_by_hand(network) if len(system) > 1])
    chains = []
    for edge in bridges_by_hand(network):
        u, v = edge
        cut = nx.Graph(network)
        cut.remove_edge(u, v)
        parts = [frozenset(nx.node_connected_component(cut, node)) for node in (u, v)]
        small = min(len(part) for part in parts)
        fit = {part for part in parts if len(part) == small and not part & in_rings}
        if fit and small <= round(at_most * len(network)):
            chains.append(fit)
    return chains
