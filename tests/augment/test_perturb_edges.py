from __future__ import annotations

import graphs
import networkx as nx
import pytest
import torch
from augment_references import is_undirected_by_hand, pairs_by_hand, sigmas
from hypothesis import given, settings
from torch_geometric.data import Batch, Data

from augment import PerturbEdges


def whole_pairs_left(before: Data, after: Data) -> int:
    """Number of pairs of `before` whose edges are all in `after`; fails if one is torn apart."""
    kept = set(after.edge_id.tolist())
    pairs = [[int(before.edge_id[k]) in kept for k in pair] for pair in pairs_by_hand(before.edge_index)]
    assert all(all(pair) == any(pair) for pair in pairs), "a pair was torn apart"
    return sum(map(all, pairs))


@settings(max_examples=20, deadline=None)
@given(batch=graphs.batches(), rate=graphs.rates, seed=graphs.seeds)
def test_drops_exactly_the_rounded_share_of_pairs(batch, rate, seed):
    out = PerturbEdges(drop=rate, generator=graphs.generator(seed))(batch)
    for before, after in zip(batch.to_data_list(), out.to_data_list(), strict=True):
        e = len(pairs_by_hand(before.edge_index))
        assert whole_pairs_left(before, after) == e - round(rate * e)


@pytest.mark.parametrize("rate", [0.05, 0.15, 0.29, 0.35, 0.45, 0.55, 0.95])
def test_rounds_as_python_does(rate):
    sizes = range(1, 81)
    out = PerturbEdges(drop=rate)(graphs.batch_of([(n, graphs.path(n), True) for n in sizes]))
    left = [part.num_edges // 2 for part in out.to_data_list()]
    assert left == [n - 1 - round(rate * (n - 1)) for n in sizes]


@settings(max_examples=20, deadline=None)
@given(batch=graphs.batches(), rate=graphs.rates, seed=graphs.seeds)
def test_independent_draws_keep_pairs_together(batch, rate, seed):
    out = PerturbEdges(drop=rate, exact=False, generator=graphs.generator(seed))(batch)
    for before, after in zip(batch.to_data_list(), out.to_data_list(), strict=True):
        whole_pairs_left(before, after)


def test_independent_draws_are_independent():
    """Counts per graph scatter as a binomial does: mean and variance."""
    times, e, rate = 3000, 20, 0.3
    batch = graphs.copies(graphs.make_graph(e, graphs.ring(e)), times)
    out = PerturbEdges(drop=rate, exact=False, generator=graphs.generator(1))(batch)
    left = torch.bincount(out.batch[out.edge_index[0]], minlength=times).double() / 2
    assert sigmas(float(left.sum()), times * e, 1 - rate) < 5
    variance = e * rate * (1 - rate)
    assert abs(float(left.var()) - variance) < 5 * variance * (2 / times) ** 0.5
    each = torch.bincount(out.edge_pair, minlength=e) / 2
    assert all(sigmas(float(count), times, 1 - rate) < 5 for count in each)


def test_exact_draws_are_even():
    times, e = 3000, 10
    batch = graphs.copies(graphs.make_graph(e, graphs.ring(e)), times)
    out = PerturbEdges(drop=0.3, generator=graphs.generator(1))(batch)
    each = torch.bincount(out.edge_pair, minlength=e) / 2
    assert all(sigmas(float(count), times, 0.7) < 5 for count in each)


def added_edges(before: Data, after: Data) -> list[int]:
    """Positions in `after` of the edges that are not old ones in their place (old ends, old id, once each)."""
    old = {(int(k), *ends) for k, ends in zip(before.edge_id, before.edge_index.T.tolist(), strict=True)}
    new = []
    for position, (k, ends) in enumerate(zip(after.edge_id, after.edge_index.T.tolist(), strict=True)):
        if (int(k), *ends) in old:
            old.remove((int(k), *ends))
        else:
            new.append(position)
    return new


SPARSE = {
    "rings": [(12, graphs.ring(12), True), (20, graphs.ring(20), True)],
    "a path, directed": [(15, graphs.path(15), False), (15, graphs.path(15), True)],
    "self-loops and isolated": [(15, [*graphs.path(8), (3, 3)], True), (9, [(0, 1), (1, 2), (0, 1)], True)],
}


@pytest.mark.parametrize("shapes", list(SPARSE.values()), ids=list(SPARSE))
@pytest.mark.parametrize(("drop", "add"), [(0.0, 0.3), (0.4, 0.4), (1.0, 1.0), (0.0, 1.0)])
def test_adds_exactly_the_rounded_share_inside_each_graph(shapes, drop, add):
    batch = graphs.batch_of(shapes)
    for seed in range(10):
        out = PerturbEdges(drop, add, generator=graphs.generator(seed))(batch)
        for before, after in zip(batch.to_data_list(), out.to_data_list(), strict=True):
            e, directions = len(pairs_by_hand(before.edge_index)), 1 + is_undirected_by_hand(before.edge_index)
            new = added_edges(before, after)
            assert len(new) == directions * round(add * e)
            assert is_undirected_by_hand(after.edge_index) == is_undirected_by_hand(before.edge_index)
            old = set(map(tuple, before.edge_index.T.tolist()))
            ends = [tuple(after.edge_index[:, k].tolist()) for k in new]
            assert all(u != v for u, v in ends), "a self-loop was added"
            assert not old & set(ends), "an edge was added that was there"


@pytest.mark.parametrize("features", ["float", "integer"])
def test_added_edges_have_attributes_of_their_graph_the_same_in_both_directions(features):
    shapes = [(15, graphs.path(15), True), (9, [*graphs.ring(9), (2, 2)], True)]
    batch = graphs.batch_of(shapes, edge_features=features)
    out = PerturbEdges(0.2, 0.8, generator=graphs.generator(2))(batch)
    for before, after in zip(batch.to_data_list(), out.to_data_list(), strict=True):
        rows = set(map(tuple, before.edge_attr.tolist()))
        assert set(map(tuple, after.edge_attr.tolist())) <= rows
        ends = {}
        for k in added_edges(before, after):
            u, v = after.edge_index[:, k].tolist()
            ends.setdefault((u, v), []).append(after.edge_attr[k].tolist())
        assert ends and all(sorted(ends[u, v]) == sorted(ends[v, u]) for u, v in ends)


def test_added_edges_reach_every_pair_of_nodes():
    """Also the last node, also in the last graph."""
    times = 4000
    batch = graphs.copies(graphs.make_graph(6, [(0, 1), (2, 3)]), times)
    out = PerturbEdges(0.0, 0.5, generator=graphs.generator(4))(batch)
    local = out.edge_index - out.ptr[out.batch[out.edge_index[0]]]
    count = torch.zeros(6, 6)
    count.index_put_(tuple(local), torch.ones(local.shape[1]), accumulate=True)
    assert count.equal(count.T) and count[0, 1] == count[2, 3] == times
    free = [(u, v) for v in range(6) for u in range(v) if (u, v) not in {(0, 1), (2, 3)}]
    assert sum(float(count[u, v]) for u, v in free) == times, "every new pair is free"
    assert all(sigmas(float(count[u, v]), times, 1 / len(free)) < 5 for u, v in free)


@pytest.mark.parametrize("shape", [(1, [], True), (1, [(0, 0)], True), (2, [(0, 1)], True), (4, [], True)])
def test_adds_nothing_where_nothing_fits(shape):
    """No second node, no edge to take attributes from, or no free pair."""
    out = PerturbEdges(0.0, 1.0)(graphs.batch_of([shape, (3, graphs.path(3), True)]))
    assert out[0].edge_index.equal(graphs.make_graph(*shape[:2]).edge_index)


def test_a_complete_graph_stays_simple():
    """There is no free pair, whatever the share."""
    graph = graphs.make_graph(5, [(u, v) for v in range(5) for u in range(v)])
    out = PerturbEdges(0.0, 1.0, generator=graphs.generator(0))(graph)
    assert out.num_edges == graph.num_edges and out.edge_index.unique(dim=1).shape[1] == graph.num_edges


@pytest.mark.parametrize("name", list(graphs.real_networks()))
def test_on_real_networks(name):
    network = graphs.real_networks()[name]
    out = PerturbEdges(0.2, 0.2, generator=graphs.generator(1))(graphs.from_networkx(network))
    result = nx.MultiDiGraph(out.edge_index.T.tolist())
    e = network.number_of_edges()
    assert out.num_edges == 2 * e and nx.number_of_selfloops(result) == 0
    assert all(result.number_of_edges(u, v) == result.number_of_edges(v, u) for u, v in result.edges())
    old = sum(network.has_edge(u, v) for u, v in result.edges())
    assert old == 2 * (e - round(0.2 * e))


def test_on_molecules(graphcl_data):
    parts = graphs.read_tu(graphcl_data, "MUTAG", limit=60)
    out = PerturbEdges(0.1, generator=graphs.generator(1))(Batch.from_data_list(parts))
    for before, after in zip(parts, out.to_data_list(), strict=True):
        e = before.num_edges // 2
        assert whole_pairs_left(before, after) == e - round(0.1 * e)
