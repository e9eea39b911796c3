from __future__ import annotations

import graphs
import networkx as nx
import pytest
import torch
from augment_references import sigmas
from hypothesis import given, settings
from torch_geometric.data import Batch, Data

from augment import DropNodes


def left(n: int, rate: float) -> int:
    return max(n - round(rate * n), 1)


@settings(max_examples=20, deadline=None)
@given(batch=graphs.batches(), rate=graphs.rates, seed=graphs.seeds)
def test_removes_exactly_the_rounded_share_of_every_graph(batch, rate, seed):
    out = DropNodes(rate, generator=graphs.generator(seed))(batch)
    assert [part.num_nodes for part in out.to_data_list()] == [left(p.num_nodes, rate) for p in batch.to_data_list()]


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.15, 0.29, 0.3, 0.35, 0.45, 0.55, 0.7, 0.9, 0.95])
def test_rounds_as_python_does(rate):
    """One graph of every size up to 120: halves go to the even neighbour, and 0.29 * 50 is below 14.5."""
    sizes = range(1, 121)
    out = DropNodes(rate)(graphs.batch_of([(n, [], True) for n in sizes]))
    assert out.ptr.diff().tolist() == [left(n, rate) for n in sizes]


@settings(max_examples=20, deadline=None)
@given(batch=graphs.batches(), rate=graphs.rates, seed=graphs.seeds)
def test_what_is_left_is_the_induced_subgraph(batch, rate, seed):
    """NetworkX takes the same nodes out of the same multigraph."""
    out = DropNodes(rate, generator=graphs.generator(seed))(batch)
    for before, after in zip(batch.to_data_list(), out.to_data_list(), strict=True):
        kept = torch.searchsorted(before.n_id, after.n_id).tolist()
        expected = graphs.to_networkx(before).subgraph(kept)
        edges = {int(before.edge_id[k]): (int(before.n_id[u]), int(before.n_id[v])) for u, v, k in expected.edges}
        ends = after.n_id[after.edge_index].T.tolist()
        assert dict(zip(after.edge_id.tolist(), map(tuple, ends), strict=True)) == edges


def test_every_node_is_dropped_equally_often():
    batch = graphs.copies(graphs.make_graph(10, graphs.path(10)), 3000)
    out = DropNodes(0.3, generator=graphs.generator(7))(batch)
    kept = torch.bincount(out.n_id, minlength=10)
    assert all(sigmas(int(count), 3000, 0.7) < 5 for count in kept)


def test_pairs_of_nodes_are_dropped_as_by_an_even_draw():
    """Each pair survives with the probability of a draw without replacement, also across the border of two graphs."""
    batch = graphs.copies(graphs.make_graph(6, []), 4000)
    out = DropNodes(0.5, generator=graphs.generator(3))(batch)
    there = torch.zeros(4000, 6)
    there[out.batch, out.n_id] = 1
    together = there.T @ there
    for u in range(6):
        for v in range(u):
            assert sigmas(float(together[u, v]), 4000, 3 / 6 * 2 / 5) < 5
    next_graph = there[:-1].T @ there[1:]
    assert all(sigmas(float(count), 3999, 0.25) < 5 for count in next_graph.flatten())


@pytest.mark.parametrize("seeds", [1, 4, 9, 10])
@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_seeds_of_a_neighbour_sample_are_never_dropped(seeds, rate):
    graph = graphs.make_graph(10, graphs.ring(10))
    graph.batch_size = seeds
    for seed in range(20):
        out = DropNodes(rate, generator=graphs.generator(seed))(graph)
        assert out.n_id[:seeds].tolist() == list(range(seeds))
        assert out.num_nodes == max(10 - round(rate * 10), seeds)


@pytest.mark.parametrize("name", list(graphs.real_networks()))
def test_on_real_networks(name):
    network = graphs.real_networks()[name]
    graph = graphs.from_networkx(network)
    out = DropNodes(0.2, generator=graphs.generator(1))(graph)
    kept = network.subgraph(out.n_id.tolist())
    assert out.num_nodes == left(len(network), 0.2) and out.num_edges == 2 * kept.number_of_edges()
    assert nx.utils.graphs_equal(nx.Graph(kept.edges), nx.Graph(out.n_id[out.edge_index].T.tolist()))


def test_on_molecules(graphcl_data):
    parts = graphs.read_tu(graphcl_data, "MUTAG")
    out = DropNodes(0.1, generator=graphs.generator(1))(Batch.from_data_list(parts))
    assert out.ptr.diff().tolist() == [left(part.num_nodes, 0.1) for part in parts]
    for before, after in zip(parts, out.to_data_list(), strict=True):
        kept = set(torch.searchsorted(before.n_id, after.n_id).tolist())
        inside = [k for k, (u, v) in enumerate(before.edge_index.T.tolist()) if u in kept and v in kept]
        assert after.edge_attr.equal(before.edge_attr[inside])


def test_a_batch_whose_ptr_is_of_other_nodes_is_refused():
    batch = Batch.from_data_list([Data(x=torch.ones(4, 1), edge_index=torch.zeros(2, 0, dtype=torch.long))] * 3)
    batch.x, batch.batch = batch.x[:5], batch.batch[:5]
    with pytest.raises(ValueError, match="ptr ends at 12, batch has 5 nodes; what removed or added nodes"):
        DropNodes(0.5)(batch)
