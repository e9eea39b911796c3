"""The configuration: YAML and `key=value` overrides into typed, frozen models. Imports neither torch nor the rest.

One model a method, an encoder and a view; the fields are the arguments of the class of the same name, with the same
defaults (tests/test_config.py compares the two). `Config.dump()` is complete: what it prints trains the same again.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

MAX_DEPTH = 40  # nesting that a config may have; deeper files are refused before they exhaust the stack

Rate = Annotated[float, Field(ge=0, le=1)]
Momentum = Annotated[float, Field(ge=0, le=1)]


class ConfigError(ValueError):
    """A mistake in a config or an override; the message names the place, the value and the way out."""


class Strict(BaseModel):
    """Frozen, and refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


# --- views ------------------------------------------------------------------------------------------------------------


class Identity(Strict):
    """The graph as it is."""

    name: Literal["identity"]


class DropNodes(Strict):
    """Remove `round(rate * n)` nodes of every graph, with their edges (GraphCL)."""

    name: Literal["drop_nodes"]
    rate: Rate = 0.1


class PerturbEdges(Strict):
    """Drop a share of the edges of every graph and add a share of new ones inside it (GraphCL, GRACE)."""

    name: Literal["perturb_edges"]
    drop: Rate = 0.1
    add: Rate = 0.0
    exact: bool = True


class Subgraph(Strict):
    """Keep the nodes that a random walk visits, `round(keep * n)` of every graph (GraphCL)."""

    name: Literal["subgraph"]
    keep: Rate = 0.8


class MaskAttributes(Strict):
    """Hide the features of `round(rate * n)` nodes of every graph (GraphCL)."""

    name: Literal["mask_attributes"]
    rate: Rate = 0.1
    mode: Literal["category", "token", "mean", "zero", "gaussian"] = "token"
    category: int | tuple[int, ...] | None = None


class DropFeatures(Strict):
    """Set feature columns (or single entries) to zero, each with probability `rate` (GRACE)."""

    name: Literal["drop_features"]
    rate: Rate = 0.1
    mode: Literal["column", "entry"] = "column"


class MaskEdgeAttributes(Strict):
    """Hide the features of `round(rate * e)` edges of every graph, both directions alike."""

    name: Literal["mask_edge_attributes"]
    rate: Rate = 0.1
    mode: Literal["category", "zero"] = "zero"
    category: int | tuple[int, ...] | None = None


class ShuffleNodes(Strict):
    """Permute the feature rows inside every graph; the edges stay (DGI's corruption)."""

    name: Literal["shuffle_nodes"]


class PPRDiffusion(Strict):
    """Replace the edges by a sparse personalised-PageRank diffusion with weights (MVGRL)."""

    name: Literal["ppr_diffusion"]
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.2
    eps: PositiveFloat = 1e-3
    top_k: PositiveInt | None = None


class HeatDiffusion(Strict):
    """Replace the edges by a sparse heat-kernel diffusion with weights (MVGRL)."""

    name: Literal["heat_diffusion"]
    t: PositiveFloat = 5.0
    eps: PositiveFloat = 1e-3
    top_k: PositiveInt | None = None


class AdaptiveDropEdges(Strict):
    """Drop edges, unimportant ones (by the centrality of their ends) more often (GCA)."""

    name: Literal["adaptive_drop_edges"]
    rate: Rate = 0.3
    centrality: Literal["degree", "pagerank", "eigenvector"] = "degree"
    threshold: Rate = 0.7


class AdaptiveMaskFeatures(Strict):
    """Zero feature columns, those of unimportant nodes more often (GCA)."""

    name: Literal["adaptive_mask_features"]
    rate: Rate = 0.3
    centrality: Literal["degree", "pagerank", "eigenvector"] = "degree"
    threshold: Rate = 0.7


class OneOf(Strict):
    """One of several views for each graph, drawn at random (GraphCL's random2, random3, random4)."""

    name: Literal["one_of"]
    views: Annotated[tuple[View, ...], Field(min_length=1)]


View = Annotated[
    Identity
    | DropNodes
    | PerturbEdges
    | Subgraph
    | MaskAttributes
    | DropFeatures
    | MaskEdgeAttributes
    | ShuffleNodes
    | PPRDiffusion
    | HeatDiffusion
    | AdaptiveDropEdges
    | AdaptiveMaskFeatures
    | OneOf,
    Field(discriminator="name"),
]
OneOf.model_rebuild()


# --- encoders ---------------------------------------------------------------------------------------------------------


