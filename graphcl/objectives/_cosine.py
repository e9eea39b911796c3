"""Cosines that hold at tau = 0.01, in half precision and for zero rows, and the checks that the losses share."""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor


def unit(z: Tensor) -> Tensor:
    """Rows [..., D] scaled to length 1, in float32 or better. A zero row stays zero."""
    z = z if z.dtype == torch.float64 else z.float()
    return z * (1 / length(z, z.dtype))  # backward of the quotient itself makes three more [..., D]


def length(z: Tensor, dtype: torch.dtype) -> Tensor:
    """Lengths [..., 1] of rows [..., D]; 1 for a zero row."""
    norm = torch.linalg.vector_norm(z, dim=-1, keepdim=True, dtype=dtype)
    # Dividing by max(norm, 1e-12) would send a gradient of 1e12 into a zero row.
    return torch.where(norm > 1e-12, norm, 1.0)


def product(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b.T` [N, M], in full precision under autocast too: bf16 logits of 1 / 0.01 lie 0.5 apart."""
    with full_precision(a):
        return a @ b.T


def full_precision(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Leaves autocast on x's device."""
    device = x.device.type
    # Only devices that have autocast can be told to leave it (meta tensors have none).
    if torch.amp.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()


def check_tau(tau: float) -> None:
    """Refuse a temperature outside (0, inf)."""
    if isinstance(tau, Tensor) and tau.requires_grad and torch.is_grad_enabled():
        raise ValueError("tau is a number here and gets no gradient; give float(tau), or tau.detach()")
    if not 0 < tau < math.inf:
        raise ValueError(
            f"tau must be > 0{' and finite' if tau == math.inf else ''}, got {tau!r}; most papers use 0.07 to 0.5"
        )


def check_pair(name1: str, z1: Tensor, name2: str, z2: Tensor) -> None:
    """Refuse two sets of rows that do not match row by row."""
    if z1.dim() != 2 or z1.shape != z2.shape:
        shapes = f"{name1} {tuple(z1.shape)}, {name2} {tuple(z2.shape)}"
        raise ValueError(
            f"views differ: {shapes}; both must be [N, D], row i of one the positive of row i of the other"
        )
    check_double(name1, z1, name2, z2)
    if len(z1) == 0:
        raise ValueError(f"{name1} and {name2} have no rows; a loss needs at least one pair")


def check_double(name1: str, z1: Tensor, name2: str, z2: Tensor) -> None:
    """Refuse one set of rows in float64 and another that is not; all else is computed in float32."""
    if (z1.dtype == torch.float64) != (z2.dtype == torch.float64):
        raise ValueError(f"{name1} is {z1.dtype} and {name2} is {z2.dtype}; bring both to one of the two")


def check_places(name: str, places: Tensor, size: int) -> Tensor:
    """`places` as int64; ValueError if they are no integers or, where that can be looked at, leave 0..size-1."""
    if places.is_floating_point() or places.dtype == torch.bool:
        raise ValueError(f"{name} must be row numbers, integers, got {places.dtype}")
    if on_host(places) and places.numel():
        low, high = (int(end) for end in places.aminmax())
        if low < 0 or high >= size:
            raise ValueError(f"{name} names row {low if low < 0 else high}, but there are {size}, numbered from 0")
    return places.long()


def on_host(x: Tensor) -> bool:
    """Whether the values can be looked at without waiting: a real tensor in the CPU's memory."""
    return x.device.type == "cpu" and type(x) is Tensor and not torch.compiler.is_compiling()


def check_shape(name: str, x: Tensor, *shape: int | None) -> None:
    """Refuse a tensor that is not of this shape; None stands for any length."""
    if x.dim() != len(shape) or any(want not in (None, have) for want, have in zip(shape, x.shape, strict=True)):
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise ValueError(f"{name} must be [{wanted}], got {list(x.shape)}")
