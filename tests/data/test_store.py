import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data

from graphcl.data.store import GraphStore


@st.composite
def graph_lists(draw):
    """1 to 6 graphs of 1 to 5 nodes, 0 to 8 edges (self loops, repeats), with every kind of attribute or without."""
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.uint8, torch.int16, None]))
    edge_dtype = draw(st.sampled_from([torch.float32, torch.uint8, None]))
    labels = draw(st.sampled_from(["class", "value", "tasks", "none"]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    graphs = []
    for _ in range(draw(st.integers(1, 6))):
        n, e = draw(st.integers(1, 5)), draw(st.integers(0, 8))
        graph = Data(edge_index=torch.randint(n, (2, e), generator=generator), num_nodes=n)
        if dtype is not None:
            graph.x = torch.randint(100, (n, 3), generator=generator).to(dtype)
        if edge_dtype is not None:
            graph.edge_attr = torch.randint(100, (e, 2), generator=generator).to(edge_dtype)
        if labels != "none":
            value = torch.randint(3, (1, 4) if labels == "tasks" else (1,), generator=generator)
            graph.y = value if labels == "class" else value.float()
        graphs.append(graph)
    return graphs


def same(a: Data, b: Data, keys) -> None:
    for key in keys:
        assert torch.equal(a[key], b[key]), key
        assert a[key].dtype == b[key].dtype, key


@settings(max_examples=40, deadline=None)
@given(graph_lists(), st.data())
def test_a_batch_equals_pygs(graphs, data):
    store = GraphStore.from_graphs(graphs)
    index = torch.tensor(data.draw(st.lists(st.integers(0, len(graphs) - 1), min_size=1, max_size=8)))
    ours = store.batch(index)
    pygs = Batch.from_data_list([store[int(i)] for i in index])
    assert type(ours) is type(pygs) and ours.num_graphs == pygs.num_graphs == len(index)
    assert set(ours.keys()) == {*pygs.keys(), "graph_id", "n_id"}
    same(ours, pygs, pygs.keys())
    for key in pygs._slice_dict:
        assert torch.equal(ours._slice_dict[key], pygs._slice_dict[key])
        assert torch.equal(ours._inc_dict[key], pygs._inc_dict[key])
    for place, i in enumerate(index.tolist()):
        same(ours[place], store[i], store[i].keys())
        assert ours[place].graph_id.tolist() == [i]
        assert ours[place].n_id.tolist() == list(range(int(store.node_ptr[i]), int(store.node_ptr[i + 1])))
    again = Batch.from_data_list(ours.to_data_list())
    same(again, ours, ours.keys())


@settings(max_examples=25, deadline=None)
@given(graph_lists())
def test_graphs_come_out_as_they_went_in(graphs):
    store = GraphStore.from_graphs(graphs)
    assert len(store) == store.num_graphs == len(graphs) == len(list(store))
    for given_graph, graph in zip(graphs, store, strict=True):
        assert graph.num_nodes == given_graph.num_nodes
        assert torch.equal(graph.edge_index, given_graph.edge_index)
        for key in ("x", "edge_attr", "y"):
            value = getattr(given_graph, key)
            if value is not None:
                wide = value if value.is_floating_point() else value.long()
                assert torch.equal(graph[key], wide) and graph[key].dtype == wide.dtype


def three() -> list[Data]:
    sizes = [(3, 4), (1, 0), (5, 9)]
    return [
        Data(
            x=torch.randn(n, 2),
            edge_index=torch.randint(n, (2, e)),
            edge_attr=torch.randn(e, 1),
            y=torch.tensor([n % 2]),
        )
        for n, e in sizes
    ]


def test_writing_into_a_graph_or_batch_leaves_the_store():
    store = GraphStore.from_graphs(three())
    before = store.x.clone()
    store[0].x.fill_(7)
    store.batch(torch.arange(3)).x.fill_(7)
    assert torch.equal(store.x, before)


def test_a_batch_is_made_where_the_store_lies():
    store = GraphStore.from_graphs(three()).to("meta")  # a tensor made elsewhere would meet it and raise
    batch = store.batch(torch.tensor([2, 0]))
    assert all(batch[key].is_meta for key in batch.keys())  # noqa: SIM118
    assert batch.x.shape == (8, 2) and batch.edge_index.shape == (2, 13)


def test_subset_keeps_order_and_text():
    store = GraphStore.from_graphs(three())
    store.smiles, store.names = ["C", "CC", "CCC"], ["a", "b", "c"]
    part = store.subset(torch.tensor([2, 0]))
    same(part[0], store[2], store[2].keys())
    same(part[1], store[0], store[0].keys())
    assert part.smiles == ["CCC", "C"] and part.names == ["c", "a"]


def test_negative_index_and_the_end():
    store = GraphStore.from_graphs(three())
    same(store[-1], store[2], store[2].keys())
    with pytest.raises(IndexError, match="no graph 3, there are 3"):
        store[3]


@pytest.mark.parametrize(
    "index", [torch.tensor([]), torch.tensor([True, False]), torch.tensor([[0]]), torch.tensor([0.0])]
)
def test_batch_wants_integers(index):
    with pytest.raises(ValueError, match=r"index must be \[b\] integers with b > 0"):
        GraphStore.from_graphs(three()).batch(index)


def test_batch_wants_known_graphs():
    with pytest.raises(ValueError, match="index goes from -1 to 3, graphs from 0 to 2"):
        GraphStore.from_graphs(three()).batch(torch.tensor([-1, 3]))


def broken(change) -> list[Data]:
    graphs = three()
    change(graphs[2])
    return graphs


def set_edge(value):
    def change(graph):
        graph.edge_index[1, 3] = value

    return change


def set_x(value):
    def change(graph):
        graph.x[4, 1] = value

    return change


def setter(**values):
    def change(graph):
        for key, value in values.items():
            graph[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_edge(5), "graph 2, edge 3: dst is 5, the graph has 5 nodes, numbered from 0"),
        (set_edge(-1), "graph 2, edge 3: dst is -1"),
        (set_edge(2**40), "graph 2: edge_index holds 1099511627776; nodes count from 0"),
        (set_x(float("nan")), r"graph 2: x\[4, 1\] is nan; features must be finite"),
        (set_x(float("inf")), r"graph 2: x\[4, 1\] is inf"),
        (setter(num_nodes=6), "graph 2: x has 5 rows, num_nodes is 6"),
        (setter(x=torch.randn(5, 3)), "graph 2: x is torch.float32 of width 3, graph 0 has torch.float32 of width 2"),
        (setter(x=torch.randn(5, 2).double()), "graph 2: x is torch.float64 of width 2"),
        (setter(x=torch.ones(5, 2).bool()), "graph 2: x is torch.bool; make it float or integer"),
        (setter(x=torch.randn(5)), r"graph 2: x must be a tensor \[num_nodes, F\], got \(5,\)"),
        (setter(x=None, num_nodes=5), "graph 0 has x, graph 2 has none"),
        (setter(x=torch.zeros(0, 2), edge_index=torch.zeros(2, 0)), "graph 2 has no nodes"),
        (setter(edge_attr=torch.randn(8, 1)), r"graph 2: edge_attr must be \[9, F\], got \(8, 1\)"),
        (setter(edge_attr=torch.full((9, 1), float("nan"))), r"graph 2: edge_attr\[0, 0\] is nan"),
        (setter(edge_index=torch.rand(2, 9)), "graph 2: edge_index is torch.float32; node numbers must be integers"),
        (setter(edge_index=torch.zeros(9, 2).long()), r"graph 2: edge_index must be a tensor \[2, E\], got \(9, 2\)"),
        (setter(y=None), "graph 0 has y, graph 2 has none; label all graphs"),
        (setter(y=torch.tensor([1.0])), "graph 2: y is torch.float32"),
        (setter(y=torch.tensor([1, 0])), r"graph 2: y must be a number, \[1\], or \[1, T\]"),
    ],
)
def test_mistakes_name_the_graph(change, message):
    with pytest.raises(ValueError, match=message):
        GraphStore.from_graphs(broken(change))


