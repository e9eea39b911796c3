from __future__ import annotations

import graphs
import pytest
import torch
from augment_references import sigmas
from hypothesis import given, settings
from torch_geometric.data import Batch

from augment import MaskAttributes
from graphcl.encoders import GAT, GCN, GIN, SAGE, ResGCN
from graphcl.encoders.inputs import features


@settings(max_examples=20, deadline=None)
@given(batch=graphs.batches(features=["float", "double"]), rate=graphs.rates, seed=graphs.seeds)
@pytest.mark.parametrize("mode", ["token", "mean", "zero", "gaussian"])
def test_hides_exactly_the_rounded_share(mode, batch, rate, seed):
    out = MaskAttributes(rate, mode, generator=graphs.generator(seed))(batch)
    marked = MaskAttributes(rate, "token", generator=graphs.generator(seed))(batch)
    assert marked.masked.dtype == torch.bool and marked.masked.shape == (batch.num_nodes,)
    # The encoder puts its token where `masked`, so a mode that writes features of its own must not mark them.
    assert ("masked" in out) == (mode == "token")
    for before, after, like in zip(batch.to_data_list(), out.to_data_list(), marked.to_data_list(), strict=True):
        hidden = like.masked
        assert int(hidden.sum()) == round(rate * before.num_nodes)
        assert after.x.dtype == before.x.dtype and after.x[~hidden].equal(before.x[~hidden])
        if mode in {"token", "zero"}:
            assert not after.x[hidden].any()
        elif mode == "mean":
            mean = before.x.double().mean(0).to(before.x.dtype).expand(int(hidden.sum()), -1)
            assert torch.allclose(after.x[hidden], mean, rtol=1e-5)
        else:
            assert not torch.isclose(after.x[hidden], before.x[hidden], rtol=1e-6).all(1).any()


@pytest.mark.parametrize("mode", ["mean", "zero", "gaussian"])
@pytest.mark.parametrize("encoder", [GIN, GCN, GAT, SAGE, ResGCN])
def test_encoders_read_what_a_mode_writes(encoder, mode):
    batch = graphs.batch_of([(6, [(0, 1), (1, 2)], True)])
    net = encoder(batch.num_features)
    torch.nn.init.constant_(net.token, 7.0)
    out = MaskAttributes(0.5, mode, generator=graphs.generator(0))(batch)
    assert features(out, net.token).equal(out.x)
    assert (features(MaskAttributes(0.5)(batch), net.token) == 7).all(1).sum() == 3


@settings(max_examples=20, deadline=None)
@given(batch=graphs.batches(features=["integer"]), rate=graphs.rates, seed=graphs.seeds)
@pytest.mark.parametrize("category", [120, (120, 0, 7)])
def test_integer_features_get_the_reserved_category(category, batch, rate, seed):
    out = MaskAttributes(rate, "category", category, generator=graphs.generator(seed))(batch)
    assert out.x.dtype == batch.x.dtype
    assert out.x[~out.masked].equal(batch.x[~out.masked])
    assert (out.x[out.masked] == torch.tensor(category)).all()
    counts = [int(part.masked.sum()) for part in out.to_data_list()]
    assert counts == [round(rate * part.num_nodes) for part in batch.to_data_list()]


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.15, 0.29, 0.35, 0.45, 0.55, 0.95])
def test_rounds_as_python_does(rate):
    sizes = range(1, 121)
    out = MaskAttributes(rate)(graphs.batch_of([(n, [], True) for n in sizes]))
    assert [int(part.masked.sum()) for part in out.to_data_list()] == [round(rate * n) for n in sizes]


def test_every_node_is_masked_equally_often():
    out = MaskAttributes(0.3, generator=graphs.generator(1))(graphs.copies(graphs.make_graph(10, []), 3000))
    assert all(sigmas(int(count), 3000, 0.3) < 5 for count in out.masked.view(3000, 10).sum(0))


def test_gaussian_noise_has_the_moments_of_graphcl():
    """N(0.5, 0.5^2), as in GraphCL's code for the unsupervised setting."""
    graph = graphs.make_graph(50, [])
    noise = (
        MaskAttributes(1.0, "gaussian", generator=graphs.generator(1))(graphs.copies(graph, 200)).x.flatten().double()
    )
    assert abs(float(noise.mean()) - 0.5) < 5 * 0.5 / len(noise) ** 0.5
    assert abs(float(noise.std()) - 0.5) < 5 * 0.5 / (2 * len(noise)) ** 0.5
    assert noise.unique().numel() > 0.9 * len(noise)


def test_gradients_reach_the_rows_that_are_left():
    batch = graphs.batch_of([(10, [], True)])
    batch.x = batch.x.clone().requires_grad_()
    out = MaskAttributes(0.5)(batch)
    out.x.sum().backward()
    assert batch.x.grad is not None and batch.x.grad[:, 0].eq((~out.masked).float()).all()


def test_a_second_mask_adds_to_the_first():
    """Both are marked: the encoder must put its token on every row that was hidden."""
    batch = graphs.batch_of([(40, [], True)])
    once = MaskAttributes(0.3, generator=graphs.generator(1))(batch)
    twice = MaskAttributes(0.3, generator=graphs.generator(2))(once)
    assert twice.masked[once.masked].all() and twice.masked.equal(~twice.x.any(1))


def test_floats_have_no_category():
    with pytest.raises(ValueError, match="category"):
        MaskAttributes(0.1, "category", 120)(graphs.odd_batches()["ordinary"])


@pytest.mark.parametrize("mode", ["token", "mean", "gaussian"])
def test_integers_have_no_token_and_no_mean(mode):
    """A mean of category codes is another category, not the absence of one."""
    with pytest.raises(ValueError, match="category"):
        MaskAttributes(0.1, mode)(graphs.odd_batches()["integer features"])


def test_a_category_for_each_column():
    with pytest.raises(ValueError, match=r"2.*3"):
        MaskAttributes(0.1, "category", (7, 7))(graphs.odd_batches()["integer features"])


def test_a_category_is_named():
    with pytest.raises(ValueError, match="category"):
        MaskAttributes(0.1, "category")


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match=r"mode.*'nothing'"):
        MaskAttributes(0.1, "nothing")


def test_on_molecules(graphcl_data):
    parts = graphs.read_tu(graphcl_data, "MUTAG")
    out = MaskAttributes(0.2, "mean", generator=graphs.generator(1))(Batch.from_data_list(parts))
    for before, after in zip(parts, out.to_data_list(), strict=True):
        hidden = (after.x != before.x).any(1)
        assert int(hidden.sum()) == round(0.2 * before.num_nodes)
        assert torch.allclose(after.x[hidden], before.x.mean(0), atol=1e-6)
