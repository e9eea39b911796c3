import warnings
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from test_sources import equal
from torch_geometric.data import Data

from graphcl import build, load_config
from graphcl.data.features import normalize, prepared, with_features
from graphcl.data.files import from_networkx
from graphcl.data.sources import load_data
from graphcl.data.store import GraphStore

pytestmark = pytest.mark.usefixtures("no_network_and_an_own_cache")


# --- graphs -----------------------------------------------------------------------------------------------------------


def drawn(n: int, seed: int, directed: bool = False) -> nx.Graph:
    graph = nx.gnp_random_graph(n, 0.5, seed=seed, directed=directed)
    for node in graph.nodes:
        graph.nodes[node].update(b=float(node), a=node * 2, y=node % 3)
    for u, v in graph.edges:
        graph.edges[u, v]["w"] = float(u + v)
    return graph


def same_as_networkx(data: Data, graph: nx.Graph) -> None:
    place = {node: i for i, node in enumerate(graph.nodes)}
    ends = {(place[u], place[v]) for u, v in graph.edges}
    if not graph.is_directed():
        ends |= {(v, u) for u, v in ends}
    assert {tuple(pair) for pair in data.edge_index.t().tolist()} == ends and data.num_edges == len(ends)
    for (u, v), (w,) in zip(data.edge_index.t().tolist(), data.edge_attr.tolist(), strict=True):
        assert w == u + v


@pytest.mark.parametrize("directed", [False, True])
def test_networkx(directed):
    graphs = [drawn(n, n, directed) for n in (1, 4, 7)]
    graphs[1].add_edge(2, 2, w=4.0)
    graphs[0].add_edge(0, 0, w=0.0)
    with pytest.warns(UserWarning, match=r"graph 0: the node attribute y .* left out of the features \(in 3 graphs\)"):
        store = from_networkx(graphs, y=[1, 0, -1])
    assert store.y.tolist() == [1, 0, -1]
    for data, graph in zip(store, graphs, strict=True):
        same_as_networkx(data, graph)
        assert data.x.tolist() == [[node * 2, node] for node in graph.nodes]  # a, b


def test_networkx_labels_of_the_graphs():
    graphs = [nx.path_graph(2), nx.path_graph(3), nx.path_graph(4)]
    graphs[0].graph["y"], graphs[2].graph["y"] = 2, 0
    assert from_networkx(graphs).y.tolist() == [2, -1, 0]
    assert from_networkx([nx.path_graph(2)]).y is None
    graphs[0].graph["y"] = 0.5
    assert from_networkx(graphs).y.isnan().tolist() == [False, True, False]


def test_networkx_mistakes():
    good, bad = nx.path_graph(3), nx.path_graph(3)
    nx.set_node_attributes(good, 1.0, "a")
    nx.set_node_attributes(bad, {0: 1.0, 2: 1.0}, "a")
    with pytest.raises(ValueError, match="graph 1: node 1 has no attribute 'a', others have"):
        from_networkx([good, bad])
    bad.nodes[1]["a"] = float("inf")
    with pytest.raises(ValueError, match="graph 1: node 1: attribute 'a' is inf; features must be finite"):
        from_networkx([good, bad])
    with pytest.raises(ValueError, match="graph 0: the graph has no nodes"):
        from_networkx([nx.Graph()])
    with pytest.raises(ValueError, match="graph 0 is a int"):
        from_networkx([3])
    with pytest.raises(ValueError, match="2 labels for 1 graphs"):
        from_networkx([good], y=[1, 2])
    with pytest.raises(ValueError, match=r"graph 1 has the node attributes \['a', 'b'\], but .*graph 0 has \['a'\]"):
        from_networkx([good, drawn(3, 0)])


def test_text_attributes_are_left_out_aloud():
    graph = nx.path_graph(2)
    nx.set_node_attributes(graph, "red", "colour")
    nx.set_node_attributes(graph, 1.0, "a")
    with pytest.warns(UserWarning, match=r"attributes \['colour'\] are no numbers and are left out"):
        assert from_networkx([graph]).num_features == 1


