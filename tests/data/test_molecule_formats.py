"""Formats of molecule files: all give the same rows, and what is no molecule keeps its place, with the reason."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from molecule_texts import write
from rdkit import Chem
from rdkit.Chem import AllChem

from graphcl.data import molecule_formats
from graphcl.data.molecule_files import read_blocks, read_molecules
from graphcl.data.molecules import molecules_to_store
from graphcl.data.sources import MOLECULE_FILES


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GRAPHCL_CACHE", str(tmp_path_factory.mktemp("cache")))


SMILES = ["CCO", "C[C@H](N)C(=O)O", "F/C=C/F", "[Na+].[Cl-]", "c1ccccc1O"]
NAMES = ["ethanol", "alanine", "trans", "salt", "phenol"]
ACTIVE = [1.0, math.nan, 0.0, 1.0, 0.0]


def in_format(tmp_path: Path, name: str) -> Path:
    """The five molecules, with `name` and `active` where the format has columns."""
    shown = ["" if math.isnan(value) else str(int(value)) for value in ACTIVE]
    if ".smi" in name or ".txt" in name:
        return write(tmp_path, "".join(f"{s}\t{n}\n" for s, n in zip(SMILES, NAMES, strict=True)), name)
    if ".csv" in name or ".tsv" in name:
        rows, mark = zip(NAMES, shown, SMILES, strict=True), "\t" if ".tsv" in name else ","
        lines = [mark.join(cells) for cells in [("name", "active", "smiles"), *rows]]
        return write(tmp_path, "".join(f"{line}\r\n" for line in lines), name)
    if ".sdf" in name.lower():
        records = []
        for smiles, title, active in zip(SMILES, NAMES, shown, strict=True):
            molecule = Chem.MolFromSmiles(smiles)
            AllChem.Compute2DCoords(molecule)
            molecule.SetProp("_Name", title)
            value = f">  <active>  (1)\n{active}\n\n" if active else ""
            records.append(f"{Chem.MolToMolBlock(molecule)}>  <name>\n{title}\n\n{value}$$$$\n")
        return write(tmp_path, "".join(records), name)
    table = {"name": NAMES, "active": [None if math.isnan(a) else int(a) for a in ACTIVE], "smiles": SMILES}
    pq.write_table(pa.table(table), tmp_path / name)
    return tmp_path / name


FORMATS = [
    "a.smi",
    "a.smi.gz",
    "a.txt",
    "a.csv",
    "a.csv.gz",
    "a.tsv",
    "a.tsv.gz",
    "a.parquet",
    "a.sdf",
    "a.sdf.gz",
    "a.SDF",
]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_molecules(tmp_path, name):
    path = in_format(tmp_path, name)
    columns = {} if "smi" in name or "txt" in name else {"targets": ["active"], "ids": "name"}
    blocks = list(read_blocks(path, **columns, block=2))
    assert [row for block in blocks for row in block.rows] == [0, 1, 2, 3, 4] and len(blocks) == 3
    assert [one for block in blocks for one in block.ids] == NAMES
    assert all(reason is None for block in blocks for reason in block.reasons)
    store, rejected = read_molecules(path, **columns)
    assert rejected == [] and store.names == NAMES
    same = [Chem.CanonSmiles(s) for s in store.smiles] == [Chem.CanonSmiles(s) for s in SMILES]
    assert same
    if "sdf" not in name.lower():
        whole, _ = molecules_to_store(SMILES)
        assert torch.equal(store.x, whole.x) and torch.equal(store.edge_attr, whole.edge_attr)
    if columns:
        y = np.concatenate([block.y for block in blocks])
        assert y.dtype == np.float32 and np.array_equal(y[:, 0], np.float32(ACTIVE), equal_nan=True)
        assert torch.equal(store.y.nan_to_num(-1)[:, 0], torch.tensor(ACTIVE).nan_to_num(-1))
        with pytest.raises(ValueError, match=r"no column 'actve', did you mean 'active'\? columns: .*name"):
            read_molecules(path, targets=["actve"])
    else:
        assert store.y is None
        with pytest.raises(ValueError, match=r"no column 'active'; a \.smi file has SMILES and names only"):
            read_molecules(path, targets=["active"])


def test_lines_are_those_of_the_file(tmp_path):
    def rows(path, **columns):
        (block,) = read_blocks(path, **columns)
        return list(zip(block.rows, block.lines, block.smiles, block.ids, block.reasons, strict=True))

    text = "smiles name\nCC  two words \n\n  \nC1CC\n\tCCO\tx\n\n\n"  # a blank line counts if something follows
    assert rows(write(tmp_path, text, "a.smi")) == [
        (0, 2, "CC", "two words", None),
        (1, 3, "", None, None),
        (2, 4, "", None, None),
        (3, 5, "C1CC", None, None),
        (4, 6, "CCO", "x", None),
    ]
    text = 'id,smiles\n"a\nb",CC\n\nc,O,1\nd,CO\n\n'
    assert rows(write(tmp_path, text), ids="id") == [
        (0, 2, "CC", "a\nb", None),
        (1, 4, "", None, None),
        (2, 5, "", "c", "3 cells, the header has 2"),
        (3, 6, "CO", "d", None),
    ]
    pq.write_table(pa.table({"smiles": ["CC", None, "O"], "id": [7, None, 9]}), tmp_path / "a.parquet")
    assert [row[:4] for row in rows(tmp_path / "a.parquet", ids="id")] == [
        (0, 1, "CC", "7"),
        (1, 2, "", None),
        (2, 3, "O", "9"),
    ]
    pq.write_table(pa.table({"smiles": [1.5, math.nan]}), tmp_path / "b.parquet")
    assert [row[4] for row in rows(tmp_path / "b.parquet")] == ["not text but 1.5", "not text but nan"]


def test_a_long_cell_is_read_and_underscores_are_no_numbers(tmp_path, monkeypatch):
    before = csv.field_size_limit()
    path = write(tmp_path, f"smiles,note,y\nCC,{'x' * 200_000},1\nCCO,,0\n")
    (block,) = read_blocks(path, targets=["y"])
    assert block.smiles == ["CC", "CCO"] and block.y[:, 0].tolist() == [1.0, 0.0] and csv.field_size_limit() == before
    monkeypatch.setattr(molecule_formats, "LARGEST_CELL", 1000)
    with pytest.raises(ValueError, match=r"assay\.csv: field larger than field limit \(1000\), in the row from line 2"):
        list(read_blocks(path, targets=["y"]))
    with pytest.raises(ValueError, match=r"line 2, column 'y': '1_0' is not a number"):
        list(read_blocks(write(tmp_path, "smiles,y\nCC,1_0\n"), targets=["y"]))


def test_an_extension_behind_the_smiles_is_no_name(tmp_path):
    text = "C[C@H](F)O |&1:1| one two\nCCO |$a;b;c$|\nCC\t|^1:0|\tthree\nCO a|b|\n"
    (block,) = read_blocks(write(tmp_path, text, "a.smi"))
    assert block.ids == ["one two", None, "three", "a|b|"]
    assert block.smiles == ["C[C@H](F)O |&1:1|", "CCO |$a;b;c$|", "CC |^1:0|", "CO"]
    store, rejected = read_molecules(tmp_path / "a.smi", features="ogb")
    table = "smiles\n" + "".join(f'"{text}"\n' for text in block.smiles)
    same, _ = read_molecules(write(tmp_path, table), features="ogb")
    assert not rejected and torch.equal(store.x, same.x)  # a radical too
    assert not torch.equal(store.x, molecules_to_store(["C[C@H](F)O", "CCO", "CC", "CO"], features="ogb")[0].x)


def test_true_and_false_are_classes(tmp_path):
    path = write(tmp_path, "smiles,y\nCC,True\nCCO, FALSE\nCO,\nCN,1\n")
    (block,) = read_blocks(path, targets=["y"])
    assert np.array_equal(block.y[:, 0], np.float32([1, 0, math.nan, 1]), equal_nan=True)
    pq.write_table(pa.table({"smiles": ["CC", "CCO"], "y": [True, False]}), tmp_path / "a.parquet")
    (block,) = read_blocks(tmp_path / "a.parquet", targets=["y"])
    assert block.y[:, 0].tolist() == [1.0, 0.0]


def test_names_of_single_columns_are_no_separators(tmp_path):
    pq.write_table(pa.table({"SMILES, canonical": ["CC"]}), tmp_path / "a.parquet")
    path = write(tmp_path, '"SMILES, canonical"\n"CC"\n')
    for one in (tmp_path / "a.parquet", path):
        with pytest.raises(ValueError, match=r"no column 'smiles', did you mean 'SMILES, canonical'\? columns"):
            read_molecules(one)
    with pytest.raises(ValueError, match=r"no column 'y'; columns: smiles, assay_id, toxicity"):
        read_molecules(write(tmp_path, "smiles,assay_id,toxicity\nCC,1,1\n"), targets=["y"])


def test_tabs_in_a_csv_and_commas_in_a_tsv_are_told(tmp_path):
    for name, text, mark in (("a.csv", "smiles\ty\nCC\t1\n", r"'\\t'"), ("a.tsv", "smiles,y\nCC,1\n", "','")):
        with pytest.raises(ValueError, match=rf"no column 'smiles'; cells seem to be separated by {mark} here"):
            read_molecules(write(tmp_path, text, name), targets=["y"])


def test_records_of_an_sdf_that_are_no_molecules_keep_their_place(tmp_path):
    good = Chem.MolToMolBlock(Chem.MolFromSmiles("CCO"))
    bad = Chem.MolToMolBlock(Chem.MolFromSmiles("CN(C)(C)C", sanitize=False), kekulize=False)
    texts = [
        "one" + good,
        "two" + bad + "> <dose>\n3\n\n",
        "three\nnonsense\n\n",
        "\n\n\n  0  0  0  0  0  0  0  0  0  0999 V2000\nM  END\n",
    ]
    path = write(tmp_path, "$$$$\n".join([*texts, "\n"]), "a.sdf")
    (block,) = read_blocks(path, targets=["dose"])
    lines = [1]
    for text in texts[:-1]:
        lines.append(lines[-1] + text.count("\n") + 1)
    assert block.lines == lines and block.ids == ["one", "two", "three", None]
    assert block.smiles == ["CCO", "", "", ""]
    assert "valence" in block.reasons[1] and block.reasons[0] is None
    assert block.reasons[2:] == ["not a mol block", "no atoms"]
    assert np.array_equal(block.y[:, 0], np.float32([math.nan, 3, math.nan, math.nan]), equal_nan=True)
    with pytest.raises(ValueError, match=r"a\.sdf: smiles='s' names a column, but a \.sdf holds the structures"):
        next(read_blocks(path, smiles="s"))


def test_titles_of_an_sdf_that_are_no_utf8_are_latin1(tmp_path):
    block = Chem.MolToMolBlock(Chem.MolFromSmiles("CCO"))
    for encoding in ("utf-8", "latin-1"):
        (tmp_path / "a.sdf").write_bytes(f"éther{block}> <dose µM>\n3\n\n$$$$\n".encode(encoding))
        (found,) = read_blocks(tmp_path / "a.sdf", targets=["dose µM"])
        assert (found.smiles, found.ids, found.y.tolist()) == (["CCO"], ["éther"], [[3.0]])


def test_a_row_of_too_many_cells_keeps_an_id_that_stands_first(tmp_path):
    (found,) = read_blocks(write(tmp_path, "n,smiles\na,CC\nb,CC,(dimer)\n"), ids="n")
    assert found.ids == ["a", "b"] and found.smiles == ["CC", ""] and "3 cells" in found.reasons[1]
    (found,) = read_blocks(write(tmp_path, "smiles,n\nCC,a\nCC,(dimer),b\n"), ids="n")
    assert found.ids == ["a", None]


def test_a_file_is_read_as_far_as_it_is_asked_for(tmp_path):
    path = write(tmp_path, "smiles,y\n" + "CC,1\n" * 50_000 + "CC,x\n")
    blocks = read_blocks(path, targets=["y"], block=100)
    assert next(blocks).rows == list(range(100))
    with pytest.raises(ValueError, match="line 50002, column 'y': 'x' is not a number"):
        list(blocks)


def test_files_that_are_not_what_they_say(tmp_path):
    for name in ("a.parquet", "a.smi.gz", "a.sdf.gz"):
        (tmp_path / name).write_bytes(b"nonsense")
        with pytest.raises(ValueError, match=name):
            read_molecules(tmp_path / name)
    for name in ("a.smi", "a.sdf", "a.csv.gz"):
        write(tmp_path, "", name)
        with pytest.raises(ValueError, match=r"none of 0 SMILES|the file is empty"):
            read_molecules(tmp_path / name)
    known = r"a\.xlsx: not a molecule file; known: \.smi \.txt \.csv \.tsv \.sdf \(also \.gz\) and \.parquet; save"
    with pytest.raises(ValueError, match=known):
        next(read_blocks(tmp_path / "a.xlsx"))
    with pytest.raises(ValueError, match=known):
        read_molecules(tmp_path / "a.xlsx")
    assert {f".{name.split('.', 1)[1]}".lower() for name in FORMATS} <= set(MOLECULE_FILES)
