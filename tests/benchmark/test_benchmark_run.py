"""Runs that happen once, and what is said of them."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import sklearn

from graphcl.benchmark_config import expand, fingerprint, load_benchmark
from graphcl.read_config import load_config

torch = pytest.importorskip("torch")

from small_benchmark import SMALL, run
from torch_geometric.data import Data

import graphcl
from graphcl import benchmark as runner
from graphcl import benchmark_run as command
from graphcl.benchmark import RULES, by_key, checked_jobs
from graphcl.benchmark_run import run_benchmark
from graphcl.data.splits import make_splits
from graphcl.data.store import GraphStore
from graphcl.encoders import MoleculeGIN
from graphcl.hub import Frozen, ModelCard, save_pretrained
from graphcl.ledger import Ledger, read_rows


def test_every_row_says_what_it_is_and_nothing_runs_twice(file, monkeypatch):
    trainings = []
    fit = runner.fit
    monkeypatch.setattr(runner, "fit", lambda run, **options: trainings.append(run.config) or fit(run, **options))
    path = file()
    rows = run(path)
    assert len(rows) == 8, "2 methods x 2 seeds x 2 protocols"
    assert len(trainings) == 4, "each encoder is trained once for both protocols"
    for one in rows:
        assert "error" not in one, one
        assert {"commit", "torch", "machine", "threads", "seconds", "score_seconds", "peak_memory_mb"} <= one.keys()
        assert [one["numpy"], one["scikit-learn"]] == [np.__version__, sklearn.__version__]
        assert {"scipy", "numba"} <= one.keys()
        assert one["version"] == RULES[one["protocol"]].version
        assert load_config_of(one).train.seed == one["seed"]
        for score in (one["score"], one["untrained"]):
            assert len(score["values"]["accuracy"]) == len(score["valid"]) == 3, "one a split"
            assert score["mean"]["accuracy"] == pytest.approx(np.mean(score["values"]["accuracy"]))
    before = Path("results/small.jsonl").read_bytes()
    assert run(path) == rows
    assert Path("results/small.jsonl").read_bytes() == before
    assert len(run(file(seeds=[0, 1, 2]))) == 12
    assert len(trainings) == 6, "the new seed only"


def load_config_of(row):
    from graphcl.read_config import parse_config

    return parse_config(row["config"])


def test_scores_are_those_of_the_functions_one_would_call(file, graph):
    from graphcl import build, embed, fit, linear_probe

    rows = run(file(seeds=[1], protocols=["linear/clean"], cells=[{"config": "dgi"}]))
    made = build(load_config("dgi", [f"data.name={graph}", "train.seed=1", *SMALL]))
    untrained = linear_probe(embed(made.method, made.data), made.data.y, made.split)
    fit(made, progress=False)
    trained = linear_probe(embed(made.method, made.data), made.data.y, made.split)
    assert rows[0]["score"]["values"]["accuracy"] == list(trained.values)
    assert rows[0]["untrained"]["values"]["accuracy"] == list(untrained.values)


def test_a_protocol_may_take_other_splits_of_the_same_training(file, monkeypatch):
    trainings = []
    fit = runner.fit
    monkeypatch.setattr(runner, "fit", lambda run, **options: trainings.append(run) or fit(run, **options))
    few = [
        {"name": "linear/clean", "overrides": ["data.split=few", f"data.per_class={n}", "data.repeats=2"]}
        for n in (1, 5)
    ]
    rows = run(file(protocols=few, seeds=[0], cells=[{"config": "dgi"}]))
    assert [row["column"] for row in rows] == [f"linear/clean split=few per_class={n} repeats=2" for n in (1, 5)]
    assert len(trainings) == 1
    assert len({row["hash"] for row in rows}) == 2
    assert [len(row["score"]["valid"]) for row in rows] == [2, 2]


def test_link_prediction_hides_the_edges_from_the_training(file, graph, monkeypatch):
    seen = []
    fit = runner.fit
    monkeypatch.setattr(runner, "fit", lambda run, **options: seen.append(run.data.num_edges) or fit(run, **options))
    rows = run(file(protocols=["link-dot/clean", "knn/clean"], seeds=[0], cells=[{"config": "dgi"}]))
    assert [set(row["score"]["values"]) for row in rows] == [{"roc_auc", "average_precision"}, {"accuracy"}]
    whole = np.load(graph, allow_pickle=False)["edge_index"].shape[1]
    assert sorted(seen) == [whole - 2 * (round(0.05 * whole / 2) + round(0.1 * whole / 2)), whole]


def test_three_rules_read_one_fine_tuning_beside_that_of_the_encoder_untrained(file, monkeypatch):
    calls = []
    finetune = runner.finetune
    monkeypatch.setattr(
        runner, "finetune", lambda *given, **options: calls.append(given) or finetune(*given, **options | {"epochs": 3})
    )
    rules = ["finetune/clean", "finetune-last/clean", "finetune/paper"]
    clean, last, paper = run(file(protocols=rules, seeds=[0], cells=[{"config": "dgi"}]))
    assert len(calls) == 2, "trained and untrained"
    for row in (clean, last, paper):
        assert "error" not in row, row
    assert paper["score"]["mean"]["accuracy"] >= last["score"]["mean"]["accuracy"]
    assert not paper["score"]["valid"]
    assert len(clean["score"]["valid"]) == 3
    trained, untrained = (given[0].state_dict() for given in calls)
    assert any(not torch.equal(trained[name], untrained[name]) for name in trained)


def test_baselines_are_rows_of_the_same_tables(file):
    cells = [{"config": "dgi"}, {"baseline": "raw"}, {"baseline": "label-propagation"}]
    protocols = ["linear/clean", "knn/clean", "kmeans/clean", "finetune-last/clean"]
    path = file(cells=cells, seeds=[0], protocols=protocols, overrides=[*SMALL, "train.epochs=1"])
    jobs = {job.row: [task.protocol for task in job.tasks] for job in checked_jobs(load_benchmark(path))}
    assert jobs["raw"] == protocols[:3], "no encoder to fine-tune"
    assert jobs["label-propagation"] == ["label-propagation/clean"] * 3, "by its own rule, wherever accuracy counts"
    rows = run(path)
    assert not [row["error"] for row in rows if "error" in row]
    kept = read_rows(Path("results/small.jsonl"))
    assert sum(row["row"] == "label-propagation" for row in kept) == 1, "computed once"
    assert all(("untrained" in row) == (row["row"] == "dgi") for row in kept)
    from graphcl.report import load_report, table

    made = load_report(str(path))
    text = table(made, "knn/clean", "accuracy")
    assert text.startswith("**knn/clean** (version"), "the protocol of the column, not of a baseline"
    assert "`label-propagation` (label-propagation/clean, version 1): train labels spread" in text
    assert [metric for column, metric in made.tables if column == "kmeans/clean"] == ["nmi", "ari", "accuracy"]


SHAPE = ["encoder.hidden=8", "encoder.layers=2"]


def test_weights_that_are_there_are_scored_beside_a_new_encoder_of_their_shape(file, tmp_path):
    config = load_config("quickstart-molecules", ["encoder.hidden=8", "encoder.layers=2"])
    card = ModelCard(about="none", method="none", data="none")
    encoder = MoleculeGIN(8, layers=2)
    folder = save_pretrained(tmp_path / "ready", encoder, config=config.encoder, readout="mean", card=card)
    cells = [{"config": "quickstart-molecules", "pretrained": str(folder)}]
    path = file(cells=cells, data=["bbbp"], seeds=[3], protocols=["linear/clean"], overrides=["data.split=scaffold"])
    run_benchmark(path, Path("r.jsonl"), 1, retry=False, quiet=True)
    row = read_rows(Path("r.jsonl"))[0]
    assert (row["row"], row["weights"].partition("@")[0]) == ("ready", "ready")
    assert any("GRAPHCL_CACHE/stores/bbbp" in text for text in row["warnings"]), "no path of this machine"
    data = graphcl.load_data("bbbp")
    split = make_splits(data, "scaffold")
    model = graphcl.load_pretrained(folder)
    torch.manual_seed(3)
    fresh = Frozen(MoleculeGIN(8, layers=2), model.readout)
    for key, one in (("score", model), ("untrained", fresh)):
        expected = graphcl.linear_probe(graphcl.embed(one, data), data.y, split, metric="roc_auc", seed=3)
        assert row[key]["values"]["roc_auc"] == pytest.approx(expected.values)
    alone = [
        {"config": "quickstart-molecules", "pretrained": str(folder), "untrained": "no"},
        {"config": "quickstart-molecules", "untrained": "only", "label": "new"},
    ]
    both = file(
        cells=alone, data=["bbbp"], seeds=[3], protocols=["linear/clean"], overrides=["data.split=scaffold", *SHAPE]
    )
    run_benchmark(both, Path("alone.jsonl"), 1, retry=False, quiet=True)
    ready, new = read_rows(Path("alone.jsonl"))
    assert (ready["score"], new["score"]) == (row["score"], row["untrained"])
    assert "untrained" not in ready and "untrained" not in new
    key = load_benchmark(both)
    before = expand(key)[0].hash
    with torch.no_grad():
        encoder.atom.weight.zero_()
    save_pretrained(folder, encoder, config=config.encoder, readout="mean", card=card)
    fingerprint.cache_clear()
    assert expand(key)[0].hash != before, "other weights under the same name are another row"


def test_a_paper_s_rule_has_the_baselines_of_that_rule_alone(file):
    cells = [{"config": "graphcl"}, {"baseline": "wl"}, {"baseline": "wl-paper"}, {"baseline": "statistics"}]
    given = {"data": ["imdb-binary"], "protocols": ["linear/clean", "svm-rbf/paper", "finetune/paper"], "overrides": []}
    jobs = checked_jobs(load_benchmark(file(cells=cells, seeds=[0], **given)))
    columns = {job.row: [task.column for task in job.tasks] for job in jobs}
    assert columns["wl"] == ["linear/clean"]
    assert columns["wl-paper"] == ["svm-rbf/paper"]
    assert columns["statistics"] == ["linear/clean", "svm-rbf/paper"]


def test_a_cell_that_fails_is_recorded_and_run_again_when_asked(file, monkeypatch):
    cells = [{"config": "dgi", "label": "wild", "overrides": ["train.lr=1e30"]}, {"config": "dgi"}]
    path = file(cells=cells, seeds=[0])
    rows = run(path)
    assert [("error" in row, row["row"]) for row in rows] == [(True, "wild")] * 2 + [(False, "dgi")] * 2
    assert rows[0]["error"]["class"] == "NonFiniteLoss"
    assert "lower train.lr" in rows[0]["error"]["message"]
    before = Path("results/small.jsonl").read_bytes()
    run(path)
    assert Path("results/small.jsonl").read_bytes() == before, "failed cells rest"
    rows = run(path, retry=True)
    assert sum("error" in row for row in rows) == 2
    assert len(read_rows(Path("results/small.jsonl"))) == 4


def test_a_protocol_that_fails_leaves_the_others(file):
    short = {"name": "linear/clean", "overrides": ["data.split=few", "data.per_class=500"]}
    rows = run(file(protocols=[short, "knn/clean"], seeds=[0], cells=[{"config": "dgi"}]))
    assert rows[0]["error"]["class"] == "ValueError"
    assert "per_class=500 needs more" in rows[0]["error"]["message"]
    assert rows[1]["score"]["values"]["accuracy"]


def test_link_prediction_trains_for_itself_and_fails_for_itself(file, tmp_path):
    rng = np.random.default_rng(0)
    pairs = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    graphs = [Data(torch.tensor(rng.normal(size=(3, 5)) + i % 2).float(), pairs, y=i % 2) for i in range(30)]
    GraphStore.from_graphs(graphs, "many").save(tmp_path / "many")
    rules = ["knn/clean", "link-dot/clean", "ridge/clean"]
    small = [setting for setting in SMALL if "sparse_input" not in setting]
    path = file(
        cells=[{"config": "graphcl"}], data=[str(tmp_path / "many")], seeds=[0], protocols=rules, overrides=small
    )
    jobs = checked_jobs(load_benchmark(path))
    assert [[task.column for task in job.tasks] for job in jobs] == [["knn/clean", "ridge/clean"], ["link-dot/clean"]]
    assert jobs[0].hash != jobs[1].hash, "two processes can have them at once"
    assert jobs[0].tasks[0].hash == jobs[1].tasks[0].hash == jobs[0].hash, "the keys of rows are the training's"
    failed = {row["column"]: row["error"]["message"] for row in run(path) if "error" in row}
    assert list(failed) == ["link-dot/clean"]
    assert "link prediction is for one graph" in failed["link-dot/clean"]


def test_a_newer_protocol_is_run_again(file, monkeypatch):
    path = file(seeds=[0], protocols=["knn/clean"], cells=[{"config": "dgi"}])
    run(path)
    newer = RULES["knn/clean"]._replace(id="knn/clean/999")
    monkeypatch.setitem(RULES, "knn/clean", newer)
    assert [row["version"] for row in run(path)] == [999]
    assert [row["version"] for row in read_rows(Path("results/small.jsonl"))] == [2, 999]


HOLDER = """
import os, signal, sys
from pathlib import Path
from graphcl.ledger import Ledger
with Ledger(Path('results/small.jsonl')).claim(sys.argv[1]) as ours:
    print(ours, flush=True)
    if not sys.stdin.read():
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_another_process_has_is_left_to_it_and_comes_last_once_that_was_killed(file, capfd):
    path = file(seeds=[0], protocols=["knn/clean"], cells=[{"config": name} for name in ("dgi", "gae", "bgrl")])
    dgi, gae, _ = checked_jobs(load_benchmark(path))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLDER, dgi.hash], **pipes) as other:
        assert other.stdout.readline().strip() == "True"
        assert [row["row"] for row in run(path, quiet=False)] == ["gae", "bgrl"]
        assert "now last" not in capfd.readouterr().err, "it is under way"
        other.communicate("end")
    assert Ledger(Path("results/small.jsonl")).unfinished() == [], "ended, not killed"
    Path("results/small.jsonl").unlink()
    for job in (gae, dgi):
        subprocess.run([sys.executable, "-c", HOLDER, job.hash], input="", text=True, check=False)
    run(path, quiet=False)
    told = f"begun before, and killed (out of memory?); now last: {gae.place}; {dgi.place}\n"
    assert told in capfd.readouterr().err
    assert [row["row"] for row in read_rows(Path("results/small.jsonl"))] == ["bgrl", "gae", "dgi"]
    run(path, quiet=False)
    assert "now last" not in capfd.readouterr().err