class GIN(Strict):
    """Graph isomorphism network; `jk: cat` with `readout: sum` is the encoder of unsupervised GraphCL."""

    name: Literal["gin"]
    hidden: PositiveInt = 32
    layers: PositiveInt = 3
    jk: Literal["last", "cat"] = "cat"
    batch_norm: bool = True
    dropout: Rate = 0.0


class GCN(Strict):
    """Graph convolutional network."""

    name: Literal["gcn"]
    hidden: PositiveInt = 256
    out: PositiveInt | None = None
    layers: PositiveInt = 2
    activation: Literal["relu", "prelu"] = "relu"
    batch_norm: bool = False
    dropout: Rate = 0.0
    jk: Literal["last", "cat"] = "last"


class SAGE(Strict):
    """GraphSAGE with mean aggregation."""

    name: Literal["sage"]
    hidden: PositiveInt = 256
    out: PositiveInt | None = None
    layers: PositiveInt = 2
    activation: Literal["relu", "prelu"] = "relu"
    batch_norm: bool = False
    dropout: Rate = 0.0
    jk: Literal["last", "cat"] = "last"


class GAT(Strict):
    """Graph attention network; `hidden` is the width of all heads together."""

    name: Literal["gat"]
    hidden: PositiveInt = 256
    out: PositiveInt | None = None
    layers: PositiveInt = 2
    heads: PositiveInt = 4
    activation: Literal["relu", "prelu"] = "prelu"
    batch_norm: bool = False
    dropout: Rate = 0.0
    jk: Literal["last", "cat"] = "last"


class ResGCN(Strict):
    """Residual GCN of semi-supervised GraphCL: batch norm and linear layer on the features, then BN-ReLU-conv blocks."""

    name: Literal["resgcn"]
    hidden: PositiveInt = 128
    layers: PositiveInt = 3


class MoleculeGIN(Strict):
    """GIN with atom and bond embeddings, the shape of the pretrain-gnns and GraphCL molecule benchmark."""

    name: Literal["molecule_gin"]
    hidden: PositiveInt = 300
    layers: PositiveInt = 5
    jk: Literal["last", "cat"] = "last"
    dropout: Rate = 0.0


Encoder = Annotated[GIN | GCN | SAGE | GAT | ResGCN | MoleculeGIN, Field(discriminator="name")]


# --- methods ----------------------------------------------------------------------------------------------------------


class GraphCL(Strict):
    """Contrast the graphs of a batch in two views (You et al., 2020)."""

    views: ClassVar[int] = 2
    name: Literal["graphcl"]
    proj_dim: PositiveInt | None = None
    tau: PositiveFloat = 0.2
    objective: Literal["infonce", "ntxent", "graphcl_code"] = "infonce"


class MoCo(Strict):
    """Contrast queries with a queue of keys from a momentum encoder (He et al., 2020), for graphs or nodes."""

    views: ClassVar[int] = 2
    name: Literal["moco"]
    proj_dim: PositiveInt = 128
    queue: PositiveInt = 1024
    momentum: Momentum = 0.999
    tau: PositiveFloat = 0.07


class GRACE(Strict):
    """Contrast the nodes of two corrupted views of one graph (Zhu et al., 2020)."""

    views: ClassVar[int] = 2
    name: Literal["grace"]
    proj_dim: PositiveInt = 128
    tau: PositiveFloat = 0.4


class BGRL(Strict):
    """Predict a momentum encoder's nodes of another view, without negatives (Thakoor et al., 2022)."""

    views: ClassVar[int] = 2
    name: Literal["bgrl"]
    pred_hidden: PositiveInt = 512
    momentum: Momentum = 0.99


class DGI(Strict):
    """Tell nodes of the graph from nodes of a corrupted one, given the graph's summary (Velickovic et al., 2019)."""

    views: ClassVar[int] = 1
    name: Literal["dgi"]


class InfoGraph(Strict):
    """Match nodes with their own graph's embedding against other graphs' (Sun et al., 2020)."""

    views: ClassVar[int] = 0
    name: Literal["infograph"]
    proj_dim: PositiveInt | None = None


class GAE(Strict):
    """Reconstruct the edges from the inner products of node embeddings (Kipf and Welling, 2016)."""

    views: ClassVar[int] = 0
    name: Literal["gae"]
    variational: bool = False


class PCL(Strict):
    """InfoNCE plus contrast with cluster prototypes found by k-means each epoch (Li et al., 2021)."""

    views: ClassVar[int] = 2
    name: Literal["pcl"]
    proj_dim: PositiveInt = 128
    clusters: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)] = (10, 20, 40)
    warmup_epochs: NonNegativeInt = 5
    queue: PositiveInt = 1024
    momentum: Momentum = 0.999
    tau: PositiveFloat = 0.2


