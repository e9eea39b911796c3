"""Readouts against a loop over graphs."""

from __future__ import annotations

import pytest
import torch
from graphs import batch_of, batches, odd_batches, path
from hypothesis import given, settings
from torch import Tensor
from torch_geometric.data import Batch, Data

from graphcl.encoders import Readout

ODD = odd_batches()
POOLS = {"sum": lambda h: h.sum(0), "mean": lambda h: h.mean(0), "max": lambda h: h.amax(0)}


def by_hand(kind: str, h: Tensor, data: Batch) -> Tensor:
    return torch.stack([POOLS[kind](h[start:end]) for start, end in zip(data.ptr, data.ptr[1:], strict=False)])


@pytest.mark.parametrize("kind", POOLS)
@settings(max_examples=25, deadline=None)
@given(data=batches())
def test_readout_equals_a_loop_over_graphs(kind, data):
    h = torch.randn(data.num_nodes, 4, dtype=torch.float64) - 5  # all negative: a maximum that starts at 0 would show
    pooled = Readout(kind)(h, data)
    assert pooled.dtype == torch.float64
    torch.testing.assert_close(pooled, by_hand(kind, h, data))


@pytest.mark.parametrize("kind", POOLS)
def test_gradients_are_those_of_the_loop(kind):
    data = ODD["isolated nodes"]
    h = torch.randn(data.num_nodes, 4, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(Readout(kind)(h, data).sin().sum(), h)
    (expected,) = torch.autograd.grad(by_hand(kind, h, data).sin().sum(), h)
    torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize("kind", POOLS)
def test_one_graph_without_a_batch_vector(kind):
    data = Data(edge_index=torch.tensor([[0], [1]]), num_nodes=5)
    h = torch.randn(5, 3)
    torch.testing.assert_close(Readout(kind)(h, data), POOLS[kind](h)[None])


@pytest.mark.parametrize("kind", POOLS)
def test_a_graph_without_nodes_keeps_its_place(kind):
    empty = Data(x=torch.empty(0, 3), edge_index=torch.empty(2, 0, dtype=torch.long))
    full = Data(x=torch.randn(4, 3) - 9, edge_index=torch.tensor([[0], [1]]))
    data = Batch.from_data_list([empty, full, empty])
    pooled = Readout(kind)(data.x, data)
    assert pooled.shape == (3, 3)
    assert torch.equal(pooled[[0, 2]], torch.zeros(2, 3))
    torch.testing.assert_close(pooled[1], POOLS[kind](full.x))


@pytest.mark.parametrize("kind", POOLS)
def test_the_order_of_nodes_within_the_batch_does_not_matter(kind):
    data = ODD["ordinary"].clone()
    h, order = torch.randn(data.num_nodes, 4, dtype=torch.float64), torch.randperm(data.num_nodes)
    mixed = data.clone()
    mixed.batch = data.batch[order]
    torch.testing.assert_close(Readout(kind)(h[order], mixed), Readout(kind)(h, data))


@pytest.mark.parametrize("kind", POOLS)
def test_twice_the_same_is_the_same(kind):
    data = batch_of([(200, path(200), True)] * 20)
    h = torch.randn(data.num_nodes, 32)
    assert torch.equal(Readout(kind)(h, data), Readout(kind)(h, data))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    data = batch_of([(600, [], True)])
    pooled = Readout("sum")(torch.ones(600, 1, dtype=dtype), data)
    assert pooled.dtype == torch.float32 and pooled.item() == 600  # in bf16 the sum stops growing at 256


def test_unknown_kinds_and_foreign_embeddings_are_refused():
    with pytest.raises(ValueError, match="unknown readout 'attention'; known: sum, mean, max"):
        Readout("attention")
    with pytest.raises(
        ValueError, match="embeddings of 5 nodes for graphs of 20; give it the view that they came from"
    ):
        Readout("sum")(torch.zeros(5, 2), ODD["ordinary"])


@pytest.mark.parametrize("wrong", [-1, 4, 10**9])
def test_a_graph_that_is_not_there_is_refused(wrong):
    data = batch_of([(3, path(3), True)] * 4)
    data.batch[-1] = wrong
    with pytest.raises(ValueError, match=f"batch names graph {wrong}, but there are 4 graphs"):
        Readout("sum")(torch.ones(data.num_nodes, 2), data)


def test_a_data_with_a_batch_of_its_own_is_pooled():
    data = Data(x=torch.ones(3, 1), batch=torch.tensor([0, 1, 0]))
    torch.testing.assert_close(Readout("sum")(data.x, data), torch.tensor([[2.0], [1.0]]))
