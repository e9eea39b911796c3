"""InfoNCE and its family: pick the positive out of a set of candidates by cosine similarity.

infonce        one or both directions between two views (CPC, van den Oord et al., 2018, eq. 4; GraphCL, 2020, eq. 3)
ntxent         with the negatives inside each view (SimCLR, Chen et al., 2020, eq. 1; GRACE, Zhu et al., 2020, eq. 1)
queue_infonce  with a queue of negatives (MoCo, He et al., 2020, eq. 1)
graphcl_code   what the published GraphCL code computes
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphcl.objectives._cosine import check_pair, check_shape, check_tau, product, unit


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
) -> Tensor:
    """Mean over rows and directions of -log exp(s(z1_i, z2_i) / tau) / sum_j exp(s(z1_i, z2_j) / tau), s the cosine.

    z1, z2: [N, D]; row i of z1 and row i of z2 are the positive pair. tau in (0, inf).
    symmetric: False leaves out the direction from view 2 to view 1.
    keys1, keys2: [M, D], the candidates when they are more than the anchors, as `distributed.gather_views` gives them;
        keys2 are the candidates of z1, keys1 those of z2. Default: z1, z2.
    target: [N], the row of the keys that holds anchor i's positive. Default: row i.
    mask: [N, M] bool; False takes candidate j from the negatives of anchor i, in both directions. The positive stays.
    Returns a scalar. A single pair without further keys gives 0. Raises ValueError for shapes that do not fit.
    """
    check_tau(tau)
    check_pair("z1", z1, "z2", z2)
    if symmetric and (keys1 is None) != (keys2 is None):
        raise ValueError("keys1 and keys2 go together: give both, or keys2 alone with symmetric=False")
    n, m = len(z1), len(z1 if keys2 is None else keys2)
    target = _rows(target, n, m, z1)
    if mask is not None:
        check_shape("mask", mask, n, m)
        if mask.dtype != torch.bool:
            raise ValueError(f"mask must be bool, False where a candidate is no negative, got {mask.dtype}")
        mask = mask.scatter(1, target[:, None], True)

    anchors1, anchors2 = unit(z1), unit(z2)
    logits = product(anchors1 / tau, anchors2 if keys2 is None else _keys("keys2", keys2, z1))  # [N, M]
    loss = _cross_entropy(logits, target, mask)
    if not symmetric:
        return loss
    if keys1 is None:
        logits = logits.T
    else:
        check_shape("keys1", keys1, m, None)
        logits = product(anchors2 / tau, _keys("keys1", keys1, z1))
    return (loss + _cross_entropy(logits, target, mask)) / 2


def ntxent(
    z1: Tensor,
    z2: Tensor,
    tau: float = 0.5,
    *,
    keys1: Tensor | None = None,
    keys2: Tensor | None = None,
    target: Tensor | None = None,
) -> Tensor:
    """NT-Xent: every row of both views against all rows of both views but itself, mean over the 2N rows.

    z1, z2: [N, D]; row i of z1 and row i of z2 are the positive pair. tau in (0, inf).
    keys1, keys2: [M, D], the rows of each view when they are more than the anchors (`distributed.gather_views`).
    target: [N], the row of the keys that holds anchor i itself in its own view and its positive in the other.
    Returns a scalar; a single pair gives 0. SimCLR (Chen et al., 2020) eq. 1 = GRACE (Zhu et al., 2020) eq. 1.
    """
    check_tau(tau)
    check_pair("z1", z1, "z2", z2)
    if (keys1 is None) != (keys2 is None):
        raise ValueError("keys1 and keys2 go together: give both or neither")
    anchors = unit(torch.cat([z1, z2]))  # [2N, D]
    if keys1 is None or keys2 is None:
        m, candidates = len(z1), anchors
    else:
        m = len(keys2)
        check_shape("keys1", keys1, m, None)
        candidates = torch.cat([_keys("keys1", keys1, z1), _keys("keys2", keys2, z1)])  # [2M, D]
    target = _rows(target, len(z1), m, z1)
    # Row i's positive is the same item in the other half. Labelling rows by 0..N-1 would make each its own positive.
    own, positive = torch.cat([target, target + m]), torch.cat([target + m, target])  # [2N]
    logits = product(anchors / tau, candidates).scatter_(1, own[:, None], -math.inf)  # [2N, 2M]
    return F.cross_entropy(logits, positive)


def queue_infonce(
    q: Tensor,
    k: Tensor,
    queue: Tensor,
    tau: float = 0.07,
    *,
    ids: Tensor | None = None,
    queue_ids: Tensor | None = None,
) -> Tensor:
    """MoCo's InfoNCE: query i has key i as its positive and the queue as its negatives. The gradient goes into q alone.

    q, k: [N, D]. queue: [K, D], any K. tau in (0, inf).
    ids: [N], queue_ids: [K], the items that the queries and the slots stand for; -1 marks an empty slot. Empty slots
        and slots with the query's own item are no negatives. Without queue_ids every slot counts.
    Returns a scalar. A query without negatives counts 0, so an entirely empty queue gives 0 with zero gradient.
    He et al., 2020, eq. 1.
    """
    check_tau(tau)
    check_pair("q", q, "k", k)
    check_shape("queue", queue, None, q.shape[1])
    if ids is not None and queue_ids is None:
        raise ValueError("ids without queue_ids: give the items of the queue's slots too, such as FeatureQueue.ids")
    query, key = unit(q) / tau, unit(k.detach())
    negative = product(query, unit(queue.detach()))  # [N, K]
    if queue_ids is not None:
        check_shape("queue_ids", queue_ids, len(queue))
        excluded = (queue_ids == -1)[None]  # [1, K]
        if ids is not None:
            check_shape("ids", ids, len(q))
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

    def forward(self, z1: Tensor, z2: Tensor, **keys: Tensor) -> Tensor:
        """`infonce(z1, z2, tau)`; keys1, keys2, target and mask as there."""
        return infonce(z1, z2, self.tau, symmetric=self.symmetric, **keys)


class NTXent(nn.Module):
    """`ntxent` with its setting remembered."""

    def __init__(self, tau: float = 0.5) -> None:
        super().__init__()
        check_tau(tau)
        self.tau = tau

    def forward(self, z1: Tensor, z2: Tensor, **keys: Tensor) -> Tensor:
        """`ntxent(z1, z2, tau)`; keys1, keys2 and target as there."""
        return ntxent(z1, z2, self.tau, **keys)


def _rows(target: Tensor | None, n: int, m: int, like: Tensor) -> Tensor:
    """`target`, or 0..N-1."""
    if target is not None:
        check_shape("target", target, n)
        return target
    if m < n:
        raise ValueError(f"{n} anchors and only {m} keys: each anchor's positive must be among the keys (see `target`)")
    return torch.arange(n, device=like.device)


def _keys(name: str, keys: Tensor, z: Tensor) -> Tensor:
    check_shape(name, keys, None, z.shape[1])
    return unit(keys)


def _cross_entropy(logits: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    # Not log(exp / sum): exp(1 / tau) is already inf in fp16 at tau = 0.09.
    return F.cross_entropy(logits if mask is None else logits.masked_fill(~mask, -math.inf), target)
