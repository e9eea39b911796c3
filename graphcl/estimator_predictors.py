"""scikit-learn predictors: an encoder and a linear head, fine-tuned on the labels of graphs, or of nodes of one graph.

The counterpart of estimators.py; docs/estimators.md has both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import networkx as nx
import numpy as np
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_consistent_length, check_is_fitted
from torch import Tensor, nn
from torch_geometric.data import Data

from graphcl.checkpoint import write_whole
from graphcl.config import Config
from graphcl.data.features import MADE
from graphcl.data.store import GraphStore
from graphcl.encoders import Readout
from graphcl.estimator_inputs import (
    attributes_of,
    check_attributes,
    checked,
    classes_of,
    device_of,
    featured,
    labelled,
    listed,
    nodes_of,
    store_of,
    tell_of_leaks,
)
from graphcl.estimators import (
    FOR_GRAPHS,
    FOR_MOLECULES,
    FOR_NODES,
    embedded,
    fitted,
    load,
    molecule_features,
    pretrained_model,
    pretraining_config,
    save,
)
from graphcl.evaluate import finetune
from graphcl.evaluate.finetune import Settings
from graphcl.evaluate.tasks import Judged, finite
from graphcl.hub import ModelCard, Pretrained, PretrainedConfig, make_encoder

Predictor = TypeVar("Predictor", "GraphClassifier", "GraphRegressor", "NodeClassifier")

FROM_SCRATCH = ("settings", "encoder", "hidden", "layers")  # parameters of an encoder that is not pretrained


class GraphClassifier(ClassifierMixin, BaseEstimator):
    """Classes of graphs, by an encoder and a linear head that `fit` trains on (graphs, labels).

    X: as for GraphEmbedder.  pretrained: a name or folder for `load_pretrained` to begin with; None: from scratch.
    frozen: train the head alone.  encoder, hidden, layers, settings (encoder.*, readout, data.normalize): of an encoder
    from scratch, as for GraphEmbedder; None: that of quickstart-molecules for SMILES, of graphcl for other graphs.
    features, seed, device: likewise.
    epochs, lr, batch_size: of the training; Adam, as semi-supervised GraphCL has it.

    Fitted: classes_, model_ (the encoder, graphcl.hub.Pretrained), head_.  y: one label a graph, of any type. Raises
    ValueError for a row that is no graph, labels of one class only, and parameters that do not fit.
    """

    def __init__(
        self,
        pretrained: str | Path | None = None,
        *,
        frozen: bool = False,
        settings: Mapping[str, Any] | None = None,
        encoder: str | None = None,
        hidden: int | None = None,
        layers: int | None = None,
        features: str | None = None,
        epochs: int = 100,
        lr: float = 1e-3,
        batch_size: int = 128,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self.pretrained, self.frozen, self.settings = pretrained, frozen, settings
        self.encoder, self.hidden, self.layers, self.features = encoder, hidden, layers, features
        self.epochs, self.lr, self.batch_size = epochs, lr, batch_size
        self.seed, self.device = seed, device

    def fit(self, X: Any, y: Any) -> GraphClassifier:
        """Train on the graphs X and their labels y [n]."""
        classes, codes, _ = classes_of(self, y)
        fit_graphs(self, X, codes, len(classes))
        self.classes_ = classes
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Probabilities [n, K] in the order of classes_."""
        return softmax(outputs(self, graphs_of(self, X)), axis=1)

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each graph, [n]."""
        places = self.predict_proba(X).argmax(1)
        return self.classes_[places]

    def save(self, folder: str | Path) -> None:
        """Write it, fitted, to a new folder: as GraphEmbedder.save, and head.safetensors."""
        save_predictor(self, folder)

    @classmethod
    def load(cls, folder: str | Path) -> GraphClassifier:
        """What `save` wrote. Raises ValueError if the folder holds none, or one of another class."""
        return load_predictor(cls, folder)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array, tags.input_tags.string = False, True, True
        return tags


class GraphRegressor(RegressorMixin, BaseEstimator):
    """A number for each graph, by an encoder and a linear head that `fit` trains on (graphs, numbers).

    y: [n] finite numbers; they are standardised for the training, by those given to `fit`. The parameters are those of
    GraphClassifier.
    """

    def __init__(
        self,
        pretrained: str | Path | None = None,
        *,
        frozen: bool = False,
        settings: Mapping[str, Any] | None = None,
        encoder: str | None = None,
        hidden: int | None = None,
        layers: int | None = None,
        features: str | None = None,
        epochs: int = 100,
        lr: float = 1e-3,
        batch_size: int = 128,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self.pretrained, self.frozen, self.settings = pretrained, frozen, settings
        self.encoder, self.hidden, self.layers, self.features = encoder, hidden, layers, features
        self.epochs, self.lr, self.batch_size = epochs, lr, batch_size
        self.seed, self.device = seed, device

    def fit(self, X: Any, y: Any) -> GraphRegressor:
        """Train on the graphs X and their numbers y [n]."""
        y = checked(self, y)
        if y.dtype.kind not in "iufb":
            raise ValueError(f"y must be numbers, got {y.dtype} ({y[0]!r:.40}, ...); GraphClassifier is for classes")
        values = torch.tensor(y, dtype=torch.float64)
        if float(values.abs().max()) > torch.finfo(torch.float32).max:
            raise ValueError(f"y goes to {values.abs().max():.3g}, beyond float32; give it in another unit")
        mean, scale = values.mean(), values.std(correction=0).clamp(min=1e-12)
        fit_graphs(self, X, ((values - mean) / scale).float(), 1)
        with torch.no_grad():  # the head gives numbers as they were
            self.head_.bias.mul_(scale).add_(mean)
            self.head_.weight.mul_(scale)
        return self

    def predict(self, X: Any) -> NDArray[np.float32]:
        """A number for each graph, [n]."""
        return outputs(self, graphs_of(self, X))[:, 0]

    def save(self, folder: str | Path) -> None:
        """Write it, fitted, to a new folder: as GraphEmbedder.save, and head.safetensors."""
        save_predictor(self, folder)

    @classmethod
    def load(cls, folder: str | Path) -> GraphRegressor:
        """What `save` wrote. Raises ValueError if the folder holds none, or one of another class."""
        return load_predictor(cls, folder)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array, tags.input_tags.string = False, True, True
        return tags


class NodeClassifier(ClassifierMixin, BaseEstimator):
    """Classes of the nodes of one graph, by an encoder and a linear head that `fit` trains on the labelled ones.

    X is the graph, and y [N] has -1 where there is no label; or, with `graph` set, X is numbers of its nodes [n] and y
    their labels [n]. The encoder reads the whole graph all the same (transductive). From scratch it is grace's.
    The other parameters are those of GraphClassifier; an epoch is one step over all labelled nodes.
    """

    def __init__(
        self,
        pretrained: str | Path | None = None,
        *,
        graph: Data | nx.Graph | None = None,
        frozen: bool = False,
        settings: Mapping[str, Any] | None = None,
        encoder: str | None = None,
        hidden: int | None = None,
        layers: int | None = None,
        features: str | None = None,
        epochs: int = 100,
        lr: float = 1e-3,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self.pretrained, self.graph, self.frozen, self.settings = pretrained, graph, frozen, settings
        self.encoder, self.hidden, self.layers, self.features = encoder, hidden, layers, features
        self.epochs, self.lr = epochs, lr
        self.seed, self.device = seed, device

    def fit(self, X: Any, y: Any) -> NodeClassifier:
        """Train on the nodes that have a label."""
        classes, codes, known = classes_of(self, y, unlabelled=True)
        data, rows = nodes_of(self.graph, X)
        rows = torch.arange(int(data.num_nodes or 0)) if rows is None else rows
        if len(codes) != len(rows):
            raise ValueError(f"y has {len(codes)} labels for {len(rows)} nodes; give one each, -1 where there is none")
        tell_of_leaks(X if self.graph is None else self.graph, rows[known], classes[codes[known].numpy()])
        config, model = training_config(self, FOR_NODES, molecules=False), given_model(self, "node")
        train(self, config, model, data, rows[known], codes[known], len(classes))
        self.attributes_ = attributes_of(X if self.graph is None else self.graph)
        self.classes_ = classes
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Probabilities [N, K] of the nodes of X, or [n, K] of those numbered X, in the order of classes_."""
        check_is_fitted(self)
        data, rows = nodes_of(self.graph, X)
        check_attributes(self, X if self.graph is None else self.graph)
        values = softmax(outputs(self, data), axis=1)
        return values if rows is None else values[rows.numpy()]

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each node, [N] or [n]."""
        places = self.predict_proba(X).argmax(1)
        return self.classes_[places]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy over the nodes that have a label in y."""
        known = labelled(np.asarray(y))
        weight = None if sample_weight is None else np.asarray(sample_weight)[known]
        return float(accuracy_score(np.asarray(y)[known], self.predict(X)[known], sample_weight=weight))

    def save(self, folder: str | Path) -> None:
        """Write it, fitted, but for `graph`, to a new folder: as GraphEmbedder.save, and head.safetensors."""
        save_predictor(self, folder)

    @classmethod
    def load(cls, folder: str | Path) -> NodeClassifier:
        """What `save` wrote. Raises ValueError if the folder holds none, or one of another class."""
        return load_predictor(cls, folder)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array = False, True
        return tags


