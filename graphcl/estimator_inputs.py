"""What the scikit-learn estimators are given: SMILES, NetworkX graphs, PyG Data, as a store or as one graph; labels."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence, Set
from typing import Any

import networkx as nx
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, column_or_1d
from torch import Tensor
from torch_geometric.data import Batch, Data

from graphcl.data.features import MADE, Source, normalize, with_features
from graphcl.data.files import from_networkx, node_attributes
from graphcl.data.molecules import molecules_to_store
from graphcl.data.store import GraphStore

KINDS = {"SMILES": str, "NetworkX graphs": nx.Graph, "PyG Data": Data}
WANTED = "a list (or 1-D array, or pandas Series) of SMILES strings, of NetworkX graphs or of PyG Data"


def listed(X: Any) -> tuple[str, list[Any]]:
    """Which of KINDS the rows of X are, and the rows.

    Raises ValueError for what is no list of rows (one graph, one string, a table), and naming the first row that is of
    no kind or of another kind than the first.
    """
    if isinstance(X, str | bytes | Mapping | Set):
        raise ValueError(f"X must be {WANTED}, got the {type(X).__name__} {X!r:.60}; put it into a list")
    if isinstance(X, Batch):
        raise ValueError("X is a Batch of PyG; give X.to_data_list()")
    if isinstance(X, Data | nx.Graph):
        raise ValueError(
            f"X is one graph (a {type(X).__name__}); put it into a list for its embedding, or take NodeEmbedder or "
            "NodeClassifier for its nodes"
        )
    shape = getattr(X, "shape", (0,))
    if not (hasattr(X, "__iter__") and hasattr(X, "__len__")) or len(shape) != 1:
        what = f"{type(X).__module__}.{type(X).__name__}" + (f" of shape {tuple(shape)}" if len(shape) != 1 else "")
        raise ValueError(f"X must be {WANTED}, got {what}; of a table give the one column that holds them")
    rows = list(X)
    if not rows:
        raise ValueError("X is empty (0 samples), at least one graph is needed")
    kinds = [_kind(row) for row in rows]
    for place, (row, kind) in enumerate(zip(rows, kinds, strict=True)):
        if kind is None:
            raise ValueError(f"X[{place}] is {_shown(row)}; X must be {WANTED}")
        if kind != kinds[0]:
            raise ValueError(
                f"X[{place}] is {_shown(row)}, but X[0] is {_shown(rows[0])}; all rows must be of one kind"
            )
    return str(kinds[0]), rows


def _kind(row: Any) -> str | None:
    return next((name for name, kind in KINDS.items() if isinstance(row, kind) and not isinstance(row, Batch)), None)


def _shown(row: Any) -> str:
    return f"the text {row!r:.40}" if isinstance(row, str) else f"a {type(row).__name__} ({row!r:.40})"


def store_of(kind: str, rows: list[Any], features: Any = "benchmark") -> GraphStore:
    """Store of the rows, in their order and without labels; features: of molecules, benchmark or ogb.

    Raises ValueError naming the row that is no graph.
    """
    if kind == "SMILES":
        store, rejected = molecules_to_store([str(row) for row in rows], name="X", features=features)
        if rejected:
            first, more = rejected[0], f" ({len(rejected)} such rows)" if len(rejected) > 1 else ""
            raise ValueError(
                f"X[{first.row}] is no molecule, {first.smiles!r}: {first.reason}{more}; leave it out together with "
                "its y, rows are never dropped here"
            )
        return store
    if kind == "NetworkX graphs":
        return from_networkx(rows, name="X")._like(y=None)
    bare = [copy.copy(row) for row in rows]
    for graph in bare:
        graph.y = None
    return GraphStore.from_graphs(bare, "X")


def one_graph(X: Any) -> Data:
    """The one graph of a node estimator: its x, edge_index and edge_attr; nodes of NetworkX in the graph's own order.

    A node attribute `y` of NetworkX is a label and so no feature.
    """
    if isinstance(X, Batch) or not isinstance(X, Data | nx.Graph):
        raise ValueError(f"X must be one graph, a PyG Data or a NetworkX graph, got {_shown(X)}")
    if isinstance(X, Data):
        return store_of("PyG Data", [X])[0]
    graph = X.copy()
    for _, values in graph.nodes(data=True):
        values.pop("y", None)
    return store_of("NetworkX graphs", [graph])[0]


def nodes_of(graph: Any, X: Any) -> tuple[Data, Tensor | None]:
    """The graph and the rows [n] of a node estimator: X is the graph (None: all rows), or numbers of its nodes."""
    if graph is None:
        return one_graph(X), None
    data = one_graph(graph)
    rows = np.asarray(X) if isinstance(X, list | tuple | range) or hasattr(X, "__array__") else None
    if rows is None or rows.ndim != 1 or rows.dtype.kind not in "iu":
        got = type(X).__name__ if rows is None else f"{rows.dtype} of shape {rows.shape}"
        raise ValueError(f"`graph` is set, so X must be node numbers [n], integers from 0, got {got}")
    if len(rows) == 0:
        raise ValueError("X is empty (0 samples), at least one node number is needed")
    if rows.min() < 0 or rows.max() >= int(data.num_nodes or 0):
        raise ValueError(f"X goes from {rows.min()} to {rows.max()}, nodes are numbered 0 to {data.num_nodes - 1}")
    return data, torch.from_numpy(rows.astype(np.int64))


def attributes_of(X: Any) -> list[str] | None:
    """Names of the node attributes that are the features of a NetworkX graph, of a list's first; None: other data."""
    first = X if isinstance(X, nx.Graph) else X[0] if isinstance(X, list) else None
    return [str(name) for name in node_attributes(first)] if isinstance(first, nx.Graph) else None


