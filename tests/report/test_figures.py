"""Figures of a report: all of them are drawn, also of a study half run, and say what the rows say."""

import json
from unittest.mock import patch

import pytest
from matplotlib import pyplot as plt
from result_rows import CONFIG, row

from graphcl.figures import draw_curves, draw_pairs, draw_report, draw_strengths, labels_of, panels_of


@pytest.mark.parametrize("figure", ["points", "curves", "pairs", "strengths"])
def test_figures_are_drawn(results, tmp_path, figure):
    rows = []
    for one in ("drop_nodes", "perturb_edges"):
        for rate in (0.1, 0.4):
            view = {"name": one, "rate": rate} if one == "drop_nodes" else {"name": one, "drop": rate}
            for budget in (1, 5):
                config = json.loads(json.dumps(CONFIG)) | {"views": [[{"name": "identity"}], [view]]}
                config["data"] |= {"split": "few", "per_class": budget}
                column = "linear/clean" if figure != "curves" else f"linear/clean {budget}"
                of = {"data": "a$_$b", "config": config, "column": column}  # no formula
                rows += [row(f"{one} {rate} $_$", seed=s, values=(rate, rate + s / 50), **of) for s in (0, 1)]
    scratch = {"config": rows[0]["config"], "baseline": "supervised", "untrained": None}
    columns = {row["column"] for row in rows}
    rows += [row("supervised", data="a$_$b", values=(0.3, 0.4), column=column, **scratch) for column in columns]
    made = results(rows)
    made.figure = figure
    files = draw_report(made, tmp_path / "figures")
    assert files
    for file in files:
        assert file.read_bytes().startswith(b"\x89PNG")


def with_views(name, data, second, **changes):
    return row(name, data, config=CONFIG | {"views": [[{"name": "identity"}], [second]]}, **changes)


DROP = {"name": "drop_nodes", "rate": 0.2}
D = with_views("d", "cora", DROP)
HALF_RUN = {
    "a view on one data set only": [D, with_views("s", "citeseer", {"name": "subgraph", "keep": 0.8})],
    "one row, one seed, one fold": [with_views("d", "cora", DROP, values=(0.5,), untrained=(0.4,))],
    "no untrained score": [with_views("d", "cora", DROP, untrained=None)],
    "scratch alone on one data set": [D, row("supervised", "mutag", baseline="supervised", untrained=None)],
    "views without a strength": [D, with_views("i", "cora", {"name": "identity"})],
    "a method of one view": [D, row("dgi", config=CONFIG | {"views": [[DROP]]})],
}


@pytest.mark.parametrize("figure", ["points", "curves", "pairs", "strengths"])
@pytest.mark.parametrize("rows", HALF_RUN.values(), ids=HALF_RUN)
def test_what_is_there_of_a_study_half_run_is_drawn(results, tmp_path, figure, rows):
    made = results(rows)
    made.figure = figure
    files = draw_report(made, tmp_path / "figures")
    bare = figure in {"pairs", "strengths"} and rows is HALF_RUN["no untrained score"]
    assert len(files) == (0 if bare or figure == "curves" else 1)  # a public split has no label budget


def test_rows_of_other_splits_are_not_drawn_as_one(results, tmp_path):
    few = [D["config"] | {"data": CONFIG["data"] | {"split": "few", "per_class": labels}} for labels in (1, 5)]
    rows = [D | {"config": few[0]}, row("supervised", baseline="supervised", config=few[1], untrained=None)]
    made = results(rows)
    entries = list(made.entries("linear/clean", "accuracy").values())
    assert [beside for _, beside, _ in panels_of(entries)] == ["untrained"], "no gain over other training rows"
    with patch("graphcl.figures.draw_curve") as drawn:
        draw_curves(made, tmp_path)
    points = drawn.call_args[0][0]
    assert {name: line[0][0] for name, line in points.items()} == {"d": 1, "supervised": 5}


def test_a_panel_has_rows_and_a_view_one_colour(results):
    made = results([*HALF_RUN["a view on one data set only"], row("supervised", "mutag", baseline="supervised")])
    entries = list(made.entries("linear/clean", "accuracy").values())
    fig = draw_strengths(entries)
    drawn = {
        axes.get_title(): [line.get_color() for line in axes.lines if line.get_marker() == "o"] for axes in fig.axes
    }
    assert drawn == {"cora": ["C0"], "citeseer": ["C1"]}
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["drop_nodes", "subgraph"]
    assert [axes.get_title() for axes in draw_pairs(entries).axes] == [f"{one}: gain over untrained" for one in drawn]
    plt.close("all")


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ({"split": "few", "per_class": 5}, 5),
        ({"split": "rate", "rate": 0.1}, 0.1),
        ({"split": "scaffold_rate", "rate": 0.01}, 0.01),
        ({"split": "scaffold", "rate": 0.01}, 1),
        ({"split": "public"}, None),
    ],
)
def test_a_curve_is_over_the_labels_that_a_split_leaves(data, wanted):
    assert labels_of({"config": {"data": data}}) == wanted


def test_gains_of_the_study_are_over_untrained_and_over_scratch(results):
    from graphcl.figures import from_scratch, gain, strength_of

    config = CONFIG | {"views": [[{"name": "identity"}], [{"name": "subgraph", "keep": 0.4}]]}
    made = results(
        [row("s", values=(0.6,), untrained=(0.5,), config=config), row("x", values=(0.8,), baseline="supervised")]
    )
    entries = list(made.entries("linear/clean", "accuracy").values())
    assert gain(entries[0], {}) == pytest.approx(10)
    assert gain(entries[0], from_scratch(entries)) == pytest.approx(-20)
    assert strength_of(entries[0]) == pytest.approx(0.6)