# --- fitting and predicting -------------------------------------------------------------------------------------------


def training_config(estimator: Any, default: tuple[str, dict[str, Any]], molecules: bool) -> Config:
    """The config of a predictor from scratch; of pretrained weights only `train` and the batch size count."""
    params = estimator.get_params(deep=False) | {"config": None}
    for name in ("epochs", "lr", "batch_size"):
        if name in params and params[name] is None:
            raise ValueError(f"{name} must be a number > 0, got None; the default is that of semi-supervised GraphCL")
    if estimator.pretrained is not None:
        params |= dict.fromkeys(FROM_SCRATCH)
    config = pretraining_config(params, default, molecules)
    idle = [key for key in params["settings"] or () if not key.startswith(("encoder.", "readout", "data.normalize"))]
    if idle:
        raise ValueError(
            f"settings has {idle[0]!r}, which is for pretraining; here encoder.*, readout and data.normalize count, "
            "beside the parameters epochs, lr, batch_size and seed"
        )
    return config


def given_model(estimator: Any, level: str) -> Pretrained | None:
    """The weights to begin with, if any are named."""
    if estimator.pretrained is None:
        return None
    return pretrained_model(estimator.get_params(deep=False), level, FROM_SCRATCH)


def fit_graphs(estimator: Any, X: Any, target: Tensor, width: int) -> Any:
    """The graph predictor, fitted; target: [n]."""
    kind, rows = listed(X)
    check_consistent_length(rows, target)
    molecules = kind == "SMILES"
    config = training_config(estimator, FOR_MOLECULES if molecules else FOR_GRAPHS, molecules)
    model = given_model(estimator, "graph")
    if model is not None and molecules and not model.reads_molecules:
        raise ValueError(f"X holds SMILES, but pretrained={str(estimator.pretrained)!r} is no encoder of molecules")
    encoder = config.encoder if model is None else model.config.encoder
    store = store_of(kind, rows, molecule_features(encoder))
    train(estimator, config, model, store, torch.arange(len(store)), target, width, molecules)
    estimator.attributes_ = attributes_of(rows)
    return estimator


