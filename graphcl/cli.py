"""The command line. `--help`, `--dry-run`, the lists and config errors import no torch and answer at once."""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from graphcl import cli_benchmark, cli_embed, cli_hub, cli_molecules
from graphcl.process import set_threads, tune_memory
from graphcl.run_folder import check_folder, training_in

if TYPE_CHECKING:
    from graphcl.config import DataConfig
    from graphcl.data.molecules import Rejected
    from graphcl.state import Run

app = typer.Typer(
    help="Graph contrastive learning: pretrain a graph neural network without labels, and see what it is worth.",
    epilog="Start with: graphcl pretrain quickstart",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console(markup=False, emoji=False)  # names of columns and folders are printed as they are

Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="key=value settings, such as train.epochs=5 method.tau=0.2 run.dir=out", show_default=False),
]
RunFolder = Annotated[Path, typer.Argument(help="folder of a finished run", show_default=False)]


@app.command(
    epilog="Examples: graphcl pretrain quickstart | graphcl pretrain grace data.name=citeseer train.seed=1 | "
    "graphcl pretrain my.yaml --resume"
)
def pretrain(
    config: Annotated[str, typer.Argument(help="name of a shipped config, or path of a YAML file", show_default=False)],
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the last checkpoint of the run folder")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="delete an earlier run in the run folder")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the complete config and stop")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="of a molecule file: stop at the first row that is no molecule")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress bar")] = False,
) -> None:
    """Pretrain an encoder without labels; score it beside the untrained one; leave a run folder."""
    from graphcl.data.catalogue import find
    from graphcl.read_config import load_config

    cfg = load_config(config, overrides or [])
    find(cfg.data.name)
    if dry_run:
        typer.echo(cfg.dump(), nl=False)
        return
    first = os.environ.get("RANK", "0") == "0"
    folder = Path(cfg.run.dir or f"runs/{cfg.name}").expanduser()
    if first:
        check_folder(folder, resume=resume, overwrite=overwrite)

    from graphcl.builder import build
    from graphcl.trainer import Stopped, fit

    set_threads(cfg.run.threads)
    rejected = rejected_rows(cfg.data, strict)
    run = build(cfg)
    if run.split:
        from graphcl.evaluate.compare import check_labels

        check_labels(run.data, run.split, cfg.evaluate.metric)  # better before the training than after it
    ours: AbstractContextManager[None] = nullcontext()
    if first:
        ours = training_in(folder, cfg.dump(), resume=resume, overwrite=overwrite)
    with ours:  # only now, so that a mistake leaves no folder behind
        if first:
            out.print(describe(run))
        try:
            summary = fit(run, folder, resume=resume, progress=not quiet)
        except Stopped as stopped:
            out.print(f"{stopped}")
            raise typer.Exit(130) from None
        if not first:
            return
        out.print(
            f"trained {summary['steps']:.0f} steps in {summary['seconds']:.1f} s, "
            f"{summary['items_per_second']:,.0f} items/s, peak memory {summary['peak_memory_mb']:,.0f} MB"
        )
        from graphcl.checkpoint import write_whole
        from graphcl.pictures import draw_curve, draw_embedding, draw_views

        write_whole(folder / "config.yaml", cfg.dump().encode())  # a resumed run may have been given more epochs
        if rejected:
            from graphcl.data.molecule_files import write_rejected

            write_rejected(folder / "rejected.csv", rejected)
        draw_curve(folder / "metrics.jsonl", folder / "curve.png")
        draw_embedding(run, folder / "embedding.png")
        draw_views(run, folder / "views.png")
        out.print(f"run folder: {folder}")
        scores = report(run)
        if scores:
            write_whole(folder / "scores.json", (json.dumps(scores, indent=1) + "\n").encode())


@app.command(epilog="Examples: graphcl evaluate runs/quickstart | graphcl evaluate runs/grace evaluate.probe=knn")
def evaluate(run_folder: RunFolder, overrides: Overrides = None) -> None:
    """Score the frozen embeddings of a run beside the untrained encoder and the raw features."""
    from graphcl.read_config import load_config, run_config

    cfg = load_config(run_config(run_folder), overrides or [])  # mistakes are told before torch is imported
    from graphcl.builder import load_run

    set_threads(cfg.run.threads)

    report(load_run(run_folder, overrides or []))


