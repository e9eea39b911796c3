"""Two-layer GCN trained on the train labels: what labels and edges give without pretraining."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn.inits import glorot

from graphcl.encoders.aggregate import CSR, csr_of, entry_sum
from graphcl.encoders.convs import gcn_weights
from graphcl.evaluate.scores import METRICS, Scores, check_classes, check_labels, check_split, listed, measure

GCN_PROTOCOL = "supervised-gcn/clean/2"
EPOCHS = 200
WIDTH = 16


def supervised_gcn(source: Data, split: Any, *, metric: str = "accuracy", seed: int = 0) -> Scores:
    """Two-layer GCN trained on the train labels, of the epoch that is best on validation.

    Hidden 16, dropout 0.5, Adam with lr 0.01, decay 5e-4 on the first layer, 200 epochs.  source.y: [N] classes.
    Source: Kipf and Welling, 2017, arXiv:1609.02907.  Differs: the epoch is chosen by validation score, not by
    stopping early on validation loss; features are used as they are.
    """
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    if not isinstance(source, Data) or source.x is None or source.x.dim() != 2 or source.edge_index is None:
        raise ValueError(
            "a supervised GCN needs one graph (Data) with node features (x [N, F]) and edges (edge_index); "
            "set data.features"
        )
    tasks = check_classes(source.y, int(source.num_nodes or 0))
    if tasks.shape[1] > 1:
        raise ValueError(f"a supervised GCN needs one class a node, got {tasks.shape[1]} tasks; use fine-tuning")
    valid, values = [], []
    for number, one in enumerate(listed(split)):
        parts = check_split(one, len(tasks), f"split {number}")
        check_labels(source.y, tasks, parts, metric, f"split {number}")
        parts = {part: rows[tasks[rows, 0] >= 0] for part, rows in parts.items()}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            found = _train(source, tasks[:, 0], parts, metric)
        best = int(found[0].argmax())
        valid.append(float(found[0, best]))
        values.append(float(found[1, best]))
    return Scores("supervised GCN", metric, tuple(values), tuple(valid), GCN_PROTOCOL)


class TwoLayerGCN(nn.Module):
    """Outputs [N, classes] for the nodes of one graph, with dropout 0.5 before each layer; on the device of x [N, F].

    Of the features only those that are not zero are multiplied, and dropped: of a zero dropout leaves a zero.
    """

    def __init__(self, x: Tensor, edge_index: Tensor, classes: int) -> None:
        super().__init__()
        self.csr = csr_of(edge_index, x.size(0), loops=True)
        self.weight = gcn_weights(self.csr, edge_index, None, x, loops=True, improved=False)
        self.entries, self.values = CSR.of_matrix(x)
        self.w1, self.w2 = (
            nn.Parameter(torch.empty(rows, columns, device=x.device))
            for rows, columns in ((x.size(1), WIDTH), (WIDTH, classes))
        )
        self.b1, self.b2 = (nn.Parameter(torch.zeros(width, device=x.device)) for width in (WIDTH, classes))
        glorot(self.w1)
        glorot(self.w2)

    def forward(self) -> Tensor:
        """Outputs [N, classes]."""
        values = F.dropout(self.values, 0.5, self.training)
        h = entry_sum(entry_sum(self.w1, self.entries, values), self.csr, self.weight) + self.b1
        h = F.dropout(h.relu(), 0.5, self.training)
        return entry_sum(h @ self.w2, self.csr, self.weight) + self.b2


def _train(source: Data, y: Tensor, parts: dict[str, Tensor], metric: str) -> Tensor:
    """Validation and test score after every epoch, [2, epochs]."""
    assert source.x is not None and source.edge_index is not None
    classes = y[parts["train"]].unique()
    rows = parts["train"].to(source.x.device)
    target = torch.searchsorted(classes, y[parts["train"]]).to(source.x.device)
    model = TwoLayerGCN(source.x.float(), source.edge_index, len(classes))
    optimizer = torch.optim.Adam(
        [
            {"params": [model.w1, model.b1], "weight_decay": 5e-4},
            {"params": [model.w2, model.b2], "weight_decay": 0.0},
        ],
        lr=0.01,
    )
    scores = []
    for _ in range(EPOCHS):
        model.train()
        loss = F.cross_entropy(model()[rows], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            out = model().double().log_softmax(1).cpu()
        scores.append(
            torch.cat([measure(metric, out[parts[part]][None], classes, y[parts[part]]) for part in ("val", "test")])
        )
    return torch.stack(scores, dim=1)