def test_ctrl_c_leaves_whole_lines_and_the_rest_is_run_later(file, monkeypatch):
    path = file()
    fit, count = runner.fit, []

    def stopped(run, **options):
        count.append(run)
        if len(count) == 3:
            raise KeyboardInterrupt
        return fit(run, **options)

    monkeypatch.setattr(runner, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(path)
    assert len(read_rows(Path("results/small.jsonl"))) == 4
    monkeypatch.setattr(runner, "fit", fit)
    assert len(run(path)) == 8
    assert len(read_rows(Path("results/small.jsonl"))) == 8


def command_line(*arguments):
    """Exit code and all that a command prints."""
    from typer.testing import CliRunner

    from graphcl.cli import app

    done = CliRunner().invoke(app, list(arguments))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def test_the_commands_run_list_and_report(file, monkeypatch):
    monkeypatch.setattr("signal.signal", lambda number, handler: None)  # pytest keeps its own
    path = str(file(seeds=[0], cells=[{"config": "dgi"}, {"config": "gae", "overrides": ["train.lr=1e30"]}]))
    code, printed = command_line("benchmark", path, "--dry-run")
    assert (code, len(printed.splitlines())) == (0, 2)
    assert not Path("results").exists(), "nothing is run, nothing is written"
    baselines = [{"config": "dgi"}, {"baseline": "raw"}, {"baseline": "label-propagation"}]
    some = {"protocols": ["knn/clean", "finetune-last/clean", "kmeans/clean"], "overrides": [*SMALL, "train.epochs=1"]}
    code, printed = command_line("benchmark", str(file(seeds=[0], cells=baselines, **some)), "--dry-run")
    columns = [line.rpartition(": ")[2] for line in printed.splitlines()]
    assert columns == [", ".join(some["protocols"]), "knn/clean, kmeans/clean", "knn/clean, finetune-last/clean"]
    for wrong, told in (
        ({"protocols": ["linear"]}, "unknown protocol 'linear'; did you mean 'linear/"),
        ({"cells": [{"config": "dgi"}, {"baseline": "wll"}]}, "unknown baseline 'wll'; did you mean 'wl'"),
    ):
        with pytest.raises(ValueError, match=told):
            command_line("benchmark", str(file(**wrong)), "--dry-run")
    path = str(file(seeds=[0], cells=[{"config": "dgi"}, {"config": "gae", "overrides": ["train.lr=1e30"]}]))
    code, printed = command_line("benchmark", path, "--jobs", "1")
    assert code == 3
    assert "2 of 4 rows failed; correct the file and run it again (--retry only repeats them as they are)" in printed
    code, printed = command_line("report", path, "-o", "out")
    assert code == 0 and "`dgi`" in printed and "NonFiniteLoss" in printed
    names = {made.name for made in Path("out").iterdir()}
    assert {"report.md", "report.csv", "small-linear-clean-accuracy.png"} <= names
    with pytest.raises(ValueError, match="--pairs or over --strengths; give one of them"):
        command_line("sweep", "graphcl")
    code, printed = command_line("sweep", "graphcl", "--pairs", "--seeds", "1", "--dry-run", "train.epochs=1")
    assert (code, len(printed.splitlines())) == (0, 16)
    assert "subgraph + subgraph on imdb-binary, seed 0: linear-standard/clean" in printed
    code, printed = command_line("sweep", "graphcl", "--pairs", "--dry-run", "--protocol", "knn/clean")
    assert code == 0 and "subgraph + subgraph on imdb-binary, seed 0: knn/clean" in printed
    earlier = Path("results/sweep-graphcl-imdb-binary-pairs.yaml")
    earlier.write_text("of a finished study")
    with pytest.raises(ValueError, match=r"unknown protocol 'nosuch'"):
        command_line("sweep", "graphcl", "--pairs", "--protocol", "nosuch")
    assert earlier.read_text() == "of a finished study"


@pytest.mark.slow
def test_killed_while_two_processes_work_then_finished_with_no_cell_twice(file):
    path = file(seeds=list(range(10)), protocols=["knn/clean"])
    results = Path("results/small.jsonl")
    command = [sys.executable, "-m", "graphcl", "benchmark", str(path), "--jobs", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
        begun = time.monotonic()
        while not (results.exists() and len(read_rows(results)) > 3) and time.monotonic() < begun + 60:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130
    done = read_rows(results)
    assert 3 < len(done) < 20, "stopped on the way"
    rows = run(path)
    assert len(rows) == len(read_rows(results)) == 20
    assert len(by_key(rows)) == 20
    assert read_rows(results)[: len(done)] == done


def test_memory_and_time_estimates(file, tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    4096000 kB\n")
    assert command.free_memory(tmp_path / "meminfo", tmp_path) == 4000
    (tmp_path / "memory.max").write_text(f"{3 * 2**30}\n")
    (tmp_path / "memory.current").write_text(f"{2**30}\n")
    assert command.free_memory(tmp_path / "meminfo", tmp_path) == 2048
    (tmp_path / "memory.max").write_text("max\n")
    assert command.free_memory(tmp_path / "meminfo", tmp_path) == 4000
    assert command.fitting_jobs([{"peak_memory_mb": 10.0**9}]) == 1
    runner.reset_peak_memory()
    assert 1 < runner.peak_memory() < 10**6

    jobs = checked_jobs(load_benchmark(file()))
    assert command.time_left(jobs, {}, 1) == 0
    rows = by_key(run(file(seeds=[0])))
    for one in rows.values():
        one.update(seconds=10.0, score_seconds=1.0)
    assert command.time_left(jobs, rows, 1) == pytest.approx(2 * 10 + 4 * 1)
    assert command.time_left(jobs, rows, 2) == pytest.approx((2 * 10 + 4 * 1) / 2)
    assert command.time_left(jobs, rows, 8) == pytest.approx(10 + 2 * 1), "one training is not shared"


class Steps:
    """In place of the end of the work: each time the watcher rests, one more row is there."""

    def __init__(self, ledger, rows):
        self.ledger, self.rows = ledger, list(rows)

    def is_set(self):
        return not self.rows

    def wait(self, seconds):
        if row := self.rows.pop(0):
            self.ledger.append(row)


def test_a_log_says_how_far_the_file_is_and_what_is_left(file, monkeypatch, capfd):
    path = file(seeds=[0], protocols=["linear/clean", "knn/clean"])
    rows = run(path)
    ledger = Ledger(Path("again.jsonl"))
    monkeypatch.setattr(command, "typical", lambda rows, field, job: 100.0 * (field == "seconds"))
    ledger.append(rows[0])
    command.watch(checked_jobs(load_benchmark(path)), ledger, 1, Steps(ledger, rows[1:]))
    lines = capfd.readouterr().err.splitlines()
    assert [line.rpartition(" s (")[2] for line in lines] == [
        "2 of 4, about 2 min left)",
        "3 of 4, about 2 min left)",
        "4 of 4)",
    ], "a line for each row that came, none for the one that was there"


def test_the_results_are_read_again_only_when_they_have_changed(file, monkeypatch):
    path = file(seeds=[0], cells=[{"config": "dgi"}])
    rows = run(path)
    ledger, reads = Ledger(Path("again.jsonl")), []
    monkeypatch.setattr(Ledger, "rows", lambda self: reads.append(1) or read_rows(self.path))
    command.watch(checked_jobs(load_benchmark(path)), ledger, 1, Steps(ledger, [*[None] * 9, rows[0], *[None] * 9]))
    assert len(reads) == 2, "at the start, when the file is not there yet, and after the row"
