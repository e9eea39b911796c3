"""A fitted estimator and graphs whose attributes mean something else than those it was fitted on."""

import networkx as nx
import pytest
import torch
from test_estimators import SMALL, as_data, rings
from torch_geometric.data import Data

from graphcl import GraphEmbedder, NodeClassifier, NodeEmbedder


def test_columns_of_another_meaning_are_refused(tmp_path):
    graphs = rings()
    model = GraphEmbedder(**SMALL).fit(graphs)
    model.save(tmp_path / "model")
    other = [nx.relabel_nodes(graph, {}) for graph in rings()]
    for graph in other:
        for values in graph.nodes.values():
            values["c"] = values.pop("b")
    for fitted in (model, GraphEmbedder.load(tmp_path / "model")):
        with pytest.raises(ValueError, match=r"have the attributes \['a', 'c'\], .* was fitted on \['a', 'b'\]"):
            fitted.transform(other)
        assert fitted.transform([as_data(graph) for graph in graphs]) == pytest.approx(fitted.transform(graphs))
    with pytest.raises(ValueError, match=r"have the attributes \[\], .* was fitted on \['a', 'b'\]"):
        model.transform(rings(features=False))
    with pytest.raises(ValueError, match=r"no node features, those of fit had; .* or fit with features='degree'"):
        model.transform([Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=2)])
    with pytest.raises(ValueError, match=r"graph 8 has the node attributes \['a', 'c'\], but X: graph 0 has"):
        model.fit(graphs + other)
    by_degree = GraphEmbedder(features="degree", **SMALL).fit(graphs)
    assert by_degree.transform(other) == pytest.approx(by_degree.transform(graphs))


def test_columns_of_nodes_are_told_apart_too():
    graph = rings()[3]
    other = nx.relabel_nodes(graph, {})
    for values in other.nodes.values():
        values["z"] = values.pop("a")
    labels = [node % 2 for node in graph]
    for model in (NodeEmbedder(**SMALL).fit(graph), NodeClassifier(**SMALL).fit(graph, labels)):
        with pytest.raises(ValueError, match=r"have the attributes \['b', 'z'\], .* was fitted on \['a', 'b'\]"):
            model.predict(other) if isinstance(model, NodeClassifier) else model.transform(other)
