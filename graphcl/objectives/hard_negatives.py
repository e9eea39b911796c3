"""NT-Xent that reckons with negatives of the anchor's own class, and counts hard negatives more.

Paper:   Chuang et al., 2020, "Debiased Contrastive Learning", arXiv:2007.00224, its debiased objective with
         the estimator of the negatives' sum that stays above N exp(-1 / tau) (`debiased_infonce`);
         Robinson et al., 2021, "Contrastive Learning with Hard Negative Samples", arXiv:2010.04592, section 3, as the
         authors' code has it (`hard_infonce`)
Differs: nothing known. As in that code, the gradient goes through the weights of hard negatives too.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from graphcl.objectives import streamed
from graphcl.objectives._candidates import both_views
from graphcl.objectives._cosine import check_tau


def hard_infonce(
    z1: Tensor,
    z2: Tensor,
    tau: float = 0.5,
    *,
    beta: float = 1.0,
    tau_plus: float = 0.1,
    keys1: Tensor | None = None,
    keys2: Tensor | None = None,
    target: Tensor | None = None,
) -> Tensor:
    """Mean over the 2N rows of -log pos / (pos + G), where G estimates the sum of exp(s / tau) over true negatives.

    G = max((sum_j w_j exp(s_j / tau) - tau_plus M pos) / (1 - tau_plus), M exp(-1 / tau)) over the M = 2N - 2 rows of
    both views that are neither the anchor nor its positive, w_j = exp(beta s_j / tau) over its mean, pos = exp(s / tau)
    of the positive, s the cosine.
    z1, z2: [N, D]; row i of z1 and row i of z2 are the positive pair. tau in (0, inf).
    beta: >= 0; 0 weighs all alike (`debiased_infonce`). The papers use 0.5 to 2.
    tau_plus: in [0, 1), the share of items that are of the anchor's class. The papers use 0.01 to 0.1.
    keys1, keys2, target: as in `ntxent`.
    Returns a scalar, computed in blocks of rows; a single pair gives 0. With beta = tau_plus = 0 it is `ntxent`.
    """
    check_tau(tau)
    if not 0 <= beta < math.inf:
        raise ValueError(f"beta must be >= 0 and finite, got {beta!r}; 0 weighs all negatives alike, most use 0.5 to 2")
    if not 0 <= tau_plus < 1:
        raise ValueError(f"tau_plus must lie in [0, 1), got {tau_plus!r}; about 1 / number of classes, 0 if unknown")
    anchors, keys, own, positive = both_views(z1, z2, keys1, keys2, target)
    count = len(keys) - 2  # M

    def row_loss(logits: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        column = positive[rows, None]
        pos = logits.gather(1, column)  # [n, 1]
        # From here on over the negatives alone.
        logits.scatter_(1, own[rows, None], -math.inf).scatter_(1, column, -math.inf)
        if count == 0:
            return pos[:, 0] * 0, logits.zero_()
        top = logits.amax(1, keepdim=True)
        logits -= top
        hard = (logits * beta).exp_() if beta else (logits > -math.inf).to(logits.dtype)  # w without its mean
        hard_sum = hard.sum(1, keepdim=True)
        terms = logits.exp_().mul_(hard)
        terms_sum = terms.sum(1, keepdim=True)
        # All of the following divided by exp(top): log of the sum over the weighted negatives, then of G.
        log_sum = math.log(count) + terms_sum.log() - hard_sum.log()
        log_false = pos - top + math.log(count * tau_plus) if tau_plus else torch.full_like(pos, -math.inf)
        left = (log_false - log_sum).expm1().neg()  # the share that is not taken away
        lowest = math.log(count) - 1 / tau - top
        log_g = torch.where(left > 0, log_sum + left.clamp(min=torch.finfo(left.dtype).tiny).log(), -math.inf)
        log_g = log_g - math.log1p(-tau_plus)
        free = log_g > lowest
        log_g = torch.where(free, log_g, lowest)
        score = log_g + top - pos
        losses = F.softplus(score)
        # d log G = (d sum - tau_plus M d pos) / (sum - tau_plus M pos), and nothing where it is clamped.
        slope = score.sigmoid()
        share = torch.where(free, slope / left, 0.0)
        terms.mul_((1 + beta) * share / terms_sum)
        if beta:
            terms.sub_(hard.mul_(beta * share / hard_sum))
        return losses[:, 0], terms.scatter_(1, column, -torch.where(free, share, slope))

    return streamed.rowwise(anchors, keys, tau, row_loss)


def debiased_infonce(
    z1: Tensor,
    z2: Tensor,
    tau: float = 0.5,
    *,
    tau_plus: float = 0.1,
    keys1: Tensor | None = None,
    keys2: Tensor | None = None,
    target: Tensor | None = None,
) -> Tensor:
    """`hard_infonce` with beta = 0: of the negatives' sum is taken away what those of the anchor's own class add."""
    return hard_infonce(z1, z2, tau, beta=0.0, tau_plus=tau_plus, keys1=keys1, keys2=keys2, target=target)
