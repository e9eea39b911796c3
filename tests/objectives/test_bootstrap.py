import pytest
import torch
from references import byol_by_hand
from torch import Tensor

from graphcl.objectives import bootstrap


def rows(n: int, dim: int, seed: int) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("size", [(1, 3), (5, 1), (8, 7)])
def test_it_is_byols_sum(size):
    p, z = rows(*size, 1).requires_grad_(), rows(*size, 2)
    ours, paper = bootstrap(p, z), byol_by_hand(p, z)
    torch.testing.assert_close(ours, paper, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(ours, p)[0], torch.autograd.grad(paper, p)[0], rtol=1e-7, atol=1e-12)


def test_the_target_gets_no_gradient():
    p, z = rows(4, 3, 3).requires_grad_(), rows(4, 3, 4).requires_grad_()
    bootstrap(p, z).backward()
    assert p.grad.abs().sum() > 0 and z.grad is None


def test_from_zero_to_four():
    z = rows(6, 4, 5)
    assert bootstrap(z, 3 * z).item() == pytest.approx(0, abs=1e-12)
    assert bootstrap(z, -z).item() == pytest.approx(4, rel=1e-12)
    assert bootstrap(torch.eye(4), torch.eye(4).roll(1, 0)).item() == pytest.approx(2, rel=1e-6)


def test_neither_order_nor_length_of_the_rows_matters():
    p, z = rows(9, 5, 6), rows(9, 5, 7)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(8))
    lengths = torch.logspace(-3, 3, 9, dtype=torch.float64)[:, None]
    assert bootstrap(p[order] * lengths, z[order]).item() == pytest.approx(bootstrap(p, z).item(), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_the_float32_loss(dtype):
    p, z = rows(32, 16, 9).to(dtype), rows(32, 16, 10).to(dtype)
    assert bootstrap(p, z).item() == pytest.approx(bootstrap(p.float(), z.float()).item(), rel=0.01)


def test_zero_rows_stay_finite():
    p, z = rows(4, 3, 11), rows(4, 3, 12)
    p[0], z[0], z[2] = 0, 0, 0
    p.requires_grad_()
    value = bootstrap(p, z)
    value.backward()
    assert value.isfinite() and p.grad.isfinite().all()


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 3\).*\(4, 2\)"):
        bootstrap(rows(4, 3, 13), rows(4, 2, 14))
