"""finetune, predict and embed as a chemist meets them: every row comes back, mistakes are one message."""

import csv
import gzip
import json
import math
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pydantic
import pytest
import torch

import graphcl
from graphcl import assay, cli, cli_molecules, molecule_tables
from graphcl.config import Encoder
from graphcl.config_encoders import GIN as GINConfig
from graphcl.config_encoders import MoleculeGIN as MoleculeGINConfig
from graphcl.data.molecules import molecules_to_store
from graphcl.encoders import GIN, MoleculeGIN
from graphcl.evaluate.embed import embed
from graphcl.evaluate.finetune import Settings
from graphcl.hub import ModelCard, load_pretrained, make_encoder, save_pretrained
from graphcl.predictor import load_predictor

BBBP = Path(graphcl.__file__).parent / "data" / "bundled" / "BBBP.csv"
CARD = ModelCard(about="a small one", method="graphcl", data="bbbp")
SHORT = ["--epochs", "2", "--seeds", "2", "--quiet", "--threads", "1"]


@pytest.fixture
def run(command):
    return command


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a small encoder, and an assay of 120 rows of BBBP: two are no molecules, one has no label."""
    folder = tmp_path_factory.mktemp("assay")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("GRAPHCL_CACHE", str(folder / "cache"))
        torch.manual_seed(0)
        config = MoleculeGINConfig(name="molecule_gin", hidden=16, layers=2)
        save_pretrained(folder / "small", MoleculeGIN(16, layers=2), config=config, readout="mean", card=CARD)
        with BBBP.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        picked = rows[57:63] + rows[100:130] + rows[-84:]
        for number, row in enumerate(picked):
            row["id"], row["size"] = f"m{number:03}", str(len(row["smiles"]) / 10)
        picked[10]["p_np"] = picked[10]["size"] = ""
        with (folder / "assay.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["id", "p_np", "smiles", "size", "name", "num"])
            writer.writeheader()
            writer.writerows(picked)
        yield folder


@pytest.fixture(scope="module")
def tuned(place):
    """The folder that finetune wrote, and what it printed."""
    from typer.testing import CliRunner

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli_molecules.out, "width", 200)
        args = ["finetune", "small", "assay.csv", "--target", "p_np", "--id", "id", "--split", "random", "-o", "model"]
        result = CliRunner().invoke(cli.app, [*args, *SHORT, "--scratch"], catch_exceptions=False)
    assert result.exit_code == 0
    return place / "model", result.output


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_finetune_leaves_model_report_and_a_row_for_every_row(tuned, place):
    folder, text = tuned
    assert "118 molecules, 2 rejected rows; classification of p_np" in text
    for shown in (
        "paper: last epoch",
        "clean: best epoch on validation",
        "from scratch",
        "ECFP4 + logistic",
        "ROC-AUC",
    ):
        assert shown in text
    assert {path.name for path in folder.iterdir()} == assay.FILES
    given, rows = read(place / "assay.csv"), read(folder / "predictions.csv")
    assert [row["id"] for row in rows] == [row["id"] for row in given]
    assert [row["smiles"] for row in rows] == [row["smiles"] for row in given]
    empty = [row for row in rows if row["reason"]]
    assert [row["id"] for row in empty] == ["m002", "m004"] and "Explicit valence" in empty[0]["reason"]
    for row in empty:
        assert {row[key] for key in ("split", "p_np", "p_np_predicted", "p_np_uncertainty", "similarity")} == {""}
    good = [row for row in rows if not row["reason"]]
    assert all(0 <= float(row["p_np_predicted"]) <= 1 and float(row["p_np_uncertainty"]) >= 0 for row in good)
    assert [row["split"] for row in rows].count("train") == 94 and rows[10]["split"] == ""
    assert all(float(row["similarity"]) == 1 for row in good if row["split"] == "train")
    assert any(float(row["similarity"]) < 1 for row in good if row["split"] == "test")
    assert "1 without a label." in " ".join(text.split())
    rejected = read(folder / "rejected.csv")
    assert [(row["row"], row["line"], row["id"]) for row in rejected] == [("2", "4", "m002"), ("4", "6", "m004")]


def test_whole_numbers_that_may_be_classes_are_told(place):
    def assay_of(values):
        rows = [f"{'C' * (1 + i)},{value}" for i, value in enumerate(values)]
        (place / "whole.csv").write_text("\n".join(["smiles,y", *rows]) + "\n", encoding="utf-8")
        return assay.read_assay(place / "whole.csv", ["y"])

    with pytest.warns(UserWarning, match=r"only the values 0, 1, 2 and is learned as a number \(regression\)"):
        assert assay_of([0, 1, 2, "", 1]).kind == "regression"
    for values in ([0, 1, 0.5], range(11), [0, 1]):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assay_of(values)


def test_the_report_has_both_rules_and_the_settings(tuned):
    folder, _ = tuned
    report = json.loads((folder / "report.json").read_text())
    assert [(row["model"], row["rule"].partition(":")[0]) for row in report["scores"]] == [
        *(("small", "paper"), ("small", "clean"), ("small, ensemble", "clean")),
        *(("from scratch", "paper"), ("from scratch", "clean"), ("from scratch, ensemble", "clean")),
        ("ECFP4 + logistic regression", "clean"),
    ]
    assert {len(row["scores"]["roc_auc"]) for row in report["scores"][:2]} == {2}
    assert report["scores"][-1]["scores"].keys() == {"roc_auc", "prc_auc"}
    assert {part: sum(report["counts"]["p_np"][part]) for part in ("train", "val", "test")} == {
        part: report["split"][part] for part in ("train", "val", "test")
    }
    assert report["by_target"]["small"]["p_np"]["roc_auc"] == pytest.approx(report["scores"][1]["scores"]["roc_auc"])
    assert report["split"] == {"kind": "random", "seed": 0, "train": 94, "val": 12, "test": 11}
    assert report["settings"]["dropout"] == 0.5 and report["settings"]["batch_size"] == 32 and report["rejected"] == 2
    assert report["settings"]["precise_norm"] is False
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert page.startswith("# p_np of assay.csv\n") and "| small | paper: last epoch | " in page and " ± " in page
    predictor, rows = load_predictor(folder), read(folder / "predictions.csv")
    from sklearn.metrics import roc_auc_score

    test = [row for row in rows if row["split"] == "test"]
    wanted = roc_auc_score([float(row["p_np"]) for row in test], [float(row["p_np_predicted"]) for row in test])
    assert report["scores"][2]["scores"]["roc_auc"][0] == pytest.approx(wanted)
    assert predictor.config.molecules == 94


def test_predict_gives_what_finetune_gave(run, tuned, place):
    folder, _ = tuned
    code, text = run("predict", folder, "assay.csv", "--id", "id", "-o", "out.csv", "--quiet")
    assert code == 0 and "out.csv: 120 rows (2 no molecules, with the reason), " in text and "molecules/s" in text
    before, rows = read(folder / "predictions.csv"), read(place / "out.csv")
    assert list(rows[0]) == ["id", "smiles", "p_np_predicted", "p_np_uncertainty", "similarity", "reason"]
    for row, old in zip(rows, before, strict=True):
        for key in row:
            if key.startswith("p_np") and row[key]:
                assert float(row[key]) == pytest.approx(float(old[key]), abs=1e-4)
            else:
                assert row[key] == old[key]


def test_blocks_change_nothing_and_leave_no_row_out(tuned, place, monkeypatch):
    predictor = load_predictor(tuned[0])
    told = []
    for size, name in ((7, "small.csv"), (4096, "large.csv")):
        done = molecule_tables.stream(
            "assay.csv",
            name,
            assay.value_columns(["p_np"]),
            lambda store: assay.values(predictor, store).numpy(),
            block=size,
            tell=told.append,
        )
        assert done == (120, 118)
    assert len(told) == math.ceil(120 / 7) + 1
    small, large = read(place / "small.csv"), read(place / "large.csv")
    assert [row["id"] for row in small] == [f"m{row:03}" for row in range(120)]  # the column `id`, unasked
    for row, other in zip(small, large, strict=True):
        assert [row[key] for key in ("id", "smiles", "reason")] == [other[key] for key in ("id", "smiles", "reason")]
        for key in ("p_np_predicted", "p_np_uncertainty", "similarity"):
            assert (row[key] == "") == (other[key] == "")
            assert float(row[key] or 0) == pytest.approx(float(other[key] or 0), abs=1e-4)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_embed_writes_the_embeddings_of_a_molecule_file(run, place, suffix):
    code, text = run("embed", "small", "assay.csv", "--id", "id", "-o", f"z{suffix}", "--quiet")
    assert code == 0 and "120 rows (2 no molecules" in text
    smiles = [row["smiles"] for row in read(place / "assay.csv")]
    store, rejected = molecules_to_store(smiles)
    wanted = embed(load_pretrained("small"), store).numpy()
    kept = [row for row in range(120) if row not in {one.row for one in rejected}]
    if suffix == ".csv":
        rows = read(place / "z.csv")
        assert [row["id"] for row in rows] == [f"m{number:03}" for number in range(120)]
        found = np.array([[float(rows[row][f"e{i}"]) for i in range(16)] for row in kept])
        assert rows[2]["e0"] == "" and "valence" in rows[2]["reason"]
    else:
        table = pq.read_table(place / "z.parquet").to_pydict()
        assert table["e0"][2] is None and "valence" in table["reason"][2] and table["reason"][0] is None
        found = np.array([[table[f"e{i}"][row] for i in range(16)] for row in kept])
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


def test_half_precision_is_near_and_not_the_same(run, tuned, place):
    for precision in ("32", "bf16-mixed"):
        assert run("predict", tuned[0], "assay.csv", "-o", f"p{precision}.csv", "--precision", precision)[0] == 0
        assert run("embed", "small", "assay.csv", "-o", f"e{precision}.csv", "--precision", precision)[0] == 0
        assert run("embed", "small", "--data", "bbbp", "-o", f"d{precision}.npz", "--precision", precision)[0] == 0
    for table, column in (("p", "p_np_predicted"), ("e", "e0")):
        full, low = (
            np.array([float(row[column] or 0) for row in read(place / f"{table}{precision}.csv")])
            for precision in ("32", "bf16-mixed")
        )
        assert 0 < np.abs(full - low).max() < 0.05 * np.abs(full).max()
    full, low = (np.load(place / f"d{precision}.npz") for precision in ("32", "bf16-mixed"))
    key = next(name for name in full.files if full[name].ndim == 2)
    assert full[key].dtype == low[key].dtype == np.float32
    assert 0 < np.abs(full[key] - low[key]).max() < 0.1 * np.abs(full[key]).max()


def test_embed_takes_data_sets_by_name_too(run, place):
    code, text = run("embed", "small", "--data", "bbbp", "-o", "bbbp.npz")
    assert code == 0 and "bbbp.npz: 2039 embeddings of width 16" in text
    code, text = run("embed", "small", "-o", "bbbp.npz")
    assert code == 2 and "'small' has no data of its own; give a molecule file, or --data" in text


def test_other_formats_are_streamed_as_well(run, place):
    smiles = [row["smiles"] for row in read(place / "assay.csv")][:9]
    with gzip.open(place / "list.smi.gz", "wt", encoding="utf-8") as file:
        file.writelines(f"{text} mol-{place}\n" for place, text in enumerate(smiles))
    code, _ = run("embed", "small", "list.smi.gz", "-o", "list.csv", "--quiet")
    assert code == 0
    rows = read(place / "list.csv")
    assert [row["id"] for row in rows] == [f"mol-{place}" for place in range(9)] and rows[2]["reason"]


def test_regression_from_scratch_frozen_and_several_targets(run, place, monkeypatch):
    monkeypatch.setattr(
        cli_molecules,
        "starts_of",
        lambda model, *, scratch, features: {"from scratch": load_pretrained("small").config},
    )
    settings = ["--frozen", "--patience", "3", "--precision", "bf16-mixed"]
    code, text = run("finetune", "none", "assay.csv", "--target", "size", "-o", "sizes", *SHORT, *settings)
    assert code == 0, text
    assert "regression of size" in text and "RMSE" in text and "MAE" in text and "ECFP4 + ridge" in text
    assert "(%)" not in text and "paper: last epoch" in text and "patience" not in text  # it stopped nothing
    rows = read(place / "sizes" / "predictions.csv")
    assert [row["id"] for row in rows] == [f"m{row:03}" for row in range(120)]
    assert rows[10]["size"] == "" and rows[10]["size_predicted"]  # no label, but a prediction
    code, text = run(
        "finetune", "none", "assay.csv", "--target", "size", "--target", "num", "-o", "two", "--no-baselines", *SHORT
    )
    assert code == 0, text
    assert "ECFP4" not in text
    assert json.loads((place / "two" / "report.json").read_text())["settings"]["precise_norm"] is True
    page = (place / "two" / "report.md").read_text(encoding="utf-8")
    assert "each in its own unit" in page and "| target | values, train/val/test | from scratch: RMSE |" in page
    columns = list(read(place / "two" / "predictions.csv")[0])
    assert columns[3:] == [
        *("size", "num", "size_predicted", "size_uncertainty", "num_predicted", "num_uncertainty"),
        *("similarity", "reason"),
    ]


def test_stopped_early_and_with_one_seed_the_report_says_so(run, place):
    still = ["--lr", "1e-12", "--layer-decay", "0.5", "--epochs", "3", "--patience", "1", "--seeds", "1", "--quiet"]
    code, text = run("finetune", "small", "assay.csv", "--target", "p_np", "--split", "random", "-o", "one", *still)
    assert code == 0, text
    assert "last epoch before --patience stopped it" in text and "paper" not in text
    page = (place / "one" / "report.md").read_text(encoding="utf-8")
    assert "Scores on test, of one training on one split:" in page and "±" not in page
    assert "The saved model is one training. In predictions.csv uncertainty is empty" in page
    assert {row["p_np_uncertainty"] for row in read(place / "one" / "predictions.csv")} == {""}


def test_a_model_is_replaced_only_when_told_and_other_folders_never(run, tuned, place):
    args = ["finetune", "small", "assay.csv", "--target", "p_np", "--split", "random", "--no-baselines", *SHORT]
    code, text = run(*args, "-o", tuned[0])
    assert code == 2 and "holds a model already; replace it with --overwrite" in text
    other = place / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("long")
    for extra in ([], ["--overwrite"]):
        code, text = run(*args, "-o", other, *extra)
        assert code == 2 and "holds something else than a fine-tuned model" in text
    assert (other / "thesis.txt").read_text() == "long"
    copied = place / "again"
    assert run(*args, "-o", copied)[0] == 0
    (copied / "report.md").write_text("old")
    assert run(*args, "-o", copied, "--overwrite")[0] == 0
    assert (copied / "report.md").read_text(encoding="utf-8").startswith("# p_np")


def test_nothing_half_written_stays(run, tuned, place, monkeypatch):
    before = set(place.iterdir())
    monkeypatch.setattr(molecule_tables, "BLOCK", 8)

    def broken(store):
        raise RuntimeError("the power went")

    with pytest.raises(RuntimeError, match="the power went"):
        molecule_tables.stream("assay.csv", "half.csv", ["a"], broken)
    assert set(place.iterdir()) == before


def test_mistakes_of_files_are_told(run, tuned, place):
    (place / "bad.csv").write_text("smiles,one,two,odd,text\nxx,1,1,1,a\n,0,1,2,b\n", encoding="utf-8")
    (place / "good.csv").write_text("smiles,one,two,odd,text\nCC,1,1,1,a\nCO,1,1,2,b\n", encoding="utf-8")
    signs = "smiles,both,three,missing\nCC,1,1,1\nCO,-1,0,\nCN,-1,-1,0\nCS,,1,-1\n"
    (place / "signs.csv").write_text(signs, encoding="utf-8")
    (place / "none.csv").write_text("smiles,one\n", encoding="utf-8")
    finetune = ["finetune", "small", *SHORT, "-o", "never"]
    for args, said in (
        ([*finetune, "good.csv", "--target", "tow"], "no column 'tow'"),
        ([*finetune, "good.csv", "--target", "tow"], "did you mean 'two'"),
        (
            [*finetune, "good.csv", "--target", "two"],
            "target 'two' is 1 wherever it is known; there is nothing to learn",
        ),
        ([*finetune, "good.csv", "--target", "odd"], "target 'odd' has two values, 1 and 2; write 0 and 1"),
        ([*finetune, "signs.csv", "--target", "both"], "'both' has only the values -1, 1; write the two classes as 0"),
        (
            [*finetune, "signs.csv", "--target", "three"],
            "-1, 0, 1; write the two classes as 0 and 1, and leave the cell",
        ),
        ([*finetune, "signs.csv", "--target", "missing"], "'missing' has only the values -1, 0, 1;"),
        ([*finetune, "good.csv", "--target", "text"], "'a' is not a number"),
        ([*finetune, "good.csv", "--target", "reason"], "target 'reason' is the name of a column of predictions.csv"),
        ([*finetune, "good.csv", "--target", "one", "--target", "one"], "targets must be different columns"),
        ([*finetune, "bad.csv", "--target", "one"], "is a molecule"),
        ([*finetune, "assay.csv", "--target", "p_np", "--target", "size"], "p_np (classification), size (regression)"),
        ([*finetune, "assay.csv", "--target", "p_np", "--metric", "rmse"], "'rmse' is not for a classification"),
        ([*finetune, "assay.csv", "--target", "p_np", "--split", "scafold"], "did you mean 'scaffold'"),
        ([*finetune, "assay.csv", "--target", "p_np", "--dropout", "1"], "dropout must be in [0, 1)"),
        ([*finetune, "assay.csv", "--target", "p_np", "--strict"], "line 4"),
        (["predict", tuned[0], "none.csv", "-o", "never.csv"], "none.csv: there are no rows"),
        (["predict", tuned[0], "assay.csv", "-o", "never.csv", "--strict"], "line 4"),
        (["predict", tuned[0], "assay.csv", "-o", "never.xlsx"], "must end in .csv or .parquet"),
        (["predict", tuned[0], "assay.csv", "-o", "no/never.csv"], "there is no folder 'no'"),
        (["predict", tuned[0], "good.csv", "-o", "good.csv"], "good.csv would be written over"),
        (["predict", tuned[0], "good.csv", "-o", "never.csv", "--smiles", "smile"], "no column 'smile'"),
        (
            ["predict", tuned[0], "good.csv", "-o", "never.csv", "--precision", "16"],
            "--precision must be 32 or bf16-mixed",
        ),
        (["embed", "small", "good.csv", "-o", "never.csv", "--precision", "half"], "bf16-mixed, got 'half'"),
        (["predict", "small", "good.csv", "-o", "never.csv"], "holds no fine-tuned model"),
        (["embed", "small", "assay.csv", "-o", "never.npz"], "give the molecules by --data"),
        (["embed", "small", "nothing.csv", "-o", "never.csv"], "there is no file 'nothing.csv'"),
        (["embed", "small", "good.csv", "--data", "bbbp", "-o", "never.csv"], "are both given; give one"),
        (["embed", "nosuch", "good.csv", "-o", "never.csv"], "no pretrained encoder 'nosuch'"),
    ):
        code, text = run(*args)
        assert code == 2 and said in text, (args, text)
    assert not (place / "never").exists() and not list(place.glob("never*")) and not list(place.glob(".never*"))
    assert len(read(place / "good.csv")) == 2
    code, text = run("predict", tuned[0], "bad.csv", "-o", "empty.csv")
    assert code == 2 and "none of 2 rows is a molecule; the first: line 2, 'xx'" in text and "empty.csv has" in text
    code, text = run("embed", "small", "bad.csv", "-o", "empty.parquet")
    assert code == 2 and "empty.parquet has every row with its reason" in text
    for rows in (read(place / "empty.csv"), pq.read_table(place / "empty.parquet").to_pylist()):
        assert [row["reason"] for row in rows] == ["not a SMILES string", "empty"]


@pytest.mark.parametrize("name", ["molecule_gin", "molecule_gcn", "molecule_sage", "molecule_gat"])
def test_every_molecule_encoder_and_the_features_of_ogb(run, place, name):
    config = pydantic.TypeAdapter(Encoder).validate_python(
        {"name": name, "hidden": 16, "layers": 2, "features": "ogb", "virtual_node": name == "molecule_gin"}
    )
    encoder = make_encoder(config, None, "here")
    save_pretrained(place / name, encoder, config=config, readout="mean", card=CARD)
    args = ["--split", "random", "--no-baselines", "--layer-decay", "0.5", "-o", f"tuned-{name}"]
    code, text = run("finetune", name, "assay.csv", "--target", "p_np", *args, *SHORT)
    assert code == 0, text
    assert load_predictor(place / f"tuned-{name}").features == "ogb"
    code, text = run("predict", f"tuned-{name}", "assay.csv", "-o", f"{name}.csv", "--quiet")
    assert code == 0, text
    before, after = read(place / f"tuned-{name}" / "predictions.csv"), read(place / f"{name}.csv")
    for one, other in zip(before, after, strict=True):
        assert float(one["p_np_predicted"] or 0) == pytest.approx(float(other["p_np_predicted"] or 0), abs=1e-4)


def test_encoders_that_read_no_molecules_are_refused(run, place):
    config = GINConfig(name="gin", hidden=8, layers=2)
    card = ModelCard(about="x", method="graphcl", data="imdb-binary")
    save_pretrained(place / "gin", GIN(1, 8, layers=2), config=config, readout="sum", card=card, in_dim=1)
    for args in (["finetune", "gin", "assay.csv", "--target", "p_np"], ["embed", "gin", "assay.csv", "-o", "x.csv"]):
        code, text = run(*args)
        assert code == 2 and "'gin' is the encoder 'gin', which does not read molecules" in text


def test_scaffold_splits_hold_together(place):
    read_in = assay.read_assay("assay.csv", ["p_np"], ids="id")
    from graphcl.data.scaffolds import _scaffold

    for how in ("scaffold", "random_scaffold"):
        split = assay.split_assay(read_in, how, 0)
        scaffolds = [{_scaffold(read_in.store.smiles[i]) for i in rows.tolist()} for rows in split]
        assert not scaffolds[0] & scaffolds[1] and not scaffolds[0] & scaffolds[2] and not scaffolds[1] & scaffolds[2]
        assert sum(map(len, split)) == 117  # all with a label
    config = load_pretrained("small").config
    with pytest.raises(ValueError, match="split must be one of scaffold, random_scaffold, random, got 'x'"):
        assay.tune(read_in, {"a": config}, split="x", settings=Settings())


def test_brackets_in_names_are_printed_as_they_are(run, place):
    table = (place / "assay.csv").read_text(encoding="utf-8").replace("p_np", "IC50 [/nM]", 1)
    (place / "units [x].csv").write_text(table, encoding="utf-8")
    args = ["--target", "IC50 [/nM]", "--split", "random", "-o", "units [x]", "--no-baselines"]
    code, text = run("finetune", "small", "units [x].csv", *args, *SHORT)
    assert code == 0 and "units [x].csv: " in text and "classification of IC50 [/nM]" in text, text
    assert "graphcl predict 'units [x]' FILE" in text
    card = ModelCard(about="of [/nM] :x:", method="graphcl", data="bbbp")
    save_pretrained(
        place / "of [x]",
        load_pretrained("small").encoder,
        config=load_pretrained("small").config.encoder,
        readout="mean",
        card=card,
    )
    code, text = run("pretrained", "of [x]")
    assert code == 0 and "of [/nM] :x:" in text


def test_other_data_of_a_run_need_not_have_its_columns(run, place):
    train = ["data.name=assay.csv", "data.targets=[num]", "data.ids=id", "run.dir=labelled", "encoder.hidden=16"]
    code, text = run("pretrain", "quickstart-molecules", *train, "train.max_steps=1", "--quiet")
    assert code == 0, text
    (place / "plain.csv").write_text("structure\nCC\nCCO\n", encoding="utf-8")
    code, text = run("embed", "labelled", "--data", "plain.csv", "--smiles", "structure", "-o", "plain.npz")
    assert code == 0 and "plain.npz: 2 embeddings of width 16" in text, text
    code, text = run("embed", "labelled", "--data", "bbbp", "-o", "bbbp2.npz")
    assert code == 0 and "bbbp2.npz: 2039 embeddings of width 16" in text, text
    code, text = run("embed", "small", "-o", "none.csv")
    assert code == 2 and "'small' has no data of its own; give a molecule file" in text
