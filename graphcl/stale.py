"""What a row of results rests on: its settings and split, the files it depends on, and whether these have changed."""

from __future__ import annotations

import ast
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from graphcl.benchmark import RULES
from graphcl.benchmark_config import besides
from graphcl.changes import changes_since
from graphcl.config import Config
from graphcl.data.catalogue import DATASETS
from graphcl.evaluate.baselines import BASELINES

Row = dict[str, Any]
READERS = {  # of a data set's kind
    "tu": ("tu",),
    "molecule": ("molecules", "molecule_files", "molecule_formats", "labels", "scaffolds"),
    "ogb": ("ogb", "molecules", "molecule_files", "molecule_formats", "labels", "scaffolds"),
}
DATA = (
    "sources",
    "store",
    "store_file",
    "locked_folder",
    "_native",
    "pyg",
    "loaders",
    "splits",
    "features",
)  # of every data set
OF_SMILES = tuple(name for name, baseline in BASELINES.items() if baseline.needs_smiles)
SCORERS = {  # files of a protocol, by how its name begins
    "linear": ("probe",),
    "svm": ("svm",),
    "knn": ("knn",),
    "kmeans": ("cluster",),
    "link": ("link",),
    "ridge": ("ridge",),
    "finetune": ("finetune",),
    "wl": ("structure",),
    "label": ("baselines",),
    "supervised-gin": ("baselines", "finetune"),
    "supervised-gcn": ("supervised",),
}
EMBEDDERS = {  # of a baseline
    "raw": ("compare",),
    "statistics": ("structure",),
    **dict.fromkeys(OF_SMILES, ("fingerprints",)),
}
EVALUATE = Path(__file__).parent / "evaluate"


def sources_of(row: Row) -> tuple[str, ...]:
    """The files that a row depends on."""
    entry = DATASETS.get(row["data"])
    readers = ("files", "labels") if entry is None else READERS.get(entry.kind, ())
    scorers = next((files for name, files in SCORERS.items() if row["protocol"].startswith(name)), ())
    files = [f"data/{name}" for name in (*DATA, *readers)]
    files += [f"evaluate/{name}" for name in with_imports(("embed", *scorers, *EMBEDDERS.get(row["baseline"], ())))]
    if row["baseline"] is None or row["baseline"].startswith("supervised"):
        kind = row["config"]["encoder"]["name"].partition("_")[0]
        files += [f"encoders/{name}" for name in ("aggregate", "_native", "convs", "inputs", "readout")]
        files += ["encoders/sparse"] if row["config"]["encoder"].get("sparse_input") else []
        files += ["encoders/dropout"] if row["protocol"].startswith("finetune") else []
        files += ["encoders/molecule*", "encoders/padded"] if kind == "molecule" else [f"encoders/{kind}"]
    own: tuple[str, ...] = ()
    if row.get("weights"):
        files += ["hub"]
    elif row["baseline"] is None:
        files += [*("builder", "trainer", "heads", "momentum", "distributed", "methods/method", "methods/rows")]
        files += [f"methods/{row['config']['method']['name']}"]
        own = ("augment", "graphcl/objectives")
    return ("graphcl/benchmark.py", *own, *(f"graphcl/{name}.py" for name in dict.fromkeys(files)))


@functools.cache
def with_imports(names: tuple[str, ...]) -> tuple[str, ...]:
    """Files of evaluate/ and what they import of it in turn, but for baselines.py, which has all of them in a table."""
    found: dict[str, None] = {}
    left = list(names)
    while left:
        name = left.pop()
        if name not in found and name != "baselines":
            tree = ast.parse((EVALUATE / f"{name}.py").read_text(encoding="utf-8"))
            modules = [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
            left += [module.rpartition(".")[2] for module in modules if module.startswith("graphcl.evaluate.")]
        found[name] = None
    return tuple(sorted(found))


@functools.cache
def changed(commit: str | None, files: tuple[str, ...]) -> str | None:
    """Why a row of that commit may not be what today's code gives; None if it is."""
    if commit is None:
        return "no commit recorded"
    later = changes_since(commit, files)
    if later is None:
        return f"commit {commit} is not known here"
    if later:
        shown = ", ".join(f"`{path}`" for path in later[:3]) + f" and {len(later) - 3} more" * (len(later) > 3)
        return f"made at {commit}, and what it depends on computes otherwise since: {shown}"
    return f"made with uncommitted changes of {commit.removesuffix('+')}" if commit.endswith("+") else None


def split_of(row: Row) -> str:
    """The split of its config, in words: rows of one data set, seed and split are scored on the same folds.

    Empty under a protocol that makes its own folds or takes all rows.
    """
    rule, data = RULES.get(row["protocol"]), row["config"]["data"]
    if rule and (not rule.needs_split or rule.kind == "links" or (rule.kind == "own" and rule.name.endswith("/paper"))):
        return ""
    kind, rate, repeats = data["split"], f"{100 * data['rate']:g} % of the training labels", data["repeats"]
    shares = data.get("ratios") or ((0.1, 0.1, 0.8) if kind == "random" else (0.8, 0.1, 0.1))
    ratios, draws = "/".join(f"{100 * share:g}" for share in shares), f"{repeats} draw{'s' * (repeats > 1)}"
    words = {
        "random": f"random {ratios}, {draws}",
        "few": f"{data['per_class']} labels a class, {draws}",
        "kfold": f"{repeats} folds",
        "rate": f"{repeats} folds, {rate}",
        "scaffold": f"scaffold {ratios}",
        "random_scaffold": f"random scaffolds {ratios}, {draws}",
        "scaffold_rate": f"scaffold {ratios}, {rate}, {draws}",
    }
    return words.get(kind, kind)


def newest(rows: Sequence[Row]) -> list[Row]:
    """Of each cell of a results file, which rows are only ever added to, those with the settings of its newest row."""
    last: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        if row.get("when", "") >= last.get(cell_of(row), row).get("when", ""):
            last[cell_of(row)] = row
    return [row for row in rows if settings_of(row) == settings_of(last[cell_of(row)])]


def cell_of(row: Row) -> tuple[Any, ...]:
    """Where a report has it, whatever its seed."""
    return row["row"], row["encoder"], row["data"], row["column"]


def settings_of(row: Row) -> Any:
    """What its score depends on but for the seed, with the options that were added since at their defaults."""
    weights = row.get("weights")
    try:
        exclude = besides(row["baseline"], weights)
        config = Config.model_validate(row["config"]).model_dump(mode="json", exclude=exclude)
    except ValidationError:  # of a graphcl whose config has changed since
        config = row["config"]
    train = {key: value for key, value in config["train"].items() if key != "seed"}
    return row["protocol"], row["baseline"], weights, config | {"train": train, "run": None}
