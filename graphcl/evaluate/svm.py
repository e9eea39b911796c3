"""Support vector machines on frozen embeddings, under a clean rule and under the one of GraphCL's tables.

Kernel matrices are computed once and shared by every C. With numba the SVMs are solved along the path of C by
`_native.py`, without it one by one by scikit-learn's libsvm; both work on kernels rounded to float32, as libsvm does.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC, LinearSVC
from torch import Tensor

from graphcl.evaluate._native import native, solve
from graphcl.evaluate.scores import Scores, check_classes, check_embeddings, evaluate
from graphcl.process import usable_cores

RBF_PROTOCOL, LINEAR_PROTOCOL, PAPER_PROTOCOL = "svm-rbf/clean/1", "svm-linear/clean/1", "svm-rbf/paper/1"
STRENGTHS = tuple(10.0**power for power in range(-3, 4))  # C, GraphCL's grid
OUTER, INNER = 10, 5  # folds of the paper's rule
ROWS = 64  # of a kernel matrix, made at a time: they stay in the cache

Array = NDArray[np.float64]
Gram = NDArray[np.floating[Any]]  # read as float32
# (rows that train [n], rows to judge [m]) -> kernels [n, n] and [m, n], one pair a setting
Kernels = Callable[[NDArray[np.int64], NDArray[np.int64]], Iterable[tuple[Gram, Array]]]


def svm_rbf(embeddings: Tensor, labels: Tensor, split: Any, *, metric: str = "accuracy", seed: int = 0) -> Scores:
    """RBF SVM fitted on the train rows, its C in 1e-3 ... 1e3 chosen on the validation rows, scored on the test rows.

    Columns are standardised by the train rows alone; gamma is 1 / (number of columns).
    seed: nothing is drawn here.  The rest, the errors included, is as in `linear_probe`.
    """

    def predict(train: Tensor, y: Tensor, other: Tensor) -> Tensor:
        a, b = standardised(train, other)
        gamma = 1 / max(a.shape[1], 1)
        return decisions(np.exp(-gamma * distances(a, a)), np.exp(-gamma * distances(b, a)), y.numpy())

    return evaluate("RBF SVM", predict, embeddings, labels, split, metric, RBF_PROTOCOL)


def svm_linear(embeddings: Tensor, labels: Tensor, split: Any, *, metric: str = "accuracy", seed: int = 0) -> Scores:
    """Linear SVM (squared hinge, one class against the rest) with C in 1e-3 ... 1e3 chosen on the validation rows.

    Columns are standardised by the train rows alone.  seed: scikit-learn's random_state.  The rest, the errors
    included, is as in `linear_probe`.
    """

    def predict(train: Tensor, y: Tensor, other: Tensor) -> Tensor:
        a, b = standardised(train, other)
        values = []
        with warnings.catch_warnings():
            # At the largest C some data have no solution in sight; validation judges the outcome.
            warnings.simplefilter("ignore", ConvergenceWarning)
            for strength in STRENGTHS:
                model = LinearSVC(C=strength, dual="auto", random_state=seed).fit(a, y.numpy())
                values.append(by_class(model.decision_function(b)))
        return torch.stack(values)

    return evaluate("linear SVM", predict, embeddings, labels, split, metric, LINEAR_PROTOCOL)


def svm_rbf_paper(
    embeddings: Tensor, labels: Tensor, split: Any = None, *, metric: str = "accuracy", seed: int = 0
) -> Scores:
    """GraphCL's rule: accuracy over 10 shuffled stratified folds of an RBF SVM on the embeddings as they are.

    In every fold C in 1e-3 ... 1e3 is chosen by 5-fold cross-validation on the other nine, on which the SVM is then
    fitted again; gamma is scikit-learn's "scale" of the rows of each fit.  seed: of the folds (the authors leave it
    open).  split: not used, as the folds are part of the rule.  Which epoch the embeddings are of is the caller's
    business: GraphCL reports the last.  labels: [n] classes; rows without one (-1) are left out.

    Source: You et al., 2020, "Graph Contrastive Learning with Augmentations", arXiv:2010.13902, authors' code.
    Raises ValueError for several tasks, metrics other than accuracy and classes of fewer than 10 rows.
    """
    x = check_embeddings(embeddings).double().numpy()
    y = paper_labels(labels, len(x), metric)
    known = y >= 0
    x, y = x[known], y[known]
    squares = distances(x, x)  # once for all fits

    def kernels(train: NDArray[np.int64], other: NDArray[np.int64]) -> Iterator[tuple[Gram, Array]]:
        variance = x[train].var()
        gamma = 1 / (x.shape[1] * variance) if variance > 0 else 1.0
        yield rbf(squares, gamma, train, train, np.float32), rbf(squares, gamma, other, train, np.float64)

    values = nested(kernels, y, seed)
    return Scores("RBF SVM", "accuracy", values, (), PAPER_PROTOCOL)


def paper_labels(labels: Any, rows: int, metric: str) -> NDArray[np.int64]:
    """Classes [n] as the paper's rule wants them."""
    tasks = check_classes(labels, rows)
    if tasks.shape[1] > 1 or metric != "accuracy":
        raise ValueError(
            f"the paper's rule is for the accuracy of one task, got {tasks.shape[1]} and metric={metric!r}; "
            "use a clean protocol"
        )
    y = tasks[:, 0].numpy()
    classes, counts = np.unique(y[y >= 0], return_counts=True)
    if len(classes) < 2:
        raise ValueError(f"labels have {len(classes)} classes; an SVM needs two at least")
    if counts.min() < OUTER:
        raise ValueError(
            f"class {classes[counts.argmin()]} has {counts.min()} rows, {OUTER} folds need {OUTER}; "
            "use a clean protocol with another split"
        )
    return y


