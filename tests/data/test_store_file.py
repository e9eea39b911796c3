"""Stores as folders: what is written comes back, in chunks too; what is damaged, foreign or half-made is refused."""

import errno
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_store import graph_lists, same, three
from torch_geometric.data import Data

from graphcl.data import locked_folder, store_file
from graphcl.data.store import GraphStore
from graphcl.data.store_file import StoreWriter, Texts, open_checked


def equal(a: GraphStore, b: GraphStore) -> None:
    assert len(a) == len(b) and a.smiles == b.smiles and a.names == b.names
    index = torch.arange(len(b))
    same(a.batch(index), b.batch(index), b.batch(index).keys())


def with_texts(store: GraphStore) -> GraphStore:
    return store._like(
        smiles=["C" * (i % 3) for i in range(len(store))], names=[f"ü\n\0\ud800{i}" for i in range(len(store))]
    )


@settings(max_examples=15, deadline=None)
@given(graphs=graph_lists(), cuts=st.lists(st.integers(0, 6), max_size=3))
def test_what_is_written_in_chunks_comes_back(tmp_path_factory, graphs, cuts):
    folder = tmp_path_factory.mktemp("store") / "s"
    store = GraphStore.from_graphs(graphs, name="mine")
    with StoreWriter(folder, name="mine") as writer:
        cuts = sorted({0, len(graphs), *(min(cut, len(graphs)) for cut in cuts)})
        for begin, end in itertools.pairwise(cuts):
            writer.append(graphs[begin:end])
            writer.append([])
    opened = GraphStore.open(folder).verify()
    assert opened.name == "mine" and opened.folder == folder
    equal(opened, store)
    equal(open_checked(folder), store)
    assert [path.name for path in folder.parent.iterdir()] == ["s"]  # nothing half-written beside it
    for path in folder.glob("*.npy"):
        np.load(path, allow_pickle=False)  # plain files that others read too
    if os.name != "nt":
        umask = os.umask(0)
        os.umask(umask)
        assert folder.stat().st_mode & 0o777 == 0o777 & ~umask


def test_texts_are_read_when_asked_for(tmp_path):
    store = with_texts(GraphStore.from_graphs(three()))
    store.save(tmp_path / "s")
    opened = GraphStore.open(tmp_path / "s")
    equal(opened, store)
    names = opened.names
    assert isinstance(names, Texts) and list(names) == store.names and names[-1] == store.names[2]
    assert names[1:] == store.names[1:] and names[::-1] == store.names[::-1] and len(names[5:]) == 0
    assert names != store.names[:2] and names != ["a", "b", "c"] and names != "abc" and store.names[0] in names
    assert np.asarray(opened.smiles).tolist() == store.smiles and repr(names) == "Texts(3 strings)"
    assert opened.subset(torch.tensor([2, 0])).names == [store.names[2], store.names[0]]
    with pytest.raises(IndexError, match="no text 3, there are 3"):
        names[3]


def test_a_store_with_nothing_but_nodes(tmp_path):
    graphs = [Data(x=torch.zeros(1, 0), edge_index=torch.zeros(2, 0).long())] * 3
    store = GraphStore.from_graphs(graphs)._like(names=["", "", ""])
    store.save(tmp_path / "s")
    equal(GraphStore.open(tmp_path / "s").verify(), store)


def ints(*values: int) -> list[Data]:
    x = torch.tensor(values)[:, None]
    ends = torch.tensor([[0], [len(values) - 1]])
    return [Data(x=x, edge_index=ends, edge_attr=x[-1:], y=torch.tensor([0]))]


