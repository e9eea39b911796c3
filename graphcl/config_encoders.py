"""The encoders as config models: one an encoder, named as its class, with the same settings and defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from graphcl.config_base import Rate, Strict


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
    degrees: PositiveInt | None = Field(None, description="degrees beside the features, one-hot up to this one")


class MoleculeGIN(Strict):
    """GIN with atom and bond embeddings, the shape of the pretrain-gnns and GraphCL molecule benchmark."""

    name: Literal["molecule_gin"]
    hidden: PositiveInt = 300
    layers: PositiveInt = 5
    jk: Literal["last", "cat"] = "last"
    dropout: Rate = 0.0
    features: Literal["benchmark", "ogb"] = "benchmark"
    virtual_node: bool = False


class MoleculeGCN(Strict):
    """GCN with atom and bond embeddings, of the shape of the molecule benchmark."""

    name: Literal["molecule_gcn"]
    hidden: PositiveInt = 300
    layers: PositiveInt = 5
    jk: Literal["last", "cat"] = "last"
    dropout: Rate = 0.0
    features: Literal["benchmark", "ogb"] = "benchmark"
    virtual_node: bool = False


class MoleculeSAGE(Strict):
    """GraphSAGE with atom and bond embeddings, of the shape of the molecule benchmark."""

    name: Literal["molecule_sage"]
    hidden: PositiveInt = 300
    layers: PositiveInt = 5
    jk: Literal["last", "cat"] = "last"
    dropout: Rate = 0.0
    features: Literal["benchmark", "ogb"] = "benchmark"
    virtual_node: bool = False


class MoleculeGAT(Strict):
    """GAT of two heads with atom and bond embeddings, of the shape of the molecule benchmark."""

    name: Literal["molecule_gat"]
    hidden: PositiveInt = 300
    layers: PositiveInt = 5
    jk: Literal["last", "cat"] = "last"
    dropout: Rate = 0.0
    features: Literal["benchmark", "ogb"] = "benchmark"
    virtual_node: bool = False


Encoder = Annotated[
    GIN | GCN | SAGE | GAT | ResGCN | MoleculeGIN | MoleculeGCN | MoleculeSAGE | MoleculeGAT,
    Field(discriminator="name"),
]
