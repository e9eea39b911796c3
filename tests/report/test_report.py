"""Reports: the figures are those of numpy and scipy, rules stay apart, old rows are marked, documents are current."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from result_rows import CONFIG, row
from scipy import stats

from graphcl import report, stale
from graphcl.benchmark import checked_jobs
from graphcl.benchmark_config import load_benchmark
from graphcl.config import DataConfig
from graphcl.paired import paired
from graphcl.report import as_csv, filled, load_report, markdown, table, unmarked

ROOT = Path(__file__).parent.parent.parent
BLOCK = re.compile(r"<!-- report: (\S+)")


def csv_of(made):
    return list(csv.DictReader(io.StringIO(as_csv(made))))


def test_means_and_spreads_are_those_of_numpy(results):
    rng = np.random.default_rng(0)
    values, untrained = rng.random((4, 10)), rng.random((4, 10))
    made = results([row("a", seed=s, values=values[s], untrained=untrained[s]) for s in range(4)])
    (line,) = csv_of(made)
    assert float(line["mean"]) == pytest.approx(values.mean())
    assert float(line["seed_std"]) == pytest.approx(values.mean(1).std(ddof=1))
    assert float(line["fold_std"]) == pytest.approx(values.std(1, ddof=1).mean())
    assert float(line["untrained"]) == pytest.approx(untrained.mean())
    assert float(line["gain"]) == pytest.approx((values - untrained).mean())
    assert float(line["gain_p"]) == pytest.approx(stats.wilcoxon((values - untrained).ravel()).pvalue)
    assert (line["seeds"], line["folds"], line["gain_pairs"]) == ("4", "10", "40")
    between, within = values.mean(1).std(ddof=1), values.std(1, ddof=1).mean()
    assert f"{100 * values.mean():.1f} ± {100 * between:.1f} ({100 * within:.1f})" in markdown(made)


def test_pairs_are_of_the_same_seed_and_fold(results):
    made = results(
        [row("a", seed=s, values=(0.1 * s + 0.3, 0.5)) for s in (0, 1, 2)]
        + [row("b", seed=s, values=(0.1 * s + 0.2, 0.4)) for s in (2, 1)]  # other order, one seed less
    )
    a, b = csv_of(made)
    assert (a["rival"], a["rival_pairs"], b["rival_pairs"]) == ("b", "4", "4")
    assert float(a["rival_gain"]) == pytest.approx(0.1)
    assert float(b["rival_gain"]) == pytest.approx(-0.1)


def test_tests_that_cannot_be_made_are_left_out(results):
    made = results([row("a", values=(0.5,), untrained=(0.4,)), row("b", values=(0.5,), untrained=None)])
    a, b = csv_of(made)
    assert (a["gain_p"], a["gain_pairs"], b["gain"], b["gain_pairs"]) == ("", "1", "", "0")
    assert paired({0: [0.5, 0.5]}, {0: [0.5, 0.5]}) == (0.0, 1.0, 2)
    assert "nan" not in markdown(made)


def test_ranks_are_averages_over_the_data_sets_that_all_have(results):
    made = results(
        [row(name, "cora", values=(value,)) for name, value in (("a", 0.9), ("b", 0.8), ("c", 0.99))]
        + [row(name, "citeseer", values=(0.5,)) for name in "ab"]
    )
    ranks = {line["row"]: line["rank"] for line in csv_of(made)}
    assert (float(ranks["a"]), float(ranks["b"]), ranks["c"]) == (1.25, 1.75, "")


def on_split(name, data="imdb-binary", seed=0, values=(0.5, 0.6, 0.7), **split):
    config = CONFIG | {"data": CONFIG["data"] | {"name": data} | split}
    return row(name, data, seed, values, untrained=None, config=config)


KFOLD = {"split": "kfold", "repeats": 10}


def test_two_rows_that_no_seed_changes_are_one_pair_a_fold():
    fixed, other = {seed: [0.5, 0.6] for seed in range(3)}, {seed: [0.4, 0.4] for seed in range(3)}
    assert paired(fixed, other)[2] == 2
    assert paired(fixed, other | {2: [0.4, 0.3]})[2] == 6


def test_ready_weights_are_held_against_the_row_that_nothing_trained(results):
    rows = []
    for seed in range(3):
        rows.append(row("scratch", seed=seed, values=(0.4, 0.5 + seed / 100), untrained=None, weights="untrained"))
        rows.append(row("weights", seed=seed, values=(0.6, 0.7), untrained=None, weights="zinc@abc"))
        rows.append(row("ecfp", seed=seed, values=(0.9, 0.9), untrained=None, baseline="ecfp"))
    made = results(rows)
    lines = {line["row"]: line for line in csv_of(made)}
    assert float(lines["weights"]["gain"]) == pytest.approx(0.195) and lines["weights"]["gain_pairs"] == "6"
    assert lines["scratch"]["gain"] == lines["ecfp"]["gain"] == ""
    assert "| `weights` | cora | +19.5 | 0.031 | 6 | `ecfp` |" in markdown(made)
    assert "| `scratch` | cora |  |  |  | `ecfp` |" in markdown(made)


def test_rows_of_different_splits_are_neither_ranked_nor_paired(results):
    rows = [
        on_split("a", **KFOLD),
        on_split("b", split="random", repeats=10),
        on_split("c", split="random", repeats=10, ratios=[0.8, 0.1, 0.1]),
    ]
    text = markdown(made := results(rows))
    assert (
        "Split: 10 folds (`a` on imdb-binary); random 10/10/80, 10 draws (`b` on imdb-binary); random 80/10/10, "
        in text
    )
    assert "Rows of different splits on imdb-binary: this table has no ranks" in text
    assert "rank |" not in text and "best rival" not in text
    for line in csv_of(made):
        assert (line["rank"], line["rival"], line["rival_pairs"]) == ("", "", "0")
    (a, b, _, d) = csv_of(results([*rows, on_split("d", values=(0.4, 0.5, 0.6), **KFOLD)]))
    assert (a["rival"], a["rival_pairs"], d["rival"], b["rival"]) == ("d", "3", "a", ""), "of one split they are"
    assert (a["split"], b["split"]) == ("10 folds", "random 10/10/80, 10 draws")


def test_the_split_of_a_table_is_told_once_where_all_agree(results):
    agreed = [on_split(name, data, **KFOLD) for name in "ab" for data in ("imdb-binary", "nci1")]
    text = markdown(results(agreed))
    assert text.count("Split: 10 folds.") == 1 and "rank |" in text
    text = markdown(results([*agreed, *(on_split(name, "cora", split="public") for name in "ab")]))
    assert "Split: 10 folds (imdb-binary, nci1); public (cora)." in text and "rank |" in text
    own_folds = [one | {"protocol": "svm-rbf/paper", "column": "svm-rbf/paper"} for one in agreed]
    own_folds[0] = own_folds[0] | {"config": CONFIG}
    text = markdown(results(own_folds))
    assert "Split:" not in text and "rank |" in text, "the protocol makes its folds itself"


@pytest.mark.parametrize("split", get_args(DataConfig.model_fields["split"].annotation))
def test_words_of_a_split_tell_what_it_takes(split):
    def words(**settings):
        return stale.split_of(on_split("a", split=split, **settings))

    fixed, draws = {"public", "scaffold"}, {"random", "few", "random_scaffold", "scaffold_rate", "kfold", "rate"}
    assert fixed | draws >= {split}
    assert (words(repeats=3) != words(repeats=4)) == (split in draws)
    assert (words(per_class=3) != words(per_class=4)) == (split == "few")
    assert (words(rate=0.01) != words(rate=0.1)) == (split in {"rate", "scaffold_rate"})
    shared = split == "random" or "scaffold" in split
    assert (words(ratios=[0.6, 0.2, 0.2]) != words(ratios=None)) == shared


def test_of_errors_the_smallest_is_best(results):
    rows = [row("a"), row("b")]
    for one, value in zip(rows, (0.5, 1.5), strict=True):
        one["score"] = {"values": {"rmse": [value]}, "mean": {"rmse": value}, "valid": []}
        one["untrained"] = {"values": {"rmse": [2.0]}, "mean": {}, "valid": []}
    a, b = csv_of(results(rows))
    assert (float(a["rank"]), float(b["rank"]), a["rival"]) == (1, 2, "b")
    assert "0.500" in markdown(results(rows)), "not in percent"


def test_rules_never_share_a_table(results):
    made = results([row("a"), row("a", protocol="svm-rbf/paper", values=(0.7,), untrained=(0.6,))])
    clean, paper = (table(made, *each) for each in made.tables)
    assert "70.0" not in clean and "55.0" not in paper
    assert clean.startswith("**linear/clean** (version 1), accuracy: logistic regression")
    assert paper.startswith("**svm-rbf/paper** (version 1), accuracy: GraphCL's rule")


def test_versions_of_a_protocol_are_not_mixed(tmp_path, results):
    with pytest.raises(
        ValueError, match=r"rows of linear/clean come from different versions .*version 1: a on cora, "
    ) as told:
        results([row("a"), row("b", seed=3, version=2)])
    assert "version 2: b on cora, seed 3" in str(told.value)
    assert "run the benchmark again" in str(told.value)
    assert results([row("a"), row("b", protocol="knn/clean", version=2)]).rows, "versions are each protocol's own"


def test_of_several_rows_the_last_counts(results):
    made = results([row("a", error={"class": "OSError", "message": "disk"}), row("a", values=(0.9, 0.9))])
    assert "90.0" in markdown(made)
    assert "Failed" not in markdown(made)


def test_seeds_of_one_cell_have_one_config_but_for_options_added_later(results):
    older = json.loads(json.dumps(CONFIG))
    del older["evaluate"]["finetune"], older["data"]["smiles"]
    made = results([row("a", seed=0, config=older), row("a", seed=1)])
    assert made.entries("linear/clean", "accuracy")["a", "cora"].values.keys() == {0, 1}


def test_a_results_file_alone_is_reported_with_the_newest_settings_of_each_cell(results):
    older = CONFIG | {"encoder": CONFIG["encoder"] | {"hidden": 7}}
    rows = [
        row("a", seed=0, when="2026-01-03", values=(0.9,)),  # the newest, though not the last
        row("a", seed=0, when="2026-01-01", values=(0.1,), config=older),
        row("a", seed=2, when="2026-01-02", values=(0.1,), config=older),
        row("a", seed=1, when="2026-01-01", values=(0.7,)),
        row("a", data="citeseer", when="2026-01-01", values=(0.3,), config=older),
        row("p", when="2026-01-01", values=(0.1,), weights="p@1", baseline=None),
        row("p", seed=1, when="2026-01-02", values=(0.2,), weights="p@2", baseline=None),
    ]
    text = markdown(made := results(rows))
    entries = made.entries("linear/clean", "accuracy")
    assert {place: entry.values for place, entry in entries.items()} == {
        ("a", "cora"): {0: [0.9], 1: [0.7]},
        ("a", "citeseer"): {0: [0.3]},
        ("p", "cora"): {1: [0.2]},
    }
    assert "\n\n3 rows of older settings were left out." in text
    assert "older settings" not in markdown(results(rows[:1])), "only where there are some"


def test_a_results_file_without_rows_or_with_half_a_row_is_refused_in_words(tmp_path, results):
    with pytest.raises(ValueError, match=r"study\.jsonl has no rows; `graphcl benchmark FILE\.yaml` writes them"):
        results([])
    half = row("a")
    del half["row"], half["score"]
    told = r"study\.jsonl: line 2 has no 'row', 'score', as a row of results has; take it out"
    with pytest.raises(ValueError, match=told):
        results([row("a"), half])
    with pytest.raises(ValueError, match=told):
        load_report("smoke", tmp_path / "study.jsonl")
    failed = row("a", error={"class": "OSError", "message": "disk"})
    del failed["score"]
    assert results([failed]).rows, "a failed row has no score"


def test_what_failed_is_listed(results):
    failed = row("b", seed=2, error={"class": "NonFiniteLoss", "message": "loss is nan\nat step 3"})
    failed.pop("score")
    text = markdown(results([row("a"), failed]))
    assert "- b on cora, seed 2, linear/clean: NonFiniteLoss: loss is nan at step 3" in text
    text = markdown(results([failed]))
    assert "NonFiniteLoss" in text


def test_rows_older_than_a_change_are_marked_and_marks_can_be_taken_away(results, monkeypatch):
    asked = []

    def changes(commit, files):
        asked.append(files)
        return ["graphcl/heads.py"] if commit == "old" else [] if commit.startswith("new") else None

    fresh = markdown(results([row("a", commit="new"), row("b", commit="new"), row("c", commit="new")]))
    assert report.STALE not in fresh
    monkeypatch.setattr(stale, "changes_since", changes)
    stale.changed.cache_clear()
    text = markdown(results([row("a", commit="old"), row("b", commit="new"), row("c", commit="lost")]))
    lines = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    assert "| `a` | 55.0 (7.1) † |" in text and "| `b` | 55.0 (7.1) |" in text
    assert lines.keys() == {"a", "b", "c"}
    assert "† made at old, and what it depends on computes otherwise since: `graphcl/heads.py`: a on cora" in text
    assert "† commit lost is not known here: c on cora" in text
    assert unmarked(text) == fresh
    assert all("graphcl/methods/dgi.py" in files and "augment" in files for files in asked)
    text = markdown(results([row("a", commit="new+")]))
    assert "† made with uncommitted changes of new: a on cora" in text
    text = markdown(results([row("a", commit=None)]))
    assert "† no commit recorded" in text


def test_the_report_of_a_file_has_its_rows_alone_under_its_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = load_benchmark("smoke")
    rows = []
    for job in checked_jobs(wanted):
        for task in job.tasks:
            config = {"config": task.config.model_dump(mode="json"), "hash": task.hash}
            rows.append(row("an old name", job.data, job.seed, protocol=task.protocol, **config))
    rows.append(row("another file's"))
    Path("results").mkdir()
    Path("results/smoke.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[1:]))
    made = load_report("smoke")
    assert {row["row"] for row in made.rows} == {cell.row for cell in wanted.cells}
    assert (len(made.rows), made.missing) == (len(rows) - 2, 1)
    assert markdown(made).startswith(wanted.about)
    assert f"{len(rows) - 2} of {len(rows) - 1} rows are there" in markdown(made)
    Path("results/smoke.jsonl").unlink()
    assert "Not measured yet." in markdown(load_report("smoke"))


def test_a_results_file_that_is_not_there_is_told():
    with pytest.raises(
        ValueError, match=r"no results file 'nowhere\.jsonl'; `graphcl benchmark FILE\.yaml` writes one"
    ):
        load_report("nowhere.jsonl")


def test_blocks_of_a_document_are_written_and_the_rest_is_left(results):
    made = results([row("a"), row("a", protocol="knn/clean")])
    page = (
        "before\n<!-- report: study -->\nold\n<!-- end -->\nbetween\n"
        "<!-- report: study knn/clean -->\n<!-- end -->\n<!-- report: other -->\nkept\n<!-- end -->\n"
    )
    text = filled(page, made)
    assert text.startswith("before\n<!-- report: study -->\n**linear/clean**")
    assert text.count("**linear/clean**") == 1 and text.count("**knn/clean**") == 2
    assert "\nold\n" not in text and "between" in text and "kept" in text
    assert text.count("<details>\n<summary>") == text.count("\n\n</details>") == 3
    assert "<details>" not in markdown(made)
    assert filled(text, made) == text


def test_a_page_is_not_filled_with_nothing(results, tmp_path, monkeypatch):
    made = results([row("a"), row("a", protocol="knn/clean")])
    for page, message in (
        (
            "<!-- report: study knn/claen -->\nold\n<!-- end -->\n",
            "no column 'knn/claen'; have: linear/clean, knn/clean",
        ),
        ("<!-- report: studdy -->\nold\n<!-- end -->\n", "p.md has no block `<!-- report: study -->`"),
        ("<!-- report: study -->\nold\n", "p.md has no block `<!-- report: study -->` with an `<!-- end -->`"),
    ):
        with pytest.raises(ValueError, match=message):
            filled(page, made, "p.md")
    with pytest.raises(ValueError, match=r"study has no rows yet, so p.md is left as it is"):
        filled("<!-- report: study -->\n<!-- end -->\n", replace(made, rows=[]), "p.md")
    with pytest.raises(ValueError, match=r"no results file '.*typo.jsonl'; `graphcl benchmark smoke` writes one"):
        load_report("smoke", tmp_path / "typo.jsonl")


def test_columns_and_names_with_bars_do_not_break_a_table(results):
    text = markdown(results([row("a|b"), row("c")]))
    widths = {
        line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith(("| `", "| method | cora"))
    }
    assert widths == {5, 10}  # the table of scores has rank, the table of tests nine columns


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_in_documents_are_those_of_results(page):
    text = page.read_text(encoding="utf-8")
    names = set(BLOCK.findall(text))
    for name in names:
        made = load_report(name, ROOT / "results" / f"{name}.jsonl")
        text = filled(text, made)
    assert unmarked(text) == unmarked(page.read_text(encoding="utf-8")), (
        f"run: graphcl report NAME --fill {page.relative_to(ROOT)} for {', '.join(sorted(names))}"
    )


def test_every_shipped_study_has_a_block_in_the_results_page():
    from graphcl.read_config import benchmark_names

    text = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    assert set(BLOCK.findall(text)) == set(benchmark_names()) - {"smoke"}
