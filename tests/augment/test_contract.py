"""What every view must keep, whatever it does: run for each of them on each odd batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import graphs
import pytest
import torch
from device_guards import device_clean, to_meta
from hypothesis import HealthCheck, given, settings
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import BaseTransform

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
    HeatDiffusion,
    Identity,
    MaskAtoms,
    MaskAttributes,
    MaskEdgeAttributes,
    OneOf,
    PerturbEdges,
    PPRDiffusion,
    RingSubgraph,
    ShuffleNodes,
    Subgraph,
)

FLOAT = ("float", "double")
ANY = graphs.FEATURES


@dataclass(frozen=True)
class Case:
    """A view, what it takes, and what it may change."""

    make: Callable[[torch.Generator | None], Any]
    x: tuple[str, ...] = ANY  # kinds of x that it takes
    edge_attr: tuple[str, ...] = ("float", "integer", "none")
    changes: frozenset[str] = frozenset()  # attributes whose values it may change
    adds: frozenset[str] = frozenset()
    edges: str = "kept"  # "kept": a subset in the old order; "added": new ones besides; "replaced"


def case(make: Callable[[torch.Generator | None], Any], **options: Any) -> Case:
    return Case(make, **{k: frozenset(v) if isinstance(v, set) else v for k, v in options.items()})


MASKED = {"changes": {"x"}, "adds": {"masked"}}

CASES = {
    "identity": case(lambda g: Identity(generator=g)),
    "drop_nodes": case(lambda g: DropNodes(0.4, generator=g)),
    "drop_nodes all": case(lambda g: DropNodes(1.0, generator=g)),
    "perturb_edges drop": case(lambda g: PerturbEdges(0.4, generator=g)),
    "perturb_edges independent": case(lambda g: PerturbEdges(0.4, exact=False, generator=g)),
    "perturb_edges all": case(lambda g: PerturbEdges(1.0, generator=g)),
    "perturb_edges add": case(lambda g: PerturbEdges(0.3, 0.5, generator=g), edges="added"),
    "perturb_edges add all": case(lambda g: PerturbEdges(1.0, 1.0, generator=g), edges="added"),
    "subgraph": case(lambda g: Subgraph(0.5, generator=g)),
    "subgraph none": case(lambda g: Subgraph(0.0, generator=g)),
    "subgraph all": case(lambda g: Subgraph(1.0, generator=g)),
    "mask_attributes token": case(lambda g: MaskAttributes(0.4, "token", generator=g), x=FLOAT, **MASKED),
    "mask_attributes mean": case(lambda g: MaskAttributes(0.4, "mean", generator=g), x=FLOAT, changes={"x"}),
    "mask_attributes zero": case(lambda g: MaskAttributes(0.4, "zero", generator=g), x=FLOAT, changes={"x"}),
    "mask_attributes gaussian": case(lambda g: MaskAttributes(0.4, "gaussian", generator=g), x=FLOAT, changes={"x"}),
    "mask_attributes category": case(
        lambda g: MaskAttributes(0.4, "category", 120, generator=g), x=("integer",), **MASKED
    ),
    "mask_attributes all": case(lambda g: MaskAttributes(1.0, generator=g), x=FLOAT, **MASKED),
    "drop_features": case(lambda g: DropFeatures(0.4, generator=g), x=FLOAT, changes={"x"}),
    "drop_features entry": case(lambda g: DropFeatures(0.4, "entry", generator=g), x=FLOAT, changes={"x"}),
    "drop_features all": case(lambda g: DropFeatures(1.0, generator=g), x=FLOAT, changes={"x"}),
    "mask_edge_attributes": case(
        lambda g: MaskEdgeAttributes(0.4, generator=g), edge_attr=("float",), changes={"edge_attr"}
    ),
    "mask_edge_attributes category": case(
        lambda g: MaskEdgeAttributes(0.4, "category", 120, generator=g), edge_attr=("integer",), changes={"edge_attr"}
    ),
    "shuffle_nodes": case(lambda g: ShuffleNodes(generator=g), x=(*FLOAT, "integer"), changes={"x"}),
    "ppr_diffusion": case(lambda g: PPRDiffusion(generator=g), adds={"edge_weight"}, edges="replaced"),
    "ppr_diffusion top": case(lambda g: PPRDiffusion(top_k=2, generator=g), adds={"edge_weight"}, edges="replaced"),
    "heat_diffusion": case(lambda g: HeatDiffusion(generator=g), adds={"edge_weight"}, edges="replaced"),
    "adaptive_drop_edges": case(lambda g: AdaptiveDropEdges(0.5, generator=g)),
    "adaptive_drop_edges pagerank": case(lambda g: AdaptiveDropEdges(0.5, "pagerank", generator=g)),
    "adaptive_drop_edges eigenvector": case(lambda g: AdaptiveDropEdges(0.5, "eigenvector", generator=g)),
    "adaptive_drop_edges all": case(lambda g: AdaptiveDropEdges(1.0, threshold=1.0, generator=g)),
    "adaptive_mask_features": case(lambda g: AdaptiveMaskFeatures(0.5, generator=g), x=FLOAT, changes={"x"}),
    "adaptive_mask_features pagerank": case(
        lambda g: AdaptiveMaskFeatures(0.5, "pagerank", generator=g), x=FLOAT, changes={"x"}
    ),
    "adaptive_mask_features eigenvector": case(
        lambda g: AdaptiveMaskFeatures(1.0, "eigenvector", 1.0, generator=g), x=FLOAT, changes={"x"}
    ),
    "drop_leaf": case(lambda g: DropLeaf(generator=g)),
    "drop_leaf all": case(lambda g: DropLeaf(99, generator=g)),
    "drop_side_chain": case(lambda g: DropSideChain(generator=g)),
    "drop_side_chain all": case(lambda g: DropSideChain(1.0, generator=g)),
    "drop_bonds": case(lambda g: DropBonds(0.4, generator=g)),
    "drop_bonds all": case(lambda g: DropBonds(1.0, generator=g)),
    "mask_atoms": case(
        lambda g: MaskAtoms(0.4, generator=g),
        x=("integer",),
        edge_attr=("integer", "none"),
        changes={"x", "edge_attr"},
    ),
    "mask_atoms alone": case(lambda g: MaskAtoms(0.4, bond=None, generator=g), x=("integer",), changes={"x"}),
    "ring_subgraph": case(lambda g: RingSubgraph(0.5, generator=g)),
    "ring_subgraph none": case(lambda g: RingSubgraph(0.0, generator=g)),
    "one_of": case(
        lambda g: OneOf(
            [DropNodes(0.4, generator=g), PerturbEdges(0.4, generator=g), Subgraph(0.5, generator=g)], generator=g
        ),
        adds={"view_op"},
    ),
    "one_of masked": case(
        lambda g: OneOf(
            [
                Identity(),
                DropNodes(0.4, generator=g),
                PerturbEdges(0.4, 0.4, generator=g),
                MaskAttributes(0.4, generator=g),
            ],
            generator=g,
        ),
        x=FLOAT,
        changes={"x"},
        adds={"view_op", "masked"},
        edges="added",
    ),
    "compose": case(
        lambda g: Compose(
            [
                DropNodes(0.3, generator=g),
                PerturbEdges(0.3, generator=g),
                MaskAttributes(0.4, generator=g),
                DropFeatures(0.4, generator=g),
            ]
        ),
        x=FLOAT,
        **MASKED,
    ),
    "compose of one_of": case(
        lambda g: Compose(
            [OneOf([Subgraph(0.7, generator=g), Identity()], generator=g), PerturbEdges(0.2, 0.2, generator=g)]
        ),
        adds={"view_op"},
        edges="added",
    ),
}
ODD = graphs.odd_batches()


def kind_of(value: Tensor | None) -> str:
    if value is None:
        return "none"
    return {torch.float32: "float", torch.float64: "double"}.get(value.dtype, "integer")


def takes(case: Case, data: Data) -> bool:
    return kind_of(data.x) in case.x and kind_of(data.edge_attr) in case.edge_attr


def pytest_id(value: Any) -> str | None:
    return value.replace(" ", "_") if isinstance(value, str) else None


ON_ODD = [(name, odd) for name in CASES for odd in ODD if takes(CASES[name], ODD[odd])]
on_each_view = pytest.mark.parametrize("name", list(CASES), ids=pytest_id)
WITH_LOOPS = [  # views that run as compiled loops where they can; elsewhere as the others do
    *("drop_nodes", "perturb_edges drop", "perturb_edges add", "subgraph", "mask_attributes token"),
    *("mask_attributes category", "mask_edge_attributes", "one_of", "one_of masked", "compose of one_of"),
    *("drop_leaf", "drop_side_chain", "drop_side_chain all", "ring_subgraph", "ring_subgraph none"),
]
on_each_view_and_odd_batch = pytest.mark.parametrize(("name", "odd"), ON_ODD, ids=pytest_id)


def fitting(name: str) -> Batch:
    """An ordinary batch of mixed sizes that the view takes."""
    shapes = [(7, graphs.ring(7), True), (12, [*graphs.path(12), (0, 5), (3, 9)], True), (2, [(0, 1)], True)]
    shapes.append((11, [*graphs.ring(6), (0, 6), (6, 7), (6, 8), (3, 9), (9, 10)], True))
    features = {"features": CASES[name].x[0], "edge_features": CASES[name].edge_attr[0]}
    return graphs.batch_of(shapes, **features)


def same(a: Any, b: Any) -> bool:
    """Equal in type and bits; NaN equals NaN."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and a.shape == b.shape and a.equal(b)
    return type(a) is type(b) and a == b


