"""Dropout by random words: rate, scale, gradient, and torch's own wherever it is not on the CPU or not training."""

import pytest
import torch

from graphcl.encoders.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_rate_and_scale(p, dtype):
    n = 100_003  # four to a word: this one leaves some over
    out = Dropout(p)(torch.ones(n, dtype=dtype))
    assert out.dtype == dtype
    dropped = (out == 0).float().mean().item()
    assert abs(dropped - p) < 5 * (p * (1 - p) / n) ** 0.5 + 2**-16
    assert torch.allclose(
        out[out != 0].float(), torch.tensor(1 / (1 - p)), rtol=1e-2 if dtype == torch.bfloat16 else 1e-4
    )


def test_gradient_flows_where_it_is_kept():
    h = torch.randn(301, 7, requires_grad=True)
    out = Dropout(0.5)(h)
    out.sum().backward()
    torch.testing.assert_close(h.grad, torch.where(out == 0, 0.0, 2.0))
    assert torch.equal(out.detach(), h.detach() * h.grad)


def test_neighbours_are_drawn_apart():
    kept = (Dropout(0.5)(torch.ones(4096, 4)) != 0).float()
    assert (torch.corrcoef(kept.T) - torch.eye(4)).abs().max() < 5 / 64


def test_same_seed_same_zeros_and_eval_is_the_identity():
    layer, h = Dropout(0.5), torch.randn(64, 3)
    torch.manual_seed(1)
    one = layer(h)
    torch.manual_seed(1)
    assert torch.equal(one, layer(h))
    assert torch.equal(layer.eval()(h), h)
    assert torch.equal(Dropout(0.0)(h), h) and not Dropout(1.0)(h).any()


@pytest.mark.parametrize("shape", [(0, 3), (1,), (2, 3, 5)])
def test_odd_shapes_and_strides(shape):
    h = torch.randn(shape)
    assert Dropout(0.5)(h).shape == shape
    wide = torch.randn(10, 6).t()
    out = Dropout(0.5)(wide)
    assert torch.equal(out[out != 0], 2 * wide[out != 0])
