import io
import json
import os
import shutil
import tarfile
import warnings
import zipfile
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.datasets import Amazon, Planetoid, TUDataset, WebKB

from graphcl.data import sources
from graphcl.data.features import normalize, with_features
from graphcl.data.files import from_networkx
from graphcl.data.sources import load_data
from graphcl.data.store import GraphStore


@pytest.fixture(autouse=True)
def no_network_and_an_own_cache(monkeypatch, tmp_path):
    """Nothing is read from or written to the developer's own folders, and nothing is downloaded but from files."""
    monkeypatch.setenv("GRAPHCL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GRAPHCL_DATA", raising=False)
    reach = sources.urllib.request.urlopen

    def only_files(url, **options):
        if not url.startswith("file:"):
            raise OSError("no network in this test")
        return reach(url, **options)

    monkeypatch.setattr(sources.urllib.request, "urlopen", only_files)


def equal(ours: Data, theirs: Data) -> None:
    """The edges of many graphs are sorted by target, those of one graph and of PyG's are not."""
    theirs = theirs.clone()
    order = (theirs.edge_index[1] * theirs.num_nodes + theirs.edge_index[0]).argsort(stable=True)
    if not torch.equal(ours.edge_index, theirs.edge_index):
        for key in theirs.edge_attrs():
            theirs[key] = theirs[key].index_select(theirs.__cat_dim__(key, theirs[key]), order)
    for key in theirs.keys():  # noqa: SIM118
        if key == "num_nodes":
            assert ours.num_nodes == theirs.num_nodes
        else:
            assert torch.equal(ours[key], theirs[key]) and ours[key].dtype == theirs[key].dtype, key


# --- bundled ----------------------------------------------------------------------------------------------------------


def test_bundled_sets_need_nothing():
    cora = load_data("Cora")
    assert (cora.num_nodes, cora.num_edges, cora.num_features) == (2708, 10556, 1433)
    assert [int(cora[f"{part}_mask"].sum()) for part in ("train", "val", "test")] == [140, 500, 1000]
    assert cora.is_undirected()
    imdb = load_data("imdb-binary")
    assert (len(imdb), imdb.num_features) == (1000, 0) and torch.bincount(imdb.y).tolist() == [500, 500]
    assert imdb.check() is imdb


def test_bundled_molecules():
    bbbp = load_data("bbbp")
    assert len(bbbp) == len(bbbp.smiles) == 2039 and torch.bincount(bbbp.y).tolist() == [479, 1560]


def test_bundled_files_are_small_and_no_pickles():
    folder = Path(sources.__file__).parent / "bundled"
    for path in folder.iterdir():
        assert path.stat().st_size < 300_000
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                assert all(arrays[key].dtype.kind in "iu" for key in arrays.files)


def copy_raw(root: Path, place: str, target: Path) -> str:
    if not (root / place / "raw").is_dir():
        pytest.skip(f"{place} is not under GRAPHCL_DATA")
    shutil.copytree(root / place / "raw", target / place / "raw", copy_function=shutil.copyfile)
    return str((target / place).parent)


def test_bundled_sets_equal_pygs(graphcl_data, tmp_path):
    equal(load_data("cora"), Planetoid(copy_raw(graphcl_data, "Planetoid/Cora", tmp_path), "Cora")[0])
    pygs = TUDataset(copy_raw(graphcl_data, "TUDataset/IMDB-BINARY", tmp_path), "IMDB-BINARY")
    for ours, theirs in zip(load_data("imdb-binary"), pygs, strict=True):
        equal(ours, theirs)


# --- raw files under GRAPHCL_DATA -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MUTAG", "PROTEINS"])
def test_tu_text_equals_pygs(name, graphcl_data, tmp_path, monkeypatch):
    pygs = TUDataset(copy_raw(graphcl_data, f"TUDataset/{name}", tmp_path), name)
    monkeypatch.setenv("GRAPHCL_DATA", str(graphcl_data))
    for store in (load_data(name), load_data(name)):  # built, then from the cache
        for ours, theirs in zip(store, pygs, strict=True):
            equal(ours, theirs)