def check_attributes(estimator: Any, X: Any) -> None:
    """Refuse NetworkX graphs with other attributes than a fitted estimator's: columns are told apart by order alone."""
    then, now = estimator.attributes_, attributes_of(X)
    if estimator.features_ not in MADE and None not in (then, now) and then != now:
        raise ValueError(
            f"the nodes of X have the attributes {now}, the estimator was fitted on {then}; give it the same"
        )


def missing(value: Any) -> bool:
    """Whether it is None, NaN or the NA of pandas."""
    if value is None or hasattr(value, "__len__"):
        return value is None
    try:
        return not bool(value == value)
    except TypeError:  # NA is neither equal nor unequal
        return True


def checked(estimator: BaseEstimator, y: Any, unlabelled: bool = False) -> NDArray[Any]:
    """y as [n], without NaN and infinity."""
    if y is None:
        raise ValueError(f"{type(estimator).__name__} requires y to be passed, but the target y is None")
    if hasattr(y, "__len__") and getattr(getattr(y, "dtype", None), "kind", "O") not in "biuf":
        for row, value in enumerate(y):  # before numpy, which makes text of a missing value among text
            if missing(value):
                way_out = "give -1 where a node has none" if unlabelled else "leave that row out together with its X"
                raise ValueError(f"y[{row}] is {value!r}, which is no label; {way_out}")
        if isinstance(y, list | tuple):
            y = as_array(y)
    y = column_or_1d(y, warn=True)
    assert_all_finite(y, input_name="y")
    return y


def as_array(y: Sequence[Any]) -> NDArray[Any]:
    """The labels as an array, of objects where text stands beside numbers: numpy would make text of all."""
    mixed = len({isinstance(value, str) for value in y}) > 1
    return np.array(y, dtype=object) if mixed else np.asarray(y)


def labelled(y: NDArray[Any]) -> NDArray[np.bool_]:
    """Which entries of y [n] are labels: not -1, nor as text "-1" or "" ."""
    return ~np.isin(y.astype(str), ["-1", "-1.0", ""]) if y.dtype.kind not in "iufb" else y != -1


def classes_of(estimator: BaseEstimator, y: Any, unlabelled: bool = False) -> tuple[NDArray[Any], Tensor, Tensor]:
    """The classes [K], each row's place among them [n], -1 without a label, and the rows [k] that have one."""
    y = checked(estimator, y, unlabelled)
    known = labelled(y) if unlabelled else np.ones(len(y), dtype=bool)
    rows = torch.from_numpy(known.nonzero()[0])
    for row in rows.tolist() if y.dtype.kind == "O" else []:
        if isinstance(y[row], str) != isinstance(first := y[rows[0]], str):
            raise ValueError(
                f"y[{row}] is {y[row]!r}, but y[{rows[0]}] is {first!r}; labels are text or numbers, not both"
            )
    check_classification_targets(y[known])
    classes, places = np.unique(y[known], return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"y has {'one class only' if len(classes) else 'no label'}; a classifier needs two classes")
    codes = torch.full((len(y),), -1)
    codes[rows] = torch.from_numpy(places.reshape(-1))
    return classes, codes, rows


def tell_of_leaks(graph: Any, rows: Tensor, y: NDArray[Any]) -> None:
    """Warn of attributes of NetworkX nodes that equal the labels y [k] on all labelled nodes, which are rows [k]."""
    try:
        labels = y.astype(np.float64)
    except ValueError:  # text
        return
    if not isinstance(graph, nx.Graph):
        return
    every = list(graph.nodes(data=True))
    labelled = [every[row][1] for row in rows.tolist()]
    for key in labelled[0]:
        values = [node.get(key) for node in labelled]
        numbers = key != "y" and all(isinstance(value, int | float | np.number) for value in values)
        if numbers and np.array_equal(np.array(values, dtype=np.float64), labels):
            warnings.warn(
                f"the node attribute {key!r} equals the label on all {len(values)} labelled nodes and is a feature, "
                "so the labels are learned from themselves; remove it, or call it 'y'",
                stacklevel=3,
            )


def featured(source: Source, features: str | None, scaled: bool = False) -> Source:
    """The graphs with the features asked for; None: their own, degrees if they have none.  scaled: rows sum to 1."""
    if features == "ogb" and isinstance(source, GraphStore) and source.smiles is not None and source.num_features != 9:
        raise ValueError('features=\'ogb\': SMILES get OGB\'s features by settings={"encoder.features": "ogb"}')
    given = source.x is not None and source.num_features > 0
    source = with_features(source, features or ("given" if given else "degree"))  # type: ignore[arg-type]
    return normalize(source) if scaled else source


def device_of(name: Any) -> torch.device:
    """The device that an estimator asks for by "auto", "cpu" or "cuda"."""
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda, but torch finds no CUDA device here; use device=auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
