from __future__ import annotations

import graphs
import pytest
import torch
from augment_references import sigmas
from hypothesis import given, settings
from torch_geometric.data import Batch, Data

from augment import (
    AdaptiveDropEdges,
    AdaptiveMaskFeatures,
    Compose,
    DropFeatures,
    DropNodes,
    Identity,
    MaskAttributes,
    MaskEdgeAttributes,
    OneOf,
    PerturbEdges,
    PPRDiffusion,
    ShuffleNodes,
    Subgraph,
    TwoViews,
)
from augment._plan import Plan


def equal(a: Data, b: Data) -> bool:
    return set(a.keys()) == set(b.keys()) and all(
        a[k].equal(b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in sorted(a.keys())
    )


# --- TwoViews ---------------------------------------------------------------------------------------------------------


def test_two_views_are_two_views():
    batch = graphs.odd_batches()["ordinary"]
    first, second = TwoViews(DropNodes(0.5, generator=graphs.generator(1)), Identity())(batch)
    assert equal(first, DropNodes(0.5, generator=graphs.generator(1))(batch)) and equal(second, batch)


def test_two_views_by_one_transform_differ():
    view = DropNodes(0.5, generator=graphs.generator(1))
    first, second = TwoViews(view, view)(graphs.batch_of([(30, graphs.ring(30), True)]))
    assert not first.n_id.equal(second.n_id)


def test_two_views_name_both():
    assert "DropNodes" in repr(TwoViews(DropNodes(), Identity())) and "Identity" in repr(
        TwoViews(DropNodes(), Identity())
    )


# --- Compose ----------------------------------------------------------------------------------------------------------


def test_compose_applies_one_after_the_other():
    batch = graphs.odd_batches()["ordinary"]
    out = Compose([DropNodes(0.3, generator=graphs.generator(1)), DropFeatures(0.5, generator=graphs.generator(2))])(
        batch
    )
    step = DropNodes(0.3, generator=graphs.generator(1))(batch)
    assert equal(out, DropFeatures(0.5, generator=graphs.generator(2))(step))


def test_compose_of_masking_then_dropping_keeps_the_marks_in_place():
    batch = graphs.batch_of([(30, graphs.ring(30), True), (10, graphs.path(10), True)])
    out = Compose([MaskAttributes(0.4, generator=graphs.generator(1)), DropNodes(0.4, generator=graphs.generator(2))])(
        batch
    )
    assert out.masked.equal(~out.x.any(1)) and out.masked.any()
    assert Batch.from_data_list(out.to_data_list()).masked.equal(out.masked)


# --- OneOf ------------------------------------------------------------------------------------------------------------


def untouched(before: Data, after: Data) -> bool:
    return all(equal(Data(v=before[k]), Data(v=after[k])) for k in sorted(before.keys()))


def may_be(choice: int, before: Data, after: Data) -> bool:
    """Whether `after` may have come out of RANDOM4[choice]."""
    n, pairs = before.num_nodes, before.edge_pair.unique().numel()
    hidden = ~after.x.any(1)
    kept = torch.searchsorted(before.n_id, after.n_id)
    induced = torch.isin(before.edge_index, kept).all(0)
    masked_alike = "masked" not in after or after.masked.equal(hidden)
    if choice == 0:
        return untouched(before, after) and not hidden.any() and masked_alike
    if choice in (1, 3):  # node drop, subgraph
        size = n - round(0.5 * n) if choice == 1 else round(0.3 * n)
        whole = after.edge_id.equal(before.edge_id[induced])
        return after.num_nodes == max(size, 1) and whole and not hidden.any() and masked_alike
    if choice == 2:  # edge drop
        left = after.edge_pair.unique().numel()
        return after.n_id.equal(before.n_id) and left == pairs - round(0.4 * pairs) and after.x.equal(before.x)
    return int(after.masked.sum()) == round(0.6 * n) and masked_alike and after.edge_index.equal(before.edge_index)


def random4(seed: int) -> OneOf:
    g = graphs.generator(seed)
    views = [
        Identity(),
        DropNodes(0.5, generator=g),
        PerturbEdges(0.4, generator=g),
        Subgraph(0.3, generator=g),
        MaskAttributes(0.6, generator=g),
    ]
    return OneOf(views, generator=g)


RINGS = graphs.batch_of([(n, graphs.ring(n), True) for n in (10, 20, 30, 10, 14, 24)])


@pytest.mark.parametrize("seed", range(20))
def test_every_graph_is_what_its_choice_may_give(seed):
    out = random4(seed)(RINGS)
    assert out.view_op.shape == (6,) and out.view_op.dtype == torch.long
    for before, after, choice in zip(RINGS.to_data_list(), out.to_data_list(), out.view_op.tolist(), strict=True):
        assert after.view_op.tolist() == [choice]
        assert may_be(choice, before, after)
        others = [k for k in range(5) if k != choice and may_be(k, before, after)]
        assert not others, "the test could not tell the choices apart"


def test_choices_are_even_and_independent():
    batch = graphs.copies(graphs.make_graph(4, graphs.path(4)), 3000)
    op = OneOf([Identity(), DropNodes(0.5), Subgraph(0.5)], generator=graphs.generator(1))(batch).view_op
    assert all(sigmas(int(c), 3000, 1 / 3) < 5 for c in torch.bincount(op, minlength=3))
    assert sigmas(int((op[1:] == op[:-1]).sum()), 2999, 1 / 3) < 5


def test_a_graph_alone_has_one_choice():
    out = random4(0)(graphs.make_graph(10, graphs.ring(10)))
    assert type(out) is Data and out.view_op.shape == (1,)


def test_masks_of_one_choice_leave_the_other_graphs_unmarked():
    out = OneOf([Identity(), MaskAttributes(1.0)], generator=graphs.generator(1))(RINGS)
    assert out.masked.equal(out.view_op[out.batch] == 1)


@settings(max_examples=20, deadline=None)
@given(batch=graphs.batches(features=["float"]), seed=graphs.seeds)
def test_identity_and_everything_gone(batch, seed):
    """Neighbouring graphs with opposite choices: each is whole, or its last node."""
    g = graphs.generator(seed)
    out = OneOf([Identity(), DropNodes(1.0, generator=g), PerturbEdges(1.0, generator=g)], generator=g)(batch)
    for before, after, choice in zip(batch.to_data_list(), out.to_data_list(), out.view_op.tolist(), strict=True):
        if choice == 0:
            assert untouched(before, after)
        elif choice == 1:
            assert after.num_nodes == 1 and (after.edge_index == 0).all()
        else:
            assert after.num_nodes == before.num_nodes and after.num_edges == 0


def test_a_choice_of_a_diffusion_gives_the_other_graphs_weight_one():
    """An encoder reads edge_weight of the whole batch; the graphs as they were count their edges fully."""
    out = OneOf([Identity(), PPRDiffusion()], generator=graphs.generator(3))(RINGS)
    for before, after, choice in zip(RINGS.to_data_list(), out.to_data_list(), out.view_op.tolist(), strict=True):
        if choice == 0:
            assert after.edge_index.equal(before.edge_index) and (after.edge_weight == 1).all()
        else:
            alone = PPRDiffusion()(before)
            assert after.edge_index.equal(alone.edge_index) and torch.allclose(after.edge_weight, alone.edge_weight)
    assert 0 < int(out.view_op.sum()) < 6


def test_a_choice_of_choices():
    inner = OneOf([DropNodes(0.5), Identity()])
    out = OneOf([inner, PerturbEdges(0.5)], generator=graphs.generator(0))(RINGS)
    assert out.view_op.shape == (6,) and set(out.view_op.tolist()) <= {0, 1}


PLANNED = {
    "identity": lambda g: Identity(generator=g),
    "drop_nodes": lambda g: DropNodes(0.4, generator=g),
    "perturb_edges": lambda g: PerturbEdges(0.4, 0.3, generator=g),
    "independent": lambda g: PerturbEdges(0.4, exact=False, generator=g),
    "subgraph": lambda g: Subgraph(0.6, generator=g),
    "mask_attributes": lambda g: MaskAttributes(0.4, "gaussian", generator=g),
    "mask_edge_attributes": lambda g: MaskEdgeAttributes(0.4, generator=g),
    "drop_features": lambda g: DropFeatures(0.4, generator=g),
    "shuffle_nodes": lambda g: ShuffleNodes(generator=g),
    "adaptive_drop_edges": lambda g: AdaptiveDropEdges(0.5, generator=g),
    "adaptive_mask_features": lambda g: AdaptiveMaskFeatures(0.5, generator=g),
}


@pytest.mark.parametrize("name", ["ordinary", "isolated nodes", "self-loops", "directed and undirected", "one graph"])
def test_every_graph_is_what_the_chosen_view_gives(name, way):
    """To the bit: each view draws from its own generator, for the whole batch, in a choice as alone."""
    batch = graphs.odd_batches()[name]
    alone = [make(graphs.generator(i)).forward(batch.clone()) for i, make in enumerate(PLANNED.values())]
    for seed in range(12):
        views = [make(graphs.generator(i)) for i, make in enumerate(PLANNED.values())]
        out = OneOf(views, generator=graphs.generator(seed))(batch)
        for i, choice in enumerate(out.view_op.tolist()):
            ours, theirs = out[i], alone[choice][i]
            masked = theirs.masked if "masked" in theirs else torch.zeros(theirs.num_nodes, dtype=torch.bool)
            assert ours.masked.equal(masked) if "masked" in ours else not masked.any()
            assert all(equal(Data(v=theirs[key]), Data(v=ours[key])) for key in theirs.keys() if key != "masked")  # noqa: SIM118


def test_a_view_without_a_plan_gives_the_same_choice(way):
    """Hidden in a function, a view sees the whole batch and its graphs are picked out of what it gives."""
    batch = graphs.odd_batches()["ordinary"]

    def views(hide: bool) -> list:
        made = [make(graphs.generator(i)) for i, make in enumerate(PLANNED.values())]
        return [(lambda data, view=view: view(data)) if hide and i % 2 else view for i, view in enumerate(made)]

    for seed in range(12):
        outs = [OneOf(views(hide), generator=graphs.generator(seed))(batch) for hide in (False, True)]
        assert equal(*outs)
        assert equal(Batch.from_data_list(outs[1].to_data_list()), outs[0])


def test_a_plan_of_ones_own_may_bind_what_only_it_knows():
    """A new attribute cannot be filled for the graphs of other views, and is dropped; one that is there is chosen."""

    class Double(Identity):
        def plan(self, data, of):
            return Plan(node_values={"pos": data.pos * 2, "extra": data.pos})

    batch = graphs.odd_batches()["ordinary"]
    out = OneOf([Identity(), Double()], generator=graphs.generator(2))(batch)
    assert "extra" not in out and 0 < int(out.view_op.sum()) < 3
    assert out.pos.equal(batch.pos * (1 + out.view_op[batch.batch].view(-1, 1)))


def test_a_view_that_writes_into_its_container_is_seen_by_no_other():
    def spoil(data: Data) -> Data:
        data.x = data.x * 0
        return data

    batch = graphs.odd_batches()["ordinary"]
    out = OneOf([spoil, lambda data: data, Identity()], generator=graphs.generator(1))(batch)
    assert out.x.equal(batch.x * (out.view_op != 0)[batch.batch].view(-1, 1)) and batch.x.any()


def test_no_views_to_choose_from():
    with pytest.raises(ValueError, match="at least one"):
        OneOf([])