@app.command(epilog="Examples: graphcl methods | graphcl methods grace")
def methods(
    name: Annotated[str | None, typer.Argument(help="show the settings of one", show_default=False)] = None,
) -> None:
    """List the pretraining methods and the encoders that ship pretrained, or the settings of a method."""
    catalogue("method", name)
    if name is None:
        from graphcl.read_config import pretrained_names

        out.print(f"pretrained encoders, ready to use: {', '.join(pretrained_names())} (`graphcl pretrained`)")


@app.command(epilog="Examples: graphcl augmentations | graphcl augmentations drop_nodes")
def augmentations(
    name: Annotated[str | None, typer.Argument(help="show the settings of one", show_default=False)] = None,
) -> None:
    """List the views' transforms, or the settings of one."""
    catalogue("views", name)


@app.command(epilog="Example: graphcl datasets")
def datasets() -> None:
    """List the data sets that are known by name. Own graphs: give the path of a file or folder."""
    from graphcl.data.catalogue import DATASETS

    table = Table("name", "level", "what", "where")
    for name, entry in DATASETS.items():
        table.add_row(
            name, entry.level, entry.description, "bundled" if entry.bundled else "downloaded when first used"
        )
    out.print(table)
    out.print(
        "Own graphs: data.name=PATH of a folder of .graphml files, a .graphml, an .npz, "
        "a folder with edges.csv, or a molecule file: .smi, .csv, .tsv, .sdf, .parquet (docs/data.md)"
    )


@app.command(epilog="Example: graphcl protocols")
def protocols() -> None:
    """List the rules by which embeddings are scored, and the baselines, as a benchmark file names them."""
    from graphcl.benchmark import NAMED
    from graphcl.evaluate.baselines import BASELINES

    rules = Table("protocol", "for", "what", "scores")
    for name, one in NAMED.items():
        rules.add_row(name, " ".join(one.levels), one.statement, " ".join(one.metrics))
    rows = Table("baseline", "for", "what")
    for name, baseline in BASELINES.items():
        rows.add_row(name, " ".join(baseline.levels), baseline.statement)
    out.print(rules)
    out.print(rows)
    out.print("`clean` chooses on validation rows only, `paper` is a rule of the literature (docs/results.md)")


@app.command(
    epilog="Examples: graphcl bench | graphcl bench --rows infonce,queue | graphcl bench --full --json bench.json"
)
def bench(
    full: Annotated[bool, typer.Option("--full", help="the long rows too: half an hour and more")] = False,
    rows: Annotated[
        str | None, typer.Option(help="only these, with commas between: infonce,queue", show_default=False)
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write the rows there, beside those that it has", show_default=False)
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="write there where the time of a training step goes", show_default=False)
    ] = None,
    same_memory: Annotated[
        bool, typer.Option("--same-memory", help="give the others the memory settings of graphcl's commands too")
    ] = False,
) -> None:
    """Measure the speed and memory of graphcl on this machine against what people run today."""
    inside = Path(__file__).parent / "benchmarks"  # in a wheel; beside the package in a checkout
    sys.path.insert(0, str(inside if inside.is_dir() else Path(__file__).parent.parent / "benchmarks"))
    names = rows.split(",") if rows else []
    importlib.import_module("bench").main(names, full, json_file, profile, Console(), same_memory)


cli_benchmark.register(app)
cli_hub.register(app)
cli_molecules.register(app)
cli_embed.register(app)


def catalogue(kind: str, name: str | None) -> None:
    """Print the models of a kind, or the fields of one."""
    from graphcl.config import near
    from graphcl.read_config import models

    known = models(kind)
    if name is None:
        table = Table("name", "what")
        for key, model in known.items():
            table.add_row(key, model.__doc__)
        out.print(table)
        return
    if name not in known:
        raise ValueError(f"nothing is called {name!r}{near(name, known) or '; known: ' + ', '.join(known)}")
    out.print(f"{name}: {known[name].__doc__}", highlight=False)
    table = Table("setting", "default", "allowed")
    schema = known[name].model_json_schema()
    schema = schema.get("$defs", {}).get(known[name].__name__, schema)  # one_of refers to itself
    for key, field in schema["properties"].items():
        if key != "name":
            table.add_row(key, json.dumps(field["default"]) if "default" in field else "required", allowed(field))
    out.print(table)


