"""Labels and attributes of one's own data that could be taken for something else than they are."""

import warnings

import networkx as nx
import numpy as np
import pytest
import torch

from graphcl.data.files import from_networkx
from graphcl.data.sources import load_data

pytestmark = pytest.mark.usefixtures("no_network_and_an_own_cache")

HEAD = (
    '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
    '<key id="w" for="node" attr.name="w" attr.type="double"><default>7.5</default></key>'
    '<key id="l" for="edge" attr.name="l" attr.type="double"><default>2.0</default></key>'
    '<graph edgedefault="undirected">'
)


def graph_of(**attributes):
    graph = nx.path_graph(3)
    for key, value in attributes.items():
        nx.set_node_attributes(graph, value, key)
    return graph


def folder_of(tmp_path, **files):
    for name, text in files.items():
        (tmp_path / f"{name}.csv").write_text(text)
    return tmp_path


# --- attributes -------------------------------------------------------------------------------------------------------


def test_graphs_of_other_attributes_are_no_set(tmp_path):
    for name, other in (("a", "height"), ("b", "weight")):
        nx.write_graphml(graph_of(age=1.0, **{other: 2.0}), tmp_path / f"{name}.graphml")
    with pytest.raises(
        ValueError,
        match=r"b.graphml has the node attributes \['age', 'weight'\], but .*a.graphml has \['age', 'height'\]",
    ):
        load_data(tmp_path)
    first, second, bare = graph_of(a=1.0), graph_of(a=1.0), nx.Graph()
    nx.set_edge_attributes(first, 5.0, "length")
    nx.set_edge_attributes(second, 7.0, "cost")
    bare.add_node(0, a=1.0)
    with pytest.raises(ValueError, match=r"graph 2 has the edge attributes \['cost'\], but .*graph 0 has \['length'\]"):
        from_networkx([first, bare, second])
    nx.set_node_attributes(second, "x", "a")  # what is text in one and a number in the other
    with (
        pytest.warns(UserWarning, match=r"\['a'\] are no numbers"),
        pytest.raises(ValueError, match=r"node attributes \[\]"),
    ):
        from_networkx([first, second])


def test_a_graph_without_edges_has_no_other_attributes():
    first, bare = graph_of(a=1.0), nx.Graph()
    nx.set_edge_attributes(first, 5.0, "length")
    bare.add_node(0, a=1.0)
    assert from_networkx([first, bare]).edge_attr.tolist() == [[5.0]] * 4


def test_defaults_of_graphml_are_values(tmp_path):
    body = '<node id="a"><data key="w">1.5</data></node><node id="b"/><edge source="a" target="b"/></graph></graphml>'
    (tmp_path / "g.graphml").write_text(HEAD + body)
    data = load_data(tmp_path / "g.graphml")
    assert data.x.tolist() == [[1.5], [7.5]] and data.edge_attr.tolist() == [[2.0], [2.0]]


def test_a_drawing_is_told(tmp_path):
    places = {node: {"x": 0.5 * node, "y": -3.25 * node} for node in range(3)}
    graph = nx.path_graph(3)
    nx.set_node_attributes(graph, places)
    nx.write_graphml(graph, tmp_path / "g.graphml")
    with pytest.warns(UserWarning, match="x and y look like places in a drawing"):
        load_data(tmp_path / "g.graphml")
    nx.set_node_attributes(graph, {node: node % 2 for node in graph}, "y")
    nx.write_graphml(graph, tmp_path / "g.graphml")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_data(tmp_path / "g.graphml").y.tolist() == [0, 1, 0]


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("labels", "y"), [(["-1", "0", "1"], [-1, 0, 1]), (["-1", "no", "yes"], [-1, 0, 1])])
def test_minus_one_is_unknown_aloud(tmp_path, labels, y):
    text = "node,label\n" + "".join(f"{node},{label}\n" for node, label in zip("abc", labels, strict=True))
    with pytest.warns(UserWarning, match=r"1 of 3 labels are -1, which means unknown; if it is a class, write"):
        assert load_data(folder_of(tmp_path, edges="s,t\na,b\nb,c\n", labels=text)).y.tolist() == y


def test_whole_values_are_told_how_classes_are_written(tmp_path):
    folder = folder_of(tmp_path, edges="s,t\na,b\n", labels="node,label\na,1.0\nb,0.0\n")
    with pytest.warns(UserWarning, match="the labels are read as values; write classes as 1, not as 1.0"):
        assert load_data(folder).y.tolist() == [1.0, 0.0]
    folder_of(tmp_path, labels="node,label\na,-1.0\nb,0.5\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_data(folder).y.tolist() == [-1.0, 0.5]


@pytest.mark.parametrize("labels", [["1_1", "11", "1_2"], ["9007199254740993", "9007199254740992", "1"]])
def test_names_that_python_reads_as_one_number_stay_apart(tmp_path, labels):
    text = "node,label\n" + "".join(f"{node},{label}\n" for node, label in zip("abc", labels, strict=True))
    y = load_data(folder_of(tmp_path, edges="s,t\na,b\nb,c\n", labels=text)).y
    assert y.tolist() == [sorted(labels).index(label) for label in labels]
    folder_of(tmp_path, features="node,f\na,1_0\nb,2\nc,3\n")
    with pytest.raises(ValueError, match=r"features.csv: line 2: '1_0' is not a number"):
        load_data(tmp_path)


@pytest.mark.parametrize("table", ["edges", "features", "labels"])
def test_a_quote_that_is_not_closed_takes_no_lines(tmp_path, table):
    files = {"edges": "s,t\na,b\nb,c\n", "features": "n,f\na,1\nb,2\nc,3\n", "labels": "n,y\na,0\nb,1\nc,0\n"}
    files[table] = files[table].replace("\nb,", '\nb,"')
    with pytest.raises(ValueError, match=rf"{table}.csv: not readable as CSV: .*; look for a quote that is not closed"):
        load_data(folder_of(tmp_path, **files))


@pytest.mark.parametrize("y", [[0, 1], torch.tensor(2), np.array([1])])
def test_labels_that_are_no_single_number_are_refused(y):
    graphs = [nx.path_graph(2), nx.path_graph(3)]
    graphs[0].graph["y"], graphs[1].graph["y"] = 0, y
    with pytest.raises(
        ValueError, match=r"graph 1: its attribute y is .*; it must be one number or text, else give y="
    ):
        from_networkx(graphs)
    graphs[1].graph["y"] = np.int64(3)
    assert from_networkx(graphs).y.tolist() == [0, 3]


# --- names ------------------------------------------------------------------------------------------------------------


def test_what_lies_here_under_a_known_name_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "cora"
    folder.mkdir()
    folder_of(folder, edges="s,t\na,b\n")
    with pytest.warns(UserWarning, match=r"cora is read as the known set; what lies here under that name is ./cora"):
        assert load_data("cora").num_nodes == 2708
    assert load_data("./cora").num_nodes == 2


def test_made_features_of_a_graph_that_has_its_own_are_told():
    with pytest.warns(UserWarning, match="cora: data.features=ones replaces the 1433 features of its nodes"):
        assert load_data("cora", features="ones").num_features == 1


def test_a_header_of_smi_is_no_molecule(tmp_path):
    for header in ("smiles", "SMILES name", "SMILES_STRING ID", "smiles,name"):
        (tmp_path / "a.smi").write_text(f"{header}\nCC\nCCO ethanol\n")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(load_data(tmp_path / "a.smi")) == 2
