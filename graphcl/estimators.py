"""scikit-learn transformers: graphs, or the nodes of one graph, in; embeddings pretrained without labels out.

docs/estimators.md has them in pipelines and searches. Nothing outside them changes: torch's random state, its threads
and the environment are afterwards as they were.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import networkx as nx
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch_geometric.data import Data

from graphcl.builder import build
from graphcl.checkpoint import write_whole
from graphcl.config import Config, DataConfig
from graphcl.data.features import MADE
from graphcl.data.store import GraphStore
from graphcl.encoders import Readout
from graphcl.estimator_inputs import attributes_of, check_attributes, device_of, featured, listed, nodes_of, store_of
from graphcl.evaluate.embed import embed
from graphcl.hub import ModelCard, Pretrained, PretrainedConfig, load_pretrained, save_pretrained
from graphcl.methods import METHODS
from graphcl.read_config import load_config
from graphcl.trainer import fit

Estimator = TypeVar("Estimator", bound=Any)  # any of the five

# Where a parameter of an estimator stands in the config.
TRAINING = {
    "encoder": "encoder.name",
    "hidden": "encoder.hidden",
    "layers": "encoder.layers",
    "epochs": "train.epochs",
    "lr": "train.lr",
    "batch_size": "data.batch_size",
}
PLACES = {**TRAINING, "seed": "train.seed", "device": "train.device"}
# Taken where no config is named. Of GRACE's not what suits bags of words only, nor an own width of the last layer.
FOR_MOLECULES: tuple[str, dict[str, Any]] = ("quickstart-molecules", {})
FOR_GRAPHS: tuple[str, dict[str, Any]] = ("graphcl", {})
FOR_NODES: tuple[str, dict[str, Any]] = (
    "grace",
    {"data.normalize": False, "encoder.sparse_input": False, "encoder.out": None},
)


class GraphEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Graphs -> embeddings, float32 [n, D], by an encoder that `fit` pretrains on them without labels.

    X is a list, 1-D array or pandas Series of SMILES strings, NetworkX graphs or PyG Data, all of one kind. Rows are
    never dropped: a SMILES that is no molecule is an error.

    config: a shipped config or a YAML file; None: quickstart-molecules for SMILES, graphcl for other graphs. Of its
    data section batch_size and normalize count. SMILES under a config for other graphs get the encoder and the readout
    of quickstart-molecules.  settings: further keys of the config, such as {"method.tau": 0.1}.  encoder (its name),
    hidden, layers, epochs, lr, batch_size: None: as the config has it.  features: "ones", "degree" or "onehot_degree"
    instead of what the graphs have; None: theirs, degrees where they have none.  pretrained: a name or folder for
    `load_pretrained`, whose weights `fit` takes as they are.  seed: the same seed gives the same embeddings.
    device: "auto", "cpu" or "cuda".  progress: show a bar.

    Fitted: model_ (graphcl.hub.Pretrained), n_features_out_ (D). Raises ValueError for a row that is no graph, and for
    parameters that the config or the graphs do not allow.
    """

    def __init__(
        self,
        config: str | None = None,
        *,
        settings: Mapping[str, Any] | None = None,
        encoder: str | None = None,
        hidden: int | None = None,
        layers: int | None = None,
        features: str | None = None,
        epochs: int | None = None,
        lr: float | None = None,
        batch_size: int | None = None,
        pretrained: str | Path | None = None,
        seed: int = 0,
        device: str = "auto",
        progress: bool = False,
    ) -> None:
        self.config, self.settings = config, settings
        self.encoder, self.hidden, self.layers, self.features = encoder, hidden, layers, features
        self.epochs, self.lr, self.batch_size = epochs, lr, batch_size
        self.pretrained, self.seed, self.device, self.progress = pretrained, seed, device, progress

    @classmethod
    def from_pretrained(cls, pretrained: str | Path, **parameters: Any) -> GraphEmbedder:
        """A fitted one with the weights of `load_pretrained`; `fit`, in a pipeline, takes the same again."""
        return cls(pretrained=pretrained, **parameters)._load()

    def fit(self, X: Any, y: Any = None) -> GraphEmbedder:
        """Pretrain on the graphs X; y is not looked at."""
        kind, rows = listed(X)
        if self.pretrained is not None:
            return self._load()
        molecules = kind == "SMILES"
        config = pretraining_config(self.get_params(), FOR_MOLECULES if molecules else FOR_GRAPHS, molecules)
        pretrain(self, config, store_of(kind, rows, molecule_features(config.encoder)), molecules)
        self.attributes_ = attributes_of(rows)
        return self

    def _load(self) -> GraphEmbedder:
        model = pretrained_model(self.get_params(), level="graph")
        return loaded(self, model, molecules=model.reads_molecules)

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Embeddings [n, D] of the graphs X, row for row."""
        check_is_fitted(self)
        kind, rows = listed(X)
        if kind == "SMILES" and not self.molecules_:
            raise ValueError(f"X holds SMILES, but this {type(self).__name__} was fitted on other graphs")
        check_attributes(self, rows)
        return embedded(self, store_of(kind, rows, molecule_features(self.model_.config.encoder)))

    def save(self, folder: str | Path) -> None:
        """Write it, fitted, to a new folder: what `load_pretrained` reads too, and estimator.json. No pickle."""
        save(self, folder)

    @classmethod
    def load(cls, folder: str | Path) -> GraphEmbedder:
        """What `save` wrote. Raises ValueError if the folder holds none, or one of another class."""
        return load(cls, folder)[0]

    @property
    def _n_features_out(self) -> int:
        return self.n_features_out_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array, tags.input_tags.string = False, True, True
        tags.transformer_tags.preserves_dtype = []  # always float32
        return tags


class NodeEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """One graph -> embeddings of its nodes, float32 [N, D], by an encoder that `fit` pretrains without labels.

    X is the graph, a PyG Data or a NetworkX graph, and its nodes are the rows, in its own order. With `graph` set, X is
    numbers of its nodes [n] instead, which cross-validation can divide; `fit` then trains on the whole graph all the
    same (transductive), and `transform` gives the rows of X.

    config: None is grace without its scaling of rows, its sparse input and its narrower last layer. The other
    parameters are those of GraphEmbedder.
    """

    def __init__(
        self,
        config: str | None = None,
        *,
        graph: Data | nx.Graph | None = None,
        settings: Mapping[str, Any] | None = None,
        encoder: str | None = None,
        hidden: int | None = None,
        layers: int | None = None,
        features: str | None = None,
        epochs: int | None = None,
        lr: float | None = None,
        pretrained: str | Path | None = None,
        seed: int = 0,
        device: str = "auto",
        progress: bool = False,
    ) -> None:
        self.config, self.graph, self.settings = config, graph, settings
        self.encoder, self.hidden, self.layers, self.features = encoder, hidden, layers, features
        self.epochs, self.lr = epochs, lr
        self.pretrained, self.seed, self.device, self.progress = pretrained, seed, device, progress

    @classmethod
    def from_pretrained(cls, pretrained: str | Path, **parameters: Any) -> NodeEmbedder:
        """A fitted one with the weights of `load_pretrained`; `fit`, in a pipeline, takes the same again."""
        return cls(pretrained=pretrained, **parameters)._load()

    def fit(self, X: Any, y: Any = None) -> NodeEmbedder:
        """Pretrain on the graph; y is not looked at."""
        data, _ = nodes_of(self.graph, X)
        if self.pretrained is not None:
            return self._load()
        pretrain(self, pretraining_config(self.get_params(), FOR_NODES, molecules=False), data, molecules=False)
        self.attributes_ = attributes_of(X if self.graph is None else self.graph)
        return self

    def _load(self) -> NodeEmbedder:
        model = pretrained_model(self.get_params(), level="node")
        return loaded(self, model, molecules=False)

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Embeddings [N, D] of the nodes of X (which may be another graph), or [n, D] of those numbered X."""
        check_is_fitted(self)
        data, rows = nodes_of(self.graph, X)
        check_attributes(self, X if self.graph is None else self.graph)
        z = embedded(self, data)
        return z if rows is None else z[rows.numpy()]

    def save(self, folder: str | Path) -> None:
        """Write it, fitted, but for `graph`, to a new folder; see GraphEmbedder.save."""
        save(self, folder)

    @classmethod
    def load(cls, folder: str | Path) -> NodeEmbedder:
        """What `save` wrote. Raises ValueError if the folder holds none, or one of another class."""
        return load(cls, folder)[0]

    @property
    def _n_features_out(self) -> int:
        return self.n_features_out_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array = False, True
        tags.transformer_tags.preserves_dtype = []  # always float32
        return tags