def assert_same(a: Data, b: Data, but: set[str] | frozenset[str] = frozenset()) -> None:
    assert set(a.keys()) - but == set(b.keys()) - but
    for key in set(a.keys()) - but:
        assert same(a[key], b[key]), f"{key}: {a[key]} differs from {b[key]}"


def snapshot(data: Data) -> tuple[Data, dict[str, Any]]:
    """A deep copy, and the identity of every tensor with its version (writing in place counts it up)."""
    return data.clone(), {key: (id(value), getattr(value, "_version", None)) for key, value in data.to_dict().items()}


def assert_untouched(data: Data, before: tuple[Data, dict[str, Any]]) -> None:
    copy, identity = before
    assert_same(data, copy)
    assert snapshot(data)[1] == identity
    if isinstance(data, Batch):
        for table in ("_slice_dict", "_inc_dict"):
            assert set(getattr(data, table)) == set(getattr(copy, table))
            assert all(same(value, getattr(copy, table)[key]) for key, value in getattr(data, table).items())


def assert_contract(case: Case, before: Batch, out: Batch) -> None:
    # the batch
    assert type(out) is type(before) and out.num_graphs == before.num_graphs
    counts = torch.bincount(out.batch, minlength=before.num_graphs)
    assert len(counts) == before.num_graphs and (counts > 0).all(), "a graph vanished"
    assert (out.batch.diff() >= 0).all() and out.ptr.diff().equal(counts) and out.num_nodes == int(counts.sum())
    dropped = {"edge_attr", "edge_id", "edge_pair"} & set(before.keys()) if case.edges == "replaced" else set()
    assert set(out.keys()) == (set(before.keys()) | case.adds) - dropped
    for key in ("y", "graph_id", "smiles"):
        assert same(out[key], before[key])

    # nodes: a subset in the old order, and every attribute with them
    assert (out.n_id.diff() > 0).all()
    where = torch.searchsorted(before.n_id, out.n_id)
    for key in {"x", "n_id", "pos", "train_mask", "batch"} & set(before.keys()):
        assert out[key].dtype == before[key].dtype and len(out[key]) == out.num_nodes
        if key not in case.changes:
            assert out[key].equal(before[key][where]), key
    if "x" in before:
        assert out.x.shape[1] == before.x.shape[1] and out.x.isfinite().all()

    # edges
    src, dst = out.edge_index
    assert out.edge_index.shape == (2, out.num_edges) and out.edge_index.dtype == torch.long
    assert ((out.edge_index >= 0) & (out.edge_index < out.num_nodes)).all(), "an edge leads nowhere"
    assert out.batch[src].equal(out.batch[dst]), "an edge crosses graphs"
    assert (out.batch[src].diff() >= 0).all(), "edges of a graph do not lie together"
    if case.edges == "replaced":
        assert out.edge_weight.shape == (out.num_edges,) and (out.edge_weight > 0).all()
        assert out.edge_weight.isfinite().all() and out.edge_weight.is_floating_point()
    else:
        order = before.edge_id.argsort()
        origin = order[torch.searchsorted(before.edge_id[order], out.edge_id)]
        for key in {"edge_attr", "edge_id", "edge_pair"} & set(before.keys()):
            assert out[key].dtype == before[key].dtype and len(out[key]) == out.num_edges
            if key not in case.changes:
                assert out[key].equal(before[key][origin]), key
        assert before.batch[before.edge_index[0, origin]].equal(out.batch[src]), "attributes come from another graph"
        if case.edges == "kept":
            assert (origin.diff() > 0).all(), "edges changed their order"
            assert before.n_id[before.edge_index][:, origin].equal(out.n_id[out.edge_index]), "an edge has other ends"
    if is_sorted(before, "target"):
        assert is_sorted(out, "target"), "edges sorted by target came out unsorted"
    elif is_sorted(before, "source") and case.edges != "replaced":
        assert is_sorted(out, "source"), "edges sorted by source came out unsorted"

    # slice tables
    parts = out.to_data_list()
    assert len(parts) == before.num_graphs
    assert_same(out[before.num_graphs - 1], parts[-1])
    for i, part in enumerate(parts):
        assert part.num_nodes == int(counts[i]) and part.y.equal(before[i].y) and part.smiles == before[i].smiles
        assert part.n_id.equal(out.n_id[out.batch == i])
        assert part.num_edges == 0 or int(part.edge_index.max()) < part.num_nodes
    assert_same(Batch.from_data_list(parts), out)


def is_sorted(data: Data, by: str) -> bool:
    first, second = data.edge_index if by == "source" else data.edge_index.flip(0)
    return bool(((first * int(data.num_nodes) + second).diff() >= 0).all())


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
