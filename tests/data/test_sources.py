import io
import json
import os
import shutil
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.datasets import Amazon, Planetoid, TUDataset, WebKB

from graphcl.data import sources
from graphcl.data.sources import load_data

pytestmark = pytest.mark.usefixtures("no_network_and_an_own_cache")


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
