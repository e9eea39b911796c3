"""GNNs with atom and bond embeddings, the encoders of the molecule benchmark.

Papers:  Hu et al., 2020, "Strategies for Pre-training Graph Neural Networks", arXiv:1905.12265;
         You et al., 2020, "Graph Contrastive Learning with Augmentations", arXiv:2010.13902
Shape:   5 layers of 300: a convolution with bonds (molecule_layers.py), batch norm, ReLU (not after the last layer),
         dropout
Differs: jk 'cat' leaves out the atom embeddings, which the original puts first. With OGB's features the embeddings
         are OGB's (molecule_inputs.py), the layers still the benchmark's: OGB's GIN has a ReLU on each message, a
         learned eps and one more batch norm, its GCN a root embedding.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphcl.encoders.aggregate import csr_of
from graphcl.encoders.inputs import check_edges_given, edge_weight, jumped, run_layers, widths
from graphcl.encoders.molecule_alike import like_atoms, worth_it
from graphcl.encoders.molecule_inputs import add_tables, atom_rows, check_codes, columns_of
from graphcl.encoders.molecule_layers import (
    BondConv,
    BondGATConv,
    BondGCNConv,
    BondSAGEConv,
    MoleculeLayer,
    bond_counts,
)


class MoleculeGIN(nn.Module):
    """GIN for molecules: (data) -> [N, hidden], or [N, layers * hidden] with jk 'cat'.

    Reads `x` and `edge_attr`, integer categories as graphcl/data writes them, and `edge_weight` [E], with gradient.
    features: "benchmark", x [N, 2] (type, chirality) and edge_attr [E, 2] (type, direction), or "ogb", x [N, 9] and
        edge_attr [E, 3]. A masked atom is atom type 119, a masked bond bond type 5; every column of OGB's has a last
        row for what is masked or unknown (of the bond's type: 5).
    virtual_node: a node for every graph, tied to all of its atoms. Between layers h is then [N + B, hidden].
    On the CPU, without edge weights and virtual nodes, atoms with like surroundings are computed once
    (molecule_alike.py): the same numbers but for rounding. What is known of a batch is kept with its tensors, so write
    to them as torch does, not by `.data` or `.numpy()`.
    Raises ValueError for other features and categories (on CUDA a category beyond the tables is torch's device-side
    assert: looking first would wait for the device).
    """

    takes_in_dim: ClassVar[bool] = False

    def __init__(
        self,
        hidden: int = 300,
        *,
        layers: int = 5,
        jk: str = "last",
        dropout: float = 0.0,
        features: str = "benchmark",
        virtual_node: bool = False,
    ) -> None:
        super().__init__()
        _assemble(self, BondConv, hidden, layers, jk, dropout, features, virtual_node)

    def start(self, data: Any) -> Tensor:
        """Input of the first layer [N, hidden], with a virtual node [N + B, hidden]."""
        return _start(self, data)

    def forward(self, data: Any) -> Tensor:
        """Embeddings [N, out_dim]."""
        return _embed_alike(self, data)


class MoleculeGCN(nn.Module):
    """GCN for molecules; settings, input and output as of MoleculeGIN."""

    takes_in_dim: ClassVar[bool] = False

    def __init__(
        self,
        hidden: int = 300,
        *,
        layers: int = 5,
        jk: str = "last",
        dropout: float = 0.0,
        features: str = "benchmark",
        virtual_node: bool = False,
    ) -> None:
        super().__init__()
        _assemble(self, BondGCNConv, hidden, layers, jk, dropout, features, virtual_node)

    def start(self, data: Any) -> Tensor:
        """Input of the first layer [N, hidden], with a virtual node [N + B, hidden]."""
        return _start(self, data)

    def forward(self, data: Any) -> Tensor:
        """Embeddings [N, out_dim]."""
        return _embed(self, data)


class MoleculeSAGE(nn.Module):
    """GraphSAGE for molecules; settings, input and output as of MoleculeGIN."""

    takes_in_dim: ClassVar[bool] = False

    def __init__(
        self,
        hidden: int = 300,
        *,
        layers: int = 5,
        jk: str = "last",
        dropout: float = 0.0,
        features: str = "benchmark",
        virtual_node: bool = False,
    ) -> None:
        super().__init__()
        _assemble(self, BondSAGEConv, hidden, layers, jk, dropout, features, virtual_node)

    def start(self, data: Any) -> Tensor:
        """Input of the first layer [N, hidden], with a virtual node [N + B, hidden]."""
        return _start(self, data)

    def forward(self, data: Any) -> Tensor:
        """Embeddings [N, out_dim]."""
        return _embed(self, data)


class MoleculeGAT(nn.Module):
    """GAT of two heads for molecules; settings, input and output as of MoleculeGIN."""

    takes_in_dim: ClassVar[bool] = False

    def __init__(
        self,
        hidden: int = 300,
        *,
        layers: int = 5,
        jk: str = "last",
        dropout: float = 0.0,
        features: str = "benchmark",
        virtual_node: bool = False,
    ) -> None:
        super().__init__()
        _assemble(self, BondGATConv, hidden, layers, jk, dropout, features, virtual_node)

    def start(self, data: Any) -> Tensor:
        """Input of the first layer [N, hidden], with a virtual node [N + B, hidden]."""
        return _start(self, data)

    def forward(self, data: Any) -> Tensor:
        """Embeddings [N, out_dim]."""
        return _embed(self, data)


def _assemble(
    encoder: Any,
    conv: Any,
    hidden: int,
    layers: int,
    jk: str,
    dropout: float,
    features: str,
    virtual_node: bool,
) -> None:
    sizes = widths(hidden, hidden, None, layers)
    encoder.jk, encoder.out_dim = jk, jumped(jk, sizes[1:])
    encoder.features, encoder.virtual_node = features, virtual_node
    add_tables(encoder, columns_of(features).atoms, hidden)
    encoder.layers = nn.ModuleList(
        MoleculeLayer(conv(hidden, features), hidden, i == layers - 1, dropout, virtual_node) for i in range(layers)
    )
    if virtual_node:
        encoder.virtual = nn.Parameter(torch.zeros(hidden))  # what every graph's node starts as


def _start(encoder: Any, data: Any) -> Tensor:
    columns = columns_of(encoder.features)
    check_codes(data.x, "x", columns.atoms, encoder.features)
    check_codes(data.edge_attr, "edge_attr", columns.bonds, encoder.features)
    check_edges_given(data)
    h = atom_rows(encoder, data.x, columns.atoms)
    if not encoder.virtual_node:
        return h
    if data.batch is None:
        graphs = 1
    else:
        graphs = data.num_graphs if hasattr(data, "num_graphs") else int(data.batch.max()) + 1
    return torch.cat([h, encoder.virtual.expand(graphs, -1)])


def _embed(encoder: Any, data: Any) -> Tensor:
    h = run_layers(encoder.layers, _start(encoder, data), data, encoder.jk)
    return h[: data.x.size(0)] if encoder.virtual_node else h


def _embed_alike(encoder: Any, data: Any) -> Tensor:
    """`_embed`, each row computed once for all atoms that have it: up to the end, or to the first dropout."""
    layers, columns, like = encoder.layers, columns_of(encoder.features), encoder.atom.weight
    check_codes(data.x, "x", columns.atoms, encoder.features)
    check_codes(data.edge_attr, "edge_attr", columns.bonds, encoder.features)
    check_edges_given(data)
    alike = all(layer.as_made for layer in layers) and not encoder.virtual_node and edge_weight(data, like) is None
    if not alike or not worth_it(encoder, data.x, like.size(1)):
        return _embed(encoder, data)
    csr = csr_of(data.edge_index, data.x.size(0), loops=True)
    counts = bond_counts(csr, data.edge_attr, None, like, columns, "sum")
    drops = any(layer.finish[2].training and layer.finish[2].p > 0 for layer in layers)
    first, kinds = like_atoms(data.x, csr, data.edge_attr, counts, 1 if drops else len(layers))
    rows, outs = atom_rows(encoder, data.x.index_select(0, first), columns.atoms), []
    for layer, kind in zip(layers, kinds, strict=False):
        rows = layer.of_kinds(rows, kind)
        if encoder.jk == "cat" or kind is kinds[-1]:
            outs.append(layer.finish[2](kind.spread(rows)))
    for layer in layers[len(kinds) :]:
        outs.append(layer(outs[-1], data))
    return torch.cat(outs, dim=1) if encoder.jk == "cat" else outs[-1]
