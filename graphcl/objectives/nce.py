"""Noise-contrastive estimation against a memory bank: instance discrimination (Wu et al., 2018)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from graphcl.objectives._cosine import check_shape, check_tau, on_host, product, unit


def nce(
    z: Tensor,
    bank: Tensor,
    ids: Tensor,
    tau: float = 0.07,
    *,
    negatives: Tensor,
    z_const: Tensor | float | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """Mean over rows of -log h(i) - sum_j log(1 - h(j)), h = P / (P + m / n), P(i) = exp(s(z, bank_i) / tau) / Z.

    z: [N, D]. bank: [n, D], one vector an item; no gradient goes into it. ids: [N], the items of z. tau in (0, inf).
    negatives: [N, m], items drawn uniformly as noise (`draw_negatives`).
    z_const: Z, estimated once from the first batch (`nce_constant`) and kept. None: estimated from this batch.
    valid: [n] bool, such as MemoryBank.valid; terms on items that have no vector yet are left out.
    Returns a scalar. Wu et al., 2018, eqs. 4 to 7; as in their code, the bank's momentum replaces the proximal term.
    """
    logits, kept = _logits(z, bank, ids, tau, negatives, valid)  # [N, 1 + m], the positive first
    log_z: Tensor | float
    if z_const is None:
        log_z = _log_constant(logits.detach(), kept, len(bank))
    else:
        if (not isinstance(z_const, Tensor) or on_host(z_const)) and not z_const > 0:
            raise ValueError(f"z_const must be > 0, got {z_const!r}; nce_constant estimates it")
        log_z = z_const.log() if isinstance(z_const, Tensor) else math.log(z_const)
    # h is the sigmoid of this score; written so, exp(1 / tau) is never formed.
    score = logits - (log_z + math.log(negatives.shape[1] / len(bank)))
    terms = F.softplus(torch.cat([-score[:, :1], score[:, 1:]], 1))
    return torch.where(kept, terms, 0.0).sum() / len(z)


def nce_constant(
    z: Tensor, bank: Tensor, ids: Tensor, tau: float = 0.07, *, negatives: Tensor, valid: Tensor | None = None
) -> Tensor:
    """Z, estimated as n times the mean of exp(s / tau) over a batch's positives and negatives. Wu et al., 2018, eq. 8.

    Arguments as of `nce`. Returns a float64 scalar without gradient, for tau >= 0.002; n if no item has a vector yet.
    """
    with torch.no_grad():
        logits, kept = _logits(z, bank, ids, tau, negatives, valid)
        return _log_constant(logits, kept, len(bank)).exp()


def draw_negatives(ids: Tensor, size: int, count: int, *, generator: torch.Generator | None = None) -> Tensor:
    """[N, count] items out of `size`, each row drawn uniformly with replacement from all items but its own, ids [N]."""
    if size < 2:
        raise ValueError(f"a bank of {size} has no negatives; it needs at least 2 items")
    if count < 1:
        raise ValueError(f"at least 1 negative a row is needed, got {count}")
    if on_host(ids) and ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < size:
        raise ValueError(f"ids must be items 0 to {size - 1}, they go from {int(ids.min())} to {int(ids.max())}")
    drawn = torch.randint(size - 1, (len(ids), count), generator=generator, device=ids.device)
    return drawn + (drawn >= ids[:, None])  # steps over the row's own item


def _logits(
    z: Tensor, bank: Tensor, ids: Tensor, tau: float, negatives: Tensor, valid: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Cosine / tau [N, 1 + m] of each row to its own item and its negatives, and which of them count."""
    check_tau(tau)
    check_shape("z", z, None, None)
    check_shape("bank", bank, None, z.shape[1])
    check_shape("ids", ids, len(z))
    check_shape("negatives", negatives, len(z), None)
    if negatives.numel() == 0:
        raise ValueError(f"negatives is {list(negatives.shape)}; nce needs rows and at least one negative for each")
    items = torch.cat([ids[:, None], negatives], 1)
    logits = product(unit(z) / tau, unit(bank.detach())).gather(1, items)
    if valid is None:
        return logits, torch.ones_like(items, dtype=torch.bool)
    check_shape("valid", valid, len(bank))
    return logits, valid[items]


def _log_constant(logits: Tensor, kept: Tensor, size: int) -> Tensor:
    logits = torch.where(kept, logits.double(), -math.inf)
    log_mean = logits.flatten().logsumexp(0) - kept.sum().double().log()
    return torch.where(kept.any(), log_mean, 0.0) + math.log(size)
