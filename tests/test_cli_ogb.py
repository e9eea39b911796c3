"""finetune on OGB's sets by their name: OGB's rows, split, metric, and the score of its Evaluator."""

import csv
import gzip
import json
import math

import numpy as np
import pytest
import torch
from ogb_sets import write_set

from graphcl import cli_molecules
from graphcl.assay import read_ogb
from graphcl.config_encoders import MoleculeGIN as MoleculeGINConfig
from graphcl.data.molecules import molecules_to_store
from graphcl.data.ogb import ogb_molecules, ogb_score, ogb_scores, ogb_split, ogb_store
from graphcl.encoders import MoleculeGIN
from graphcl.hub import ModelCard, PretrainedConfig, save_pretrained
from graphcl.predictor import load_predictor

SHORT = ["--epochs", "2", "--seeds", "2", "--quiet", "--threads", "1", "--lr", "0.01"]
CHAINS = ["C" * (1 + i % 7) + ("N", "O", "S", "P", "[Si]")[i % 5] + "C" * (i // 10) for i in range(60)]
CHAINS[3] = CHAINS[51] = "CN(=O)(C)(C)=O"  # RDKit refuses it: one row of train, one of test
SPLIT = [*range(30), *range(50, 58)], list(range(30, 40)), [*range(40, 50), 58, 59]
SPLIT = [row for row in SPLIT[0] if row != 51], SPLIT[1], [*SPLIT[2], 51]
AMINE = [[int("N" in text)] for text in CHAINS]
TWO = [[int("N" in text), "" if i % 9 == 4 else int("O" in text)] for i, text in enumerate(CHAINS)]
MANY = [[int((i + task) % 3 == 0) if task != 5 or 40 <= i < 50 else 0 for task in range(17)] for i in range(60)]
CARBONS = [[text.count("C") / 2] for text in CHAINS]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with small encoders and sets of OGB: of one task, of two, of many without names, of values."""
    folder = tmp_path_factory.mktemp("ogb")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("GRAPHCL_DATA", str(folder))
        patch.setenv("GRAPHCL_CACHE", str(folder / "cache"))
        for name, labels, columns in (
            ("ogbg-molbace", AMINE, ["active"]),
            ("ogbg-molclintox", TWO, ["amine", "alcohol"]),
            ("ogbg-molesol", CARBONS, ["log S"]),
            ("ogbg-molmuv", MANY, []),
        ):
            write_set(folder / "ogb", name, labels, smiles=CHAINS, split=SPLIT, columns=columns)
        whole = ["CCO" if row in (3, 51) else text for row, text in enumerate(CHAINS)]
        write_set(folder / "ogb", "ogbg-molbbbp", AMINE, smiles=whole, split=SPLIT)
        card = ModelCard(about="a small one", method="graphcl", data="chains")
        for features in ("benchmark", "ogb"):
            torch.manual_seed(0)
            config = MoleculeGINConfig(name="molecule_gin", hidden=16, layers=2, features=features)
            encoder = MoleculeGIN(16, layers=2, features=features)
            save_pretrained(folder / f"small-{features}", encoder, config=config, readout="mean", card=card)
        yield folder


@pytest.fixture
def run(place, command):
    return command


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def by_hand(place, folder, name, labels, features):
    """What OGB's Evaluator gives for the saved model on OGB's test rows, without the code under test."""
    predictor = load_predictor(place / folder)
    y = np.array([[math.nan if cell == "" else float(cell) for cell in row] for row in labels])
    read_here = [row for row in range(60) if row not in (3, 51)]
    if features == "ogb":
        store = ogb_store(name).subset(torch.tensor(read_here))
    else:
        store, _ = molecules_to_store([CHAINS[row] for row in read_here])
    made = np.full(y.shape, np.nan)
    made[read_here] = predictor.predict(store).mean.numpy()
    mean = np.nanmean(y[[row for row in SPLIT[0] if row != 3]], axis=0)
    made = np.where(np.isnan(made), mean, made)
    return ogb_score(name, y[SPLIT[2]], made[SPLIT[2]])


@pytest.mark.parametrize("features", ["benchmark", "ogb"])
@pytest.mark.parametrize(
    ("name", "labels", "targets", "ours", "metric", "head"),
    [
        ("ogbg-molbace", AMINE, ["active"], "roc_auc", "rocauc", "OGB ROC-AUC (%)"),
        ("ogbg-molclintox", TWO, ["amine", "alcohol"], "roc_auc", "rocauc", "OGB ROC-AUC (%)"),
        ("ogbg-molesol", CARBONS, ["log S"], "rmse", "rmse", "OGB RMSE"),
    ],
)
def test_the_report_has_the_score_of_ogbs_evaluator(run, place, name, labels, targets, ours, metric, head, features):
    folder = f"tuned-{name}-{features}"
    code, text = run("finetune", f"small-{features}", name, "-o", folder, *SHORT)
    assert code == 0, text
    kind = "regression" if metric == "rmse" else "classification"
    assert f"{name}: 58 molecules, 2 rejected rows; {kind} of {', '.join(targets)}" in text and head in text
    report = json.loads((place / folder / "report.json").read_text())
    assert report["targets"] == targets and report["metric"] == ours
    assert report["split"] == {"kind": "ogb", "seed": None, "train": 36, "val": 10, "test": 12}
    assert report["ogb"] == {"scored": True, "targets": len(targets), "test": 13, "no_molecule": 1}
    last, clean, ensemble, plain = report["scores"]
    assert [len(row["scores"][f"ogb_{metric}"]) for row in (last, clean, ensemble)] == [2, 2, 1]
    assert "ECFP4" in plain["model"] and f"ogb_{metric}" not in plain["scores"]
    wanted = by_hand(place, folder, name, labels, features)
    assert ensemble["scores"][f"ogb_{metric}"] == [pytest.approx(wanted[metric], rel=1e-4)]
    page = (place / folder / "report.md").read_text(encoding="utf-8")
    assert f"# {', '.join(targets)} of {name}\n" in page and "OGB's own split: train 36, val 10, test 12." in page
    for shown in (text, page):
        assert "by its Evaluator on all 13 rows of its test part; rows that are no molecules (1 of them)" in shown
    rows = read(place / folder / "predictions.csv")
    assert [row["id"] for row in rows] == [f"mol{i}" for i in range(60)]
    assert [row["smiles"] for row in rows] == CHAINS
    assert [i for i, row in enumerate(rows) if row["reason"]] == [3, 51]
    assert [i for i, row in enumerate(rows) if row["split"] == "test"] == [
        i for i in range(40, 60) if i in SPLIT[2][:-1]
    ]
    assert [(row["row"], row["id"]) for row in read(place / folder / "rejected.csv")] == [
        ("3", "mol3"),
        ("51", "mol51"),
    ]


def test_where_every_row_is_a_molecule_its_score_is_ours(run, place):
    code, text = run("finetune", "small-benchmark", "ogbg-molbbbp", "-o", "whole", "--no-baselines", *SHORT)
    assert code == 0, text
    rows = json.loads((place / "whole" / "report.json").read_text())["scores"]
    assert len(rows) == 3
    for row in rows:
        assert row["scores"]["ogb_rocauc"] == pytest.approx(row["scores"]["roc_auc"])


def test_targets_without_names_and_those_that_cannot_be_learned(run, place):
    with pytest.warns(UserWarning, match="tasks y5 of 17 are left out"):
        code, text = run("finetune", "small-ogb", "ogbg-molmuv", "-o", "many", "--no-baselines", *SHORT)
    assert code == 0, text
    report = json.loads((place / "many" / "report.json").read_text())
    assert report["targets"] == [f"y{i}" for i in range(17)] and report["left_out"] == ["y5"]
    assert report["metric"] == "prc_auc" and "OGB AP (%)" in text
    wanted = by_hand(place, "many", "ogbg-molmuv", MANY, "ogb")["ap"]
    assert report["scores"][2]["scores"]["ogb_ap"] == [pytest.approx(wanted, rel=1e-4)]


def test_some_targets_have_no_score_of_the_evaluator(run, place):
    args = ["finetune", "small-benchmark", "ogbg-molclintox", "--no-baselines", *SHORT]
    code, text = run(*args, "--target", "alcohol", "-o", "some")
    assert code == 0, text
    assert "classification of alcohol" in text and "OGB ROC-AUC" not in text
    for shown in (text, (place / "some" / "report.md").read_text(encoding="utf-8")):
        assert "OGB's Evaluator gives no score here: it takes all 2 targets together." in shown
    assert json.loads((place / "some" / "report.json").read_text())["targets"] == ["alcohol"]
    code, text = run(*args, "--target", "alcohol", "--target", "amine", "-o", "both")  # all, in any order
    assert code == 0, text
    assert "classification of amine, alcohol" in text and "OGB ROC-AUC" in text


def test_from_scratch_reads_ogbs_features_and_predicts_files(run, place, monkeypatch):
    scratch = cli_molecules.starts_of("none", scratch=False, features="ogb")["from scratch"]
    assert scratch.encoder == MoleculeGINConfig(name="molecule_gin", features="ogb")
    assert (
        cli_molecules.starts_of("none", scratch=False, features="benchmark")["from scratch"].encoder != scratch.encoder
    )
    given = []

    def small(model, *, scratch, features):
        given.append((model, features))
        config = MoleculeGINConfig(name="molecule_gin", hidden=16, layers=2, features=features)
        return {"from scratch": PretrainedConfig(encoder=config, readout="mean")}

    monkeypatch.setattr(cli_molecules, "starts_of", small)
    code, text = run("finetune", "none", "OGBG_molesol", "--no-baselines", *SHORT)
    assert code == 0, text
    assert given == [("none", "ogb")]
    folder = place / "runs" / "finetune-ogbg-molesol"
    assert load_predictor(folder).features == "ogb"
    code, text = run("finetune", "none", "ogbg-molesol", "--no-baselines", *SHORT)
    assert code == 2 and "holds a model already; replace it with --overwrite" in text
    code, text = run("finetune", "none", "ogbg-molesol", "--no-baselines", "--overwrite", *SHORT)
    assert code == 0, text
    code, text = run(
        "predict", folder, "ogb/ogbg_molesol/mapping/mol.csv.gz", "--id", "mol_id", "-o", "p.csv", "--quiet"
    )
    assert code == 0, text
    for one, other in zip(read(folder / "predictions.csv"), read(place / "p.csv"), strict=True):
        assert (one["id"], one["reason"]) == (other["id"], other["reason"])
        assert float(one["log S_predicted"] or 0) == pytest.approx(float(other["log S_predicted"] or 0), abs=1e-4)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["ogbg-molbase"], "unknown data set 'ogbg-molbase'; did you mean ogbg-molbace"),
        (["ogbg-molbace.csv"], "did you mean ogbg-molbace"),
        (["molbace"], "there is no file 'molbace'; did you mean ogbg-molbace?"),
        (
            ["asay.csv"],
            "there is no file 'asay.csv'; did you mean assay.csv?; an assay is a molecule file or a set of OGB",
        ),
        (["small-ogb"], "'small-ogb' is a folder; an assay is a molecule file"),
        (["none/such.csv"], "there is no file 'none/such.csv'; an assay is"),
        (["ogbg-molbace", "--smiles", "smiles"], "--smiles and --id are for files; ogbg-molbace names its columns"),
        (["ogbg-molbace", "--id", "mol_id"], "--smiles and --id are for files"),
        (
            ["ogbg-molbace", "--split-seed", "1"],
            "--split-seed is for the random splits; ogbg-molbace has OGB's own, leave",
        ),
        (["ogbg-molbace", "--split", "scaffold"], "ogbg-molbace comes with OGB's own split, which its scores are for"),
        (
            ["ogbg-molclintox", "--target", "amin"],
            "ogbg-molclintox has no target 'amin'; did you mean 'amine'?; targets:",
        ),
        (["ogbg-molbace", "--metric", "rmse"], "ogbg-molbace: metric 'rmse' is not for a classification"),
        (["ogbg-molbace", "--strict"], "line 5, 'CN(=O)(C)(C)=O': Explicit valence"),
        (["assay.csv"], "targets must be different columns of assay.csv, at least one (--target NAME), got none"),
    ],
)
def test_mistakes_are_told(run, place, args, said):
    (place / "assay.csv").write_text("smiles,active\nCC,0\nCO,1\n", encoding="utf-8")
    code, text = run("finetune", "small-ogb", *args, "-o", "never", *SHORT)
    assert code == 2 and said in text, text
    assert not (place / "never").exists()


def test_rows_and_labels_stay_together(place):
    for features in ("benchmark", "ogb"):
        data = ogb_molecules("ogbg-molclintox", features)
        wanted = torch.tensor([[math.nan if cell == "" else cell for cell in row] for row in TWO])
        assert torch.allclose(data.labels, wanted, equal_nan=True)
        assert torch.allclose(data.store.y, wanted[data.rows], equal_nan=True)
        assert list(data.store.smiles) == [CHAINS[row] for row in data.rows.tolist()]
        assert list(data.store.names) == [f"mol{row}" for row in data.rows.tolist()]
        official = ogb_split("ogbg-molclintox", 60)
        for ours, theirs in zip(data.split, official, strict=True):
            assert data.rows[ours].tolist() == [row for row in theirs.tolist() if row not in (3, 51)]
        sizes = data.store.node_ptr.diff()
        assert [len(molecules_to_store([text])[0].x) for text in data.store.smiles] == sizes.tolist()
    assert ogb_molecules("ogbg-molclintox", "ogb").store.x.shape[1] == 9


def test_what_was_not_predicted_counts_with_the_mean_of_the_train_labels(place):
    data = ogb_molecules("ogbg-molesol", "ogb")
    train = [CARBONS[row][0] for row in SPLIT[0] if row != 3]
    truth = [CARBONS[row][0] for row in SPLIT[2]]
    none = torch.full((2, 12, 1), math.nan)
    wanted = math.sqrt(sum((sum(train) / len(train) - y) ** 2 for y in truth) / len(truth))
    assert ogb_scores(data, none) == {"rmse": [pytest.approx(wanted)] * 2}


def test_a_set_without_smiles_or_of_other_rows_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHCL_DATA", str(tmp_path))
    monkeypatch.setenv("GRAPHCL_CACHE", str(tmp_path / "cache"))
    folder = write_set(tmp_path / "ogb", "ogbg-molbace", [[i % 2] for i in range(10)])
    assert read_ogb("ogbg-molbace").targets == ("y0",)
    text = gzip.decompress((folder / "mapping" / "mol.csv.gz").read_bytes())
    (folder / "mapping" / "mol.csv.gz").write_bytes(gzip.compress(text.replace(b"mol3", b"mol3\n")))  # a blank line
    with pytest.raises(ValueError, match=r"mol\.csv\.gz has 11 rows for 10 graphs; fetch the archive again"):
        read_ogb("ogbg-molbace")
    (folder / "mapping" / "mol.csv.gz").unlink()
    with pytest.raises(ValueError, match=r"mol\.csv\.gz is missing, which has the SMILES"):
        read_ogb("ogbg-molbace")