# --- fitting ----------------------------------------------------------------------------------------------------------


def pretraining_config(params: Mapping[str, Any], default: tuple[str, dict[str, Any]], molecules: bool) -> Config:
    """The config that an estimator's parameters ask for."""
    name, values = default if params["config"] is None else (params["config"], {})
    settings = params["settings"] or {}
    if not isinstance(settings, Mapping):
        raise ValueError(f"settings must map keys of a config to values, such as {{'train.clip': 1}}, got {settings!r}")
    if "data.features" in settings:
        raise ValueError(f"settings has data.features; say features={settings['data.features']!r} instead")
    chosen = {place: params[key] for key, place in PLACES.items() if params.get(key) is not None}
    named = chosen.get("encoder.name", settings.get("encoder.name", "molecule_gin"))
    if molecules and str(named).startswith("molecule_") and not reads_molecules(load_config(name)):
        method = load_config(name).method.name
        if "graph" not in METHODS[method].levels:
            fitting = ", ".join(key for key, other in METHODS.items() if "graph" in other.levels)
            raise ValueError(f"config={str(name)!r}: method {method!r} embeds nodes; for SMILES take one of: {fitting}")
        usual = load_config(FOR_MOLECULES[0])
        encoder = {f"encoder.{key}": value for key, value in usual.encoder.model_dump().items()}
        values = encoder | {"readout": usual.readout} | values
    # JSON is YAML too
    overrides = [f"{key}={json.dumps(value, default=plain)}" for key, value in (values | {**settings} | chosen).items()]
    return load_config(name, overrides)


