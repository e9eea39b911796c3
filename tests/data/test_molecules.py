"""SMILES to arrays against RDKit one atom at a time; what is rejected and why; the scaffold split against its rule."""

from __future__ import annotations

import gzip
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from rdkit import Chem
from rdkit.Chem.Scaffolds import MurckoScaffold

from graphcl.data import molecules
from graphcl.data.molecules import (
    UNKNOWN_ATOM,
    UNKNOWN_BOND,
    molecules_to_store,
    read_molecule_csv,
    scaffold_split,
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


# --- CSV --------------------------------------------------------------------------------------------------------------


def write(tmp_path: Path, text: str, name: str = "assay.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


CSV = '\ufeffid,smiles,"toxic, rat",logP\n1,CCO,1,-0.3\n2,none!,0,\n3, CC ,,2e-1\n4,"[Na+].[Cl-]",0,nan\n'


@pytest.mark.parametrize("zipped", [False, True])
def test_csv_columns_by_name_with_missing_labels(tmp_path, zipped):
    path = write(tmp_path, CSV)
    if zipped:
        path = tmp_path / "assay.csv.gz"
        path.write_bytes(gzip.compress(CSV.encode()))
    store, rejected = read_molecule_csv(path, targets=["toxic, rat", "logP"], name="assay")
    assert store.smiles == ["CCO", "CC", "[Na+].[Cl-]"] and store.name == "assay"
    assert store.y.dtype == torch.float32
    assert torch.equal(store.y.nan_to_num(-9), torch.tensor([[1, -0.3], [-9, 0.2], [0, -9]]))
    assert [tuple(r) for r in rejected] == [(1, "none!", "not a SMILES string")]
    assert read_molecule_csv(path)[0].y is None
    assert read_molecule_csv(path, targets=["logP"])[0].y.shape == (3, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SMILES,y\nCC,1\n", r"assay\.csv: no column 'smiles'; columns: SMILES, y"),
        ("smiles,z\nCC,1\n", r"assay\.csv: no column 'y'; columns: smiles, z"),
        ("", r"assay\.csv: no column 'smiles'; columns: none, the file is empty"),
        ("smiles,y\nCC,1\nCCC,CI\n", r"assay\.csv: row 1, column 'y': label 'CI' is not a number"),
        ("smiles,y\nCC,inf\n", r"assay\.csv: row 0, column 'y': label 'inf' is infinite; leave the cell empty"),
        ("smiles,y\nCC,1\nCCC\n", r"assay\.csv: row 1 has 1 cells, the header 2"),
        ("smiles,y\n", "assay: none of 0 SMILES is a molecule"),
        ("smiles,y\n" + "C" * 200_000 + ",1\n", r"assay\.csv: field larger than field limit"),
    ],
)
def test_mistakes_in_a_csv_are_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_molecule_csv(write(tmp_path, text), targets=["y"])


def test_files_that_are_no_text_are_named(tmp_path):
    binary = tmp_path / "bad.csv"
    binary.write_bytes(b"smiles,y\n\xff\xfe,1\n")
    with pytest.raises(ValueError, match=r"bad\.csv: .*can't decode"):
        read_molecule_csv(binary, targets=["y"])
    for name, content in (("no.csv.gz", b"smiles,y\nCC,1\n"), ("cut.csv.gz", gzip.compress(CSV.encode())[:-12])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            read_molecule_csv(tmp_path / name)


def test_bbbp_has_the_published_numbers(graphcl_data):
    store, rejected = read_molecule_csv(graphcl_data / "MoleculeNet/bbbp/raw/BBBP.csv", targets=["p_np"])
    assert len(store) == 2039 and len(rejected) == 11
    assert store.y.shape == (2039, 1) and int(store.y.sum()) == 1560
    store.check()
    check_split(store.smiles[:500], scaffold_split(store.smiles[:500]))


# --- scaffold split ---------------------------------------------------------------------------------------------------


def scaffold(smiles: str) -> str:
    return MurckoScaffold.MurckoScaffoldSmiles(smiles=smiles, includeChirality=True)


def check_split(smiles, split, ratios=(0.8, 0.1, 0.1)):
    """The rule, written as taking the largest remaining scaffold, of equal ones the one that begins last."""
    names = [scaffold(s) for s in smiles]
    sizes, first = Counter(names), {}
    for i, name in enumerate(names):
        first.setdefault(name, i)
    parts = ([], [], [])
    while sizes:
        name = max(sizes, key=lambda name: (sizes[name], first[name]))
        rows = [i for i, other in enumerate(names) if other == name]
        del sizes[name]
        if len(parts[0]) + len(rows) <= ratios[0] * len(smiles):
            parts[0].extend(rows)
        elif len(parts[0]) + len(parts[1]) + len(rows) <= (ratios[0] + ratios[1]) * len(smiles):
            parts[1].extend(rows)
        else:
            parts[2].extend(rows)
    assert [part.tolist() for part in split] == [sorted(part) for part in parts]


RINGS = ["C1CC1", "C1CCC1", "C1CCCC1", "c1ccccc1", "c1ccncc1", "C1CCOCC1", "c1ccsc1", "C1CCNC1", "c1ccoc1"]
MANY = [RINGS[i % 9 if i % 5 else 3] + "C" * (i % 4 + 1) for i in range(60)] + ["CCO", "CCN", "N1[C@@H](C)C1C"]


def test_scaffold_split_is_the_benchmarks_rule():
    for ratios in ((0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.9, 0.0, 0.1)):
        check_split(MANY, scaffold_split(MANY, ratios), ratios)


def test_no_scaffold_is_in_two_parts_and_no_molecule_is_lost():
    split = scaffold_split(MANY)
    assert torch.equal(torch.cat(split).sort().values, torch.arange(len(MANY)))
    found = [{scaffold(MANY[i]) for i in part.tolist()} for part in split]
    assert not (found[0] & found[1] or found[0] & found[2] or found[1] & found[2])
    assert all(part.dtype == torch.int64 and len(part) for part in split)
    assert all(torch.equal(a, b) for a, b in zip(split, scaffold_split(MANY), strict=True))


def test_molecules_without_rings_share_one_scaffold():
    smiles = ["CCO", "CCC"] + [ring + "C" for ring in RINGS]
    split = scaffold_split(smiles, (0.6, 0.2, 0.2))
    assert {0, 1} <= set(split.train.tolist())


def test_mistakes_in_a_split_are_named():
    with pytest.raises(ValueError, match=r"ratios must be three shares .* sum to 1, got \(0\.8, 0\.1, 0\.2\)"):
        scaffold_split(MANY, (0.8, 0.1, 0.2))
    with pytest.raises(ValueError, match="molecule 1, 'none!': not a SMILES string; leave it out before splitting"):
        scaffold_split(["CC", "none!"])
    with pytest.raises(
        ValueError, match="train gets none of 3 molecules, as they have only 1 scaffolds; split at random"
    ):
        scaffold_split(["CCO", "CCC", "CCN"])


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
    check_split(store.smiles, scaffold_split(store.smiles))
    lines = ["smiles,y", *(f"{text},{i}" for i, text in enumerate(smiles))]
    for folder in (None, tmp_path / "csv"):
        store, again = read_molecule_csv(write(tmp_path, "\n".join(lines)), targets=["y"], folder=folder)
        assert again == rejected and store.smiles == whole.smiles and torch.equal(store.y[:, 0], whole.y)


def test_a_mistake_late_in_a_file_leaves_no_store(tmp_path, monkeypatch):
    monkeypatch.setattr(molecules, "CHUNK", 2)
    path = write(tmp_path, "smiles,y\nCC,1\nCC,1\nCC,1\nCC,x\n")
    with pytest.raises(ValueError, match=r"assay\.csv: row 3, column 'y': label 'x' is not a number"):
        read_molecule_csv(path, targets=["y"], folder=tmp_path / "s")
    assert list(tmp_path.iterdir()) == [path]


def test_names_are_the_rows_that_the_molecules_came_from():
    store, rejected = molecules_to_store(["CC", "no molecule", "O", "C1CC1"])
    assert store.names == ["0", "2", "3"] and [one.row for one in rejected] == [1]
