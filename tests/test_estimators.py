"""The scikit-learn estimators: inputs, pipelines and searches, saving, and scikit-learn's own checks."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch_geometric.data import Batch, Data

import graphcl
from graphcl import GraphEmbedder, NodeEmbedder
from graphcl.data.molecules import molecules_to_store
from graphcl.estimators import pretraining_config
from graphcl.methods import METHODS
from graphcl.read_config import config_names, load_config

SMILES = ["CCO", "c1ccccc1", "CC(=O)O", "CCN", "CCCC", "C", "O=C=O", "CC(C)C", "Clc1ccccc1", "[Na+].[Cl-]"]
SMALL = {"hidden": 16, "layers": 2, "epochs": 2, "device": "cpu"}


def rings(sizes=range(3, 11), features=True):
    graphs = []
    for n in sizes:
        graph = nx.cycle_graph(n)
        if features:
            nx.set_node_attributes(graph, {node: {"a": float(node), "b": 1.0} for node in graph})
        graphs.append(graph)
    return graphs


def as_data(graph, **more):
    ends = torch.tensor([*graph.edges, *[(v, u) for u, v in graph.edges]]).T
    x = torch.tensor([[float(values["a"]), float(values["b"])] for _, values in graph.nodes(data=True)])
    return Data(x=x, edge_index=ends, **more)


@pytest.fixture(scope="module")
def molecules():
    return GraphEmbedder(**SMALL).fit(SMILES)


@pytest.fixture(scope="module")
def nodes():
    return NodeEmbedder(**SMALL).fit(karate())


def karate():
    graph = nx.karate_club_graph()
    for _, values in graph.nodes(data=True):
        values.pop("club", None)
    return graph


# --- inputs -----------------------------------------------------------------------------------------------------------


def test_rows_come_out_as_they_went_in(molecules):
    z = molecules.transform(SMILES)
    assert z.shape == (len(SMILES), 16) and z.dtype == np.float32 and np.isfinite(z).all()
    np.testing.assert_allclose(molecules.transform(SMILES[::-1]), z[::-1], atol=1e-5)
    np.testing.assert_allclose(molecules.transform(SMILES[3:4]), z[3:4], atol=1e-5)


@pytest.mark.parametrize("make", [tuple, pd.Series, pd.Index, lambda x: np.array(x, dtype=object), np.array])
def test_lists_arrays_and_series_are_the_same(molecules, make):
    np.testing.assert_array_equal(molecules.transform(make(SMILES)), molecules.transform(SMILES))


def test_networkx_and_data_are_the_same_graphs():
    z = GraphEmbedder(**SMALL).fit_transform(rings())
    # y stays unseen, also where only some graphs have one
    datas = [as_data(graph, **({"y": i} if i % 2 else {})) for i, graph in enumerate(rings())]
    np.testing.assert_allclose(GraphEmbedder(**SMALL).fit_transform(datas), z, atol=1e-5)
    assert all(("y" in data) == bool(i % 2) for i, data in enumerate(datas)), "the input was written to"


def test_graphs_without_features_have_degrees():
    bare = [*rings(features=False), nx.empty_graph(1), nx.star_graph(4)]
    fitted = GraphEmbedder(**SMALL).fit(bare)
    assert fitted.features_ == "degree"
    asked = GraphEmbedder(**SMALL, features="degree")
    np.testing.assert_array_equal(asked.fit_transform(bare), fitted.transform(bare))
    assert GraphEmbedder(**SMALL, features="onehot_degree").fit(bare).model_.config.in_dim == 101


def test_molecules_are_the_stores_own():
    fitted = GraphEmbedder(**SMALL).fit(SMILES)
    want = graphcl.embed(fitted.model_, molecules_to_store(SMILES)[0])
    np.testing.assert_array_equal(fitted.transform(SMILES), want.numpy())


def test_features_of_ogb_are_read_for_an_encoder_that_wants_them():
    fitted = GraphEmbedder(**SMALL, settings={"encoder.features": "ogb"}).fit(SMILES)
    want = graphcl.embed(fitted.model_, molecules_to_store(SMILES, features="ogb")[0])
    np.testing.assert_array_equal(fitted.transform(SMILES), want.numpy())


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("CCO", r"got the str 'CCO'; put it into a list"),
        ({"a": 1}, r"got the dict"),
        (rings()[0], r"X is one graph \(a Graph\).*NodeEmbedder"),
        (as_data(rings()[0]), r"X is one graph \(a Data\)"),
        (Batch.from_data_list([as_data(rings()[0])]), r"give X.to_data_list\(\)"),
        ([Batch.from_data_list([as_data(rings()[0])])], r"X\[0\] is a DataBatch"),
        (pd.DataFrame({"smiles": SMILES}), r"DataFrame of shape \(10, 1\); of a table give the one column"),
        (np.zeros((4, 3)), r"numpy.ndarray of shape \(4, 3\)"),
        (7, r"got builtins.int"),
        (iter(SMILES), r"got builtins.list_iterator"),
        ([], r"X is empty \(0 samples\)"),
        ([*SMILES, None], r"X\[10\] is a NoneType \(None\); X must be a list"),
        ([1.5], r"X\[0\] is a float \(1.5\)"),
        ([*SMILES[:2], rings()[0]], r"X\[2\] is a Graph.*but X\[0\] is the text 'CCO'"),
        ([*rings()[:2], as_data(rings()[0])], r"X\[2\] is a Data.*but X\[0\] is a Graph"),
        (
            ["CCO", "C1CC", "", "CC"],
            r"X\[1\] is no molecule, 'C1CC': .*\(2 such rows\); leave it out together with its",
        ),
        (["C1CC"], r"X: none of 1 SMILES is a molecule; the first, 'C1CC'"),
        ([nx.path_graph(3), nx.empty_graph(0)], r"X: graph 1.* no nodes"),
        ([as_data(rings()[0]), Data(x=torch.full((2, 2), torch.nan))], r"X: graph 1: x\[0, 0\] is nan"),
        ([as_data(rings()[0]), Data(x=torch.ones(2, 3))], r"X: graph 1: x is .* of width 3, graph 0"),
    ],
)
def test_what_is_no_list_of_graphs_is_refused(X, message):
    with pytest.raises(ValueError, match=message):
        GraphEmbedder(**SMALL).fit(X)


def test_other_graphs_than_those_of_fit_are_refused(molecules):
    with pytest.raises(ValueError, match=r"reads? x as (two|2) integer columns"):
        molecules.transform(rings())
    on_rings = GraphEmbedder(**SMALL).fit(rings())
    with pytest.raises(ValueError, match="X holds SMILES, but this GraphEmbedder was fitted on other graphs"):
        on_rings.transform(SMILES)
    with pytest.raises(ValueError, match="features are 1 wide, the encoder was built for 2"):
        on_rings.transform(
            [as_data(graph, num_nodes=len(graph)).update({"x": torch.ones(len(graph), 1)}) for graph in rings()]
        )


# --- parameters -------------------------------------------------------------------------------------------------------


def test_parameters_reach_the_config():
    params = GraphEmbedder(
        "moco",
        encoder="gcn",
        hidden=np.int64(24),
        layers=3,
        lr=1e-5,
        batch_size=4,
        seed=5,
        settings={"method.tau": np.float64(0.3), "encoder.dropout": 0.5, "train.lr": 7},
    ).get_params()
    config = pretraining_config(params, ("graphcl", {}), molecules=False)
    assert (config.encoder.name, config.encoder.hidden, config.encoder.layers) == ("gcn", 24, 3)
    assert (config.train.lr, config.data.batch_size, config.train.seed) == (1e-5, 4, 5)
    assert (config.method.tau, config.encoder.dropout, config.method.queue) == (0.3, 0.5, 512)


def test_smiles_get_a_molecular_encoder_under_any_config():
    usual = load_config("quickstart-molecules")
    params = GraphEmbedder("moco", hidden=16).get_params()
    config = pretraining_config(params, ("quickstart-molecules", {}), molecules=True)
    assert config.encoder == usual.encoder.model_copy(update={"hidden": 16}) and config.readout == usual.readout
    params["encoder"] = "molecule_gcn"
    config = pretraining_config(params, ("quickstart-molecules", {}), molecules=True)
    assert (config.encoder.name, config.encoder.layers) == ("molecule_gcn", usual.encoder.layers)
    params["encoder"] = "gin"
    assert pretraining_config(params, ("quickstart-molecules", {}), molecules=True).encoder.name == "gin"


@pytest.mark.parametrize("name", sorted(name for name in METHODS if "graph" in METHODS[name].levels))
def test_every_method_for_graphs_takes_smiles(name):
    settings = {"pcl": {"method.queue": 8, "method.clusters": [2]}, "moco": {"method.queue": 8}}.get(name)
    z = GraphEmbedder(name, **SMALL | {"epochs": 1}, settings=settings).fit_transform(SMILES)
    assert z.shape == (10, 16) and np.isfinite(z).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"config": "grafcl"}, "no config 'grafcl'; did you mean 'graphcl'"),
        ({"epochs": 0}, "train.*epochs"),
        ({"settings": {"method.tua": 1}}, "unknown key 'tua'; did you mean 'tau'"),
        ({"settings": "tau"}, "settings must map keys of a config to values.*got 'tau'"),
        ({"features": "colour"}, "unknown features 'colour'"),
        ({"config": "grace"}, "method 'grace' embeds nodes, the data is 8 graphs"),
        (
            {"config": "gae", "settings": {"method.variational": True, "readout": "sum"}},
            "method.variational=true embeds",
        ),
        ({"device": "tpu"}, "train.*device"),
    ],
)
def test_wrong_parameters_are_named(parameters, message):
    with pytest.raises(ValueError, match=message):
        GraphEmbedder(**SMALL | parameters).fit(rings())


def test_smiles_under_a_method_for_nodes_are_refused():
    with pytest.raises(
        ValueError, match=r"config='grace': method 'grace' embeds nodes; for SMILES take one of: .*graphcl"
    ):
        GraphEmbedder("grace").fit(SMILES)


def test_the_same_seed_gives_the_same_and_nothing_global_changes():
    state, threads, environment = torch.get_rng_state(), torch.get_num_threads(), dict(os.environ)
    first = GraphEmbedder(**SMALL).fit_transform(rings())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads and dict(os.environ) == environment
    torch.rand(7)
    np.testing.assert_array_equal(GraphEmbedder(**SMALL).fit_transform(rings()), first)
    assert not np.allclose(GraphEmbedder(**SMALL, seed=1).fit_transform(rings()), first)


def test_training_changes_the_encoder():
    params = GraphEmbedder(**SMALL)
    one, more = (clone(params).set_params(epochs=epochs).fit_transform(rings()) for epochs in (1, 3))
    assert not np.allclose(one, more)


@pytest.mark.parametrize("name", sorted(set(config_names()) & set(METHODS)))
def test_every_method_gives_what_its_own_encode_gives(name, monkeypatch):
    made = []
    build = graphcl.build
    monkeypatch.setattr("graphcl.estimators.build", lambda *given: made.append(build(*given)) or made[-1])
    level = "graph" if load_config(name).readout else "node"
    settings = {"method.queue": 4} if "queue" in type(load_config(name).method).model_fields else {}
    settings |= {"method.clusters": [2, 3]} if name == "pcl" else {}
    molecular = load_config(name).encoder.name.startswith("molecule_")
    X = karate() if level == "node" else SMILES if molecular else rings()
    fitted = (NodeEmbedder if level == "node" else GraphEmbedder)(name, settings=settings, **SMALL).fit(X)
    np.testing.assert_array_equal(fitted.transform(X), graphcl.embed(made[0].method, made[0].data).numpy())


# --- in scikit-learn --------------------------------------------------------------------------------------------------


def test_a_search_over_a_pipeline():
    y = [0, 1] * (len(SMILES) // 2)
    search = GridSearchCV(
        make_pipeline(GraphEmbedder(**SMALL), LogisticRegression()),
        {"graphembedder__hidden": np.array([8, 16]), "graphembedder__settings": [None, {"method.tau": 0.5}]},
        cv=2,
        error_score="raise",
    )
    for X in (SMILES, np.array(SMILES, dtype=object)):
        search.fit(X, y)
        assert search.predict(X).shape == (len(SMILES),)
    assert 0 <= search.score(SMILES, y) <= 1


def test_clone_keeps_the_parameters_and_forgets_the_rest(molecules):
    copied = clone(molecules)
    assert copied.get_params() == molecules.get_params()
    with pytest.raises(NotFittedError):
        copied.transform(SMILES)


def test_output_columns_are_counted_and_named(molecules):
    assert molecules.n_features_out_ == 16 == len(molecules.get_feature_names_out())
    table = clone(molecules).set_output(transform="pandas").fit_transform(SMILES)
    assert list(table.columns[:2]) == ["graphembedder0", "graphembedder1"]


# --- pretrained, saved ------------------------------------------------------------------------------------------------


def test_saved_is_loaded_to_the_bit(molecules, nodes, tmp_path):
    for name, fitted, X in (("graphs", molecules, SMILES), ("nodes", nodes, karate())):
        fitted.save(tmp_path / name)
        loaded = type(fitted).load(tmp_path / name)
        assert loaded.get_params() == fitted.get_params()
        np.testing.assert_array_equal(loaded.transform(X), fitted.transform(X))
        assert {path.name for path in (tmp_path / name).iterdir()} == {
            "README.md",
            "config.json",
            "estimator.json",
            "model.safetensors",
        }


def test_numbers_of_a_search_are_saved_as_numbers(tmp_path):
    GraphEmbedder(**SMALL | {"hidden": np.int64(8)}).fit(rings()).save(tmp_path / "a")
    assert GraphEmbedder.load(tmp_path / "a").hidden == 8


def test_scaled_rows_and_degrees_outlive_saving(tmp_path):
    scaled = NodeEmbedder("grace", **SMALL, settings={"encoder.out": 8})
    for place, X in enumerate((as_data(rings()[5]), nx.star_graph(5))):
        want = scaled.fit_transform(X)
        assert (scaled.scaled_, scaled.features_) == [(True, "given"), (False, "degree")][place]
        scaled.save(tmp_path / str(place))
        np.testing.assert_array_equal(NodeEmbedder.load(tmp_path / str(place)).transform(X), want)


def test_pretrained_weights_stay_in_a_pipeline(molecules, tmp_path):
    molecules.save(tmp_path / "weights")
    want = molecules.transform(SMILES)
    ready = GraphEmbedder.from_pretrained(tmp_path / "weights", device="cpu")
    np.testing.assert_array_equal(ready.transform(SMILES), want)
    np.testing.assert_array_equal(clone(ready).fit_transform(SMILES), want)
    datas = list(molecules_to_store(SMILES)[0])
    np.testing.assert_array_equal(ready.transform(datas), want)
    ready.save(tmp_path / "again")
    np.testing.assert_array_equal(GraphEmbedder.load(tmp_path / "again").transform(SMILES), want)


def test_what_cannot_be_loaded_or_saved_is_named(molecules, nodes, tmp_path):
    with pytest.raises(NotFittedError):
        GraphEmbedder().save(tmp_path / "no")
    molecules.save(tmp_path / "graphs")
    nodes.save(tmp_path / "nodes")
    with pytest.raises(ValueError, match="graphs is there already; save to a new folder"):
        molecules.save(tmp_path / "graphs")
    with pytest.raises(ValueError, match=r"it is a GraphEmbedder, not a NodeEmbedder; load it with GraphEmbedder.load"):
        NodeEmbedder.load(tmp_path / "graphs")
    with pytest.raises(ValueError, match="no estimator of graphcl can be read there"):
        GraphEmbedder.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"'.*nodes' embeds nodes; it is for the estimators of nodes"):
        GraphEmbedder.from_pretrained(tmp_path / "nodes")
    with pytest.raises(ValueError, match=r"'.*graphs' embeds graphs; it is for the estimators of graphs"):
        NodeEmbedder.from_pretrained(tmp_path / "graphs")
    with pytest.raises(ValueError, match="is an encoder as it is, but settings, epochs say how"):
        GraphEmbedder(pretrained=tmp_path / "graphs", epochs=3, settings={"method.tau": 1}).fit(SMILES)
    with pytest.raises(ValueError, match="device must be auto, cpu or cuda, got 'tpu'"):
        GraphEmbedder.from_pretrained(tmp_path / "graphs", device="tpu").transform(SMILES)
    with pytest.raises(ValueError, match="no pretrained encoder 'nothing'"):
        GraphEmbedder.from_pretrained("nothing")
    damaged = json.loads((tmp_path / "graphs/estimator.json").read_text(encoding="utf-8"))
    damaged["params"]["colour"] = "red"
    (tmp_path / "graphs/estimator.json").write_text(json.dumps(damaged), encoding="utf-8")
    with pytest.raises(ValueError, match="colour"):
        GraphEmbedder.load(tmp_path / "graphs")


# --- the nodes of one graph -------------------------------------------------------------------------------------------


def test_nodes_come_in_the_order_of_the_graph(nodes):
    z = nodes.transform(karate())
    assert z.shape == (34, 16) and nodes.n_features_out_ == 16 and z.dtype == np.float32
    backwards = nx.Graph()
    backwards.add_nodes_from(reversed(list(karate())))
    backwards.add_edges_from(karate().edges(data=True))
    np.testing.assert_allclose(nodes.transform(backwards), z[::-1], atol=1e-5)


def test_labels_in_a_graph_are_no_features():
    graph, labelled = rings()[0], rings()[0]
    nx.set_node_attributes(labelled, dict.fromkeys(labelled, 1), "y")
    want = NodeEmbedder(**SMALL).fit_transform(graph)
    np.testing.assert_array_equal(NodeEmbedder(**SMALL).fit_transform(labelled), want)
    assert labelled.nodes[0]["y"] == 1, "the input was written to"
    data = as_data(rings()[0], y=torch.arange(3), train_mask=torch.ones(3, dtype=torch.bool))
    np.testing.assert_allclose(NodeEmbedder(**SMALL).fit_transform(data), want, atol=1e-5)


def test_numbered_nodes_of_a_set_graph():
    whole = NodeEmbedder(**SMALL).fit_transform(karate())
    fitted = NodeEmbedder(graph=karate(), **SMALL).fit(np.arange(4))
    np.testing.assert_array_equal(fitted.transform([5, 0, 5]), whole[[5, 0, 5]])
    y = np.array([node % 2 for node in karate()])
    search = GridSearchCV(
        make_pipeline(fitted, LogisticRegression()), {"nodeembedder__epochs": [1, 2]}, cv=2, error_score="raise"
    )
    assert search.fit(np.arange(34), y).predict(np.arange(34)).shape == (34,)


@pytest.mark.parametrize(
    ("graph", "X", "message"),
    [
        (None, [karate()], "X must be one graph, a PyG Data or a NetworkX graph, got a list"),
        (None, "CCO", "got the text 'CCO'"),
        (None, Batch.from_data_list([as_data(rings()[0])]), "got a DataBatch"),
        ("karate", [0], "X must be one graph.*got the text 'karate'"),
        (karate(), [0, 34], "X goes from 0 to 34, nodes are numbered 0 to 33"),
        (karate(), [-1], "X goes from -1 to -1"),
        (karate(), [0.5], r"X must be node numbers \[n\], integers from 0, got float64 of shape \(1,\)"),
        (karate(), karate(), "`graph` is set, so X must be node numbers.*got Graph"),
        (karate(), np.zeros((2, 2), dtype=int), r"got int64 of shape \(2, 2\)"),
        (karate(), np.array([], dtype=int), r"X is empty \(0 samples\)"),
    ],
)
def test_what_is_no_graph_or_node_is_refused(graph, X, message):
    with pytest.raises(ValueError, match=message):
        NodeEmbedder(graph=graph, **SMALL).fit(X)


def test_exported_weights_read_features_as_they_were_trained(tmp_path):
    config = load_config("graphcl", ["data.features=onehot_degree", "encoder.hidden=8", "train.max_steps=1"])
    graphs = [Data(edge_index=as_data(graph).edge_index, num_nodes=len(graph)) for graph in rings(range(3, 9))]
    run = graphcl.build(config, graphs)
    made = {"config": config.encoder, "readout": "sum", "in_dim": run.data.num_features, "features": "onehot_degree"}
    card = graphcl.ModelCard(about="small", method="graphcl", data="rings")
    folder = graphcl.save_pretrained(tmp_path / "ready", run.method.encoder, card=card, half=False, **made)
    found = GraphEmbedder.from_pretrained(folder).transform(graphs)
    np.testing.assert_array_equal(found, graphcl.embed(run.method, run.data).numpy())
    GraphEmbedder.from_pretrained(folder).save(tmp_path / "again")
    assert graphcl.load_pretrained(tmp_path / "again").config.features == "onehot_degree"


# --- the example ------------------------------------------------------------------------------------------------------


def test_the_example_runs(molecules, tmp_path, capsys):
    example = runpy.run_path(str(Path(__file__).parent.parent / "examples/estimators.py"))
    assert 0 <= example["main"](["--molecules", "60", "--epochs", "1"]) <= 1
    molecules.save(tmp_path / "weights")
    assert 0 <= example["main"](["--molecules", "60", "--pretrained", str(tmp_path / "weights")]) <= 1
    assert capsys.readouterr().out.count("ROC-AUC on 30 molecules") == 2
