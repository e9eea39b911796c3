"""Which candidates of an anchor count, and how much: masks and weights, in whole matrices and in blocks of rows."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from graphcl.objectives._cosine import check_shape

# (logits [n, M], numbers of their rows [n]) -> weights [n, M] of the negatives.
Weights = Callable[[Tensor, Tensor], Tensor]


class Candidates:
    """Cross entropy over rows of logits, of which one candidate is the positive and some may count less, or not.

    target: [N], the column of each row's positive. own: [N], the column that is the anchor itself and no candidate.
    mask, weights: as `infonce` and `ntxent` take them, `shape` [N / views, M / views] each.
    """

    def __init__(
        self,
        target: Tensor,
        *,
        own: Tensor | None = None,
        mask: Tensor | None,
        weights: Tensor | Weights | None,
        shape: tuple[int, int],
        views: int = 1,
    ) -> None:
        if mask is not None:
            check_shape("mask", mask, *shape)
            if mask.dtype != torch.bool:
                raise ValueError(f"mask must be bool, False where a candidate is no negative, got {mask.dtype}")
        if isinstance(weights, Tensor):
            check_shape("weights", weights, *shape)
            if not weights.is_floating_point():
                raise ValueError(f"weights must be floating-point numbers >= 0, got {weights.dtype}")
        self.target, self.own, self.mask, self.weights, self.views = target, own, mask, weights, views
        self.items = shape[0]
        self.plain = mask is None and weights is None

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """Mean over the rows of logits [N, M]; the gradient is autograd's."""
        if self.own is not None:
            logits = logits.scatter(1, self.own[:, None], -math.inf)
        bias = self._bias(logits.detach(), slice(0, len(logits)))
        if bias is not None:
            positive = logits.gather(1, self.target[:, None])
            logits = (logits + bias).scatter(1, self.target[:, None], positive)
        # Not log(exp / sum): exp(1 / tau) is already inf in fp16 at tau = 0.09.
        return F.cross_entropy(logits, self.target)

    def row_loss(self, logits: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """Losses [n] of some rows of logits [n, M], and their gradient [n, M], written over the logits."""
        target = self.target[rows, None]
        if self.own is not None:
            logits.scatter_(1, self.own[rows, None], -math.inf)
        positive = logits.gather(1, target)
        bias = self._bias(logits, rows)
        if bias is not None:
            logits.add_(bias).scatter_(1, target, positive)
        top = logits.amax(1, keepdim=True)
        exps = logits.sub_(top).exp_()
        total = exps.sum(1, keepdim=True)
        losses = (total.log() + (top - positive))[:, 0]
        return losses, exps.div_(total).scatter_add_(1, target, -torch.ones_like(positive))

    def _bias(self, logits: Tensor, rows: slice) -> Tensor | None:
        """Logarithms of the weights [n, M], -inf where the mask is False; None if all weights are 1."""
        if self.plain:
            return None
        numbers = torch.arange(rows.start, rows.stop, device=logits.device)
        items = numbers % self.items
        if self.weights is None:
            bias = torch.zeros_like(logits)
        elif isinstance(self.weights, Tensor):
            bias = self._of_items(self.weights, items).detach().to(logits.dtype).log()
        else:
            given = self.weights(logits, numbers)
            check_shape("what weights() returned", given, *logits.shape)
            bias = given.detach().to(logits.dtype).log()
        return bias if self.mask is None else bias.masked_fill_(~self._of_items(self.mask, items), -math.inf)

    def _of_items(self, table: Tensor, items: Tensor) -> Tensor:
        rows = table.index_select(0, items)
        return rows if self.views == 1 else torch.cat([rows] * self.views, 1)