def nested(kernels: Kernels, y: NDArray[np.int64], seed: int) -> tuple[float, ...]:
    """Test accuracy of each outer fold, kernel setting and C chosen by inner folds of its train rows.

    y: [n] classes.  Folds run side by side in as many threads as torch has and the process may use.
    """

    def one(fold: tuple[NDArray[np.int64], NDArray[np.int64]]) -> float:
        train, test = fold
        right: Any = 0
        for fit, check in StratifiedKFold(INNER).split(train, y[train]):
            pairs = kernels(train[fit], train[check])
            right = right + np.stack([accuracies(*pair, y[train[fit]], y[train[check]]) for pair in pairs])
        setting, strength = np.unravel_index(right.argmax(), right.shape)  # of equals the first
        gram, cross = next(islice(kernels(train, test), int(setting), None))
        return accuracies(gram, cross, y[train], y[test], STRENGTHS[strength : strength + 1])[0]

    folds = StratifiedKFold(OUTER, shuffle=True, random_state=seed).split(y, y)
    with ThreadPoolExecutor(min(torch.get_num_threads(), usable_cores())) as pool:  # the solver lets other threads run
        return tuple(pool.map(one, folds))


def accuracies(
    gram: Gram, cross: Array, y: NDArray[np.int64], truth: NDArray[np.int64], strengths: Sequence[float] = STRENGTHS
) -> list[float]:
    """Accuracy of every C on the rows of cross [m, n], fitted on gram [n, n] with classes y [n]."""
    kernels = native()
    if kernels is None:
        return [float((model.predict(cross) == truth).mean()) for model in fitted(gram, y, strengths)]
    classes, values = duels(kernels, gram, cross, y, strengths)
    votes = (values > 0) @ pairings(len(classes)).clip(0) + (values <= 0) @ -pairings(len(classes)).clip(max=0)
    return [float(share) for share in (classes[votes.argmax(-1)] == truth).mean(1)]  # of equal votes the first


