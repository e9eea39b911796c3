"""`graphcl bench`: ours against what people run today, and against what the machine can do, on this machine.

    graphcl bench                                   # the rows that are not long: about two minutes
    graphcl bench --full --json results/bench.json  # all of them, and results/growth.png
    graphcl bench --rows infonce,queue              # single rows
    graphcl bench --same-memory                     # the others with the memory settings of graphcl's commands too
    graphcl bench --profile phases.txt              # where the time of a training step goes

docs/performance.md says what every row means. A ratio is theirs / ours; where the floor says "at most", ours / theirs.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import growth
import rows
import rows_losses
import rows_molecules
import torch
from limits import limits
from measure import PEOPLE, Measured, Others, threads
from phases import write_phases
from rich.console import Console
from rich.table import Table

from graphcl.ledger import where
from graphcl.process import HUGE_PAGES


class Row(NamedTuple):
    """What is measured, which of its sides is held against which, and what must come out."""

    measure: Callable[[torch.device], Measured]
    what: str
    theirs: str
    floor: float | None = None  # the ratio that must hold
    stretch: float | None = None  # the one to aim at
    long: bool = False
    ours: str = "ours"
    at_most: bool = False  # the ratio is ours / theirs and must not be above the floor; else theirs / ours, not below
    memory: bool = False  # it is of the peaks that were measured beside the time


ROWS: dict[str, Row] = {
    "drop_nodes": Row(rows.drop_nodes, "drop 0.2 of the nodes, torch, against a loop", "loop", 150, ours="torch"),
    "drop_nodes_native": Row(
        rows.drop_nodes, "drop 0.2 of the nodes, numba, against a loop", "loop", 150, 600, ours="native"
    ),
    "subgraph": Row(rows.subgraph, "subgraph of 0.8, torch, against a loop", "loop", 15, ours="torch"),
    "subgraph_native": Row(rows.subgraph, "subgraph of 0.8, numba, against a loop", "loop", 100, 150, ours="native"),
    "perturb_edges": Row(rows.perturb_edges, "replace 0.2 of the edges, torch, against a loop", "loop", ours="torch"),
    "perturb_edges_native": Row(
        rows.perturb_edges, "replace 0.2 of the edges, numba, against a loop", "loop", ours="native"
    ),
    "mask_attributes": Row(rows.mask_attributes, "mask 0.2 of the nodes, torch, against a loop", "loop", ours="torch"),
    "mask_attributes_native": Row(
        rows.mask_attributes, "mask 0.2 of the nodes, numba, against a loop", "loop", ours="native"
    ),
    "gather": Row(
        rows.gather, "a batch out of the store, no numba, against InMemoryDataset", "dataset", 25, ours="torch"
    ),
    "gather_native": Row(
        rows.gather, "a batch out of the store, numba, against InMemoryDataset", "dataset", 25, 60, ours="native"
    ),
    "neighbour_sum": Row(rows.neighbours, "neighbourhood sum, against scatter", "scatter", 3.5, 4),
    "neighbour_sum_gin": Row(rows.neighbours, "GIN's sum, against PyG's GINConv", "GINConv", 8, 10, ours="ours, GIN"),
    "neighbour_sum_large": Row(rows.neighbours_large, "neighbourhood sum, against scatter", "scatter", 5, 6, long=True),
    "neighbour_sum_gin_large": Row(
        rows.neighbours_large, "GIN's sum, against PyG's GINConv", "GINConv", 12, 14, long=True, ours="ours, GIN"
    ),
    "chem_step": Row(rows.chem_step, "model step, in times of its bare MLPs", "MLPs", 1.10, 1.05, at_most=True),
    "chem_data": Row(rows.chem_data, "batches and two views, no numba, against loops", "loop", 120, 170, ours="torch"),
    "chem_data_native": Row(
        rows.chem_data, "batches and two views, numba, against loops", "loop", 120, 170, ours="native"
    ),
    "chem_fp32": Row(
        rows.chem_pretraining, "pretraining epoch, against the authors' code", "loop", 1.4, 1.5, long=True, ours="32"
    ),
    "chem_bf16": Row(
        rows.chem_pretraining,
        "pretraining epoch in bf16, against the authors' code",
        "loop",
        2.5,
        2.8,
        long=True,
        ours="bf16-mixed",
    ),
    "parse_smiles": Row(
        rows_molecules.parsing, "SMILES to graphs, 2 + 2 features, against PyG", "from_smiles", ours="2+2"
    ),
    "parse_smiles_ogb": Row(
        rows_molecules.parsing, "SMILES to graphs, 9 + 3 features, against PyG", "from_smiles", ours="9+3"
    ),
    "molecule_memory": Row(
        rows_molecules.molecule_memory, "memory of parsed molecules, against a list of Data", "list of Data", long=True
    ),
    "chem_memory": Row(
        rows_molecules.pretraining_memory, "memory of a pretraining epoch, against the authors' code", "loop", long=True
    ),
    "alike": Row(rows_molecules.alike, "GIN, like atoms computed once, against every atom", "every atom"),
    "alike_finetune": Row(
        rows_molecules.alike_finetune, "the same in fine-tuning, with dropout", "every atom", long=True
    ),
    "alike_embed": Row(rows_molecules.alike_embed, "the same in evaluation, forward only", "every atom", long=True),
    "tu_epoch": Row(rows.tu_epoch, "GraphCL epoch, against PyGCL's example", "masks", 1.5, 3),
    "tu_epoch_loop": Row(rows.tu_epoch, "GraphCL epoch, against the authors' code", "loop", 8, 16),
    "grace_epoch": Row(rows.grace_epoch, "GRACE epoch, against PyGCL's example", "masks", 3, 4),
    "grace_epoch_pygcl": Row(rows.grace_epoch, "GRACE epoch, against PyGCL's own loss", "PyGCL"),
    "grace_epoch_graphssl": Row(rows.grace_epoch, "GRACE epoch, against graphssl's own loss", "graphssl"),
    "infonce": Row(rows_losses.infonce_both, "InfoNCE streamed, against PyGCL's masks", "masks", 4.5, 5),
    "infonce_dense": Row(rows_losses.infonce_both, "InfoNCE streamed, against dense cross entropy", "dense", 2, 2.3),
    "infonce_pygcl": Row(rows_losses.infonce_both, "InfoNCE streamed, against PyGCL itself", "PyGCL"),
    "infonce_memory": Row(
        rows_losses.infonce_both, "InfoNCE's memory, against PyGCL's masks", "masks", 25, 28, memory=True
    ),
    "infonce_memory_dense": Row(
        rows_losses.infonce_both, "InfoNCE's memory, against dense cross entropy", "dense", 6, 7, memory=True
    ),
    "infonce_memory_pygcl": Row(
        rows_losses.infonce_both, "InfoNCE's memory, against PyGCL itself", "PyGCL", memory=True
    ),
    "ntxent": Row(rows_losses.ntxent_time, "NT-Xent, against PyGCL's masks", "masks"),
    "ntxent_pygcl": Row(rows_losses.ntxent_time, "NT-Xent, against PyGCL itself", "PyGCL"),
    "ntxent_graphssl": Row(rows_losses.ntxent_time, "NT-Xent, against graphssl itself", "graphssl"),
    "queue": Row(rows_losses.queue, "queue loss, against its two bare products", "gemms", 0.95, 0.83, at_most=True),
    "queue_moco": Row(rows_losses.queue, "queue loss, against MoCo's clone of the queue", "MoCo"),
    "infonce_full": Row(
        rows_losses.infonce_full, "InfoNCE of a whole graph, against its products", "products", 0.75, 0.85, long=True
    ),
    "infonce_full_memory": Row(
        rows_losses.infonce_full_memory,
        "memory of InfoNCE of a whole graph, against 1 GB",
        "1 GB",
        1,
        long=True,
        at_most=True,
    ),
    "growth_graphs": Row(
        growth.graphs, "time of a graph, dearest size against cheapest", "cheapest", 1.3, None, True, "dearest", True
    ),
    "growth_nodes": Row(
        growth.nodes, "time of a pair of nodes, dearest against cheapest", "cheapest", 1.3, None, True, "dearest", True
    ),
}


def chosen(names: Sequence[str], full: bool) -> dict[str, Row]:
    """The rows that were asked for; without names all that are not long, or all with `full`."""
    for name in names:
        if name not in ROWS:
            near = difflib.get_close_matches(name, ROWS, n=1)
            raise ValueError(f"no row {name!r}" + (f"; did you mean {near[0]!r}?" if near else f"; {', '.join(ROWS)}"))
    return {name: row for name, row in ROWS.items() if (name in names if names else full or not row.long)}


def judged(name: str, row: Row, found: Measured, limit: dict[str, float]) -> dict[str, Any] | None:
    """A row's figures; none if a side cannot be run here (no numba, or a library that is not installed)."""
    sides, unit = (found.peaks, "MB") if row.memory else (found.sides, found.unit)
    if row.ours not in sides or row.theirs not in sides:
        return None
    ours, theirs = sides[row.ours], sides[row.theirs]
    ratio = ours / theirs if row.at_most else theirs / ours
    ok = None if row.floor is None else ratio <= row.floor if row.at_most else ratio >= row.floor
    result = {
        "name": name,
        "ratio": ratio,
        "floor": row.floor,
        "ok": ok,
        "stretch": row.stretch,
        "at_most": row.at_most,
        "long": row.long,
        "what": row.what,
        "data": found.data,
        "unit": unit,
        "ours": row.ours,
        "theirs": row.theirs,
        "seconds" if unit == "s" else "values": sides,
    }
    if found.work is not None and found.work[0] in limit and not row.memory:
        kind, work = found.work
        result |= {"limit": kind, "of_limit": work / limit[kind] / ours}
    return result | ({"details": found.details} if found.details else {})


