"""The scikit-learn predictors: fine-tuning on labelled graphs, or on the labelled nodes of one graph."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch_geometric.data import Data

from graphcl import GraphClassifier, GraphEmbedder, GraphRegressor, NodeClassifier, NodeEmbedder
from graphcl.data.features import normalize

SMILES = ["CCO", "c1ccccc1", "CCN", "c1ccncc1", "CCCC", "Cc1ccccc1", "CC(C)C", "Oc1ccccc1"]
KIND = np.array(["chain", "ring"] * 4)
SMALL = {"hidden": 16, "layers": 2, "epochs": 20, "lr": 0.01, "device": "cpu"}


def blocks(half: int = 12) -> tuple[Data, np.ndarray]:
    """Two cliques with a bridge, features of noise and one column that tells them apart."""
    graph = nx.disjoint_union(nx.complete_graph(half), nx.complete_graph(half))
    graph.add_edge(0, half)
    ends = torch.tensor([*graph.edges, *[(v, u) for u, v in graph.edges]]).T
    y = np.repeat([0, 1], half)
    noise = torch.randn(2 * half, 3, generator=torch.Generator().manual_seed(1))
    return Data(x=torch.cat([noise, torch.from_numpy(y)[:, None].float()], dim=1), edge_index=ends), y


@pytest.fixture(scope="module")
def rings():
    return GraphClassifier(**SMALL).fit(SMILES, KIND)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "gin"
    GraphEmbedder(hidden=16, layers=2, epochs=1, device="cpu").fit(SMILES).save(folder)
    return folder


def test_rings_are_told_from_chains(rings):
    unseen = ["CCCCO", "Clc1ccccc1", "CCC", "Nc1ccncc1"]
    assert list(rings.predict(unseen)) == ["chain", "ring", "chain", "ring"]
    assert list(rings.classes_) == ["chain", "ring"]
    assert rings.score(unseen, ["chain", "ring", "chain", "ring"]) == 1.0


def test_probabilities_are_those_of_the_classes(rings):
    values = rings.predict_proba(SMILES)
    assert values.shape == (8, 2) and values.dtype == np.float32
    np.testing.assert_allclose(values.sum(1), 1, rtol=1e-6)
    np.testing.assert_array_equal(rings.classes_[values.argmax(1)], rings.predict(SMILES))
    np.testing.assert_allclose(rings.predict_proba(SMILES[2:3]), values[2:3], atol=1e-5)


@pytest.mark.parametrize("y", [KIND.astype(object), KIND == "ring", np.where(KIND == "ring", 7, -3), [1.0, 0.0] * 4])
def test_labels_keep_their_type(y):
    fitted = GraphClassifier(**SMALL).fit(SMILES, y)
    np.testing.assert_array_equal(fitted.predict(SMILES), y)
    assert fitted.predict(SMILES).dtype == np.asarray(y).dtype


def test_numbers_are_in_their_own_unit():
    y = np.array([1000.0 + 50 * len(text) for text in SMILES])
    fitted = GraphRegressor(**SMALL | {"epochs": 60}).fit(SMILES, pd.Series(y))
    assert fitted.predict(SMILES).shape == (8,) and fitted.score(SMILES, y) > 0.8
    scaled = GraphRegressor(**SMALL | {"epochs": 60}).fit(SMILES, 3 * y - 7)
    np.testing.assert_allclose(scaled.predict(SMILES), 3 * fitted.predict(SMILES) - 7, rtol=1e-4)


def test_words_are_no_numbers():
    with pytest.raises(ValueError, match=r"y must be numbers, got <U5 .*GraphClassifier is for classes"):
        GraphRegressor(**SMALL).fit(SMILES, KIND)


def test_numbers_beyond_float32_are_refused():
    with pytest.raises(ValueError, match=r"y goes to 3e\+39, beyond float32; give it in another unit"):
        GraphRegressor(**SMALL).fit(SMILES[:4], [0, 1e39, 2e39, 3e39])


def test_one_number_for_all_is_predicted_for_all():
    np.testing.assert_allclose(GraphRegressor(**SMALL).fit(SMILES, [4.0] * 8).predict(SMILES), 4.0, atol=1e-6)


def test_frozen_weights_stay_and_others_move(weights):
    before = GraphEmbedder.from_pretrained(weights, device="cpu").transform(SMILES)
    for frozen in (True, False):
        tuned = GraphClassifier(weights, frozen=frozen, epochs=20, lr=0.05, device="cpu").fit(SMILES, KIND)
        assert tuned.score(SMILES, KIND) == 1.0
        tuned.save(weights.parent / f"tuned-{frozen}")
        after = GraphEmbedder.from_pretrained(weights.parent / f"tuned-{frozen}", device="cpu").transform(SMILES)
        assert np.allclose(after, before) == frozen


def test_the_same_seed_gives_the_same_and_nothing_global_changes(rings):
    state, threads, environment = torch.get_rng_state(), torch.get_num_threads(), dict(os.environ)
    again = clone(rings).fit(SMILES, KIND)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads and dict(os.environ) == environment
    np.testing.assert_array_equal(again.predict_proba(SMILES), rings.predict_proba(SMILES))
    other = clone(rings).set_params(seed=1).fit(SMILES, KIND)
    assert not np.allclose(other.predict_proba(SMILES), rings.predict_proba(SMILES))


def test_a_search_over_a_pipeline(weights):
    search = GridSearchCV(
        make_pipeline(FunctionTransformer(list), GraphClassifier(epochs=2, device="cpu")),
        {"graphclassifier__pretrained": [weights, None], "graphclassifier__lr": np.array([0.01, 0.1])},
        cv=2,
        error_score="raise",
    )
    search.fit(np.array(SMILES, dtype=object), KIND)
    assert search.predict_proba(SMILES).shape == (8, 2)


@pytest.mark.parametrize("number", [GraphClassifier, GraphRegressor])
def test_saved_is_loaded_to_the_bit(number, tmp_path):
    y = KIND.astype(object) if number is GraphClassifier else np.arange(8.0)
    fitted = number(**SMALL).fit(SMILES, y)
    fitted.save(tmp_path / "saved")
    loaded = number.load(tmp_path / "saved")
    assert loaded.get_params() == fitted.get_params()
    np.testing.assert_array_equal(loaded.predict(SMILES), fitted.predict(SMILES))
    if number is GraphClassifier:
        assert loaded.classes_.dtype == fitted.classes_.dtype
        np.testing.assert_array_equal(loaded.predict_proba(SMILES), fitted.predict_proba(SMILES))
    (tmp_path / "saved/head.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=rf"head.safetensors: the head of the {number.__name__} cannot be read there"):
        number.load(tmp_path / "saved")


@pytest.mark.parametrize(
    ("parameters", "X", "y", "message"),
    [
        ({}, SMILES, KIND[:7], "inconsistent numbers of samples"),
        ({}, SMILES, ["chain"] * 8, "y has one class only"),
        ({}, SMILES, None, "GraphClassifier requires y to be passed"),
        ({}, SMILES, np.linspace(0, 1, 8), "continuous"),
        ({}, SMILES, [*range(7), np.nan], r"y\[7\] is nan, which is no label"),
        ({}, [*SMILES[:7], "C1CC"], KIND, r"X\[7\] is no molecule, 'C1CC'"),
        ({}, SMILES, ["a", 1, *KIND[2:]], r"y\[1\] is 1, but y\[0\] is 'a'; labels are text or numbers, not both"),
        (
            {"features": "ogb"},
            SMILES,
            KIND,
            r"features='ogb': SMILES get OGB's features by settings=\{\"encoder.features",
        ),
        ({"epochs": 0}, SMILES, KIND, "train: epochs: input should be greater than 0, got 0"),
        ({"batch_size": None}, SMILES, KIND, "batch_size must be a number > 0, got None"),
        ({"settings": {"method.tua": 1}}, SMILES, KIND, "unknown key 'tua'"),
        (
            {"settings": {"train.weight_decay": 1}},
            SMILES,
            KIND,
            "settings has 'train.weight_decay', which is for pretr",
        ),
        (
            {"settings": {"data.features": "ones"}},
            SMILES,
            KIND,
            "settings has data.features; say features='ones' instead",
        ),
        ({"pretrained": "nothing"}, SMILES, KIND, "is an encoder as it is, but hidden, layers say how to make one"),
        ({"pretrained": "nothing", "hidden": None, "layers": None}, SMILES, KIND, "no pretrained encoder 'nothing'"),
        ({"lr": 1e30}, SMILES, KIND, "output is not finite"),
        ({"encoder": "molecule_gin"}, [nx.path_graph(3)] * 8, KIND, r"reads? x as (two|2) integer columns"),
    ],
)
def test_mistakes_are_named(parameters, X, y, message):
    with pytest.raises(ValueError, match=message):
        GraphClassifier(**SMALL | parameters).fit(X, y)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([None, "a", *KIND[2:]], r"y\[0\] is None, which is no label; leave that row out together with its X"),
        (["a", None, *KIND[2:]], r"y\[1\] is None"),
        (["a", float("nan"), *KIND[2:]], r"y\[1\] is nan, which is no label"),  # and no class "nan"
        (pd.Series(["a", *KIND[1:7], None], dtype="string"), r"y\[7\] is <NA>"),
        (np.array([1, None] * 4, dtype=object), r"y\[1\] is None"),
        (
            np.array(["a", "b", 1, *KIND[3:]], dtype=object),
            r"y\[2\] is 1, but y\[0\] is 'a'; labels are text or numbers",
        ),
    ],
)
def test_the_first_row_without_a_label_is_named(y, message):
    with pytest.raises(ValueError, match=message):
        GraphClassifier(**SMALL).fit(SMILES, y)


def test_numbers_may_not_be_missing_either():
    with pytest.raises(ValueError, match=r"y\[2\] is None, which is no label"):
        GraphRegressor(**SMALL).fit(SMILES, [1.0, 2.0, None, *range(5)])


def test_smiles_need_an_encoder_of_molecules(tmp_path, rings):
    graphs = [nx.cycle_graph(n) for n in range(3, 11)]
    on_graphs = GraphClassifier(**SMALL).fit(graphs, KIND)
    with pytest.raises(ValueError, match="X holds SMILES, but this GraphClassifier was fitted on other graphs"):
        on_graphs.predict(SMILES)
    on_graphs.save(tmp_path / "graphs")
    with pytest.raises(ValueError, match=r"X holds SMILES, but pretrained='.*graphs' is no encoder of molecules"):
        GraphClassifier(tmp_path / "graphs", device="cpu").fit(SMILES, KIND)
    with pytest.raises(NotFittedError):
        clone(rings).predict(SMILES)


# --- nodes ------------------------------------------------------------------------------------------------------------


def test_two_labels_a_block_are_enough():
    data, y = blocks()
    given = np.full(24, -1)
    given[[3, 5, 15, 18]] = y[[3, 5, 15, 18]]
    fitted = NodeClassifier(**SMALL).fit(data, given)
    assert list(fitted.classes_) == [0, 1] and fitted.predict(data).shape == (24,)
    assert fitted.score(data, y) > 0.9 and fitted.score(data, given) == 1.0
    named = NodeClassifier(**SMALL).fit(data, np.array(["-1", "a", "b"])[given + 1])
    np.testing.assert_array_equal(named.predict_proba(data), fitted.predict_proba(data))
    assert list(named.classes_) == ["a", "b"]


def test_rows_are_scaled_as_the_weights_are_used_to(tmp_path):
    data, y = blocks()
    data.x = data.x * 50 + 3
    NodeEmbedder("grace", hidden=8, layers=2, epochs=2, device="cpu", settings={"encoder.out": 8}).fit(data).save(
        tmp_path
    )
    fitted = NodeClassifier(tmp_path, frozen=True, epochs=1, device="cpu").fit(data, y)
    want = NodeEmbedder.from_pretrained(tmp_path, device="cpu").transform(data)
    assert fitted.scaled_ and np.abs(want).max() > 0
    embedder = NodeEmbedder(pretrained=tmp_path, device="cpu").fit(data)
    np.testing.assert_array_equal(embedder.transform(data), want)
    scaled = fitted.model_.encode(normalize(data)).detach().numpy()
    np.testing.assert_allclose(scaled, want, atol=1e-6)
    fitted.save(tmp_path / "head")
    np.testing.assert_array_equal(
        NodeClassifier.load(tmp_path / "head").predict_proba(data), fitted.predict_proba(data)
    )
    raw, own = (
        NodeClassifier(**SMALL, settings={"data.normalize": value}).fit(data, y).predict_proba(data)
        for value in (False, True)
    )
    assert not np.allclose(raw, own)


def test_hidden_labels_are_not_seen():
    data, y = blocks()
    given = np.where(np.arange(24) % 3 == 0, y, -1)
    want = NodeClassifier(**SMALL).fit(data, given).predict_proba(data)
    data.y, data.train_mask = torch.from_numpy(1 - y), torch.ones(24, dtype=torch.bool)
    np.testing.assert_array_equal(NodeClassifier(**SMALL).fit(data, given).predict_proba(data), want)


def test_numbered_nodes_are_the_same_as_minus_one_elsewhere():
    data, y = blocks()
    rows = np.arange(0, 24, 3)
    given = np.full(24, -1)
    given[rows] = y[rows]
    whole = NodeClassifier(**SMALL).fit(data, given)
    numbered = NodeClassifier(graph=data, **SMALL).fit(rows, y[rows])
    np.testing.assert_array_equal(numbered.predict_proba([5, 0]), whole.predict_proba(data)[[5, 0]])
    assert cross_val_score(numbered, np.arange(24), y, cv=2, error_score="raise").mean() > 0.9


def test_node_weights_are_taken_up_and_saved(tmp_path):
    data, y = blocks()
    NodeEmbedder(hidden=16, epochs=2, device="cpu").fit(data).save(tmp_path / "nodes")
    fitted = NodeClassifier(tmp_path / "nodes", frozen=True, epochs=5, device="cpu", graph=data).fit(range(24), y)
    fitted.save(tmp_path / "classifier")
    loaded = NodeClassifier.load(tmp_path / "classifier")
    assert loaded.graph is None and fitted.graph is not None
    np.testing.assert_array_equal(loaded.predict_proba(data), fitted.predict_proba(np.arange(24)))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 1], "y has 2 labels for 24 nodes; give one each, -1 where there is none"),
        ([-1] * 24, "y has no label; a classifier needs two classes"),
        ([0] * 12 + [-1] * 12, "y has one class only"),
    ],
)
def test_labels_that_teach_nothing_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        NodeClassifier(**SMALL).fit(blocks()[0], y)


def test_a_node_without_a_label_has_minus_one():
    data, y = blocks()
    with pytest.raises(ValueError, match=r"y\[3\] is None, which is no label; give -1 where a node has none"):
        NodeClassifier(**SMALL).fit(data, ["a", "b", "a", None, *["b"] * (len(y) - 4)])


@pytest.mark.parametrize("kind", [int, float, str])
@pytest.mark.parametrize("numbered", [False, True])
def test_an_attribute_that_is_the_label_is_told(kind, numbered):
    graph = nx.path_graph(8)
    y = [0, 1, 0, 1, -1, -1, -1, 1]
    for node, label in zip(graph, y, strict=True):
        graph.nodes[node].update(degree=graph.degree[node], group=label if label != -1 else 5, near=label == 1 and 0.99)
    given = np.array(y).astype(kind)
    known = [0, 1, 2, 3, 7]
    short = SMALL | {"epochs": 1}
    told = r"the node attribute 'group' equals the label on all 5 labelled nodes.*call it 'y'"
    with pytest.warns(UserWarning, match=told) as caught:
        if numbered:
            NodeClassifier(graph=graph, **short).fit(known, given[known])
        else:
            NodeClassifier(**short).fit(graph, given)
    assert len(caught) == 1 and caught[0].filename == __file__
    graph.nodes[7]["group"] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NodeClassifier(**short).fit(graph, given)
        NodeClassifier(**short).fit(graph, np.array(["a", "b"])[np.array(y) % 2])  # text equals no number
