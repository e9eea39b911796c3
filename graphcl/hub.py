"""Pretrained encoders as folders: a config, half-precision weights, a model card. Shipped ones load by name.

A folder is laid out as Hugging Face's hub has it: config.json, model.safetensors, README.md (the card, with its figures
as YAML in front). Nothing in it is code and nothing is unpickled.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
import yaml
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError
from torch import Tensor, nn
from torch_geometric.data import Data

from graphcl.builder import load_run, settings
from graphcl.checkpoint import CheckpointError, fill, make_folder, write_whole
from graphcl.config import Config, ConfigError, Encoder, Strict
from graphcl.encoders import ENCODERS, Readout
from graphcl.methods.method import Method
from graphcl.read_config import config_error, find_pretrained, load_config, pretrained_names, run_config


class ModelCard(Strict):
    """What a user must know of weights before trusting them."""

    about: str
    method: str
    data: str
    items: NonNegativeInt | None = None  # graphs seen, repeats counted; of a run steps x batch size, so at most
    hours: NonNegativeFloat | None = None
    precision: str | None = None
    seed: int | None = None
    commit: str | None = None
    license: str = "mit"
    scores: dict[str, float] = Field({}, description="by what they are, the protocol in the name")


class PretrainedConfig(Strict):
    """The content of config.json: all that is needed to make the encoder again."""

    format: Literal[1] = 1
    encoder: Encoder
    in_dim: PositiveInt | None = None  # width of x, where the encoder is made for one
    readout: Literal["sum", "mean", "max"] | None = None
    features: Literal["given", "ones", "degree", "onehot_degree", "ogb"] = "given"  # data.features, as it was trained
    normalize: bool = False  # data.normalize


class Frozen(Method):
    """An encoder, (data) -> [N, D], with or without a readout, as what `graphcl.embed` takes."""

    def __init__(self, encoder: Any, readout: nn.Module | None) -> None:
        super().__init__()
        self.encoder, self.readout = encoder, readout

    def encode(self, data: Data) -> Tensor:
        """Embeddings [B, D] of graphs, or [N, D] of nodes where there is no readout."""
        h = self.encoder(data)
        return h if self.readout is None else self.readout(h, data)


class Pretrained(Frozen):
    """A pretrained encoder, its PretrainedConfig and its ModelCard."""

    def __init__(self, encoder: Any, readout: nn.Module | None, config: PretrainedConfig, card: ModelCard) -> None:
        super().__init__(encoder, readout)
        self.config, self.card = config, card

    @property
    def features(self) -> str:
        """Which atom and bond features it reads: "benchmark" or "ogb"; "given" if it is none of molecules."""
        return getattr(self.config.encoder, "features", "benchmark" if self.reads_molecules else "given")

    @property
    def reads_molecules(self) -> bool:
        """Whether it takes molecules as graphcl reads them from SMILES."""
        return self.config.encoder.name.startswith("molecule_")


# --- reading ----------------------------------------------------------------------------------------------------------


def list_pretrained() -> dict[str, str]:
    """The weights that ship with the package: name -> what they are."""
    return {name: read_card(find_pretrained(name)).about for name in pretrained_names()}


def load_pretrained(name: str | Path) -> Pretrained:
    """A shipped name (`list_pretrained()`), a folder of `save_pretrained`, or a run folder of `graphcl pretrain`.

    In eval mode, on the CPU, in float32; needs no network and no data. Raises ValueError naming what is wrong and what
    there is.
    """
    folder = find_pretrained(name)
    model = _from_folder(folder) if (folder / "config.json").is_file() else _from_run(folder)
    return model.eval()


def read_card(folder: Path) -> ModelCard:
    """The model card in front of a folder's README.md."""
    path = folder / "README.md"
    try:
        _, front, _ = path.read_text(encoding="utf-8").split("---\n", 2)
        values = yaml.safe_load(front)
        return ModelCard.model_validate(values["graphcl"])
    except ValidationError as error:
        raise config_error(error, str(path), lambda place: list(ModelCard.model_fields)) from None
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: no model card of graphcl can be read there: {error!s:.200}") from None


def read_pretrained_config(folder: Path) -> PretrainedConfig:
    """The config.json of a folder."""
    path = folder / "config.json"
    try:
        return PretrainedConfig.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise config_error(error, str(path), lambda place: list(PretrainedConfig.model_fields)) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not readable as JSON: {error!s:.200}") from None


def _from_folder(folder: Path) -> Pretrained:
    config = read_pretrained_config(folder)
    encoder = make_encoder(config.encoder, config.in_dim, str(folder / "config.json"))
    weights = folder / "model.safetensors"
    fill(
        encoder,
        {name: value.float() if value.is_floating_point() else value for name, value in _tensors(weights)},
        str(weights),
    )
    return Pretrained(encoder, config.readout and Readout(config.readout), config, read_card(folder))


def _from_run(folder: Path) -> Pretrained:
    config = load_config(run_config(folder))
    if getattr(config.method, "variational", False):
        raise ConfigError(
            f"{folder}: method.variational=true embeds by a head that is no part of the encoder, so the encoder alone "
            "would give other embeddings; use `graphcl embed`, or pretrain with method.variational=false"
        )
    weights = folder / "model.safetensors"
    in_dim = None
    if ENCODERS[config.encoder.name].takes_in_dim:  # type: ignore[attr-defined]
        in_dim = environment_of(folder).get("num_features") or load_run(folder, split=False).data.num_features
    encoder = make_encoder(config.encoder, in_dim, str(folder))
    own = {name.removeprefix("encoder."): value for name, value in _tensors(weights) if name.startswith("encoder.")}
    fill(encoder, own, str(weights))
    pooling = None if environment_of(folder).get("level") == "node" else config.readout
    readout = pooling and Readout(pooling)
    made = PretrainedConfig(
        encoder=config.encoder,
        in_dim=in_dim,
        readout=pooling,
        features=config.data.features,
        normalize=config.data.normalize,
    )
    return Pretrained(encoder, readout, made, card_of_run(folder, config))