def decisions(gram: Gram, cross: Array, y: NDArray[np.int64]) -> Tensor:
    """A value for each class under every C, [S, m, K], fitted on gram [n, n] with classes y [n] in 0..K-1."""
    kernels = native()
    if kernels is None:
        return torch.stack([by_class(model.decision_function(cross)) for model in fitted(gram, y, STRENGTHS)])
    classes, values = duels(kernels, gram, cross, y, STRENGTHS)
    if len(classes) == 2:
        return torch.from_numpy(np.concatenate([values, -values], axis=-1))
    # scikit-learn's rule: votes, and of equal votes the larger sum of values, squeezed to less than half a vote.
    pairs = pairings(len(classes))
    votes, total = (values >= 0) @ pairs.clip(0) + (values < 0) @ -pairs.clip(max=0), values @ pairs
    return torch.from_numpy(votes + total / (3 * (np.abs(total) + 1)))


def fitted(gram: Gram, y: NDArray[np.int64], strengths: Sequence[float]) -> Iterator[SVC]:
    """scikit-learn's SVM of every C."""
    return (SVC(C=strength, kernel="precomputed").fit(gram, y) for strength in strengths)


def duels(
    kernels: SimpleNamespace, gram: Gram, cross: Array, y: NDArray[np.int64], strengths: Sequence[float]
) -> tuple[NDArray[np.int64], Array]:
    """The classes [K], and the value of each pair of them under every C, [S, m, K (K - 1) / 2]: above 0 for the first.

    Raises ValueError for kernels that are not finite, and for one class.
    """
    classes = np.unique(y)
    if len(classes) < 2:
        raise ValueError(f"the train rows have {len(classes)} classes; an SVM needs two at least")
    if not (np.isfinite(gram).all() and np.isfinite(cross).all()):
        raise ValueError("kernels must be finite; look for NaN or infinity in the embeddings")
    gram, values = np.ascontiguousarray(gram, dtype=np.float32), []
    for first, second in combinations(classes, 2):
        rows = np.flatnonzero((y == first) | (y == second))
        part = gram if len(rows) == len(y) else gram[np.ix_(rows, rows)]
        signed, offsets = solve(kernels, part, np.where(y[rows] == first, 1.0, -1.0), strengths)
        values.append((cross if len(rows) == len(y) else cross[:, rows]) @ signed.T - offsets)
    return classes, np.stack(values, axis=-1).swapaxes(0, 1)


def pairings(classes: int) -> NDArray[np.int64]:
    """For each pair of classes, in order, 1 at the first and -1 at the second, [K (K - 1) / 2, K]."""
    one = np.eye(classes, dtype=np.int64)
    return np.stack([one[first] - one[second] for first, second in combinations(range(classes), 2)])


def rbf(squares: Array, gamma: float, rows: NDArray[np.int64], columns: NDArray[np.int64], dtype: Any) -> Any:
    """RBF kernels [n, m] of some rows and columns of squared distances, computed in float64."""
    out = np.empty((len(rows), len(columns)), dtype)
    for start in range(0, len(rows), ROWS):
        block = squares[rows[start : start + ROWS]].take(columns, axis=1, mode="clip")
        block *= -gamma
        out[start : start + ROWS] = np.exp(block, out=block)
    return out


def by_class(values: Array) -> Tensor:
    """Decision values as [m, K]; scikit-learn gives [m] for two classes."""
    found = torch.from_numpy(values)
    return found if found.dim() == 2 else torch.stack([-found, found], dim=1)


def distances(a: Array, b: Array) -> Array:
    """Squared Euclidean distances [n, m] of rows a [n, D] and b [m, D]."""
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * (a @ b.T)
    return np.maximum(squares, 0, out=squares)


def standardised(train: Tensor, other: Tensor) -> tuple[Array, Array]:
    """Both in float64, every column with mean 0 and deviation 1 on the train rows; what is constant there is 0."""
    a, b = train.double(), other.double()
    centre, deviation = a.mean(0), a.std(0, correction=0)
    keep = deviation > 1e-6 * deviation.square().mean().sqrt().clamp(min=1e-30)
    scale = torch.where(keep, 1 / deviation.where(keep, torch.ones_like(deviation)), 0.0)
    return ((a - centre) * scale).numpy(), ((b - centre) * scale).numpy()
