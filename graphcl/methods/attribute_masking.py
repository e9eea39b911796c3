"""Attribute masking: hide the types of some atoms, and predict them from the embeddings of what is around them.

Paper:   Hu et al., 2020, "Strategies for Pre-training Graph Neural Networks", arXiv:1905.12265, section 3.1.2
Loss:    cross entropy of the masked atoms' types, and with mask_edges of the types of their bonds
Config:  configs/attribute_masking.yaml
Differs: the bonds' classes are all rows of the encoder's table, the authors' code has four; a molecule of which every
         atom is to be hidden is hidden whole, their code stops there.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data

from augment._segments import exact_k, graphs_of
from graphcl.encoders.molecule_inputs import ATOMS, BONDS, FEATURES
from graphcl.methods.method import Encoder, Method

MASKED_ATOM, MASKED_BOND = ATOMS - 1, BONDS - 1
OGB = FEATURES["ogb"]
MASKED = {  # what hidden rows become, by the number of columns
    "x": {2: (MASKED_ATOM, 0), 9: tuple(rows - 1 for rows in OGB.atoms.values())},
    "edge_attr": {2: (MASKED_BOND, 0), 3: (MASKED_BOND, *[rows - 1 for rows in list(OGB.bonds.values())[1:]])},
}


class AttributeMasking(Method):
    """encoder reads molecules: categories x [N, 2] and edge_attr [E, 2], or OGB's [N, 9] and [E, 3], types first.

    rate: of every molecule of n atoms int(n * rate) + 1 are masked, at most all.
    mask_edges: also hide all bonds of the masked atoms, and predict their types from the sum of both ends' embeddings.
    """

    levels = ("graph",)

    def __init__(self, encoder: Encoder, readout: nn.Module, *, rate: float = 0.15, mask_edges: bool = False) -> None:
        super().__init__()
        if not 0 <= rate <= 1:
            raise ValueError(f"rate must lie in [0, 1], got {rate!r}; it is the share of atoms to mask")
        self.encoder, self.readout, self.rate = encoder, readout, rate
        self.atom_type = nn.Linear(encoder.out_dim, MASKED_ATOM)
        self.bond_type = nn.Linear(encoder.out_dim, BONDS) if mask_edges else None

    def loss(self, data: Data, group: str = "model") -> dict[str, Tensor]:
        check_categories(data)
        masked = self.choose(data)  # [N]
        view, bonds = copy.copy(data), None
        view.x = hidden(data.x, masked, "x")
        if self.bond_type is not None:
            src, dst = data.edge_index
            touched = masked[src] | masked[dst]  # [E], both directions of a bond
            view.edge_attr = hidden(data.edge_attr, touched, "edge_attr")
            bonds = (touched & (src < dst)).nonzero().view(-1)
        h, atoms = self.encoder(view), masked.nonzero().view(-1)
        parts = scores(self.atom_type(h[atoms]), data.x[atoms, 0])
        if self.bond_type is not None and bonds is not None:
            ends = h[src[bonds]] + h[dst[bonds]]
            of_bonds = scores(self.bond_type(ends), data.edge_attr[bonds, 0])
            parts["loss"] = parts["loss"] + of_bonds["loss"]
            parts["bond_accuracy"] = of_bonds["accuracy"]
        return parts

    def choose(self, data: Data) -> Tensor:
        """Mask [N] of the atoms to hide."""
        graphs = graphs_of(data)
        k = torch.minimum((graphs.counts.double() * self.rate + 1).long(), graphs.counts)
        return exact_k(graphs.batch, k, graphs.ptr, None, ascending=graphs.ordered)

    def encode(self, data: Data) -> Tensor:
        return self.readout(self.encoder(data), data)


def hidden(codes: Tensor, rows: Tensor, name: str) -> Tensor:
    """codes [., C], the attribute `name`, with the masked category of every column where rows [.] is true."""
    categories = enumerate(MASKED[name][codes.size(1)])
    return torch.stack([codes[:, column].masked_fill(rows, category) for column, category in categories], dim=1)


def scores(logits: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Mean cross entropy and share of hits of logits [M, C]; 0, with gradient, of nothing."""
    count = torch.ones_like(target, dtype=torch.long).sum().clamp(min=1)
    loss = F.cross_entropy(logits.float(), target.long(), reduction="sum") / count
    return {"loss": loss, "accuracy": (logits.argmax(1) == target).sum() / count}


def check_categories(data: Data) -> None:
    """Refuse what is no molecule of integer categories."""
    for name, codes, what in (("x", data.x, "atoms"), ("edge_attr", data.edge_attr, "bonds")):
        fits = codes is not None and codes.dim() == 2 and codes.size(1) in MASKED[name]
        if not fits or codes.is_floating_point() or codes.dtype == torch.bool:
            got = "nothing" if codes is None else f"{codes.dtype} of shape {tuple(codes.shape)}"
            raise ValueError(
                f"attribute_masking predicts the types of atoms: it needs {name} as integer categories of {what} in "
                f"{' or '.join(map(str, MASKED[name]))} columns, got {got}; read molecules from SMILES, or pretrain "
                "with graphcl"
            )