def allowed(field: dict[str, Any]) -> str:
    """`number, 0 to 1`, of a field's JSON schema."""
    if "anyOf" in field:
        return " or ".join(allowed(choice) for choice in field["anyOf"])
    if "enum" in field:
        return ", ".join(map(str, field["enum"]))
    low, above = field.get("minimum"), field.get("exclusiveMinimum")
    kind = {"array": "list", "null": "none", "object": "mapping"}.get(field.get("type", ""), field.get("type", "view"))
    least = f"{low:g}" if low is not None else f"above {above:g}" if above is not None else ""
    most = f" to {field['maximum']:g}" if "maximum" in field else " up" if low is not None else ""
    return f"{kind}, {least}{most}" if least else kind


def rejected_rows(data: DataConfig, strict: bool) -> list[Rejected]:
    """The rows of a molecule file that are no molecules, which build then finds in the cache; none of other data."""
    path = cli_molecules.own_molecules(data.name)
    if path is None:
        if strict:
            raise ValueError(f"--strict is for molecule files; data.name={data.name} is none, leave it out")
        return []
    from graphcl.data.molecule_files import read_molecules  # rdkit

    columns: Any = data.model_dump(include={"smiles", "targets", "ids"})
    features: Any = "ogb" if data.features == "ogb" else "benchmark"
    return read_molecules(path, **columns, features=features, strict=strict, progress=sys.stderr.isatty())[1]


def describe(run: Run) -> str:
    """One line on what is about to be trained."""
    from graphcl.data.store import GraphStore

    cfg, data = run.config, run.data
    what = f"{data.num_nodes:,} nodes, {data.num_edges:,} edges"
    items = f"{len(data):,} graphs, {what}" if isinstance(data, GraphStore) else what
    parameters = sum(p.numel() for p in run.method.parameters() if p.requires_grad)
    return f"{cfg.method.name} on {cfg.data.name} ({items}), encoder {cfg.encoder.name}, {parameters:,} parameters"


def report(run: Run) -> dict[str, dict[str, Any]]:
    """Print the table pretrained / untrained / raw features, and give its figures; none without labels."""
    from graphcl.builder import build
    from graphcl.evaluate.compare import compare
    from graphcl.evaluate.protocols import PROTOCOLS

    if not run.split:
        out.print("no classes to score (labels missing, or values); `graphcl embed` writes the embeddings")
        return {}
    cfg = run.config
    methods = {"pretrained": run.method, "untrained": build(cfg, run.data).method}
    rows = compare(
        methods, run.data, run.split, probe=cfg.evaluate.probe, metric=cfg.evaluate.metric, seed=cfg.train.seed
    )
    first = rows["pretrained"]
    out.print(f"{first.name} on frozen embeddings of {cfg.data.name}, {splits_named(run)}", highlight=False)
    table = Table("embedding", f"{first.metric} (%)" + ", mean ± std over the splits" * (len(run.split) > 1))
    for name, scores in rows.items():
        table.add_row(name, f"{100 * scores.mean:.2f}" + f" ± {100 * scores.std:.2f}" * (len(run.split) > 1))
    out.print(table)
    out.print(str(PROTOCOLS[first.protocol.rpartition("/")[0]]), highlight=False)
    return {
        name: {
            "probe": s.name,
            "protocol": s.protocol,
            "metric": s.metric,
            "mean": s.mean,
            "std": s.std,
            "test": s.values,
            "valid": s.valid,
        }
        for name, s in rows.items()
    }


def splits_named(run: Run) -> str:
    """`10 few splits (train 140, val 500, test 1000)`."""
    train, val, test = run.split[0]
    count = len(run.split)
    sizes = f"train {len(train)}, val {len(val)}, test {len(test)}"
    return f"{count} {run.config.data.split} split{'s' * (count > 1)} ({sizes})"


def main() -> None:
    """Entry point: every mistake is one readable message and exit code 2; GRAPHCL_DEBUG=1 shows the traceback."""
    tune_memory()
    before = warnings.formatwarning
    if not os.environ.get("GRAPHCL_DEBUG"):  # one line, without the place in the code
        warnings.formatwarning = lambda message, *_, **__: f"warning: {' '.join(str(message).split())}\n"
    try:
        app()
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if os.environ.get("GRAPHCL_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        if not isinstance(error, (ValueError, OSError)):
            print("(GRAPHCL_DEBUG=1 shows where)", file=sys.stderr)
        sys.exit(2)
    finally:
        warnings.formatwarning = before
