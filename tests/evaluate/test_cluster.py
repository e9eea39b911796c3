import itertools

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from graphcl.evaluate.cluster import kmeans, matched_accuracy


def blobs(n: int = 90, noise: float = 0.1):
    y = torch.arange(n) % 3
    return torch.eye(4)[y] + noise * torch.randn(n, 4), y


def test_clear_clusters_are_found():
    z, y = blobs()
    scores = kmeans(z, y)
    assert scores.mean == pytest.approx(1) and scores.also == {"ari": (1.0,), "accuracy": (1.0,)}
    assert scores.protocol == "kmeans/clean/1" and scores.metric == "nmi"
    blind = kmeans(torch.randn(600, 4), torch.arange(600) % 3)
    assert blind.mean < 0.05 and abs(blind.also["ari"][0]) < 0.05 and 0.3 < blind.also["accuracy"][0] < 0.5


def test_every_metric_can_come_first():
    z, y = blobs(noise=0.6)
    wanted = kmeans(z, y)
    for metric in ("ari", "accuracy"):
        scores = kmeans(z, y, metric=metric)
        assert scores.values == wanted.also[metric] and scores.also["nmi"] == wanted.values


@pytest.mark.parametrize("clusters", [2, 3, 4])
def test_accuracy_is_that_of_the_best_naming(clusters):
    generator = np.random.default_rng(clusters)
    truth, found = generator.integers(0, 4, 60), generator.integers(0, clusters, 60)
    truth[:4], found[:clusters] = range(4), range(clusters)
    namings = itertools.permutations(range(4), clusters)
    assert matched_accuracy(truth, found) == max(float((np.array(name)[found] == truth).mean()) for name in namings)


def test_labels_choose_nothing_but_the_number_of_clusters(monkeypatch):
    z, y = blobs(noise=0.8)
    seen = []
    fit = KMeans.fit_predict
    monkeypatch.setattr(KMeans, "fit_predict", lambda self, x: seen.append(fit(self, x)) or seen[-1])
    wanted = kmeans(z, y)
    poisoned = kmeans(z, y[torch.randperm(90)])
    assert np.array_equal(seen[0], seen[1]) and poisoned.mean < wanted.mean
    assert kmeans(z, torch.tensor([7, 1, 4])[y]).mean == pytest.approx(wanted.mean)


def test_rows_without_a_label_take_no_part_and_the_seed_decides():
    z, y = blobs(noise=0.8)
    more, unknown = torch.cat([z, 50 * torch.ones(9, 4)]), torch.full((9,), -1)
    assert kmeans(more, torch.cat([y, unknown])) == kmeans(z, y) == kmeans(z, y, seed=0)
    assert kmeans(z * torch.rand(90, 1).add(0.1), y).mean == pytest.approx(kmeans(z, y).mean, abs=1e-9)


def test_mistakes_are_told():
    z, y = blobs(30)
    with pytest.raises(ValueError, match="one class a row, got 2 tasks"):
        kmeans(z, (z[:, :2] > 0).float())
    with pytest.raises(ValueError, match="labels have 1 classes"):
        kmeans(z, torch.zeros(30).long())
    with pytest.raises(ValueError, match="metric must be one of nmi, ari, accuracy, got 'f1'"):
        kmeans(z, y, metric="f1")
