"""Edge weights in every encoder: what one, zero and any other weight does, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from hypothesis import given, settings
from hypothesis import strategies as st
from small_encoders import ODD, WEIGHTED, copied, fit_for, mlp, ordinary, small
from torch import Tensor

from graphcl.encoders import ENCODERS
from graphcl.encoders.convs import GINConv, SAGEConv


@pytest.mark.parametrize("odd", ["ordinary", "isolated nodes", "self-loops", "multi-edges", "no edges"])
@pytest.mark.parametrize("name", ENCODERS)
def test_weights_of_one_are_no_weights(name, odd):
    data, encoder = fit_for(name, ODD[odd]), small(name).double()
    plain = encoder(data)
    for ones in (torch.ones(data.num_edges, dtype=torch.float64), torch.ones(data.num_edges, 1, dtype=torch.long)):
        data.edge_weight = ones
        torch.testing.assert_close(encoder(data), plain)


@pytest.mark.parametrize("name", WEIGHTED)
def test_an_edge_of_weight_zero_is_no_edge(name):
    data, encoder = ordinary(name), small(name).double()
    keep = torch.arange(data.num_edges) % 3 > 0
    without = data.clone()
    without.edge_index, without.edge_attr = data.edge_index[:, keep], data.edge_attr[keep]
    data.edge_weight = keep.double()
    torch.testing.assert_close(encoder(data), encoder(without))
    data.edge_weight = torch.zeros(data.num_edges, dtype=torch.float64)
    without.edge_index, without.edge_attr = data.edge_index[:, :0], data.edge_attr[:0]
    torch.testing.assert_close(encoder(data), encoder(without))


@pytest.mark.parametrize("name", WEIGHTED)
def test_gradients_reach_the_edge_weights(name):
    data, encoder = ordinary(name), small(name).double().eval()
    data = data[0]
    weight = (torch.rand(data.num_edges, dtype=torch.float64) + 0.5).requires_grad_()

    def out(weight: Tensor) -> Tensor:
        view = data.clone()
        view.edge_weight = weight
        return encoder(view).sin().sum()

    (grad,) = torch.autograd.grad(out(weight), weight)
    assert (grad != 0).any()
    assert torch.autograd.gradcheck(out, (weight,), eps=1e-7, atol=1e-4, nondet_tol=1e-12)


@pytest.mark.parametrize("name", WEIGHTED)
def test_all_zero_weights_have_finite_gradients(name):
    data, encoder = ordinary(name), small(name).double()
    data.edge_weight = torch.zeros(data.num_edges, dtype=torch.float64, requires_grad=True)
    encoder(data).square().sum().backward()
    assert data.edge_weight.grad.isfinite().all()


def test_gat_does_not_read_edge_weights():
    data, encoder = fit_for("gat", ODD["ordinary"]), small("gat").double()
    plain = encoder(data)
    data.edge_weight = torch.rand(data.num_edges, dtype=torch.float64)
    assert torch.equal(encoder(data), plain)


def by_hand(conv: Any, x: Tensor, edge_index: Tensor, weight: Tensor, kind: str) -> Tensor:
    """Weighted sum or mean of the neighbours, one edge at a time."""
    total, weights = torch.zeros_like(x), torch.zeros(len(x), dtype=x.dtype)
    for (u, v), w in zip(edge_index.T.tolist(), weight.tolist(), strict=True):
        total[v] += w * x[u]
        weights[v] += w
    if kind == "gin":
        return conv.nn(total + x)
    mean = torch.stack([t / w if w > 0 else t for t, w in zip(total, weights, strict=True)])
    return conv.lin_l(mean) + conv.lin_r(x)


@pytest.mark.parametrize("kind", ["gin", "sage"])
@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 6), data=st.data())
def test_weighted_convolutions_equal_a_loop_over_edges(kind, n, data):
    node = st.integers(0, n - 1)
    edges = data.draw(st.lists(st.tuples(node, node, st.sampled_from([0.0, 0.5, 1.0, 3.0])), max_size=10))
    index = torch.tensor([(u, v) for u, v, _ in edges], dtype=torch.long).reshape(-1, 2).T
    weight = torch.tensor([w for *_, w in edges], dtype=torch.float64)
    x = torch.randn(n, 3, dtype=torch.float64)
    conv = (GINConv(mlp(3, 4)) if kind == "gin" else SAGEConv(3, 4)).double()
    torch.testing.assert_close(conv(x, index, weight), by_hand(conv, x, index, weight, kind))
    plain = copied(pyg.GINConv(mlp(3, 4)) if kind == "gin" else pyg.SAGEConv(3, 4), conv)
    torch.testing.assert_close(conv(x, index), plain(x, index))


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_that_do_not_fit_the_edges_are_refused(name):
    data = ordinary(name)
    data.edge_weight = torch.ones(5)
    with pytest.raises(ValueError, match=rf"edge_weight has 5 entries for {data.num_edges} edges; it must be \[E\]"):
        small(name).double()(data)
