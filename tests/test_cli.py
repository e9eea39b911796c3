"""The command line as a user meets it: a short run end to end, and each mistake in one message with exit code 2."""

import json
import os
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
import yaml

from graphcl import cli
from graphcl.read_config import load_config

SHORT = ["train.epochs=2", "data.repeats=1", "encoder.hidden=16", "encoder.out=8"]


@pytest.fixture
def graphcl(command, monkeypatch, tmp_path):
    """Calls the command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return command


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of two epochs."""
    folder = tmp_path_factory.mktemp("runs") / "short"
    command = [sys.executable, "-m", "graphcl", "pretrain", "quickstart", *SHORT, f"run.dir={folder}", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_pretrain_leaves_everything_it_promises(finished):
    folder, printed = finished
    for name in ("pretrained", "untrained", "raw features", "accuracy", "linear/clean/1: logistic regression"):
        assert name in " ".join(printed.split())
    for name in ("config.yaml", "metrics.jsonl", "model.safetensors", "environment.json", "scores.json"):
        assert (folder / name).stat().st_size > 0, name
    for name in ("curve.png", "embedding.png", "views.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG"), name
    assert load_config(folder / "config.yaml").train.epochs == 2
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["seed"] == 0 and "torch" in json.dumps(environment)


def test_evaluate_gives_the_scores_of_the_run(finished, graphcl, tmp_path):
    folder, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    before = json.loads((copy / "scores.json").read_text())
    code, text = graphcl("evaluate", str(copy))
    assert code == 0 and "untrained" in text
    assert json.loads((copy / "scores.json").read_text()) == before
    code, text = graphcl("evaluate", str(copy), "evaluate.probe=knn")
    assert code == 0 and "k-NN" in text and "knn-weighted/clean/2: votes" in " ".join(text.split())
    assert json.loads((copy / "scores.json").read_text()) == before


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_embed_writes_rows_in_order(finished, graphcl, tmp_path, suffix):
    folder, _ = finished
    code, text = graphcl("embed", str(folder), "-o", f"out{suffix}")
    assert code == 0, text
    if suffix == ".npz":
        with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
            ids, z = file["id"], file["embedding"]
    else:
        import pyarrow.parquet as pq

        table = pq.read_table(tmp_path / "out.parquet")
        ids = table["id"].to_numpy()
        z = np.stack([table[f"e{i}"].to_numpy() for i in range(8)], axis=1)
    assert z.shape == (2708, 8) and np.array_equal(ids, np.arange(2708))
    from graphcl import embed, load_run

    run = load_run(folder)
    assert np.allclose(embed(run.method, run.data).numpy(), z, atol=1e-6)


def test_embed_of_other_data_needs_the_same_features(finished, graphcl):
    folder, _ = finished
    code, text = graphcl("embed", str(folder), "--data", "imdb-binary", "-o", "out.npz")
    assert code == 2 and "error:" in text and "Traceback" not in text


def test_embed_takes_data_of_any_size_and_without_splits(graphcl, tmp_path):
    rng = np.random.default_rng(0)
    for name, n in (("big", 60), ("small", 20)):
        ends = rng.integers(0, n, (2, 2 * n))
        labels = {"y": np.arange(n) % 2} if name == "small" else {}
        np.savez(tmp_path / f"{name}.npz", edge_index=ends, x=rng.random((n, 4)).astype(np.float32), **labels)
    short = ["data.name=big.npz", "train.epochs=2", "encoder.hidden=8", "encoder.out=4", "--quiet"]
    pcl = ["method.clusters=[2,3]", "method.warmup_epochs=1", "method.queue=32"]
    code, text = graphcl("pretrain", "pcl", *short, *pcl, "run.dir=run")
    assert code == 0, text
    code, text = graphcl("embed", "run", "--data", "small.npz", "-o", "small_z.npz")
    assert code == 0 and "20 embeddings" in text, text


def test_another_encoder_takes_its_own_settings(graphcl):
    code, text = graphcl("pretrain", "grace", "encoder.name=gat", "--dry-run")
    assert code == 0 and "sparse_input" not in text and "name: gat" in text
    code, text = graphcl("pretrain", "grace", "encoder.out=4", "encoder.name=gin", "--dry-run")
    assert code == 2 and "unknown key 'out'" in text


def test_a_start_that_failed_may_be_tried_again(graphcl, tmp_path):
    quick = [*SHORT, "run.dir=run", "--quiet"]
    code, text = graphcl("pretrain", "quickstart", *quick, "train.group_lr={views: 0.1}")
    assert code == 2 and "unknown group" in text, text
    code, text = graphcl("pretrain", "quickstart", *quick)
    assert code == 0, text


def test_a_warning_is_one_line_without_its_place(monkeypatch):
    shown, before = [], warnings.formatwarning
    monkeypatch.setattr(
        cli, "app", lambda: shown.append(warnings.formatwarning("one\n  two", UserWarning, "cli.py", 7))
    )
    cli.main()
    monkeypatch.setenv("GRAPHCL_DEBUG", "1")
    cli.main()
    assert shown[0] == "warning: one two\n" and "cli.py:7" in shown[1] and warnings.formatwarning is before


def test_dry_run_prints_the_whole_config(graphcl, tmp_path):
    code, text = graphcl("pretrain", "grace", "train.epochs=5", "--dry-run")
    assert code == 0
    assert yaml.safe_load(text)["train"]["epochs"] == 5
    assert list(tmp_path.iterdir()) == []


def test_lists(graphcl):
    assert "bgrl" in graphcl("methods")[1]
    assert "tau" in graphcl("methods", "grace")[1]
    assert "drop_nodes" in graphcl("augmentations")[1]
    shown = graphcl("augmentations", "perturb_edges")[1]
    assert "number, 0 to 1" in shown and "true" in shown
    assert "required" in graphcl("augmentations", "one_of")[1]
    assert "cora" in graphcl("datasets")[1]
    rules = graphcl("protocols")[1]
    assert all(name in rules for name in ("svm-rbf/paper", "link-dot/clean", "finetune/clean", "label-propagation"))
    for command in ("pretrain", "evaluate", "embed", "methods", "augmentations", "datasets", "protocols"):
        code, text = graphcl(command, "--help")
        assert code == 0 and "Example" in text


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["pretrain", "grcae"], "no config 'grcae'; did you mean 'grace'?"),
        (["pretrain", "no/such.yaml"], "no config file 'no/such.yaml'"),
        (["pretrain", "grace", "train.epoch=5"], "unknown key 'epoch'; did you mean 'epochs'?"),
        (["pretrain", "grace", "train.epochs=many"], "train: epochs: input should be a valid integer"),
        (["pretrain", "grace", "method.tau=0"], "tau: input should be greater than 0"),
        (["pretrain", "grace", "data.name=corra"], "did you mean cora"),
        (["pretrain", "grace", "data.name=../../etc/nothing"], "neither a data set nor a path that exists"),
        (["pretrain", "grace", "--resume"], "nothing to resume"),
        (["pretrain", "grace", "--resume", "--overwrite"], "give one of them"),
        (["pretrain", "grace", "data.name=imdb-binary", "data.features=ones"], "method 'grace' embeds nodes"),
        (["pretrain", "graphcl", "data.features=given"], "no node features"),
        (["pretrain", "graphcl", "data.batch_size=1"], "contrasts the graphs of a batch"),
        (["pretrain", "graphcl", "readout=null"], "`readout` is missing"),
        (["pretrain", "moco", "method.queue=4000"], "longer than the data set"),
        (["pretrain", "grace", "evaluate.metric=roc_auc"], "metric='accuracy'"),
        (["pretrain", "grace", "train.seed=5000000000"], "seed: input should be less than"),
        (["pretrain", "grace", "train.precision=16-mixed", "train.device=cpu"], "needs a CUDA device"),
        (["evaluate", "nowhere"], "is not a run folder"),
        (["embed", "nowhere", "-o", "out.csv"], "must end in .npz or .parquet"),
        (["embed", "nowhere", "-o", "no/such/out.npz"], "there is no folder"),
        (["methods", "grce"], "did you mean 'grace'?"),
    ],
)
def test_mistakes_end_in_one_message(graphcl, args, told):
    code, text = graphcl(*args)
    assert code == 2 and told in text and "Traceback" not in text, text


