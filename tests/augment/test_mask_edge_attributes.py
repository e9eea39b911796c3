from __future__ import annotations

import graphs
import pytest
import torch
from augment_references import pairs_by_hand, sigmas
from hypothesis import given, settings
from torch_geometric.data import Batch, Data

from augment import MaskEdgeAttributes


def hidden_pairs(before: Data, gone: torch.Tensor) -> int:
    """Number of pairs whose edges are all hidden; fails where the two directions differ."""
    pairs = [[bool(gone[k]) for k in pair] for pair in pairs_by_hand(before.edge_index)]
    assert all(all(pair) == any(pair) for pair in pairs), "one direction of a pair is hidden, the other is not"
    return sum(map(all, pairs))


def parts(before: Batch, gone: torch.Tensor) -> list[tuple[Data, torch.Tensor]]:
    graph_of = before.batch[before.edge_index[0]]
    return [(part, gone[graph_of == i]) for i, part in enumerate(before.to_data_list())]


@settings(max_examples=20, deadline=None)
@given(batch=graphs.batches(), rate=graphs.rates, seed=graphs.seeds)
def test_hides_exactly_the_rounded_share_of_pairs(batch, rate, seed):
    """Zero for floats, the category for integers; e counts pairs, so that both directions are hidden together."""
    if batch.edge_attr is None:
        return
    if batch.edge_attr.is_floating_point():
        out = MaskEdgeAttributes(rate, generator=graphs.generator(seed))(batch)
        gone = (out.edge_attr == 0).all(1)
    else:
        out = MaskEdgeAttributes(rate, "category", (120, 5), generator=graphs.generator(seed))(batch)
        gone = (out.edge_attr == torch.tensor([120, 5])).all(1)
    assert out.edge_attr[~gone].equal(batch.edge_attr[~gone]) and out.edge_attr.dtype == batch.edge_attr.dtype
    for part, hidden in parts(batch, gone):
        assert hidden_pairs(part, hidden) == round(rate * len(pairs_by_hand(part.edge_index)))
    assert out.edge_index is batch.edge_index or out.edge_index.equal(batch.edge_index)


def test_one_category_for_all_columns():
    batch = graphs.odd_batches()["integer features"]
    out = MaskEdgeAttributes(1.0, "category", 99)(batch)
    assert (out.edge_attr == 99).all()


def test_every_pair_is_hidden_equally_often():
    times, e = 3000, 10
    batch = graphs.copies(graphs.make_graph(e, graphs.ring(e)), times)
    gone = (MaskEdgeAttributes(0.3, generator=graphs.generator(1))(batch).edge_attr == 0).all(1)
    each = torch.bincount(batch.edge_pair[gone], minlength=e) / 2
    assert all(sigmas(float(count), times, 0.3) < 5 for count in each)


def test_one_column_without_a_second_dimension():
    """Edge attributes [E], as edge weights are."""
    batch = graphs.odd_batches()["ordinary"]
    batch = Batch.from_data_list([part.update({"edge_attr": part.edge_attr[:, 0]}) for part in batch.to_data_list()])
    out = MaskEdgeAttributes(0.5)(batch)
    assert out.edge_attr.shape == batch.edge_attr.shape
    gone = out.edge_attr == 0
    for part, hidden in parts(batch, gone):
        assert hidden_pairs(part, hidden) == round(0.5 * len(pairs_by_hand(part.edge_index)))


def test_floats_have_no_category():
    with pytest.raises(ValueError, match="category"):
        MaskEdgeAttributes(0.1, "category", 120)(graphs.odd_batches()["ordinary"])


def test_a_category_is_named():
    with pytest.raises(ValueError, match="category"):
        MaskEdgeAttributes(0.1, "category")


def test_a_category_for_each_column():
    with pytest.raises(ValueError, match=r"3.*2"):
        MaskEdgeAttributes(0.1, "category", (7, 7, 7))(graphs.odd_batches()["integer features"])


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match=r"mode.*'mean'"):
        MaskEdgeAttributes(0.1, "mean")


def test_on_molecules(graphcl_data):
    batch = Batch.from_data_list(graphs.read_tu(graphcl_data, "MUTAG", limit=60))
    gone = (MaskEdgeAttributes(0.3, generator=graphs.generator(1))(batch).edge_attr == 0).all(1)
    for part, hidden in parts(batch, gone):
        assert hidden_pairs(part, hidden) == round(0.3 * (part.num_edges // 2))
