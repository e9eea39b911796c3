"""Linear probe: logistic regression on frozen embeddings, in two scalings.

linear_probe           embeddings L2-normalised (as GRACE, GCA and BGRL have it), then centred and divided by one common
                       number, both taken from the train rows alone. A number for each column is left out on purpose:
                       with 140 train rows it blows up the columns that are all but constant there, which on Cora takes
                       ten points from propagated features.
linear_probe_standard  every column standardised by the train rows, lengths left as they are. For graphs with sums as
                       readout the length tells the size of the graph, and there are labels enough for every column.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from graphcl.evaluate.scores import Scores, evaluate
from graphcl.evaluate.svm import Array, standardised

PROTOCOL, STANDARD_PROTOCOL = "linear/clean/1", "linear-standard/clean/1"
STRENGTHS = tuple(10.0**power for power in range(-6, 4))  # scikit-learn's C, from the strongest regularisation on


def linear_probe(embeddings: Tensor, labels: Tensor, split: Any, *, metric: str = "accuracy", seed: int = 0) -> Scores:
    """Logistic regression on the train rows, its C chosen on the validation rows, scored on the test rows.

    embeddings: [n, D].  labels: [n] integer classes, or [n, T] tasks of 0 and 1 with NaN where unknown: the mean over
    the tasks with both classes in train and test counts, the others are named in a warning, and C is common to all.
    split: one Split, or a list for the mean and standard deviation.  metric: "accuracy", "roc_auc" or "prc_auc".
    Of ten tasks and more on up to 512 columns the solver takes Newton's steps, else L-BFGS with at most 1,000.
    seed: scikit-learn's random_state.  After C is chosen nothing is refitted on the validation rows.

    Raises ValueError for embeddings that are not finite (naming the row), one class only in train, a part of the split
    that is empty or overlaps another, labels missing (-1) in it, and rows that do not match.
    """

    tasks = labels.shape[1] if isinstance(labels, Tensor) and labels.dim() == 2 else 1

    def predict(train: Tensor, y: Tensor, other: Tensor) -> Tensor:
        # For many tasks on a few hundred columns Newton's steps are five times as quick, and reach the optimum also
        # where regularisation is so weak that L-BFGS stops before it.
        return _logistic(train, y, other, seed, newton=tasks >= 10 and train.shape[1] <= 512)

    return evaluate("linear probe", predict, embeddings, labels, split, metric, PROTOCOL)


def linear_probe_standard(
    embeddings: Tensor, labels: Tensor, split: Any, *, metric: str = "accuracy", seed: int = 0
) -> Scores:
    """As `linear_probe`, on embeddings of which every column is standardised by the train rows.

    Of up to 1,024 coefficients the solver takes Newton's steps, else L-BFGS with at most 1,000.
    """

    def predict(train: Tensor, y: Tensor, other: Tensor) -> Tensor:
        classes = len(y.unique())
        newton = train.shape[1] * (classes if classes > 2 else 1) <= 1024
        return _fitted(*standardised(train, other), y, seed, newton=newton)

    return evaluate("linear probe", predict, embeddings, labels, split, metric, STANDARD_PROTOCOL)


def _logistic(train: Tensor, y: Tensor, other: Tensor, seed: int, *, newton: bool) -> Tensor:
    """Decision values [S, m, K] of rows of one length."""
    train, other = F.normalize(train.double()), F.normalize(other.double())
    centre = train.mean(0)
    scale = (train - centre).square().mean().sqrt().clamp(min=1e-9)
    train, other = (train - centre) / scale, (other - centre) / scale
    if train.shape[1] > len(train):
        # The optimum lies in the span of the train rows, so their coordinates in it give the same classifier, sooner.
        basis, _ = torch.linalg.qr(train.T)  # [D, n]
        train, other = train @ basis, other @ basis
    return _fitted(train.numpy(), other.numpy(), y, seed, newton=newton)


def _fitted(fit: Array, use: Array, y: Tensor, seed: int, *, newton: bool) -> Tensor:
    """Decision values of every C, [S, m, K]; not probabilities, which are 1.0 for many rows and so would tie."""
    solver = "newton-cholesky" if newton else "lbfgs"
    model = LogisticRegression(max_iter=1000, warm_start=True, random_state=seed, solver=solver)
    decisions = []
    with warnings.catch_warnings():
        # At the weakest regularisation separable classes have no finite optimum; validation judges the outcome.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for strength in STRENGTHS:
            model.set_params(C=strength).fit(fit, y.numpy())
            values = torch.from_numpy(model.decision_function(use))
            decisions.append(values if values.dim() == 2 else torch.stack([-values, values], dim=1))
    return torch.stack(decisions)
