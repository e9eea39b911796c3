"""Molecule files: every format gives the same rows, nothing is lost, the cache gives what was parsed."""

from __future__ import annotations

import gzip
import math
import os
import warnings

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from molecule_texts import write

from graphcl import build, load_config
from graphcl.data import molecule_files
from graphcl.data.cache import cache_folder
from graphcl.data.features import with_features
from graphcl.data.molecule_files import read_blocks, read_molecules, rejected_beside, task_kinds
from graphcl.data.molecules import molecules_to_store
from graphcl.data.sources import load_data


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GRAPHCL_CACHE", str(tmp_path_factory.mktemp("cache")))


CSV = '\ufeffid,smiles,"toxic, rat",logP\na,CCO,1,-0.3\nb,none!,0,\n,  CC ,,2e-1\nd,"[Na+].[Cl-]",0,nan\n'


@pytest.mark.parametrize("name", ["assay.csv", "assay.csv.gz", "assay.CSV"])
def test_csv_columns_by_name_with_missing_labels(tmp_path, name):
    path = write(tmp_path, CSV, name)
    store, rejected = read_molecules(path, targets=["toxic, rat", "logP"], ids="id")
    assert store.smiles == ["CCO", "CC", "[Na+].[Cl-]"] and store.names == ["a", "", "d"] and store.name == "assay"
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
        ("canonical_SMILES,y\nCC,1\n", r"no column 'smiles', did you mean 'canonical_SMILES'\? columns: canon"),
        ("smiles,y\nCC,1\nCCC,CI\n", r"assay\.csv: line 3, column 'y': 'CI' is not a number"),
        (
            'smiles,y\n"C\nC",1\nCC,inf\n',
            r"assay\.csv: line 4, column 'y': 'inf' is infinite in float32; leave",
        ),
        ("smiles,y\nCC,1e300\n", r"assay\.csv: line 2, column 'y': '1e300' is infinite in float32"),
        ("smiles,y\n", r"assay\.csv: none of 0 SMILES is a molecule"),
        ("smiles,y\nC,D,1\n", r"assay\.csv: none of 1 SMILES is a molecule; the first, '': 3 cells, the header has 2"),
        (
            'smiles,y\nC,1\n"CO,1\nCN,0\nCC,1\n',
            r"assay\.csv: unexpected end of data, in the row from line 3 on; look for",
        ),
        (
            "smiles;y\nC;1\n",
            r"cells seem to be separated by ';' here, .* by commas, .* tabs: save it so.*: 'smiles;y'",
        ),
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


# --- the cache --------------------------------------------------------------------------------------------------------

MIXED = "smiles,y\nCC,1\nno!,0\nCCC,0\n,1\n"


def test_the_second_time_nothing_is_parsed(tmp_path, monkeypatch):
    path, listed = write(tmp_path, MIXED), tmp_path / "lists" / "rejected.csv"
    first, rejected = read_molecules(path, targets=["y"], rejected=listed)
    text = listed.read_text()
    assert text.splitlines() == ["row,line,id,smiles,reason", "1,3,,no!,not a SMILES string", "3,5,,,empty"]
    listed.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(molecule_files, "in_processes", None)
        again, rejected_again = read_molecules(path, targets=["y"], rejected=listed)
        with pytest.raises(ValueError, match=r"assay\.csv: line 3, 'no!': not a SMILES string; without --strict"):
            read_molecules(path, targets=["y"], strict=True)
    assert rejected_again == rejected and listed.read_text() == text
    assert again.smiles == first.smiles and torch.equal(again.x, first.x) and torch.equal(again.y, first.y)
    assert read_molecules(path)[0].y is None and read_molecules(path, features="ogb")[0].num_features == 9
    write(tmp_path, MIXED + "C,1\n")
    assert len(read_molecules(path, targets=["y"])[0]) == 3  # the file has changed


def test_strict_stops_at_the_first(tmp_path):
    path = write(tmp_path, MIXED)
    with pytest.raises(ValueError, match=r"assay\.csv: line 3, 'no!': not a SMILES string; without --strict"):
        read_molecules(path, strict=True)
    assert not list((cache_folder() / "stores").iterdir())


def test_a_store_without_its_list_is_made_again(tmp_path):
    path = write(tmp_path, MIXED)
    store, rejected = read_molecules(path)
    rejected_beside(store.folder).unlink()
    again, found = read_molecules(path)
    assert found == rejected and again.smiles == store.smiles


def test_a_killed_build_leaves_nothing_half_made(tmp_path, monkeypatch):
    path = write(tmp_path, "smiles\n" + "CC\n" * 20)
    monkeypatch.setattr(molecule_files, "CHUNK", 5)

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(molecule_files, "write_rejected", killed)
        with pytest.raises(KeyboardInterrupt):
            read_molecules(path)
    assert not list((cache_folder() / "stores").iterdir())
    assert len(read_molecules(path, workers=2)[0]) == 20


def test_without_a_cache_all_is_in_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHCL_CACHE", str(write(tmp_path, "a file", "cache")))
    with pytest.warns(UserWarning, match="assay is not kept for next time"):
        store, rejected = read_molecules(write(tmp_path, MIXED), targets=["y"])
    assert store.smiles == ["CC", "CCC"] and [one.line for one in rejected] == [3, 5] and store.folder is None