class ADGCL(Strict):
    """Learn to drop edges so that the encoder's agreement is least, min-max (Suresh et al., 2021)."""

    views: ClassVar[int] = 0
    name: Literal["adgcl"]
    proj_dim: PositiveInt | None = None
    tau: PositiveFloat = 0.2
    reg: NonNegativeFloat = 5.0
    view_hidden: PositiveInt = 64


MethodConfig = Annotated[
    GraphCL | MoCo | GRACE | BGRL | DGI | InfoGraph | GAE | PCL | ADGCL,
    Field(discriminator="name"),
]


# --- the rest ---------------------------------------------------------------------------------------------------------


class DataConfig(Strict):
    """Which data, and how it is read and split."""

    name: str
    batch_size: PositiveInt | None = Field(None, description="graphs a batch; none: everything in one batch")
    features: Literal["given", "ones", "degree", "onehot_degree"] = "given"
    normalize: bool = Field(False, description="scale every node's features to sum 1")
    split: Literal["public", "random", "few", "scaffold", "kfold"] = "public"
    repeats: PositiveInt = Field(1, description="splits drawn (random, few) or folds (kfold)")
    per_class: PositiveInt = Field(20, description="training labels a class under split: few")


class TrainConfig(Strict):
    """The loop."""

    epochs: PositiveInt = 200
    max_steps: PositiveInt | None = Field(None, description="stop after this many optimizer steps")
    lr: PositiveFloat = 1e-3
    group_lr: dict[str, PositiveFloat] = Field({}, description="learning rate of a named parameter group (adgcl: views)")
    weight_decay: NonNegativeFloat = 0.0
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: NonNegativeInt = Field(0, description="steps over which the learning rate grows linearly from 0")
    accumulate: PositiveInt = Field(1, description="batches whose gradients are added before a step")
    clip: PositiveFloat | None = Field(None, description="largest gradient norm")
    precision: Literal["32", "bf16-mixed", "16-mixed"] = "32"
    compile: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: NonNegativeInt = 0

    @field_validator("precision", mode="before")
    @classmethod
    def _precision_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class EvaluateConfig(Strict):
    """How the frozen embeddings are scored."""

    probe: Literal["linear", "knn"] = "linear"
    metric: Literal["accuracy", "roc_auc"] = "accuracy"


class RunConfig(Strict):
    """What the run leaves behind."""

    dir: str | None = Field(None, description="folder of the run; none: runs/<name>")
    checkpoint_every: PositiveInt = Field(100, description="optimizer steps between checkpoints")
    keep: PositiveInt = Field(2, description="checkpoints kept")
    log_every: PositiveInt = Field(10, description="optimizer steps between writes of metrics.jsonl")
    tensorboard: bool = False


class Config(Strict):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    data: DataConfig
    encoder: Encoder
    readout: Literal["sum", "mean", "max"] | None = None
    method: MethodConfig
    views: tuple[tuple[View, ...], ...] = ()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _as_many_views_as_the_method_takes(self) -> Config:
        if len(self.views) != self.method.views:
            raise ValueError(
                f"method '{self.method.name}' takes {self.method.views} views, got {len(self.views)}; "
                "`views` is a list of views, each a list of transforms (see `graphcl augmentations`)"
            )
        return self

    def dump(self) -> str:
        """YAML of every value, defaults included."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


# --- reading ----------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """yaml.SafeLoader that refuses a key given twice, aliases, and nesting beyond MAX_DEPTH."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ConfigError(f"line {self.peek_event().start_mark.line + 1}: YAML aliases (*name) are not used in configs")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ConfigError(f"nested more than {MAX_DEPTH} levels deep; a config needs about six")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise ConfigError(f"line {key_node.start_mark.line + 1}: key {key!r} is not text")
            if key in seen:
                raise ConfigError(f"line {key_node.start_mark.line + 1}: key {key!r} was given already in line {seen[key]}")
            seen[key] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep=deep)


def read_yaml(text: str, where: str) -> Any:
    """Parse YAML as data. Refuses Python tags, keys given twice, aliases and bottomless nesting; names `where`."""
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        message = re.sub(r"\s+", " ", str(error)).replace('in "<unicode string>", ', "")
        raise ConfigError(f"{where}: not readable as YAML: {message}") from None


