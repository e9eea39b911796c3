"""The sparse linear layer against the dense one."""

import pytest
import torch
from device_guards import device_clean, to_meta
from torch_geometric.data import Data

from graphcl.encoders import GCN, GIN, SAGE
from graphcl.encoders.aggregate import CSR
from graphcl.encoders.sparse import MANY, ROWS, SparseLinear, crowded


@pytest.fixture
def always_sparse(monkeypatch):
    monkeypatch.setattr("graphcl.encoders.sparse.MANY", 1.0)


@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(7, 5, 3), (1, 40, 1), (30, 1, 8)])
def test_equals_the_dense_product(density, shape, always_sparse):
    n, wide, out = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, wide, generator=generator, dtype=torch.double)
    x = x * (torch.rand(n, wide, generator=generator) < density)
    layer = SparseLinear(wide, out).double()
    dense = layer.weight.detach().clone().requires_grad_()
    up = torch.randn(n, out, generator=generator, dtype=torch.double)
    got, wanted = layer(x), x @ dense.t()
    assert torch.allclose(got, wanted)
    (got * up).sum().backward()
    (wanted * up).sum().backward()
    assert torch.allclose(layer.weight.grad, dense.grad)


def test_with_a_bias(always_sparse):
    x = torch.randn(6, 4) * (torch.rand(6, 4) < 0.3)
    layer = SparseLinear(4, 3, bias=True, weight_initializer=None)
    assert torch.allclose(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))


def test_the_entries_are_looked_for_once_a_tensor(monkeypatch, always_sparse):
    x = torch.randn(6, 4) * (torch.rand(6, 4) < 0.3)
    layer, looked, of_matrix = SparseLinear(4, 3), [], CSR.of_matrix
    monkeypatch.setattr(CSR, "of_matrix", lambda x: looked.append(x) or of_matrix(x))
    layer(x).sum().backward()
    with torch.no_grad():
        SparseLinear(4, 2)(x)
    assert len(looked) == 1
    x[0, 0] = 5.0  # written in place
    assert torch.allclose(layer(x), x @ layer.weight.t())
    view = x * torch.tensor([1.0, 0.0, 1.0, 1.0])
    assert torch.allclose(layer(view), view @ layer.weight.t())
    assert len(looked) == 3


@pytest.mark.parametrize("n", [1, 5, ROWS, 3 * ROWS + 1])
def test_the_dense_product_where_many_are_not_zero(n, monkeypatch):
    few, many = (torch.arange(n * 100).view(n, 100).remainder(100) < 100 * share for share in (MANY / 2, MANY * 2))
    few[0] |= n >= ROWS  # one row says little of the others
    many[0] &= n < ROWS
    assert not crowded(few.float()) and crowded(many.float())
    assert not crowded(few[:0].float())
    layer, looked, of_matrix = SparseLinear(100, 3), [], CSR.of_matrix
    monkeypatch.setattr(CSR, "of_matrix", lambda x: looked.append(x) or of_matrix(x))
    for x in (few.float(), many.float()):
        torch.testing.assert_close(layer(x), x @ layer.weight.t())
    assert len(looked) == 1


def test_gradient_to_the_features_is_the_dense_one():
    x = torch.randn(6, 4, requires_grad=True)
    layer = SparseLinear(4, 3)
    layer(x).sum().backward()
    assert torch.allclose(x.grad, layer.weight.sum(0).expand(6, 4))


@pytest.mark.parametrize("masked", [False, True])  # with a token the features have a gradient
@pytest.mark.parametrize("kind", [GIN, GCN, SAGE])
def test_encoders_are_the_same_with_and_without(kind, masked, always_sparse):
    torch.manual_seed(0)
    x = torch.rand(40, 12, dtype=torch.double) * (torch.rand(40, 12) < 0.2)
    data = Data(x=x, edge_index=torch.randint(40, (2, 100)))
    if masked:
        data.masked = torch.arange(40) < 5
    sparse, dense = kind(12, 8, sparse_input=True).double(), kind(12, 8).double()
    dense.load_state_dict(sparse.state_dict())
    for encoder in (sparse, dense):
        encoder(data).square().sum().backward()
    torch.testing.assert_close(sparse(data), dense(data))
    for (name, a), (_, b) in zip(sparse.named_parameters(), dense.named_parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None) == (name == "token" and not masked), name
        torch.testing.assert_close(a.grad, b.grad)


def test_bf16_and_device(always_sparse):
    x = torch.rand(10, 6) * (torch.rand(10, 6) < 0.3)
    layer = SparseLinear(6, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x).float()
    assert torch.allclose(out, x @ layer.weight.t(), atol=0.05)
    with device_clean() as mode:
        on_meta = to_meta(layer, mode)
        out = on_meta(to_meta(x, mode))
        out.sum().backward()
        assert out.device.type == on_meta.weight.grad.device.type == "meta"
