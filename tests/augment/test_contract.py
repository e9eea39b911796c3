"""The contract of views, run for each of them on odd batches, on any batch and on molecules."""

from __future__ import annotations

import inspect

import graphs
import pytest
import torch
from device_guards import device_clean, to_meta
from hypothesis import HealthCheck, given, settings
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import BaseTransform
from view_contract import (
    CASES,
    FLOAT,
    ODD,
    ON_ODD,
    WITH_LOOPS,
    Case,
    assert_contract,
    assert_same,
    assert_untouched,
    fitting,
    is_sorted,
    kind_of,
    on_each_view,
    on_each_view_and_odd_batch,
    pytest_id,
    same,
    snapshot,
    takes,
)

from augment import (
    AUGMENTATIONS,
    AdaptiveDropEdges,
    AdaptiveMaskFeatures,
    Compose,
    DropBonds,
    DropFeatures,
    DropLeaf,
    DropNodes,
    DropSideChain,
    Identity,
    MaskAtoms,
    MaskAttributes,
    MaskEdgeAttributes,
    OneOf,
    PerturbEdges,
    RingSubgraph,
    Subgraph,
)


def test_every_augmentation_has_a_case():
    assert {name.split()[0] for name in CASES} - {"compose"} == set(AUGMENTATIONS)
    for name, view in AUGMENTATIONS.items():
        assert "".join(part.title() for part in name.split("_")).lower() == view.__name__.lower()


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_is_a_pyg_transform_that_takes_a_generator(name):
    assert issubclass(AUGMENTATIONS[name], BaseTransform)
    assert inspect.signature(AUGMENTATIONS[name]).parameters["generator"].kind is inspect.Parameter.KEYWORD_ONLY


@on_each_view
def test_its_repr_names_it(name):
    view = CASES[name].make(None)
    assert type(view).__name__ in repr(view)


@on_each_view_and_odd_batch
def test_contract_on_odd_batches(name, odd):
    batch = ODD[odd]
    before = snapshot(batch)
    assert_contract(CASES[name], batch, CASES[name].make(graphs.generator(0))(batch))
    assert_untouched(batch, before)


@pytest.mark.parametrize(("name", "odd"), [(n, odd) for n, odd in ON_ODD if n in WITH_LOOPS], ids=pytest_id)
def test_contract_on_odd_batches_in_torch_alone(name, odd, torch_alone):
    test_contract_on_odd_batches(name, odd)


@on_each_view
@settings(max_examples=6, deadline=None)
@given(batch=graphs.batches(), seed=graphs.seeds)
def test_contract_on_any_batch(name, batch, seed):
    if takes(CASES[name], batch):
        before = snapshot(batch)
        assert_contract(CASES[name], batch, CASES[name].make(graphs.generator(seed))(batch))
        assert_untouched(batch, before)


@pytest.mark.parametrize("name", WITH_LOOPS, ids=pytest_id)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=graphs.batches(), seed=graphs.seeds)
def test_contract_on_any_batch_in_torch_alone(name, torch_alone, batch, seed):
    test_contract_on_any_batch.hypothesis.inner_test(name, batch, seed)


def test_edges_sorted_both_ways_after_the_first_view_stay_sorted_by_target(torch_alone):
    """As hypothesis found it: sorted by source alone, then by both once a node is gone, then new edges are added."""
    edges = torch.tensor([[0, 3, 4, 4, 8, 12, 12], [1, 0, 4, 4, 5, 9, 12]])
    case, found = CASES["compose of one_of"], set()
    for seed in range(60):
        batch = Batch.from_data_list([Data(x=torch.ones(13, 1), edge_index=edges)])
        first, second = case.make(graphs.generator(seed)).views
        between = first(batch)
        out, by = second(between), "target" if is_sorted(between, "target") else "source"
        assert is_sorted(between, "source") and is_sorted(out, by)
        found.add(by)
    assert found == {"source", "target"}


