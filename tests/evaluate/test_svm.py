import importlib.util
import os

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from torch import Tensor

from graphcl.data.sources import load_data
from graphcl.data.splits import Split, kfold_split
from graphcl.evaluate import _native
from graphcl.evaluate.structure import graph_statistics
from graphcl.evaluate.svm import (
    STRENGTHS,
    accuracies,
    decisions,
    distances,
    rbf,
    standardised,
    svm_linear,
    svm_rbf,
    svm_rbf_paper,
)

needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")


def rings(n: int, noise: float = 0.3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two circles, one inside the other: no line divides them; and a third class far off."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    turn = torch.rand(n, generator=generator) * 2 * torch.pi
    z = torch.stack([turn.cos(), turn.sin()], dim=1) * (1.0 + 2.0 * (y == 1)[:, None])
    z[y == 2] += torch.tensor([9.0, 0.0])
    return z + noise * torch.randn(n, 2, generator=generator), y


def thirds(n: int, seed: int = 0) -> Split:
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return Split(order[: n // 3], order[n // 3 : 2 * n // 3], order[2 * n // 3 :])


clean = pytest.mark.parametrize("svm", [svm_rbf, svm_linear])


def test_curved_borders_need_the_rbf_kernel():
    z, y = rings(240, noise=0.2)
    assert svm_rbf(z, y, thirds(240)).mean > 0.95
    assert svm_linear(z, y, thirds(240)).mean < 0.9
    easy = torch.eye(3)[y] + 0.1 * z[:, :1] / 9
    assert svm_linear(easy, y, thirds(240)).mean > 0.98


@pytest.mark.parametrize(("svm", "kind"), [(svm_rbf, "rbf"), (svm_linear, "linear")])
@pytest.mark.parametrize("classes", [2, 3])
def test_clean_is_scikit_learns_svm_on_standardised_rows(svm, kind, classes):
    z, y = rings(150, noise=0.9)
    z, y = z[y < classes], y[y < classes]
    split = thirds(len(y), 1)
    scale = StandardScaler().fit(z[split.train].double())
    x = scale.transform(z.double())
    best = (-1.0, 0.0)
    for C in STRENGTHS:
        model = SVC(C=C, gamma="scale", break_ties=classes > 2) if kind == "rbf" else LinearSVC(C=C, random_state=0)
        model.fit(x[split.train], y[split.train])
        scored = tuple(model.score(x[part], y[part]) for part in (split.val, split.test))
        best = max(best, scored, key=lambda pair: pair[0])
    scores = svm(z, y, split)
    assert (scores.valid[0], scores.values[0]) == pytest.approx(best, abs=1e-9)
    assert scores.protocol == f"svm-{kind}/clean/1"


def paper_by_hand(z: Tensor, y: Tensor, seed: int) -> list[float]:
    """The authors' function, with a seed."""
    x, y = z.numpy(), y.numpy()
    values = []
    for train, test in StratifiedKFold(10, shuffle=True, random_state=seed).split(x, y):
        search = GridSearchCV(SVC(), {"C": [0.001, 0.01, 0.1, 1, 10, 100, 1000]}, cv=5, scoring="accuracy")
        values.append(float((search.fit(x[train], y[train]).predict(x[test]) == y[test]).mean()))
    return values


def by_libsvm(monkeypatch, call):
    with monkeypatch.context() as patch:
        patch.setattr("graphcl.evaluate.svm.native", lambda: None)
        return call()


@pytest.mark.parametrize("seed", [0, 1])
def test_paper_is_graphcls_rule(seed, monkeypatch):
    z, y = rings(120, noise=1.0, seed=seed)
    wanted = paper_by_hand(z, y, seed)
    scores = by_libsvm(monkeypatch, lambda: svm_rbf_paper(z, y, seed=seed))
    assert scores.values == pytest.approx(wanted, abs=1e-12)
    # A row nearer to a border than the tolerance may be called otherwise by the other solver.
    assert svm_rbf_paper(z, y, seed=seed).values == pytest.approx(wanted, abs=1 / 12 + 1e-9)
    assert scores.protocol == "svm-rbf/paper/1" and scores.valid == ()


def test_paper_makes_its_own_folds_by_the_seed_and_leaves_out_rows_without_a_label(monkeypatch):
    monkeypatch.setattr("graphcl.evaluate.svm.OUTER", 4)
    z, y = rings(90, noise=1.5)
    wanted = svm_rbf_paper(z, y, seed=3)
    assert svm_rbf_paper(z, y, thirds(90), seed=3) == wanted != svm_rbf_paper(z, y, seed=4)
    more = torch.cat([z, torch.full((7, 2), 1e3)])
    assert svm_rbf_paper(more, torch.cat([y, torch.full((7,), -1)]), seed=3) == wanted


def test_threads_change_nothing(monkeypatch):
    monkeypatch.setattr("graphcl.evaluate.svm.OUTER", 4)
    z, y = rings(60, noise=1.5)
    alone = svm_rbf_paper(z, y)
    torch.set_num_threads(2)
    try:
        assert svm_rbf_paper(z, y) == alone
    finally:
        torch.set_num_threads(1)


# --- no label leaks ---------------------------------------------------------------------------------------------------


@clean
def test_test_labels_are_never_seen(svm):
    """Over all classes c, the shares of test rows that are called c sum to 1 if and only if no prediction changes."""
    z, y = rings(150, noise=1.5)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(5))
    split = Split(order[:40], order[40:80], order[80:140])
    honest, shares = svm(z, y, split), []
    for c in range(3):
        poisoned = y.clone()
        poisoned[split.test], poisoned[order[140:]] = c, 2 - c
        scores = svm(z, poisoned, split)
        assert scores.valid == honest.valid
        shares.append(scores.values[0])
    assert sum(shares) == pytest.approx(1, abs=1e-12)


def test_the_papers_test_labels_are_never_seen(monkeypatch):
    """The folds are stratified by all labels, as the rule has it; in a fold, fit and choice use train labels only."""
    z, y = rings(90, noise=1.5)
    fixed = list(StratifiedKFold(10, shuffle=True, random_state=0).split(y, y))
    test = fixed[0][1]

    class Folds(StratifiedKFold):
        def split(self, X, y=None, groups=None):
            return iter(fixed[:1]) if self.n_splits == 10 else super().split(X, y)

    monkeypatch.setattr("graphcl.evaluate.svm.StratifiedKFold", Folds)
    shares = []
    for c in range(3):
        poisoned = y.clone()
        poisoned[test] = c
        shares.append(svm_rbf_paper(z, poisoned).values[0])
    assert len(shares) == 3 and sum(shares) == pytest.approx(1, abs=1e-12)


@clean
def test_what_a_row_is_called_does_not_depend_on_the_rows_beside_it(svm):
    z, y = rings(90, noise=1.0)
    split = thirds(90)
    far = z.clone()
    far[split.test[10:]] = 1e4
    alone = Split(split.train, split.val, split.test[:10])
    assert svm(far, y, alone) == svm(z, y, alone)


# --- odd data and mistakes --------------------------------------------------------------------------------------------


def test_standardised_takes_its_numbers_from_the_train_rows():
    train = torch.tensor([[1.0, 5.0, 1e-30], [3.0, 5.0, -1e-30]])
    a, b = standardised(train, torch.tensor([[5.0, 99.0, 1.0]]))
    np.testing.assert_allclose(a, [[-1, 0, 0], [1, 0, 0]])
    np.testing.assert_allclose(b, [[3, 0, 0]])


def test_distances_are_squared_and_never_negative():
    a, b = 1e4 + torch.randn(20, 5).double(), 1e4 + torch.randn(7, 5).double()
    np.testing.assert_allclose(distances(a.numpy(), b.numpy()), torch.cdist(a, b).square(), rtol=1e-4, atol=1e-4)
    assert (distances(a.numpy(), a.numpy()) >= 0).all()


def test_decisions_order_two_classes_as_one_value_does():
    x = torch.randn(30, 3).double().numpy()
    y = (x[:, 0] > 0).astype(int)
    values = decisions(x @ x.T, x @ x.T, y)
    assert values.shape == (7, 30, 2)
    torch.testing.assert_close(values[..., 0], -values[..., 1])
    assert float((values[-1].argmax(1).numpy() == y).mean()) == 1


@pytest.mark.parametrize("svm", [svm_rbf, svm_linear, svm_rbf_paper])
def test_embeddings_without_information_give_a_score_all_the_same(svm, monkeypatch):
    monkeypatch.setattr("graphcl.evaluate.svm.OUTER", 2)
    y = torch.arange(60) % 2
    for z in (torch.zeros(60, 4), torch.ones(60, 1), 1e-30 * torch.ones(60, 3), 1e12 * torch.ones(60, 3)):
        assert 0.2 < svm(z, y, thirds(60)).mean < 0.8


@clean
def test_roc_auc_and_several_tasks(svm):
    z, _ = rings(120)
    y = (torch.stack([z[:, 0], z[:, 1]], dim=1) > 0.5).float()
    y[::5, 0] = float("nan")
    assert svm(z, y, thirds(120), metric="roc_auc").mean > 0.9


def test_mistakes_are_told():
    z, y = rings(60)
    with pytest.raises(ValueError, match=r"accuracy of one task, got 2 and metric='accuracy'; use a clean"):
        svm_rbf_paper(z, (z > 0).float())
    with pytest.raises(ValueError, match="got 1 and metric='roc_auc'"):
        svm_rbf_paper(z, y, metric="roc_auc")
    with pytest.raises(ValueError, match="class 1 has 4 rows, 10 folds need 10; use a clean protocol"):
        svm_rbf_paper(z, (torch.arange(60) < 4).long())
    with pytest.raises(ValueError, match="labels have 1 classes"):
        svm_rbf_paper(z, torch.zeros(60).long())
    with pytest.raises(ValueError, match="embeddings must be finite, row 3"):
        svm_rbf_paper(torch.where(torch.arange(60)[:, None] == 3, torch.nan, z), y)


def test_clean_over_folds():
    z, y = rings(90, noise=0.2)
    scores = svm_rbf(z, y, kfold_split(y, 5, 0))
    assert len(scores.values) == 5 and scores.mean > 0.9


# --- the compiled solver ----------------------------------------------------------------------------------------------


def problem(n: int, classes: int = 2, noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """RBF kernels [n, n] and [n // 2, n], and classes [n] that are hard to tell apart."""
    generator = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x, other = generator.normal(size=(n, 3)), generator.normal(size=(n // 2, 3))
    x[:, 0] += y / noise
    return np.exp(-distances(x, x) / 3), np.exp(-distances(other, x) / 3), y


@needs_numba
@pytest.mark.parametrize("strengths", [STRENGTHS, STRENGTHS[::-1], (1e-9, 1e-4, 30.0), (1.0, 1.0)])
@pytest.mark.parametrize("n", [2, 5, 63, 64, 65, 400])
def test_solver_finds_libsvms_optimum(n, strengths):
    gram, cross, y = problem(n)
    sign = np.where(y == 0, 1.0, -1.0)
    signed, offsets = _native.solve(_native.native(), gram.astype(np.float32), sign, strengths)
    gram = gram.astype(np.float32).astype(np.float64)  # what both solve
    for strength, found, offset in zip(strengths, signed, offsets, strict=True):
        alpha = found * sign
        assert alpha.min() >= 0 and alpha.max() <= strength and abs(found.sum()) <= 1e-9 * max(1, strength * n)
        model = SVC(C=strength, kernel="precomputed").fit(gram, y)
        other = np.zeros(n)
        other[model.support_] = -model.dual_coef_[0]  # scikit-learn turns two classes round

        def objective(b):
            return b @ gram @ b / 2 - b @ sign

        # Either lies within tolerance x sum(alpha) of the optimum, as the duality gap says.
        assert abs(objective(found) - objective(other)) <= 1e-3 * np.abs(found).sum() + 1e-12
        slope = gram @ found - sign
        up, down = found < np.maximum(0, sign * strength), found > np.minimum(0, sign * strength)
        assert slope[down].max() - slope[up].min() < 1.01e-3
        values = cross @ found - offset
        np.testing.assert_allclose(values, -model.decision_function(cross), atol=0.02, rtol=0.01)


@needs_numba
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_decisions_and_accuracies_are_scikit_learns(classes, monkeypatch):
    gram, cross, y = problem(200, classes, seed=classes)
    truth = np.arange(len(cross)) % classes
    ours, theirs = decisions(gram, cross, y), by_libsvm(monkeypatch, lambda: decisions(gram, cross, y))
    assert ours.shape == theirs.shape == (7, 100, classes)
    changed = ours.argmax(-1) != theirs.argmax(-1)
    top = theirs.topk(2, dim=-1).values
    assert float(changed.float().mean()) < 0.01 and bool(((top[..., 0] - top[..., 1])[changed] < 0.1).all())
    same = ~((ours - theirs).abs() > 0.3).any(-1)  # no vote went the other way
    assert float(same.float().mean()) > 0.98
    torch.testing.assert_close(ours[same], theirs[same], atol=0.01, rtol=0.01)
    kept = accuracies(gram, cross, y, truth)
    assert kept == pytest.approx(by_libsvm(monkeypatch, lambda: accuracies(gram, cross, y, truth)), abs=0.01 + 1e-9)
    assert accuracies(gram, cross, y, truth, STRENGTHS[5:6]) == pytest.approx(kept[5:6], abs=0.01 + 1e-9)


@needs_numba
def test_equal_votes_go_to_the_first_class(monkeypatch):
    """Three classes in a circle of votes: libsvm takes the first, scikit-learn's decisions the surest."""
    monkeypatch.setattr(
        "graphcl.evaluate.svm.solve",
        lambda kernels, part, sign, strengths: (np.zeros((1, len(sign))), np.array([wins.pop(0)])),
    )
    y = np.array([0, 1, 2])
    wins = [-1.0, 3.0, -1.5]  # rho: 0 over 1 by 1, 2 over 0 by 3, 1 over 2 by 1.5
    assert accuracies(np.eye(3), np.ones((1, 3)), y, np.array([0]), [1.0]) == [1]
    wins = [-1.0, 3.0, -1.5]
    monkeypatch.setattr("graphcl.evaluate.svm.STRENGTHS", (1.0,))
    assert decisions(np.eye(3), np.ones((1, 3)), y).argmax().item() == 2


@needs_numba
@pytest.mark.parametrize("name", ["imdb-binary", "mutag"])
def test_paper_agrees_with_libsvm_on_data(name, monkeypatch):
    if name == "mutag" and "GRAPHCL_DATA" not in os.environ:
        pytest.skip("MUTAG is under GRAPHCL_DATA")
    store = load_data(name).subset(torch.arange(0, 1000, 4) if name == "imdb-binary" else torch.arange(188))
    z, y = graph_statistics(store).float(), store.y
    ours, theirs = svm_rbf_paper(z, y), by_libsvm(monkeypatch, lambda: svm_rbf_paper(z, y))
    assert ours.values == pytest.approx(theirs.values, abs=1.5 / (len(y) // 10))  # one graph of a fold
    assert ours.mean == pytest.approx(theirs.mean, abs=0.01)


@needs_numba
def test_the_grid_chooses_gridsearchcvs_strength(monkeypatch):
    gram, _, y = problem(150, noise=0.6, seed=4)
    search = GridSearchCV(SVC(kernel="precomputed"), {"C": STRENGTHS}, cv=5).fit(gram, y)
    right = np.zeros(len(STRENGTHS))
    for fit, check in StratifiedKFold(5).split(gram, y):
        right += accuracies(gram[np.ix_(fit, fit)], gram[np.ix_(check, fit)], y[fit], y[check])
    np.testing.assert_allclose(right / 5, search.cv_results_["mean_test_score"], atol=1 / 150 + 1e-9)
    assert search.cv_results_["mean_test_score"][right.argmax()] >= search.best_score_ - 1 / 150 - 1e-9


@needs_numba
def test_degenerate_kernels(monkeypatch):
    y = np.arange(40) % 2
    gram, cross, _ = problem(20)
    for kernel in (np.ones((40, 40)), np.zeros((40, 40)), np.eye(40), np.tile(gram, (2, 2)), -np.eye(40)):
        values = decisions(kernel, kernel[:9], y)
        assert bool(values.isfinite().all()) and values.shape == (7, 9, 2)
    twice = decisions(np.tile(gram, (2, 2)), np.tile(cross, 2), np.tile(y[:20], 2))  # each row twice: as with twice C
    wanted, offset = _native.solve(_native.native(), gram.astype(np.float32), np.where(y[:20] == 0, 1.0, -1.0), [2.0])
    torch.testing.assert_close(twice[3, :, 0].numpy(), (cross @ wanted.T - offset)[:, 0], atol=0.01, rtol=0.01)
    few = np.where(np.arange(40) < 1, 0, 3)  # one row of a class, and names that are not 0..K-1
    assert accuracies(np.eye(40), np.eye(40), few, few)[-1] == 1


@needs_numba
def test_kernels_that_no_svm_can_be_fitted_on_are_told():
    broken = np.eye(4)
    broken[1, 2] = np.nan
    with pytest.raises(ValueError, match="kernels must be finite; look for NaN"):
        decisions(broken, np.eye(4), np.arange(4) % 2)
    with pytest.raises(ValueError, match="train rows have 1 classes; an SVM needs two"):
        decisions(np.eye(4), np.eye(4), np.zeros(4, dtype=int))


@needs_numba
def test_solver_that_gives_up_says_so(monkeypatch):
    monkeypatch.setattr("graphcl.evaluate._native.STEPS", 50)
    gram, _, y = problem(300)
    with pytest.warns(ConvergenceWarning, match=r"no solution found, violation .*; scale the columns"):
        _native.solve(_native.native(), gram.astype(np.float32), np.where(y == 0, 1.0, -1.0), [1e3])


def test_rbf_kernels_of_some_rows():
    x = np.random.default_rng(0).normal(size=(150, 3))
    squares, rows, columns = distances(x, x), np.arange(0, 150, 2), np.arange(140)[::-1].copy()
    np.testing.assert_allclose(
        rbf(squares, 0.3, rows, columns, np.float64), np.exp(-0.3 * squares[np.ix_(rows, columns)]), rtol=1e-14
    )
    assert rbf(squares, 0.3, rows[:0], columns, np.float32).shape == (0, 140)
