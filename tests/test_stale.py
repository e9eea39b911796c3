"""The files that a row of results depends on, against what the code imports."""

import ast
from pathlib import Path

import pytest

from graphcl import stale
from graphcl.benchmark import RULES
from graphcl.evaluate.baselines import BASELINES

ROOT = Path(stale.__file__).parents[1]
TABLE = "graphcl/evaluate/baselines.py"  # imports all baselines, to name them
OWN = {one.id.rpartition("/")[0]: one.name for one in BASELINES.values() if one.score}
CASES = [(rule, OWN.get(rule)) for rule in RULES]
CASES += [("linear/clean", name) for name, one in BASELINES.items() if one.embed]


def row(protocol, baseline, data="bbbp", encoder="molecule_gin", **settings):
    config = {"encoder": {"name": encoder, **settings}, "method": {"name": "graphcl"}}
    return {"data": data, "protocol": protocol, "baseline": baseline, "config": config}


def imported(path, package="graphcl.evaluate"):
    """Files of a package that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(package):
            names = [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
            found |= {f"{name.replace('.', '/')}.py" for name in names}
    return {file for file in found if (ROOT / file).is_file()}


@pytest.mark.parametrize(("protocol", "baseline"), CASES)
def test_what_scores_a_row_is_listed_with_all_it_imports(protocol, baseline):
    files = set(stale.sources_of(row(protocol, baseline)))
    missing = [file for file in files if not list(ROOT.glob(file))]
    assert not missing, "not there"
    scorers = {file for file in files if file.startswith("graphcl/evaluate/")}
    assert scorers - {"graphcl/evaluate/scores.py", "graphcl/evaluate/embed.py"}, "nothing of its own"
    for file in scorers - {TABLE}:
        assert imported(ROOT / file) <= scorers, file


def test_a_trained_row_depends_on_its_method_views_and_encoder():
    files = stale.sources_of(row("linear/clean", None))
    assert {"augment", "graphcl/objectives", "graphcl/methods/graphcl.py", "graphcl/trainer.py"} <= set(files)
    assert {"graphcl/encoders/molecule*.py", "graphcl/data/molecule_files.py"} <= set(files)
    assert "graphcl/encoders/dropout.py" in stale.sources_of(row("finetune-last/clean", None))


@pytest.mark.parametrize("data", ["cora", "imdb-binary", "bbbp"])
def test_what_makes_the_batches_is_listed_with_all_it_imports(data):
    files = set(stale.sources_of(row("linear/clean", None, data)))
    for file in ("store", "store_file", "loaders", "features"):
        assert imported(ROOT / f"graphcl/data/{file}.py", "graphcl.data") <= files, file


def test_what_a_row_does_not_use_does_not_age_it():
    sparse = "graphcl/encoders/sparse.py"
    assert sparse in stale.sources_of(row("linear/clean", None, "cora", "gcn", sparse_input=True))
    assert sparse not in stale.sources_of(row("linear/clean", None, "nci1", "gin", sparse_input=False))
    shipped = stale.sources_of(row("linear/clean", None) | {"weights": "abc"})
    assert "graphcl/hub.py" in shipped and "augment" not in shipped
    assert not any("/encoders/" in file for file in stale.sources_of(row("wl-svm/clean", "wl", "nci1")))
