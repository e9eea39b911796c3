"""OGB's molecules: the 9 + 3 categorical features.

Features: Hu et al., 2020, "Open Graph Benchmark", arXiv:2005.00687; those of `ogb.utils.features`, by table.
Differs:  a bond stereo that OGB does not list (atropisomers), where its code stops, gets the number after the last.
"""

from __future__ import annotations

import numpy as np
from rdkit import Chem

from graphcl.data.molecules import MoleculeArrays

# Categories of the columns. The last one of each is "other" but for ring, aromatic, stereo and conjugated.
ATOM_DIMS = (119, 5, 12, 12, 10, 6, 6, 2, 2)
BOND_DIMS = (5, 6, 2)

_CHIRALITY = {
    Chem.ChiralType.CHI_UNSPECIFIED: 0,
    Chem.ChiralType.CHI_TETRAHEDRAL_CW: 1,
    Chem.ChiralType.CHI_TETRAHEDRAL_CCW: 2,
    Chem.ChiralType.CHI_OTHER: 3,
}
_HYBRIDIZATION = {
    Chem.HybridizationType.SP: 0,
    Chem.HybridizationType.SP2: 1,
    Chem.HybridizationType.SP3: 2,
    Chem.HybridizationType.SP3D: 3,
    Chem.HybridizationType.SP3D2: 4,
}
_BOND = {Chem.BondType.SINGLE: 0, Chem.BondType.DOUBLE: 1, Chem.BondType.TRIPLE: 2, Chem.BondType.AROMATIC: 3}
_STEREO = {
    Chem.BondStereo.STEREONONE: 0,
    Chem.BondStereo.STEREOZ: 1,
    Chem.BondStereo.STEREOE: 2,
    Chem.BondStereo.STEREOCIS: 3,
    Chem.BondStereo.STEREOTRANS: 4,
    Chem.BondStereo.STEREOANY: 5,
}


def ogb_arrays(molecule: Chem.Mol) -> MoleculeArrays:
    """A molecule with OGB's features: x [n, 9], edge_attr [e, 3].

    Atoms: number, chirality, degree, formal charge, hydrogens, radical electrons, hybridization, aromatic, in a ring;
    bonds: type, stereo, conjugated.
    """
    atoms = []
    for i in range(molecule.GetNumAtoms()):
        atom = molecule.GetAtomWithIdx(i)
        number, charge = atom.GetAtomicNum(), atom.GetFormalCharge()
        atoms.append(
            (
                number - 1 if 1 <= number <= 118 else 118,
                _CHIRALITY.get(atom.GetChiralTag(), 4),
                min(atom.GetTotalDegree(), 11),
                charge + 5 if -5 <= charge <= 5 else 11,
                min(atom.GetTotalNumHs(), 9),
                min(atom.GetNumRadicalElectrons(), 5),
                _HYBRIDIZATION.get(atom.GetHybridization(), 5),
                atom.GetIsAromatic(),
                atom.IsInRing(),
            )
        )
    rows = []
    for k in range(molecule.GetNumBonds()):
        bond = molecule.GetBondWithIdx(k)
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        kind = _BOND.get(bond.GetBondType(), 4), _STEREO.get(bond.GetStereo(), 6), bond.GetIsConjugated()
        rows += [(i, j, *kind), (j, i, *kind)]  # target, source
    edges = np.array(sorted(rows), dtype=np.int32).reshape(-1, 5)
    x = np.array(atoms, dtype=np.uint8).reshape(-1, 9)
    return MoleculeArrays(x, edges[:, 1::-1].T, edges[:, 2:].astype(np.uint8))
