import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from graphcl.data.splits import Split
from graphcl.evaluate import Scores, linear_probe
from graphcl.evaluate.knn import _votes, knn
from graphcl.evaluate.probe import _logistic, linear_probe_standard


def clusters(n: int, classes: int = 3, dim: int = 6, noise: float = 0.5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows around one direction a class, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    return torch.eye(dim)[y] + noise * torch.randn(n, dim, generator=generator), y


def thirds(n: int, seed: int = 0) -> Split:
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return Split(order[: n // 3], order[n // 3 : 2 * n // 3], order[2 * n // 3 :])


both = pytest.mark.parametrize("probe", [linear_probe, linear_probe_standard, knn])


# --- the score --------------------------------------------------------------------------------------------------------


@both
def test_separable_classes_are_found_and_noise_is_not(probe):
    z, y = clusters(300, noise=0.1)
    assert probe(z, y, thirds(300)).mean > 0.98
    blind = probe(torch.randn(900, 6, generator=torch.Generator().manual_seed(1)), torch.arange(900) % 3, thirds(900))
    assert abs(blind.mean - 1 / 3) < 5 * math.sqrt(2 / 9 / 300)


@both
def test_one_value_a_split_and_their_mean_and_deviation(probe):
    z, y = clusters(150, noise=0.8)
    splits = [thirds(150, seed) for seed in range(4)]
    scores = probe(z, y, splits)
    assert len(scores.values) == len(scores.valid) == 4
    assert scores.values == tuple(probe(z, y, one).values[0] for one in splits)
    assert scores.mean == pytest.approx(np.mean(scores.values)) and scores.std == pytest.approx(
        np.std(scores.values, ddof=1)
    )
    assert scores == probe(z, y, splits)


def test_scores_print_in_percent():
    assert str(Scores("linear probe", "accuracy", (0.8, 0.82, 0.84), (1.0, 1.0, 1.0))) == (
        "linear probe accuracy 82.00 ± 2.00 (3 splits)"
    )
    assert str(Scores("k-NN", "roc_auc", (0.71234,), (0.9,))) == "k-NN ROC-AUC 71.23 (1 split)"
    assert Scores("k-NN", "accuracy", (0.5,), (0.5,)).std == 0


def test_it_is_scikit_learns_regression_on_rows_normalised_by_the_train_rows_alone():
    z, y = clusters(120, noise=0.9, seed=3)
    split = thirds(120, 3)
    rows = (z / z.norm(dim=1, keepdim=True)).double()
    centre = rows[split.train].mean(0)
    rows = ((rows - centre) / (rows[split.train] - centre).square().mean().sqrt()).numpy()
    best = (-1.0, 0.0)
    for power in range(-6, 4):
        model = LogisticRegression(C=10.0**power, max_iter=10_000, tol=1e-8).fit(rows[split.train], y[split.train])
        valid, test = (model.score(rows[part], y[part]) for part in (split.val, split.test))
        best = max(best, (valid, test), key=lambda pair: pair[0])
    scores = linear_probe(z, y, split)
    assert scores.valid[0] == pytest.approx(best[0], abs=0.026) and scores.values[0] == pytest.approx(
        best[1], abs=0.026
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_standardised_it_is_scikit_learns_pipeline(classes):
    z, y = clusters(150, classes, noise=0.9, seed=3)
    z, split = z * torch.logspace(-3, 3, 6) + 10, thirds(150, 3)
    best = (-1.0, 0.0)
    for power in range(-6, 4):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=10.0**power, max_iter=10_000, tol=1e-8))
        model.fit(z[split.train].numpy(), y[split.train])
        valid, test = (model.score(z[part].numpy(), y[part]) for part in (split.val, split.test))
        best = max(best, (valid, test), key=lambda pair: pair[0])
    scores = linear_probe_standard(z, y, split)
    assert (scores.valid[0], scores.values[0]) == pytest.approx(best, abs=0.021)


def test_only_the_standardised_probe_sees_lengths():
    y = torch.arange(150) % 2
    z = (1.0 + y)[:, None] * torch.ones(150, 4) + 0.01 * clusters(150)[0][:, :4]
    assert linear_probe_standard(z, y, thirds(150)).mean == 1
    assert linear_probe(z, y, thirds(150)).mean < 0.8


@both
def test_the_setting_is_the_best_one_on_validation(probe):
    z, y = clusters(240, classes=2, noise=1.5)
    split = thirds(240)
    for metric in ("accuracy", "roc_auc"):
        chosen = probe(z, y, split, metric=metric).valid[0]
        exchanged = probe(z, y, Split(split.train, split.test, split.val), metric=metric)
        assert 0.5 < chosen <= 1
        # on the rows that chose it the score is at least that of a setting chosen on others
        assert chosen >= exchanged.values[0] - 1e-12


@pytest.mark.parametrize("probe", [linear_probe, knn])
def test_neither_length_nor_order_nor_names_of_classes_matter(probe):
    z, y = clusters(150, noise=0.7)
    split, wanted = thirds(150), probe(*clusters(150, noise=0.7), thirds(150)).mean
    lengths = torch.logspace(-2, 2, 150)[:, None]
    assert probe(z * lengths, y, split).mean == pytest.approx(wanted, abs=0.021)
    assert probe(z, torch.tensor([70, 3, 12])[y], split).mean == pytest.approx(wanted, abs=0.021)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(4))
    place = order.argsort()
    moved = Split(*(place[part] for part in split))
    assert probe(z[order], y[order], moved).mean == pytest.approx(wanted, abs=0.021)


@both
def test_accepts_what_people_have(probe):
    z, y = clusters(90, noise=0.4)
    split, wanted = thirds(90), probe(*clusters(90, noise=0.4), thirds(90)).values
    assert probe(z.numpy(), y.numpy(), split).values == wanted
    assert probe(z.requires_grad_(), y.int(), split).values == wanted
    assert probe(z.half(), y[:, None], split).mean == pytest.approx(wanted[0], abs=0.034)


# --- no label leaks ---------------------------------------------------------------------------------------------------


@both
def test_test_labels_are_never_seen(probe):
    """With every test row called c, the accuracy is the share of rows predicted c; over all c the shares sum to 1 if
    and only if the predictions stay the same. Labels of rows in no part may be anything."""
    z, y = clusters(200, classes=3, noise=1.0)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(5))
    split = Split(order[:40], order[40:80], order[80:170])
    honest, shares = probe(z, y, split), []
    for c in range(3):
        poisoned = y.clone()
        poisoned[split.test], poisoned[order[170:]] = c, 2 - c
        scores = probe(z, poisoned, split)
        assert scores.valid == honest.valid
        shares.append(scores.values[0])
    assert sum(shares) == pytest.approx(1, abs=1e-12)
    unknown = y.clone()
    unknown[order[170:]] = -1
    assert probe(z, unknown, split) == honest


