import numpy as np
import pytest

from graphcl.evaluate.scores import Scores, over_seeds


def scores(*values: float, **changed) -> Scores:
    return Scores(
        **{"name": "k-NN", "metric": "accuracy", "values": values, "valid": (), "protocol": "knn/clean/1"} | changed
    )


def test_deviation_over_seeds_and_over_splits_are_told_apart():
    runs = [scores(0.5, 0.7, 0.9), scores(0.6, 0.6, 0.9), scores(0.4, 0.8, 0.75)]
    both = over_seeds(runs)
    table = np.array([run.values for run in runs])
    assert both.mean == pytest.approx(table.mean())
    assert both.std_seeds == pytest.approx(table.mean(1).std(ddof=1))
    assert both.std_splits == pytest.approx(table.std(1, ddof=1).mean())
    assert (both.seeds, both.splits, both.protocol, both.metric) == (3, 3, "knn/clean/1", "accuracy")
    assert str(both) == "k-NN accuracy 68.33 ± 2.89 over 3 seeds ± 19.71 over 3 splits"
    assert str(over_seeds([scores(0.25)])) == "k-NN accuracy 25.00"


def test_regression_is_not_shown_in_percent():
    assert str(scores(0.8125, 0.9125, name="ridge regression", metric="rmse")) == (
        "ridge regression RMSE 0.863 ± 0.071 (2 splits)"
    )


def test_what_differs_is_not_combined():
    with pytest.raises(ValueError, match=r"different protocols cannot be combined: knn/clean/1, knn/clean/2"):
        over_seeds([scores(0.5), scores(0.5, protocol="knn/clean/2")])
    with pytest.raises(ValueError, match=r"different metrics .*accuracy, roc_auc"):
        over_seeds([scores(0.5), scores(0.5, metric="roc_auc")])
    with pytest.raises(ValueError, match=r"different numbers of splits .*1, 2"):
        over_seeds([scores(0.5), scores(0.5, 0.6)])
    with pytest.raises(ValueError, match="different names"):
        over_seeds([scores(0.5), scores(0.5, name="probe")])
    with pytest.raises(ValueError, match="no scores given"):
        over_seeds([])
