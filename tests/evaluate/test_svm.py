import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from torch import Tensor

from graphcl.data.splits import Split, kfold_split
from graphcl.evaluate.svm import STRENGTHS, decisions, distances, standardised, svm_linear, svm_rbf, svm_rbf_paper


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


@pytest.mark.parametrize("seed", [0, 1])
def test_paper_is_graphcls_rule(seed):
    z, y = rings(120, noise=1.0, seed=seed)
    scores = svm_rbf_paper(z, y, seed=seed)
    assert scores.values == pytest.approx(paper_by_hand(z, y, seed), abs=1e-12)
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
