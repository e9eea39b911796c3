"""Figures of a report: points, curves over the number of labels, and the augmentation study's heat maps and curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.legend import Legend

from graphcl.paired import over_seeds
from graphcl.report import Entry, Report, unit_of

matplotlib.use("Agg")

SCRATCH = "from scratch"  # a GNN trained on the labels alone: the baselines whose name begins with "supervised"


def draw_report(report: Report, folder: Path) -> list[Path]:
    """Draw what the benchmark's `figure` asks for, a file for each protocol or data set that has something to draw.

    Returns the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if report.figure == "curves":
        return draw_curves(report, folder)
    draw = {"points": draw_points, "pairs": draw_pairs, "strengths": draw_strengths}[report.figure]
    made = []
    for column, metric in report.tables:
        entries = report.entries(column, metric)
        if not entries:
            continue
        path = folder / f"{report.name}-{column}-{metric}.png".replace("/", "-").replace(" ", "-")
        fig = draw(list(entries.values()))
        if fig is None:
            continue
        fig.suptitle(f"{column}, {metric}", parse_math=False)
        fig.savefig(path, dpi=150)
        plt.close(fig)
        made.append(path)
    return made


def draw_points(entries: Sequence[Entry]) -> Any:
    """A point for each row with its spread over seeds, grouped by data set; hollow: its own encoder untrained."""
    names, data = unique(entry.row for entry in entries), unique(entry.data for entry in entries)
    fig, axes = plt.subplots(figsize=(max(5.0, 0.3 * len(names) * len(data) + 3), 3.6), layout="constrained")
    for i, name in enumerate(names):
        own = [entry for entry in entries if entry.row == name]
        at, unit = (
            [data.index(entry.data) + 0.8 * (i + 0.5) / len(names) - 0.4 for entry in own],
            unit_of(own[0].metric),
        )
        means, spreads = [unit * entry.mean for entry in own], [unit * spread(entry) for entry in own]
        (drawn, *_) = axes.errorbar(at, means, spreads, fmt="o", markersize=5, capsize=2, label=name)
        for place, entry in zip(at, own, strict=True):
            if entry.untrained:
                level = unit * over_seeds(entry.untrained)[0]
                axes.plot(place, level, "o", markersize=5, markerfacecolor="none", color=drawn.get_color())
    for border in range(1, len(data)):
        axes.axvline(border - 0.5, color="lightgrey", linewidth=0.8)
    axes.set_xticks(range(len(data)), data, parse_math=False)
    axes.set_ylabel("test score; hollow: untrained")
    as_written(fig.legend(loc="outside right upper", fontsize=7))
    return fig


def draw_curves(report: Report, folder: Path) -> list[Path]:
    """For each data set the score of every row over the number (or share) of labels, with the spread over seeds."""
    made = []
    for data in unique(row["data"] for row in report.rows):
        for protocol in unique(report.rule_of(column)["protocol"] for column, _ in report.tables):
            points: dict[str, list[tuple[float, Entry]]] = {}
            for column, metric in report.tables:
                if report.rule_of(column)["protocol"] != protocol:
                    continue
                for entry in report.entries(column, metric).values():
                    budget = labels_of(entry.rows[0])
                    usual = entry.metric == next(iter(entry.rows[0]["score"]["values"]))
                    if entry.data == data and usual and budget is not None:
                        points.setdefault(entry.row, []).append((budget, entry))
            if points:
                made.append(folder / f"{report.name}-{data}-{protocol}.png".replace("/", "-"))
                draw_curve(points, f"{data}, {protocol}", made[-1])
    return made


def draw_curve(points: dict[str, list[tuple[float, Entry]]], title: str, path: Path) -> None:
    """Lines over label budgets; those of the encoders without pretraining are dashed. Bars: spread over seeds."""
    fig, axes = plt.subplots(figsize=(5.5, 3.8), layout="constrained")
    for name, line in points.items():
        line = sorted(line, key=lambda point: point[0])
        at, unit = [budget for budget, _ in line], unit_of(line[0][1].metric)
        means, spreads = [unit * entry.mean for _, entry in line], [unit * spread(entry) for _, entry in line]
        (drawn, *_) = axes.errorbar(at, means, spreads, marker="o", markersize=3, capsize=2, label=name)
        bare = [(budget, over_seeds(entry.untrained)) for budget, entry in line if entry.untrained]
        if bare:
            at, means = [budget for budget, _ in bare], [unit * mean for _, (mean, _, _) in bare]
            spreads = [unit * (between or 0) for _, (_, between, _) in bare]
            axes.errorbar(at, means, spreads, linestyle="--", linewidth=1, capsize=2, color=drawn.get_color())
    axes.set_xscale("log")
    ticks = sorted({budget for line in points.values() for budget, _ in line})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set(xlabel="labels (a class, or share)", ylabel="test score; dashed: not pretrained")
    axes.set_title(title, parse_math=False)
    as_written(axes.legend(fontsize=7))
    fig.savefig(path, dpi=150)
    plt.close(fig)


def as_written(legend: Legend) -> None:
    """Names in a legend may have a $, which begins no formula."""
    for text in legend.get_texts():
        text.set_parse_math(False)


