"""OGB's features against the functions of the ogb package."""

from __future__ import annotations

import csv
from importlib.resources import files

import numpy as np
import pytest

pytest.importorskip("ogb")
from ogb.utils.features import (
    atom_to_feature_vector,
    bond_to_feature_vector,
    get_atom_feature_dims,
    get_bond_feature_dims,
)
from rdkit import Chem

from graphcl.data.molecules import parse_smiles
from graphcl.data.ogb import ATOM_DIMS, BOND_DIMS, ogb_arrays

ODD = [
    "*C",
    "[Na+].[Cl-]",
    "[He]",
    "[CH3]",
    "[C]",
    "[2H]C([2H])[2H]",
    "C/C=C/C",
    "C/C=C\\C",
    "CC=CC",
    "N[C@@H](C)C(=O)O",
    "N[C@H](C)C(=O)O",
    "F[S](F)(F)(F)(F)F",
    "FP(F)(F)(F)F",
    "F[Pt@SP1](F)(Cl)Cl",
    "[NH3]->[Cu]",
    "[Zr+4].[O-2].[O-2]",
    "[Mo+6]",
    "[Fe-6]",
    "[OH2+]C",
    "O=C1C=CC(=O)C=C1",
    "C1=CC=CC=C1C#N",
    "[SiH4]",
    "B1([H])[H]B([H])[H]1",
]


def by_ogb(molecule):
    x = np.array([atom_to_feature_vector(atom) for atom in molecule.GetAtoms()])
    edges = {}
    for bond in molecule.GetBonds():
        ends = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        edges[ends] = edges[ends[::-1]] = bond_to_feature_vector(bond)
    return x, edges


def test_the_dims_are_ogbs():
    assert list(ATOM_DIMS) == get_atom_feature_dims()
    assert list(BOND_DIMS) == get_bond_feature_dims()


def test_features_are_ogbs():
    with (files("graphcl.data") / "bundled" / "BBBP.csv").open(encoding="utf-8", newline="") as file:
        smiles = [row["smiles"] for row in csv.DictReader(file)][::5]
    seen = 0
    for text in [*ODD, *smiles]:
        try:
            molecule = parse_smiles(text)
        except ValueError:
            continue
        seen += 1
        got, (x, edges) = ogb_arrays(molecule), by_ogb(molecule)
        assert np.array_equal(got.x, x), text
        ends = list(map(tuple, got.edges.T.tolist()))
        assert ends == sorted(edges, key=lambda edge: edge[::-1]), text
        assert got.edge_attr.tolist() == [edges[edge] for edge in ends], text
    assert seen > 400


def test_shapes_without_bonds_and_of_a_single_atom():
    got = ogb_arrays(parse_smiles("[He]"))
    assert got.x.shape == (1, 9) and got.edges.shape == (2, 0) and got.edge_attr.shape == (0, 3)


def test_what_ogb_has_no_category_for_gets_the_number_after_the_last():
    molecule = Chem.RWMol(parse_smiles("Cc1cccc(C)c1-c1c(C)cccc1C"))
    biaryl = next(
        bond
        for bond in molecule.GetBonds()
        if bond.GetBondType() == Chem.BondType.SINGLE
        and all(atom.GetIsAromatic() for atom in (bond.GetBeginAtom(), bond.GetEndAtom()))
    )
    biaryl.SetStereo(Chem.BondStereo.STEREOATROPCW)
    with pytest.raises(ValueError, match="STEREOATROPCW"):
        bond_to_feature_vector(biaryl)
    assert sorted(set(ogb_arrays(molecule).edge_attr[:, 1].tolist())) == [0, BOND_DIMS[1]]