def reads_molecules(config: Config) -> bool:
    """Whether the config's encoder is one of molecules."""
    return config.encoder.name.startswith("molecule_")


def pretrain(estimator: Estimator, config: Config, data: Data | GraphStore, molecules: bool) -> Estimator:
    """The estimator, fitted on the graphs by the config."""
    if getattr(config.method, "variational", False):
        raise ValueError(
            "method.variational=true embeds by a head that estimators do not keep; use method.variational=false, or "
            "graphcl.build and graphcl.fit"
        )
    features = estimator.features or ("degree" if data.num_features == 0 else "given")
    scaled = config.data.normalize and features == "given" and not molecules  # categories have no scale
    data = featured(data, features, scaled)
    config = config.model_copy(update={"data": DataConfig(name="X", batch_size=config.data.batch_size)})
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        run = build(config, data)
        fit(run, progress=estimator.progress)
    graphs = isinstance(data, GraphStore)
    made = PretrainedConfig(
        encoder=config.encoder, in_dim=data.num_features, readout=config.readout if graphs else None
    )
    card = ModelCard(
        about=f"{config.encoder.name} pretrained by {config.method.name}, by graphcl.{type(estimator).__name__}",
        method=config.method.name,
        data=f"{len(data)} graphs" if graphs else f"one graph of {data.num_nodes} nodes",
        seed=config.train.seed,
    )
    readout = Readout(made.readout) if made.readout else None
    model = Pretrained(run.method.encoder, readout, made, card).cpu().eval()
    return fitted(estimator, model, features, scaled, molecules)


def loaded(estimator: Estimator, model: Pretrained, *, molecules: bool) -> Estimator:
    """The estimator with ready weights, which read features as they were trained on, unless it says others."""
    own = model.config
    features = estimator.features or (own.features if own.features in MADE else None)
    return fitted(estimator, model, features, own.normalize and features is None, molecules)


