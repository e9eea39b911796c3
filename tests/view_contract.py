"""What every view must keep, whatever it does; a case of each view, and the odd batches it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import graphs
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from augment import (
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
    mixed: bool = False  # the first view can leave edges that are sorted both ways, which the next keeps by target


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
        mixed=True,
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
        kept = is_sorted(out, "source") or (case.mixed and is_sorted(out, "target"))
        assert kept, "edges sorted by source came out unsorted"

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
