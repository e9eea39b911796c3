"""The tree as docs/architecture.md draws it: imports point up, loading is safe, files stay short."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Data flows down this list; an import points up it, never down.
ORDER = [
    "augment",
    "graphcl.augment",
    "graphcl.process",
    "graphcl.config_base",
    "graphcl.config_views",
    "graphcl.config_encoders",
    "graphcl.config_methods",
    "graphcl.config",
    "graphcl.read_config",
    "graphcl.data",
    "graphcl.encoders",
    "graphcl.heads",
    "graphcl.distributed",
    "graphcl.momentum",
    "graphcl.objectives",
    "graphcl.methods",
    "graphcl.checkpoint",
    "graphcl.evaluate",
    "graphcl.runlog",
    "graphcl.state",
    "graphcl.trainer",
    "graphcl.builder",
    "graphcl.convert",
    "graphcl.hub",
    "graphcl.trainings",
    "graphcl.predictor",
    "graphcl.molecule_tables",
    "graphcl.by_target",
    "graphcl.assay",
    "graphcl.estimator_inputs",
    "graphcl.estimators",
    "graphcl.estimator_predictors",
    "graphcl.pictures",
    "graphcl.ledger",
    "graphcl.changes",
    "graphcl.paired",
    "graphcl.benchmark_config",
    "graphcl.benchmark",
    "graphcl.benchmark_run",
    "graphcl.sweep",
    "graphcl.stale",
    "graphcl.report",
    "graphcl.figures",
    "graphcl.run_folder",
    "graphcl.cli_benchmark",
    "graphcl.cli_hub",
    "graphcl.cli_molecules",
    "graphcl.cli_embed",
    "graphcl.cli",
    "graphcl.__main__",
]
FILES = sorted([*ROOT.glob("augment/**/*.py"), *ROOT.glob("graphcl/**/*.py")])


def rank(module: str) -> int | None:
    fitting = [place for place, name in enumerate(ORDER) if module == name or module.startswith(name + ".")]
    return fitting[-1] if fitting else None


def imported(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *[f"{node.module}.{alias.name}" for alias in node.names]]
    return names


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_up(path):
    module = module_of(path)
    if module == "graphcl":  # the front door names everything and imports nothing until asked
        return
    here = rank(module)
    assert here is not None, f"{module} has no place in the order; add it here and to docs/architecture.md"
    for name in imported(path):
        there = rank(name)
        assert there is None or there <= here, f"{module} imports {name}, which lies below it"


def test_augment_needs_torch_and_pyg_only():
    standard = {"__future__", "collections", "copy", "functools", "math", "numbers", "typing"}
    allowed = {"torch", "torch_geometric", "augment", *standard}
    for path in ROOT.glob("augment/**/*.py"):
        roots = {name.split(".")[0] for name in imported(path)}
        if path.name == "_native.py":  # numba may be missing
            roots -= {"types", "numpy", "numba"}
        assert roots <= allowed, f"{path.name} imports {sorted(roots - allowed)}"


def test_objectives_and_momentum_know_nothing_of_graphs():
    for path in [*ROOT.glob("graphcl/objectives/*.py"), ROOT / "graphcl/momentum.py", ROOT / "graphcl/heads.py"]:
        for name in imported(path):
            assert not name.startswith(("torch_geometric", "augment", "graphcl.data", "graphcl.encoders")), (
                path.name,
                name,
            )


def test_every_file_is_named_in_the_architecture():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for path in [*ROOT.glob("graphcl/*.py"), *ROOT.glob("graphcl/data/*.py")]:
        if path.name not in {"__init__.py", "__main__.py", "augment.py"}:
            assert path.name in text, f"docs/architecture.md does not name {path.name}"


def test_no_unsafe_loading():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            call = ast.unparse(node.func)
            keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert call not in {"pickle.load", "pickle.loads", "joblib.load"}, f"{path.name}: {call}"
            if call == "torch.load":
                assert keywords.get("weights_only") == "True", f"{path.name}: torch.load without weights_only=True"
            if call == "np.load":
                assert keywords.get("allow_pickle") == "False", f"{path.name}: np.load without allow_pickle=False"
            if call == "yaml.load":
                assert keywords.get("Loader") == "_Loader", f"{path.name}: yaml.load with a Loader that is not safe"


def test_no_file_grew_past_reading():
    for path in FILES:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= 450, f"{path.name} has {lines} lines"
