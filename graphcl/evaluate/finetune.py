"""Fine-tuning: an encoder and a new head trained on the labels of a split.

The loop of semi-supervised GraphCL (You et al., 2020, arXiv:2010.13902): Adam, lr 0.001, 100 epochs, batches of 128,
nothing tuned. Its molecule benchmark is the same loop with batches of 32, dropout 0.5 and the last epoch. From scratch
is the same call on an untrained encoder. Which epoch counts decides the figure as much as the method does, so three
rules stand side by side, each a protocol of its own.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphcl.data.store import GraphStore
from graphcl.encoders.dropout import Dropout
from graphcl.encoders.inputs import NodeNorm
from graphcl.evaluate.scores import Scores, listed
from graphcl.evaluate.tasks import FINE_TUNING_METRICS, VALUE_METRICS, Judged, Task, make_task, places
from graphcl.process import warn_of_slow_bf16

LAST_PROTOCOL, CLEAN_PROTOCOL, PAPER_PROTOCOL = "finetune-last/clean/1", "finetune/clean/1", "finetune/paper/1"
STATEMENTS = {
    LAST_PROTOCOL: "encoder and head fine-tuned on the train labels, test score of the last epoch",
    CLEAN_PROTOCOL: "encoder and head fine-tuned on the train labels, test score of the epoch that is best on "
    "validation",
    PAPER_PROTOCOL: "encoder and head fine-tuned on the train labels, the epoch as semi-supervised GraphCL chooses it: "
    "one for all splits, with the highest mean TEST score",
}
EVALUATED = 512  # graphs a batch where nothing is learned


class FineTuned(NamedTuple):
    """Test scores of one training, by what chooses the epoch."""

    last: Scores  # nothing: the last one; so does GraphCL on molecules
    clean: Scores  # the best on validation, in each split
    paper: Scores  # the best mean over the splits on TEST; to compare with tables that did so


class Settings(NamedTuple):
    """How to fine-tune.

    freeze: train the head alone, on the embeddings of the encoder in eval mode.  layer_decay: in (0, 1], how much lower
    the learning rate is from layer to layer, seen from the head.  patience: stop after so many epochs without a better
    one on validation.  dropout: of the encoder, in place of its own.  precision: "32" or "bf16-mixed".  precise_norm:
    before each scoring estimate the running statistics of batch norms anew (`settle_norms`).  head: "linear", or "mlp"
    as semi-supervised GraphCL has it: batch norm, a layer as wide as the embedding, ReLU, batch norm, a layer. It is
    new; theirs goes on with the hidden layer and batch norms of pretraining.
    """

    epochs: int = 100
    lr: float = 1e-3
    batch_size: int = 128
    freeze: bool = False
    layer_decay: float = 1.0
    patience: int | None = None
    dropout: float | None = None
    precision: str = "32"
    precise_norm: bool = False
    head: str = "linear"

    def checked(self) -> Settings:
        """The settings themselves; ValueError for one that is out of range."""
        for name in ("epochs", "lr", "batch_size"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"{name} must be > 0, got {getattr(self, name)!r}; semi-supervised GraphCL has 100, 0.001 and 128"
                )
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must be in (0, 1], got {self.layer_decay!r}; 1 is one rate for all layers")
        if self.freeze and self.layer_decay != 1:
            raise ValueError(
                f"freeze (--frozen) trains the head alone; layer_decay={self.layer_decay!r} (--layer-decay) is for the "
                "encoder's layers: leave one of the two out"
            )
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be at least 1 epoch, got {self.patience!r}; None never stops early")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout!r}; GraphCL has 0.5 on molecules")
        if self.precision not in ("32", "bf16-mixed"):
            raise ValueError(f"precision must be '32' or 'bf16-mixed', got {self.precision!r}")
        if self.head not in ("linear", "mlp"):
            raise ValueError(f"head must be 'linear' or 'mlp', got {self.head!r}")
        return self


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
    freeze: bool = False,
    layer_decay: float = 1.0,
    patience: int | None = None,
    dropout: float | None = None,
    precision: str = "32",
    precise_norm: bool = False,
    head: str = "linear",
) -> FineTuned:
    """Train a copy of the encoder and a new head on the train rows of each split, and score every epoch.

    encoder: (data) -> [N, out_dim], left as it is.  readout: (h, data) -> [B, out_dim] for graphs, None for nodes (one
    graph is one batch, so an epoch is a step).  source.y: [n] classes (cross entropy), or [n, T] tasks of 0 and 1 with
    NaN where unknown (binary cross entropy over the known ones); with an error as metric [n] or [n, T] values, NaN
    where unknown (mean squared error on targets standardised by the train rows). Of several tasks the mean counts, over
    those that train can teach and test can score, and a warning names the others.  split: one Split or a list.  metric:
    "accuracy", "roc_auc", "prc_auc" (average precision), and lower is better "rmse" or "mae", in the targets' unit.
    device: default where the encoder is.  seed: of the head, the order and dropout, the same in each split.  The rest
    as in `Settings`.

    Raises ValueError for settings out of range, a readout that does not fit, and as `linear_probe` for labels and
    splits.
    """
    if metric not in FINE_TUNING_METRICS:
        raise ValueError(f"metric must be one of {', '.join(FINE_TUNING_METRICS)}, got {metric!r}")
    settings = Settings(
        epochs, lr, batch_size, freeze, layer_decay, patience, dropout, precision, precise_norm, head
    ).checked()
    graphs = isinstance(source, GraphStore)
    if graphs != (readout is not None):
        given = "many graphs need a readout" if graphs else "the nodes of one graph need none"
        raise ValueError(f"{given}, got readout={readout!r}; use graphcl.encoders.Readout for graphs, None for nodes")
    device = device_of(encoder) if device is None else torch.device(device)
    warn_of_slow_bf16(precision, device.type)
    n = len(source) if isinstance(source, GraphStore) else int(source.num_nodes or 0)
    found = []
    for number, one in enumerate(listed(split)):
        task = make_task(source.y, n, one, metric, f"split {number}", device)
        found.append(train(encoder, readout, source, task, settings, seed=seed, device=device))
    return by_rule(found, metric, named=not freeze)


class Model(nn.Module):
    """Encoder, readout (None for nodes) and a head as in `Settings`: (data) -> [B, width] or [N, width]."""

    def __init__(self, encoder: Any, readout: nn.Module | None, width: int, head: str = "linear") -> None:
        super().__init__()
        dim = encoder.out_dim
        self.encoder, self.readout = encoder, readout
        self.head: nn.Module = nn.Linear(dim, width)
        if head == "mlp":
            self.head = nn.Sequential(NodeNorm(dim), nn.Linear(dim, dim), nn.ReLU(), NodeNorm(dim), self.head)

    def embed(self, data: Any, precision: str = "32") -> Tensor:
        """What the head reads, in float32."""
        with torch.autocast(device_of(self.head).type, torch.bfloat16, enabled=precision != "32"):
            h = self.encoder(data)
            h = h if self.readout is None else self.readout(h, data)
        return h.float()

    def forward(self, data: Any, precision: str = "32") -> Tensor:
        """Outputs, in float32."""
        out: Tensor = self.head(self.embed(data, precision))
        return out


class Trained(NamedTuple):
    """One training: its epochs, the model as it was after the one that is best on validation, and both scored."""

    epochs: list[Judged]
    best: int  # place of the epoch
    model: Model
    last_scores: Judged  # with further metrics
    best_scores: Judged
    last_out: Tensor  # outputs for the rows `task.other` after the last epoch
    best_out: Tensor  # and after the best


def train(
    encoder: Any,
    readout: nn.Module | None,
    source: Data | GraphStore,
    task: Task,
    settings: Settings,
    *,
    seed: int,
    device: torch.device,
    tell: Callable[[int, Judged], None] | None = None,
) -> Trained:
    """Train copies of encoder and readout, and a new head, under one split.  tell: called after every epoch."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = Model(copy.deepcopy(encoder), copy.deepcopy(readout), task.width, settings.head).to(device)
        if settings.dropout is not None:
            set_dropout(model.encoder, settings.dropout)
        outputs, judged = _runs(model, _without_labels(source), task, settings, device)
        optimizer = torch.optim.Adam(_groups(model, settings), fused=True)
        batch_size = len(task.train) if isinstance(source, Data) else settings.batch_size
        found: list[Judged] = []
        best = 0
        for epoch in range(settings.epochs):
            model.train()
            for rows in task.train[torch.randperm(len(task.train))].split(batch_size):
                on_device = rows.to(device)
                optimizer.zero_grad()
                task.loss(outputs(rows), on_device).backward()
                optimizer.step()
            if settings.precise_norm and not settings.freeze:
                settle_norms(model, outputs, task.train[torch.randperm(len(task.train))].split(batch_size))
            model.eval()
            with torch.no_grad():
                out = judged()
            found.append(task.judge(out))
            if epoch == 0 or found[epoch].choice > found[best].choice:
                best, best_out = epoch, out
                state = {name: value.clone() for name, value in model.state_dict().items()}
            if tell is not None:
                tell(epoch, found[epoch])
            if settings.patience is not None and epoch - best >= settings.patience:
                break
    model.load_state_dict(state)
    return Trained(found, best, model, task.judge(out, also=True), task.judge(best_out, also=True), out, best_out)