@both
@pytest.mark.parametrize("metric", ["accuracy", "roc_auc"])
def test_turning_the_test_labels_round_turns_the_score_round(probe, metric):
    z, y = clusters(240, classes=2, noise=1.2)
    split = thirds(240)
    poisoned = y.clone()
    poisoned[split.test] = 1 - poisoned[split.test]
    honest, turned = probe(z, y, split, metric=metric), probe(z, poisoned, split, metric=metric)
    assert turned.valid == honest.valid
    assert turned.mean == pytest.approx(1 - honest.mean, abs=1e-12)


@pytest.mark.parametrize(
    "predict", [lambda *x: _logistic(*x, seed=0, newton=False), lambda *x: _votes(*x, ks=(1, 5, 99), tau=0.07)]
)
def test_what_a_row_is_called_does_not_depend_on_the_rows_beside_it(predict):
    (z, y), far = clusters(60, noise=0.8), 1e3 * torch.ones(40, 6)
    wanted = predict(z[:40], y[:40], z[40:])
    torch.testing.assert_close(predict(z[:40], y[:40], torch.cat([z[40:], far]))[:, :20], wanted, rtol=1e-6, atol=1e-6)


# --- several tasks ----------------------------------------------------------------------------------------------------


def several_tasks(n: int = 240) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    z = torch.randn(n, 5, generator=generator)
    y = (z[:, :3] + 0.5 * torch.randn(n, 3, generator=generator) > 0).float()
    y[torch.rand(n, 3, generator=generator) < 0.3] = float("nan")
    return z, y


