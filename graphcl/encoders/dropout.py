"""Dropout that costs little on the CPU, where torch's draws its zeros one at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphcl.encoders.aggregate import on_host

STEPS = 1 << 16  # of the rate


class Dropout(nn.Dropout):
    """torch's Dropout; on the CPU four numbers are decided by one random word, so p counts in steps of 2^-16.

    Each step of fine-tuning draws a number for every atom, channel and layer: a seventh of its time under torch's.
    """

    def forward(self, h: Tensor) -> Tensor:
        """h: any shape. Returns the same shape and type."""
        dropped = round(self.p * STEPS)
        if not self.training or not 0 < dropped < STEPS or not on_host(h):
            return super().forward(h)
        words = torch.empty((h.numel() + 3) // 4, dtype=torch.int64, device=h.device).random_(-(2**63), None)
        kept = words.view(torch.int16)[: h.numel()].view(h.shape) >= dropped - STEPS // 2
        return h * kept.to(h.dtype).mul_(STEPS / (STEPS - dropped))
