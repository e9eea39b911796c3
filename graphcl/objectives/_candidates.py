"""Who an anchor's candidates are and how much each counts: keys, masks and weights, also in blocks of rows."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from graphcl.objectives._cosine import check_double, check_pair, check_places, check_shape, on_host, unit

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
            if on_host(weights) and weights.numel():
                low, high = (float(end) for end in weights.detach().aminmax())
                if not 0 <= low <= high < math.inf:
                    raise ValueError(f"weights must be finite and >= 0, they go from {low} to {high}")
        self.target, self.own, self.mask, self.weights, self.views = target, own, mask, weights, views
        self.items = shape[0]
        self.plain = mask is None and weights is None

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """Mean over the rows of logits [N, M]; the gradient is autograd's."""
        if self.own is not None:
            logits = logits.scatter(1, self.own[:, None], -math.inf)
        if not self.plain:
            positive = logits.gather(1, self.target[:, None])
            bias = self._weights(logits.detach(), slice(0, len(logits))).log()
            logits = (logits.unflatten(1, (self.views, -1)) + bias).flatten(1)
            logits = logits.scatter(1, self.target[:, None], positive)
        # Not log(exp / sum): exp(1 / tau) is already inf in fp16 at tau = 0.09.
        return F.cross_entropy(logits, self.target)

    def row_loss(self, logits: Tensor, rows: slice, small_tau: bool) -> tuple[Tensor, Tensor]:
        """Losses [n] of some rows of logits [n, M], and their gradient [n, M], written over the logits."""
        target = self.target[rows, None]
        if self.own is not None:
            logits.scatter_(1, self.own[rows, None], -math.inf)
        positive = logits.gather(1, target)
        weights = None if self.plain else self._weights(logits, rows)
        if small_tau:
            if weights is not None:
                logits.unflatten(1, (self.views, -1)).add_(weights.log())
                logits.scatter_(1, target, positive)
            top = logits.amax(1, keepdim=True)
            exps = logits.sub_(top).exp_()
        else:  # exponentials need no maximum, and multiplying them by zeros is faster than exp of -inf
            top = torch.zeros_like(positive)
            exps = logits.exp_()
            if weights is not None:
                exps.unflatten(1, (self.views, -1)).mul_(weights)
                exps.scatter_(1, target, positive.exp())
        total = exps.sum(1, keepdim=True)
        losses = (total.log() + (top - positive))[:, 0]
        return losses, exps.div_(total).scatter_add_(1, target, -torch.ones_like(positive))

    def _weights(self, logits: Tensor, rows: slice) -> Tensor:
        """Weights of the negatives [n, views, M], or the same for both views [n, 1, M]; 0 where the mask is False."""
        numbers = torch.arange(rows.start, rows.stop, device=logits.device)
        items = numbers % self.items
        factors = []
        if isinstance(self.weights, Tensor):
            factors.append(self.weights.detach().index_select(0, items)[:, None])
        elif self.weights is not None:
            given = self.weights(logits, numbers)
            check_shape("what weights() returned", given, *logits.shape)
            factors.append(given.detach().unflatten(1, (self.views, -1)))
        if self.mask is not None:
            factors.append(self.mask.index_select(0, items)[:, None])
        factors = [factor.to(logits.dtype) for factor in factors]
        return factors[0] if len(factors) == 1 else factors[0] * factors[1]


def positive_rows(target: Tensor | None, n: int, m: int, like: Tensor) -> Tensor:
    """`target` [N], the keys that are the anchors' positives, or 0..N-1."""
    if target is not None:
        check_shape("target", target, n)
        return check_places("target", target, m)
    if m < n:
        raise ValueError(f"{n} anchors and only {m} keys: each anchor's positive must be among the keys (see `target`)")
    return torch.arange(n, device=like.device)


def unit_keys(name: str, keys: Tensor, z: Tensor) -> Tensor:
    """Keys [M, D] scaled to length 1."""
    check_shape(name, keys, None, z.shape[1])
    check_double(name, keys, "the views", z)
    return unit(keys)


def both_views(
    z1: Tensor, z2: Tensor, keys1: Tensor | None = None, keys2: Tensor | None = None, target: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of SimCLR's setting: anchors [2N, D] and keys [2M, D] of length 1, the anchors themselves among the keys [2N],
    and their positives [2N]. Arguments as of `ntxent`.
    """
    check_pair("z1", z1, "z2", z2)
    if (keys1 is None) != (keys2 is None):
        raise ValueError("keys1 and keys2 go together: give both or neither")
    anchors = unit(torch.cat([z1, z2]))
    if keys1 is None or keys2 is None:
        keys = anchors[:]  # torch.compile takes no tensor twice as input of one autograd.Function
    else:
        check_shape("keys1", keys1, len(keys2), None)
        keys = torch.cat([unit_keys("keys1", keys1, z1), unit_keys("keys2", keys2, z1)])
    m = len(keys) // 2
    rows = positive_rows(target, len(z1), m, z1)
    # Row i's positive is the same item in the other half. Labelling rows by 0..N-1 would make each its own positive.
    return anchors, keys, torch.cat([rows, rows + m]), torch.cat([rows + m, rows])
