"""The fused sum over neighbours against a loop over edges, and what is remembered of a graph."""

from __future__ import annotations

import copy
import gc
import weakref
from itertools import pairwise

import pytest
import torch
from graphs import batch_of, generator, odd_batches, path, ring
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.data import Batch

from augment import DropNodes, MaskAttributes, PerturbEdges
from graphcl.encoders import GCN, GIN, SAGE, ResGCN, aggregate
from graphcl.encoders.aggregate import CSR, csr_of, neighbour_sum, remembered, weight_sums

ODD = odd_batches()
WAYS = ["numba", "numpy", "device"]


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """Each way to group the edges: compiled, without numba, and as on a device whose values cannot be looked at."""
    take(request.param, monkeypatch)
    return request.param


def take(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "numba":
        pytest.importorskip("numba")
    if way == "numpy":
        monkeypatch.setattr(aggregate, "native", lambda: None)
    if way == "device":
        monkeypatch.setattr(aggregate, "on_host", lambda tensor: False)


def by_hand(x: Tensor, edge_index: Tensor, n: int, weight: Tensor | None) -> Tensor:
    rows = [x.new_zeros(x.size(1)) for _ in range(n)]
    for e, (u, v) in enumerate(edge_index.T.tolist()):
        rows[v] = rows[v] + (x[u] if weight is None else weight[e] * x[u])
    return torch.stack(rows)


def value_and_gradients(out: Tensor, *inputs: Tensor) -> list[Tensor]:
    up = torch.randn(out.shape, generator=generator(1), dtype=out.dtype)
    return [out.detach(), *torch.autograd.grad((out * up).sum(), inputs)]


@st.composite
def edges(draw: st.DrawFn) -> tuple[int, Tensor]:
    """n nodes and any edges between them: loops, repeated ones, in order or not."""
    n = draw(st.integers(1, 7))
    node = st.integers(0, n - 1)
    pairs = draw(st.lists(st.tuples(node, node), max_size=15))
    if draw(st.booleans()):
        pairs.sort(key=lambda pair: pair[1])
    return n, torch.tensor(pairs, dtype=torch.long).view(-1, 2).T


@pytest.mark.parametrize("name", WAYS)
@settings(max_examples=25, deadline=None)
@given(graph=edges(), weighted=st.booleans(), width=st.integers(1, 4), loops=st.booleans())
def test_the_sum_is_that_of_a_loop_over_edges(name, graph, weighted, width, loops):
    n, edge_index = graph
    whole = torch.cat([edge_index, torch.arange(n).expand(2, n)], dim=1) if loops else edge_index
    x = torch.randn(n, width, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(whole.size(1), dtype=torch.float64, requires_grad=True) if weighted else None
    inputs = [x] if weight is None else [x, weight]
    with pytest.MonkeyPatch.context() as patch:
        take(name, patch)
        got = value_and_gradients(neighbour_sum(x, CSR.of_edges(edge_index, n, loops), weight), *inputs)
    # `0 *` so that without any edge the reference has a graph
    wanted = value_and_gradients(by_hand(x, whole, n, weight) + 0 * sum(i.sum() for i in inputs), *inputs)
    torch.testing.assert_close(got, wanted)


def test_the_ways_agree_to_the_bit(monkeypatch):
    n, e = 50, 700
    edge_index = torch.randint(n, (2, e), generator=generator(0))
    x, weight = torch.randn(n, 24, requires_grad=True), torch.rand(e, requires_grad=True)

    def results() -> list[Tensor]:
        csr = CSR.of_edges(edge_index, n)
        return [*value_and_gradients(neighbour_sum(x, csr, weight), x, weight), csr.rowptr, csr.col, csr.row]

    wanted = results()
    for name in ("numpy", "device"):
        with monkeypatch.context() as patch:
            take(name, patch)
            for got, value in zip(results(), wanted, strict=True):
                assert torch.equal(got, value), name


def test_gradients_and_gradients_of_gradients(way):
    edge_index = torch.tensor([[0, 1, 1, 3, 3, 2, 0], [1, 0, 2, 3, 3, 1, 1]])
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, dtype=torch.float64, requires_grad=True)
    csr = CSR.of_edges(edge_index, 5)
    assert torch.autograd.gradcheck(lambda x, w: neighbour_sum(x, csr, w), (x, weight))
    assert torch.autograd.gradgradcheck(lambda x, w: neighbour_sum(x, csr, w), (x, weight))


def dense(pointer: Tensor, col: Tensor, values: Tensor, width: int) -> Tensor:
    rows = torch.zeros(len(pointer) - 1, width)
    for i, (start, end) in enumerate(pairwise(pointer)):
        for entry in range(start, end):
            rows[i, col[entry]] += values[entry]
    return rows


def test_a_csr_is_the_adjacency_matrix(way):
    edge_index = torch.randint(30, (2, 200), generator=generator(2))
    csr = CSR.of_edges(edge_index, 30)
    wanted = torch.zeros(30, 30).index_put((edge_index[1], edge_index[0]), torch.ones(200), accumulate=True)
    for pointer, col, matrix in ((csr.rowptr, csr.col, wanted), (*csr.transposed()[:2], wanted.T)):
        assert pointer.dtype == col.dtype == torch.int32
        assert torch.equal(dense(pointer, col, torch.ones(200), 30), matrix)
    ids = torch.arange(200)
    assert torch.equal(edge_index[:, csr.entries(ids)], torch.stack([csr.col, csr.row]).long())
    torch.testing.assert_close(weight_sums(csr, torch.ones(200)), wanted.sum(1))


def test_edges_in_order_stay_where_they_are(monkeypatch):
    edge_index = torch.tensor([[1, 2, 0, 0, 1], [0, 0, 1, 2, 2]])
    for name in ("numba", "numpy"):
        with monkeypatch.context() as patch:
            take(name, patch)
            assert CSR.of_edges(edge_index, 4).order is None
            assert CSR.of_edges(edge_index.flip(1), 4).order is not None


@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_the_entries_of_a_matrix(density, way):
    x = torch.randn(9, 7, generator=generator(3)) * (torch.rand(9, 7, generator=generator(4)) < density)
    csr, values = CSR.of_matrix(x)
    assert torch.equal(dense(csr.rowptr, csr.col, values, 7), x)
    csr, values = CSR.of_matrix(x.T)  # not contiguous
    assert torch.equal(dense(csr.rowptr, csr.col, values, 9), x.T)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_any_layout_and_type_of_edges_and_rows_will_do(dtype, way):
    edge_index = torch.randint(6, (2, 20), generator=generator(0))
    x = torch.randn(6, 4, generator=generator(1))
    wanted = by_hand(x, edge_index, 6, None)
    strided = torch.stack([edge_index, edge_index], dim=2).to(dtype)[:, :, 0]
    for ends in (edge_index.to(dtype), edge_index.T.contiguous().T.to(dtype), strided):
        torch.testing.assert_close(neighbour_sum(x.T.contiguous().T, CSR.of_edges(ends, 6)), wanted)
    torch.testing.assert_close(neighbour_sum(x[:, :2], CSR.of_edges(edge_index, 6)), wanted[:, :2])


def test_a_node_that_is_not_there_is_named():
    for edge, bad in (([0, 3], 3), ([-1, 2], -1)):
        ends = torch.tensor([edge, [1, 1]])
        with pytest.raises(ValueError, match=rf"edge_index names node {bad}, but there are features \(x\) of 3 nodes"):
            CSR.of_edges(ends, 3)


class Sizes(TorchDispatchMode):
    """The most numbers in any tensor that an operation made."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel())
        return out


def test_no_tensor_has_a_row_for_every_edge(monkeypatch):
    monkeypatch.setattr(aggregate, "BLOCK", 700)  # 43 edges of 16 numbers; does not divide 1000
    n, e, d = 9, 1000, 16
    edge_index = torch.randint(n, (2, e), generator=generator(0))
    x, weight = torch.randn(n, d, requires_grad=True), torch.rand(e, requires_grad=True)
    with Sizes() as sizes:
        got = value_and_gradients(neighbour_sum(x, CSR.of_edges(edge_index, n), weight), x, weight)
    assert sizes.largest <= 2 * e  # of numbers a edge: its ends
    torch.testing.assert_close(got, value_and_gradients(by_hand(x, edge_index, n, weight), x, weight))


def test_half_precision():
    edge_index = torch.randint(20, (2, 100), generator=generator(0))
    x = torch.randn(20, 8, generator=generator(1))
    weight = torch.rand(100, generator=generator(2)).requires_grad_()
    csr = CSR.of_edges(edge_index, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = x.to(torch.bfloat16).requires_grad_()
        got = neighbour_sum(half, csr, weight)  # torch refuses float32 weights of bf16 rows
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), by_hand(x, edge_index, 20, weight), atol=0.1, rtol=0.02)
    got.float().sum().backward()
    assert weight.grad.dtype == torch.float32 and half.grad.dtype == torch.bfloat16


# --- what is remembered -----------------------------------------------------------------------------------------------


@pytest.fixture
def built(monkeypatch):
    """The number of CSRs of edges that were made."""
    made = []
    of_edges = CSR.of_edges
    monkeypatch.setattr(CSR, "of_edges", lambda *args: made.append(args) or of_edges(*args))
    return made


@pytest.mark.parametrize("encoder", [lambda: GIN(3, 8), lambda: GCN(3, 8, layers=3), lambda: SAGE(3, 8, layers=3)])
def test_one_csr_serves_all_layers_and_directions_of_a_view(encoder, built):
    encoder, data = encoder(), ODD["ordinary"]
    data = MaskAttributes(0.0, mode="zero")(data)  # a container of its own
    data.edge_index = data.edge_index.clone()
    encoder(data).sum().backward()
    assert len(built) == 1
    h = encoder.start(data)
    for layer in encoder.layers:  # one at a time too
        h = layer(h, data)
    view = MaskAttributes(0.5, mode="zero")(data)  # leaves the edges alone
    encoder(view).sum().backward()
    assert len(built) == 1
    encoder(DropNodes(0.3)(data))
    assert len(built) == 2


ENCODERS = {
    "gin": lambda: GIN(3, 8, layers=2),
    "gcn": lambda: GCN(3, 8),
    "sage": lambda: SAGE(3, 8),
    "resgcn": lambda: ResGCN(3, 8, layers=2),
}


def plain_copy(data: Batch) -> Batch:
    """The same graphs in tensors of their own, of which nothing is remembered."""
    return data.clone()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ENCODERS)
def test_a_view_never_sees_the_edges_of_the_graph_it_came_from(name, seed):
    torch.manual_seed(seed)
    encoder, data = ENCODERS[name]().eval(), ODD["ordinary"].clone()
    encoder(data)
    for view in (DropNodes(0.4), PerturbEdges(0.5), DropNodes(0.2)):
        data = view(data)
        assert torch.equal(encoder(data), encoder(plain_copy(data)))
    data.edge_index = data.edge_index[:, ::2]
    assert torch.equal(encoder(data), encoder(plain_copy(data)))
    data.edge_index[:, :1] = 0  # written in place
    assert torch.equal(encoder(data), encoder(plain_copy(data)))
    data.edge_weight = torch.rand(data.num_edges)
    assert torch.equal(encoder(data), encoder(plain_copy(data)))
    data.edge_weight.mul_(torch.rand(data.num_edges))
    assert torch.equal(encoder(data), encoder(plain_copy(data)))
    data.edge_weight = torch.rand(data.num_edges)
    assert torch.equal(encoder(data), encoder(plain_copy(data)))
    data.edge_weight = None
    assert torch.equal(encoder(data), encoder(plain_copy(data)))


def test_more_nodes_with_the_same_edges():
    encoder, data = GIN(3, 8).eval(), batch_of([(6, ring(6), True)])
    encoder(data)
    data.x = torch.cat([data.x, torch.ones(2, 3)])
    assert torch.equal(encoder(data), encoder(plain_copy(data)))


def test_new_weights_in_the_place_of_old_ones():
    """Python gives an object the address of one that is gone: identity must not be told by it."""
    encoder, data = GCN(3, 8), ODD["ordinary"].clone()
    for seed in range(20):
        data.edge_weight = torch.rand(data.num_edges, generator=generator(seed))
        assert torch.equal(encoder(data), encoder(plain_copy(data)))


def test_what_is_remembered_goes_with_the_graph():
    gc.collect()
    before = len(aggregate._kept)
    data = ODD["ordinary"].clone()
    data.edge_weight = torch.rand(data.num_edges)
    for encoder in ENCODERS.values():
        encoder()(data).sum().backward()
    csr = weakref.ref(csr_of(data.edge_index, data.num_nodes))
    assert csr() is not None and len(aggregate._kept) > before
    del data
    gc.collect()
    assert csr() is None and len(aggregate._kept) == before
    narrow = ODD["ordinary"].edge_index.to(torch.int32)  # no copy is needed, but a view would live for ever
    csr = weakref.ref(csr_of(narrow, 20))
    del narrow
    gc.collect()
    assert csr() is None


@pytest.mark.parametrize("name", ENCODERS)
def test_learned_edge_weights_can_be_used_again_and_again(name):
    encoder, data = ENCODERS[name](), ODD["ordinary"].clone()
    weight = torch.rand(data.num_edges, requires_grad=True)
    data.edge_weight = weight
    grads = []
    for _ in range(2):
        grads += torch.autograd.grad(encoder(data).sin().sum(), weight)
    with torch.no_grad():
        encoder(data)
    grads += torch.autograd.grad(encoder(data).sin().sum(), weight)
    assert all(torch.equal(grad, grads[0]) for grad in grads) and (grads[0] != 0).any()


@pytest.mark.parametrize("name", ENCODERS)
def test_training_goes_on_after_inference_mode(name):
    encoder, data = ENCODERS[name](), ODD["ordinary"].clone()
    with torch.inference_mode():
        before = encoder.eval()(data)
        made = data.clone()
        assert torch.equal(encoder(made), before)  # tensors without a version
    out = encoder(data)
    assert torch.equal(out, before)
    out.sum().backward()
    made.edge_index.view(-1)  # an inference tensor is not remembered: a write to it could not be seen
    assert made.edge_index not in aggregate._kept


def test_remembered_asks_every_source():
    first, second = torch.zeros(3), torch.zeros(3)
    calls = []

    def ask(*sources: Tensor | None) -> int:
        return remembered("calls", lambda: calls.append(None) or len(calls), *sources)

    assert [ask(first, second), ask(first, second), ask(first, second.clone()), ask(first, None)] == [1, 1, 2, 3]
    assert [ask(first, None), ask(first.clone(), None), ask(first, None)] == [3, 4, 3]
    first[0] = 1
    assert ask(first, None) == 5


def test_data_is_copied_and_stored_without_what_is_remembered(tmp_path):
    data = batch_of([(5, path(5), True)])
    encoder = GIN(3, 8).eval()
    out = encoder(data)
    assert torch.equal(encoder(copy.deepcopy(data)), out) and torch.equal(encoder(copy.copy(data)), out)
    torch.save(data.edge_index, tmp_path / "edges.pt")
    assert torch.equal(torch.load(tmp_path / "edges.pt", weights_only=True), data.edge_index)


def test_nothing_is_remembered_of_a_parameter():
    """A fused optimizer writes into it without telling."""
    edges, eps = torch.tensor([[0], [1]]), torch.nn.Parameter(torch.zeros(1), requires_grad=False)
    made = []
    for _ in range(2):
        remembered("of a parameter", lambda: made.append(1), edges, eps)
    assert len(made) == 2
