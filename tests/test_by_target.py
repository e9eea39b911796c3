"""Targets one by one: the counts of each part, what is refused and told, and scores as scikit-learn has them."""

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from graphcl.assay import alike, shown
from graphcl.by_target import check_counts, counts, said, scores_by_target, table_of_targets
from graphcl.data.splits import Split
from graphcl.evaluate.scores import NAMES

NAN = float("nan")
SPLIT = Split(torch.arange(4), torch.arange(4, 7), torch.arange(7, 10))
Y = torch.tensor(
    [[0, 1], [1, 1], [0, NAN], [1, 1], [0, 0], [1, NAN], [NAN, 1], [1, 1], [0, NAN], [0, 1]], dtype=torch.float32
)


def test_every_part_of_every_target_is_counted():
    found = counts(Y, ["a", "b"], SPLIT, classes=True)
    assert found["a"] == {"train": [2, 2], "val": [1, 1], "test": [2, 1]}
    assert found["b"] == {"train": [0, 3], "val": [1, 1], "test": [0, 2]}
    assert counts(Y, ["a", "b"], SPLIT, classes=False)["b"] == {"train": [3], "val": [2], "test": [2]}
    assert said(found["a"]) == "train 2 + 2, val 1 + 1, test 2 + 1"


def test_what_cannot_be_learned_or_chosen_is_refused_and_few_labels_are_told():
    enough = {"a": {"train": [90, 9], "val": [10, 10], "test": [20, 10]}}
    check_counts(enough, "roc_auc", "here")
    with pytest.raises(
        ValueError, match=r"here: no target has two values, .* \(b: train 0 \+ 3, val 1 \+ 1, .*--split"
    ):
        check_counts({"b": {"train": [0, 3], "val": [1, 1], "test": [1, 2]}}, "roc_auc", "here")
    with pytest.raises(
        ValueError, match=r"no target has two values, .*\(s: train 8, val 1, test 1\); .* more molecules"
    ):
        check_counts({"s": {"train": [8], "val": [1], "test": [1]}}, "rmse", "here")
    one_class = {"a": {"train": [5, 5], "val": [0, 9], "test": [9, 9]}}
    with pytest.raises(
        ValueError, match=r"of one class \(a: .*so roc_auc cannot choose the epoch; .*--metric accuracy"
    ):
        check_counts(one_class, "roc_auc", "here")
    with pytest.warns(UserWarning, match=r"here: a: train 5 \+ 5, val 0 \+ 9, test 9 \+ 9; under 10 of a kind"):
        check_counts(one_class, "accuracy", "here")
    with pytest.warns(UserWarning, match="here: s: train 80, val 9, test 12; under 10"):
        check_counts(enough | {"s": {"train": [80], "val": [9], "test": [12]}}, "rmse", "here")


def test_scores_of_each_target_are_those_of_its_known_rows():
    made = torch.rand(2, 3, 2, dtype=torch.float64)
    found = scores_by_target(Y, ["a", "b"], SPLIT.test, made, ["roc_auc", "prc_auc", "accuracy"])
    assert found.keys() == {"a"}, "b has one class in test"
    for seed in range(2):
        truth, one = Y[SPLIT.test, 0].numpy(), made[seed, :, 0].numpy()
        assert found["a"]["roc_auc"][seed] == pytest.approx(roc_auc_score(truth, one))
        assert found["a"]["prc_auc"][seed] == pytest.approx(average_precision_score(truth, one))
        assert found["a"]["accuracy"][seed] == pytest.approx(((one > 0.5) == (truth == 1)).mean())
    errors = scores_by_target(Y, ["a", "b"], SPLIT.test, made, alike("mae"))
    gap = made[:, [0, 2], 1] - Y[SPLIT.test[[0, 2]], 1]
    assert errors["b"]["rmse"] == pytest.approx(gap.square().mean(1).sqrt().tolist())
    assert errors["b"]["mae"] == pytest.approx(gap.abs().mean(1).tolist())


def test_a_report_has_a_line_for_each_of_several_targets():
    report = {
        "metric": "roc_auc",
        "kind": "classification",
        "counts": counts(Y, ["a", "b"], SPLIT, classes=True),
        "by_target": {"gin": {"a": {"roc_auc": [0.5, 0.75]}}},
    }
    lines = table_of_targets(report, shown, NAMES)
    assert lines[0] == "| target | inactive + active, train/val/test | gin: ROC-AUC |"
    assert lines[2:] == [
        "| a | 2 + 2 / 1 + 1 / 2 + 1 | 62.50 ± 17.68 |",
        "| b | 0 + 3 / 1 + 1 / 0 + 2 |  |",
    ]
    one = {"counts": {"a": report["counts"]["a"]}}
    assert table_of_targets(report | one, shown, NAMES) == []


def test_errors_are_shown_in_any_unit():
    assert shown("rmse", [0.5, 0.7]) == "0.600 ± 0.141" and shown("mae", [0.0]) == "0.000"
    assert shown("rmse", [2.5e-9, 3.5e-9]) == "3e-09 ± 7.07e-10" and shown("mae", [9.05e37]) == "9.05e+37"
    assert shown("roc_auc", [0.5, 0.7]) == "60.00 ± 14.14"
