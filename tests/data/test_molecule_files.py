"""Molecule files: every format gives the same rows, nothing is lost, the cache gives what was parsed."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch

from graphcl.data import molecule_files
from graphcl.data.cache import cache_folder
from graphcl.data.molecule_files import read_molecules


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GRAPHCL_CACHE", str(tmp_path_factory.mktemp("cache")))


def write(tmp_path: Path, text: str, name: str = "assay.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


CSV = '\ufeffid,smiles,"toxic, rat",logP\na,CCO,1,-0.3\nb,none!,0,\n,  CC ,,2e-1\nd,"[Na+].[Cl-]",0,nan\n'


@pytest.mark.parametrize("name", ["assay.csv", "assay.csv.gz", "assay.CSV"])
def test_csv_columns_by_name_with_missing_labels(tmp_path, name):
    path = write(tmp_path, CSV, name)
    store, rejected = read_molecules(path, targets=["toxic, rat", "logP"], ids="id")
    assert store.smiles == ["CCO", "CC", "[Na+].[Cl-]"] and store.names == ["a", "2", "d"] and store.name == "assay"
    assert store.y.dtype == torch.float32
    assert torch.equal(store.y.nan_to_num(-9), torch.tensor([[1, -0.3], [-9, 0.2], [0, -9]]))
    assert [tuple(r) for r in rejected] == [(1, "none!", "not a SMILES string", 3, "b")]
    assert read_molecules(path)[0].y is None
    assert read_molecules(path, targets=["logP"])[0].y.shape == (3, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("smile,y\nCC,1\n", r"assay\.csv: no column 'smiles', did you mean 'smile'\? columns: smile, y"),
        ("smiles,z\nCC,1\n", r"assay\.csv: no column 'y'; columns: smiles, z"),
        ("smiles,y,y\nCC,1,2\n", r"assay\.csv: column 'y' stands there 2 times; rename all but one"),
        ("", r"assay\.csv: no column 'smiles'; columns: none, the file is empty"),
        ("smiles,y\nCC,1\nCCC,CI\n", r"assay\.csv: line 3, column 'y': 'CI' is not a number"),
        ('smiles,y\n"C\nC",1\nCC,inf\n', r"assay\.csv: line 4, column 'y': 'inf' is infinite; leave the cell empty"),
        ("smiles,y\n", "assay: none of 0 SMILES is a molecule"),
        ("smiles,y\nC,D,1\n", "assay: none of 1 SMILES is a molecule; the first, '': 3 cells, the header has 2"),
        ("smiles,y\n" + "C" * 200_000 + ",1\n", r"assay\.csv: field larger than field limit"),
    ],
)
def test_mistakes_in_a_csv_are_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_molecules(write(tmp_path, text), targets=["y"])


def test_files_that_are_no_text_are_named(tmp_path):
    binary = tmp_path / "bad.csv"
    binary.write_bytes(b"smiles,y\n\xff\xfe,1\n")
    with pytest.raises(ValueError, match=r"bad\.csv: .*can't decode.*; save it as UTF-8"):
        read_molecules(binary, targets=["y"])
    for name, content in (("no.csv.gz", b"smiles,y\nCC,1\n"), ("cut.csv.gz", gzip.compress(CSV.encode())[:-12])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            read_molecules(tmp_path / name)


def test_bbbp_has_the_published_numbers(graphcl_data):
    store, rejected = read_molecules(graphcl_data / "MoleculeNet/bbbp/raw/BBBP.csv", targets=["p_np"])
    assert len(store) == 2039 and len(rejected) == 11
    assert store.y.shape == (2039, 1) and int(store.y.sum()) == 1560


def test_a_mistake_late_in_a_file_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(molecule_files, "CHUNK", 2)
    path = write(tmp_path, "smiles,y\nCC,1\nno!,1\nCC,1\nCC,x\n")
    with pytest.raises(ValueError, match=r"assay\.csv: line 5, column 'y': 'x' is not a number"):
        read_molecules(path, targets=["y"])
    assert not list((cache_folder() / "stores").iterdir())
