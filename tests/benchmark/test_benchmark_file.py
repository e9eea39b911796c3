"""What a benchmark file stands for, and keys that stay."""

import subprocess
import sys

import pytest

from graphcl.benchmark_config import DataSet, content_of, expand, load_benchmark
from graphcl.config import Config, ConfigError, TrainConfig
from graphcl.read_config import benchmark_names, find_benchmark, load_config
from graphcl.sweep import STRENGTHS, VIEWS, sweep

torch = pytest.importorskip("torch")

from small_benchmark import SMALL, row, run, task
from torch_geometric.data import Data

from graphcl.benchmark import checked_jobs
from graphcl.data.store import GraphStore

# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": []}, r"small.yaml: unknown key 'protocol'; did you mean 'protocols'\?"),
        ({"cells": [{"confg": "dgi"}]}, r"cells\.0: unknown key 'confg'; did you mean 'config'\?"),
        ({"limits": [{"seed": [0]}]}, r"limits\.0: unknown key 'seed'; did you mean 'seeds'\?"),
        ({"cells": [{}]}, r"cells\.0: a cell needs `config` \(a method\), `pretrained` or `baseline`"),
        (
            {"cells": [{"config": "dgi"}, {"config": "dgi"}]},
            r"cells: 'dgi' stands there twice; give one of them a `label`",
        ),
        ({"seeds": [0, 0]}, r"seeds: '0' stands there twice"),
        ({"limits": [{"cells": ["dgii"], "seeds": []}]}, r"limits\.0\.cells: 'dgii' is not in this file; did you mean"),
        ({"limits": [{"seeds": [7]}]}, r"limits\.0\.seeds: '7' is not in this file; it has: 0, 1"),
        ({"overrides": ["train.seed=1"]}, r"overrides: override 'train\.seed=1': a benchmark says this in `seeds`"),
        (
            {"protocols": [{"name": "knn/clean", "overrides": ["train.lr=1"]}]},
            r"may only choose the split \(data\.per_c",
        ),
        ({"cells": []}, r"cells: .* at least 1 item"),
        ({"cells": {"config": "dgi"}}, r"small.yaml: cells: should be a list: \[one, two\], got \{'config': 'dgi'\}$"),
        ({"cells": [5]}, r"^\S*small.yaml: cells: 0: should be keys with values: \{key: value\}, got 5$"),
        ({"encoders": ["gin"]}, r"encoders: should be keys with values: \{key: value\}, got \['gin'\]"),
    ],
)
def test_mistakes_in_a_file_are_told(file, changes, message):
    with pytest.raises(ConfigError, match=message):
        load_benchmark(file(**changes))


def test_a_single_word_or_number_is_a_list_of_it(file, graph):
    words = {"cells": "dgi", "data": graph, "seeds": 5, "protocols": "knn/clean", "overrides": "train.epochs=2"}
    words |= {"encoders": {"wide": "encoder.hidden=4"}, "limits": [{"cells": "dgi", "seeds": 5}]}
    lists = {key: [value] for key, value in words.items() if key not in {"encoders", "limits", "cells"}}
    lists |= {"encoders": {"wide": ["encoder.hidden=4"]}, "limits": [{"cells": ["dgi"], "seeds": [5]}]}
    wanted = load_benchmark(file(**lists, cells=[{"config": "dgi"}]))
    assert load_benchmark(file(**words)) == load_benchmark(file(**words | {"cells": ["dgi"]})) == wanted
    assert [(job.row, job.seed) for job in expand(wanted)] == [("dgi", 5)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocols": ["linear/cleen"]}, r"small: unknown protocol 'linear/cleen'; did you mean 'linear/clean'\?"),
        ({"cells": [{"config": "dgy"}]}, r"no config 'dgy'; did you mean 'dgi'\?"),
        ({"data": ["coraa"]}, r"unknown data set 'coraa'; did you mean cora"),
        ({"cells": [{"config": "dgi", "overrides": ["train.epoch=3"]}]}, r"train: unknown key 'epoch'; did you mean"),
        (
            {"data": ["cora"], "protocols": ["svm-rbf/paper"]},
            r"is for graphs, cora has nodes; leave it out with limits",
        ),
        (
            {"cells": [{"baseline": "raw"}]},
            r"small: baseline 'raw' needs a config .* \{config: dgi, baseline: raw\}",
        ),
    ],
)
def test_what_a_file_names_must_exist(file, changes, message):
    with pytest.raises(ValueError, match=message):
        checked_jobs(load_benchmark(file(**changes)))


def test_unknown_benchmark_names_the_near_one():
    with pytest.raises(ConfigError, match=r"no benchmark 'smoky'; did you mean 'smoke'\?"):
        find_benchmark("smoky")


@pytest.mark.parametrize("name", benchmark_names())
def test_every_shipped_benchmark_stands_for_trainings(name):
    made = load_benchmark(name)
    assert made.name == name, "results/<name>.jsonl belongs to the file of that name"
    assert checked_jobs(made)