def test_other_things_than_graphs():
    with pytest.raises(ValueError, match="no graphs given"):
        GraphStore.from_graphs([])
    with pytest.raises(ValueError, match="graph 1 is a str"):
        GraphStore.from_graphs([three()[0], "graph"])


def test_shapes_must_agree():
    x, ends = torch.zeros(4, 1), torch.zeros(2, dtype=torch.int32)
    with pytest.raises(ValueError, match="node_ptr must rise from 0 to 4"):
        GraphStore(x, ends, ends, torch.tensor([0, 3]), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="edge_ptr is for 2 graphs, node_ptr for 1"):
        GraphStore(x, ends, ends, torch.tensor([0, 4]), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="y is for 3 graphs"):
        GraphStore(x, ends, ends, torch.tensor([0, 4]), torch.tensor([0, 2]), y=torch.zeros(3))
    with pytest.raises(ValueError, match="smiles is for 2 graphs"):
        GraphStore(x, ends, ends, torch.tensor([0, 4]), torch.tensor([0, 2]), smiles=["C", "C"])
    with pytest.raises(ValueError, match=r"x must be \[N, F\]"):
        GraphStore(x[:, 0], ends, ends, torch.tensor([0, 4]), torch.tensor([0, 2]))


@settings(max_examples=10, deadline=None)
@given(graph_lists())
def test_saved_and_opened(tmp_path_factory, graphs):
    folder = tmp_path_factory.mktemp("store") / "s"
    store = GraphStore.from_graphs(graphs, name="mine")
    store.smiles, store.names = ["C" * (i + 1) for i in range(len(store))], [f"ü\n{i}" for i in range(len(store))]
    store.save(folder)
    opened = GraphStore.open(folder)
    assert opened.name == "mine" and opened.smiles == store.smiles and opened.names == store.names
    index = torch.arange(len(store))
    same(opened.batch(index), store.batch(index), store.batch(index).keys())
    assert [path.name for path in folder.parent.iterdir()] == ["s"]  # nothing half-written beside it