def test_one_graph_sets_equal_pygs(graphcl_data, tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHCL_DATA", str(graphcl_data))
    texas = WebKB(copy_raw(graphcl_data, "WebKB/texas", tmp_path), "texas")[0]
    equal(load_data("texas"), texas)
    amazon = Amazon(copy_raw(graphcl_data, "Amazon/Computers", tmp_path), "Computers")[0]
    equal(load_data("amazon-computers"), amazon)


def test_the_users_root_is_never_written(tmp_path, monkeypatch):
    write_tu(tmp_path / "root" / "TUDataset" / "MUTAG" / "raw", "MUTAG")
    before = sorted(path for path in (tmp_path / "root").rglob("*"))
    monkeypatch.setenv("GRAPHCL_DATA", str(tmp_path / "root"))
    load_data("mutag")
    assert sorted(path for path in (tmp_path / "root").rglob("*")) == before
    assert [path.name[:6] for path in (tmp_path / "cache" / "stores").iterdir()] == ["mutag-"]


def test_a_root_that_is_no_folder(monkeypatch):
    monkeypatch.setenv("GRAPHCL_DATA", "/no/such/folder")
    with pytest.raises(ValueError, match="GRAPHCL_DATA=/no/such/folder is no folder"):
        load_data("mutag")


TU = {
    "A": "1, 2\n2, 1\n2, 2\n1, 2\n2, 1\n4, 5\n5, 4\n",  # a self loop, an edge twice; graph 2 is one node without edges
    "graph_indicator": "1\n1\n2\n3\n3\n",
    "graph_labels": "-1\n1\n-1\n",
    "node_labels": "3\n5\n3\n4\n3\n",
    "node_attributes": "0.5, 1\n2, 3\n4, 5\n6, 7\n8, 9\n",
    "edge_labels": "0\n1\n0\n1\n0\n2\n0\n",
}


def write_tu(folder: Path, name: str, **changed: str | None) -> Path:
    folder.mkdir(parents=True)
    for part, text in (TU | changed).items():
        if text is not None:
            (folder / f"{name}_{part}.txt").write_text(text)
    return folder


@pytest.mark.parametrize(
    "changed", [{}, {"edge_labels": None}, {"node_labels": None, "node_attributes": None}, {"graph_labels": None}]
)
def test_tu_corners_equal_pygs(tmp_path, changed):
    write_tu(tmp_path / "X" / "raw", "X", **changed)
    store = load_data(tmp_path / "X")
    for ours, theirs in zip(store, TUDataset(str(tmp_path), "X"), strict=True):
        equal(ours, theirs)
    assert store[1].num_edges == 0 and (store.y is None) == ("graph_labels" in changed)


def test_tu_attributes_stand_in_for_labels(tmp_path):
    store = load_data(write_tu(tmp_path / "X", "X", node_labels=None))
    assert store.x.tolist() == [[0.5, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


def test_tu_with_no_edge_at_all(tmp_path):
    store = load_data(write_tu(tmp_path / "X", "X", A="", edge_labels=None))
    assert len(store) == 3 and len(store.src) == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"A": "1, 2\n2, 6\n"}, r"X_A\.txt: line 2: edge \[2, 6\], but nodes are numbered 1 to 5"),
        ({"A": "0, 1\n"}, r"X_A\.txt: line 1: edge \[0, 1\]"),
        ({"A": "1, 2\n2, 3\n"}, r"X_A\.txt: line 2: edge \[2, 3\] joins graphs \[1, 2\]"),
        (
            {"A": "1, 2\n2, x\n"},
            r"X_A\.txt: could not convert string ' x' to int32 at row 1, column 2.*rows count from 0",
        ),
        ({"A": "1, 2\n2\n"}, r"X_A\.txt: .*all must hold equally many numbers"),
        ({"graph_indicator": "1\n1\n3\n3\n3\n"}, "must rise from 1 without gaps"),
        ({"graph_indicator": "1\n2\n1\n3\n3\n"}, "must rise from 1 without gaps"),
        ({"graph_indicator": None}, "no data that is known here"),
        ({"graph_labels": "1\n"}, r"X_graph_labels\.txt: 1 lines for 3 graphs"),
        ({"node_labels": "1\n"}, r"X_node_labels\.txt: 1 lines for 5 nodes"),
        ({"node_labels": "1\n2\n3\n4\n99999999\n"}, "too many for one-hot features"),
        ({"node_labels": None, "node_attributes": "1\nnan\n1\n1\n1\n"}, r"graph 0: x\[1, 0\] is nan"),
    ],
)
def test_tu_mistakes(tmp_path, changed, message):
    changed = {"edge_labels": None} | changed
    with pytest.raises(ValueError, match=message):
        load_data(write_tu(tmp_path / "X", "X", **changed))


