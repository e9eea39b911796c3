"""The views' transforms as config models: one a view, named as its class, with the same settings and defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from graphcl.config_base import Rate, Strict


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


class DropLeaf(Strict):
    """Remove some nodes of every graph that hang on one edge."""

    name: Literal["drop_leaf"]
    leaves: NonNegativeInt = 1


class DropSideChain(Strict):
    """Cut one edge of every graph that lies in no ring, and remove the smaller part, of `at_most * n` nodes."""

    name: Literal["drop_side_chain"]
    at_most: Rate = 0.25


class DropBonds(Strict):
    """Remove `round(rate * e)` bonds of every molecule, both directions (MolCLR)."""

    name: Literal["drop_bonds"]
    rate: Rate = 0.25


class MaskAtoms(Strict):
    """Hide the categories of `round(rate * n)` atoms of every molecule and of the bonds at them (MolCLR)."""

    name: Literal["mask_atoms"]
    rate: Rate = 0.25
    atom: int | tuple[int, ...] = 119
    bond: int | tuple[int, ...] | None = 5


class RingSubgraph(Strict):
    """Keep a connected part of every graph, `round(keep * n)` nodes or more, that opens no ring."""

    name: Literal["ring_subgraph"]
    keep: Rate = 0.8


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
    | DropLeaf
    | DropSideChain
    | DropBonds
    | MaskAtoms
    | RingSubgraph
    | OneOf,
    Field(discriminator="name"),
]
OneOf.model_rebuild()
