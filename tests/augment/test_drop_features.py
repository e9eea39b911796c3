from __future__ import annotations

import graphs
import pytest
import torch
from augment_references import sigmas
from hypothesis import given, settings
from torch_geometric.data import Batch

from augment import DropFeatures


def wide(n: int, columns: int) -> Batch:
    return Batch.from_data_list([graphs.make_graph(n, graphs.path(n)) for _ in range(200)]).update(
        {"x": torch.rand(200 * n, columns) + 1}
    )


@settings(max_examples=20, deadline=None)
@given(batch=graphs.batches(features=["float", "double"]), rate=graphs.rates, seed=graphs.seeds)
def test_columns_are_zero_for_a_whole_graph(batch, rate, seed):
    out = DropFeatures(rate, generator=graphs.generator(seed))(batch)
    for before, after in zip(batch.to_data_list(), out.to_data_list(), strict=True):
        for column in range(before.x.shape[1]):
            kept = after.x[:, column].equal(before.x[:, column])
            assert kept or not after.x[:, column].any()


@settings(max_examples=20, deadline=None)
@given(batch=graphs.batches(features=["float", "double"]), rate=graphs.rates, seed=graphs.seeds)
def test_entries_are_zero_or_as_they_were(batch, rate, seed):
    """No rescaling: it is GRACE's mask, not dropout."""
    out = DropFeatures(rate, "entry", generator=graphs.generator(seed))(batch)
    assert ((out.x == batch.x) | (out.x == 0)).all()


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("mode", ["column", "entry"])
def test_the_rate_is_the_share_that_is_dropped(mode, rate):
    """Peers have inverted it: 0.1 zeroed nine entries of ten."""
    batch = wide(5, 40)
    gone = DropFeatures(rate, mode, generator=graphs.generator(1))(batch).x == 0
    drawn = gone.view(200, 5, 40)[:, 0] if mode == "column" else gone
    assert sigmas(int(drawn.sum()), drawn.numel(), rate) < 5
    assert all(sigmas(int(c), len(drawn), rate) < 5 for c in drawn.sum(0))


def test_graphs_draw_their_own_columns():
    gone = (DropFeatures(0.5, generator=graphs.generator(1))(wide(3, 40)).x == 0).view(200, 3, 40)[:, 0]
    assert sigmas(int((gone[1:] == gone[:-1]).sum()), 199 * 40, 0.5) < 5


def test_entries_of_a_column_are_drawn_apart():
    gone = (DropFeatures(0.5, "entry", generator=graphs.generator(1))(wide(3, 40)).x == 0).view(200, 3, 40)
    assert sigmas(int((gone[:, 0] == gone[:, 1]).sum()), 200 * 40, 0.5) < 5


@pytest.mark.parametrize("mode", ["column", "entry"])
def test_rate_one_leaves_nothing(mode):
    assert not DropFeatures(1.0, mode)(wide(5, 40)).x.any()


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match=r"mode.*'row'"):
        DropFeatures(0.1, "row")


def test_on_molecules(graphcl_data):
    batch = Batch.from_data_list(graphs.read_tu(graphcl_data, "MUTAG"))
    out = DropFeatures(0.4, generator=graphs.generator(1))(batch)
    for before, after in zip(batch.to_data_list(), out.to_data_list(), strict=True):
        gone = (after.x != before.x).any(0)
        assert not after.x[:, gone].any() and after.x[:, ~gone].equal(before.x[:, ~gone])
    assert not out.x.equal(batch.x)