def _runs(
    model: Model, source: Data | GraphStore, task: Task, settings: Settings, device: torch.device
) -> tuple[Callable[[Tensor], Tensor], Callable[[], Tensor]]:
    """What gives the outputs for train rows [b], and those for the rows to be judged, `task.other`."""
    precision = settings.precision
    if isinstance(source, Data):
        graph = source.to(str(device))
        other = task.other.to(device)
        if settings.freeze:
            with torch.no_grad():
                h = model.eval().embed(graph, precision)
            return lambda rows: model.head(h[rows.to(device)]), lambda: model.head(h[other])
        return lambda rows: model(graph, precision)[rows.to(device)], lambda: model(graph, precision)[other]
    if settings.freeze:
        place = places(torch.cat([task.train, task.other]), len(source))
        with torch.no_grad():
            parts = torch.cat([task.train, task.other]).split(EVALUATED)
            h = torch.cat([model.eval().embed(source.batch(rows, device), precision) for rows in parts])
        return lambda rows: model.head(h[place[rows].to(device)]), lambda: model.head(h[len(task.train) :])
    batches = [source.batch(rows, device) for rows in task.other.split(EVALUATED)]  # with what is remembered of them
    return (
        lambda rows: model(source.batch(rows, device), precision),
        lambda: torch.cat([model(batch, precision) for batch in batches]),
    )


