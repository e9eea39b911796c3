"""Baselines, rows of a table like any other: embeddings for a protocol, or predictions scored by the same rule.

No row of a trained method says much without them: raw features, shape statistics, ECFP and the WL-subtree kernel need
no training at all, label propagation no features, and a supervised GNN shows what the labels alone give.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import coalesce, remove_self_loops

from graphcl.data.store import GraphStore
from graphcl.encoders import GIN, MoleculeGIN, Readout
from graphcl.evaluate.compare import raw_features
from graphcl.evaluate.finetune import finetune
from graphcl.evaluate.fingerprints import FOREST_PROTOCOL, descriptors_of_store, ecfp_forest, ecfp_of_store
from graphcl.evaluate.scores import Scores, evaluate
from graphcl.evaluate.structure import WL_PAPER_PROTOCOL, WL_PROTOCOL, graph_statistics, wl_svm, wl_svm_paper
from graphcl.evaluate.supervised import GCN_PROTOCOL, supervised_gcn

PROPAGATION_PROTOCOL = "label-propagation/clean/1"
GIN_PROTOCOL = "supervised-gin/clean/1"
GIN_EPOCHS = 100
ALPHAS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)


class Baseline(NamedTuple):
    """A row that no pretraining makes. One of `embed` and `score` is there.

    embed: (source) -> [n, D], for any protocol of its level.
    score: (source, split, *, metric="accuracy", seed=0) -> Scores, under the protocol `id`.
    """

    name: str
    statement: str
    levels: tuple[str, ...]
    embed: Callable[..., Tensor] | None = None
    score: Callable[..., Scores] | None = None
    id: str = ""  # of `score`: name/rule/version, as in Scores.protocol
    needs_smiles: bool = False
    values: bool = False  # `score` takes labels that are values too


def label_propagation(source: Data, split: Any, *, metric: str = "accuracy", seed: int = 0, steps: int = 50) -> Scores:
    """Labels of the train nodes spread along the edges: F <- alpha S F + (1 - alpha) Y, `steps` times.

    S is the normalised adjacency D^-1/2 A D^-1/2 of the simple undirected graph, Y one-hot on the train rows; alpha in
    0.5 ... 0.99 is chosen on the validation rows. Nodes that no label reaches have the largest class of train.
    Labels, split, metric and errors are as in `linear_probe`.  seed: nothing is drawn here.

    Source: Zhou et al., 2004, "Learning with Local and Global Consistency", the iteration of section 2.
    """
    if not isinstance(source, Data):
        raise ValueError(f"label propagation needs one graph (Data), got {type(source).__name__}")
    n = int(source.num_nodes or 0)
    spread = normalised_adjacency(source)

    def predict(train: Tensor, y: Tensor, other: Tensor) -> Tensor:
        rows, others = train[:, 0].long().numpy(), other[:, 0].long().numpy()
        start = np.zeros((n, int(y.max()) + 1))
        start[rows, y.numpy()] = 1.0
        prior = start[rows].mean(0)
        found = []
        for alpha in ALPHAS:
            now = start
            for _ in range(steps):
                now = alpha * (spread @ now) + (1 - alpha) * start
            found.append((now + 1e-12 * prior)[others])
        return torch.from_numpy(np.stack(found))

    place = torch.arange(n, dtype=torch.float64)[:, None]  # node numbers in place of embeddings
    protocol = PROPAGATION_PROTOCOL if steps == 50 else ""
    return evaluate("label propagation", predict, place, source.y, split, metric, protocol)


def normalised_adjacency(source: Data) -> sparse.csr_matrix:
    """D^-1/2 A D^-1/2 of the simple undirected graph without self-loops, float64 [N, N]."""
    assert source.edge_index is not None
    n = int(source.num_nodes or 0)
    edges, _ = remove_self_loops(source.edge_index.cpu())
    edges = coalesce(torch.cat([edges, edges.flip(0)], dim=1), num_nodes=n)
    scale = torch.bincount(edges[0], minlength=n).double().pow(-0.5)  # infinite without an edge, and then not read
    values = scale[edges[0]] * scale[edges[1]]
    return sparse.csr_matrix((values.numpy(), (edges[0].numpy(), edges[1].numpy())), shape=(n, n))


def supervised_gin(source: GraphStore, split: Any, *, metric: str = "accuracy", seed: int = 0) -> Scores:
    """GIN trained end to end on the train labels (`finetune`, 100 epochs), of the epoch that is best on validation.

    Float features: 3 layers of 32, all layers' sums, lr 0.01. Molecules' categories: 5 layers of 300, mean, lr 0.001.
    """
    if not isinstance(source, GraphStore):
        raise ValueError(f"a supervised GIN needs many graphs (GraphStore), got {type(source).__name__}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if source.x.is_floating_point():
            encoder: Any = GIN(source.num_features)
            kind, lr = "sum", 0.01
        else:
            encoder, kind, lr = MoleculeGIN(dropout=0.5), "mean", 0.001
    found = finetune(encoder, Readout(kind), source, split, metric=metric, epochs=GIN_EPOCHS, lr=lr, seed=seed).clean
    return dataclasses.replace(found, name="supervised GIN", protocol=GIN_PROTOCOL)


BASELINES: dict[str, Baseline] = {
    one.name: one
    for one in (
        Baseline(
            "raw",
            "features of the nodes, of graphs their sum; no graph structure",
            ("node", "graph"),
            embed=raw_features,
        ),
        Baseline(
            "statistics",
            "log counts of nodes, edges and connected induced subgraphs of 3 and 4 nodes, degree moments; no features",
            ("graph",),
            embed=graph_statistics,
        ),
        Baseline(
            "ecfp",
            "extended-connectivity fingerprints of radius 2 in 2048 bits",
            ("graph",),
            embed=ecfp_of_store,
            needs_smiles=True,
        ),
        Baseline(
            "ecfp-forest",
            "random forest of 200 trees on extended-connectivity fingerprints of radius 2 in 2048 bits, fitted on "
            "train, nothing chosen, scored on test",
            ("graph",),
            score=ecfp_forest,
            id=FOREST_PROTOCOL,
            needs_smiles=True,
            values=True,
        ),
        Baseline(
            "descriptors",
            "all of RDKit's 2D descriptors, each as its rank among the molecules of the data set, normally distributed",
            ("graph",),
            embed=descriptors_of_store,
            needs_smiles=True,
        ),
        Baseline(
            "wl",
            "SVM on the normalised WL-subtree kernel, fitted on train, height 0..5 and C in 1e-3..1e3 chosen on "
            "validation, scored on test",
            ("graph",),
            score=wl_svm,
            id=WL_PROTOCOL,
        ),
        Baseline(
            "wl-paper",
            "SVM on the normalised WL-subtree kernel, 10 shuffled stratified folds, height 0..5 and C in 1e-3..1e3 by "
            "5-fold grid search in each, mean test accuracy",
            ("graph",),
            score=wl_svm_paper,
            id=WL_PAPER_PROTOCOL,
        ),
        Baseline(
            "label-propagation",
            "train labels spread along the edges (Zhou et al., 2004), alpha in 0.5..0.99 chosen on validation, scored "
            "on test; no features",
            ("node",),
            score=label_propagation,
            id=PROPAGATION_PROTOCOL,
        ),
        Baseline(
            "supervised-gcn",
            "two-layer GCN trained on the train labels (Kipf and Welling, 2017), the epoch of 200 chosen on "
            "validation, scored on test",
            ("node",),
            score=supervised_gcn,
            id=GCN_PROTOCOL,
        ),
        Baseline(
            "supervised-gin",
            "GIN trained end to end on the train labels, the epoch of 100 chosen on validation, scored on test",
            ("graph",),
            score=supervised_gin,
            id=GIN_PROTOCOL,
        ),
    )
}