@pytest.fixture
def saved(tmp_path):
    GraphStore.from_graphs(three()).save(tmp_path / "s")
    return tmp_path / "s"


def test_opening_maps_the_files_and_never_writes_to_them(saved):
    before = (saved / "x.npy").read_bytes()
    store = GraphStore.open(saved)
    store.x.fill_(3)
    assert (saved / "x.npy").read_bytes() == before


def test_save_does_not_overwrite(saved):
    with pytest.raises(FileExistsError, match="is there already"):
        GraphStore.from_graphs(three()).save(saved)


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        GraphStore.from_graphs(three()).save(tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def change_meta(folder, **values):
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | values))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "x.npy").write_bytes((f / "x.npy").read_bytes()[:-8]), r"x\.npy: damaged or missing"),
        (lambda f: (f / "x.npy").write_bytes(b""), r"x\.npy: damaged or missing"),
        (lambda f: (f / "src.npy").unlink(), r"src\.npy: damaged or missing"),
        (
            lambda f: np.save(f / "x.npy", np.zeros((2, 2))),
            r"x\.npy: holds float64 \[2, 2\], meta.json says float32 \[9, 2\]",
        ),
        (lambda f: np.save(f / "x.npy", np.array([{}]), allow_pickle=True), r"x\.npy: damaged or missing"),
        (lambda f: np.save(f / "node_ptr.npy", np.array([0, 9, 1, 9])), "node_ptr must rise from 0 to 9"),
        (lambda f: (f / "meta.json").write_text("{"), "is not a saved GraphStore"),
        (lambda f: (f / "meta.json").write_text("[]"), "is not a saved GraphStore"),
        (lambda f: (f / "meta.json").unlink(), "is not a saved GraphStore"),
        (lambda f: change_meta(f, format="other"), "is not a saved GraphStore"),
        (lambda f: change_meta(f, version=2), "has store version 2, this graphcl reads 1"),
        (lambda f: change_meta(f, arrays={"../x": {}}), "'arrays' must name"),
        (lambda f: change_meta(f, texts=["../../secret"]), "'texts'"),
        (shutil.rmtree, "is not a saved GraphStore"),
    ],
)
def test_damaged_stores_are_refused(saved, damage, message):
    damage(saved)
    with pytest.raises(ValueError, match=message):
        GraphStore.open(saved)
