"""The augmentation study of GraphCL as a benchmark file: every pair of views, or every strength of a view.

Source: You et al., 2020, "Graph Contrastive Learning with Augmentations", figures 2 and 4. `graphcl benchmark` runs the
file like any other, and `graphcl report` draws its heat maps or curves. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from graphcl.benchmark_config import Benchmark, Cell, DataSet, Scoring, fields_at
from graphcl.read_config import config_error, load_config

VIEWS = ("identity", "drop_nodes", "perturb_edges", "mask_attributes", "subgraph")
PAIR_STRENGTH = 0.2  # GraphCL's
STRENGTHS = (0.1, 0.2, 0.4, 0.6, 0.8)


def view(name: str, strength: float) -> dict[str, Any]:
    """A transform that takes away (or hides) a share `strength` of the nodes or edges."""
    settings: dict[str, dict[str, float]] = {
        "identity": {},
        "drop_nodes": {"rate": strength},
        "perturb_edges": {"drop": strength},
        "mask_attributes": {"rate": strength},
        "subgraph": {"keep": round(1 - strength, 6)},
    }
    return {"name": name, **settings[name]}


def pairs(config: str) -> list[Cell]:
    """15 cells: every pair of the views at one strength, a view with itself included."""
    chosen = combinations_with_replacement(VIEWS, 2)
    return [cell(config, f"{a} + {b}", view(a, PAIR_STRENGTH), view(b, PAIR_STRENGTH)) for a, b in chosen]


def strengths(config: str) -> list[Cell]:
    """20 cells: the graph as it is beside one view, 4 views in 5 strengths."""
    return [
        cell(config, f"{name} {strength}", view("identity", 0), view(name, strength))
        for name in VIEWS[1:]
        for strength in STRENGTHS
    ]


def cell(config: str, label: str, first: dict[str, Any], second: dict[str, Any]) -> Cell:
    """The config with these two views."""
    return Cell(config=config, label=label, overrides=(f"views={json.dumps([[first], [second]])}",))


def sweep(
    config: str,
    kind: str,
    *,
    data: Sequence[DataSet] = (),
    seeds: Sequence[int] = (0, 1, 2),
    protocols: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> Benchmark:
    """The benchmark of a study, kind `pairs` or `strengths`, beside a GNN trained from scratch on the labels.

    data: none: the config's own.  protocols: none: the linear probe, of graphs on standardised columns.  overrides: for
    every cell, as `key=value`; data.name chooses other data.  Raises ConfigError, and ValueError for a method that does
    not take two views.
    """
    base = load_config(config, overrides)
    overrides = [override for override in overrides if not override.startswith("data.name=")]
    if len(base.views) != 2:
        raise ValueError(f"a sweep needs a method with two views; {base.method.name!r} takes {len(base.views)}")
    protocols = protocols or (("linear-standard/clean",) if base.readout else ("linear/clean",))
    scratch = "supervised-gin" if base.readout else "supervised-gcn"
    try:
        return Benchmark(
            name=f"sweep-{base.name}-{kind}" if data else f"sweep-{base.name}-{Path(base.data.name).stem}-{kind}",
            about=f"Augmentation study of {base.method.name}: {kind} of views.",
            cells=(*{"pairs": pairs, "strengths": strengths}[kind](config), Cell(baseline=scratch, config=config)),
            data=tuple(data) or (DataSet(name=base.data.name),),
            seeds=tuple(seeds),
            protocols=tuple(Scoring(name=name) for name in protocols),
            overrides=tuple(overrides),
            figure=kind,
        )
    except ValidationError as error:
        raise config_error(error, f"sweep of {config}", fields_at) from None
