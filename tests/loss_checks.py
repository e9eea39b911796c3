"""What the tests of losses share: seeded rows, a loss with its gradients, and comparing two of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def rows(n: int, dim: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def values_and_gradients(loss: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    value = loss(*leaves)
    return [value.detach(), *torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)]


def assert_same(ours: list[Tensor], reference: list[Tensor], rtol: float = 1e-7, atol: float = 1e-9) -> None:
    for got, wanted in zip(ours, reference, strict=True):
        torch.testing.assert_close(got, wanted, rtol=rtol, atol=atol)
