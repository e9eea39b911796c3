"""Rows up to a round number, where a product of another size would cost more than the product.

On the CPU torch multiplies in bfloat16 by code that is generated for the very sizes, in milliseconds for each new one,
and every batch of graphs has its own number of nodes. In round sizes the code is found again: for molecules in
batches of 32 the products then take a quarter of the time. float32 has no such cost.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from graphcl.encoders.aggregate import on_host

ROWS = 64


def short_rows(h: Tensor) -> int:
    """How many rows h [N, D] lacks to a multiple of 64; 0 where products are not in bfloat16 on the CPU."""
    if not on_host(h):
        return 0
    half = h.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
    return -h.size(0) % ROWS if half else 0


def with_rows(h: Tensor, more: int) -> Tensor:
    """h [N, D] and so many rows of zeros, [N + more, D]."""
    return F.pad(h, (0, 0, 0, more)) if more else h
