"""Jensen-Shannon estimators on scores: tell pairs that belong together from pairs that do not."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from graphcl.objectives._cosine import check_shape


def jsd(positive: Tensor, negative: Tensor) -> Tensor:
    """E_neg - E_pos, E_pos = mean(log 2 - softplus(-p)), E_neg = mean(softplus(-n) + n - log 2).

    positive, negative: scores (logits) of any shape, averaged each on its own. Returns a scalar, -2 log 2 at best, 0
    for scores that are all 0. f-GAN (Nowozin et al., 2016), InfoGraph (Sun et al., 2020) eq. 4.
    With as many negatives as positives it is `2 * dgi_bce - 2 log 2`: the same gradient up to that factor.
    """
    positive, negative = _scores(positive, negative)
    # softplus(-n) + n is softplus(n).
    return F.softplus(-positive).mean() + F.softplus(negative).mean() - 2 * math.log(2)


def jsd_matrix(scores: Tensor, positive: Tensor) -> Tensor:
    """`jsd` of a matrix of scores: mean over its positives and mean over its negatives, each on its own.

    scores: [N, B], every node against every graph, say. positive: [N, B] bool, True where the two belong together.
    Returns a scalar. Without a negative (a single graph) only the positives count. InfoGraph (Sun et al., 2020).
    """
    check_shape("scores", scores, None, None)
    check_shape("positive", positive, *scores.shape)
    if positive.dtype != torch.bool:
        raise ValueError(f"positive must be a bool mask, got {positive.dtype}")
    if scores.numel() == 0:
        raise ValueError(f"scores is {list(scores.shape)}; a loss needs at least one score")
    scores = _full(scores)
    terms = F.softplus(torch.where(positive, -scores, scores)) - math.log(2)
    count = positive.sum()
    positives = torch.where(positive, terms, 0.0).sum() / count.clamp(min=1)
    negatives = torch.where(positive, 0.0, terms).sum() / (positive.numel() - count).clamp(min=1)
    return positives + negatives


def dgi_bce(positive: Tensor, negative: Tensor) -> Tensor:
    """Binary cross-entropy of a discriminator's logits, positives labelled 1 and negatives 0, mean over all of them.

    positive, negative: scores of any shape. Returns a scalar, log 2 for scores that are all 0.
    DGI (Velickovic et al., 2019) eq. 1, with the sign of a loss.
    """
    positive, negative = _scores(positive, negative)
    total = F.softplus(-positive).sum() + F.softplus(negative).sum()
    return total / (positive.numel() + negative.numel())


def _scores(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    for name, scores in (("positive", positive), ("negative", negative)):
        if scores.numel() == 0:
            raise ValueError(f"{name} is empty ({list(scores.shape)}); a loss needs at least one score of each kind")
    return _full(positive), _full(negative)


def _full(scores: Tensor) -> Tensor:
    return scores if scores.dtype == torch.float64 else scores.float()