@on_each_view
@pytest.mark.parametrize("by", ["source", "target"])
def test_sorted_edges_stay_sorted(name, by):
    if CASES[name].edges == "replaced":
        by = "target"
    parts = [graphs.sorted_edges(part, by) for part in fitting(name).to_data_list()]
    batch = Batch.from_data_list(parts)
    assert is_sorted(batch, by)
    for seed in range(5):
        assert is_sorted(CASES[name].make(graphs.generator(seed))(batch), by)


@on_each_view_and_odd_batch
def test_a_graph_alone_equals_a_batch_of_one(name, odd):
    graph = ODD[odd][0]
    before = snapshot(graph)
    alone = CASES[name].make(graphs.generator(3))(graph)
    batched = CASES[name].make(graphs.generator(3))(Batch.from_data_list([graph]))
    assert type(alone) is Data
    assert_same(alone, batched[0])
    assert "batch" not in alone and "ptr" not in alone
    assert_untouched(graph, before)


@on_each_view
def test_the_generator_alone_decides(name):
    batch = fitting(name)
    torch.manual_seed(1)
    first = CASES[name].make(graphs.generator(5))(batch)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert_same(first, CASES[name].make(graphs.generator(5))(batch))
    assert torch.get_rng_state().equal(state), "torch's own generator was used besides the given one"


@on_each_view
def test_without_a_generator_torchs_own_decides(name):
    batch = fitting(name)
    view = CASES[name].make(None)
    torch.manual_seed(1)
    first = view(batch)
    torch.manual_seed(1)
    assert_same(first, view(batch))


RANDOM = [name for name in CASES if name.split()[0] not in {"identity", "ppr_diffusion", "heat_diffusion"}]


@pytest.mark.parametrize("name", [n for n in RANDOM if n.split()[-1] not in {"all", "none"}], ids=pytest_id)
def test_draws_differ_from_call_to_call(name):
    batch = fitting(name)
    view = CASES[name].make(graphs.generator(0))
    outs = [view(batch) for _ in range(10)]

    def equal(a: Data, b: Data) -> bool:
        return set(a.keys()) == set(b.keys()) and all(same(a[key], b[key]) for key in set(a.keys()))

    assert not all(equal(outs[0], other) for other in outs[1:])


NOTHING_TO_DO = {
    "identity": Identity(),
    "drop_nodes": DropNodes(0.0),
    "drop_nodes too few": DropNodes(0.01),
    "perturb_edges": PerturbEdges(0.0, 0.0),
    "perturb_edges independent": PerturbEdges(0.0, 0.0, exact=False),
    "subgraph": Subgraph(1.0),
    "drop_leaf": DropLeaf(0),
    "drop_side_chain": DropSideChain(0.0),
    "drop_bonds": DropBonds(0.0),
    "ring_subgraph": RingSubgraph(1.0),
    "mask_attributes": MaskAttributes(0.0),
    "mask_attributes mean": MaskAttributes(0.0, "mean"),
    "mask_attributes gaussian": MaskAttributes(0.0, "gaussian"),
    "drop_features": DropFeatures(0.0),
    "drop_features entry": DropFeatures(0.0, "entry"),
    "mask_edge_attributes": MaskEdgeAttributes(0.0),
    "adaptive_drop_edges": AdaptiveDropEdges(0.0),
    "adaptive_drop_edges threshold": AdaptiveDropEdges(0.5, threshold=0.0),
    "adaptive_mask_features": AdaptiveMaskFeatures(0.0),
    "one_of": OneOf([Identity(), DropNodes(0.0)]),
    "compose": Compose([Identity(), DropNodes(0.0)]),
    "compose nothing": Compose([]),
}
FLOAT_ODD = [odd for odd in ODD if kind_of(ODD[odd].x) in FLOAT and kind_of(ODD[odd].edge_attr) == "float"]


@pytest.mark.parametrize("name", list(NOTHING_TO_DO), ids=pytest_id)
@pytest.mark.parametrize("odd", FLOAT_ODD, ids=pytest_id)
def test_rate_zero_is_the_identity(name, odd):
    out = NOTHING_TO_DO[name](ODD[odd])
    assert_same(out, ODD[odd], but={"masked", "view_op"})
    if "masked" in out:
        assert not out.masked.any()
    assert_contract(Case(Identity, adds=frozenset(out.keys()) - frozenset(ODD[odd].keys())), ODD[odd], out)