def test_integers_are_widened_where_a_chunk_needs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(store_file, "_BLOCK", 16)  # rewritten in many blocks
    chunks = [ints(*range(200)), ints(3, -1), ints(2**40, 0), ints(*range(300)), ints(7)]
    with StoreWriter(tmp_path / "s") as writer:
        for chunk in chunks:
            writer.append(chunk)
    opened = GraphStore.open(tmp_path / "s").verify()
    assert opened.x.dtype == torch.int64 and opened.src.dtype == opened.dst.dtype == torch.int16
    equal(opened, GraphStore.from_graphs([chunk[0] for chunk in chunks]))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ([Data(x=torch.ones(1, 2).double(), edge_index=torch.zeros(2, 0).long())], "x is float64 of width .2., before"),
        ([Data(x=torch.ones(1, 2).long(), edge_index=torch.zeros(2, 0).long())], "x is uint8 of width .2., before"),
        ([Data(x=torch.ones(1, 3), edge_index=torch.zeros(2, 0).long())], r"x is float32 of width \[3\], before"),
        ([Data(x=torch.ones(1, 2), edge_index=torch.zeros(2, 0).long(), y=1)], "it has y, those before have none"),
        (
            GraphStore.from_graphs([Data(x=torch.ones(1, 2), edge_index=torch.zeros(2, 0).long())])._like(names=["a"]),
            "it has names, those before have none",
        ),
        (
            GraphStore.from_graphs([Data(x=torch.ones(1, 2), edge_index=torch.zeros(2, 0).long())])._like(
                smiles=[None]
            ),
            r"smiles\[0\] must be a string, got None; '' stands for none",
        ),
        ([Data(x=torch.full((1, 2), float("nan")))], r"graph 0: x\[0, 0\] is nan"),
        ([Data(x=torch.ones(1, 2), edge_index=torch.ones(2, 1).long())], "graph 0, edge 0: src is 1"),
        ([Data(x=torch.ones(1, 2).bfloat16())], "x is torch.bfloat16, which files cannot hold"),
        (["graph"], "graph 0 is a str"),
    ],
)
def test_a_chunk_that_does_not_fit_is_refused_and_the_next_goes_on(tmp_path, second, message):
    first = [Data(x=torch.ones(2, 2), edge_index=torch.zeros(2, 1).long())]
    with StoreWriter(tmp_path / "s") as writer:
        writer.append(first)
        with pytest.raises(ValueError, match=f"the chunk that begins with graph 1: .*{message}"):
            writer.append(second)
        writer.append(first)
    equal(GraphStore.open(tmp_path / "s").verify(), GraphStore.from_graphs(first * 2))


