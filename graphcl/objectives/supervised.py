"""SupCon: every row of an anchor's class is a positive.

Paper:   Khosla et al., 2020, "Supervised Contrastive Learning", arXiv:2004.11362, eq. 2 (L_out)
Differs: rows without a label have their other view as the only positive, as in SimCLR, and are negatives of the rest;
         no factor tau / base_temperature (1 in the authors' defaults).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphcl.objectives import streamed
from graphcl.objectives._candidates import both_views
from graphcl.objectives._cosine import check_shape, check_tau
from graphcl.objectives.infonce import FUSED


def supcon(
    z1: Tensor, z2: Tensor, labels: Tensor | None = None, tau: float = 0.1, *, positives: Tensor | None = None
) -> Tensor:
    """Mean over the 2N rows of -1/|P(i)| sum_{p in P(i)} log exp(s_ip / tau) / sum_{a != i} exp(s_ia / tau).

    z1, z2: [N, D]; row i of both is item i. tau in (0, inf). P(i) are the other rows of i's class, both views.
    labels: [N] integers; -1 marks an item without a label, whose other view is its only positive. They take no matrix.
    positives: [N, N] bool instead of labels; True where item j is a positive of item i. The item itself always is.
    Returns a scalar; a single item gives 0. If no two items share a label it is `ntxent`.
    """
    check_tau(tau)
    anchors, keys, own, partner = both_views(z1, z2)
    n = len(z1)
    if (labels is None) == (positives is None):
        raise ValueError("give either labels [N] or positives [N, N]")
    if labels is not None:
        check_shape("labels", labels, n)
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise ValueError(f"labels must be integers, got {labels.dtype}")
        lse = streamed.mean_lse_self(anchors, tau, keep=2 * n * n <= FUSED)
        return lse - _class_similarity(anchors, torch.cat([labels, labels])) / tau
    assert positives is not None
    check_shape("positives", positives, n, n)
    if positives.dtype != torch.bool:
        raise ValueError(f"positives must be a bool mask, got {positives.dtype}")

    def row_loss(logits: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        items = torch.arange(rows.start, rows.stop, device=logits.device) % n
        chosen = positives.index_select(0, items).to(logits.dtype)  # [n, N]
        chosen = torch.cat([chosen, chosen], 1).scatter_(1, partner[rows, None], 1.0).scatter_(1, own[rows, None], 0.0)
        chosen /= chosen.sum(1, keepdim=True)
        drawn = (logits * chosen).sum(1)
        logits.scatter_(1, own[rows, None], -math.inf)
        lse = logits.logsumexp(1)
        return lse - drawn, logits.sub_(lse[:, None]).exp_().sub_(chosen)

    return streamed.rowwise(anchors, keys, tau, row_loss)


def _class_similarity(z: Tensor, labels: Tensor) -> Tensor:
    """Mean over rows z_i [2N, D] of their mean cosine to the other rows of their class.

    Linear in those rows, so that their sum does, and no matrix of pairs is needed.
    """
    half = len(z) // 2
    number = torch.arange(half, device=z.device)
    # Classes by the first row that has them; rows without a label are a class of two, the item's two views.
    ordered, order = labels[:half].sort(stable=True)
    first = order.index_select(0, torch.searchsorted(ordered, labels[:half]))
    group = torch.where(labels[:half] == -1, number, first).repeat(2)
    total = torch.zeros_like(z).index_add(0, group, z).index_select(0, group)
    count = torch.zeros_like(z[:, 0]).index_add(0, group, torch.ones_like(z[:, 0])).index_select(0, group)
    return ((z * (total - z)).sum(1) / (count - 1)).mean()
