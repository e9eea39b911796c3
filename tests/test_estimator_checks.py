"""scikit-learn's own checks of estimators; those that graph input cannot meet are listed in docs/estimators.md.

The checks fit tables of numbers. A subclass makes graphs of them, so that they reach everything behind the conversion.
"""

from __future__ import annotations

import functools
import re
import unittest
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils import estimator_checks
from torch_geometric.data import Data

import graphcl

PAGE = Path(__file__).parent.parent / "docs/estimators.md"


def rows_as_graphs(X):
    """A table as graphs of one node each, whose features are the row; anything else as it is."""
    table = table_of(X)
    nothing = torch.zeros(2, 0, dtype=torch.long)
    return X if table is None else [Data(x=torch.tensor(row[None]), edge_index=nothing) for row in table]


def rows_as_nodes(X):
    """A table as one graph, the path of its rows; anything else as it is."""
    table = table_of(X)
    if table is None:
        return X
    i = torch.arange(len(table))
    ends = torch.stack([torch.cat([i[:-1], i[1:]]), torch.cat([i[1:], i[:-1]])])
    return Data(x=torch.tensor(table), edge_index=ends, num_nodes=len(table))


def table_of(X):
    graphs = isinstance(X, list) and isinstance(X[0], Data)  # converted already, by the method that called this one
    table = np.asarray(X) if (isinstance(X, list) and not graphs) or hasattr(X, "__array__") else None
    return table if table is not None and table.ndim == 2 and table.dtype != object else None


def on_tables(kind, convert):
    """A subclass that takes tables, so that scikit-learn's checks reach everything behind the conversion."""

    def converting(method):
        return functools.wraps(method)(lambda self, X, *more, **named: method(self, convert(X), *more, **named))

    def tags(self):
        given = kind.__sklearn_tags__(self)
        given.input_tags.two_d_array, given.input_tags.one_d_array = True, False
        return given

    names = ("fit", "transform", "predict", "predict_proba", "decision_function", "score")
    body = {name: converting(vars(kind)[name]) for name in names if name in vars(kind)}
    same = {"__init__": kind.__init__, "__sklearn_tags__": tags, "__module__": __name__, "__qualname__": kind.__name__}
    return type(kind.__name__, (kind,), body | same)


# Names of this module, as pickle wants them.
GraphEmbedder = on_tables(graphcl.GraphEmbedder, rows_as_graphs)
NodeEmbedder = on_tables(graphcl.NodeEmbedder, rows_as_nodes)
GraphClassifier = on_tables(graphcl.GraphClassifier, rows_as_graphs)
GraphRegressor = on_tables(graphcl.GraphRegressor, rows_as_graphs)
NodeClassifier = on_tables(graphcl.NodeClassifier, rows_as_nodes)

SMALL = {"hidden": 8, "layers": 1, "epochs": 1, "device": "cpu"}
ESTIMATORS = [
    GraphEmbedder(**SMALL),
    NodeEmbedder(**SMALL, settings={"method.proj_dim": 8}),
    GraphClassifier(**SMALL | {"hidden": 16, "epochs": 10, "lr": 0.05}),
    GraphRegressor(**SMALL | {"hidden": 16, "epochs": 10, "lr": 0.05}),
    NodeClassifier(**SMALL | {"hidden": 16, "epochs": 30, "lr": 0.05}),
]


def cannot_meet() -> dict[str, set[str]]:
    """The page's table: check -> the estimators that cannot meet it."""
    rows = re.findall(r"^\| `(check_\w+)` \| ([^|]+) \| [^|]{20,} \|$", PAGE.read_text(encoding="utf-8"), re.M)
    everyone = {type(estimator).__name__ for estimator in ESTIMATORS}
    return {check: everyone if who == "all" else set(who.split(", ")) for check, who in rows}


def checks():
    if not hasattr(estimator_checks, "estimator_checks_generator"):
        return
    for estimator in ESTIMATORS:
        for one, check in estimator_checks.estimator_checks_generator(estimator):
            more = [f"{key}={value}" for key, value in check.keywords.items()]
            yield pytest.param(one, check, id="-".join([type(estimator).__name__, check.func.__name__, *more]))


@pytest.mark.skipif(not hasattr(estimator_checks, "estimator_checks_generator"), reason="needs scikit-learn >= 1.6")
@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_check(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if type(estimator).__name__ not in cannot_meet().get(check.func.__name__, set()):
            check(estimator)
            return
        with pytest.raises(Exception) as failed:
            check(estimator)
    assert not isinstance(failed.value, unittest.SkipTest)


def test_the_page_lists_checks_that_exist():
    listed = cannot_meet()
    assert len(listed) > 5
    for check, who in listed.items():
        assert who <= {type(estimator).__name__ for estimator in ESTIMATORS}
        assert hasattr(estimator_checks, check), check


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: type(estimator).__name__)
def test_as_they_are_they_say_that_they_take_no_tables(estimator):
    kind = getattr(graphcl, type(estimator).__name__)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator_checks.check_estimator(kind())
    with pytest.raises(ValueError, match=r"X must be .*got .*ndarray"):
        kind().fit(np.zeros((4, 3)), np.array([0, 1, 0, 1]))