@on_each_view
def test_other_tensors_of_a_graph_are_kept(name):
    """What belongs to neither nodes nor edges; also in a graph with as many edges as y has rows."""
    graph = fitting(name)[1]
    graph.y = torch.randn(1, 5)
    graph.energy, graph.name, graph.scalar = 1.5, "karate", torch.tensor(2.0)
    out = CASES[name].make(graphs.generator(0))(graph)
    for key in ("y", "energy", "name", "scalar"):
        assert same(out[key], graph[key])
    one_edge = graphs.make_graph(
        4, [(1, 2)], undirected=False, features=CASES[name].x[0], edge_features=CASES[name].edge_attr[0], number=1
    )
    for seed in range(4):
        out = CASES[name].make(graphs.generator(seed))(one_edge)
        assert out.y.equal(one_edge.y) and out.graph_id.equal(one_edge.graph_id)


@on_each_view
def test_attributes_are_still_recognised_afterwards(name):
    """PyG remembers which attributes belong to nodes; the memory of the input must not leak into the result."""
    graph = fitting(name)[1]
    graph.is_node_attr("n_id"), graph.is_edge_attr("edge_id"), graph.is_node_attr("y")  # fills PyG's memory
    view = CASES[name].make(graphs.generator(0))
    once = view(graph)
    if takes(CASES[name], once):
        view(once)  # a view of a view
    for data in (graph, once):
        fresh = Data.from_dict(data.to_dict())
        for key in sorted(data.keys()):
            assert data.is_node_attr(key) == fresh.is_node_attr(key), key
            assert data.is_edge_attr(key) == fresh.is_edge_attr(key), key


@on_each_view
def test_views_of_views_keep_the_contract(name):
    """Twice in a row on a batch: the slice tables of the first result are good enough to work from."""
    batch = fitting(name)
    case = CASES[name]
    once = case.make(graphs.generator(0))(batch)
    twice = case.make(graphs.generator(1))(once)
    assert_same(Batch.from_data_list(twice.to_data_list()), twice)
    assert twice.num_graphs == batch.num_graphs and twice.y.equal(batch.y)


@on_each_view
def test_seeds_of_a_neighbour_sample_stay_first(name):
    """In a neighbour-sampled Data the first batch_size rows are the seeds."""
    graph = fitting(name)[1]
    graph.batch_size = 4
    for seed in range(10):
        out = CASES[name].make(graphs.generator(seed))(graph)
        assert out.batch_size == 4 and out.n_id[:4].equal(graph.n_id[:4])
        assert out.num_nodes >= 4


@on_each_view
def test_gradients_flow_through_to_x(name):
    if "float" not in CASES[name].x:
        pytest.skip("takes integer features only")
    graph = fitting(name)
    graph.x = graph.x.clone().requires_grad_()
    out = CASES[name].make(graphs.generator(0))(graph)
    if out.x.grad_fn is not None:
        out.x.sum().backward()
        assert graph.x.grad is not None
    else:
        assert out.x is graph.x or not out.x.any(), "x was detached"


WRONG = [-0.1, 1.5, float("nan"), "a"]
WITH_A_RATE = {
    "drop_nodes": lambda r: DropNodes(r),
    "perturb_edges drop": lambda r: PerturbEdges(drop=r),
    "perturb_edges add": lambda r: PerturbEdges(add=r),
    "subgraph": lambda r: Subgraph(r),
    "drop_bonds": lambda r: DropBonds(r),
    "drop_side_chain": lambda r: DropSideChain(r),
    "mask_atoms": lambda r: MaskAtoms(r),
    "ring_subgraph": lambda r: RingSubgraph(r),
    "mask_attributes": lambda r: MaskAttributes(r),
    "drop_features": lambda r: DropFeatures(r),
    "mask_edge_attributes": lambda r: MaskEdgeAttributes(r),
    "adaptive_drop_edges": lambda r: AdaptiveDropEdges(r),
    "adaptive_drop_edges threshold": lambda r: AdaptiveDropEdges(threshold=r),
    "adaptive_mask_features": lambda r: AdaptiveMaskFeatures(r),
    "adaptive_mask_features threshold": lambda r: AdaptiveMaskFeatures(threshold=r),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", list(WITH_A_RATE), ids=pytest_id)
def test_a_wrong_rate_is_refused(name, wrong):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]") as error:
        WITH_A_RATE[name](wrong)
    assert repr(wrong) in str(error.value)


