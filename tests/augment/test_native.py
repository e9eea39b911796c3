"""The compiled loops against torch alone: equal results where nothing is drawn, equal distributions where it is."""

from __future__ import annotations

import builtins

import graphs
import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch_geometric.data import Batch, Data
from view_contract import assert_same

from augment import DropNodes, MaskAttributes, PerturbEdges, Subgraph, _native
from augment._plan import Plan, carried_out
from augment._segments import Graphs, edges_of, exact_share, graphs_of, undirected_pairs

pytestmark = pytest.mark.skipif(_native.native() is None, reason="needs numba")


def both(monkeypatch_or_none: None, work):
    """The result of `work` by the loops and by torch alone."""
    by_loops = work()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_native, "native", lambda: None)
        return by_loops, work()


def bernoulli(n: int, seed: int, share: float = 0.6) -> Tensor:
    return torch.rand(n, generator=graphs.generator(seed)) < share


@settings(max_examples=25, deadline=None)
@given(batch=graphs.batches(max_graphs=8), seed=graphs.seeds)
def test_filters_give_the_very_same_batch(batch, seed):
    """Nodes, edges, and both: every attribute, slice tables, increments, strides."""
    of = graphs_of(batch)
    nodes = bernoulli(batch.num_nodes, seed)
    nodes[of.ptr[:-1]] = True  # no graph vanishes
    edges = bernoulli(batch.num_edges, seed + 1)
    for plan in (Plan(nodes=nodes), Plan(edges=edges), Plan(nodes=nodes, edges=edges)):
        ours, theirs = both(None, lambda plan=plan: carried_out(batch.clone(), of, plan))
        assert_same(ours, theirs)
        assert ours.edge_index.stride() == theirs.edge_index.stride()
        for table in ("_slice_dict", "_inc_dict"):
            a, b = getattr(ours, table), getattr(theirs, table)
            assert a.keys() == b.keys()
            assert all(a[key].equal(b[key]) if isinstance(a[key], Tensor) else a[key] == b[key] for key in a)


@settings(max_examples=25, deadline=None)
@given(batch=graphs.batches(max_graphs=8))
def test_pairs_are_the_same(batch):
    ours, theirs = both(None, lambda: undirected_pairs(edges_of(batch), batch.num_nodes))
    assert ours.equal(theirs)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.bool, torch.complex64]
)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (0,)])
def test_attributes_of_any_type_and_shape_follow(dtype, shape):
    graph = graphs.make_graph(9, graphs.ring(9))
    graph.feat = (
        torch.arange(9 * max(1, torch.Size(shape).numel())).to(dtype)[: 9 * torch.Size(shape).numel()].view(9, *shape)
    )
    graph.edge_feat = torch.arange(18 * 4).to(dtype).view(18, 2, 2)[:, :, 1]  # not contiguous
    batch = Batch.from_data_list([graph, graph])
    out = DropNodes(0.4, generator=graphs.generator(0))(batch)
    kept = [torch.searchsorted(graph.n_id, part.n_id) for part in out.to_data_list()]
    assert out.feat.equal(torch.cat([graph.feat[index] for index in kept]))
    assert out.edge_feat.equal(torch.cat([graph.edge_feat[part.edge_id] for part in out.to_data_list()]))


def test_gradients_pass():
    batch = graphs.odd_batches()["ordinary"]
    batch.x = batch.x.double().requires_grad_()
    out = DropNodes(0.5, generator=graphs.generator(0))(batch)
    out.x.sum().backward()
    kept = torch.isin(batch.n_id, out.n_id)
    assert batch.x.grad.equal(kept.double().view(-1, 1).expand(-1, 3))


@pytest.mark.parametrize("bad", [-1, 4, 10**12])
@pytest.mark.parametrize("view", [DropNodes(0.5), Subgraph(0.5), PerturbEdges(0.5)], ids=repr)
def test_an_edge_that_leads_nowhere_is_an_error_and_no_crash(view, bad):
    for end in (0, 1):
        graph = Data(x=torch.ones(4, 1), edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]))
        graph.edge_index[end, 1] = bad
        with pytest.raises(IndexError, match="a node that is not there"):
            view(graph)


def test_only_plain_tensors_on_the_cpu_are_taken():
    assert _native.kernels(torch.zeros(2)) is not None
    assert _native.kernels(torch.zeros(2), torch.zeros(2, device="meta")) is None
    assert _native.kernels(torch.nn.Parameter(torch.zeros(2))) is None