def settle_norms(model: nn.Module, outputs: Callable[[Tensor], Tensor], batches: Sequence[Tensor]) -> None:
    """Give the batch norms the mean of their statistics over these batches of rows, as the weights now are.

    Wu and Johnson, 2021, arXiv:2105.07576, section 3 (precise batch norm). Running statistics lag behind weights that
    Adam moves fast, and all outputs shift by what that amounts to: ranks bear it, errors do not.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    momenta, seen = [norm.momentum for norm in norms], 0
    model.train()
    with torch.no_grad():
        for rows in batches:
            seen += len(rows)
            for norm in norms:
                norm.momentum = len(rows) / seen  # 1 at first, which forgets what was there
            outputs(rows)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _groups(model: Model, settings: Settings) -> list[dict[str, Any]]:
    """Parameters with their learning rates: the head's, and that times `layer_decay` once more with each layer down."""
    if settings.freeze:
        return [{"params": list(model.head.parameters()), "lr": settings.lr}]
    layers = [list(layer.parameters()) for layer in getattr(model.encoder, "layers", ())]
    deep = {id(parameter) for layer in layers for parameter in layer}
    first = [parameter for parameter in model.encoder.parameters() if id(parameter) not in deep]
    of_readout = [] if model.readout is None else list(model.readout.parameters())
    groups = [[*model.head.parameters(), *of_readout], *reversed(layers), first]
    return [
        {"params": parameters, "lr": settings.lr * settings.layer_decay**depth}
        for depth, parameters in enumerate(groups)
        if parameters
    ]


def set_dropout(encoder: nn.Module, p: float) -> None:
    """Give every dropout of the encoder this rate. Raises ValueError if it has none."""
    found = [
        (parent, name)
        for parent in encoder.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Dropout)
    ]
    if not found and p:
        raise ValueError(f"dropout={p} for an encoder without dropout ({type(encoder).__name__}); leave it out")
    for parent, name in found:
        setattr(parent, name, Dropout(p))


def device_of(module: Any) -> torch.device:
    """Where the module's parameters are."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def _without_labels(source: Data | GraphStore) -> Data | GraphStore:
    if isinstance(source, GraphStore):
        return source._like(y=None)
    data = copy.copy(source)
    data.y = None
    return data


def by_rule(found: Sequence[Trained], metric: str, *, named: bool = True) -> FineTuned:
    """Scores of the trainings of several splits, or seeds.  named: whether they go by the names of the protocols."""
    sign = -1.0 if metric in VALUE_METRICS else 1.0
    longest = max(len(one.epochs) for one in found)
    # A training that stopped early stays as it was.
    test = [[one.epochs[min(epoch, len(one.epochs) - 1)].test for one in found] for epoch in range(longest)]
    peak = max(test, key=lambda values: sign * statistics.fmean(values))

    def scores(judged: Sequence[Judged], protocol: str) -> Scores:
        also = {name: tuple(one.also[name] for one in judged) for name in judged[0].also}
        values, valid = tuple(one.test for one in judged), tuple(one.val for one in judged)
        return Scores("fine-tuning", metric, values, valid, protocol if named else "", also)

    return FineTuned(
        scores([one.last_scores for one in found], LAST_PROTOCOL),
        scores([one.best_scores for one in found], CLEAN_PROTOCOL),
        Scores("fine-tuning", metric, tuple(peak), (), PAPER_PROTOCOL if named else ""),
    )
