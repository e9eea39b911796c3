"""Clustering of frozen embeddings by k-means, compared with the classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from torch import Tensor

from graphcl.evaluate.scores import Scores, check_classes, check_embeddings

PROTOCOL = "kmeans/clean/1"
RESTARTS = 10


def kmeans(embeddings: Tensor, labels: Tensor, split: Any = None, *, metric: str = "nmi", seed: int = 0) -> Scores:
    """k-means with as many clusters as classes, on the L2-normalised embeddings of all rows that have a label.

    Of 10 starts (k-means++) that of the lowest inertia counts; labels choose nothing but the number of clusters.
    metric: "nmi" (arithmetic mean), "ari", or "accuracy" under the best one-to-one naming of clusters (Hungarian
    method); the other two are in `also`.  labels: [n] classes, -1 where unknown.  split: not used.

    Raises ValueError for several tasks, fewer than two classes, embeddings that are not finite.
    """
    x = check_embeddings(embeddings)
    tasks = check_classes(labels, len(x))
    if tasks.shape[1] > 1:
        raise ValueError(f"clusters are compared with one class a row, got {tasks.shape[1]} tasks; choose one")
    y = tasks[:, 0].numpy()
    x = F.normalize(x[tasks[:, 0] >= 0].double())
    classes, truth = np.unique(y[y >= 0], return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"labels have {len(classes)} classes; clusters need two at least")
    found = KMeans(len(classes), n_init=RESTARTS, random_state=seed).fit_predict(x.numpy())
    values = {
        "nmi": float(normalized_mutual_info_score(truth, found)),
        "ari": float(adjusted_rand_score(truth, found)),
        "accuracy": matched_accuracy(truth, found),
    }
    if metric not in values:
        raise ValueError(f"metric must be one of {', '.join(values)}, got {metric!r}")
    others = {name: (value,) for name, value in values.items() if name != metric}
    return Scores("k-means", metric, (values[metric],), (), PROTOCOL, others)


def matched_accuracy(truth: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    """Share of rows that are right when every cluster has the class that makes it largest; both [n], from 0 on."""
    counts = np.zeros((found.max() + 1, truth.max() + 1), dtype=np.int64)
    np.add.at(counts, (found, truth), 1)
    return float(counts[linear_sum_assignment(-counts)].sum() / len(truth))