def test_everything_works_without_numba(monkeypatch):
    """What happens at import, not the switch of the other tests."""
    found = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("numba"):
            raise ImportError(name)
        return found(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    _native.native.cache_clear()
    try:
        assert _native.native() is None
        assert DropNodes(0.5)(graphs.odd_batches()["ordinary"]).num_graphs == 3
    finally:
        monkeypatch.undo()
        _native.native.cache_clear()


def test_a_place_for_the_cache_is_not_needed(monkeypatch):
    import numba

    def njit(cache=False, **options):
        def decorate(function):
            if cache:
                raise RuntimeError("cannot cache function: no locator available")
            return numba.core.decorators.njit(**options)(function)

        return decorate

    monkeypatch.setattr(numba, "njit", njit)
    _native.native.cache_clear()
    try:
        mask = _native.native().choose(torch.tensor([0, 4]).numpy(), 0.5, 0, 1)
        assert mask.sum() == 2
    finally:
        monkeypatch.undo()
        _native.native.cache_clear()


# --- draws ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.29, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("spare", [0, 1])
def test_as_many_are_taken_from_segments_of_every_size(rate, spare):
    """Halves are rounded to the even neighbour in both ways."""
    counts = torch.arange(130)
    ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    segment = torch.repeat_interleave(counts, counts)
    taken = both(None, lambda: exact_share(segment, rate, ptr, None, ascending=True, spare=spare))
    expected = [max(min(round(rate * n), n - spare), 0) for n in range(130)]
    for mask in taken:
        assert torch.zeros(130, dtype=torch.long).index_add_(0, segment, mask.long()).tolist() == expected


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_every_subset_is_drawn_equally_often(way, k):
    """All subsets of k of 5, in 6,000 segments: chi-squared below its mean by six sigma at most."""
    times, n = 6000, 5
    segment = torch.arange(times).repeat_interleave(n)
    ptr = torch.arange(times + 1) * n
    taken = exact_share(segment, k / n, ptr, graphs.generator(1), ascending=True).view(times, n)
    kinds = torch.bincount((taken.long() << torch.arange(n)).sum(1), minlength=2**n)
    there = kinds[[i for i in range(2**n) if i.bit_count() == k]].double()
    assert int(there.sum()) == times
    expected, free = times / len(there), len(there) - 1
    assert float(((there - expected) ** 2 / expected).sum()) < free + 6 * (2 * free) ** 0.5


@pytest.mark.parametrize("view", [DropNodes(0.4), MaskAttributes(0.4), PerturbEdges(0.4), Subgraph(0.4)], ids=repr)
def test_one_seed_one_result(view, way):
    batch = graphs.odd_batches()["ordinary"]
    torch.manual_seed(3)
    first, other = view(batch), view(batch)
    torch.manual_seed(3)
    assert_same(view(batch), first)
    assert_same(view(batch), other)


# --- the walk ---------------------------------------------------------------------------------------------------------

NETWORKS = {
    "lollipop": nx.lollipop_graph(4, 5),
    "star": nx.star_graph(6),
    "two parts": nx.disjoint_union(nx.path_graph(4), nx.cycle_graph(5)),
    "isolated": nx.disjoint_union(nx.path_graph(3), nx.empty_graph(4)),
    "karate": graphs.real_networks()["karate"],
}


@pytest.mark.parametrize("keep", [0.3, 0.8])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_walks_visit_the_same_sets(name, keep):
    """Two samples: how often each node is kept, how many edges, and, where few are possible, how often each set."""
    network, times = NETWORKS[name], 2500
    batch = graphs.copies(graphs.from_networkx(network), times)
    n = len(network)
    masks = both(None, lambda: Subgraph(keep, generator=graphs.generator(7)).plan(batch, graphs_of(batch)).nodes)
    ours, theirs = (mask.view(times, n).double() for mask in masks)
    assert (ours.sum(1) == max(round(keep * n), 1)).all() and (theirs.sum(1) == ours.sum(1)).all()
    p, q = ours.mean(0), theirs.mean(0)
    spread = ((p * (1 - p) + q * (1 - q)) / times).sqrt() + 1e-9
    assert float(((p - q).abs() / spread).max()) < 5
    src, dst = graphs.from_networkx(network).edge_index
    edges = [(sample[:, src] * sample[:, dst]).sum(1) for sample in (ours, theirs)]
    error = ((edges[0].var() + edges[1].var()) / times).sqrt() + 1e-9
    assert abs(float(edges[0].mean() - edges[1].mean())) < 5 * float(error)
    if n <= 10:
        codes = [(sample.long() << torch.arange(n)).sum(1) for sample in (ours, theirs)]
        a, b = (torch.bincount(code, minlength=2**n).double() for code in codes)
        common = a + b >= 20
        free = int(common.sum())
        assert float(((a - b) ** 2 / (a + b))[common].sum()) < free + 6 * (2 * free) ** 0.5


@pytest.mark.parametrize("n", [33, 200, 700])
@pytest.mark.parametrize("keep", [0.3, 0.8])
def test_long_chains_are_kept_whole(n, keep):
    """The loops follow neighbours of neighbours to any distance; torch alone stops after 64."""
    graph = graphs.make_graph(n, graphs.path(n))
    for seed in range(10):
        out = Subgraph(keep, generator=graphs.generator(seed))(graph)
        assert out.num_nodes == round(keep * n) and out.n_id.diff().eq(1).all()


def test_a_batch_set_by_hand_and_mixed_up():
    """Without ptr the nodes may lie in any order: nothing that needs them in order is used."""
    graph = Data(x=torch.arange(6.0).view(-1, 1), edge_index=torch.tensor([[0, 2, 1, 3], [2, 4, 3, 5]]))
    graph.batch = torch.tensor([0, 1, 0, 1, 0, 1])
    for view in (DropNodes(0.34), Subgraph(0.67), MaskAttributes(0.34)):
        out = view(graph)
        left = ~out.masked if "masked" in out else torch.ones(out.num_nodes, dtype=torch.bool)
        assert torch.bincount(out.batch[left]).tolist() == [2, 2]


def test_graphs_know_their_sizes():
    of = Graphs(2, torch.tensor([0, 0, 1]), torch.tensor([0, 2, 3]), True)
    assert of.counts.tolist() == [2, 1]


def test_edges_between_graphs_are_wrong_and_no_crash():
    src, dst = torch.randint(0, 40, (2, 300), generator=graphs.generator(0))
    batch = Batch.from_data_list([Data(x=torch.ones(4, 1), edge_index=torch.zeros(2, 30).long())] * 10)
    batch.edge_index = torch.stack([src, dst])
    for seed in range(20):
        nodes = Subgraph(0.7, generator=graphs.generator(seed)).plan(batch, graphs_of(batch)).nodes
        assert (nodes.view(10, 4).sum(1) == 3).all()