def train(
    estimator: Any,
    config: Config,
    model: Pretrained | None,
    data: Data | GraphStore,
    rows: Tensor,
    target: Tensor,
    width: int,
    molecules: bool = False,
) -> Any:
    """The predictor, fitted on the rows [k] of the data and their targets [k]: classes (int64) or values."""
    ready = model.config.features if model is not None and model.config.features in MADE else None
    features = estimator.features or ready or ("degree" if data.num_features == 0 else "given")
    given = config.data.normalize if model is None else model.config.normalize and estimator.features is None
    scaled = given and features not in MADE
    data, device = featured(data, features, scaled), device_of(estimator.device)
    if model is None:
        model = untrained(estimator, config, data)
    labels: Any = Labels(
        target.to(device), rows, width, len(data) if isinstance(data, GraphStore) else int(data.num_nodes or 0)
    )
    settings = Settings(
        config.train.epochs,
        config.train.lr,
        config.data.batch_size or 1,
        freeze=estimator.frozen,
        precise_norm=target.is_floating_point(),
    )
    tuned = finetune.train(
        model.encoder, model.readout, data, labels, settings.checked(), seed=config.train.seed, device=device
    ).model.cpu()
    model.encoder, estimator.head_ = tuned.encoder, tuned.head
    if estimator.pretrained is not None and not estimator.frozen:
        about = f"{model.card.about}, fine-tuned by graphcl.{type(estimator).__name__}"
        model.card = model.card.model_copy(update={"about": about, "scores": {}})
    return fitted(estimator, model.eval(), features, scaled, molecules=molecules or model.reads_molecules)


