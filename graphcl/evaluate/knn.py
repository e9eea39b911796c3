"""k-nearest-neighbour classification of frozen embeddings, weighted as in InstDisc (Wu et al., 2018, section 3.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graphcl.evaluate.scores import Scores, evaluate

PROTOCOL, PLAIN_PROTOCOL = "knn-weighted/clean/2", "knn/clean/2"
KS: tuple[int, ...] = (1, 5, 10, 20, 50)
TIE = 1e-6  # cosines as near as this count as equal; those of equal rows differ by rounding
BLOCK = 2**24  # similarities, or votes, that are held at once


def knn(
    embeddings: Tensor,
    labels: Tensor,
    split: Any,
    *,
    k: int | Sequence[int] = KS,
    tau: float = 0.07,
    metric: str = "accuracy",
    seed: int = 0,
) -> Scores:
    """The k train rows of highest cosine similarity s vote for their class with weight exp(s / tau).

    Rows as near as the k-th share the votes that are left for them, so the order of the train rows does not count:
    isomorphic graphs have equal embeddings.
    k: one number, or several to choose from on the validation rows; one larger than the train set means all of it.
    tau in (0, inf]; at inf every neighbour has one vote (plain k-NN).
    seed: nothing is drawn here; accepted so that every evaluation is called alike.
    The rest, the errors included, is as in `linear_probe`.
    """
    ks = (k,) if isinstance(k, int) else tuple(k)
    if not ks or any(not isinstance(one, int) or one < 1 for one in ks):
        raise ValueError(
            f"k must be a whole number >= 1 or several of them, got {k!r}; the default is 1, 5, 10, 20, 50"
        )
    if not tau > 0:
        raise ValueError(f"tau must be > 0, got {tau!r}; InstDisc uses 0.07")

    def predict(train: Tensor, y: Tensor, other: Tensor) -> Tensor:
        return _votes(train, y, other, ks, tau)

    protocol = {(KS, 0.07): PROTOCOL, (KS, math.inf): PLAIN_PROTOCOL}.get((ks, tau), "")
    return evaluate("k-NN", predict, embeddings, labels, split, metric, protocol)


def knn_plain(embeddings: Tensor, labels: Tensor, split: Any, *, metric: str = "accuracy", seed: int = 0) -> Scores:
    """k-NN in which the k nearest train rows have one vote each; otherwise as `knn`."""
    return knn(embeddings, labels, split, tau=math.inf, metric=metric, seed=seed)


def _votes(train: Tensor, y: Tensor, other: Tensor, ks: tuple[int, ...], tau: float) -> Tensor:
    """Each class's share of the votes under every k, [S, m, K]."""
    train, other = F.normalize(train), F.normalize(other)
    one_hot = F.one_hot(y).to(train.dtype)  # [n, K]
    ks = tuple(min(k, len(train)) for k in ks)
    most, counted = max(ks), torch.tensor(ks) - 1
    shares = []
    for block in other.split(max(1, BLOCK // max(len(train), most * one_hot.shape[1]))):
        similarity = block @ train.T  # [b, n]
        best, nearest = similarity.topk(min(most + 1, len(train)))  # descending
        weight = ((best - best[:, :1]) / tau).exp()  # shares need no common factor, so the nearest has 1
        votes = (weight[:, :, None] * one_hot[nearest])[:, :most].cumsum(1)[:, counted]  # [b, S, K]
        behind = counted[counted + 1 < best.shape[1]]
        tied = (best[:, behind] - best[:, behind + 1] <= TIE).any(1)  # the next one is as near as the k-th
        if bool(tied.any()):
            weight = ((similarity[tied] - best[tied, :1]) / tau).exp()
            parts = [weight * _counted(similarity[tied], best[tied, k - 1 : k], k) for k in ks]
            votes[tied] = torch.stack([part @ one_hot for part in parts], dim=1)
        shares.append((votes / votes.sum(-1, keepdim=True)).transpose(0, 1))
    return torch.cat(shares, dim=1) if shares else other.new_zeros(len(ks), 0, one_hot.shape[1])


def _counted(similarity: Tensor, last: Tensor, k: int) -> Tensor:
    """How much of each row counts among the k nearest, [b, n]: 1, 0, or of those as near as the k-th an equal part."""
    nearer, tied = similarity > last + TIE, (similarity - last).abs() <= TIE
    left = k - nearer.sum(1, keepdim=True)
    return nearer + tied * (left / tied.sum(1, keepdim=True))
