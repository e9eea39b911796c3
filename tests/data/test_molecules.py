"""SMILES to arrays against RDKit one atom at a time; what is rejected and why."""

from __future__ import annotations

import csv
import math
import subprocess
import sys

import pytest
import torch
from ogb.utils import smiles2graph
from rdkit import Chem, RDLogger

from graphcl.data import molecules
from graphcl.data.molecules import (
    UNKNOWN_ATOM,
    UNKNOWN_BOND,
    molecules_to_store,
    parse_smiles,
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
    "N->B",
    "[NH3][Pt](Cl)Cl",  # no arrow, and dative all the same
    "C$C",
    "C~C",
    "[Og]",
    "C" * 500,
    "C/C=C/C" * 90 + "c1ccccc1",
    " CC ",
    "CC the name of it",
]
MANY = SMILES * 3


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
    for smiles in ("[NH3]->[Pt](Cl)Cl", "N->B", "[NH3][Pt](Cl)Cl", "C$C", "C~C"):
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
    RDLogger.EnableLog("rdApp.*")  # PyG's from_smiles, which other tests call, turns it off for the whole process
    molecules_to_store(["CC", "C1CC"])
    Chem.MolFromSmiles("C1CC")
    assert "unclosed ring" in capfd.readouterr().err


def test_labels_follow_their_molecules():
    y = torch.tensor([[1.0, math.nan], [0.0, 1.0], [math.nan, 0.0]])
    store, _ = molecules_to_store(["CC", "none!", "CCC"], y)
    assert torch.equal(store.y.nan_to_num(-1), torch.tensor([[1.0, -1.0], [-1.0, 0.0]]))
    assert molecules_to_store(["CC", "CCC"], [1, 0])[0].y.tolist() == [1, 0]


KINDS = {  # features do not touch what is a molecule: [n atoms, e directed edges] or the reason
    "[Na+].[Cl-]": (2, 0),  # a salt is one graph of several components
    "[NH3+]CC([O-])=O": (5, 8),
    "[H]C([H])([H])[H]": (1, 0),  # explicit hydrogens are folded into their atom
    "[2H]O": (2, 2),  # but not isotopes, and not those that are the molecule
    "[H][H]": (2, 2),
    "[H+]": (1, 0),
    "[Fe+2]": (1, 0),
    "*": (1, 0),
    "*CC": (3, 4),
    "C~C": (2, 2),
    "[NH3]->[Pt](Cl)Cl": (4, 6),
    "F/C=C/F": (4, 6),
    "C" * 500: (500, 998),
    "C(" * 400 + "C" + ")" * 400: (401, 800),
    "": "empty",
    " \t": "empty",
    None: "not text but None",
    math.nan: "not text but nan",
    3: "not text but 3",
    b"CC": "not text but b'CC'",
    "C(": "not a SMILES string",
    "C\0C": "not a SMILES string",
    "CC>>CO": "not a SMILES string",
    "[C,N]": "not a SMILES string",
    "C..C": "not a SMILES string",
    "\ud800": "'utf-8' codec can't encode",
    "CN(C)(C)C": "Explicit valence for atom # 1 N, 4, is greater than permitted",
    "n1cccc1": "Can't kekulize mol",
}


@pytest.mark.parametrize("features", ["benchmark", "ogb"])
@pytest.mark.parametrize("smiles", KINDS, ids=lambda one: repr(one)[:20])
def test_every_kind_of_input_has_its_outcome(smiles, features):
    store, rejected = molecules_to_store(["C", smiles], features=features)
    outcome = KINDS[smiles]
    if isinstance(outcome, tuple):
        assert rejected == [] and (store[1].num_nodes, store[1].num_edges) == outcome
    else:
        (one,) = rejected
        assert (one.row, len(store)) == (1, 1) and outcome in one.reason


def test_ogb_features_are_those_of_the_package():
    store, _ = molecules_to_store(SMILES, features="ogb")
    for smiles, data in zip(SMILES, store, strict=True):
        theirs = smiles2graph(smiles)
        assert data.x.tolist() == theirs["node_feat"].tolist()
        pairs = {
            tuple(pair): kind
            for pair, kind in zip(theirs["edge_index"].T.tolist(), theirs["edge_feat"].tolist(), strict=True)
        }
        assert {
            tuple(pair): kind for pair, kind in zip(data.edge_index.T.tolist(), data.edge_attr.tolist(), strict=True)
        } == pairs
    with pytest.raises(ValueError, match=r"unknown molecule features '9\+3'; known: benchmark \(2 \+ 2\), ogb"):
        molecules_to_store(["C"], features="9+3")


def assert_same_bonds(smiles):
    molecule = parse_smiles(smiles)
    edges, kinds = molecules._bonds(molecule)
    again, kinds_again = molecules._bonds_at_once(molecule, molecules._atoms(molecule))
    assert (edges == again).all() and (kinds == kinds_again).all(), smiles
    assert (edges.dtype, edges.shape, kinds.dtype, kinds.shape) == (
        *(again.dtype, again.shape),
        *(kinds_again.dtype, kinds_again.shape),
    )


def test_bonds_at_once_are_bonds_one_by_one(graphcl_data):
    for smiles in SMILES:
        if not {"/", "\\", ">"} & set(smiles):
            assert_same_bonds(smiles)
    with (graphcl_data / "MoleculeNet/hiv/raw/HIV.csv").open(encoding="utf-8") as file:
        odd = [row["smiles"] for row in csv.DictReader(file) if "[" in row["smiles"] or "~" in row["smiles"]]
    for smiles in odd[::20]:
        if molecules._DIRECTED.isdisjoint(smiles):
            assert_same_bonds(smiles)


def test_several_processes_give_what_one_gives(monkeypatch):
    monkeypatch.setattr(molecules, "CHUNK", 5)
    smiles = [*MANY, "", "none!", *["C("] * 12]
    (one, rejected), (two, again) = molecules_to_store(smiles), molecules_to_store(smiles, workers=2)
    assert again == rejected and len(rejected) == 14 and two.smiles == one.smiles and two.names == one.names
    assert torch.equal(one.x, two.x) and torch.equal(one.src, two.src) and torch.equal(one.edge_attr, two.edge_attr)


def test_the_parsing_processes_need_no_torch():
    code = "import sys, graphcl.data.molecules as m; m.parse_block(['CCO']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"labels of shape \(3,\) for 2 SMILES; one row each is needed"):
        molecules_to_store(["CC", "CCC"], [1, 0, 1])
    with pytest.raises(ValueError, match="smiles must be a list of strings, got the string 'CC'; put it into a list"):
        molecules_to_store("CC")
    with pytest.raises(ValueError, match="none of 2 SMILES is a molecule; the first, '': empty"):
        molecules_to_store(["", "none!"])
    with pytest.raises(ValueError, match="none of 0 SMILES is a molecule"):
        molecules_to_store([])


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
