"""Which files a result depends on, and whether they have changed since it was made."""

from __future__ import annotations

import functools
from typing import Any

from graphcl.data.catalogue import DATASETS
from graphcl.evaluate.baselines import BASELINES
from graphcl.ledger import changes_since

Row = dict[str, Any]
READERS = {  # of a data set's kind
    "tu": ("tu",),
    "molecule": ("molecules", "molecule_files", "scaffolds"),
    "ogb": ("ogb", "molecules", "molecule_files", "scaffolds"),
}
OF_SMILES = tuple(name for name, baseline in BASELINES.items() if baseline.needs_smiles)
SCORERS = {  # files of a protocol, by how its name begins
    "linear-standard": ("probe", "svm"),
    "linear": ("probe",),
    "svm": ("svm", "_native"),
    "knn": ("knn",),
    "kmeans": ("cluster",),
    "link": ("link", "svm"),
    "ridge": ("ridge", "svm"),
    "finetune": ("finetune", "tasks", "ridge"),
    "wl": ("structure", "svm", "_native"),
    "label": ("baselines",),
    "supervised-gin": ("baselines", "finetune", "tasks", "ridge"),
    "supervised-gcn": ("supervised",),
}
EMBEDDERS = {"raw": "compare", "statistics": "structure", **dict.fromkeys(OF_SMILES, "fingerprints")}  # of baselines


def sources_of(row: Row) -> tuple[str, ...]:
    """The files that a row depends on."""
    entry = DATASETS.get(row["data"])
    readers = ("files",) if entry is None else READERS.get(entry.kind, ())
    scorers = next((files for name, files in SCORERS.items() if row["protocol"].startswith(name)), ())
    files = [f"data/{name}" for name in ("sources", "store", "store_file", "loaders", "splits", "features", *readers)]
    files += [f"evaluate/{name}" for name in ("scores", "embed", *scorers)]
    files += [f"evaluate/{EMBEDDERS[row['baseline']]}"] if row["baseline"] in EMBEDDERS else []
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
def changed(commit: str | None, files: tuple[str, ...]) -> str | None:
    """Why a row of that commit may not be what today's code gives; None if it is."""
    if commit is None:
        return "no commit recorded"
    later = changes_since(commit, files)
    if later is None:
        return f"commit {commit} is not known here"
    if later:
        return f"made at {commit}, and files that it depends on have changed since (`git log {commit}..`)"
    return f"made with uncommitted changes of {commit.removesuffix('+')}" if commit.endswith("+") else None