def main(
    names: Sequence[str], full: bool, file: Path | None, profile: Path | None, out: Console, same_memory: bool = False
) -> None:
    """What the command does: the profile if asked for, else the table, or both if rows were asked for as well.

    same_memory: what people run has our memory settings too; only rows of time that have such a side.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wanted = chosen(names, full)
    if same_memory:
        wanted = {name: row for name, row in wanted.items() if timed_beside_people(name, row)}
        if left := [name for name in names if name not in wanted]:
            raise ValueError(f"--same-memory: {', '.join(left)} is not timed against what people run; leave it out")
    for path, option in ((file, "--json"), (profile, "--profile")):
        if path is not None and not path.parent.is_dir():
            raise ValueError(f"{option} {path}: there is no folder {str(path.parent)!r}")
    if file is not None:  # better told now than after the first row
        mixed = [
            row["name"]
            for row in rows_in(file)
            if row.get("same_memory", same_memory) != same_memory and row["name"] in wanted
        ]
        if mixed:
            kind = "without --same-memory" if same_memory else "of --same-memory"
            raise ValueError(f"--json {file}: holds rows {kind}, as {mixed[0]!r}; give another file")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    if profile is not None:
        with threads(1):
            out.print(write_phases(profile, device), highlight=False)
    if profile is None or names or full or file is not None or same_memory:
        run(wanted, file, device, out, same_memory)


def timed_beside_people(name: str, row: Row) -> bool:
    """Whether the memory that what people run has may matter to the row."""
    return row.theirs in PEOPLE and "memory" not in name


def run(
    wanted: dict[str, Row], file: Path | None, device: torch.device, out: Console, same_memory: bool = False
) -> list[dict[str, Any]]:
    """Measure rows, print them, and keep them in `file` beside the other rows that it has.

    What people run has its turns in a process of its own, unless it is to have our memory (`same_memory`) or on a GPU.
    """
    found: list[dict[str, Any]] = []
    missing: list[str] = []
    measured: dict[Callable[..., Measured], Measured] = {}
    limit: dict[str, float] = {}
    where()  # the commit is that of the beginning
    try:
        with (
            threads(1),
            out.status("the machine's limits") as status,
            nullcontext() if same_memory or device.type != "cpu" else closing(Others()) as others,
        ):
            limit = limits(device)
            for name, row in wanted.items():
                status.update(name)
                if row.measure not in measured:
                    torch.manual_seed(0)  # the same data, whichever rows are asked for
                    with others.row(row.measure, device) if others else nullcontext():
                        measured[row.measure] = row.measure(device)
                result = judged(name, row, measured[row.measure], limit)
                if result is None:
                    missing.append(name)
                    continue
                told = {"same_memory": same_memory} if timed_beside_people(name, row) else {}
                found.append(result | told | where() | {"device": described(device)})
                if file is not None:  # after each row, since some take minutes
                    write(file, found, limit, device)
    finally:  # when stopped too
        show(found, limit, out, device)
    if missing:
        needs = "native: numba on a CPU; bf16: a processor that has it; libraries: installed"
        out.print(f"not here ({needs}): {', '.join(missing)}", highlight=False)
    return found


def write(file: Path, found: list[dict[str, Any]], limit: dict[str, float], device: torch.device) -> None:
    """The rows found now, those that the file had besides, and the machine's limits.

    A limit is the most that a machine did: other work on it can only lower what is measured.
    """
    before = json.loads(file.read_text(encoding="utf-8")) if rows_in(file) else {}
    here = {"machine": where()["machine"], "device": described(device)}
    if here.items() <= before.items():
        limit = {name: max(value, before.get("limits", {}).get(name, 0.0)) for name, value in limit.items()}
    merged = {row["name"]: row for row in [*rows_in(file), *found]}
    ordered = [merged[name] for name in ROWS if name in merged]
    huge = os.environ.get(HUGE_PAGES, "0") != "0"
    content = {"rows": ordered, "limits": limit, **where(), "device": described(device), "huge_pages": huge}
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    series = {row["name"].removeprefix("growth_"): row["details"] for row in ordered if "details" in row}
    if series:
        growth.draw(series, file.with_name("growth.png"))


def rows_in(file: Path) -> list[dict[str, Any]]:
    """The rows of a file that this command wrote; none if it is not there."""
    if not file.exists():
        return []
    try:
        return json.loads(file.read_text(encoding="utf-8"))["rows"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"--json {file}: holds something else than rows of `graphcl bench`; give another") from None


def described(device: torch.device) -> str:
    """`cpu`, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def show(found: list[dict[str, Any]], limit: dict[str, float], out: Console, device: torch.device) -> None:
    """Print the table, and the limits below it."""
    table = Table(title=f"graphcl bench on {where()['machine']}, {described(device)}")
    for column in ("row", "ratio", "needs", "aims at", "holds", "of the machine's limit"):
        table.add_column(column, justify="left" if column in {"row", "holds"} else "right")
    for row in found:
        share = f"{row['of_limit']:.0%} of {row['limit']}" if "limit" in row else ""
        holds = {None: "", True: "yes", False: "[bold red]no[/]"}[row["ok"]]
        about = f"{row['name']}\n[dim]{row['what']}\n{row['data']}[/]"
        table.add_row(about, times(row["ratio"]), bound(row, "floor"), bound(row, "stretch"), holds, share)
    out.print(table)
    units = {name: "GFLOP/s" if "gemm" in name else "GB/s" for name in limit}
    out.print(", ".join(f"{name} {value / 1e9:,.1f} {units[name]}" for name, value in limit.items()), highlight=False)


def times(ratio: float) -> str:
    """`1.08 x`, `12.3 x`, `640 x`."""
    return f"{ratio:.2f} x" if ratio < 10 else f"{ratio:.1f} x" if ratio < 100 else f"{ratio:,.0f} x"


def bound(row: dict[str, Any], key: str) -> str:
    """`≥ 4.5`, `≤ 1.1`, or nothing."""
    return "" if row[key] is None else f"{'≤' if row['at_most'] else '≥'} {row[key]:g}"
