"""The commands `benchmark`, `sweep` and `report`, which graphcl.cli registers."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from graphcl.benchmark_config import Benchmark

Results = Annotated[
    Path | None, typer.Option("--results", help="file of the rows, one JSON line each; default: results/<name>.jsonl")
]
Jobs = Annotated[
    int | None, typer.Option("--jobs", "-j", min=1, help="processes at once; default: by cores and free memory")
]
Retry = Annotated[bool, typer.Option("--retry", help="run again what failed, as it is")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="list the trainings and stop")]


def benchmark(
    file: Annotated[
        str, typer.Argument(help="name of a shipped benchmark, or path of a YAML file", show_default=False)
    ],
    results: Results = None,
    jobs: Jobs = None,
    retry: Retry = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> None:
    """Run methods x data sets x encoders x seeds x protocols; what is done already is not run again."""
    from graphcl.benchmark_config import load_benchmark
    from graphcl.read_config import find_benchmark

    path = find_benchmark(file)
    wanted = load_benchmark(path)
    if dry_run:
        show(wanted)
        return
    run(path, wanted, results or Path("results") / f"{wanted.name}.jsonl", jobs, retry=retry, quiet=quiet)


def sweep(
    config: Annotated[str, typer.Argument(help="a shipped config or YAML file of two views", show_default=False)],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value settings", show_default=False)] = None,
    pairs: Annotated[bool, typer.Option("--pairs", help="every pair of five views")] = False,
    strengths: Annotated[bool, typer.Option("--strengths", help="four views in five strengths")] = False,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="how many, from 0 on")] = 3,
    protocol: Annotated[
        str | None, typer.Option("--protocol", help="how the embeddings are scored; default: by a linear probe")
    ] = None,
    folder: Annotated[Path, typer.Option("--folder", help="where the benchmark file and its rows go")] = Path(
        "results"
    ),
    jobs: Jobs = None,
    retry: Retry = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> None:
    """Study the augmentations: write a benchmark file of pairs of views or of strengths, and run it."""
    from graphcl.benchmark_config import expand
    from graphcl.sweep import sweep as study

    if pairs == strengths:
        raise ValueError("a sweep is over --pairs or over --strengths; give one of them")
    kind = "pairs" if pairs else "strengths"
    made = study(config, kind, seeds=range(seeds), protocols=[protocol] if protocol else (), overrides=overrides or [])
    if dry_run:
        show(made)
        return
    expand(made)  # mistakes are told before torch is imported, and before an earlier study's file is written over
    from graphcl.benchmark import checked_jobs

    checked_jobs(made)
    path = folder / f"{made.name}.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(made.dump(), encoding="utf-8")
    run(path, made, folder / f"{made.name}.jsonl", jobs, retry=retry, quiet=quiet)
    if not quiet:
        typer.echo(f"tables and figures: graphcl report {path} -o FOLDER", err=True)


def report(
    file: Annotated[
        str, typer.Argument(help="name or path of a benchmark, or a results file (.jsonl)", show_default=False)
    ],
    results: Results = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="folder for report.md, report.csv and figures")
    ] = None,
    fill: Annotated[
        list[Path] | None, typer.Option("--fill", help="page whose <!-- report: NAME --> blocks are to be written")
    ] = None,
) -> None:
    """Print the tables of a benchmark: mean and spread, tests against untrained and the best rival, ranks."""
    from graphcl.report import as_csv, filled, load_report, markdown

    made = load_report(file, results)
    typer.echo(markdown(made))
    if output is not None:
        from graphcl.figures import draw_report

        output.mkdir(parents=True, exist_ok=True)
        (output / "report.md").write_text(markdown(made) + "\n", encoding="utf-8")
        (output / "report.csv").write_text(as_csv(made), encoding="utf-8")
        draw_report(made, output)
    pages = {page: filled(page.read_text(encoding="utf-8"), made, str(page)) for page in fill or []}
    for page, text in pages.items():  # all or none
        page.write_text(text, encoding="utf-8")


def show(wanted: Benchmark) -> None:
    """List the trainings that a run of the benchmark would do, with all names checked as it would."""
    from graphcl.benchmark_config import expand

    expand(wanted)  # mistakes are told before torch is imported
    from graphcl.benchmark import checked_jobs

    for job in checked_jobs(wanted):
        typer.echo(f"{job.place}: {', '.join(task.column for task in job.tasks)}")


def run(path: Path, wanted: Benchmark, results: Path, jobs: int | None, *, retry: bool, quiet: bool) -> None:
    """Run a benchmark file; exit code 3 if rows failed, 130 on Ctrl-C."""
    from graphcl.benchmark_config import SOME_FAILED, expand

    expand(wanted)  # mistakes are told before torch is imported
    for number in (signal.SIGTERM, signal.SIGHUP):  # to end as on Ctrl-C, with no process left behind
        signal.signal(number, signal.default_int_handler)
    try:
        from graphcl.benchmark_run import run_benchmark

        rows = run_benchmark(path, results, jobs, retry=retry, quiet=quiet)
    except KeyboardInterrupt:
        if not quiet:
            typer.echo("stopped; the same command goes on", err=True)
        raise typer.Exit(130) from None
    failed = sum("error" in row for row in rows)
    if failed:
        if not quiet:
            way_out = "correct the file and run it again (--retry only repeats them as they are)"
            typer.echo(f"{failed} of {len(rows)} rows failed; {way_out}", err=True)
        raise typer.Exit(SOME_FAILED)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(epilog="Examples: graphcl benchmark smoke | graphcl benchmark my/study.yaml --jobs 2")(benchmark)
    app.command(epilog="Examples: graphcl sweep graphcl --pairs | graphcl sweep moco --strengths train.epochs=10")(
        sweep
    )
    app.command(epilog="Examples: graphcl report smoke | graphcl report results/smoke.jsonl -o runs/report")(report)
