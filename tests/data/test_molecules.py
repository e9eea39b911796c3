"""SMILES to arrays against RDKit one atom at a time; what is rejected and why."""

from __future__ import annotations

import math

import pytest
import torch
from rdkit import Chem

from graphcl.data import molecules
from graphcl.data.molecules import (
    UNKNOWN_ATOM,
    UNKNOWN_BOND,
    molecules_to_store,
)
from graphcl.encoders import MoleculeGIN, Readout

SMILES = [
    "CCO",
    "c1ccccc1O",
    "C[C@H](N)C(=O)O",
    "C[C@@H](N)C(=O)O",
    "F/C=C/F",
    "F/C=C\\F",
    "C#N",
    "[Na+].[Cl-]",
    "[Fe+2]",
    "[NH3+]CC([O-])=O",
    "[2H]O",
    "*CC",
    "N[Pt@SP1](N)(Cl)Cl",
    "[NH3]->[Pt](Cl)Cl",
    "C$C",
    "C~C",
    "[Og]",
    "C" * 500,
    " CC ",
    "CC the name of it",
]


def one(smiles: str):
    store, rejected = molecules_to_store([smiles])
    assert rejected == []
    return store.check()[0]


@pytest.mark.parametrize("smiles", SMILES)
def test_features_are_those_of_rdkit_atom_by_atom(smiles):
    data, molecule = one(smiles), Chem.MolFromSmiles(smiles)
    chirality = {"CHI_TETRAHEDRAL_CW": 1, "CHI_TETRAHEDRAL_CCW": 2}
    atoms = [
        [atom.GetAtomicNum() - 1 if atom.GetAtomicNum() else 118, chirality.get(str(atom.GetChiralTag()), 0)]
        for atom in molecule.GetAtoms()
    ]
    assert data.x.tolist() == atoms
    kinds, directions = ["SINGLE", "DOUBLE", "TRIPLE", "AROMATIC"], ["NONE", "ENDUPRIGHT", "ENDDOWNRIGHT"]
    edges = {}
    for bond in molecule.GetBonds():
        kind = str(bond.GetBondType())
        value = [kinds.index(kind) if kind in kinds else 5, directions.index(str(bond.GetBondDir()))]
        edges[bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()] = edges[bond.GetEndAtomIdx(), bond.GetBeginAtomIdx()] = (
            value
        )
    found = [tuple(pair) for pair in data.edge_index.T.tolist()]
    assert found == sorted(edges, key=lambda pair: pair[::-1])  # both directions, by target and then source
    assert [edges[pair] for pair in found] == data.edge_attr.tolist()


def test_what_the_benchmark_refuses_is_unknown_here():
    assert one("*CC").x[0].tolist() == [UNKNOWN_ATOM, 0]
    assert one("N[Pt@SP1](N)(Cl)Cl").x[1].tolist() == [77, 0]
    for smiles in ("[NH3]->[Pt](Cl)Cl", "C$C", "C~C"):
        assert one(smiles).edge_attr[0].tolist() == [UNKNOWN_BOND, 0]


def test_single_atoms_and_large_molecules():
    atom = one("[Fe+2]")
    assert atom.num_nodes == 1 and atom.edge_index.shape == (2, 0) and atom.edge_attr.shape == (0, 2)
    assert one("C" * 500).num_edges == 998


def test_mirror_images_and_double_bond_sides_differ():
    assert not torch.equal(one("C[C@H](N)C(=O)O").x, one("C[C@@H](N)C(=O)O").x)
    assert not torch.equal(one("F/C=C/F").edge_attr, one("F/C=C\\F").edge_attr)


def test_the_store_holds_small_types_and_the_strings_as_given():
    store, rejected = molecules_to_store(SMILES, name="mine")
    assert rejected == [] and len(store) == len(SMILES) and store.smiles == SMILES and store.name == "mine"
    assert store.x.dtype == store.edge_attr.dtype == torch.uint8 and store.y is None
    for i, smiles in enumerate(SMILES):
        alone = one(smiles)
        assert torch.equal(store[i].x, alone.x) and torch.equal(store[i].edge_index, alone.edge_index)
        assert torch.equal(store[i].edge_attr, alone.edge_attr)


