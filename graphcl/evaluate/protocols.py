"""The named protocols: rules that turn (embeddings, labels, split, seed) into scores, each with its statement.

A name is what/rule: `clean` chooses on validation only, `paper` copies a rule of the literature so that its figures can
be compared. The version rises with every change that may move a number; results of two versions are not mixed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from graphcl.evaluate import cluster, link, probe, ridge, svm
from graphcl.evaluate.knn import PLAIN_PROTOCOL, PROTOCOL, knn, knn_plain
from graphcl.evaluate.scores import METRICS, Scores


class Protocol(NamedTuple):
    """One rule. `score(embeddings, labels, split, *, metric=metrics[0], seed=0) -> Scores` is what it says."""

    id: str  # name/rule/version, as in Scores.protocol
    score: Callable[..., Scores]
    statement: str  # one line, printed with every result
    kind: str  # what the labels are: "classes", "values", or "links"
    levels: tuple[str, ...]  # "node", "graph"
    metrics: tuple[str, ...]  # that can be asked for, the usual one first
    needs_split: bool = True  # False: the rule takes all labelled rows, or makes its own folds

    @property
    def name(self) -> str:
        """The id without the version."""
        return self.id.rpartition("/")[0]

    @property
    def version(self) -> int:
        """Rises with every change that may move a number."""
        return int(self.id.rpartition("/")[2])

    def __str__(self) -> str:
        return f"{self.id}: {self.statement}"


BOTH = ("node", "graph")
CLASSES = tuple(METRICS)

PROTOCOLS: dict[str, Protocol] = {
    one.name: one
    for one in (
        Protocol(
            probe.PROTOCOL,
            probe.linear_probe,
            "logistic regression on frozen embeddings, L2-normalised, then centred and divided by one number of the "
            "train rows, fitted on train, C in 1e-6..1e3 chosen on validation, not refitted, scored on test (L-BFGS; "
            "of ten tasks and more Newton's steps)",
            "classes",
            BOTH,
            CLASSES,
        ),
        Protocol(
            probe.STANDARD_PROTOCOL,
            probe.linear_probe_standard,
            "logistic regression on frozen embeddings, every column standardised by the train rows (0 where constant "
            "there), fitted on train, C in 1e-6..1e3 chosen on validation, not refitted, scored on test",
            "classes",
            BOTH,
            CLASSES,
        ),
        Protocol(
            svm.RBF_PROTOCOL,
            svm.svm_rbf,
            "RBF SVM on embeddings standardised by the train rows, fitted on train, C in 1e-3..1e3 chosen on "
            "validation, not refitted, scored on test",
            "classes",
            BOTH,
            CLASSES,
        ),
        Protocol(
            svm.LINEAR_PROTOCOL,
            svm.svm_linear,
            "linear SVM on embeddings standardised by the train rows, fitted on train, C in 1e-3..1e3 chosen on "
            "validation, not refitted, scored on test",
            "classes",
            BOTH,
            CLASSES,
        ),
        Protocol(
            svm.PAPER_PROTOCOL,
            svm.svm_rbf_paper,
            "GraphCL's rule: RBF SVM on the embeddings as they are, 10 shuffled stratified folds, C in 1e-3..1e3 by "
            "5-fold grid search in each, mean test accuracy, last epoch",
            "classes",
            ("graph",),
            ("accuracy",),
            needs_split=False,
        ),
        Protocol(
            PROTOCOL,
            knn,
            "votes of the k train rows of highest cosine similarity s, weighted by exp(s / 0.07), those as near as the "
            "k-th sharing what is left, k of 1, 5, 10, 20, 50 chosen on validation, scored on test",
            "classes",
            BOTH,
            CLASSES,
        ),
        Protocol(
            PLAIN_PROTOCOL,
            knn_plain,
            "one vote each of the k train rows of highest cosine similarity, those as near as the k-th sharing what is "
            "left, k of 1, 5, 10, 20, 50 chosen on validation, scored on test",
            "classes",
            BOTH,
            CLASSES,
        ),
        Protocol(
            cluster.PROTOCOL,
            cluster.kmeans,
            "k-means on all L2-normalised embeddings, as many clusters as classes, the best inertia of 10 starts, "
            "compared with the classes",
            "classes",
            BOTH,
            ("nmi", "ari", "accuracy"),
            needs_split=False,
        ),
        Protocol(
            link.DOT_PROTOCOL,
            link.link_dot,
            "edges hidden from the encoder against as many non-edges, ranked by the dot product of their ends",
            "links",
            ("node",),
            ("roc_auc", "average_precision"),
        ),
        Protocol(
            link.HADAMARD_PROTOCOL,
            link.link_hadamard,
            "edges hidden from the encoder against as many non-edges, by logistic regression on the product of their "
            "ends, fitted on the edges left and as many non-edges, C in 1e-4..1e3 chosen on validation pairs",
            "links",
            ("node",),
            ("roc_auc", "average_precision"),
        ),
        Protocol(
            ridge.PROTOCOL,
            ridge.ridge,
            "ridge regression on embeddings and targets standardised by the train rows, fitted on train, alpha in "
            "1e-5..1e4 chosen on validation, not refitted, scored on test",
            "values",
            BOTH,
            ("rmse", "mae", "r2"),
        ),
    )
}