def config_folder() -> Path:
    """Where the shipped configs lie: inside the package when installed, beside it in a checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def config_names() -> list[str]:
    """Names of the shipped configs."""
    return sorted(path.stem for path in config_folder().glob("*.yaml"))


def find_config(name: str) -> Path:
    """Path of a config, given its name (`grace`) or its path (`my/own.yaml`)."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise ConfigError(f"no config file {name!r}; give a path to a YAML file or one of: {', '.join(config_names())}")
        return path
    if name in config_names():
        return config_folder() / f"{name}.yaml"
    raise ConfigError(f"no config {name!r}{near(name, config_names())}; shipped: {', '.join(config_names())}")


def load_config(name: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Config from a shipped name or a path, with `key=value` overrides (`train.epochs=5`, `views.0.0.rate=0.2`).

    Raises ConfigError, one readable line a mistake.
    """
    path = find_config(str(name))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    values = read_yaml(text, str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a config is a mapping of keys, got {type(values).__name__}")
    for override in overrides:
        _apply(values, override)
    return parse_config(values, str(path))


def parse_config(values: Mapping[str, Any], where: str = "config") -> Config:
    """Config from plain values; the errors begin with `where`."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = [_readable(item, where) for item in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r} is not of the form key=value, such as train.epochs=5")
    *parents, last = key.split(".")
    place: Any = values
    for depth, part in enumerate(parents):
        if isinstance(place, dict):
            if place.get(part) is None:
                place[part] = {}
            place = place[part]
        elif isinstance(place, list):
            place = place[_index(part, place, override)]
        else:
            raise ConfigError(f"override {override!r}: {'.'.join(parents[:depth])} is a value, it has no keys")
    value = read_yaml(text, f"override {override!r}") if text else None
    if isinstance(place, dict):
        place[last] = value
    elif isinstance(place, list):
        place[_index(last, place, override)] = value
    else:
        raise ConfigError(f"override {override!r}: {'.'.join(parents)} is a value, it has no keys")


def _index(part: str, items: list[Any], override: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise ConfigError(f"override {override!r}: {part!r} is no place in a list of {len(items)}; they count from 0")
    return int(part)


_KINDS: dict[str, Any] = {"encoder": Encoder, "method": MethodConfig, "views": View}


def models(kind: str) -> dict[str, type[Strict]]:
    """The models that `name` chooses from in `encoder`, `method` or `views`, by name."""
    union = get_args(_KINDS[kind])[0]
    return {get_args(model.model_fields["name"].annotation)[0]: model for model in get_args(union)}


def near(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'grace'?` or nothing."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _readable(item: Any, where: str) -> str:
    """One pydantic error as `file: place: what is wrong; the way out`."""
    loc = [str(part) for part in item["loc"]]
    if item["type"] == "extra_forbidden":
        *place, key = loc
        fields = _fields_at(place)
        hint = near(key, fields) or (f"; known: {', '.join(fields)}" if fields else "")
        return f"{where}: {_place(place)}unknown key {key!r}{hint}"
    if item["type"] == "union_tag_invalid":
        known = item["ctx"]["expected_tags"].replace("'", "").split(", ")
        tag = item["ctx"]["tag"]
        return f"{where}: {_place(loc)}unknown name {tag!r}{near(tag, known) or '; known: ' + ', '.join(known)}"
    if item["type"] == "union_tag_not_found":
        return f"{where}: {_place(loc)}no `name` given (got {item['input']!r:.60})"
    if item["type"] == "missing":
        return f"{where}: {_place(loc[:-1])}key {loc[-1]!r} is missing"
    if item["type"] == "value_error":
        return f"{where}: {_place(loc)}{item['ctx']['error']}"
    message = item["msg"][0].lower() + item["msg"][1:]
    return f"{where}: {_place(loc[:-1])}{loc[-1] if loc else 'config'}: {message}, got {item['input']!r:.80}"


def _place(loc: list[str]) -> str:
    """`train: ` from ["train"]; a union's tag (encoder.gcn) is left out of the path."""
    kept = [part for i, part in enumerate(loc) if not (i and _is_tag(loc, i))]
    return f"{'.'.join(kept)}: " if kept else ""


def _is_tag(loc: list[str], i: int) -> bool:
    return (loc[0] in {"encoder", "method"} and i == 1) or (loc[0] == "views" and not loc[i].isdigit() and loc[i] in models("views"))


def _fields_at(place: list[str]) -> list[str]:
    """Keys that are known at a place of the config."""
    if not place:
        return list(Config.model_fields)
    if place[0] in _KINDS:
        tags = [part for part in place if part in models(place[0])]
        return list(models(place[0])[tags[-1]].model_fields) if tags else []
    section = Config.model_fields[place[0]].annotation
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []
