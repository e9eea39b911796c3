from __future__ import annotations

import graphs
import networkx as nx
import pytest
import torch
from augment_references import edge_drop_by_hand, feature_mask_by_hand, pairs_by_hand, sigmas
from hypothesis import given, settings
from torch_geometric.data import Batch

from augment import AdaptiveDropEdges, AdaptiveMaskFeatures

KINDS = ["degree", "pagerank", "eigenvector"]
TIMES = 800


def repeated(*names: str) -> Batch:
    """TIMES copies of each real network, mixed: each graph must use its own largest and mean score."""
    networks = graphs.real_networks()
    parts = [graphs.from_networkx(networks[name], number) for number, name in enumerate(names)]
    return Batch.from_data_list(parts * TIMES)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rate", "threshold"), [(0.3, 0.7), (0.8, 0.6)])
def test_edges_are_dropped_with_the_papers_probability(kind, rate, threshold):
    names = ["karate", "florentine"]
    out = AdaptiveDropEdges(rate, kind, threshold, generator=graphs.generator(1))(repeated(*names))
    graph_of = out.batch[out.edge_index[0]]
    for number, name in enumerate(names):
        network = graphs.real_networks()[name]
        mine = out.graph_id[graph_of] == number
        left = torch.bincount(out.edge_pair[mine], minlength=network.number_of_edges()) / 2
        probability = edge_drop_by_hand(network, kind, rate, threshold)
        pairs = {int(k): probability[edge] for k, edge in enumerate(network.edges())}
        assert all(sigmas(float(left[k]), TIMES, 1 - p) < 5 for k, p in pairs.items())


@settings(max_examples=10, deadline=None)
@given(batch=graphs.batches(), rate=graphs.rates, seed=graphs.seeds)
@pytest.mark.parametrize("kind", KINDS)
def test_both_directions_go_together(kind, batch, rate, seed):
    out = AdaptiveDropEdges(rate, kind, generator=graphs.generator(seed))(batch)
    for before, after in zip(batch.to_data_list(), out.to_data_list(), strict=True):
        kept = set(after.edge_id.tolist())
        pairs = [[int(before.edge_id[k]) in kept for k in pair] for pair in pairs_by_hand(before.edge_index)]
        assert all(all(pair) == any(pair) for pair in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_are_masked_with_the_papers_probability(kind):
    names, width, rate, threshold = ["karate", "florentine"], 8, 0.5, 0.7
    networks = [graphs.real_networks()[name] for name in names]
    features = [torch.randn(len(network), width).exp() - 0.2 for network in networks]  # of both signs
    parts = [
        graphs.from_networkx(network, number).update({"x": x})
        for number, (network, x) in enumerate(zip(networks, features, strict=True))
    ]
    batch = Batch.from_data_list(parts * TIMES)
    out = AdaptiveMaskFeatures(rate, kind, threshold, generator=graphs.generator(1))(batch)
    first = out.x[out.ptr[:-1]]  # [2 * TIMES, F]
    for number, (network, x) in enumerate(zip(networks, features, strict=True)):
        gone = (first[number::2] == 0).sum(0)
        probability = feature_mask_by_hand(network, x, kind, rate, threshold)
        assert all(sigmas(int(c), TIMES, p) < 5 for c, p in zip(gone, probability, strict=True))


@settings(max_examples=10, deadline=None)
@given(batch=graphs.batches(features=["float", "double"]), rate=graphs.rates, seed=graphs.seeds)
@pytest.mark.parametrize("kind", KINDS)
def test_columns_are_zero_for_a_whole_graph(kind, batch, rate, seed):
    out = AdaptiveMaskFeatures(rate, kind, generator=graphs.generator(seed))(batch)
    for before, after in zip(batch.to_data_list(), out.to_data_list(), strict=True):
        for column in range(before.x.shape[1]):
            assert after.x[:, column].equal(before.x[:, column]) or not after.x[:, column].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_of_zeros_changes_nothing_for_the_others(kind):
    """One-hot features of a small graph have many such columns; the logarithm of their weight is minus infinity."""
    network = graphs.real_networks()["karate"]
    x = torch.rand(len(network), 6) + 0.1
    with_zeros = torch.cat([x, torch.zeros(len(network), 3)], dim=1)
    batch = graphs.copies(graphs.from_networkx(network).update({"x": with_zeros}), TIMES)
    out = AdaptiveMaskFeatures(0.5, kind, generator=graphs.generator(1))(batch)
    gone = (out.x[out.ptr[:-1]] == 0).sum(0)[:6]
    assert all(
        sigmas(int(c), TIMES, p) < 5
        for c, p in zip(gone, feature_mask_by_hand(network, x, kind, 0.5, 0.7), strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_equally_important_edges_are_dropped_at_the_rate(kind):
    """In a ring all scores are equal and the formula is 0 / 0: no edge is less important than the mean."""
    batch = graphs.copies(graphs.make_graph(12, graphs.ring(12)), 500)
    out = AdaptiveDropEdges(0.3, kind, 0.7, generator=graphs.generator(1))(batch)
    assert sigmas(out.num_edges / 2, 500 * 12, 0.7) < 5


@pytest.mark.parametrize("kind", KINDS)
def test_no_probability_is_above_the_threshold(kind):
    network = nx.barbell_graph(6, 4)
    batch = graphs.copies(graphs.from_networkx(network), TIMES)
    out = AdaptiveDropEdges(1.0, kind, 0.4, generator=graphs.generator(1))(batch)
    gone = TIMES - torch.bincount(out.edge_pair, minlength=network.number_of_edges()) / 2
    assert float(gone.max()) < TIMES * 0.4 + 5 * (TIMES * 0.24) ** 0.5


@pytest.mark.parametrize("view", [AdaptiveDropEdges, AdaptiveMaskFeatures])
def test_an_unknown_centrality_is_refused(view):
    with pytest.raises(ValueError, match=r"centrality.*'betweenness'"):
        view(0.3, "betweenness")


@pytest.mark.parametrize("kind", KINDS)
def test_on_molecules(kind, graphcl_data):
    """Over many molecules the number of dropped edges is the sum of the probabilities."""
    parts = graphs.read_tu(graphcl_data, "MUTAG", limit=30)
    networks = [nx.Graph(part.edge_index.T.tolist()) for part in parts]
    expected = spread = 0.0
    for network in networks:
        for p in edge_drop_by_hand(network, kind, 0.3, 0.7).values():
            expected, spread = expected + p, spread + p * (1 - p)
    times = 20
    out = AdaptiveDropEdges(0.3, kind, generator=graphs.generator(1))(Batch.from_data_list(parts * times))
    dropped = (sum(part.num_edges for part in parts) * times - out.num_edges) / 2
    assert abs(dropped - times * expected) < 5 * (times * spread) ** 0.5