def test_settings_that_make_no_sense(tmp_path):
    path = write(tmp_path, MIXED)
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        read_molecules(path, workers=0)
    with pytest.raises(ValueError, match="unknown molecule features 'given'"):
        read_molecules(path, features="given")


def test_the_bar_is_drawn_and_gone(tmp_path, capfd):
    store, _ = read_molecules(write(tmp_path, MIXED, "a.csv.gz"), progress=True)
    assert len(store) == 2 and capfd.readouterr().out == ""


# --- labels, load_data ------------------------------------------------------------------------------------------------


def test_tasks_are_told_apart():
    nan = math.nan
    y = torch.tensor([[1, 0.5, nan, 2], [0, nan, nan, 0], [nan, 1, nan, 1]])
    assert task_kinds(y) == ["classification", "regression", "classification", "regression"]
    assert task_kinds(y[:, 0]) == ["classification"] and task_kinds(y[:, 1]) == ["regression"]


TASKS = "name,smiles,active,logP,other\na,CC,1,0.5,\nb,no!,1,0,1\nc,CCC,,2,0\nd,O,0,,\n"


def test_load_data_of_a_molecule_file(tmp_path):
    path = write(tmp_path, TASKS)
    with pytest.warns(UserWarning, match=r"assay\.csv: 1 of 4 rows .* line 3, 'no!': not a SMILES.*rejected\.csv"):
        store = load_data(path, targets=["active"], ids="name")
    assert store.y.dtype == torch.int64 and store.y.tolist() == [1, -1, 0] and store.names == ["a", "c", "d"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y = load_data(path, targets=["logP"]).y
        assert y.dtype == torch.float32 and y[:2].tolist() == [0.5, 2] and bool(y[2].isnan())
        assert load_data(path, targets=["active", "other"]).y.shape == (3, 2)
        assert load_data(path).y is None
        given, ogb = load_data(path), load_data(path, features="ogb")
        assert (given.num_features, ogb.num_features, ogb.edge_attr.shape[1]) == (2, 9, 3)
        assert load_data(path, features="degree").num_features == 1
    empty = write(tmp_path, "smiles,y\nC,\nCC,nan\n", "empty.csv")
    with pytest.raises(ValueError, match=r"empty\.csv: column 'y' has no value at all"):
        load_data(empty, targets=["y"])


def test_columns_are_for_molecule_files_and_ogb_for_molecules():
    with pytest.raises(ValueError, match=r"bbbp: data\.smiles, data\.targets and data\.ids are for molecule files"):
        load_data("bbbp", targets=["p_np"])
    with pytest.raises(ValueError, match=r"data\.features=ogb is for molecules that are read from SMILES"):
        load_data("imdb-binary", features="ogb")
    with pytest.raises(ValueError, match=r"data\.features=ogb is for molecules"):
        with_features(molecules_to_store(["CC"])[0], "ogb")
    store, _ = molecules_to_store(["CC"], features="ogb")
    assert with_features(store, "ogb") is store


def test_the_config_reads_a_molecule_file(tmp_path):
    path = write(tmp_path, "s,active\n" + "".join(f"{'C' * (i + 1)}O,{i % 2}\n" for i in range(40)))
    settings = [f"data.name={path}", "data.smiles=s", "data.targets=active", "train.epochs=1", "encoder.hidden=8"]
    config = load_config("quickstart-molecules", [*settings, "data.split=random", "data.ratios=[0.8,0.1,0.1]"])
    assert config.data.targets == ("active",)
    run = build(config)
    assert [len(part) for part in run.split[0]] == [32, 4, 4] and run.data.y.tolist() == [0, 1] * 20


def test_rows_swallowed_by_a_quote_are_no_molecule(tmp_path):
    """RDKit reads a SMILES up to the first blank, so the two rows would be methane."""
    blocks = read_blocks(write(tmp_path, 'smiles,y\nCO,0\n"C,1\nCC,"0\nCN,1\n'), targets=["y"])
    with pytest.raises(ValueError, match=r"assay\.csv: ',' expected after '\"', in the row from line 3 on"):
        list(blocks)
    store, rejected = read_molecules(write(tmp_path, 'smiles,y\nCO,0\n"C,1\nCC",0\nCN,1\n'), targets=["y"])
    assert store.smiles == ["CO", "CN"]
    assert rejected == [(1, "C,1\nCC", "a line break inside", 3, None)]


def test_whole_numbers_are_ids_where_others_are_missing(tmp_path):
    table = pa.table({"smiles": ["C", "N", "O", "S"], "id": [7.0, None, math.nan, 2.5]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert next(read_blocks(tmp_path / "a.parquet", ids="id")).ids == ["7", None, None, "2.5"]


def test_files_of_the_same_name_size_and_time_are_kept_apart(tmp_path):
    for folder, label in (("a", 1), ("b", 0)):
        (tmp_path / folder).mkdir()
        path = write(tmp_path / folder, f"smiles,y\nCC,{label}\n")
        os.utime(path, (1e9, 1e9))
        assert read_molecules(path, targets=["y"])[0].y.tolist() == [[label]]
