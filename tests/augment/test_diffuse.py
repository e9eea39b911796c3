from __future__ import annotations

import copy

import graphs
import networkx as nx
import pytest
import torch
from augment_references import heat_by_hand, ppr_by_hand
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Batch, Data

from augment import HeatDiffusion, PPRDiffusion
from graphcl import ConfigError, build, load_config

NETWORKS = {
    **graphs.real_networks(),
    "path": nx.path_graph(30),
    "star": nx.star_graph(25),
    "isolated nodes": nx.empty_graph(3),
    "two parts": nx.disjoint_union(nx.cycle_graph(5), nx.complete_graph(4)),
    "one node": nx.empty_graph(1),
}
PPR = [{"alpha": 0.05}, {"alpha": 0.2}, {"alpha": 0.9}, {"alpha": 0.2, "eps": 1e-2}, {"alpha": 0.2, "eps": 1e-5}]
HEAT = [{"t": 0.5}, {"t": 5.0}, {"t": 15.0}, {"t": 5.0, "eps": 1e-2}, {"t": 5.0, "eps": 1e-5}]


def adjacency(data: Data) -> Tensor:
    """[N, N], counting repeated edges."""
    n = int(data.num_nodes)
    return torch.zeros(n, n, dtype=torch.double).index_put(
        tuple(data.edge_index), torch.ones(data.num_edges, dtype=torch.double), accumulate=True
    )


def dense(data: Data) -> Tensor:
    """Weights of the diffused graph, [N, N]; no pair of nodes has two edges."""
    n = int(data.num_nodes)
    assert data.edge_index.unique(dim=1).shape[1] == data.num_edges
    out = torch.zeros(n, n, dtype=torch.double)
    out[tuple(data.edge_index)] = data.edge_weight.double()
    return out


def assert_close_to(out: Data, exact: Tensor, eps: float) -> None:
    """Every entry within eps, entries of no weight left out, those above 2 eps present."""
    ours = dense(out)
    assert float((ours - exact).abs().max()) <= eps * (1 + 1e-4) + 1e-6
    assert ((ours > 0) | (exact <= 2 * eps + 1e-6)).all()


@pytest.mark.parametrize("name", list(NETWORKS))
@pytest.mark.parametrize("options", PPR, ids=str)
def test_ppr_equals_the_dense_inverse(name, options):
    graph = graphs.from_networkx(NETWORKS[name])
    assert_close_to(
        PPRDiffusion(**options)(graph), ppr_by_hand(adjacency(graph), options["alpha"]), options.get("eps", 1e-3)
    )


@pytest.mark.parametrize("name", list(NETWORKS))
@pytest.mark.parametrize("options", HEAT, ids=str)
def test_heat_equals_the_dense_exponential(name, options):
    graph = graphs.from_networkx(NETWORKS[name])
    assert_close_to(
        HeatDiffusion(**options)(graph), heat_by_hand(adjacency(graph), options["t"]), options.get("eps", 1e-3)
    )


@st.composite
def simple_batches(draw):
    """Undirected batches without self-loops and repeated edges, for which the paper defines the matrix."""
    shapes = draw(st.lists(graphs.shapes(), min_size=1, max_size=5))
    return graphs.batch_of(
        [(n, sorted({(min(e), max(e)) for e in edges if e[0] != e[1]}), True) for n, edges, _ in shapes]
    )


@settings(max_examples=20, deadline=None)
@given(batch=simple_batches())
@pytest.mark.parametrize("kind", ["ppr", "heat"])
def test_each_graph_of_a_batch_is_diffused_alone(kind, batch):
    out = PPRDiffusion()(batch) if kind == "ppr" else HeatDiffusion()(batch)
    for before, after in zip(batch.to_data_list(), out.to_data_list(), strict=True):
        a = adjacency(before)
        assert_close_to(after, ppr_by_hand(a, 0.2) if kind == "ppr" else heat_by_hand(a, 5.0), 1e-3)


