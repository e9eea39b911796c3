"""Augmentations of graphs, as PyG transforms on a Data or a whole Batch, on any device.

A view returns new data and never writes into a tensor of its input. It keeps every attribute, the slice tables (so that
`view(batch)[i]`, `to_data_list()` and batching again are right) and at least one node of every graph. Edges sorted by
target, then source, stay so. Needs torch and torch_geometric only; with numba the views are several times as fast on a
CPU, and draw differently from the same generator.

    views = TwoViews(DropNodes(0.2), Compose([PerturbEdges(0.1), MaskAttributes(0.1)]))
    batch1, batch2 = views(batch)
    both = join([batch1, batch2])  # one Batch of all their graphs
"""

from augment.adaptive import AdaptiveDropEdges, AdaptiveMaskFeatures
from augment.compose import Compose, OneOf, TwoViews
from augment.diffuse import HeatDiffusion, PPRDiffusion
from augment.drop_bonds import DropBonds
from augment.drop_features import DropFeatures
from augment.drop_leaf import DropLeaf
from augment.drop_nodes import DropNodes
from augment.drop_side_chain import DropSideChain
from augment.identity import Identity
from augment.join import join
from augment.mask_atoms import MaskAtoms
from augment.mask_attributes import MaskAttributes
from augment.mask_edge_attributes import MaskEdgeAttributes
from augment.perturb_edges import PerturbEdges
from augment.ring_subgraph import RingSubgraph
from augment.shuffle import ShuffleNodes
from augment.subgraph import Subgraph

AUGMENTATIONS: dict[str, type] = {  # by the name that a config gives them
    "identity": Identity,
    "drop_nodes": DropNodes,
    "perturb_edges": PerturbEdges,
    "subgraph": Subgraph,
    "mask_attributes": MaskAttributes,
    "drop_features": DropFeatures,
    "mask_edge_attributes": MaskEdgeAttributes,
    "shuffle_nodes": ShuffleNodes,
    "ppr_diffusion": PPRDiffusion,
    "heat_diffusion": HeatDiffusion,
    "adaptive_drop_edges": AdaptiveDropEdges,
    "adaptive_mask_features": AdaptiveMaskFeatures,
    "drop_leaf": DropLeaf,
    "drop_side_chain": DropSideChain,
    "drop_bonds": DropBonds,
    "mask_atoms": MaskAtoms,
    "ring_subgraph": RingSubgraph,
    "one_of": OneOf,
}

__all__ = [
    "AUGMENTATIONS",
    "AdaptiveDropEdges",
    "AdaptiveMaskFeatures",
    "Compose",
    "DropBonds",
    "DropFeatures",
    "DropLeaf",
    "DropNodes",
    "DropSideChain",
    "HeatDiffusion",
    "Identity",
    "MaskAtoms",
    "MaskAttributes",
    "MaskEdgeAttributes",
    "OneOf",
    "PPRDiffusion",
    "PerturbEdges",
    "RingSubgraph",
    "ShuffleNodes",
    "Subgraph",
    "TwoViews",
    "join",
]