def test_a_job_for_each_training_and_first_seeds_first(file):
    jobs = expand(load_benchmark(file()))
    assert [(job.seed, job.row) for job in jobs] == [(0, "dgi"), (0, "gae"), (1, "dgi"), (1, "gae")]
    assert [task.column for task in jobs[0].tasks] == ["linear/clean", "knn/clean"]
    assert [job.config.train.seed for job in jobs] == [0, 0, 1, 1]


def test_overrides_come_from_the_file_the_data_the_encoder_the_cell_and_the_cell_on_its_data(file, graph):
    widths = {"file": 3, "data": 4, "encoder": 5, "cell": 6, "per_data": 7}
    given = {}
    for kind, width in widths.items():
        change = [f"encoder.hidden={width}"]
        given["overrides"] = [*SMALL, "encoder.hidden=3"]
        if kind == "data":
            given["data"] = [{"name": graph, "overrides": change}]
        elif kind == "encoder":
            given["encoders"] = {"narrow": change}
        elif kind == "cell":
            given["cells"] = [{"config": "dgi", "overrides": change}]
        elif kind == "per_data":
            given["cells"] = [{"config": "dgi", "overrides": ["encoder.hidden=6"], "per_data": {graph: change}}]
        (job, *_) = expand(load_benchmark(file(**given)))
        assert job.config.encoder.hidden == width, kind
    assert job.encoder == "narrow"


def test_the_case_of_a_data_set_makes_no_other_key(file):
    lower, upper = (expand(load_benchmark(file(data=[name], seeds=[0], overrides=[]))) for name in ("cora", "Cora"))
    assert [job.hash for job in lower] == [job.hash for job in upper]


def test_limits_leave_out_seeds_of_some_combinations(file):
    limits = [{"cells": ["gae"], "protocols": ["knn/clean"], "seeds": []}, {"cells": ["dgi"], "seeds": [1]}]
    jobs = expand(load_benchmark(file(limits=limits)))
    have = {(job.row, job.seed): [task.column for task in job.tasks] for job in jobs}
    assert have == {
        ("dgi", 1): ["linear/clean", "knn/clean"],
        ("gae", 0): ["linear/clean"],
        ("gae", 1): ["linear/clean"],
    }


def test_a_benchmark_reads_back_what_it_writes(file, tmp_path):
    made = load_benchmark(file(limits=[{"data": None, "seeds": [1]}], encoders={"gin": ["encoder.name=gin"]}))
    (tmp_path / "again.yaml").write_text(made.dump())
    assert load_benchmark(tmp_path / "again.yaml") == made