def test_tu_from_an_archive(tmp_path, monkeypatch):
    raw = write_tu(tmp_path / "made" / "raw", "COLLAB")
    target = tmp_path / "root" / "TUDataset" / "COLLAB"
    target.mkdir(parents=True)
    with tarfile.open(target / "raw.tar.xz", "w:xz") as archive:
        archive.add(raw, "raw")
    monkeypatch.setenv("GRAPHCL_DATA", str(tmp_path / "root"))
    for ours, theirs in zip(load_data("collab"), load_data(raw), strict=True):
        equal(ours, theirs)
    packed = (target / "raw.tar.xz").read_bytes()
    (target / "raw.tar.xz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ValueError, match=r"raw\.tar\.xz: damaged"):
        load_data("collab")


def test_an_archive_cannot_write_elsewhere(tmp_path, monkeypatch):
    target = tmp_path / "root" / "TUDataset" / "COLLAB"
    target.mkdir(parents=True)
    with tarfile.open(target / "raw.tar.xz", "w:xz") as archive:
        member = tarfile.TarInfo("../../escaped.txt")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    monkeypatch.setenv("GRAPHCL_DATA", str(tmp_path / "root"))
    with pytest.raises(ValueError, match="damaged"):
        load_data("collab")


def test_damaged_raw_files_of_one_graph(tmp_path, monkeypatch):
    raw = tmp_path / "Planetoid" / "CiteSeer" / "raw"
    raw.mkdir(parents=True)
    for part in ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index"):
        (raw / f"ind.citeseer.{part}").write_bytes(b"broken")
    monkeypatch.setenv("GRAPHCL_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="not readable as 'citeseer'"):
        load_data("citeseer")


# --- download and cache -----------------------------------------------------------------------------------------------


def zipped(tmp_path: Path, monkeypatch, members: dict[str, str]) -> None:
    (tmp_path / "server").mkdir()
    with zipfile.ZipFile(tmp_path / "server" / "MUTAG.zip", "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    monkeypatch.setattr(TUDataset, "url", (tmp_path / "server").as_uri())


def test_download(tmp_path, monkeypatch):
    texts = {f"MUTAG/MUTAG_{part}.txt": text for part, text in TU.items()}
    zipped(tmp_path, monkeypatch, texts | {"MUTAG/README.txt": "", "../../MUTAG_evil.txt": "inside, by its name alone"})
    first = load_data("mutag")
    shutil.rmtree(tmp_path / "server")
    shutil.rmtree(tmp_path / "cache" / "stores")
    for ours, theirs in zip(load_data("mutag"), first, strict=True):  # from what was downloaded
        equal(ours, theirs)
    kept = {path.name for path in (tmp_path / "cache" / "TUDataset" / "MUTAG").iterdir()}
    assert kept == {"raw"} and not list(tmp_path.glob("MUTAG_evil.txt"))


def test_a_download_that_fails_leaves_nothing_and_tells_the_way_out(tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match=r"'amazon-photo': downloaded from https://.* which failed: no network.*GRAPHCL_DATA"
    ):
        load_data("amazon-photo")
    zipped(tmp_path, monkeypatch, {"other.txt": ""})
    with pytest.raises(ValueError, match=r"no MUTAG_A\.txt, MUTAG_graph_indicator\.txt in what came"):
        load_data("mutag")
    (tmp_path / "server" / "MUTAG.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="not a zip file"):
        load_data("mutag")
    assert list((tmp_path / "cache" / "TUDataset" / "MUTAG").iterdir()) == []


def test_wikics_from_its_json(tmp_path, monkeypatch):
    raw = tmp_path / "root" / "WikiCS" / "raw"
    raw.mkdir(parents=True)
    values = {
        "features": [[0.5], [1], [2]],
        "labels": [0, 1, 1],
        "links": [[1], [], [0]],
        "train_masks": [[True, False, False], [False, True, False]],
        "val_masks": [[False, True, False], [True, False, False]],
        "stopping_masks": [[False] * 3, [False] * 3],
        "test_mask": [False, False, True],
    }
    (raw / "data.json").write_text(json.dumps(values))
    monkeypatch.setenv("GRAPHCL_DATA", str(tmp_path / "root"))
    data = load_data("wikics")
    assert data.edge_index.tolist() == [[0, 0, 1, 2], [1, 2, 0, 0]]
    assert data.train_mask.shape == (3, 2) and data.test_mask.tolist() == [False, False, True]


def test_the_cache_follows_the_raw_files(tmp_path):
    folder = write_tu(tmp_path / "X", "X")
    assert load_data(folder).y.tolist() == [0, 1, 0]
    (folder / "X_graph_labels.txt").write_text("1\n1\n9\n")
    os.utime(folder / "X_graph_labels.txt", ns=(1, 1))
    assert load_data(folder).y.tolist() == [0, 0, 1]


def test_a_damaged_cache_is_made_again(tmp_path):
    folder = write_tu(tmp_path / "X", "X")
    load_data(folder)
    (store,) = (tmp_path / "cache" / "stores").iterdir()
    (store / "x.npy").write_bytes(b"")
    with pytest.warns(UserWarning, match="the cache is damaged and is made again"):
        assert len(load_data(folder)) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_data(folder)) == 3


def test_a_killed_build_leaves_no_store(tmp_path, monkeypatch):
    folder = write_tu(tmp_path / "X", "X")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("graphcl.data.store_file.os.rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        load_data(folder)
    assert list((tmp_path / "cache" / "stores").iterdir()) == []
    assert len(load_data(folder)) == 3


def test_a_flipped_bit_in_the_cache_is_found(tmp_path):
    folder = write_tu(tmp_path / "X", "X")
    before = list(load_data(folder))  # copies: the store itself is that file
    (store,) = (tmp_path / "cache" / "stores").iterdir()
    content = bytearray((store / "x.npy").read_bytes())
    content[-1] ^= 1
    (store / "x.npy").write_bytes(content)
    with pytest.warns(UserWarning, match=r"made again: .*x\.npy: the checksum is not that of meta\.json"):
        again = load_data(folder)
    assert all(torch.equal(a.x, b.x) for a, b in zip(again, before, strict=True))


def test_a_cache_that_fills_the_disk(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("graphcl.data.store_file._Column.append", full)
    with pytest.warns(UserWarning, match="is not kept for next time.*No space left"):
        assert len(load_data(write_tu(tmp_path / "X", "X"))) == 3
    assert list((tmp_path / "cache" / "stores").iterdir()) == []


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRAPHCL_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="is not kept for next time.*set GRAPHCL_CACHE"):
        assert len(load_data(write_tu(tmp_path / "X", "X"))) == 3


# --- own data ---------------------------------------------------------------------------------------------------------


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
    store = from_networkx(graphs, y=[1, 0, -1])
    assert store.y.tolist() == [1, 0, -1]
    for data, graph in zip(store, graphs, strict=True):
        same_as_networkx(data, graph)
        assert data.x.tolist() == [[node * 2, node, node % 3] for node in graph.nodes]  # a, b, y


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
    with pytest.raises(ValueError, match="graph 1: x is"):
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


def test_csv_without_features(tmp_path):
    data = load_data(csv_folder(tmp_path, features=None, labels="node,label\nzoe,4\nann,\n"))
    assert data.names == ["zoe", "ann", "bob", "cy"] and data.num_features == 0 and data.y.tolist() == [4, -1, -1, -1]


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
        ({"features": "node,u\nann,1\nann,2\n"}, "line 3: node 'ann' is listed twice"),
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
