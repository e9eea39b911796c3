"""The one place that turns a Config into objects."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.data.data import BaseData

from augment import AUGMENTATIONS, Compose
from graphcl.checkpoint import load_weights, saved_shape
from graphcl.config import Config, ConfigError, Strict
from graphcl.data.features import MADE, prepared, with_features
from graphcl.data.loaders import Loader
from graphcl.data.sources import load_data
from graphcl.data.splits import Split, make_splits
from graphcl.data.store import GraphStore
from graphcl.encoders import ENCODERS, Readout
from graphcl.encoders.molecule_inputs import FEATURES
from graphcl.methods import METHODS
from graphcl.methods.attribute_masking import MASKED
from graphcl.methods.method import Method, View
from graphcl.read_config import load_config, run_config
from graphcl.state import Run

MASKS = ("train_mask", "val_mask", "test_mask")
HIDES = {  # settings of views that say what hidden rows become, and the attribute that has the rows
    "mask_attributes": {"category": "x"},
    "mask_edge_attributes": {"category": "edge_attr"},
    "mask_atoms": {"atom": "x", "bond": "edge_attr"},
}


def build(config: Config, data: Data | GraphStore | Sequence[Data] | None = None) -> Run:
    """Everything that a run needs, with weights drawn from `config.train.seed`.

    data: graphs at hand (one Data, a GraphStore or a list of Data) instead of the set that the config names;
    `data.features` and `data.normalize` apply to them too. Raises ConfigError where the parts do not fit.
    """
    data = prepare(config, data)
    check(config, data)
    check_batches(config, data)
    torch.manual_seed(config.train.seed)
    method = make_method(config, data)
    split = splits_of(config, data)
    if method.needs_labels and len(split) > 1:
        raise ConfigError(f"method '{config.method.name}' trains on labels, so it takes one split; use data.repeats=1")
    loader = Loader(
        data,
        config.data.batch_size,
        seed=config.train.seed,
        device=cuda_of(config),
        visible=split[0].train if method.needs_labels and split else None,
        rank=int(os.environ.get("RANK", "0")),
        world=int(os.environ.get("WORLD_SIZE", "1")),
    )
    return Run(config=config, data=data, split=split, method=method, loader=loader)


def load_run(folder: str | Path, overrides: Sequence[str] = (), *, split: bool = True) -> Run:
    """A finished run from its folder: config.yaml with `overrides` (key=value), the weights of model.safetensors.

    The data may be others than it was trained on (`data.name=...`). split=False makes no splits, to embed only.
    """
    folder = Path(folder)
    config = load_config(run_config(folder), overrides)
    data = prepare(config, None)
    check(config, data)
    trained = saved_shape(folder / "model.safetensors", "assigned")  # pcl: [M, items that it was trained on]
    method = make_method(config, data, num_items=trained[1] if trained else None)
    load_weights(folder / "model.safetensors", method)
    device = cuda_of(config)
    if device is not None:
        method.to(device)
    splits = splits_of(config, data) if split else []
    loader = Loader(data, config.data.batch_size, shuffle=False, device=device)
    return Run(config=config, data=data, split=splits, method=method, loader=loader)


def prepare(config: Config, data: Data | GraphStore | Sequence[Data] | None) -> Data | GraphStore:
    """The graphs, read or at hand, checked, with the features that the config asks for."""
    if data is None:
        asked = config.data.model_dump(include={"name", "features", "normalize", "smiles", "targets", "ids"})
        return load_data(**asked)
    if isinstance(data, GraphStore):
        data.check()
    elif isinstance(data, Data):
        check_graph(data)
    elif isinstance(data, BaseData):
        raise ValueError(f"data is a {type(data).__name__}, graphs of one kind of node and edge are asked for")
    else:
        data = GraphStore.from_graphs(data)
    if (
        data.x is not None
        and data.num_features
        and config.data.features in MADE
        and not torch.equal(data.x.float(), with_features(data, config.data.features).x.float())  # not yet replaced
    ):
        warnings.warn(
            f"data.features={config.data.features} replaces the {data.num_features} features of the nodes; "
            "data.features=given trains on them",
            stacklevel=3,
        )
    return prepared(data, config.data.features, config.data.normalize)


def splits_of(config: Config, data: Data | GraphStore) -> list[Split]:
    """The splits that the config asks for; none where there are no labels, or values instead of classes."""
    y = data.y
    if y is None or (y.is_floating_point() and bool(((y != 0) & (y != 1) & ~y.isnan()).any())):
        return []
    asked = config.data
    return make_splits(
        data,
        asked.split,
        seed=config.train.seed,
        repeats=asked.repeats,
        per_class=asked.per_class,
        rate=asked.rate,
        ratios=asked.ratios,
    )


def cuda_of(config: Config) -> torch.device | None:
    """The CUDA device, if the run uses one alone: there batches are gathered and nothing travels at each step."""
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    return torch.device("cuda") if alone and config.train.device != "cpu" and torch.cuda.is_available() else None


def check_graph(data: Data) -> None:
    """Refuse a graph at hand whose features are not finite or whose edges lead out of it, before it trains nonsense."""
    for name in ("x", "edge_index", "edge_attr", "edge_weight", "y", *MASKS):
        if data.get(name) is not None and not isinstance(data[name], Tensor):
            raise ValueError(
                f"data.{name} is a {type(data[name]).__name__}; make it a tensor, such as torch.as_tensor(...)"
            )
    if not data.num_nodes:
        raise ValueError("data has no nodes; where it has no x either, give num_nodes")
    if data.x is not None and (data.x.dim() != 2 or not bool(data.x.isfinite().all())):
        if data.x.dim() != 2:
            raise ValueError(f"data.x must be [N, F], got {tuple(data.x.shape)}; one number a node is x.unsqueeze(1)")
        row, column = (~data.x.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"data.x[{row}, {column}] is {data.x[row, column].item()}; features must be finite")
    if data.edge_index is None:
        raise ValueError("data has no edge_index; give edges as [2, E], [2, 0] where there are none")
    if data.edge_index.dtype != torch.long or data.edge_index.dim() != 2 or data.edge_index.size(0) != 2:
        raise ValueError(
            f"data.edge_index must be int64 [2, E], got {data.edge_index.dtype} {tuple(data.edge_index.shape)}"
        )
    for name in ("edge_attr", "edge_weight"):
        values = data.get(name)
        if values is not None and len(values) != data.num_edges:
            raise ValueError(f"data.{name} has {len(values)} rows for {data.num_edges} edges; give one an edge")
    weight = data.get("edge_weight")
    if weight is not None and not bool(weight.isfinite().all()):
        edge = int((~weight.isfinite()).nonzero()[0, 0])
        raise ValueError(f"data.edge_weight[{edge}] is {weight[edge].item()}; weights must be finite")
    for name in MASKS:
        mask = data.get(name)
        if mask is not None and len(mask) != data.num_nodes:
            raise ValueError(
                f"data.{name} has {len(mask)} rows for {data.num_nodes} nodes; give bool [N], or [N, splits]"
            )
    if data.y is not None and len(data.y) != data.num_nodes:
        raise ValueError(f"data.y has {len(data.y)} labels for {data.num_nodes} nodes; give one each, -1 where unknown")
    outside = (data.edge_index < 0) | (data.edge_index >= data.num_nodes)
    if bool(outside.any()):
        edge = int(outside.any(0).nonzero()[0])
        raise ValueError(
            f"data.edge_index[:, {edge}] is {data.edge_index[:, edge].tolist()}, "
            f"but nodes are numbered 0 to {data.num_nodes - 1}"
        )


def check(config: Config, data: Data | GraphStore) -> None:
    """Refuse a method or an encoder that does not fit the data."""
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
    weight = data.get("edge_weight") if isinstance(data, Data) else None
    if weight is not None and config.encoder.name in ("gcn", "sage", "resgcn") and bool((weight < 0).any()):
        edge = int((weight < 0).nonzero()[0, 0])
        raise ConfigError(
            f"data.edge_weight[{edge}] is {weight[edge].item()}; encoder '{config.encoder.name}' divides by sums of "
            "weights, which must be at least 0; encoder.name=gin takes negative ones"
        )
    if weight is not None and "_diffusion'" in repr(config.views) and bool((weight < 0).any()):
        raise ConfigError("data.edge_weight has negative weights, which a diffusion cannot spread; take other views")
    if data.x is None or data.num_features == 0:
        raise ConfigError("the graphs have no node features (x); set data.features=degree, onehot_degree or ones")


def check_batches(config: Config, data: Data | GraphStore) -> None:
    """Refuse batches that a method cannot train on."""
    name, method = config.method.name, METHODS[config.method.name]
    level, items = ("graph", len(data)) if isinstance(data, GraphStore) else ("node", data.num_nodes)
    if method.contrasts_batch and items < 2:
        raise ConfigError(
            f"method '{name}' contrasts graphs with each other, but there is one only; give more graphs, or embed its "
            "nodes: as one Data, or one file, by a config such as dgi"
        )
    if method.contrasts_batch and config.data.batch_size == 1:
        raise ConfigError(
            f"method '{name}' contrasts the graphs of a batch with each other, but a batch has one graph "
            "(data.batch_size=1); use data.batch_size >= 2"
        )
    queue = getattr(config.method, "queue", 0)
    if queue > items:
        raise ConfigError(
            f"method.queue={queue} is longer than the data set ({items} {level}s), so it would hold items twice; "
            f"use method.queue <= {items}"
        )


def make_method(config: Config, data: Data | GraphStore, num_items: int | None = None) -> Method:
    """The method with its parts; its constructor names the parts that it takes. num_items: of its training data."""
    method = METHODS[config.method.name]
    takes = inspect.signature(method).parameters
    graphs = isinstance(data, GraphStore)
    views = [make_view(view, getattr(config.encoder, "features", None)) for view in config.views]
    parts: dict[str, Any] = {
        "encoder": make_encoder(config.encoder, data),
        "readout": Readout(config.readout) if graphs and config.readout else None,
        "num_items": num_items or (len(data) if graphs else data.num_nodes),
        **dict(zip(("view",) if len(views) == 1 else ("view1", "view2"), views, strict=False)),
    }
    if "view_encoder" in takes:
        parts["view_encoder"] = make_encoder(config.encoder, data)
    if "context_encoder" in takes:
        layers = {"layers": config.method.context_size}  # type: ignore[union-attr]
        parts["context_encoder"] = make_encoder(config.encoder.model_copy(update=layers), data)
    return method(**{name: part for name, part in parts.items() if name in takes}, **settings(config.method))


def make_encoder(config: Strict, data: Data | GraphStore) -> nn.Module:
    """The encoder for the data's features."""
    encoder: Any = ENCODERS[config.name]  # type: ignore[attr-defined]
    return encoder(data.num_features, **settings(config)) if encoder.takes_in_dim else encoder(**settings(config))


def make_view(transforms: tuple[Strict, ...], features: str | None = None) -> View:
    """One view from its transforms.  features: the columns that a molecule encoder reads."""
    made = []
    for config in transforms:
        values = settings(config)
        if "views" in values:  # OneOf
            values["views"] = [make_view((choice,), features) for choice in config.views]  # type: ignore[attr-defined]
        for key, name in HIDES.get(config.name, {}).items():  # type: ignore[attr-defined]
            if features is not None:
                values[key] = reserved(values[key], name, features)
        made.append(AUGMENTATIONS[config.name](**values))  # type: ignore[attr-defined]
    return made[0] if len(made) == 1 else Compose(made)


def reserved(category: Any, name: str, features: str) -> Any:
    """The masked atom (119) or bond (5), of the attribute `name`, as the encoder has it in each column of `features`.

    Alone or with the 0 of the 2 + 2 features it becomes one id for each column; another category stays.
    """
    columns = FEATURES[features].atoms if name == "x" else FEATURES[features].bonds
    ids = MASKED[name][len(columns)]
    return ids if category in (ids[0], (ids[0], 0)) else category


def settings(config: Strict) -> dict[str, Any]:
    """The model's fields as constructor arguments."""
    return config.model_dump(exclude={"name"})
