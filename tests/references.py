"""The objectives as the papers print them: one pair at a time, in float64. Slow, and written without a look at ours.

Every function takes float64 tensors and returns a 0-d tensor, so that autograd gives the reference's gradient too.
"""

import math

import torch
from torch import Tensor


def cosine(u: Tensor, v: Tensor) -> Tensor:
    """u.v / (|u| |v|)."""
    return (u * v).sum() / ((u * u).sum().sqrt() * (v * v).sum().sqrt())


def infonce_by_hand(z1: Tensor, z2: Tensor, tau: float, symmetric: bool = True) -> Tensor:
    """van den Oord et al. 2018 (CPC, arXiv:1807.03748), eq. 4, with f(a, b) = exp(cos(a, b) / tau) and the batch as
    the set of samples: -1/N sum_i log f(a_i, b_i) / sum_j f(a_i, b_j). Symmetric: the mean of both directions."""
    n = len(z1)
    directions = [(z1, z2), (z2, z1)] if symmetric else [(z1, z2)]
    total = z1.new_zeros(())
    for a, b in directions:
        for i in range(n):
            f = [(cosine(a[i], b[j]) / tau).exp() for j in range(n)]
            total = total - (f[i] / sum(f)).log()
    return total / (n * len(directions))


def simclr_by_hand(z1: Tensor, z2: Tensor, tau: float) -> Tensor:
    """Chen et al. 2020 (SimCLR, arXiv:2002.05709), eq. 1, over the 2N examples z_1 .. z_2N in which 2k-1 and 2k are a
    pair: l(i, j) = -log exp(s_ij / tau) / sum_{k != i} exp(s_ik / tau); L = 1/2N sum_k l(2k-1, 2k) + l(2k, 2k-1)."""
    z = [row for pair in zip(z1, z2, strict=True) for row in pair]
    total = z1.new_zeros(())
    for i in range(len(z)):
        j = i + 1 if i % 2 == 0 else i - 1
        below = sum((cosine(z[i], z[k]) / tau).exp() for k in range(len(z)) if k != i)
        total = total - ((cosine(z[i], z[j]) / tau).exp() / below).log()
    return total / len(z)


def grace_by_hand(u: Tensor, v: Tensor, tau: float) -> Tensor:
    """Zhu et al. 2020 (GRACE, arXiv:2006.04131), eq. 1 and 2: in the denominator the positive pair, the inter-view and
    the intra-view negatives, the last two over k != i; J = 1/2N sum_i l(u_i, v_i) + l(v_i, u_i); the loss is -J."""

    def pairwise(a: Tensor, b: Tensor, i: int) -> Tensor:
        positive = (cosine(a[i], b[i]) / tau).exp()
        inter = sum((cosine(a[i], b[k]) / tau).exp() for k in range(len(a)) if k != i)
        intra = sum((cosine(a[i], a[k]) / tau).exp() for k in range(len(a)) if k != i)
        return (positive / (positive + inter + intra)).log()

    total = u.new_zeros(())
    for i in range(len(u)):
        total = total + pairwise(u, v, i) + pairwise(v, u, i)
    return -total / (2 * len(u))


def moco_by_hand(
    q: Tensor, k: Tensor, queue: Tensor, tau: float, ids: list[int] | None = None, queue_ids: list[int] | None = None
) -> Tensor:
    """He et al. 2020 (MoCo, arXiv:1911.05722), eq. 1: -log exp(q.k+ / tau) / sum over the positive and the K keys of
    the queue, mean over the batch. A slot with id -1 is empty; a slot with the query's own id is no negative of it."""
    total = q.new_zeros(())
    for i in range(len(q)):
        positive = (cosine(q[i], k[i]) / tau).exp()
        below = positive
        for slot in range(len(queue)):
            empty = queue_ids is not None and queue_ids[slot] == -1
            own = ids is not None and queue_ids is not None and queue_ids[slot] == ids[i]
            if not empty and not own:
                below = below + (cosine(q[i], queue[slot]) / tau).exp()
        total = total - (positive / below).log()
    return total / len(q)


def graphcl_code_by_hand(z1: Tensor, z2: Tensor, tau: float) -> Tensor:
    """You et al. 2020 (GraphCL, arXiv:2010.13902), not eq. 3 but the loss of the published code: the positive is taken
    out of the denominator, -1/N sum_i log exp(s_ii / tau) / (sum_j exp(s_ij / tau) - exp(s_ii / tau))."""
    total = z1.new_zeros(())
    for i in range(len(z1)):
        f = [(cosine(z1[i], z2[j]) / tau).exp() for j in range(len(z2))]
        total = total - (f[i] / sum(f[j] for j in range(len(z2)) if j != i)).log()
    return total / len(z1)


def instdisc_by_hand(v: Tensor, positive: Tensor, negatives: Tensor, tau: float, n: int, Z: Tensor) -> Tensor:
    """Wu et al. 2018 (InstDisc, arXiv:1805.01978), eq. 4 to 7: P(i|v) = exp(v_i.v / tau) / Z, posterior
    h(i, v) = P(i|v) / (P(i|v) + m P_n(i)) with P_n = 1/n, and J = -E_d log h(i, v) - m E_n log(1 - h(i, v')), where the
    m drawn negatives of a row stand for m E_n. v, positive [B, D], negatives [B, m, D]."""
    m = negatives.shape[1]
    noise = m / n
    total = v.new_zeros(())
    for i in range(len(v)):
        p = (cosine(positive[i], v[i]) / tau).exp() / Z
        total = total - (p / (p + noise)).log()
        for j in range(m):
            p = (cosine(negatives[i, j], v[i]) / tau).exp() / Z
            total = total - (1 - p / (p + noise)).log()
    return total / len(v)


