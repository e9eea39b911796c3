"""WL-subtree kernel and graphlet counts against slow references on dictionaries and NetworkX."""

import itertools
import math
from collections import Counter

import graphs
import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from graphcl.data.splits import Split, kfold_split
from graphcl.data.store import GraphStore
from graphcl.evaluate import structure
from graphcl.evaluate.structure import (
    MOMENTS,
    STATISTICS,
    graph_statistics,
    graphlets,
    wl_features,
    wl_grams,
    wl_svm,
    wl_svm_paper,
)


def store_of(shapes, colours: int = 0, y=None) -> GraphStore:
    """Graphs (n, edges, undirected); with `colours`, node i has colour i mod colours, one-hot."""
    made = []
    for b, (n, edges, undirected) in enumerate(shapes):
        data = graphs.make_graph(n, edges, undirected=undirected)
        x = torch.eye(colours)[torch.arange(n) % colours] if colours else torch.zeros(n, 0)
        made.append(Data(x=x, edge_index=data.edge_index, num_nodes=n, y=None if y is None else y[b : b + 1]))
    return GraphStore.from_graphs(made)


# --- Weisfeiler-Lehman ------------------------------------------------------------------------------------------------


def wl_by_hand(store: GraphStore, heights: int) -> np.ndarray:
    """Colours as nested tuples, counted in dictionaries, one pair of graphs at a time."""
    counts: list[Counter] = []
    for data in store:
        colour = [tuple(row.tolist()) for row in data.x]
        found = Counter((0, c) for c in colour)
        for height in range(1, heights):
            near: list[list] = [[] for _ in colour]
            for u, v in data.edge_index.T.tolist():
                near[v].append(colour[u])
            colour = [(own, tuple(sorted(other, key=repr))) for own, other in zip(colour, near, strict=True)]
            found.update((height, c) for c in colour)
        counts.append(found)
    grams = np.zeros((heights, len(store), len(store)))
    for h in range(heights):
        seen = [{c: k for c, k in found.items() if c[0] <= h} for found in counts]
        for i, a in enumerate(seen):
            for j, b in enumerate(seen):
                grams[h, i, j] = sum(k * b.get(c, 0) for c, k in a.items())
        length = np.sqrt(np.diagonal(grams[h]))
        grams[h] /= np.outer(length, length)
    return grams


@settings(max_examples=20, deadline=None)
@given(st.lists(graphs.shapes(), min_size=1, max_size=4), st.integers(0, 3))
def test_wl_kernel_equals_the_one_on_dictionaries(shapes, colours):
    store = store_of(shapes, colours)
    np.testing.assert_allclose(wl_grams(store, 4), wl_by_hand(store, 4), rtol=1e-5)


def test_wl_features_count_every_node_once_and_refine():
    store = store_of([(n, graphs.path(n), True) for n in (1, 2, 5, 9)], colours=2)
    features = wl_features(store, 6)
    for counts in features:
        assert counts.sum(1).A1.tolist() == [1, 2, 5, 9]
    widths = [counts.shape[1] for counts in features]
    assert widths == sorted(widths) and widths[0] == 2


def test_wl_does_not_see_the_order_of_nodes():
    network = nx.gnm_random_graph(12, 20, seed=1)
    turned = nx.relabel_nodes(network, dict(enumerate(np.random.default_rng(0).permutation(12).tolist())))
    shapes = [(12, list(one.edges()), True) for one in (network, turned)]
    assert wl_grams(store_of(shapes))[:, 0, 1] == pytest.approx(1)
    # Two triangles and a hexagon: what WL is known not to tell apart.
    pair = [(6, [(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3)], True), (6, graphs.ring(6), True)]
    assert wl_grams(store_of(pair))[:, 0, 1] == pytest.approx(1)
    assert wl_grams(store_of([pair[0], (6, graphs.path(6), True)]))[-1, 0, 1] < 0.9


def kinds(n: int, seed: int = 0) -> tuple[GraphStore, torch.Tensor]:
    """Rings and paths of many sizes."""
    y = torch.arange(n) % 2
    shapes = [
        (k, graphs.ring(k) if y[i] else graphs.path(k), True) for i, k in enumerate((5 + torch.arange(n) % 7).tolist())
    ]
    return store_of(shapes, y=y), y