def test_files_are_read_without_torch():
    code = (
        "import sys, graphcl.benchmark_config as b, graphcl.sweep, graphcl.cli_benchmark\n"
        "b.expand(b.load_benchmark('smoke')); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- keys -------------------------------------------------------------------------------------------------------------


def test_the_hash_is_of_what_changes_the_scores():
    config = load_config("graphcl")
    same = load_config("graphcl", ["name=other", "run.log_every=3", "train.device=cpu", "method.objective=infonce"])
    assert task(config).hash == task(same).hash
    assert task(load_config("graphcl", ["evaluate.probe=linear"])).hash == task(config).hash
    assert "evaluate" not in load_config("dgi").model_dump(exclude_defaults=True)
    assert task(load_config("dgi", ["evaluate.probe=knn"])).hash == task(load_config("dgi")).hash
    for change in (
        "train.lr=0.02",
        "data.features=degree",
        "data.repeats=5",
        "method.tau=0.3",
        "train.seed=1",
        "evaluate.metric=roc_auc",
    ):
        assert task(load_config("graphcl", [change])).hash != task(config).hash, change
    assert len({task(config, name).hash for name in (None, "wl", "raw")}) == 3


def test_an_option_that_is_added_at_its_default_changes_no_key():
    class Wider(TrainConfig):
        momentum: float = 0.9

    class Later(Config):
        train: Wider = Wider()

    config = load_config("graphcl")
    values = config.model_dump()
    later = Later.model_validate(values)
    assert later.train.momentum == 0.9
    assert task(later).hash == task(config).hash
    assert task(later).agrees(row(task(config)))
    values["train"]["momentum"] = 0.5
    assert task(Later.model_validate(values)).hash != task(config).hash


def test_a_row_made_with_another_default_does_not_count():
    config = load_config("graphcl")
    old = row(task(config))
    assert task(config).agrees(old)
    old["config"]["train"]["weight_decay"] = 0.5  # as if this had been the default then
    assert not task(config).agrees(old)


def test_data_of_one_s_own_count_by_what_is_in_the_files(file, tmp_path):
    folder = tmp_path / "mine"
    (folder / "sub").mkdir(parents=True)
    (folder / "edges.csv").write_text("a,b\n" + "".join(f"{i},{(i + 1) % 6}\n" for i in range(6)))
    (folder / "labels.csv").write_text("node,label\n" + "".join(f"{i},{i % 2}\n" for i in range(6)))

    def keys(name=folder):
        jobs = expand(load_benchmark(file(data=[str(name)])))
        return [[job.hash, *(task.hash for task in job.tasks)] for job in jobs]

    first, labels = keys(), (folder / "labels.csv").read_text()
    (folder / "labels.csv").write_text(labels.replace("0,0\n1,1", "0,1\n1,0"))
    swapped = keys()
    assert not {key for job in first for key in job} & {key for job in swapped for key in job}
    (folder / "labels.csv").write_text(labels)
    (folder / "notes.md").write_text("not read")
    assert keys() == first, "the time of writing and files that are not data do not count"
    (folder / "features.csv").write_text("node,x\n" + "".join(f"{i},1\n" for i in range(6)))
    assert keys() != first

    (tmp_path / "one.npz").write_bytes(b"1")
    first = keys(tmp_path / "one.npz")
    (tmp_path / "one.npz").write_bytes(b"2")
    assert keys(tmp_path / "one.npz") != first

    GraphStore.from_graphs([Data(torch.ones(2, 1), torch.tensor([[0, 1], [1, 0]]), y=0)], "s").save(tmp_path / "store")
    first = keys(tmp_path / "store")
    meta = tmp_path / "store" / "meta.json"
    meta.write_text(meta.read_text() + " ")
    assert keys(tmp_path / "store") != first, "it has the checksums of the arrays"
    assert content_of("Cora") is None


def test_a_baseline_does_not_depend_on_the_training():
    first, second = load_config("graphcl"), load_config("graphcl", ["method.tau=0.7", "train.epochs=3"])
    assert task(first, "wl").hash == task(second, "wl").hash
    assert task(first, "wl").agrees(row(task(second, "wl")))
    assert task(first, "wl").hash != task(load_config("graphcl", ["train.seed=3"]), "wl").hash
    assert task(first, "wl").hash != task(load_config("graphcl", ["data.features=degree"]), "wl").hash


def test_encoders_cross_with_methods_alone(file):
    encoders = {"narrow": ["encoder.hidden=4"], "gin": ["encoder.name=gin", "encoder.hidden=4"]}
    small = [override for override in SMALL if "sparse_input" not in override]
    cells = [{"config": "dgi"}, {"baseline": "raw"}]
    path = file(seeds=[0], encoders=encoders, cells=cells, overrides=small)
    jobs = [(job.row, job.encoder) for job in expand(load_benchmark(path))]
    assert sorted(jobs[:2]) == [("dgi", "gin"), ("dgi", "narrow")]
    assert jobs[2:] == [("raw", None)]
    assert not [row for row in run(path) if "error" in row]


# --- the sweep --------------------------------------------------------------------------------------------------------


def test_a_sweep_has_every_pair_and_every_strength():
    pairs, strengths = sweep("graphcl", "pairs"), sweep("graphcl", "strengths")
    assert [one.name for one in pairs.protocols] == ["linear-standard/clean"]
    assert [one.name for one in sweep("grace", "pairs").protocols] == ["linear/clean"]
    views = [job.config.views for job in expand(pairs) if job.seed == 0 and job.baseline is None]
    assert len({frozenset((a[0].name, b[0].name)) for a, b in views}) == len(views) == 15
    cells = [job for job in expand(strengths) if job.seed == 0 and job.baseline is None]
    assert len(cells) == len(VIEWS[1:]) * len(STRENGTHS) == 20
    kept = [job.config.views[1][0].keep for job in cells if job.config.views[1][0].name == "subgraph"]
    assert kept == pytest.approx([1 - strength for strength in STRENGTHS])


STUDY = [
    DataSet(name="nci1", overrides=("data.features=given",)),
    DataSet(name="imdb-binary", overrides=("data.features=ones",)),
]


@pytest.mark.parametrize("kind", ["pairs", "strengths"])
def test_the_shipped_sweeps_are_what_the_command_makes(kind):
    made = sweep("graphcl", kind, data=STUDY)
    assert load_benchmark(f"sweep-{kind}") == made.model_copy(update={"name": f"sweep-{kind}"})


def test_a_sweep_takes_overrides_and_refuses_methods_of_one_view():
    made = sweep("graphcl", "pairs", overrides=["data.name=nci1", "data.features=given", "train.epochs=3"])
    assert {job.data for job in expand(made)} == {"nci1"}
    assert {job.config.train.epochs for job in expand(made)} == {3}
    with pytest.raises(ValueError, match=r"a sweep needs a method with two views; 'dgi' takes 1"):
        sweep("dgi", "pairs")


def test_a_mistake_in_a_sweep_is_told_in_our_words():
    said = (
        r"^sweep of graphcl: overrides: override 'train\.seed=3': a benchmark says this in `seeds`, a sweep by --seeds"
    )
    with pytest.raises(ConfigError, match=said):
        sweep("graphcl", "pairs", overrides=["train.seed=3"])