def test_the_encoder_knows_every_category_that_is_written():
    store, _ = molecules_to_store(SMILES)
    encoder = MoleculeGIN(8, layers=2)
    batch = store.batch(torch.arange(len(store)))
    assert Readout("mean")(encoder(batch), batch).isfinite().all()


def test_nothing_is_lost_silently(capfd):
    smiles = ["CCO", "", "not a molecule", "C1CC", "CN(C)(C)C", "  ", None, "c1cccc1", "CC", "C(C"]
    store, rejected = molecules_to_store(smiles, torch.arange(10))
    assert store.smiles == ["CCO", "CC"] and store.y.tolist() == [0, 8]
    assert [r.row for r in rejected] == [1, 2, 3, 4, 5, 6, 7, 9]
    reasons = {r.row: r.reason for r in rejected}
    assert reasons[1] == reasons[5] == "empty"
    assert reasons[2] == reasons[3] == reasons[9] == "not a SMILES string"
    assert "valence for atom # 1 N" in reasons[4]
    assert reasons[6] == "not text but None"
    assert "kekulize" in reasons[7]
    assert [r.smiles for r in rejected][:3] == ["", "not a molecule", "C1CC"]
    out, err = capfd.readouterr()
    assert out == err == ""  # RDKit's log is off


def test_rdkit_logs_again_afterwards(capfd):
    molecules_to_store(["CC", "C1CC"])
    Chem.MolFromSmiles("C1CC")
    assert "unclosed ring" in capfd.readouterr().err


def test_labels_follow_their_molecules():
    y = torch.tensor([[1.0, math.nan], [0.0, 1.0], [math.nan, 0.0]])
    store, _ = molecules_to_store(["CC", "none!", "CCC"], y)
    assert torch.equal(store.y.nan_to_num(-1), torch.tensor([[1.0, -1.0], [-1.0, 0.0]]))
    assert molecules_to_store(["CC", "CCC"], [1, 0])[0].y.tolist() == [1, 0]


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"labels of shape \(3,\) for 2 SMILES; one row each is needed"):
        molecules_to_store(["CC", "CCC"], [1, 0, 1])
    with pytest.raises(ValueError, match="smiles must be a list of strings, got the string 'CC'; put it into a list"):
        molecules_to_store("CC")
    with pytest.raises(ValueError, match="none of 2 SMILES is a molecule; the first, '': empty"):
        molecules_to_store(["", "none!"])
    with pytest.raises(ValueError, match="none of 0 SMILES is a molecule"):
        molecules_to_store([])


MANY = SMILES * 3


def test_chunks_on_the_disk_are_the_store_in_memory(tmp_path, monkeypatch):
    smiles = [text for i, molecule in enumerate(MANY) for text in (molecule, "none!" if i % 2 else "")]
    y = torch.arange(len(smiles)).float()
    whole, rejected = molecules_to_store(smiles, y)
    monkeypatch.setattr(molecules, "CHUNK", 7)
    for folder in (None, tmp_path / "s"):
        store, again = molecules_to_store(smiles, y, folder=folder)
        assert (
            again == rejected
            and len(rejected) == len(MANY)
            and store.smiles == whole.smiles
            and store.names == whole.names
        )
        a, b = store.batch(torch.arange(len(MANY))), whole.batch(torch.arange(len(MANY)))
        assert all(torch.equal(a[key], b[key]) for key in b.keys())  # noqa: SIM118
    assert store.verify().folder == tmp_path / "s"


def test_names_are_the_rows_that_the_molecules_came_from():
    store, rejected = molecules_to_store(["CC", "no molecule", "O", "C1CC1"])
    assert store.names == ["0", "2", "3"] and [one.row for one in rejected] == [1]