def test_wl_svm_finds_rings_among_paths(monkeypatch):
    monkeypatch.setattr("graphcl.evaluate.svm.OUTER", 3)
    store, y = kinds(48)
    split = kfold_split(y, 3, 0)
    scores = wl_svm(store, split)
    assert scores.mean > 0.85 and scores.protocol == "wl-svm/clean/1" and len(scores.values) == 3
    assert wl_svm(store, split, metric="roc_auc").mean > 0.85
    blind = wl_svm(store, split, heights=1)  # one colour in all graphs
    assert blind.mean < 0.7 and blind.protocol == ""
    paper = wl_svm_paper(store.subset(torch.arange(30)))
    assert paper.mean > 0.85 and len(paper.values) == 3 and paper.protocol == "wl-svm/paper/1"


def test_wl_svm_never_sees_test_labels():
    store, y = kinds(60)
    order = torch.randperm(60)
    split = Split(order[:12], order[12:24], order[24:50])
    noisy = torch.where(torch.rand(60) < 0.3, 1 - y, y)
    honest, shares = wl_svm(store._like(y=noisy), split), []
    for c in range(2):
        poisoned = noisy.clone()
        poisoned[split.test], poisoned[order[50:]] = c, c
        scores = wl_svm(store._like(y=poisoned), split)
        assert scores.valid == honest.valid
        shares.append(scores.mean)
    assert sum(shares) == pytest.approx(1)


# --- small subgraphs --------------------------------------------------------------------------------------------------

# Connected graphs of 3 and 4 nodes by their sorted degrees, which tell them apart.
BY_DEGREES = {
    (1, 1, 2): "path3",
    (2, 2, 2): "triangle",
    (1, 1, 2, 2): "path4",
    (1, 1, 1, 3): "star4",
    (2, 2, 2, 2): "cycle4",
    (1, 2, 2, 3): "paw",
    (2, 2, 3, 3): "diamond",
    (3, 3, 3, 3): "clique4",
}


def graphlets_by_hand(network: nx.Graph) -> list[float]:
    found = Counter({"nodes": len(network), "edges": network.number_of_edges()})
    for size in (3, 4):
        for chosen in itertools.combinations(network, size):
            part = network.subgraph(chosen)
            if nx.is_connected(part):
                found[BY_DEGREES[tuple(sorted(dict(part.degree()).values()))]] += 1
    return [float(found[name]) for name in STATISTICS]


def simple(data: Data) -> nx.Graph:
    network = nx.Graph(graphs.to_networkx(data).to_undirected())
    network.remove_edges_from(list(nx.selfloop_edges(network)))
    return network


@settings(max_examples=25, deadline=None)
@given(st.lists(graphs.shapes(), min_size=1, max_size=4))
def test_graphlets_equal_those_found_one_by_one(shapes):
    store = store_of(shapes)
    assert graphlets(store).tolist() == [graphlets_by_hand(simple(data)) for data in store]


@pytest.mark.parametrize("block", [1, 40, 20_000])
def test_graphlets_of_dense_and_real_graphs_in_any_blocks(block, monkeypatch):
    monkeypatch.setattr(structure, "BLOCK", block)
    networks = [nx.gnp_random_graph(11, p, seed=3) for p in (0.5, 0.7, 0.9, 1.0)]
    networks += [graphs.real_networks()["florentine"]]
    store = store_of([(len(one), list(one.edges()), True) for one in networks])
    assert graphlets(store).tolist() == [graphlets_by_hand(one) for one in networks]


def test_statistics_of_degrees():
    networks = [nx.star_graph(5), nx.cycle_graph(6), nx.gnp_random_graph(12, 0.4, seed=0), nx.empty_graph(3)]
    store = store_of([(len(one), list(one.edges()), True) for one in networks])
    rows = graph_statistics(store)
    assert rows.shape == (4, len(STATISTICS) + len(MOMENTS)) and rows.isfinite().all()
    for row, network in zip(rows.tolist(), networks, strict=True):
        found = dict(zip((*STATISTICS, *MOMENTS), row, strict=True))
        degrees = np.array([d for _, d in network.degree()], dtype=float)
        away = degrees - degrees.mean()
        wanted = {
            "nodes": math.log1p(len(network)),
            "edges": math.log1p(network.number_of_edges()),
            "density": nx.density(network),
            "degree mean": degrees.mean(),
            "degree deviation": degrees.std(),
            "degree skewness": (away**3).mean() / degrees.std() ** 3 if degrees.std() > 0 else 0.0,
            "degree maximum": math.log1p(degrees.max()),
            "transitivity": nx.transitivity(network),
        }
        for name, value in wanted.items():
            assert found[name] == pytest.approx(value, abs=1e-5), name


def test_statistics_of_odd_batches():
    for name, batch in graphs.odd_batches().items():
        store = GraphStore.from_graphs(batch.to_data_list())
        rows = graph_statistics(store)
        assert rows.isfinite().all() and len(rows) == len(store), name
        assert wl_grams(store).shape == (6, len(store), len(store))
