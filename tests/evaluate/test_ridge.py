import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from graphcl.data.splits import Split
from graphcl.evaluate.ridge import STRENGTHS, ridge


def thirds(n: int, seed: int = 0) -> Split:
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return Split(order[: n // 3], order[n // 3 : 2 * n // 3], order[2 * n // 3 :])


def line(n: int = 120, noise: float = 0.3):
    z = torch.randn(n, 5)
    return z, 40 + 7 * (z @ torch.tensor([1.0, -2.0, 0.5, 0.0, 0.0])) + 7 * noise * torch.randn(n)


def test_a_line_is_found_and_noise_is_not():
    z, y = line()
    scores = ridge(z, y, thirds(120))
    assert scores.also["r2"][0] > 0.9 and scores.mean == pytest.approx(7 * 0.3, rel=0.4)
    assert ridge(z, torch.randn(120), thirds(120), metric="r2").mean < 0.2
    assert scores.metric == "rmse" and scores.protocol == "ridge/clean/1"


@pytest.mark.parametrize("metric", ["rmse", "mae", "r2"])
def test_it_is_scikit_learns_ridge_on_what_the_train_rows_standardise(metric):
    z, y = line(noise=3.0)
    split, best = thirds(120), (math.inf, None)
    scale, target = StandardScaler().fit(z[split.train].double()), y.double().numpy()
    x, centre, width = scale.transform(z.double()), target[split.train].mean(), target[split.train].std()
    for alpha in STRENGTHS:
        model = Ridge(alpha=alpha).fit(x[split.train], (target[split.train] - centre) / width)
        wrong = {part: centre + width * model.predict(x[rows]) - target[rows] for part, rows in split._asdict().items()}
        best = min(best, ((wrong["val"] ** 2).mean(), wrong), key=lambda pair: pair[0])
    measures = {
        "rmse": lambda e, t: np.sqrt((e**2).mean()),
        "mae": lambda e, t: np.abs(e).mean(),
        "r2": lambda e, t: 1 - (e**2).mean() / t.var(),
    }
    scores = ridge(z, y, split, metric=metric)
    assert scores.values[0] == pytest.approx(measures[metric](best[1]["test"], target[split.test]))
    assert scores.valid[0] == pytest.approx(measures[metric](best[1]["val"], target[split.val]))
    for other, value in scores.also.items():
        assert value[0] == pytest.approx(measures[other](best[1]["test"], target[split.test]))


def test_the_unit_is_that_of_the_labels():
    z, y = line()
    scores, larger = ridge(z, y, thirds(120)), ridge(z, 1000 * y + 5, thirds(120))
    assert larger.mean == pytest.approx(1000 * scores.mean, rel=1e-3)
    assert larger.also["r2"][0] == pytest.approx(scores.also["r2"][0], rel=1e-3)


def test_test_labels_are_never_seen(monkeypatch):
    z, y = line()
    split = thirds(120)
    fitted = []
    fit = Ridge.fit
    monkeypatch.setattr(Ridge, "fit", lambda self, a, b: fitted.append((a.copy(), b.copy())) or fit(self, a, b))
    honest = ridge(z, y, split)
    poisoned = y.clone()
    poisoned[split.test] = 1e6 * torch.randn(40)
    scores = ridge(z, poisoned, split)
    assert scores.valid == honest.valid and scores.mean > 1e3 * honest.mean
    half = len(fitted) // 2
    for (a, b), (c, d) in zip(fitted[:half], fitted[half:], strict=True):
        assert np.array_equal(a, c) and np.array_equal(b, d)


def test_several_tasks_and_gaps():
    z, y = line()
    split = thirds(120)
    two = torch.stack([y, y], dim=1)
    assert ridge(z, two, split).mean == pytest.approx(ridge(z, y, split).mean, rel=1e-9)
    gaps = y.clone()
    gaps[split.train[:5]] = gaps[split.test[:7]] = float("nan")
    known = Split(split.train[5:], split.val, split.test[7:])
    assert ridge(z, gaps, split) == ridge(z, y, known)
    spoilt = torch.stack([y, torch.full((120,), 3.0)], dim=1)
    with pytest.warns(UserWarning, match="split 0: tasks 1 of 2 are left out of the mean"):
        assert ridge(z, spoilt, split).values == ridge(z, y, split).values


def test_mistakes_are_told():
    z, y = line(30)
    with pytest.raises(ValueError, match="metric must be one of rmse, mae, r2, got 'accuracy'"):
        ridge(z, y, thirds(30), metric="accuracy")
    with pytest.raises(ValueError, match="embeddings have 30 rows, labels 29"):
        ridge(z, y[:29], thirds(30))
    with pytest.raises(ValueError, match="labels must be finite or NaN; row 4, task 0 is inf"):
        ridge(z, torch.where(torch.arange(30) == 4, torch.inf, y), thirds(30))
    with pytest.raises(ValueError, match="split 0: no task has two different values"):
        ridge(z, torch.ones(30), thirds(30))
    with pytest.raises(ValueError, match="no labels given"):
        ridge(z, None, thirds(30))
    with pytest.raises(ValueError, match=r"labels must be \[n\] or \[n, T\] values"):
        ridge(z, y[:, None, None], thirds(30))
    with pytest.raises(ValueError, match="split 0: row"):
        split = thirds(30)
        ridge(z, y, Split(split.train, split.train, split.test))