@both
@pytest.mark.parametrize("metric", ["accuracy", "roc_auc"])
def test_several_tasks_are_the_mean_over_tasks(probe, metric):
    z, y = several_tasks()
    scores = probe(z, y, thirds(240), metric=metric)
    assert 0.65 < scores.mean < 1
    same_task = y[:, :1].expand(-1, 4)
    assert probe(z, same_task, thirds(240), metric=metric).mean == pytest.approx(
        probe(z, y[:, 0], thirds(240), metric=metric).mean, abs=1e-12
    )


def test_newtons_steps_reach_the_optimum_of_the_usual_solver():
    torch.manual_seed(0)
    x, other, y = torch.randn(300, 20), torch.randn(50, 20), (torch.rand(300) < 0.3).long()
    usual, newton = (_logistic(x, y, other, 0, newton=newton) for newton in (False, True))
    scale = usual.abs().amax(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(newton / scale, usual / scale, atol=2e-3, rtol=0)


@both
def test_rows_without_a_label_take_no_part_in_their_task(probe):
    z, y = several_tasks()
    split = thirds(240)
    known = Split(*(part[~y[part, 0].isnan()] for part in split))
    wanted = probe(z, y[:, 0].nan_to_num(0).long(), known, metric="roc_auc")
    assert probe(z, y[:, :1], split, metric="roc_auc") == wanted
    assert probe(z, y[:, 0].nan_to_num(-1).long()[:, None].expand(-1, 2), split, metric="roc_auc") == wanted


@both
def test_tasks_of_one_class_are_left_out_and_named(probe):
    z, y = several_tasks()
    split = thirds(240)
    spoilt = torch.cat([y[:, :1], torch.zeros(240, 1), y[:, 1:2], y[:, 2:]], dim=1)
    spoilt[split.test, 3] = 1.0
    with pytest.warns(UserWarning, match=r"split 0: tasks 1, 3 of 4 are left out of the mean"):
        scores = probe(z, spoilt, split, metric="roc_auc")
    assert scores.mean == pytest.approx(probe(z, y[:, :2], split, metric="roc_auc").mean, abs=1e-12)
    with pytest.raises(ValueError, match="no task has both classes in train and test"):
        probe(z, torch.zeros(240, 3), split, metric="roc_auc")


@both
def test_a_task_that_validation_cannot_score_has_no_say(probe):
    z, y = several_tasks()
    split = thirds(240)
    y[split.val, 1] = 1.0
    assert math.isfinite(probe(z, y, split, metric="roc_auc").mean)
    y[split.val] = 1.0
    with pytest.raises(ValueError, match=r"validation rows are all of one class.*use metric='accuracy'"):
        probe(z, y, split, metric="roc_auc")
    y[split.val] = float("nan")
    with pytest.raises(ValueError, match=r"validation rows have no label of a task that counts.*; use another split$"):
        probe(z, y, split, metric="accuracy")


# --- mistakes ---------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_embeddings_that_are_not_finite_are_refused_by_row(probe, value):
    z, y = clusters(30)
    z[17, 2] = value
    with pytest.raises(
        ValueError, match=rf"embeddings must be finite, row 17 has {value} in column 2; .*learning rate"
    ):
        probe(z, y, thirds(30))


@both
def test_labels_that_do_not_fit_are_refused(probe):
    z, y = clusters(30)
    split = thirds(30)
    with pytest.raises(ValueError, match="embeddings have 30 rows, labels 29"):
        probe(z, y[:29], split)
    with pytest.raises(ValueError, match="no labels given"):
        probe(z, None, split)
    missing = y.clone()
    missing[split.val[3]] = -1
    with pytest.raises(
        ValueError, match=rf"split 0: 1 of 10 val rows have no label \(-1\), first row {split.val[3]}; leave"
    ):
        probe(z, missing, split)
    one = y.clone()
    one[split.train] = 2
    with pytest.raises(ValueError, match="split 0: train has class 2 only; a probe needs two classes"):
        probe(z, one, split)
    with pytest.raises(ValueError, match=r"labels must be \[n\] classes or \[n, T\] tasks, got \(30, 1, 1\)"):
        probe(z, y[:, None, None], split)
    for value, shown in ((0.7, r"0\.7"), (float("inf"), "inf"), (-1.0, r"-1\.0"), (2.0, r"2\.0")):
        values = (y == 1).double()
        values[4] = value
        with pytest.raises(ValueError, match=rf"row 4, task 0 is {shown}.*; .*regression is not supported"):
            probe(z, values, split)


@both
def test_splits_that_do_not_fit_are_refused(probe):
    z, y = clusters(30)
    train, val, test = thirds(30)
    none = torch.zeros(0, dtype=torch.long)
    for part, split in (("train", (none, val, test)), ("val", (train, none, test)), ("test", (train, val, none))):
        with pytest.raises(ValueError, match=f"split 0: {part} is empty; .*give each at least one row"):
            probe(z, y, Split(*split))
    with pytest.raises(ValueError, match=r"split 1: test goes from \d+ to 30, embeddings have 30 rows"):
        probe(z, y, [Split(train, val, test), Split(train, val, test + 30 - test.max())])
    with pytest.raises(ValueError, match=rf"split 0: row {train[2]} stands more than once, in train and test"):
        probe(z, y, Split(train, val, torch.cat([test, train[2:3]])))
    with pytest.raises(ValueError, match=r"train must be row numbers \[n\], got torch.bool \(30,\); of a mask use"):
        probe(z, y, Split(torch.ones(30, dtype=torch.bool), val, test))
    with pytest.raises(ValueError, match=r"got a tuple of Tensor; use graphcl\.Split"):
        linear_probe(torch.randn(9, 2), torch.arange(9) % 2, tuple(torch.arange(9).split(3)))
    with pytest.raises(ValueError, match="no split given"):
        probe(z, y, [])


@both
def test_metrics_that_do_not_fit_are_refused(probe):
    z, y = clusters(60)
    split = thirds(60)
    with pytest.raises(ValueError, match="metric must be one of accuracy, roc_auc, prc_auc, got 'f1'"):
        probe(z, y, split, metric="f1")
    with pytest.raises(ValueError, match=r"roc_auc needs two classes .* the labels have 3; use metric='accuracy'"):
        probe(z, y, split, metric="roc_auc")
    two = y % 2
    two[split.test] = 1
    with pytest.raises(ValueError, match="roc_auc is not defined, all test rows are of one class"):
        probe(z, two, split, metric="roc_auc")
    assert probe(z, two, split).metric == "accuracy"
    two = y % 2
    two[split.val] = 1
    with pytest.raises(ValueError, match="validation rows are all of one class"):
        probe(z, two, split, metric="roc_auc")


@both
def test_embeddings_without_information_give_a_score_all_the_same(probe):
    _, y = clusters(60, classes=2)
    for z in (torch.zeros(60, 4), torch.ones(60, 1), 1e-30 * torch.ones(60, 3), 1e30 * torch.ones(60, 3)):
        assert 0.2 < probe(z, y, thirds(60)).mean < 0.8
        assert probe(z, y, thirds(60), metric="roc_auc").mean == pytest.approx(0.5)


@both
def test_a_class_that_train_does_not_have_counts_as_wrong(probe):
    z, y = clusters(60, classes=2, noise=0.05)
    split = thirds(60)
    y[split.test[:10]] = 5
    assert probe(z, y, split).mean == pytest.approx(0.5)