def hcl_by_hand(z1: Tensor, z2: Tensor, tau: float, beta: float, tau_plus: float) -> Tensor:
    """Robinson et al. 2021 (HCL, arXiv:2010.04592), in the form of the authors' code; beta = 0 is Chuang et al. 2020
    (DCL, arXiv:2007.00224). Over the N = 2B - 2 rows j that are neither the anchor nor its positive, with s the cosine:
    N_g = max((-tau_plus N pos + sum_j w_j exp(s_j / tau)) / (1 - tau_plus), N exp(-1 / tau)), w_j = exp(beta s_j / tau)
    over its mean, pos = exp(s_pos / tau); the loss is the mean of -log pos / (pos + N_g)."""
    z = torch.cat([z1, z2])
    b = len(z1)
    total = z1.new_zeros(())
    for i in range(2 * b):
        partner = (i + b) % (2 * b)
        pos = (cosine(z[i], z[partner]) / tau).exp()
        neg = [(cosine(z[i], z[j]) / tau).exp() for j in range(2 * b) if j not in (i, partner)]
        n_g = pos * 0
        if neg:
            mean = sum(e**beta for e in neg) / len(neg)
            n_g = (-tau_plus * len(neg) * pos + sum(e**beta / mean * e for e in neg)) / (1 - tau_plus)
            n_g = n_g if n_g > len(neg) * math.exp(-1 / tau) else pos.new_tensor(len(neg) * math.exp(-1 / tau))
        total = total - (pos / (pos + n_g)).log()
    return total / (2 * b)


def supcon_by_hand(z1: Tensor, z2: Tensor, tau: float, positive: list[list[bool]]) -> Tensor:
    """Khosla et al. 2020 (SupCon, arXiv:2004.11362), eq. 2, over the 2N rows of both views: the mean over i of
    -1/|P(i)| sum_{p in P(i)} log exp(z_i.z_p / tau) / sum_{a != i} exp(z_i.z_a / tau). positive[i][j]: items i and j
    belong together; the other view of an item always belongs to it."""
    z = torch.cat([z1, z2])
    n = len(z1)
    total = z1.new_zeros(())
    for i in range(2 * n):
        below = sum((cosine(z[i], z[a]) / tau).exp() for a in range(2 * n) if a != i)
        members = [p for p in range(2 * n) if p != i and (positive[i % n][p % n] or i % n == p % n)]
        total = total - sum(((cosine(z[i], z[p]) / tau).exp() / below).log() for p in members) / len(members)
    return total / (2 * n)


def jsd_by_hand(positive: Tensor, negative: Tensor) -> Tensor:
    """Sun et al. 2020 (InfoGraph, arXiv:1908.01000), eq. 4, the Jensen-Shannon estimator of f-GAN (Nowozin et al. 2016,
    table 6, activation log 2 - log(1 + exp(-v))): E_pos = log 2 - sp(-p), E_neg = sp(-n) + n - log 2, sp(x) =
    log(1 + e^x); the loss is mean E_neg - mean E_pos."""
    e_pos = sum(math.log(2) - (1 + (-p).exp()).log() for p in positive) / len(positive)
    e_neg = sum((1 + (-n).exp()).log() + n - math.log(2) for n in negative) / len(negative)
    return e_neg - e_pos


def dgi_by_hand(positive: Tensor, negative: Tensor) -> Tensor:
    """Velickovic et al. 2019 (DGI, arXiv:1809.10341), eq. 1, as a loss, on the discriminator's logits: -1/(N + M)
    (sum_i log D(h_i, s) + sum_j log(1 - D(h~_j, s))), D the logistic function of the logit."""
    total = sum((1 / (1 + (-p).exp())).log() for p in positive) + sum(
        (1 - 1 / (1 + (-n).exp())).log() for n in negative
    )
    return -total / (len(positive) + len(negative))


def byol_by_hand(p: Tensor, z: Tensor) -> Tensor:
    """Grill et al. 2020 (BYOL, arXiv:2006.07733), eq. 2: |p/|p| - z/|z||^2 = 2 - 2 cos(p, z), mean over the rows."""
    total = p.new_zeros(())
    for i in range(len(p)):
        difference = p[i] / (p[i] * p[i]).sum().sqrt() - z[i] / (z[i] * z[i]).sum().sqrt()
        total = total + (difference * difference).sum()
    return total / len(p)


def rows_as_their_own_positives(z1: Tensor, z2: Tensor, tau: float) -> Tensor:
    """The mistake of a widely copied snippet, kept as a warning: cross entropy over the 2N x 2N similarities with row i
    labelled as its own positive. A regression test shows that ours is not this."""
    z = torch.nn.functional.normalize(torch.cat([z1, z2]), dim=-1)
    return torch.nn.functional.cross_entropy(z @ z.T / tau, torch.arange(len(z)))