@pytest.mark.parametrize("name", ["karate", "miserables", "star", "path"])
@pytest.mark.parametrize("top_k", [1, 3, 100])
def test_top_k_keeps_the_heaviest_edges_into_each_node(name, top_k):
    """GDC's other sparsification: at most k entries for each target node, those of most weight."""
    graph = graphs.from_networkx(NETWORKS[name])
    exact = ppr_by_hand(adjacency(graph), 0.2)
    out = PPRDiffusion(top_k=top_k)(graph)
    ours = dense(out)
    into = torch.bincount(out.edge_index[1], minlength=int(graph.num_nodes))
    assert int(into.max()) <= top_k and int(into.min()) >= 1
    least = exact.sort(0, descending=True).values[min(top_k, len(exact)) - 1]  # [N], the k-th weight into each node
    assert ((ours == 0) | (exact >= least.view(1, -1) - 2e-3)).all()
    assert float((ours - exact)[ours > 0].abs().max()) <= 1.1e-3


def test_a_smaller_eps_keeps_more():
    graph = graphs.from_networkx(NETWORKS["miserables"])
    counts = [PPRDiffusion(eps=eps)(graph).num_edges for eps in (1e-1, 1e-2, 1e-3, 1e-4)]
    assert counts == sorted(counts) and counts[0] < counts[-1]


def test_a_node_alone_keeps_all_its_weight():
    for view in (PPRDiffusion(), HeatDiffusion()):
        out = view(graphs.batch_of([(1, [], True), (3, [], True)]))
        assert out.edge_index.tolist() == [[0, 1, 2, 3]] * 2
        assert torch.allclose(out.edge_weight, torch.ones(4), atol=1e-3)


def test_weights_are_floats_of_the_features_width():
    assert PPRDiffusion()(graphs.batch_of([(3, graphs.path(3), True)])).edge_weight.dtype == torch.float32


def test_a_second_graph_gets_its_own_diffusion():
    """A popular library keeps the first result and returns it for every later batch."""
    view = PPRDiffusion()
    first, second = view(graphs.from_networkx(NETWORKS["path"])), view(graphs.from_networkx(NETWORKS["star"]))
    assert_close_to(first, ppr_by_hand(adjacency(graphs.from_networkx(NETWORKS["path"])), 0.2), 1e-3)
    assert_close_to(second, ppr_by_hand(adjacency(graphs.from_networkx(NETWORKS["star"])), 0.2), 1e-3)


@pytest.mark.parametrize("wrong", [-2.5, float("nan")])
def test_weights_that_cannot_be_spread_are_refused(wrong):
    graph = graphs.batch_of([(5, graphs.ring(5), True)])
    graph.edge_weight = torch.ones(graph.num_edges)
    graph.edge_weight[3] = wrong
    for view in (PPRDiffusion(), HeatDiffusion(top_k=2)):
        with pytest.raises(ValueError, match=rf"edge_weight\[3\] is {wrong}; a diffusion needs weights >= 0"):
            view(copy.copy(graph))
    data = Data(x=torch.ones(3, 2), edge_index=torch.tensor([[0, 1], [1, 0]]), edge_weight=torch.tensor([-1.0, 1.0]))
    views = "views=[[{name: one_of, views: [{name: ppr_diffusion}, {name: identity}]}],[]]"
    with pytest.raises(ConfigError, match="negative weights, which a diffusion cannot spread"):
        build(load_config("grace", [views, "encoder={name: gin}", "data.split=random"]), data)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.2, float("nan"), "a"])
def test_a_wrong_alpha_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha"):
        PPRDiffusion(alpha)


@pytest.mark.parametrize("t", [0.0, -1.0, float("nan"), float("inf"), "a"])
def test_a_wrong_time_is_refused(t):
    with pytest.raises(ValueError, match=r"\bt\b"):
        HeatDiffusion(t)


@pytest.mark.parametrize("view", [PPRDiffusion, HeatDiffusion])
@pytest.mark.parametrize(
    "wrong", [{"eps": 0.0}, {"eps": -1.0}, {"eps": float("nan")}, {"top_k": 0}, {"top_k": 1.5}], ids=str
)
def test_a_wrong_sparsity_is_refused(view, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        view(**wrong)


def test_on_molecules(graphcl_data):
    parts = graphs.read_tu(graphcl_data, "MUTAG", limit=40)
    batch = Batch.from_data_list(parts)
    for view, exact in ((PPRDiffusion(), ppr_by_hand), (HeatDiffusion(), heat_by_hand)):
        for before, after in zip(parts, view(batch).to_data_list(), strict=True):
            assert_close_to(after, exact(adjacency(before), 0.2 if exact is ppr_by_hand else 5.0), 1e-3)
            assert "edge_attr" not in after
