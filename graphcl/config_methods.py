"""The pretraining methods as config models: one a method, named as its class, with the same settings and defaults."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from graphcl.config_base import Momentum, Rate, Strict


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


class AttributeMasking(Strict):
    """Hide atoms, and predict their types from what is around them (Hu et al., 2020)."""

    views: ClassVar[int] = 0
    name: Literal["attribute_masking"]
    rate: Rate = 0.15
    mask_edges: bool = Field(False, description="hide and predict the bonds of the hidden atoms too")


class ContextPrediction(Strict):
    """Tell the surroundings of an atom's neighbourhood from another molecule's (Hu et al., 2020)."""

    views: ClassVar[int] = 0
    name: Literal["context_prediction"]
    hops: PositiveInt | None = Field(None, description="radius of the neighbourhood; none: the encoder's layers")
    context_size: PositiveInt = Field(3, description="width of the context in hops, layers of its encoder")
    negatives: PositiveInt = Field(1, description="other molecules' contexts for each neighbourhood")


MethodConfig = Annotated[
    GraphCL | MoCo | GRACE | BGRL | DGI | InfoGraph | GAE | PCL | ADGCL | AttributeMasking | ContextPrediction,
    Field(discriminator="name"),
]
