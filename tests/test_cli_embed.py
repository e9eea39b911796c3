"""Molecule files from end to end: the file's own ids, rows that are no molecules, what is stopped half-way."""

import csv
import os
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from graphcl import assay, cli_molecules
from graphcl.cli_embed import written
from graphcl.config_encoders import MoleculeGIN as MoleculeGINConfig
from graphcl.data.molecule_files import id_column, read_blocks, read_molecules
from graphcl.encoders import MoleculeGIN
from graphcl.hub import ModelCard, save_pretrained

CARD = ModelCard(about="a small one", method="graphcl", data="chains")
SMILES = ["CCO", "no!", "CCN", "", "CCCC", "c1ccccc1", "CO", "CC=O", "CCS", "OCC"]
IDS = ["3", "0", "1", "9", "", "7", "8", "2", "5", "6"]
TRAIN = ["train.epochs=1", "encoder.hidden=8", "encoder.layers=1", "data.batch_size=4", "run.threads=1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("GRAPHCL_CACHE", str(folder / "cache"))
        torch.manual_seed(0)
        config = MoleculeGINConfig(name="molecule_gin", hidden=8, layers=1)
        save_pretrained(folder / "small", MoleculeGIN(8, layers=1), config=config, readout="mean", card=CARD)
        write(folder / "ids.csv", ["id", "smiles"], zip(IDS, SMILES, strict=True))
        (folder / "list.smi").write_text("".join(f"{text or '-'}\n" for text in SMILES), encoding="utf-8")
        yield folder


@pytest.fixture
def run(place, command):
    return command


def write(path, header, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_column_id_names_the_rows_unasked(run, place):
    code, text = run("embed", "small", "ids.csv", "-o", "out.csv", "--quiet")
    assert code == 0, text
    assert [row["id"] for row in read(place / "out.csv")] == IDS
    rejected = place / "rejected.csv"
    store, _ = read_molecules("ids.csv", rejected=rejected)
    kept = [one for one, text in zip(IDS, SMILES, strict=True) if text not in ("no!", "")]
    assert store.names == kept and [row["id"] for row in read(rejected)] == ["0", "9"]
    assert read_molecules("ids.csv", ids="id")[0].folder == store.folder


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet"])
def test_only_one_column_of_exactly_that_name_is_taken(tmp_path, name):
    import gzip

    import pyarrow as pa

    def found(header):
        if name.endswith("parquet"):
            pq.write_table(pa.Table.from_arrays([pa.array(["C"])] * len(header), names=header), tmp_path / name)
        else:
            text = (",".join(header) + "\n" + ",".join("C" * len(header)) + "\n").encode("utf-8-sig")
            (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
        return id_column(tmp_path / name)

    assert found(["smiles", "id"]) == found(["id", "smiles"]) == "id"
    assert found(["smiles", "ID"]) is found(["smiles", "mol_id"]) is None
    assert next(read_blocks(tmp_path / name)).ids == [None]
    assert found(["id", "smiles", "id"]) == "id"
    with pytest.raises(ValueError, match=r"column 'id' stands there 2 times; rename all but one"):
        next(read_blocks(tmp_path / name))


def test_what_cannot_be_read_is_told_by_who_reads_the_rows(tmp_path):
    for name in ("a.csv", "a.csv.gz", "a.parquet", "a.smi", "none.csv"):
        if name != "none.csv":
            (tmp_path / name).write_bytes(b"\xff\xfe\x00")
        assert id_column(tmp_path / name) is None


def test_a_file_that_comes_while_finetune_trains_stays(run, place, monkeypatch):
    rows = [(f"m{row}", "C" * (1 + row % 9) + "NO"[row % 2], row % 2) for row in range(40)]
    write(place / "assay.csv", ["id", "smiles", "amine"], [*rows, ("bad", "no!", 1), ("", "no!", 1)])
    tune, there = assay.tune, place / "model"

    def slow(*args, **kwargs):
        (there / came).write_text("mine")
        return tune(*args, **kwargs)

    monkeypatch.setattr(assay, "tune", slow)
    short = ["--split", "random", "--epochs", "1", "--seeds", "1", "--no-baselines", "--quiet", "--threads", "1"]
    args = ["finetune", "small", "assay.csv", "--target", "amine", "-o", there, *short]
    came = "thesis.txt"
    code, text = run(*args)
    assert code == 0, text
    assert (there / came).read_text() == "mine" and {path.name for path in there.iterdir()} == assay.FILES | {came}
    assert [row["id"] for row in read(there / "predictions.csv")] == [*(row[0] for row in rows), "bad", ""]
    (there / came).unlink()
    assert run(*args, "--overwrite")[0] == 0 and (there / came).read_text() == "mine"

    there, came = place / "other", "report.md"
    args[args.index("-o") + 1] = there
    code, text = run(*args)
    assert code == 2 and "report.md was written while this model trained" in text and "--output" in text
    assert (there / came).read_text() == "mine"


def test_the_error_of_the_training_is_the_one_that_is_told(tmp_path):
    folder = tmp_path / "model"
    with pytest.raises(RuntimeError, match="the loss is nan"), cli_molecules.kept_if_done(folder, resume=False):
        (folder / "thesis.txt").write_text("long")
        raise RuntimeError("the loss is nan")
    assert (folder / "thesis.txt").read_text() == "long"


def test_pretrain_lists_rejected_rows_or_stops_at_the_first(run, place):
    args = ["pretrain", "molecules", "data.name=list.smi", "run.dir=pretrained", *TRAIN]
    code, text = run(*args, "--strict")
    assert code == 2 and "list.smi: line 2, 'no!': not a SMILES string" in text and not (place / "pretrained").exists()
    with pytest.warns(UserWarning, match="2 of 10 rows are no molecules"):
        code, text = run(*args)
    assert code == 0, text
    assert [row["line"] for row in read(place / "pretrained" / "rejected.csv")] == ["2", "4"]
    with pytest.warns(UserWarning, match="2 of 10 rows"):
        assert run(*args, "--overwrite")[0] == 0  # the list is a file of a run
    code, text = run(*args[:2], "data.name=bbbp", "--strict", "run.dir=strict")
    assert code == 2 and "--strict is for molecule files; data.name=bbbp is none" in text

    code, text = run("embed", "pretrained", "-o", "own.parquet", "--quiet")  # the run's own data
    assert code == 0 and "own.parquet: 10 rows (2 no molecules, with the reason)" in text
    table = pq.read_table(place / "own.parquet").to_pydict()
    assert table["smiles"] == [text or "-" for text in SMILES] and table["id"] == [str(row) for row in range(10)]
    assert [bool(reason) for reason in table["reason"]] == [row in (1, 3) for row in range(10)]
    with pytest.warns(UserWarning, match="2 of 10 rows are no molecules and are left out"):
        assert run("embed", "pretrained", "-o", "own.npz")[0] == 0
    with np.load(place / "own.npz") as file:
        kept = [one for one, reason in zip(table["e0"], table["reason"], strict=True) if reason is None]
        assert file["embedding"][:, 0] == pytest.approx(np.array(kept), abs=1e-5)


def test_a_run_is_not_embedded_into_its_own_data(run, place):
    graph = {"edge_index": np.array([[0, 1, 2], [1, 2, 0]]), "x": np.ones((3, 2), np.float32)}
    np.savez(place / "g.npz", **graph)
    assert run("pretrain", "dgi", "data.name=g.npz", "run.dir=g", "train.epochs=1", "--quiet")[0] == 0
    before = (place / "g.npz").read_bytes()
    for how in ([], ["--data", "g.npz"]):
        code, text = run("embed", "g", *how, "-o", place / "g.npz")
        assert code == 2 and "g.npz is the data and would be written over; choose another output" in text
    assert (place / "g.npz").read_bytes() == before and run("embed", "g", "-o", "z.npz")[0] == 0


def test_data_that_is_a_molecule_file_keeps_every_row(run, place):
    for name in ("one.csv", "two.csv"):
        how = ["ids.csv"] if name == "one.csv" else ["--data", "ids.csv"]
        assert run("embed", "small", *how, "-o", name, "--quiet")[0] == 0
    assert (place / "one.csv").read_bytes() == (place / "two.csv").read_bytes()
    code, text = run("embed", "small", "--data", "ids.csv", "-o", "three.csv", "--strict", "--quiet")
    assert code == 2 and "'no!'" in text and not (place / "three.csv").exists()
    code, text = run("embed", "small", "--data", "bbbp", "--smiles", "x", "-o", "three.npz")
    assert code == 2 and "--smiles, --id and --strict are for molecule files" in text


def test_networks_of_other_features_keep_every_row_too(run, place):
    graphs = ["data.features=degree", "encoder.name=gin", "data.name=list.smi", "run.dir=degrees"]
    with pytest.warns(UserWarning):
        code, text = run("pretrain", "graphcl", *graphs, "data.targets=[]", *TRAIN)
    assert code == 0, text
    code, text = run("embed", "degrees", "-o", "degrees.csv", "--quiet")
    assert code == 0, text
    rows = read(place / "degrees.csv")
    assert [bool(row["reason"]) for row in rows] == [row in (1, 3) for row in range(10)]
    assert rows[0]["e0"] == rows[2]["e0"] != rows[4]["e0"]  # CCO and CCN have the same degrees


def test_a_run_whose_encoder_is_not_all_that_embeds_still_does(run, place):
    graphs = ["method={name: gae, variational: true}", "views=[]", "data.name=list.smi", "run.dir=gae"]
    with pytest.warns(UserWarning, match="2 of 10 rows"):
        code, text = run("pretrain", "molecules", *graphs, *TRAIN)
        assert code == 0, text
        code, text = run("embed", "gae", "-o", "gae.npz", "--quiet")
    assert code == 0 and "8 embeddings" in text, text


def test_sigterm_leaves_nothing_half_written(place):
    before = signal.getsignal(signal.SIGTERM)
    there = set(place.iterdir())

    def score(store):
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("still there")

    assert not any(f".{os.getpid()}" in path.name for path in there)
    with pytest.raises(KeyboardInterrupt):
        written(Path("ids.csv"), Path("half.csv"), ["a"], score, threads=1, quiet=True)
    assert set(place.iterdir()) == there and signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("suffix", [".csv", ".npz"])
def test_a_folder_is_no_output(run, place, suffix):
    (place / f"adir{suffix}").mkdir()
    code, text = run(
        "embed", "small", *(["ids.csv"] if suffix == ".csv" else ["--data", "bbbp"]), "-o", f"adir{suffix}"
    )
    assert code == 2 and f"'adir{suffix}'" in text and "is a folder" in text
    assert not list((place / f"adir{suffix}").iterdir())