def test_repeated_edges_are_merged_aloud():
    graph = nx.MultiGraph([(0, 1), (0, 1), (1, 2)])
    with pytest.warns(UserWarning, match="2 repeated edges are merged"):
        assert len(from_networkx([graph]).src) == 4


def test_a_folder_of_graphml(tmp_path):
    graphs = {"b": drawn(4, 1), "a": drawn(5, 2, directed=True), "c": drawn(3, 3)}
    for name, graph in graphs.items():
        for node in graph:
            del graph.nodes[node]["y"]
        graph.graph["y"] = len(name)
        nx.write_graphml(graph, tmp_path / f"{name}.graphml")
    store = load_data(tmp_path)
    assert store.names == ["a", "b", "c"] and store.y.tolist() == [1, 1, 1]
    for name, data in zip(store.names, store, strict=True):
        same_as_networkx(data, graphs[name])
    (tmp_path / "labels.csv").write_text("file,label\nc.graphml,spam\na,ham\n")
    assert load_data(tmp_path).y.tolist() == [0, -1, 1]
    (tmp_path / "labels.csv").write_text("file,label\nz,spam\n")
    with pytest.raises(ValueError, match=r"labels\.csv: line 2: 'z' is not in the data"):
        load_data(tmp_path)
    (tmp_path / "labels.csv").write_text("file,label\na.graphml,spam\na,ham\n")
    with pytest.raises(ValueError, match=r"labels\.csv: line 3: graph 'a' is listed twice, first on line 2; keep one"):
        load_data(tmp_path)


def test_a_label_of_the_nodes_never_becomes_a_feature(tmp_path):
    graph = nx.path_graph(3)
    for node in graph:
        graph.nodes[node].update(a=float(node), y=node % 2)
    with pytest.warns(UserWarning, match="graph 0: the node attribute y is taken for a label and left out"):
        store = from_networkx([graph])
    assert store.x.tolist() == [[0.0], [1.0], [2.0]]
    nx.write_graphml(graph, tmp_path / "one.graphml")
    with pytest.warns(UserWarning, match="one.graphml: the node attribute y is taken for a label"):
        assert load_data(tmp_path).x.tolist() == [[0.0], [1.0], [2.0]]


def test_features_that_the_config_replaces_are_told(tmp_path):
    graph = nx.path_graph(3)
    nx.set_node_attributes(graph, {0: 1.5, 1: 2.5, 2: 3.5}, "a")
    for name in ("one", "two"):
        nx.write_graphml(graph, tmp_path / f"{name}.graphml")
    with pytest.warns(
        UserWarning, match="data.features=ones replaces the 1 features of its nodes; data.features=given"
    ):
        store = load_data(tmp_path, features="ones")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_data(tmp_path).x.tolist() == [[1.5], [2.5], [3.5]] * 2
        build(load_config("graphcl"), store)  # which has ones already
    with pytest.warns(
        UserWarning, match="data.features=ones replaces the 1 features of the nodes; data.features=given"
    ):
        build(load_config("graphcl"), load_data(tmp_path))


def test_made_features_keep_their_size_and_a_single_one_is_told():
    star = Data(edge_index=torch.tensor([[0, 0, 1, 2], [1, 2, 0, 0]]), num_nodes=3)
    assert prepared(star, "degree", True).x.tolist() == [[2.0], [1.0], [1.0]]
    run = build(load_config("dgi", ["data.features=degree", "data.split=random"]), star)
    assert run.config.data.normalize and run.data.x.tolist() == [[2.0], [1.0], [1.0]]
    star.x = torch.tensor([[2.0], [-1.0], [7.0]])
    with pytest.warns(UserWarning, match="data.normalize makes the one feature of every node 1 or -1"):
        assert prepared(star, "given", True).x.tolist() == [[1.0], [-1.0], [1.0]]


