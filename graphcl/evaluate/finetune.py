"""Fine-tuning: an encoder and a linear head trained on the labels of a split.

The loop of semi-supervised GraphCL (You et al., 2020, arXiv:2010.13902): Adam, lr 0.001, 100 epochs, batches of 128,
nothing tuned. From scratch is the same call on an untrained encoder. Which epoch counts decides the figure as much as
the method does, so three rules stand side by side, each a protocol of its own.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data

from graphcl.data.store import GraphStore
from graphcl.evaluate.scores import (
    METRICS,
    Scores,
    check_classes,
    check_labels,
    check_split,
    listed,
    mean_on_val,
    measure,
    usable_tasks,
)

LAST_PROTOCOL, CLEAN_PROTOCOL, PAPER_PROTOCOL = "finetune-last/clean/1", "finetune/clean/1", "finetune/paper/1"
STATEMENTS = {
    LAST_PROTOCOL: "encoder and linear head fine-tuned on the train labels, test score of the last epoch",
    CLEAN_PROTOCOL: "encoder and linear head fine-tuned on the train labels, test score of the epoch that is best on "
    "validation",
    PAPER_PROTOCOL: "the epoch as semi-supervised GraphCL chooses it (one for all splits, with the highest mean TEST "
    "score); encoder and linear head fine-tuned on the train labels, where GraphCL's head has a hidden layer and batch "
    "norms and its features have the degrees beside",
}


class FineTuned(NamedTuple):
    """Test scores of one training, by what chooses the epoch."""

    last: Scores  # nothing: the last one
    clean: Scores  # the best on validation, in each split
    paper: Scores  # the highest mean over the splits on TEST; to compare with tables that did so


def finetune(
    encoder: Any,
    readout: nn.Module | None,
    source: Data | GraphStore,
    split: Any,
    *,
    metric: str = "accuracy",
    epochs: int = 100,
    lr: float = 1e-3,
    batch_size: int = 128,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> FineTuned:
    """Train a copy of the encoder and a new linear head on the train rows of each split, and score every epoch.

    encoder: (data) -> [N, out_dim], left as it is.  readout: (h, data) -> [B, out_dim] for graphs, None for nodes (one
    graph is one batch, so an epoch is a step).  source.y: [n] classes (cross entropy), or [n, T] tasks of 0 and 1 with
    NaN where unknown (binary cross entropy over the known ones); of several tasks the mean counts, over those with both
    classes in train and test, and a warning names the others.  split: one Split or a list.  metric: "accuracy" or
    "roc_auc".  device: default where the encoder is.  seed: of the head, the order and dropout, the same in each split.

    Raises ValueError for numbers that are not positive, a readout that does not fit, and as `linear_probe` for labels
    and splits.
    """
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    for name, value in (("epochs", epochs), ("lr", lr), ("batch_size", batch_size)):
        if not value > 0:
            raise ValueError(f"{name} must be > 0, got {value!r}; semi-supervised GraphCL has 100, 0.001 and 128")
    graphs = isinstance(source, GraphStore)
    if graphs != (readout is not None):
        given = "many graphs need a readout" if graphs else "the nodes of one graph need none"
        raise ValueError(f"{given}, got readout={readout!r}; use graphcl.encoders.Readout for graphs, None for nodes")
    labels = source.y
    tasks = check_classes(labels, len(source) if isinstance(source, GraphStore) else int(source.num_nodes or 0))
    if device is None:
        device = next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))
    on_val, on_test = [], []
    for number, one in enumerate(listed(split)):
        where = f"split {number}"
        parts = check_split(one, len(tasks), where)
        check_labels(labels, tasks, parts, metric, where)
        task = _Task(tasks, parts, metric, f"fine-tuning, {where}", torch.device(device))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = _Model(copy.deepcopy(encoder), copy.deepcopy(readout), task.width).to(device)
            val, test = _train(model, _without_labels(source), task, epochs, lr, batch_size)
        on_val.append(val)
        on_test.append(test)
    return _by_rule(torch.stack(on_val), torch.stack(on_test), metric)


class _Model(nn.Module):
    def __init__(self, encoder: Any, readout: nn.Module | None, width: int) -> None:
        super().__init__()
        self.encoder, self.readout, self.head = encoder, readout, nn.Linear(encoder.out_dim, width)

    def forward(self, data: Any) -> Tensor:
        h = self.encoder(data)
        return self.head(h if self.readout is None else self.readout(h, data))


class _Task:
    """What the labels of a split ask for: the loss on train rows, and the scores on validation and test."""

    def __init__(self, tasks: Tensor, parts: dict[str, Tensor], metric: str, where: str, device: torch.device) -> None:
        self.tasks, self.metric, self.where = tasks, metric, where
        self.usable = usable_tasks(tasks, parts, metric, where)
        self.train = torch.cat([rows for rows, _, _ in self.usable.values()]).unique()
        self.other = torch.cat([parts["val"], parts["test"]])
        self.classes = tasks[self.train].unique() if tasks.shape[1] == 1 else torch.tensor([0, 1])
        self.width = len(self.classes) if tasks.shape[1] == 1 else tasks.shape[1]
        # Only rows of train have a label here; of a task that is left out nothing is learned.
        seen = torch.full_like(tasks, -1)
        for task, (rows, _, _) in self.usable.items():
            seen[rows, task] = torch.searchsorted(self.classes, tasks[rows, task])
        self.seen = seen.to(device)

    def loss(self, out: Tensor, rows: Tensor) -> Tensor:
        """Mean loss over the known labels; out: [b, K or T] of the train rows [b]."""
        y = self.seen[rows]
        if y.shape[1] == 1:
            return F.cross_entropy(out, y[:, 0])
        known = y >= 0
        each = F.binary_cross_entropy_with_logits(out, y.clamp(min=0).to(out.dtype), reduction="none")
        return (each * known).sum() / known.sum().clamp(min=1)

    def scores(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """Mean over the tasks on validation and on test; out: [v + t, K or T] of the rows `other`."""
        if not bool(out.isfinite().all()):
            raise ValueError(f"{self.where}: the model's output is not finite; look for NaN in x, or lower lr")
        out = out.double().cpu()
        place = torch.full((len(self.tasks),), -1).scatter_(0, self.other, torch.arange(len(self.other)))
        on_val: list[Tensor] = []
        on_test: list[Tensor] = []
        for task, (_, val, test) in self.usable.items():
            values = (
                out.log_softmax(1) if self.tasks.shape[1] == 1 else torch.stack([-out[:, task], out[:, task]], dim=1)
            )
            for rows, into in ((val, on_val), (test, on_test)):
                into.append(measure(self.metric, values[place[rows]][None], self.classes, self.tasks[rows, task]))
        return mean_on_val(on_val, self.metric, self.where)[0], torch.cat(on_test).mean()


def _train(
    model: _Model, source: Data | GraphStore, task: _Task, epochs: int, lr: float, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Scores on validation and on test after every epoch, both [epochs]."""
    device = model.head.weight.device
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    if isinstance(source, Data):
        source, batch_size = source.to(str(device)), len(task.train)
    judged = [] if isinstance(source, Data) else [source.batch(rows, device) for rows in task.other.split(512)]
    on_val, on_test = [], []
    for _ in range(epochs):
        model.train()
        order = task.train[torch.randperm(len(task.train))]
        for rows in order.split(batch_size):
            on_device = rows.to(device)
            out = model(source)[on_device] if isinstance(source, Data) else model(source.batch(rows, device))
            optimizer.zero_grad()
            task.loss(out, on_device).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            if isinstance(source, Data):
                out = model(source)[task.other.to(device)]
            else:
                out = torch.cat([model(batch) for batch in judged])
        val, test = task.scores(out)
        on_val.append(val)
        on_test.append(test)
    return torch.stack(on_val), torch.stack(on_test)


def _without_labels(source: Data | GraphStore) -> Data | GraphStore:
    if isinstance(source, GraphStore):
        return source._like(y=None)
    data = copy.copy(source)
    data.y = None
    return data


def _by_rule(val: Tensor, test: Tensor, metric: str) -> FineTuned:
    """val, test: [splits, epochs]."""
    best = val.argmax(1, keepdim=True)
    peak = int(test.mean(0).argmax())

    def scores(values: Tensor, valid: Tensor | None, protocol: str) -> Scores:
        found = () if valid is None else tuple(valid.tolist())
        return Scores("fine-tuning", metric, tuple(values.tolist()), found, protocol)

    return FineTuned(
        scores(test[:, -1], val[:, -1], LAST_PROTOCOL),
        scores(test.gather(1, best)[:, 0], val.gather(1, best)[:, 0], CLEAN_PROTOCOL),
        scores(test[:, peak], None, PAPER_PROTOCOL),
    )