def labels_of(row: dict[str, Any]) -> float | None:
    """The label budget of a row: labels a class, or a share of the training rows."""
    data = row["config"]["data"]
    match data["split"]:
        case "few":
            return float(data["per_class"])
        case "rate" | "scaffold_rate":
            return float(data["rate"])
        case "scaffold":
            return 1.0
    return None


# --- the augmentation study -------------------------------------------------------------------------------------------


def draw_pairs(entries: Sequence[Entry]) -> Any:
    """Heat maps of the gain of every pair of views, over the encoder untrained and over training from scratch."""
    panels = panels_of(entries)
    if not panels:
        return None
    views = unique(name for *_, gains in panels for entry, _ in gains for name in pair_of(entry))
    fig, grid = plt.subplots(1, len(panels), figsize=(4.4 * len(panels), 4.2), layout="constrained", squeeze=False)
    for axes, (data, beside, gains) in zip(grid[0], panels, strict=True):
        matrix = np.full((len(views), len(views)), np.nan)
        for entry, value in gains:
            first, second = (views.index(name) for name in pair_of(entry))
            matrix[first, second] = matrix[second, first] = value
        heat_map(axes, matrix, views)
        axes.set_title(f"{data}: gain over {beside}", fontsize=9, parse_math=False)
    return fig


def heat_map(axes: Axes, gains: np.ndarray, names: Sequence[str]) -> None:
    """A symmetric matrix with its figures; white is no gain."""
    limit = float(np.nanmax(np.abs(gains), initial=0.0)) or 1.0
    axes.imshow(gains, cmap="RdBu", vmin=-limit, vmax=limit)
    for i, j in np.ndindex(*gains.shape):
        if not math.isnan(gains[i, j]):
            dark = abs(gains[i, j]) > 0.6 * limit
            axes.text(j, i, f"{gains[i, j]:+.1f}", ha="center", va="center", fontsize=7, color="wk"[not dark])
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)


def draw_strengths(entries: Sequence[Entry]) -> Any:
    """The gain over the encoder untrained, and over training from scratch, by the strength of each view."""
    panels = panels_of([entry for entry in entries if not has_views(entry) or strength_of(entry) is not None])
    if not panels:
        return None
    views = unique(pair_of(entry)[1] for *_, gains in panels for entry, _ in gains)
    fig, grid = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.6), layout="constrained", squeeze=False)
    drawn: dict[str, Any] = {}
    for axes, (data, beside, gains) in zip(grid[0], panels, strict=True):
        for i, view in enumerate(views):
            line = sorted(
                (strength_of(entry), value, unit_of(entry.metric) * spread(entry))
                for entry, value in gains
                if pair_of(entry)[1] == view
            )
            if line:  # a study half run may have the view on other data sets alone
                at, values, spreads = zip(*line, strict=True)
                drawn[view] = axes.errorbar(at, values, spreads, marker="o", markersize=3, capsize=2, color=f"C{i}")
        axes.axhline(0.0, color="black", linewidth=0.8)
        axes.set(xlabel="strength", ylabel=f"gain over {beside}")
        axes.set_title(data, parse_math=False)
    fig.legend([drawn[view] for view in views], views, loc="outside right upper", fontsize=7)
    return fig


def panels_of(entries: Sequence[Entry]) -> list[tuple[str, str, list[tuple[Entry, float]]]]:
    """Of each data set what gains are over, and the rows trained on two views that have such a gain; none is empty."""
    scratch, panels = from_scratch(entries), []
    for data in unique(entry.data for entry in entries):
        own = [entry for entry in entries if entry.data == data and has_views(entry)]
        over = {
            "untrained": [(entry, gain(entry, {})) for entry in own if entry.untrained],
            SCRATCH: [
                (entry, gain(entry, scratch)) for entry in own if data in scratch and scratch[data].split == entry.split
            ],
        }
        panels += [(data, beside, gains) for beside, gains in over.items() if gains]
    return panels


def has_views(entry: Entry) -> bool:
    """Whether an encoder was trained for the row, on two views."""
    row = entry.rows[0]
    views = row["config"]["views"]
    return entry.baseline is None and not row.get("weights") and len(views) == 2 and all(views)


def pair_of(entry: Entry) -> tuple[str, str]:
    """Names of the two views."""
    first, second = (view[0]["name"] for view in entry.rows[0]["config"]["views"])
    return first, second


def strength_of(entry: Entry) -> float | None:
    """How much the second view takes away, in shares of nodes or edges; None of a view that has no such share."""
    view = entry.rows[0]["config"]["views"][1][0]
    return 1 - view["keep"] if view["name"] == "subgraph" else view.get("drop", view.get("rate"))


def gain(entry: Entry, scratch: dict[str, Entry]) -> float:
    """Gain over training from scratch where that is given, else over the encoder untrained; in percent."""
    beside = scratch[entry.data].mean if scratch else over_seeds(entry.untrained)[0]
    return unit_of(entry.metric) * (entry.mean - beside)


def from_scratch(entries: Sequence[Entry]) -> dict[str, Entry]:
    """By data set the row that was trained on the labels alone."""
    return {entry.data: entry for entry in entries if (entry.baseline or "").startswith("supervised")}


def spread(entry: Entry) -> float:
    """Standard deviation over the seeds; 0 for one seed."""
    return over_seeds(entry.values)[1] or 0.0


def unique(names: Any) -> list[str]:
    """Each once, in order."""
    return list(dict.fromkeys(names))
