"""The table that stands after every run: the pretrained encoder, the same one untrained, and the raw features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data

from graphcl.data.splits import Split
from graphcl.data.store import GraphStore
from graphcl.evaluate.embed import embed
from graphcl.evaluate.knn import knn
from graphcl.evaluate.probe import linear_probe, linear_probe_standard
from graphcl.evaluate.scores import Scores, evaluate
from graphcl.methods.method import Method

CATEGORIES = 1000  # an integer column with values beyond is none of categories


def compare(
    methods: dict[str, Method],
    data: Data | GraphStore,
    split: list[Split],
    *,
    probe: str = "linear",
    metric: str = "accuracy",
    seed: int = 0,
) -> dict[str, Scores]:
    """Scores of the methods' embeddings and of the raw features, against `data.y`; probe as in `evaluate.probe`."""
    assert data.y is not None, "without labels there is nothing to score"
    rows = {name: embed(method, data) for name, method in methods.items()} | {"raw features": raw_features(data)}
    score = {"linear": linear_probe, "linear-standard": linear_probe_standard, "knn": knn}[probe]
    return {name: score(z, data.y, split, metric=metric, seed=seed) for name, z in rows.items()}


def check_labels(data: Data | GraphStore, split: list[Split], metric: str) -> None:
    """Raise the ValueError that scoring would raise for the labels and splits, whatever the embeddings."""

    def predict(train: Tensor, y: Tensor, other: Tensor) -> Tensor:
        return torch.zeros(1, len(other), int(y.max()) + 1)

    evaluate("labels", predict, torch.zeros(len(data.y), 1), data.y, split, metric)  # type: ignore[arg-type]


def raw_features(source: Data | GraphStore) -> Tensor:
    """What a model without a graph would see: x of the nodes [N, F], or its sum over each graph [B, F].

    Integer columns are categories, a graph's row counts them, unless they have values beyond 0..999.
    """
    x = source.x
    if not x.is_floating_point() and x.numel():
        x = torch.cat([one_hot(column.long()) for column in x.unbind(-1)], dim=-1)
    x = x.float()
    if not isinstance(source, GraphStore):
        return x
    graph = torch.repeat_interleave(torch.arange(len(source)), source.node_ptr.diff())
    return torch.zeros(len(source), x.shape[1]).index_add_(0, graph, x)


def one_hot(column: Tensor) -> Tensor:
    """Integers [n] as categories [n, K], or [n, 1] as they are where they are none."""
    low, high = column.aminmax()
    return F.one_hot(column) if low >= 0 and high < CATEGORIES else column[:, None]