def test_nothing_appended_makes_nothing(tmp_path):
    with pytest.raises(ValueError, match="no graphs to write"), StoreWriter(tmp_path / "s"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_writer_is_used_once(tmp_path):
    with StoreWriter(tmp_path / "s") as writer:
        writer.append(three())
        writer.close()
    writer.discard()
    for use in (writer.close, lambda: writer.append(three())):
        with pytest.raises(ValueError, match="the writer is closed"):
            use()
    equal(GraphStore.open(tmp_path / "s"), GraphStore.open(tmp_path / "s"))
    with pytest.raises(FileExistsError, match="is there already"):
        StoreWriter(tmp_path / "s")


def test_two_builds_of_one_folder(tmp_path):
    first, second = StoreWriter(tmp_path / "s", name="first"), StoreWriter(tmp_path / "s")
    for writer in (first, second):
        writer.append(three())
    first.close()
    with pytest.raises(OSError):
        second.close()
    assert GraphStore.open(tmp_path / "s").name == "first" and [path.name for path in tmp_path.iterdir()] == ["s"]


# --- builds that die --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["write", "fsync", "rename"])
def test_a_failed_build_leaves_nothing(tmp_path, monkeypatch, when):
    def full(*args, **kwargs):
        raise OSError("No space left on device")

    if when == "write":
        monkeypatch.setattr(store_file._Column, "_write", full)
    else:
        monkeypatch.setattr(store_file.os, when, full)
    with pytest.raises(OSError, match="No space left"):
        GraphStore.from_graphs(three()).save(tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


BUILD = """
import sys, torch, signal, resource, os
from torch_geometric.data import Data
from graphcl.data.store_file import StoreWriter
def chunk():
    return [Data(x=torch.rand(50, 40), edge_index=torch.zeros(2, 1).long())]
"""


def run(code: str, folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", BUILD + code, str(folder)], capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(os.name == "nt", reason="signals and locks of Unix")
def test_a_killed_build_is_no_store_and_the_next_one_cleans_up(tmp_path):
    code = "w = StoreWriter(sys.argv[1]); w.append(chunk()); w.append(chunk()); os.kill(os.getpid(), signal.SIGKILL)"
    assert run(code, tmp_path / "s").returncode == -signal.SIGKILL
    (left,), graphs = tmp_path.iterdir(), three()
    with pytest.raises(ValueError, match="is not a saved GraphStore"):
        GraphStore.open(left)
    with StoreWriter(tmp_path / "t") as other:
        assert not left.exists()
        other.append(graphs)
        with StoreWriter(tmp_path / "s") as writer:  # the build of another store, alive, stays
            writer.append(graphs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s", "t"]
    equal(GraphStore.open(tmp_path / "s"), GraphStore.open(tmp_path / "t"))


@pytest.mark.skipif(os.name == "nt", reason="limits of Unix")
def test_a_disk_that_fills_midway(tmp_path):
    code = """
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
with StoreWriter(sys.argv[1]) as writer:
    for _ in range(100):
        writer.append(chunk())
"""
    done = run(code, tmp_path / "s")
    assert done.returncode == 1 and "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    with_texts(GraphStore.from_graphs(three())).save(tmp_path / "s")
    return tmp_path / "s"


def test_opening_maps_the_files_and_never_writes_to_them(saved):
    before = (saved / "x.npy").read_bytes()
    store = GraphStore.open(saved)
    store.x.fill_(3)
    assert (saved / "x.npy").read_bytes() == before


def test_every_flipped_byte_is_found(saved):
    store = GraphStore.open(saved)
    for path in sorted(saved.glob("*.npy")):
        content = path.read_bytes()
        for place in {0, 70, 127, 128, len(content) - 1}:
            if place >= len(content):
                continue
            path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
            with pytest.raises(ValueError, match=rf"{path.name}: (the checksum|truncated or another file)"):
                store.verify()
        path.write_bytes(content)
    assert store.verify() is store
    with pytest.raises(ValueError, match="not opened from a folder"):
        GraphStore.from_graphs(three()).verify()
    with pytest.raises(ValueError, match="not opened from a folder"):
        store.with_x(store.x).verify()


def test_large_stores_are_verified_where_a_file_is_newer(saved, monkeypatch):
    monkeypatch.setattr(store_file, "_SMALL", 0)
    content = bytearray((saved / "x.npy").read_bytes())
    content[-1] ^= 1
    (saved / "x.npy").write_bytes(content)
    built = (saved / "meta.json").stat().st_mtime_ns
    os.utime(saved / "x.npy", ns=(built, built))
    open_checked(saved)  # as documented: nobody looks
    os.utime(saved / "x.npy", ns=(built + 1, built + 1))
    with pytest.raises(ValueError, match=r"x\.npy: the checksum is not that of meta\.json"):
        open_checked(saved)


def test_a_small_store_is_checked_whole(saved):
    meta = json.loads((saved / "meta.json").read_text())
    assert all(len(entry["sha256"]) == 64 for entry in meta["arrays"].values())
    meta["arrays"]["x"]["sha256"] = "0" * 64
    (saved / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(ValueError, match=r"x\.npy: the checksum"):
        open_checked(saved)


def test_a_small_store_is_checked_even_where_the_checksums_are_right(saved):
    content = bytearray((saved / "src.npy").read_bytes())
    content[-1] = 200
    (saved / "src.npy").write_bytes(content)
    change_array(saved, "src", sha256=hashlib.sha256(content[128:]).hexdigest())
    GraphStore.open(saved).verify()
    with pytest.raises(ValueError, match="graph 2, edge 8: src is 200, the graph has 5 nodes"):
        open_checked(saved)


def test_a_store_of_the_first_version_is_to_be_built_again(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    np.save(folder / "x.npy", np.zeros((2, 1)))
    (folder / "meta.json").write_text(json.dumps({"format": "graphcl-store", "version": 1, "name": "old"}))
    with pytest.raises(ValueError, match="has store version 1, this graphcl reads 2; delete it and build it again"):
        GraphStore.open(folder)


def change_meta(folder: Path, **values) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | values))


def change_array(folder: Path, key: str, **values) -> None:
    arrays = json.loads((folder / "meta.json").read_text())["arrays"]
    arrays[key] |= values
    change_meta(folder, arrays=arrays)


def rename_array(folder: Path, key: str, other: str) -> None:
    arrays = json.loads((folder / "meta.json").read_text())["arrays"]
    arrays[other] = arrays.pop(key)
    change_meta(folder, arrays=arrays)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda f: (f / "x.npy").write_bytes((f / "x.npy").read_bytes()[:-8]),
            r"x\.npy: truncated or another file: 64",
        ),
        (lambda f: (f / "x.npy").write_bytes((f / "x.npy").read_bytes() + b"1"), r"x\.npy: truncated or another file"),
        (lambda f: (f / "x.npy").write_bytes(b""), r"x\.npy: truncated or another file: 0 bytes .* says 72"),
        (lambda f: (f / "src.npy").unlink(), r"src\.npy: missing or not readable"),
        (lambda f: (f / "names_ptr.npy").unlink(), r"names_ptr\.npy: missing or not readable"),
        (lambda f: np.save(f / "x.npy", np.zeros((2, 2))), r"x\.npy: truncated or another file"),
        (lambda f: np.save(f / "x.npy", np.array([{}]), allow_pickle=True), r"x\.npy: truncated or another file"),
        (lambda f: (f / "meta.json").write_text("{"), "is not a saved GraphStore"),
        (lambda f: (f / "meta.json").write_text("[]"), "is not a saved GraphStore"),
        (lambda f: (f / "meta.json").write_text("[" * 100_000), "is not a saved GraphStore"),
        (lambda f: (f / "meta.json").write_bytes(b"\xff\xfe"), "is not a saved GraphStore"),
        (lambda f: (f / "meta.json").unlink(), "is not a saved GraphStore"),
        (lambda f: change_meta(f, format="other"), "is not a saved GraphStore"),
        (lambda f: change_meta(f, version=3), "has store version 3, this graphcl reads 2; .* or update graphcl"),
        (lambda f: change_meta(f, arrays={"../x": {}}), "'arrays' must name"),
        (lambda f: rename_array(f, "names", "../../secret"), "'arrays' must name .* and no unknown array"),
        (lambda f: rename_array(f, "names", "y_ptr"), "'arrays' must name .* and no unknown array"),
        (lambda f: rename_array(f, "src", "edge"), "'arrays' must name"),
        (lambda f: change_meta(f, arrays=None), "'arrays' must name"),
        (lambda f: change_meta(f, graphs=4), "'graphs' and the pointers do not fit one another"),
        (lambda f: change_meta(f, name=3), "'name', 'graphs' and the pointers"),
        (lambda f: change_array(f, "x", dtype="|O"), "x: no dtype, shape, bytes and sha256 that fit"),
        (lambda f: change_array(f, "x", dtype="<i4"), r"x\.npy: truncated or another file"),
        (lambda f: change_array(f, "x", dtype=["<f4"]), "x: no dtype, shape"),
        (lambda f: change_array(f, "x", shape=[-9, 2]), "x: no dtype, shape"),
        (lambda f: change_array(f, "x", shape=[10**9, 2]), "x: no dtype, shape"),
        (lambda f: change_array(f, "x", shape=[10**9, 2], bytes=8 * 10**9), r"x\.npy: truncated or another file"),
        (lambda f: change_array(f, "x", shape=[2, 9]), r"x\.npy: truncated or another file"),
        (lambda f: change_array(f, "x", bytes=8), "x: no dtype, shape"),
        (lambda f: change_array(f, "src", dtype="<f4", shape=[3]), "src: no dtype, shape"),
        (lambda f: change_array(f, "node_ptr", dtype="<f8"), "node_ptr: no dtype, shape"),
        (lambda f: change_array(f, "names", dtype="<i2"), "names: no dtype, shape"),
        (shutil.rmtree, "is not a saved GraphStore"),
    ],
)
def test_damaged_stores_are_refused(saved, damage, message):
    damage(saved)
    with pytest.raises(ValueError, match=message):
        GraphStore.open(saved)


def test_arrays_that_do_not_fit_one_another_are_refused(saved, tmp_path):
    GraphStore.from_graphs(three() + three()).save(tmp_path / "other")
    entry = json.loads((tmp_path / "other" / "meta.json").read_text())["arrays"]["x"]
    shutil.copyfile(tmp_path / "other" / "x.npy", saved / "x.npy")
    change_array(saved, "x", **entry)
    with pytest.raises(ValueError, match="node_ptr must rise from 0 to 18, goes 0 to 9"):
        GraphStore.open(saved)


def test_a_file_system_without_locks_is_written_to_all_the_same(tmp_path, monkeypatch):
    class NoLocks:
        LOCK_EX = LOCK_NB = 0

        @staticmethod
        def flock(held, how):
            raise OSError(errno.EBADF, "no locks here")

    monkeypatch.setattr(locked_folder, "fcntl", NoLocks)
    (tmp_path / f"{locked_folder.TEMPORARY}other").mkdir()  # maybe another's, at work
    with StoreWriter(tmp_path / "store", name="three") as writer:
        writer.append(three())
    assert len(GraphStore.open(tmp_path / "store")) == 3
    assert (tmp_path / f"{locked_folder.TEMPORARY}other").is_dir()


def test_a_build_that_another_one_overtook(tmp_path):
    first, second, graphs = StoreWriter(tmp_path / "s"), StoreWriter(tmp_path / "s"), three()
    for writer in (first, second):
        writer.append(graph for graph in graphs)
    first.close()
    with pytest.raises(FileExistsError, match="s was built by another process meanwhile; open that one"):
        second.close()
    equal(GraphStore.open(tmp_path / "s").verify(), GraphStore.from_graphs(graphs))
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