def test_one_graphml_is_one_graph(tmp_path):
    graph = drawn(6, 1)
    nx.write_graphml(graph, tmp_path / "g.graphml")
    data = load_data(tmp_path / "g.graphml")
    same_as_networkx(data, graph)
    assert data.x.tolist() == [[node * 2, node] for node in graph.nodes]
    assert data.y.tolist() == [node % 3 for node in graph.nodes] and data.names == [str(node) for node in graph.nodes]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<graphml>",
        "<html></html>",
        '<!DOCTYPE a [<!ENTITY b "c">]><graphml/>',
        '<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph><node id="a"><data key="k">1</data></node>'
        "</graph></graphml>",
    ],
)
def test_broken_graphml_names_its_file(tmp_path, text):
    (tmp_path / "g.graphml").write_text(text)
    with pytest.raises(ValueError, match=r"g\.graphml: not readable as GraphML"):
        load_data(tmp_path / "g.graphml")


def test_graphml_of_several_graphs_is_refused(tmp_path):
    nested = '<node id="a"><graph><node id="b"/></graph></node>'
    named = '<?xml version="1.0" encoding="utf-8"?><graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
    for head in (named, "<graphml>"):
        (tmp_path / "g.graphml").write_text(f"{head}<graph>{nested}</graph></graphml>")
        assert load_data(tmp_path / "g.graphml").num_nodes == 1
        (tmp_path / "g.graphml").write_text(f"{head}<graph>{nested}</graph><graph/></graphml>")
        for path in (tmp_path, tmp_path / "g.graphml"):
            with pytest.raises(ValueError, match=r"g\.graphml: .* it has 2 graphs; give each a file of its own"):
                load_data(path)


PLAIN = {
    "edge_index": np.array([[0, 1, 2, 0], [1, 0, 2, 1]]),
    "x": np.arange(8.0).reshape(4, 2),
    "y": np.array([0, 1, -1, 1]),
    "train_mask": np.array([1, 0, 0, 0], bool),
}


def npz(tmp_path: Path, **changed) -> Path:
    arrays = {key: value for key, value in (PLAIN | changed).items() if value is not None}
    np.savez(tmp_path / "g.npz", **arrays)
    return tmp_path / "g.npz"


def test_npz(tmp_path):
    with pytest.warns(UserWarning, match="1 repeated edges are merged"):
        data = load_data(npz(tmp_path))
    assert data.edge_index.tolist() == [[0, 1, 2], [1, 0, 2]]
    assert data.x.dtype == torch.float32 and data.y.tolist() == [0, 1, -1, 1] and data.train_mask.sum() == 1
    ends = {"edge_index": None, "src": np.array([0, 1]), "dst": np.array([1, 3])}
    data = load_data(npz(tmp_path, **ends, x=np.ones((4, 1), np.uint8), edge_attr=np.array([[5.0], [6.0]])))
    assert data.edge_index.tolist() == [[0, 1], [1, 3]] and data.edge_attr.tolist() == [[5], [6]]
    data = load_data(npz(tmp_path, **ends, x=None, y=None, train_mask=None))
    assert data.num_nodes == 4 and data.num_features == 0 and data.y is None
    for nodes in (5, 5.0, np.uint8(5)):
        assert load_data(npz(tmp_path, x=None, y=None, train_mask=None, **ends, num_nodes=nodes)).num_nodes == 5
    data = load_data(npz(tmp_path, edge_index=np.zeros((2, 0), int), y=np.array([0.5, np.nan, 1, 2])))
    assert data.num_edges == 0 and data.y.isnan().tolist() == [False, True, False, False]


