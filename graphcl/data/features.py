"""Node features where the data has none, or to replace them: ones, degrees, one-hot degrees; and row scaling."""

from __future__ import annotations

import copy
import warnings
from typing import Literal, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.data import Data

from graphcl.data.store import GraphStore

Source = TypeVar("Source", Data, GraphStore)
Features = Literal["given", "ones", "degree", "onehot_degree", "ogb"]
MADE = ("ones", "degree", "onehot_degree")  # features that come from the edges


def with_features(source: Source, features: Features = "given", max_degree: int = 100) -> Source:
    """The same graphs with x replaced by features that need no attributes; the input is left as it is.

    ones: [N, 1].  degree: [N, 1], outgoing edges (an undirected graph has each edge in both directions).
    onehot_degree: [N, max_degree + 1] float, larger degrees share the last column; the width does not depend on the
    data, so that an encoder fits other data too.  ogb: molecules only; they come with OGB's categories ([N, 9], bonds
    [E, 3]) from where their SMILES are read, and are refused here if they do not.
    """
    if features == "given":
        return source
    if features == "ones":
        nodes = len(source.x) if isinstance(source, GraphStore) else int(source.num_nodes or 0)
        return _with_x(source, torch.ones(nodes, 1, device=_degree(source).device))
    if features == "degree":
        return _with_x(source, _degree(source).to(torch.get_default_dtype())[:, None])
    if features == "onehot_degree":
        if max_degree < 1:
            raise ValueError(f"max_degree must be at least 1, got {max_degree}")
        columns = _degree(source).clamp(max=max_degree)
        x = torch.zeros(len(columns), max_degree + 1, device=columns.device)
        return _with_x(source, x.scatter_(1, columns[:, None], 1.0))
    if features == "ogb":
        bonds = source.edge_attr
        if isinstance(source, GraphStore) and source.num_features == 9 and bonds is not None and bonds.shape[1] == 3:
            return source
        raise ValueError(
            "data.features=ogb is for molecules that are read from SMILES; graphs at hand have it from "
            'molecules_to_store(smiles, features="ogb")'
        )
    raise ValueError(f"unknown features {features!r}; known: given, ones, degree, onehot_degree, ogb")


def prepared(source: Source, features: Features, scaled: bool) -> Source:
    """The graphs with the features asked for; scaled: normalized, but for those of MADE, whose size is all they say."""
    source = with_features(source, features)
    return normalize(source) if scaled and features not in MADE else source


def normalize(source: Source) -> Source:
    """The same graphs, the absolute values of every node's features summing to 1; rows of zeros stay.

    Raises ValueError for integer features: they are categories. Warns where there is but one feature.
    """
    x = source.x
    if x is None or not x.is_floating_point():
        raise ValueError("data.normalize needs float features; integer features are categories, leave them as they are")
    if x.shape[1] == 1 and x.unique().numel() > 2:
        warnings.warn(
            "data.normalize makes the one feature of every node 1 or -1; data.normalize=false keeps its size",
            stacklevel=2,
        )
    return _with_x(source, F.normalize(x, p=1.0, dim=1))


def _degree(source: Data | GraphStore) -> Tensor:
    """[N] int64, outgoing edges."""
    if isinstance(source, GraphStore):
        first_node = torch.repeat_interleave(source.node_ptr[:-1], source.edge_ptr.diff()).to(source.device)
        return torch.bincount(source.src + first_node, minlength=len(source.x))
    assert source.edge_index is not None
    return torch.bincount(source.edge_index[0], minlength=int(source.num_nodes or 0))


def _with_x(source: Source, x: Tensor) -> Source:
    if isinstance(source, GraphStore):
        return source.with_x(x)
    data = copy.copy(source)
    data.x = x
    return data