NEEDS_X = [name for name in CASES if "none" not in CASES[name].x and not name.startswith(("one_of", "compose"))]


@pytest.mark.parametrize("name", NEEDS_X, ids=pytest_id)
def test_missing_features_are_named(name):
    with pytest.raises(ValueError, match=r"\bx\b"):
        CASES[name].make(None)(ODD["no features"])


@pytest.mark.parametrize("name", [n for n in CASES if "none" not in CASES[n].edge_attr], ids=pytest_id)
def test_missing_edge_features_are_named(name):
    with pytest.raises(ValueError, match=r"\bedge_attr\b"):
        CASES[name].make(None)(ODD["no edge features"])


SAME_PATH = {"one_of", "compose of one_of", "adaptive_mask_features eigenvector", "heat_diffusion"}  # as another case
ON_DEVICE = [
    n for n in CASES if n.split()[-1] not in {"all", "none", "mean", "zero", "pagerank"} and n not in SAME_PATH
]


@pytest.mark.parametrize("name", ON_DEVICE, ids=pytest_id)
def test_stays_on_the_device(name):
    batch = fitting(name)
    view = CASES[name].make(None)
    with device_clean() as mode:
        out = view(to_meta(batch, mode))
        for key, value in out.to_dict().items():
            assert not isinstance(value, Tensor) or value.device.type == "meta", key


@pytest.mark.parametrize("name", ["drop_nodes", "perturb_edges add", "mask_attributes token"], ids=pytest_id)
def test_a_graph_alone_stays_on_the_device(name):
    graph = fitting(name)[1]
    view = CASES[name].make(None)
    with device_clean() as mode:
        out = view(to_meta(graph, mode))
        assert out.edge_index.device.type == out.x.device.type == "meta"


ON_FLOAT = [name for name in CASES if "float" in CASES[name].x and "float" in CASES[name].edge_attr]


@pytest.fixture(scope="module")
def molecules(graphcl_data) -> Batch:
    parts = graphs.read_tu(graphcl_data, "MUTAG", limit=50)
    for number, part in enumerate(parts):
        part.pos, part.train_mask, part.edge_pair = part.x[:, :2], part.n_id % 3 == 0, part.edge_id
        part.smiles = f"molecule {number}"
    return Batch.from_data_list(parts)


@pytest.mark.parametrize("name", ON_FLOAT, ids=pytest_id)
def test_contract_on_molecules(name, molecules):
    before = snapshot(molecules)
    assert_contract(CASES[name], molecules, CASES[name].make(graphs.generator(0))(molecules))
    assert_untouched(molecules, before)


@on_each_view
def test_edges_may_be_int32(name):
    wide = fitting(name)
    narrow = wide.clone()
    narrow.edge_index = wide.edge_index.int()
    outs = [CASES[name].make(graphs.generator(3))(batch) for batch in (wide, narrow)]
    assert_same(*(out.update({"edge_index": out.edge_index.long()}) for out in outs))


@pytest.mark.parametrize("name", [n for n in CASES if n.startswith("perturb_edges")], ids=pytest_id)
def test_pairs_of_many_nodes_do_not_overflow_int32(name, torch_alone):
    n = 60_000
    ring = torch.stack([torch.arange(n), torch.arange(1, n + 1) % n])
    wide = Data(x=torch.ones(n, 1), edge_index=torch.cat([ring, ring.flip(0)], 1))
    narrow = wide.clone()
    narrow.edge_index = wide.edge_index.int()
    outs = [CASES[name].make(graphs.generator(3))(data) for data in (wide, narrow)]
    assert torch.equal(outs[0].edge_index, outs[1].edge_index.long())
