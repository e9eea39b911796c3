from __future__ import annotations

import random

import graphs
import networkx as nx
import pytest
import torch
from augment_references import walk_by_hand
from hypothesis import given, settings
from torch_geometric.data import Batch

from augment import Subgraph


def size(n: int, keep: float) -> int:
    return max(round(keep * n), 1)


@settings(max_examples=20, deadline=None)
@given(batch=graphs.batches(), keep=graphs.rates, seed=graphs.seeds)
def test_keeps_exactly_the_rounded_share_and_all_edges_between_them(batch, keep, seed):
    out = Subgraph(keep, generator=graphs.generator(seed))(batch)
    for before, after in zip(batch.to_data_list(), out.to_data_list(), strict=True):
        assert after.num_nodes == size(before.num_nodes, keep)
        kept = torch.searchsorted(before.n_id, after.n_id).tolist()
        expected = sorted(int(before.edge_id[k]) for _, _, k in graphs.to_networkx(before).subgraph(kept).edges)
        assert sorted(after.edge_id.tolist()) == expected


CONNECTED = {
    "path": nx.path_graph(40),
    "ring": nx.cycle_graph(31),
    "star": nx.star_graph(20),
    "grid": nx.convert_node_labels_to_integers(nx.grid_2d_graph(6, 6)),
    "lollipop": nx.lollipop_graph(8, 20),
    "binary tree": nx.balanced_tree(2, 5),
    "complete": nx.complete_graph(12),
    **graphs.real_networks(),
}


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.8, 0.97])
def test_is_connected_in_a_connected_graph(keep, way):
    batch = Batch.from_data_list([graphs.from_networkx(network) for network in CONNECTED.values()])
    for seed in range(6):
        out = Subgraph(keep, generator=graphs.generator(seed))(batch)
        for network, part in zip(CONNECTED.values(), out.to_data_list(), strict=True):
            assert part.num_nodes == size(len(network), keep)
            assert nx.is_connected(network.subgraph(part.n_id.tolist()))


def test_reaches_beyond_one_hop():
    """The widely copied code takes a node and its neighbours only; on a long path that is three nodes."""
    network = nx.path_graph(60)
    out = Subgraph(0.5, generator=graphs.generator(0))(graphs.copies(graphs.from_networkx(network), 20))
    for part in out.to_data_list():
        assert part.num_nodes == 30 and int(part.n_id.max() - part.n_id.min()) == 29


@pytest.mark.parametrize("name", ["karate", "florentine", "davis"])
def test_visits_nodes_as_a_random_walk_does(name, way):
    """Shares of nodes and sizes of the kept edge sets agree with walks taken step by step (two samples, five sigma)."""
    network = graphs.real_networks()[name]
    times, kept = 1500, size(len(network), 0.3)
    out = Subgraph(0.3, generator=graphs.generator(5))(graphs.copies(graphs.from_networkx(network), times))
    ours = torch.bincount(out.n_id, minlength=len(network)).double() / times
    rng = random.Random(5)
    walks = [walk_by_hand(network, kept, rng) for _ in range(times)]
    theirs = torch.tensor([sum(node in walk for walk in walks) for node in range(len(network))]).double() / times
    spread = ((ours * (1 - ours) + theirs * (1 - theirs)) / times).sqrt() + 1e-9
    assert float(((ours - theirs).abs() / spread).max()) < 5
    edges = torch.tensor([network.subgraph(walk).number_of_edges() for walk in walks]).double()
    ours_edges = torch.tensor([part.num_edges / 2 for part in out.to_data_list()]).double()
    error = ((edges.var() + ours_edges.var()) / times).sqrt()
    assert abs(float(edges.mean() - ours_edges.mean())) < 5 * float(error)


def test_starts_anywhere(way):
    out = Subgraph(0.0, generator=graphs.generator(1))(graphs.copies(graphs.make_graph(5, graphs.path(5)), 500))
    assert torch.bincount(out.n_id, minlength=5).min() > 50


def test_goes_on_elsewhere_when_a_component_is_used_up(way):
    """Of components of 4, 3 and 1 nodes all but the last one that is visited are whole."""
    network = nx.disjoint_union_all([nx.path_graph(4), nx.path_graph(3), nx.path_graph(1)])
    out = Subgraph(0.75, generator=graphs.generator(2))(graphs.copies(graphs.from_networkx(network), 50))
    for part in out.to_data_list():
        assert part.num_nodes == 6
        pieces = list(nx.connected_components(network.subgraph(part.n_id.tolist())))
        whole = [piece for piece in pieces if piece in [set(range(4)), {4, 5, 6}, {7}]]
        assert len(pieces) - len(whole) <= 1


@pytest.mark.parametrize("seeds", [1, 3, 10])
def test_seeds_of_a_neighbour_sample_are_kept(seeds):
    graph = graphs.make_graph(10, graphs.ring(10))
    graph.batch_size = seeds
    for seed in range(10):
        out = Subgraph(0.5, generator=graphs.generator(seed))(graph)
        assert out.n_id[:seeds].tolist() == list(range(seeds)) and out.num_nodes == max(5, seeds)


def test_walks_along_directed_edges_stop_and_start_again(way):
    batch = graphs.batch_of([(20, graphs.path(20), False), (6, [(0, i) for i in range(1, 6)], False)])
    for seed in range(5):
        out = Subgraph(0.5, generator=graphs.generator(seed))(batch)
        assert out.ptr.diff().tolist() == [10, 3]


def test_on_molecules(graphcl_data):
    parts = graphs.read_tu(graphcl_data, "MUTAG")
    out = Subgraph(0.5, generator=graphs.generator(1))(Batch.from_data_list(parts))
    for before, after in zip(parts, out.to_data_list(), strict=True):
        assert after.num_nodes == size(before.num_nodes, 0.5)
        if nx.is_connected(nx.Graph(graphs.to_networkx(before).to_undirected())):
            assert nx.is_connected(nx.Graph(graphs.to_networkx(after).to_undirected()))
