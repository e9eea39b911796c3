"""The configuration as typed, frozen models. Imports neither torch nor the rest; graphcl/read_config.py reads files.

One model a method, an encoder and a view; the fields are the arguments of the class of the same name, with the same
defaults (tests/test_config_matches_code.py compares the two). `Config.dump()` is complete: it trains the same again.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

Rate = Annotated[float, Field(ge=0, le=1)]
Momentum = Annotated[float, Field(ge=0, le=1)]


class ConfigError(ValueError):
    """A mistake in a config or an override; the message names the place, the value and the way out."""


def near(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'grace'?` or nothing."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


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
    sparse_input: bool = False


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
    last_activation: bool = True
    sparse_input: bool = False


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
    last_activation: bool = True
    sparse_input: bool = False


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
    last_activation: bool = True


class ResGCN(Strict):
    """ResGCN of semi-supervised GraphCL: batch norm and a linear layer on the features, then BN-conv-ReLU blocks."""

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
    one_pass: bool = Field(False, description="both views through the encoder at once")


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
    block: Annotated[int, Field(ge=2)] | None = Field(None, description="nodes contrasted a step; none: all")
    one_pass: bool = Field(False, description="both views through the encoder at once")


class BGRL(Strict):
    """Predict a momentum encoder's nodes of another view, without negatives (Thakoor et al., 2022)."""

    views: ClassVar[int] = 2
    name: Literal["bgrl"]
    pred_hidden: PositiveInt = 512
    momentum: Momentum = 0.99
    one_pass: bool = Field(False, description="both views through the encoder at once")


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
    split: Literal["public", "random", "few", "scaffold", "kfold", "rate"] = "public"
    repeats: PositiveInt = Field(1, description="splits drawn (random, few) or folds (kfold, rate)")
    per_class: PositiveInt = Field(20, description="training labels a class under split: few")
    rate: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="share of the training labels under split: rate")


class TrainConfig(Strict):
    """The loop."""

    epochs: PositiveInt = 200
    max_steps: PositiveInt | None = Field(None, description="stop after this many optimizer steps")
    lr: PositiveFloat = 1e-3
    group_lr: dict[str, PositiveFloat] = Field(
        {}, description="learning rate of a named parameter group (adgcl: views)"
    )
    weight_decay: NonNegativeFloat = 0.0
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: NonNegativeInt = Field(0, description="steps over which the learning rate grows linearly from 0")
    accumulate: PositiveInt = Field(1, description="batches whose gradients are added before a step")
    clip: PositiveFloat | None = Field(None, description="largest gradient norm")
    precision: Literal["32", "bf16-mixed", "16-mixed"] = "32"
    compile: bool = Field(False, description="torch.compile the encoders and projectors; worth a try on a GPU")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

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
    threads: PositiveInt | None = Field(None, description="CPU threads; none: OMP_NUM_THREADS, or all cores it may use")


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
