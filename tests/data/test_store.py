import copy
import math
import pickle

import pytest
import torch
from device_guards import _NoHostSync, _NoStrayFactory
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data

from graphcl.data import _native
from graphcl.data.store import GraphStore

TAKES_AN_INDEX = pytest.mark.parametrize("take", [GraphStore.batch, GraphStore.subset])
GATHERED = pytest.mark.parametrize("by", ["torch", "numpy", "numba"])


def use(by: str, patch: pytest.MonkeyPatch) -> None:
    if by == "torch":
        patch.setattr(GraphStore, "_in_numpy", lambda store: False)
    elif by == "numpy":
        patch.setattr(_native, "native", lambda: None)
    elif _native.native() is None:
        pytest.skip("numba is not installed")


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


def with_ids(store: GraphStore, i: int) -> Data:
    graph = store[i]
    graph.graph_id, graph.n_id = torch.tensor([i]), torch.arange(int(store.node_ptr[i]), int(store.node_ptr[i + 1]))
    return graph


@GATHERED
@settings(max_examples=25, deadline=None)
@given(graphs=graph_lists(), data=st.data())
def test_a_batch_equals_pygs(by, graphs, data):
    store = GraphStore.from_graphs(graphs)
    index = torch.tensor(data.draw(st.lists(st.integers(0, len(graphs) - 1), min_size=1, max_size=8)))
    listed = [with_ids(store, i) for i in index.tolist()]
    with pytest.MonkeyPatch.context() as patch:
        use(by, patch)
        ours = store.batch(index)
    pygs = Batch.from_data_list(listed)
    assert type(ours) is type(pygs) and ours.num_graphs == pygs.num_graphs == len(index)
    assert set(ours.keys()) == set(pygs.keys())
    same(ours, pygs, pygs.keys())
    assert all(ours[key].is_contiguous() for key in ours.keys())  # noqa: SIM118
    assert vars(ours).keys() == vars(pygs).keys() and vars(ours._store).keys() == vars(pygs._store).keys()
    assert ours._slice_dict.keys() == pygs._slice_dict.keys() and ours._inc_dict.keys() == pygs._inc_dict.keys()
    for key in pygs._slice_dict:
        for table, theirs in ((ours._slice_dict, pygs._slice_dict), (ours._inc_dict, pygs._inc_dict)):
            assert torch.equal(table[key], theirs[key]) and table[key].dtype == theirs[key].dtype
    for place, graph in enumerate(listed):
        same(ours.get_example(place), graph, graph.keys())
    again = Batch.from_data_list(ours.to_data_list())
    same(again, ours, ours.keys())
    assert ours._store._parent() is ours and copy.copy(ours).x is ours.x
    same(pickle.loads(pickle.dumps(ours)), ours, ours.keys())


def test_batches_share_nothing_with_the_store_or_one_another():
    store, index = GraphStore.from_graphs(three()), torch.arange(3)
    first, second = store.batch(index), store.batch(index)
    for key in first.keys():  # noqa: SIM118
        first[key].fill_(9)
    assert index.tolist() == [0, 1, 2] and second.graph_id.tolist() == [0, 1, 2] and second.ptr.tolist() == [0, 3, 4, 9]
    same(store.batch(index), second, second.keys())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_types_that_no_kernel_reads(dtype):
    graphs = [Data(x=graph.x.to(dtype), edge_index=graph.edge_index) for graph in three()]
    batch = GraphStore.from_graphs(graphs).batch(torch.tensor([2, 0]))
    assert torch.equal(batch.x, torch.cat([graphs[2].x, graphs[0].x])) and batch.x.dtype == dtype


def narrow_of(values) -> torch.dtype:
    graph = Data(x=torch.tensor(values)[:, None], edge_index=torch.zeros(2, 0).long())
    store = GraphStore.from_graphs([graph])
    assert torch.equal(store[0].x, graph.x) and store.batch(torch.tensor([0])).x.tolist() == graph.x.tolist()
    return store.x.dtype


def test_integers_are_kept_small():
    assert narrow_of([0, 255]) == torch.uint8
    assert narrow_of([-1, 5]) == narrow_of([256]) == narrow_of([-(2**15), 2**15 - 1]) == torch.int16
    assert narrow_of([2**15]) == narrow_of([-(2**31)]) == torch.int32
    assert narrow_of([2**31]) == narrow_of([-(2**62), 2**62]) == torch.int64
    for nodes, dtype in ((256, torch.uint8), (257, torch.int16), (2**15, torch.int16), (2**15 + 1, torch.int32)):
        ends = torch.tensor([[0, nodes - 1], [nodes - 1, 0]])
        store = GraphStore.from_graphs([Data(x=torch.zeros(nodes, 1), edge_index=ends)])
        assert store.src.dtype == store.dst.dtype == dtype
        assert store[0].edge_index.tolist() == [[nodes - 1, 0], [0, nodes - 1]]
    store = GraphStore.from_graphs(three()).with_x(torch.arange(9)[:, None])
    assert store.x.dtype == torch.uint8 and store[2].x[:, 0].tolist() == [4, 5, 6, 7, 8]


@GATHERED
def test_damaged_pointers_never_read_elsewhere(by, monkeypatch):
    use(by, monkeypatch)
    for what in ("node_ptr", "edge_ptr"):
        for i, value in ((1, 10**6), (1, -(10**6)), (2, 0), (0, -1)):
            store = GraphStore.from_graphs(three())
            getattr(store, what)[i] = value
            with pytest.raises(ValueError, match="the pointers are damaged"):
                store.batch(torch.arange(3))
            with pytest.raises(ValueError, match="the pointers are damaged"):
                [store[i] for i in range(3)]


@settings(max_examples=15, deadline=None)
@given(graph_lists())
def test_stores_one_after_another_are_one_store(graphs):
    one = GraphStore.concat([GraphStore.from_graphs([graph]) for graph in graphs])
    index = torch.arange(len(graphs))
    whole = GraphStore.from_graphs(graphs).batch(index)
    same(one.batch(index), whole, whole.keys())


def test_stores_that_cannot_be_one():
    store = GraphStore.from_graphs(three())
    for other, message in (
        (store._like(edge_attr=None), "differ in edge_attr"),
        (store.with_x(store.x.double()), "differ in x"),
        (store.with_x(store.x[:, :1]), "differ in x"),
        (store._like(smiles=["C", "O", "N"]), "some of the stores have smiles"),
    ):
        with pytest.raises(ValueError, match=message):
            GraphStore.concat([store, other])


@settings(max_examples=25, deadline=None)
@given(graph_lists())
def test_edges_are_sorted_once_and_stay_so(graphs):
    store = GraphStore.from_graphs(graphs)
    for given_graph, graph in zip(graphs, store, strict=True):
        pairs = [(dst, src) for src, dst in given_graph.edge_index.t().tolist()]
        order = sorted(range(len(pairs)), key=lambda i: pairs[i])  # stable, as Python's sort is
        assert torch.equal(graph.edge_index, given_graph.edge_index[:, order])
        if graph.edge_attr is not None:
            assert torch.equal(graph.edge_attr, given_graph.edge_attr[order].to(graph.edge_attr.dtype))
    again = GraphStore(store.x, store.src, store.dst, store.node_ptr, store.edge_ptr)
    assert torch.equal(again.src, store.src) and torch.equal(again.dst, store.dst)


@settings(max_examples=25, deadline=None)
@given(graph_lists())
def test_graphs_come_out_as_they_went_in(graphs):
    store = GraphStore.from_graphs(graphs)
    assert len(store) == store.num_graphs == len(graphs) == len(list(store))
    for given_graph, graph in zip(graphs, store, strict=True):
        assert graph.num_nodes == given_graph.num_nodes and graph.num_edges == given_graph.num_edges
        for key in ("x", "y"):
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
    index = torch.tensor([2, 0])
    with _NoHostSync(), _NoStrayFactory():
        batch = store.batch(index)
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
@TAKES_AN_INDEX
def test_an_index_is_of_integers(take, index):
    with pytest.raises(ValueError, match=r"index must be \[b\] integers with b > 0") as caught:
        take(GraphStore.from_graphs(three()), index)
    assert ("use mask.nonzero()[:, 0]" in str(caught.value)) == (index.dtype == torch.bool)


@TAKES_AN_INDEX
def test_an_index_is_of_known_graphs(take):
    store = GraphStore.from_graphs(three())
    for index in ([-1, 3], [-1], [0, 3]):
        message = f"index goes from {min(index)} to {max(index)}, graphs from 0 to 2"
        with pytest.raises(ValueError, match=message):
            take(store, torch.tensor(index))
    with pytest.raises(TypeError, match=r"index must be a tensor, got list; use torch.as_tensor\(index\)"):
        take(store, [0, 1])


def test_one_graph_is_asked_for_by_its_number():
    store = GraphStore.from_graphs(three())
    same(store[torch.tensor(2)], store[2], store[2].keys())
    for wrong in (slice(1, 3), torch.tensor([0, 1]), torch.tensor(1.7), torch.tensor([True, False, True]), 1.0):
        message = rf"by its number, got {type(wrong).__name__}; for several use batch\(index\) or subset\(index\)"
        with pytest.raises(TypeError, match=message):
            store[wrong]


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
    with pytest.raises(ValueError, match="node_ptr must rise from 0 to 4, it falls in between"):
        GraphStore(x, ends, ends, torch.tensor([0, 3, 1, 4]), torch.tensor([0, 1, 1, 2]))
    with pytest.raises(ValueError, match="graph 0, edge 0: dst is 4, the graph has 4 nodes"):
        GraphStore(x, ends, ends + 4, torch.tensor([0, 4]), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match=r"x must be \[N, F\]"):
        GraphStore(x[:, 0], ends, ends, torch.tensor([0, 4]), torch.tensor([0, 2]))


def test_ends_of_edges_are_integers():
    for ends in (torch.tensor([0.0, math.nan]), torch.tensor([False, True])):
        with pytest.raises(ValueError, match=f"src must be node numbers, integers, got {ends.dtype}"):
            GraphStore(torch.ones(3, 1), ends, torch.tensor([1, 0]), torch.tensor([0, 3]), torch.tensor([0, 2]))


def test_stores_that_differ_say_in_what():
    one = GraphStore.from_graphs(three())
    message = r"differ in x, store 0 has torch.float32 \[9, 2\], store 2 has torch.uint8 \[9, 3\]; all must be of one"
    with pytest.raises(ValueError, match=message):
        GraphStore.concat([one, one, one.with_x(torch.ones(len(one.x), 3, dtype=torch.long))])
    with pytest.raises(ValueError, match=r"differ in y, store 0 has .*, store 1 has none"):
        GraphStore.concat([one._like(y=torch.zeros(3)), one._like(y=None)])
    with pytest.raises(ValueError, match="concat was given no store"):
        GraphStore.concat([])
