"""The one place that turns a Config into objects."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch_geometric.data import Data

from augment import AUGMENTATIONS, Compose
from graphcl.checkpoint import load_weights
from graphcl.config import Config, ConfigError, Strict
from graphcl.data.loaders import Loader
from graphcl.data.sources import load_data
from graphcl.data.splits import Split, make_splits
from graphcl.data.store import GraphStore
from graphcl.encoders import ENCODERS, Readout
from graphcl.methods import METHODS
from graphcl.methods.method import Method, View
from graphcl.read_config import load_config
from graphcl.trainer import Run


def build(config: Config, data: Data | GraphStore | None = None) -> Run:
    """Everything that a run needs, with weights drawn from `config.train.seed`.

    data: graphs at hand instead of the data set that the config names. Raises ConfigError where the parts do not fit.
    """
    if data is None:
        data = load_data(config.data.name, features=config.data.features, normalize=config.data.normalize)
    elif isinstance(data, Data):
        check_graph(data)
    check(config, data)
    torch.manual_seed(config.train.seed)
    method = make_method(config, data)
    split: list[Split] = []
    if data.y is not None:
        split = make_splits(
            data,
            config.data.split,
            seed=config.train.seed,
            repeats=config.data.repeats,
            per_class=config.data.per_class,
        )
    loader = Loader(
        data,
        config.data.batch_size,
        seed=config.train.seed,
        visible=split[0].train if method.needs_labels and split else None,
        rank=int(os.environ.get("RANK", "0")),
        world=int(os.environ.get("WORLD_SIZE", "1")),
    )
    return Run(config=config, data=data, split=split, method=method, loader=loader)


def load_run(folder: str | Path, overrides: tuple[str, ...] = ()) -> Run:
    """A finished run from its folder: config.yaml built, model.safetensors loaded; `overrides` are key=value."""
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        raise ConfigError(
            f"{folder} is not a run folder: it has no config.yaml; give the folder that `graphcl pretrain` made"
        )
    run = build(load_config(folder / "config.yaml", overrides))
    load_weights(folder / "model.safetensors", run.method)
    return run


def check_graph(data: Data) -> None:
    """Refuse a graph at hand whose features are not finite or whose edges lead out of it, before it trains nonsense."""
    if data.x is not None and not bool(data.x.isfinite().all()):
        row, column = (~data.x.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"data.x[{row}, {column}] is {data.x[row, column].item()}; features must be finite")
    if data.edge_index is None:
        raise ValueError("data has no edge_index; give edges as [2, E], [2, 0] where there are none")
    outside = (data.edge_index < 0) | (data.edge_index >= data.num_nodes)
    if bool(outside.any()):
        edge = int(outside.any(0).nonzero()[0])
        raise ValueError(
            f"data.edge_index[:, {edge}] is {data.edge_index[:, edge].tolist()}, "
            f"but nodes are numbered 0 to {data.num_nodes - 1}"
        )


def check(config: Config, data: Data | GraphStore) -> None:
    """Refuse a method, encoder or batch that does not fit the data."""
    name, method = config.method.name, METHODS[config.method.name]
    graphs = isinstance(data, GraphStore)
    level, items = ("graph", len(data)) if graphs else ("node", data.num_nodes)
    if level not in method.levels:
        fitting = ", ".join(key for key, other in METHODS.items() if level in other.levels)
        have = f"{items} graphs" if graphs else f"one graph of {items} nodes"
        raise ConfigError(
            f"method '{name}' embeds {' and '.join(method.levels)}s, the data is {have}; methods for it: {fitting}"
        )
    if graphs and config.readout is None:
        raise ConfigError(f"the data is {items} graphs, but `readout` is missing; set readout=sum, mean or max")
    if data.x is None or data.num_features == 0:
        raise ConfigError("the graphs have no node features (x); set data.features=degree, onehot_degree or ones")
    if method.contrasts_batch and min(items, config.data.batch_size or items) < 2:
        raise ConfigError(
            f"method '{name}' contrasts the graphs of a batch with each other, but a batch has one graph "
            f"(data.batch_size={config.data.batch_size}, {items} graphs in the data); use data.batch_size >= 2"
        )
    queue = getattr(config.method, "queue", 0)
    if queue > items:
        raise ConfigError(
            f"method.queue={queue} is longer than the data set ({items} {level}s), so it would hold items twice; "
            f"use method.queue <= {items}"
        )


def make_method(config: Config, data: Data | GraphStore) -> Method:
    """The method with its parts; its constructor names the parts that it takes."""
    method = METHODS[config.method.name]
    takes = inspect.signature(method).parameters
    graphs = isinstance(data, GraphStore)
    views = [make_view(view) for view in config.views]
    parts: dict[str, Any] = {
        "encoder": make_encoder(config.encoder, data),
        "readout": Readout(config.readout) if graphs and config.readout else None,
        "num_items": len(data) if graphs else data.num_nodes,
        **dict(zip(("view",) if len(views) == 1 else ("view1", "view2"), views, strict=False)),
    }
    if "view_encoder" in takes:
        parts["view_encoder"] = make_encoder(config.encoder, data)
    return method(**{name: part for name, part in parts.items() if name in takes}, **settings(config.method))


def make_encoder(config: Strict, data: Data | GraphStore) -> nn.Module:
    """The encoder for the data's features."""
    encoder: Any = ENCODERS[config.name]  # type: ignore[attr-defined]
    return encoder(data.num_features, **settings(config)) if encoder.takes_in_dim else encoder(**settings(config))


def make_view(transforms: tuple[Strict, ...]) -> View:
    """One view from its transforms."""
    made = []
    for config in transforms:
        values = settings(config)
        if "views" in values:  # OneOf
            values["views"] = [make_view((choice,)) for choice in config.views]  # type: ignore[attr-defined]
        made.append(AUGMENTATIONS[config.name](**values))  # type: ignore[attr-defined]
    return made[0] if len(made) == 1 else Compose(made)


def settings(config: Strict) -> dict[str, Any]:
    """The model's fields as constructor arguments."""
    return config.model_dump(exclude={"name"})
