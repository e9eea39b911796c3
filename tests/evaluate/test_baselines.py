import inspect
import re

import graphs
import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv
from torch_geometric.utils import to_undirected

from graphcl.data.molecules import molecules_to_store
from graphcl.data.splits import Split, kfold_split
from graphcl.data.store import GraphStore
from graphcl.evaluate.baselines import (
    ALPHAS,
    BASELINES,
    label_propagation,
    normalised_adjacency,
    supervised_gin,
)
from graphcl.evaluate.probe import linear_probe
from graphcl.evaluate.protocols import PROTOCOLS
from graphcl.evaluate.supervised import TwoLayerGCN, supervised_gcn


def communities(size: int = 20, inside: float = 0.3, seed: int = 0) -> Data:
    """Three groups of nodes, denser inside; features say little, labels are the groups."""
    network = nx.random_partition_graph([size] * 3, inside, 0.02, seed=seed)
    y = torch.arange(3).repeat_interleave(size)
    edges = to_undirected(torch.tensor(list(network.edges())).T)
    return Data(x=torch.eye(3)[y] + 1.5 * torch.randn(3 * size, 3), edge_index=edges, y=y)


def thirds(n: int, seed: int = 0) -> Split:
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return Split(order[: n // 3], order[n // 3 : 2 * n // 3], order[2 * n // 3 :])


def rings_and_paths(n: int = 60) -> GraphStore:
    y = torch.arange(n) % 2
    made = []
    for i in range(n):
        k = 5 + i % 7
        data = graphs.make_graph(k, graphs.ring(k) if y[i] else graphs.path(k))
        made.append(Data(x=torch.ones(k, 1), edge_index=data.edge_index, y=y[i : i + 1]))
    return GraphStore.from_graphs(made)


# --- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_every_baseline_says_what_it_is_and_does_one_thing(name):
    one = BASELINES[name]
    assert one.name == name and len(one.statement) > 20 and "\n" not in one.statement
    assert (one.embed is None) != (one.score is None)
    assert bool(one.id) == (one.score is not None) and re.fullmatch(r"([a-z-]+/(clean|paper)/[1-9]\d*)?", one.id)
    assert set(one.levels) <= {"node", "graph"} and inspect.getdoc(one.embed or one.score)


def test_ids_are_their_own():
    ids = [one.id for one in BASELINES.values() if one.id]
    assert len(set(ids)) == len(ids) and not set(ids) & {one.id for one in PROTOCOLS.values()}


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_every_baseline_gives_a_row_on_small_data(name, monkeypatch):
    monkeypatch.setattr("graphcl.evaluate.supervised.EPOCHS", 20)
    monkeypatch.setattr("graphcl.evaluate.baselines.GIN_EPOCHS", 5)
    monkeypatch.setattr("graphcl.evaluate.svm.OUTER", 3)
    monkeypatch.setattr("graphcl.evaluate.svm.INNER", 2)
    one = BASELINES[name]
    if one.needs_smiles:
        smiles = [chain * (1 + i % 5) + end for i in range(15) for chain, end in (("C", "O"), ("CN", "F"))]
        source = molecules_to_store(smiles, torch.arange(30) % 2)[0]
    else:
        source = communities() if one.levels == ("node",) else rings_and_paths(30)
    split = kfold_split(source.y, 3, 0)
    if one.embed:
        z = one.embed(source)
        assert len(z) == len(source.y) and z.isfinite().all()
        scores = linear_probe(z, source.y, split)
    else:
        scores = one.score(source, split, seed=1)
        assert scores.protocol == one.id and scores == one.score(source, split, seed=1)
    assert 0.2 < scores.mean <= 1


# --- label propagation ------------------------------------------------------------------------------------------------


def test_adjacency_is_the_normalised_one_of_networkx():
    for name, network in graphs.real_networks().items():
        network = nx.Graph(network.edges())
        network = nx.relabel_nodes(network, {node: i for i, node in enumerate(sorted(network))})
        data = graphs.from_networkx(network)
        wanted = (
            np.eye(len(network))
            - nx.normalized_laplacian_matrix(network, nodelist=range(len(network)), weight=None).toarray()
        )
        np.testing.assert_allclose(normalised_adjacency(data).toarray(), wanted, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_propagation_comes_to_the_closed_form(alpha, monkeypatch):
    """Zhou et al., equation 4: F* = (1 - alpha) (I - alpha S)^-1 Y."""
    data, split = communities(), thirds(60)
    monkeypatch.setattr("graphcl.evaluate.baselines.ALPHAS", (alpha,))
    start = torch.zeros(60, 3, dtype=torch.float64)
    start[split.train, data.y[split.train]] = 1
    spread = torch.from_numpy(normalised_adjacency(data).toarray())
    closed = (1 - alpha) * torch.linalg.solve(torch.eye(60, dtype=torch.float64) - alpha * spread, start)
    right = closed.argmax(1) == data.y
    scores = label_propagation(data, split, steps=3000)
    assert scores.values[0] == pytest.approx(right[split.test].double().mean().item())
    assert scores.valid[0] == pytest.approx(right[split.val].double().mean().item())


def test_labels_spread_along_edges_and_what_they_do_not_reach_has_the_largest_class():
    data = Data(edge_index=torch.tensor([[0, 1, 3, 4], [1, 2, 4, 5]]), num_nodes=12)
    data.y = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 1, 1])
    split = Split(torch.tensor([0, 3, 6]), torch.tensor([1, 4]), torch.tensor([2, 5, 7, 8, 9]))
    assert label_propagation(data, split).mean == pytest.approx(4 / 5)  # 9 is alone and of the smaller class


# --- no label leaks ---------------------------------------------------------------------------------------------------


def test_test_labels_are_never_seen(monkeypatch):
    monkeypatch.setattr("graphcl.evaluate.supervised.EPOCHS", 8)
    data = communities(inside=0.1)
    order = torch.randperm(60)
    split = Split(order[:15], order[15:30], order[30:50])
    for score in (label_propagation, supervised_gcn):
        honest, shares = score(data, split), []
        for c in range(3):
            poisoned = data.clone()
            poisoned.y[split.test], poisoned.y[order[50:]] = c, 2 - c
            scores = score(poisoned, split)
            assert scores.valid == honest.valid
            shares.append(scores.mean)
        assert sum(shares) == pytest.approx(1)


# --- supervised -------------------------------------------------------------------------------------------------------


def test_supervised_networks_learn_what_the_features_do_not_say(monkeypatch):
    monkeypatch.setattr("graphcl.evaluate.baselines.GIN_EPOCHS", 80)
    data = communities(inside=0.5)
    scores = supervised_gcn(data, thirds(60))
    assert scores.mean > 0.75 and scores.mean > linear_probe(data.x, data.y, thirds(60)).mean
    store = rings_and_paths(48)
    assert supervised_gin(store, thirds(48)).mean > 0.8


def test_the_supervised_gcn_is_pygs_with_dropout_before_each_layer(monkeypatch):
    data = communities(inside=0.3)
    data.x = data.x.double() * (torch.rand(data.x.shape) < 0.5)
    data.x[3] = 0.0
    data.edge_index = torch.cat([data.edge_index, torch.tensor([[5, 6], [5, 7]])], dim=1)  # to itself; once more
    model = TwoLayerGCN(data.x, data.edge_index, 3).double().eval()
    layers = [GCNConv(*weight.shape).double() for weight in (model.w1, model.w2)]
    for layer, weight, bias in zip(layers, (model.w1, model.w2), (model.b1, model.b2), strict=True):
        layer.load_state_dict({"bias": bias.detach(), "lin.weight": weight.detach().t()})
    wanted = layers[1](layers[0](data.x, data.edge_index).relu(), data.edge_index)
    got = model()
    assert torch.allclose(got, wanted)
    got.square().sum().backward()
    wanted.square().sum().backward()
    assert torch.allclose(model.w1.grad, layers[0].lin.weight.grad.t())
    assert torch.allclose(model.w2.grad, layers[1].lin.weight.grad.t())
    for mine, layer in zip((model.b1, model.b2), layers, strict=True):
        assert torch.allclose(mine.grad, layer.bias.grad)
    seen, dropout = [], torch.nn.functional.dropout
    monkeypatch.setattr("torch.nn.functional.dropout", lambda h, *how: seen.append((h.shape, *how)) or dropout(h, *how))
    model.train()()
    assert seen == [((int(data.x.count_nonzero()),), 0.5, True), ((60, 16), 0.5, True)]


def test_supervised_mistakes_are_told():
    data, store = communities(), rings_and_paths(12)
    with pytest.raises(ValueError, match=r"supervised GCN needs one graph \(Data\) with node features"):
        supervised_gcn(store, thirds(12))
    with pytest.raises(ValueError, match=r"supervised GIN needs many graphs \(GraphStore\), got Data"):
        supervised_gin(data, thirds(60))
    with pytest.raises(ValueError, match=r"label propagation needs one graph \(Data\), got GraphStore"):
        label_propagation(store, thirds(12))
    for broken in (Data(x=data.x[:, 0], edge_index=data.edge_index, y=data.y), Data(x=data.x, y=data.y)):
        with pytest.raises(ValueError, match=r"node features \(x \[N, F\]\) and edges \(edge_index\)"):
            supervised_gcn(broken, thirds(60))
    with pytest.raises(ValueError, match="metric must be one of accuracy, roc_auc, prc_auc, got 'f1'"):
        supervised_gcn(data, thirds(60), metric="f1")
    data.y = torch.eye(3)[data.y]
    with pytest.raises(ValueError, match="needs one class a node, got 3 tasks; use fine-tuning"):
        supervised_gcn(data, thirds(60))


# --- fingerprints -----------------------------------------------------------------------------------------------------