def fitted(estimator: Estimator, model: Pretrained, features: str | None, scaled: bool, molecules: bool) -> Estimator:
    """The estimator with what it has learned: the model, which features it reads, and whether it takes SMILES."""
    estimator.model_, estimator.features_, estimator.scaled_, estimator.molecules_ = model, features, scaled, molecules
    estimator.n_features_out_, estimator.attributes_ = model.encoder.out_dim, None
    return estimator


def pretrained_model(
    params: Mapping[str, Any], level: str, others: Sequence[str] = ("config", "settings", *TRAINING)
) -> Pretrained:
    """The weights named by `pretrained`, for graphs or nodes. Raises ValueError if one of `others` is given too."""
    given = [name for name in others if params.get(name) is not None]
    if given:
        raise ValueError(
            f"pretrained={str(params['pretrained'])!r} is an encoder as it is, but {', '.join(given)} "
            f"{'says' if len(given) == 1 else 'say'} how to make one; leave one or the other out"
        )
    model = load_pretrained(params["pretrained"])
    if (model.readout is None) == (level == "graph"):
        other = "node" if level == "graph" else "graph"
        raise ValueError(
            f"pretrained={str(params['pretrained'])!r} embeds {other}s; it is for the estimators of {other}s"
        )
    return model


def molecule_features(encoder: Any) -> str:
    """The features of atoms and bonds that an encoder's config reads."""
    return getattr(encoder, "features", "benchmark")


def embedded(estimator: Any, data: Data | GraphStore) -> NDArray[np.float32]:
    """Embeddings of the graphs, computed on the estimator's device."""
    if estimator.features_ == "given" and data.num_features == 0:
        raise ValueError(
            "the graphs of X have no node features, those of fit had; give them the same, or fit with features='degree'"
        )
    data = featured(data, estimator.features_, estimator.scaled_)
    return embed(estimator.model_, data, device=device_of(estimator.device)).numpy()


# --- saving -----------------------------------------------------------------------------------------------------------


def save(estimator: Any, folder: str | Path, more: Mapping[str, Any] | None = None) -> None:
    """Write what `save_pretrained` writes, in full precision, and estimator.json, with `more` in it."""
    check_is_fitted(estimator)
    model, folder = estimator.model_, Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already; save to a new folder")
    config = model.config
    save_pretrained(
        folder,
        model.encoder,
        config=config.encoder,
        readout=config.readout,
        card=model.card,
        in_dim=config.in_dim,
        features=estimator.features_ if estimator.features_ in MADE else config.features,
        normalize=estimator.scaled_,
        half=False,
    )
    values = {
        "estimator": type(estimator).__name__,
        "params": {key: value for key, value in estimator.get_params(deep=False).items() if key != "graph"},
        "features": estimator.features_,
        "scaled": estimator.scaled_,
        "molecules": estimator.molecules_,
        "attributes": estimator.attributes_,
        **(more or {}),
    }
    write_whole(folder / "estimator.json", json.dumps(values, indent=1, default=plain).encode() + b"\n")


def load(cls: type[Estimator], folder: str | Path) -> tuple[Estimator, dict[str, Any]]:
    """The estimator that `save` wrote, and all of estimator.json."""
    path = Path(folder) / "estimator.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        kind, params = values["estimator"], values["params"]
        if kind != cls.__name__:
            raise ValueError(f"it is a {kind}, not a {cls.__name__}; load it with {kind}.load")
        model = load_pretrained(folder)
        estimator = cls(**params)
        fitted(estimator, model, values["features"], bool(values["scaled"]), bool(values["molecules"]))
        estimator.attributes_ = values.get("attributes")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: no estimator of graphcl can be read there: {error!s:.300}") from None
    return estimator, values


def plain(value: Any) -> Any:
    """A number of numpy (searches give such) as Python's; anything else as text."""
    return value.item() if isinstance(value, np.generic) else str(value)
