"""Atom masking.

Paper:   Wang et al., 2022, "Molecular contrastive learning of representations via graph neural networks",
         arXiv:2102.10056 (MolCLR), section 4.2; the categories are those of Hu et al., 2020, arXiv:1905.12265.
Differs: round(rate * n) atoms, theirs is rounded down and at least one; the masked atom is category 119, in their table
         118. Their bonds at masked atoms stay as they are (`bond=None`), as random ones are deleted (DropBonds); with
         their categories the neighbours would give much of the atom away, so ours are masked, as Hu et al. do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from augment._plan import Plan, carry_out
from augment._segments import Graphs, check_rate, edges_of, exact_share
from augment.mask_attributes import category_rows, check_category


class MaskAtoms(BaseTransform):
    """Hide exactly round(rate * n) atoms of every molecule, chosen uniformly, and the bonds at them.

    The first column of x, the type of an atom, becomes `atom`, and its others 0; so do those of edge_attr with `bond`,
    at both directions of every bond of a hidden atom. Where 0 is no neutral category (OGB's features) give all of them.

    rate: share of the atoms, in [0, 1]; ValueError otherwise.
    atom, bond: the category that the encoder reserves, or one for each column; bond None leaves the bonds alone.
    generator: of the draws, on the data's device; None is torch's own.
    ValueError for an x or an edge_attr that is no integer category; without edge_attr only atoms are hidden.
    """

    def __init__(
        self,
        rate: float = 0.25,
        atom: int | Sequence[int] = 119,
        bond: int | Sequence[int] | None = 5,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        self.rate = check_rate("rate", rate, "the share of atoms to mask")
        check_category("atom", atom)
        if bond is not None:
            check_category("bond", bond)
        self.atom, self.bond = atom, bond
        self.generator = generator

    def forward(self, data: Data) -> Data:
        return carry_out(self, data)

    def plan(self, data: Data, graphs: Graphs) -> Plan:
        """x and edge_attr with hidden rows."""
        if data.get("x") is None:
            raise ValueError("MaskAtoms hides x, and the data has none; read molecules from SMILES")
        hidden = exact_share(graphs.batch, self.rate, graphs.ptr, self.generator, ascending=graphs.ordered)
        atoms = {"x": _hide(data["x"], hidden, self.atom, "x")}
        if self.bond is None or data.get("edge_attr") is None:
            return Plan(node_values=atoms)
        src, dst = edges_of(data)
        bonds = _hide(data["edge_attr"], hidden[src] | hidden[dst], self.bond, "edge_attr")
        return Plan(node_values=atoms, edge_values={"edge_attr": bonds})


def _hide(value: Tensor, hidden: Tensor, category: int | Sequence[int], name: str) -> Tensor:
    """`value [M, F]` or `[M]` with the category, and 0 in the columns for which none is given, where `hidden [M]`."""
    if isinstance(category, int) and value.dim() > 1:
        category = [category] + [0] * (value.size(-1) - 1)
    index = hidden.nonzero().view(-1)
    return value.index_copy(0, index, category_rows(value, (index.numel(), *value.shape[1:]), category, name))