@pytest.mark.filterwarnings("ignore:.*repeated edges are merged")
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"edge_index": np.array([[0], [4]])}, r"edge 0 is \[0, 4\], but nodes are numbered 0 to 3"),
        ({"edge_index": np.array([[0], [-1]])}, r"edge 0 is \[0, -1\]"),
        ({"edge_index": np.zeros((3, 2), int)}, r"edge_index must be integers \[2, E\]"),
        ({"edge_index": np.zeros((2, 2))}, r"edge_index must be integers \[2, E\] .*got float64"),
        ({"edge_index": None}, "edge_index must be integers .*got nothing"),
        ({"x": np.array([[1.0], [np.nan], [0], [0]])}, r"x\[1, 0\] is nan; features must be finite"),
        ({"x": np.array([[1.0], [0], [1e300], [0]])}, r"x\[2, 0\] is inf"),
        ({"x": np.ones(4)}, r"x must be numbers \[rows, columns\]"),
        ({"x": np.array([["a"]] * 4)}, r"x must be numbers"),
        ({"y": np.zeros(3, int)}, "the arrays disagree on the number of nodes: {'x': 4, 'y': 3"),
        ({"y": np.array([0, -2, 0, 0])}, "y has the class -2; classes count from 0, -1 is unknown"),
        ({"train_mask": np.ones(4)}, "train_mask must be bool"),
        ({"z": np.ones(4)}, r"unknown arrays \['z'\]"),
        ({"x": np.array([{}] * 4)}, "not readable as plain arrays"),
        ({"edge_attr": np.ones((3, 1))}, "edge_attr has 3 rows for 4 edges"),
        ({"num_nodes": np.array([4, 5])}, r"g\.npz: num_nodes must be one whole number, got int64 \(2,\)"),
        ({"num_nodes": 4.7}, r"g\.npz: num_nodes must be one whole number, got 4\.7; leave it out if x or y has a row"),
        ({"num_nodes": np.nan}, r"g\.npz: num_nodes must be one whole number, got nan"),
        ({"num_nodes": np.inf}, r"g\.npz: num_nodes must be one whole number, got inf"),
        ({"num_nodes": -1}, r"g\.npz: num_nodes must be one whole number, got -1"),
        ({"num_nodes": "x"}, r"g\.npz: num_nodes must be one whole number, got 'x'"),
        ({"num_nodes": 5}, "the arrays disagree on the number of nodes: {'x': 4, .*'num_nodes': 5}"),
        ({"y": 3}, r"g\.npz: y is the single value 3; give one a node"),
    ],
)
def test_npz_mistakes(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        load_data(npz(tmp_path, **changed))


def test_a_file_that_is_no_npz(tmp_path):
    with (tmp_path / "array.npy").open("wb") as file:
        np.save(file, np.ones(3))
    for content in (b"", b"text", b"PK\x03\x04 and so on", (tmp_path / "array.npy").read_bytes()):
        (tmp_path / "g.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"g\.npz: not readable as plain arrays"):
            load_data(tmp_path / "g.npz")


CSV = {
    "edges.csv": "a,b,weight\nann,bob,2\nbob,cy,3\ncy,cy,4\n",
    "features.csv": "node,u,v\ncy,1,2\nann,3,4\nbob,5,6\ndee,7,8\n",
    "labels.csv": "node,label\nann,red\nbob,blue\ndee,\n",
}


def csv_folder(tmp_path: Path, **changed) -> Path:
    for name, text in (CSV | {f"{key}.csv": text for key, text in changed.items()}).items():
        if text is not None:
            (tmp_path / name).write_text(text, encoding="utf-8-sig")
    return tmp_path


def test_csv_edge_list(tmp_path):
    data = load_data(csv_folder(tmp_path))
    assert data.names == ["cy", "ann", "bob", "dee"] and data.x[:, 0].tolist() == [1, 3, 5, 7]
    assert data.edge_index.tolist() == [[0, 0, 1, 2, 2], [0, 2, 2, 0, 1]]
    assert data.edge_attr.tolist() == [[4], [3], [2], [3], [2]]
    assert data.y.tolist() == [-1, 1, 0, -1]  # blue, red


@pytest.mark.parametrize("unknown", ["", "NA", "nan", "NaN", "None", "none", "N/A", "n/a", "null", "NULL"])
def test_labels_that_are_missing_are_no_class(tmp_path, unknown):
    for first, second, y in (("red", "blue", [-1, 1, 0, -1]), ("1", "0", [-1, 1, 0, -1])):
        labels = f"node,label\nann,{first}\nbob,{second}\ndee,{unknown}\n"
        assert load_data(csv_folder(tmp_path, labels=labels)).y.tolist() == y
    labels = f"node,label\nann,0.5\nbob,2\ndee,{unknown}\n"
    y = load_data(csv_folder(tmp_path, labels=labels)).y
    assert y.isnan().tolist() == [True, False, False, True]
    graphs = [nx.path_graph(2) for _ in range(3)]
    for graph, label in zip(graphs, ("spam", unknown, "ham"), strict=True):
        graph.graph["y"] = label
    assert from_networkx(graphs).y.tolist() == [1, -1, 0]


def test_labels_that_are_missing_in_graphml(tmp_path):
    graph = nx.path_graph(3)
    nx.set_node_attributes(graph, {0: "red", 1: "NA", 2: "blue"}, "y")
    nx.write_graphml(graph, tmp_path / "g.graphml")
    with pytest.warns(UserWarning, match="attribute y"):
        (tmp_path / "labels.csv").write_text("file,label\ng,null\n")
        assert load_data(tmp_path).y.tolist() == [-1]
    assert load_data(tmp_path / "g.graphml").y.tolist() == [1, -1, 0]


def test_csv_without_features(tmp_path):
    data = load_data(csv_folder(tmp_path, features=None, labels="node,label\nzoe,4\nann,\n"))
    assert data.names == ["zoe", "ann", "bob", "cy"] and data.num_features == 0 and data.y.tolist() == [4, -1, -1, -1]


def test_csv_edges_written_both_ways_keep_the_first_ones_attributes(tmp_path):
    edges = "a,b,w\n2,1,3\n1,2,5\n3,3,1\n1,3,7\n3,3,2\n"
    with pytest.warns(UserWarning, match="3 repeated edges are merged"):
        data = load_data(csv_folder(tmp_path, features=None, labels=None, edges=edges))
    assert data.names == ["2", "1", "3"] and data.edge_index.tolist() == [[0, 1, 1, 2, 2], [1, 0, 2, 1, 2]]
    assert data.edge_attr.tolist() == [[3], [3], [7], [7], [1]]


def test_csv_of_edges_alone(tmp_path):
    data = load_data(csv_folder(tmp_path, features=None, labels=None, edges="a,b\nx,y\n"))
    assert data.num_nodes == 2 and data.y is None and data.edge_attr is None


def test_csv_without_an_edge(tmp_path):
    assert load_data(csv_folder(tmp_path, edges="a,b\n")).num_edges == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"edges": "a,b\nann,eve\n"}, r"edges\.csv: line 2: node 'eve' is not in features\.csv"),
        ({"edges": "a,b\nann,bob,1\n"}, r"edges\.csv: line 2: 3 columns, the header has 2"),
        ({"edges": "a,b,w\nann,bob,big\n"}, r"edges\.csv: line 2: 'big' is not a number"),
        ({"edges": "a\nann\n"}, r"edges\.csv: 1 columns, at least 2 are needed"),
        ({"edges": ""}, r"edges\.csv: empty"),
        (
            {"features": "node,u\nann,1\nann,2\n"},
            r"features\.csv: line 3: node 'ann' is listed twice, first on line 2; keep one",
        ),
        (
            {"labels": "node,label\nbob,0\nann,0\n\nann,1\n"},
            r"labels\.csv: line 5: node 'ann' is listed twice, first on line 3; keep one",
        ),
        (
            {"features": None, "labels": "node,label\nann,0\nann,0\n"},
            r"labels\.csv: line 3: node 'ann' is listed twice, first on line 2",
        ),
        ({"features": "node,u\nann,1\nbob,nan\ncy,1\n"}, r"features\.csv: line 3: 'nan' is not finite"),
        ({"features": "node,u\nann,1\nbob,-inf\ncy,1\n"}, r"features\.csv: line 3: '-inf' is not finite"),
        ({"labels": "node,label\neve,1\n"}, r"labels\.csv: line 2: 'eve' is not in the data"),
        ({"labels": "node,label\nann,-3\n"}, r"labels\.csv has the class -3"),
    ],
)
def test_csv_mistakes(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        load_data(csv_folder(tmp_path, **changed))


def test_a_saved_store_is_a_source(tmp_path):
    store = from_networkx([drawn(4, 1)])
    store.save(tmp_path / "s")
    equal(load_data(tmp_path / "s")[0], store[0])
    (tmp_path / "s" / "src.npy").write_bytes(b"")
    with pytest.raises(ValueError, match=r"src\.npy: truncated"):
        load_data(tmp_path / "s")


def test_paths_with_nothing_in_them(tmp_path):
    (tmp_path / "a.dat").write_text("")
    for path in (tmp_path, tmp_path / "a.dat"):
        with pytest.raises(ValueError, match=r"no data that is known here; give a folder of .graphml files"):
            load_data(path)


# --- features ---------------------------------------------------------------------------------------------------------


def test_features_equal_networkx():
    graphs = [nx.gnp_random_graph(n, 0.6, seed=n) for n in (1, 5, 9)]
    store = from_networkx(graphs)
    degrees = [d for graph in graphs for _, d in graph.degree]
    assert with_features(store, "given") is store
    assert with_features(store, "degree").x.tolist() == [[d] for d in degrees]
    assert with_features(store, "ones").x.tolist() == [[1.0]] * len(degrees)
    onehot = with_features(store, "onehot_degree", max_degree=3).x
    assert onehot.argmax(dim=1).tolist() == [min(d, 3) for d in degrees] and bool((onehot.sum(dim=1) == 1).all())
    for graph, data in zip(graphs, with_features(store, "degree"), strict=True):
        one = with_features(Data(edge_index=data.edge_index, num_nodes=len(graph)), "degree")
        assert torch.equal(one.x, data.x)
    assert store.num_features == 0


def test_features_of_a_graph_without_edges():
    data = Data(num_nodes=3, edge_index=torch.zeros(2, 0).long())
    assert with_features(data, "degree").x.tolist() == [[0], [0], [0]] and data.x is None


def test_normalize():
    data = Data(x=torch.tensor([[1.0, 3.0], [0.0, 0.0], [-1.0, 1.0]]), num_nodes=3)
    assert normalize(data).x.tolist() == [[0.25, 0.75], [0, 0], [-0.5, 0.5]] and data.x[0, 0] == 1
    assert torch.allclose(load_data("cora", normalize=True).x.sum(dim=1), torch.ones(2708))
    with pytest.raises(ValueError, match="integer features are categories"):
        normalize(GraphStore.from_graphs([Data(x=torch.ones(2, 1).long())]))


def test_feature_mistakes():
    with pytest.raises(ValueError, match="unknown features 'best'; known: given, ones, degree, onehot_degree"):
        with_features(Data(num_nodes=1), "best")
    with pytest.raises(ValueError, match="max_degree must be at least 1, got 0"):
        with_features(Data(num_nodes=1, edge_index=torch.zeros(2, 0).long()), "onehot_degree", max_degree=0)


def test_labels_of_networkx_graphs_are_checked():
    graphs = [nx.path_graph(2), nx.path_graph(3)]
    with pytest.raises(ValueError, match=r"y must be numbers \[N\] or \[N, T\]"):
        from_networkx(graphs, y=["a", "b"])
    with pytest.raises(ValueError, match="has the class -5; classes count from 0, -1 is unknown"):
        from_networkx(graphs, y=[0, -5])
