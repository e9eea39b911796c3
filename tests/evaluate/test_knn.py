import math
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphcl.data.splits import Split
from graphcl.evaluate import knn
from graphcl.evaluate.knn import _votes, knn_plain


def votes_by_hand(z: Tensor, y: Tensor, split: Split, part: str, k: int, tau: float) -> list[dict[int, float]]:
    """Wu et al., 2018, section 3.4: the top k neighbours vote with exp(s / tau), s the cosine; one pair at a time."""
    out = []
    for i in getattr(split, part).tolist():
        near = []
        for j in split.train.tolist():
            s = (z[i] @ z[j] / (z[i].norm() * z[j].norm())).item()
            near.append((s, int(y[j])))
        near = sorted(near, reverse=True)[:k]
        votes = dict.fromkeys(sorted({int(c) for c in y[split.train]}), 0.0)
        for s, c in near:
            votes[c] += math.exp(s / tau)
        out.append(votes)
    return out


def accuracy_by_hand(z: Tensor, y: Tensor, split: Split, part: str, k: int, tau: float) -> float:
    rows = getattr(split, part).tolist()
    votes = votes_by_hand(z, y, split, part, k, tau)
    return sum(max(v, key=v.get) == int(y[i]) for v, i in zip(votes, rows, strict=True)) / len(rows)


def problem(n: int, classes: int, seed: int) -> tuple[Tensor, Tensor, Split]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    z = torch.eye(4, dtype=torch.float64)[y] + 0.8 * torch.randn(n, 4, generator=generator, dtype=torch.float64)
    order = torch.randperm(n - classes, generator=generator) + classes  # the first rows, one a class, are for training
    cut = (n - classes) // 3
    return (
        z,
        y,
        Split(torch.cat([torch.arange(classes), order[: n // 3]]), order[n // 3 : n // 3 + cut], order[n // 3 + cut :]),
    )


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(12, 30),
    classes=st.integers(2, 4),
    k=st.integers(1, 40),
    tau=st.sampled_from([0.07, 1.0, 10.0]),
    seed=st.integers(0, 99),
)
def test_it_is_the_papers_vote(n, classes, k, tau, seed):
    z, y, split = problem(n, classes, seed)
    scores = knn(z, y, split, k=k, tau=tau)
    assert scores.values[0] == pytest.approx(accuracy_by_hand(z, y, split, "test", k, tau))
    assert scores.valid[0] == pytest.approx(accuracy_by_hand(z, y, split, "val", k, tau))


@pytest.mark.parametrize("seed", range(4))
def test_k_is_chosen_on_validation_alone(seed):
    z, y, split = problem(60, 3, seed)
    ks = (1, 3, 9, 20)
    valid = [accuracy_by_hand(z, y, split, "val", k, 0.07) for k in ks]
    best = ks[valid.index(max(valid))]
    scores = knn(z, y, split, k=ks)
    assert scores.valid[0] == pytest.approx(max(valid))
    assert scores.values[0] == pytest.approx(accuracy_by_hand(z, y, split, "test", best, 0.07))


def test_roc_auc_is_the_share_of_pairs_in_order():
    z, y, split = problem(60, 2, 5)
    votes = [v[1] / (v[0] + v[1]) for v in votes_by_hand(z, y, split, "test", 7, 0.07)]
    truth = [int(y[i]) for i in split.test]
    pairs = [(a, b) for a, t in zip(votes, truth, strict=True) if t for b, u in zip(votes, truth, strict=True) if not u]
    wanted = sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)
    assert knn(z, y, split, k=7, metric="roc_auc").mean == pytest.approx(wanted, abs=1e-9)


def test_a_k_beyond_the_train_set_means_all_of_it():
    z, y, split = problem(40, 3, 6)
    assert knn(z, y, split, k=10_000) == knn(z, y, split, k=len(split.train))


def test_a_row_that_stands_in_train_is_its_own_neighbour():
    z, y, split = problem(40, 3, 7)
    twins = split.train[torch.arange(len(split.test)) % len(split.train)]
    z[split.test], y[split.test] = z[twins], y[twins]
    assert knn(z, y, split, k=1).mean == 1


def test_blocks_do_not_change_the_result(monkeypatch):
    z, y, split = problem(60, 3, 8)
    wanted = knn(z, y, split)
    monkeypatch.setattr(sys.modules[knn.__module__], "BLOCK", 1)
    assert knn(z, y, split) == wanted


@pytest.mark.parametrize("tau", [1e-4, 1e4])
def test_extreme_temperatures_stay_finite(tau):
    z, y, split = problem(40, 2, 9)
    assert 0 <= knn(z, y, split, tau=tau, metric="roc_auc").mean <= 1


@pytest.mark.parametrize("tau", [0.07, math.inf])
def test_rows_as_near_as_the_kth_share_its_votes_in_any_order(tau):
    near, mid, far = torch.eye(3)
    z = torch.stack([near, mid, mid, mid, mid, far, near + 0.5 * mid])
    y = torch.tensor([0, 1, 1, 1, 0, 2, 0])
    train, test = torch.arange(6), torch.tensor([6])
    for order in (train, train.flip(0), torch.tensor([4, 0, 2, 5, 1, 3])):
        shares = _votes(z[order], y[order], z[test], (1, 3, 99), tau)[:, 0]  # [3, K]
        cosine = F.normalize(z, dim=1) @ F.normalize(z[6], dim=0)
        a, b, c = [1 if math.isinf(tau) else math.exp((cosine[i] - cosine[0]) / tau) for i in (0, 1, 5)]
        wanted = [[a, 0, 0], [a + 2 * b / 4, 2 * b * 3 / 4, 0], [a + b, 3 * b, c]]  # of k = 3: two votes for four rows
        torch.testing.assert_close(shares, F.normalize(torch.tensor(wanted), p=1, dim=1))


def test_mistakes_are_named():
    z, y, split = problem(40, 3, 10)
    for k in (0, -3, (), (5, 0), (1.5,)):
        with pytest.raises(ValueError, match=r"k must be a whole number >= 1 or several of them, got"):
            knn(z, y, split, k=k)
    for tau in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match=rf"tau must be > 0, got {tau}"):
            knn(z, y, split, tau=tau)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_plain_knn_counts_heads(k):
    z, y, split = problem(60, 3, 4)
    right = []
    for i in split.test.tolist():
        near = sorted(((z[i] @ z[j] / (z[i].norm() * z[j].norm())).item(), int(y[j])) for j in split.train.tolist())
        votes = [c for _, c in near[-k:]]
        right.append(max(sorted(set(votes)), key=votes.count) == int(y[i]))
    assert knn(z, y, split, k=k, tau=math.inf).values[0] == pytest.approx(sum(right) / len(right))
    assert knn_plain(z, y, split) == knn(z, y, split, tau=math.inf)
    assert knn_plain(z, y, split).protocol == "knn/clean/2"
