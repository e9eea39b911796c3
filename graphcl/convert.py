"""Weights of the pretrain-gnns family (`.pth` state dicts of their GNN) as encoders of ours.

Paper:   Hu et al., 2020, "Strategies for Pre-training Graph Neural Networks", arXiv:1905.12265; GraphCL, SimGRACE,
         GraphLoG, GraphMAE and others publish weights of the same shape
Differs: no GAT: the original's attention sums to 1 over the edges that leave an atom, ours over those that come in, so
         the same weights would give other embeddings.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graphcl import config_encoders
from graphcl.encoders.molecule import MoleculeGCN, MoleculeGIN, MoleculeSAGE

_CLASSES = {
    "gin": (MoleculeGIN, config_encoders.MoleculeGIN),
    "gcn": (MoleculeGCN, config_encoders.MoleculeGCN),
    "graphsage": (MoleculeSAGE, config_encoders.MoleculeSAGE),
}
_FIRST = "x_embedding1.weight"
# Theirs -> ours, {} being the number of the layer.
_NAMES = {_FIRST: "atom.weight", "x_embedding2.weight": "chirality.weight"}
_LAYER_NAMES = {
    "gnns.{}.edge_embedding1.weight": "layers.{}.conv.bond.weight",
    "gnns.{}.edge_embedding2.weight": "layers.{}.conv.direction.weight",
} | {
    f"batch_norms.{{}}.{part}": f"layers.{{}}.finish.0.module.{part}"
    for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
}
_CONV_NAMES = {
    "gin": {"mlp.0": "nn.0", "mlp.2": "nn.2"},
    "gcn": {"linear": "linear"},
    "graphsage": {"linear": "linear"},
}


def convert_pretrain_gnns(path: str | Path, *, gnn: str = "gin") -> tuple[torch.nn.Module, Any]:
    """The encoder with the weights of the file, and its config model; jk is last, dropout 0.

    gnn: "gin", "gcn" or "graphsage"; the latter two have the same tensors, so the file cannot tell which it is. Layers
    and width are those of the file. The names may have a prefix (`gnn.`, `module.`); heads beside the GNN are left out.
    Raises ValueError if the file is no state dict of plain tensors, or tensors are missing, too many, or of another
    shape than the benchmark's (120 atom types, 3 chiralities, 6 bond types, 3 directions), or not finite.
    """
    if gnn == "gat":
        raise ValueError(
            "weights of a gat are not converted: its attention sums to 1 over the edges that leave an atom, here over "
            "those that come in, so the embeddings would be others; known: gin, gcn, graphsage"
        )
    if gnn not in _CLASSES:
        raise ValueError(f"unknown gnn {gnn!r}; known: {', '.join(_CLASSES)}")
    path = Path(path)
    theirs = _without_prefix(_load(path), path)
    layers = _layers(theirs, path)
    names = dict(_NAMES)
    for i in range(layers):
        names |= {old.format(i): new.format(i) for old, new in _LAYER_NAMES.items()}
        for old, new in _CONV_NAMES[gnn].items():
            names |= {f"gnns.{i}.{old}.{part}": f"layers.{i}.conv.{new}.{part}" for part in ("weight", "bias")}
    if missing := sorted(names.keys() - theirs.keys()):
        raise ValueError(f"{path}: no {_listed(missing)}, which a {gnn} of {layers} layers has; is it another gnn?")
    if unknown := sorted(theirs.keys() - names.keys()):
        raise ValueError(f"{path}: {_listed(unknown)} is not part of a {gnn} of the benchmark; is it another gnn?")

    make, model = _CLASSES[gnn]
    if theirs[_FIRST].dim() != 2 or theirs[_FIRST].size(1) == 0:
        raise ValueError(f"{path}: {_FIRST} is {list(theirs[_FIRST].shape)}, expected [120, width]")
    width = theirs[_FIRST].size(1)
    encoder = make(width, layers=layers)
    wanted = encoder.state_dict()
    for old, new in names.items():
        value = theirs[old]
        if value.shape != wanted[new].shape:
            raise ValueError(
                f"{path}: {old} is {list(value.shape)}, a {gnn} of width {width} with the benchmark's features has "
                f"{list(wanted[new].shape)}"
            )
        if value.is_floating_point() != wanted[new].is_floating_point() or not bool(value.isfinite().all()):
            raise ValueError(f"{path}: {old} ({value.dtype}) has values that are not finite numbers of the right kind")
    # Over its own, as PyG's GINConv keeps an eps, of 0, that the original lacks.
    encoder.to(theirs[_FIRST].dtype).load_state_dict(wanted | {new: theirs[old] for old, new in names.items()})
    return encoder, model(name=f"molecule_{gnn.removeprefix('graph')}", hidden=width, layers=layers)


def _load(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))  # of torch's text no more, as it advises to open the file
        named = f" ({found[1]:.100})" if found else ""
        raise ValueError(
            f"{path}: holds more than tensors{named}, or is no file of torch.save; such a file could run code and is "
            "not opened; save model.state_dict() where you trust the file"
        ) from None
    except Exception as error:  # torch raises whatever a damaged file makes it raise
        raise ValueError(f"{path}: not readable as a .pth file ({type(error).__name__}: {error!s:.200})") from None
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ValueError(f"{path}: holds a {type(state).__name__}, not a state dict (names -> tensors)")
    for key, value in state.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
            kind = type(value).__name__ if not isinstance(value, Tensor) else f"{value.layout} {value.dtype}"
            raise ValueError(f"{path}: {key!r} is a {kind}, not a plain tensor; save the state dict of the GNN alone")
    return state


def _without_prefix(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The GNN's tensors by their own names."""
    prefixes = [key.removesuffix(_FIRST) for key in state if key == _FIRST or key.endswith(f".{_FIRST}")]
    if len(prefixes) != 1:
        raise ValueError(
            f"{path}: {len(prefixes)} tensors are called {_FIRST} (the atom embeddings), one is needed; the file has "
            f"{_listed(sorted(state)) or 'nothing'}"
        )
    own = re.compile(re.escape(prefixes[0]) + r"((?:x_embedding|gnns\.|batch_norms\.).*)")
    return {match[1]: value for key, value in state.items() if (match := own.fullmatch(key))}


def _layers(state: dict[str, Tensor], path: Path) -> int:
    found = {int(match[1]) for key in state if (match := re.match(r"(?:gnns|batch_norms)\.(\d{1,9})\.", key))}
    if found != set(range(len(found))) or not found:
        raise ValueError(f"{path}: the layers have the numbers {sorted(found)}, they must go from 0 without a gap")
    return len(found)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
