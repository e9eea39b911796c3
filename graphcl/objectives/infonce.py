"""InfoNCE and its family: pick the positive out of a set of candidates by cosine similarity.

infonce        one or both directions between two views (CPC, van den Oord et al., 2018, eq. 4; GraphCL, 2020, eq. 3)
ntxent         with the negatives inside each view (SimCLR, Chen et al., 2020, eq. 1; GRACE, Zhu et al., 2020, eq. 1)
queue_infonce  with a queue of negatives (MoCo, He et al., 2020, eq. 1)
graphcl_code   what the published GraphCL code computes

The first three come in forms that give the same loss and gradient (`form`): "dense" writes the paper's formula with
N x M matrices; "streamed" works in tiles and holds none (graphcl/objectives/streamed.py); "fused" does the same and
keeps one matrix of exponentials rather than compute it twice (without a second pass to save it is "streamed").
"auto" goes by the number of pairs. Only "dense" has second derivatives.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphcl.objectives import streamed
from graphcl.objectives._candidates import Candidates, Weights, both_views, positive_rows, unit_keys
from graphcl.objectives._cosine import check_pair, check_shape, check_tau, product, unit

FORMS = ("auto", "dense", "fused", "streamed")
# Of the dense form at most this many logits: there the cost is that of calling operators, and it calls the fewest.
DENSE_ONE_WAY, DENSE_TWO_WAYS, DENSE_QUEUE = 2**18, 2**16, 2**15
FUSED = 2**25  # exponentials that "auto" keeps at most: 128 MiB in float32


def infonce(
    z1: Tensor,
    z2: Tensor,
    tau: float = 0.5,
    *,
    symmetric: bool = True,
    keys1: Tensor | None = None,
    keys2: Tensor | None = None,
    target: Tensor | None = None,
    mask: Tensor | None = None,
    weights: Tensor | Weights | None = None,
    form: str = "auto",
) -> Tensor:
    """Mean over rows and directions of -log exp(s(z1_i, z2_i) / tau) / sum_j exp(s(z1_i, z2_j) / tau), s the cosine.

    z1, z2: [N, D]; row i of z1 and row i of z2 are the positive pair. tau in (0, inf).
    symmetric: False leaves out the direction from view 2 to view 1.
    keys1, keys2: [M, D], the candidates when they are more than the anchors, as `distributed.gather_views` gives them;
        keys2 are the candidates of z1, keys1 those of z2, which symmetric=False leaves unread. Default: z1, z2.
    target: [N], the row of the keys that holds anchor i's positive. Default: row i.
    mask: [N, M] bool; False takes candidate j from the negatives of anchor i, in both directions. The positive stays.
    weights: [N, M], numbers >= 0 that multiply the negatives' terms of the sum, in both directions; the positive's is
        1. Or a function that gives them for a block of anchors, `weights(logits [n, M], rows [n]) -> [n, M]`, with
        logits s / tau, which it must not write to, and the numbers of the anchors. No gradient goes through weights.
    form: "auto", "dense", "fused" or "streamed", see above.
    Returns a scalar. A single pair without further keys gives 0. Raises ValueError for shapes that do not fit.
    """
    check_tau(tau)
    check_pair("z1", z1, "z2", z2)
    if symmetric and (keys1 is None) != (keys2 is None):
        raise ValueError("keys1 and keys2 go together: give both, or keys2 alone with symmetric=False")
    n, m = len(z1), len(z1 if keys2 is None else keys2)
    form = _form(form, n * m, DENSE_TWO_WAYS if symmetric else DENSE_ONE_WAY)
    rows = positive_rows(target, n, m, z1)
    candidates = Candidates(rows, mask=mask, weights=weights, shape=(n, m))
    paired = keys1 is None and keys2 is None and target is None and candidates.plain
    a1, a2 = unit(z1), unit(z2)
    k2 = a2 if keys2 is None else unit_keys("keys2", keys2, z1)
    if symmetric and keys1 is not None:
        check_shape("keys1", keys1, m, None)
        k1 = unit_keys("keys1", keys1, z1)
    else:
        k1 = a1
    if form == "dense":
        logits = product(a1 / tau, k2)  # [N, M]
        loss = candidates.cross_entropy(logits)
        if not symmetric:
            return loss
        back = logits.T if keys1 is None else product(a2 / tau, k1)
        return (loss + candidates.cross_entropy(back)) / 2
    if paired and symmetric:
        return streamed.mean_lse_both(a1, a2, tau, paired=True, keep=form == "fused")
    if paired:
        return streamed.mean_lse(a1, a2, tau, paired=True)
    loss = _streamed(a1, k2, tau, candidates)
    return (loss + _streamed(a2, k1, tau, candidates)) / 2 if symmetric else loss


def ntxent(
    z1: Tensor,
    z2: Tensor,
    tau: float = 0.5,
    *,
    keys1: Tensor | None = None,
    keys2: Tensor | None = None,
    target: Tensor | None = None,
    mask: Tensor | None = None,
    weights: Tensor | Weights | None = None,
    form: str = "auto",
) -> Tensor:
    """NT-Xent: every row of both views against all rows of both views but itself, mean over the 2N rows.

    z1, z2: [N, D]; row i of z1 and row i of z2 are the positive pair. tau in (0, inf).
    keys1, keys2: [M, D], the rows of each view when they are more than the anchors (`distributed.gather_views`).
    target: [N], the row of the keys that holds anchor i itself in its own view and its positive in the other.
    mask: [N, M] bool; False takes item j, in both views, from the negatives of item i. The positive stays.
    weights: [N, M], numbers >= 0 that multiply the terms of negative j of item i, in both views; the positive's is 1.
        Or a function, `weights(logits [n, 2M], rows [n]) -> [n, 2M]`: rows from N on are anchors of view 2, columns
        from M on keys of view 2, and the logit of the anchor itself is -inf. No gradient goes through weights.
    form: "auto", "dense", "fused" or "streamed", see above.
    Returns a scalar; a single pair gives 0. SimCLR (Chen et al., 2020) eq. 1 = GRACE (Zhu et al., 2020) eq. 1.
    """
    check_tau(tau)
    anchors, keys, own, positive = both_views(z1, z2, keys1, keys2, target)  # [2N, D], [2M, D], [2N], [2N]
    n, m = len(z1), len(keys) // 2
    candidates = Candidates(positive, own=own, mask=mask, weights=weights, shape=(n, m), views=2)
    paired = keys1 is None and target is None and candidates.plain
    form = _form(form, 2 * n * n if paired else 4 * n * m, DENSE_TWO_WAYS)
    if form == "dense":
        return candidates.cross_entropy(product(anchors / tau, keys))  # [2N, 2M]
    if paired:
        return streamed.mean_lse_self(anchors, tau, paired=True, keep=form == "fused")
    return _streamed(anchors, keys, tau, candidates)


def queue_infonce(
    q: Tensor,
    k: Tensor,
    queue: Tensor,
    tau: float = 0.07,
    *,
    ids: Tensor | None = None,
    queue_ids: Tensor | None = None,
    normalized: bool = False,
    form: str = "auto",
) -> Tensor:
    """MoCo's InfoNCE: query i has key i as its positive and the queue as its negatives. The gradient goes into q alone.

    q, k: [N, D]. queue: [K, D], any K. tau in (0, inf).
    ids: [N], queue_ids: [K], the items that the queries and the slots stand for; -1 marks an empty slot. Empty slots
        and slots with the query's own item are no negatives. Without queue_ids every slot counts.
    normalized: True promises that the queue's rows have length 1, those of empty slots 0, as in a FeatureQueue; this
        saves a pass over it.
    form: "auto", "dense", or "streamed" (= "fused"), which keeps nothing of the queue for backward: it may be written
        at once.
    Returns a scalar. A query without negatives counts 0, so an entirely empty queue gives 0 with zero gradient.
    He et al., 2020, eq. 1.
    """
    check_tau(tau)
    check_pair("q", q, "k", k)
    check_shape("queue", queue, None, q.shape[1])
    if ids is not None and queue_ids is None:
        raise ValueError("ids without queue_ids: give the items of the queue's slots too, such as FeatureQueue.ids")
    if ids is not None:
        check_shape("ids", ids, len(q))
    if queue_ids is not None:
        check_shape("queue_ids", queue_ids, len(queue))
    if _form(form, len(q) * len(queue), DENSE_QUEUE) != "dense":
        items, anchors, keys = queue.detach(), unit(q), unit(k.detach())
        return streamed.queue_loss(anchors, keys, items, tau, ids=ids, queue_ids=queue_ids, normalized=normalized)

    query, key = unit(q) / tau, unit(k.detach())
    keys = (queue.detach() if normalized else unit(queue.detach())).to(query.dtype)
    if queue_ids is not None and not normalized:
        keys = keys.masked_fill((queue_ids == -1)[:, None], 0)  # may hold anything: 0 x nan would reach the gradient
    negative = product(query, keys)  # [N, K]
    if queue_ids is not None:
        excluded = (queue_ids == -1)[None]  # [1, K]
        if ids is not None:
            excluded = excluded | (ids[:, None] == queue_ids)  # [N, K]
        negative = negative.masked_fill(excluded, -math.inf)
    positive = (query * key).sum(1, keepdim=True)  # [N, 1]
    return F.cross_entropy(torch.cat([positive, negative], 1), torch.zeros(len(q), dtype=torch.long, device=q.device))


def graphcl_code(z1: Tensor, z2: Tensor, tau: float = 0.2) -> Tensor:
    """-log(pos / (sum_j - pos)) from view 1 to view 2, as the published GraphCL code has it and not as its eq. 3.

    z1, z2: [N, D]; row i of z1 and row i of z2 are the positive pair. tau in (0, inf).
    The positive is missing from the denominator, so the loss may be negative and has no lower bound of its own.
    Returns a scalar. A single pair has no negatives: it gives 0 with zero gradient (the published code: -inf).
    """
    check_tau(tau)
    check_pair("z1", z1, "z2", z2)
    logits = product(unit(z1) / tau, unit(z2))  # [N, N]
    if len(z1) == 1:
        return 0 * logits.sum()
    itself = torch.eye(len(z1), dtype=torch.bool, device=z1.device)
    return (logits.masked_fill(itself, -math.inf).logsumexp(1) - logits.diagonal()).mean()


class InfoNCE(nn.Module):
    """`infonce` with its settings remembered."""

    def __init__(self, tau: float = 0.5, *, symmetric: bool = True) -> None:
        super().__init__()
        check_tau(tau)
        self.tau, self.symmetric = tau, symmetric

    def forward(self, z1: Tensor, z2: Tensor, **keys: Any) -> Tensor:
        """`infonce(z1, z2, tau)`; keys1, keys2, target, mask and weights as there."""
        return infonce(z1, z2, self.tau, symmetric=self.symmetric, **keys)


class NTXent(nn.Module):
    """`ntxent` with its setting remembered."""

    def __init__(self, tau: float = 0.5) -> None:
        super().__init__()
        check_tau(tau)
        self.tau = tau

    def forward(self, z1: Tensor, z2: Tensor, **keys: Any) -> Tensor:
        """`ntxent(z1, z2, tau)`; keys1, keys2, target, mask and weights as there."""
        return ntxent(z1, z2, self.tau, **keys)


def _streamed(a: Tensor, keys: Tensor, tau: float, candidates: Candidates) -> Tensor:
    """`candidates.cross_entropy` of the cosines of anchors a [N, D] and keys [M, D], over tau."""
    if candidates.plain and candidates.own is None:
        positives = keys.index_select(0, candidates.target)
        return streamed.mean_lse(a, keys, tau) - (a * positives).sum(1).mean() / tau
    small = tau < streamed.SMALL_TAU
    return streamed.rowwise(a, keys, tau, lambda logits, rows: candidates.row_loss(logits, rows, small))


def _form(form: str, pairs: int, dense: int) -> str:
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}; got {form!r}")
    if form != "auto":
        return form
    return "dense" if pairs <= dense else "fused" if pairs <= FUSED else "streamed"