def test_an_earlier_run_is_never_written_over(finished, graphcl, tmp_path):
    folder, _ = finished
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    code, text = graphcl("pretrain", "quickstart", *SHORT, f"run.dir={folder}")
    assert code == 2 and "--resume" in text and "--overwrite" in text
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    code, text = graphcl("pretrain", "quickstart", *SHORT, "run.dir=mine", "--overwrite")
    assert code == 2 and "something else than a run" in text
    assert (tmp_path / "mine" / "thesis.tex").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_run_folder(graphcl, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    code, text = graphcl("pretrain", "quickstart", *SHORT, "run.dir=locked/run")
    assert code == 2 and "locked" in text and "Traceback" not in text


def test_run_folder_that_is_a_file(graphcl, tmp_path):
    (tmp_path / "taken").write_text("")
    code, text = graphcl("pretrain", "quickstart", *SHORT, "run.dir=taken")
    assert code == 2 and "taken" in text and "Traceback" not in text


def test_weights_that_do_not_fit(finished, graphcl, tmp_path):
    folder, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    code, text = graphcl("evaluate", str(copy), "encoder.hidden=32")
    assert code == 2 and "Traceback" not in text and "but this model has" in text
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    code, text = graphcl("evaluate", str(copy))
    assert code == 2 and "model.safetensors" in text and "Traceback" not in text
    torch.save(torch.nn.Linear(2, 2), copy / "model.safetensors")  # a pickle: refused unread
    code, text = graphcl("evaluate", str(copy))
    assert code == 2 and "model.safetensors" in text and "Traceback" not in text
    (copy / "model.safetensors").unlink()
    code, text = graphcl("evaluate", str(copy))
    assert code == 2 and "model.safetensors" in text


def test_configs_are_found_in_an_installed_package(tmp_path):
    """Beside the package in a checkout, inside it in a wheel: both are looked at."""
    from graphcl import read_config

    assert (read_config.config_folder() / "grace.yaml").is_file()
    package = tmp_path / "graphcl"
    package.mkdir()
    shutil.copytree(read_config.config_folder(), package / "configs")
    source = (read_config.__file__, package / "read_config.py")
    shutil.copy(*source)
    code = "import sys; sys.path.insert(0, sys.argv[1]); import importlib.util as u; "
    code += "s = u.spec_from_file_location('r', sys.argv[1] + '/graphcl/read_config.py'); m = u.module_from_spec(s); "
    code += "s.loader.exec_module(m); print(m.config_folder())"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(package / "configs"), done.stderr