def card_of_run(folder: Path, config: Config) -> ModelCard:
    """What the files of a run folder say."""
    known = environment_of(folder)
    size = config.data.batch_size
    return ModelCard(
        about=f"{config.encoder.name} pretrained by {config.method.name} on {config.data.name}",
        method=config.method.name,
        data=config.data.name,
        items=round(known["steps"]) * size * config.train.accumulate if size and "steps" in known else None,
        hours=round(known["seconds"] / 3600, 3) if "seconds" in known else None,
        precision=config.train.precision,
        seed=config.train.seed,
        commit=known.get("commit"),
    )


def environment_of(folder: Path) -> dict[str, Any]:
    """What a run left in environment.json; nothing if that is not there. Raises ConfigError if it is damaged."""
    path = folder / "environment.json"
    if not path.is_file():
        return {}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: not readable as JSON: {error!s:.200}; delete it, a run is read without it"
        ) from None
    if not isinstance(known, dict) or not isinstance(known.get("num_features", 0), int):
        raise ConfigError(f"{path}: not what a run writes there; delete it, a run is read without it")
    return known


def make_encoder(config: Any, in_dim: int | None, where: str) -> Any:
    """The encoder of a config; in_dim: width of x where the encoder is made for one."""
    encoder: Any = ENCODERS[config.name]
    if encoder.takes_in_dim and in_dim is None:
        raise ConfigError(f"{where}: encoder {config.name!r} is made for features of one width; `in_dim` is missing")
    return encoder(in_dim, **settings(config)) if encoder.takes_in_dim else encoder(**settings(config))


def _tensors(path: Path) -> list[tuple[str, Tensor]]:
    if not path.is_file():
        raise CheckpointError(f"no weights at {path}; a run that did not end goes on with --resume")
    try:
        with safetensors.safe_open(path, "pt") as file:
            return [(name, file.get_tensor(name)) for name in file.keys()]  # noqa: SIM118, not a dict
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file ({error}); copy it again") from None


# --- writing ----------------------------------------------------------------------------------------------------------


def save_pretrained(
    folder: str | Path,
    encoder: nn.Module,
    *,
    config: Any,
    readout: str | None,
    card: ModelCard,
    in_dim: int | None = None,
    features: str = "given",
    normalize: bool = False,
    half: bool = True,
) -> Path:
    """Write config.json, model.safetensors and README.md. Returns the folder.

    config: the encoder's config model (`Config.encoder`).  features, normalize: those of the data that it was trained
    on (`data.features`, `data.normalize`).  half: parameters in float16, half the size; the running
    statistics of batch norms stay in float32. Raises ValueError if the folder holds something else, or a weight is not
    finite, or too large for float16.
    """
    folder = Path(folder)
    ours = {"config.json", "model.safetensors", "README.md"}
    if folder.exists() and not (folder.is_dir() and {path.name for path in folder.iterdir()} <= ours):
        raise CheckpointError(f"{folder} holds something else than a pretrained encoder; choose another folder")
    parameters = dict(encoder.named_parameters())
    tensors = {}
    for name, value in encoder.state_dict().items():
        kept = value.detach().cpu().to(torch.float16 if half and name in parameters else value.dtype)
        if kept.is_floating_point() and not bool(kept.isfinite().all()):
            raise CheckpointError(
                f"{name} holds values that are not finite{' in float16; save with half=False' * half}; nothing written"
            )
        tensors[name] = kept.clone().contiguous()
    values = {"encoder": config, "in_dim": in_dim, "readout": readout, "features": features, "normalize": normalize}
    made = PretrainedConfig.model_validate(values)
    make_folder(folder)
    write_whole(folder / "model.safetensors", safetensors.torch.save(tensors, {"format": "pt"}))
    write_whole(folder / "config.json", (json.dumps(made.model_dump(mode="json"), indent=1) + "\n").encode())
    write_card(folder, card)
    return folder


def write_card(folder: Path, card: ModelCard) -> None:
    """Write the model card of a folder that has its config.json, over an earlier one."""
    config = read_pretrained_config(folder)
    write_whole(folder / "README.md", _readme(folder.name, config, card).encode())


def _readme(name: str, config: PretrainedConfig, card: ModelCard) -> str:
    """The model card: figures as YAML in front, then the same for people."""
    front = {
        "library_name": "graphcl",
        "license": card.license,
        "tags": ["graph-neural-network", "self-supervised"],
        "graphcl": card.model_dump(mode="json", exclude_none=True),
    }
    rows = [
        ("encoder", ", ".join(f"{key} {value}" for key, value in settings(config.encoder).items())),
        ("readout", config.readout),
        ("method", card.method),
        ("data", card.data),
        ("graphs seen", None if card.items is None else f"{card.items:,}"),
        ("hours", card.hours),
        ("precision", card.precision),
        ("seed", card.seed),
        ("commit", card.commit),
        *card.scores.items(),
    ]
    table = "\n".join(f"| {key} | {value} |" for key, value in rows if value is not None)
    use = inspect.cleandoc(f"""
        ```python
        import graphcl

        model = graphcl.load_pretrained("{name}")
        ```
    """)
    head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=10_000)
    return f"---\n{head}---\n\n# {name}\n\n{card.about}\n\n| | |\n|---|---|\n{table}\n\n{use}\n"