class Labels:
    """The labels of all rows, as graphcl.evaluate.finetune.train reads a task; nothing is held out to choose by.

    target: [k] classes or standardised values, of the rows [k] of n.  width: outputs, K or 1.
    """

    def __init__(self, target: Tensor, rows: Tensor, width: int, n: int) -> None:
        self.width, self.train, self.other = width, rows, rows[:1]
        self.target = target.new_zeros(n).index_copy(0, rows.to(target.device), target)
        self.epochs = 0

    def loss(self, out: Tensor, rows: Tensor) -> Tensor:
        """Mean loss of the rows [b]; out: [b, width]."""
        y = self.target[rows]
        return F.mse_loss(out[:, 0], y) if y.is_floating_point() else F.cross_entropy(out, y)

    def judge(self, out: Tensor, also: bool = False) -> Judged:
        """The later, the better: the last epoch counts."""
        finite(out, "fine-tuning")
        self.epochs += 1
        return Judged(self.epochs, math.nan, math.nan, {})


def untrained(estimator: Any, config: Config, data: Data | GraphStore) -> Pretrained:
    """The encoder of the config with weights drawn from the seed."""
    readout = config.readout if isinstance(data, GraphStore) else None
    made = PretrainedConfig(encoder=config.encoder, in_dim=data.num_features, readout=readout)
    name, seed = type(estimator).__name__, config.train.seed
    card = ModelCard(about=f"{config.encoder.name} trained by graphcl.{name}", method=name, data="X", seed=seed)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        encoder = make_encoder(config.encoder, data.num_features, name)
    return Pretrained(encoder, Readout(readout) if readout else None, made, card)


def graphs_of(estimator: Any, X: Any) -> GraphStore:
    """The graphs that a fitted predictor is to predict."""
    check_is_fitted(estimator)
    kind, rows = listed(X)
    if kind == "SMILES" and not estimator.molecules_:
        raise ValueError(f"X holds SMILES, but this {type(estimator).__name__} was fitted on other graphs")
    check_attributes(estimator, rows)
    return store_of(kind, rows, molecule_features(estimator.model_.config.encoder))


def outputs(estimator: Any, data: Data | GraphStore) -> NDArray[np.float32]:
    """What the head makes of the embeddings, [n, width]."""
    with torch.no_grad():
        return estimator.head_(torch.from_numpy(embedded(estimator, data))).numpy()


# --- saving -----------------------------------------------------------------------------------------------------------


def save_predictor(estimator: Any, folder: str | Path) -> None:
    """Write what `save` of the embedders writes, and head.safetensors."""
    classes = getattr(estimator, "classes_", None)
    more = {} if classes is None else {"classes": classes.tolist(), "dtype": classes.dtype.str}
    save(estimator, folder, more)
    head = {name: value.detach().contiguous() for name, value in estimator.head_.state_dict().items()}
    write_whole(Path(folder) / "head.safetensors", safetensors.torch.save(head))


def load_predictor(cls: type[Predictor], folder: str | Path) -> Predictor:
    """The predictor that `save_predictor` wrote."""
    estimator, values = load(cls, folder)
    path = Path(folder) / "head.safetensors"
    try:
        if "classes" in values:
            estimator.classes_ = np.array(values["classes"], dtype=values["dtype"])
        width = len(values["classes"]) if "classes" in values else 1
        estimator.head_ = nn.Linear(estimator.n_features_out_, width)
        estimator.head_.load_state_dict(safetensors.torch.load(path.read_bytes()))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path}: the head of the {cls.__name__} cannot be read there: {error!s:.300}") from None
    return estimator
