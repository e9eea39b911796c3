"""The commands for molecules: finetune, predict; and embed, which takes molecule files beside data sets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from graphcl.process import set_threads

if TYPE_CHECKING:
    from graphcl.data.store import GraphStore
    from graphcl.evaluate.tasks import Judged
    from graphcl.hub import Pretrained, PretrainedConfig

out = Console()
SCRATCH = ("none", "scratch")
Model = Annotated[
    str,
    typer.Argument(help="a shipped name (graphcl pretrained), or a folder of pretrain or export", show_default=False),
]
Smiles = Annotated[str | None, typer.Option("--smiles", help="column of the SMILES; default: smiles")]
Ids = Annotated[str | None, typer.Option("--id", help="column that names the rows; default: row numbers")]
Precision = Annotated[str, typer.Option("--precision", help="32, or for the encoder bf16-mixed")]
Strict = Annotated[bool, typer.Option("--strict", help="stop at the first row that is no molecule")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; default: all that there are")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress")]
Molecules = Annotated[
    Path,
    typer.Argument(help=".csv, .smi, .sdf (also .gz) or .parquet", exists=True, dir_okay=False, show_default=False),
]
Rows = Annotated[Path, typer.Option("--output", "-o", help="file to write, .csv or .parquet", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(
        epilog="Examples: graphcl embed runs/quickstart -o cora.npz | graphcl embed runs/moco --data my/graphs "
        "-o out.parquet | graphcl embed runs/mine molecules.csv -o out.parquet"
    )(embed)
    app.command(
        epilog="Examples: graphcl finetune runs/mine assay.csv --target active | graphcl finetune none assay.csv "
        "--target active | graphcl finetune graphcl-zinc250k ogbg-molhiv"
    )(finetune)
    app.command(epilog="Example: graphcl predict runs/finetune-assay molecules.csv -o out.csv")(predict)


def finetune(
    model: Annotated[
        str, typer.Argument(help="a shipped name (graphcl pretrained), a folder of pretrain or export, or the word none: from scratch, a GIN of 5 layers of 300", show_default=False)
    ],
    assay: Annotated[
        str,
        typer.Argument(
            help=".csv, .smi, .sdf (also .gz) or .parquet; or a set of OGB by its name, ogbg-mol...", show_default=False
        ),
    ],
    target: Annotated[
        list[str] | None, typer.Option("--target", help="column to learn; may be repeated; default: all, of OGB's sets")
    ] = None,
    smiles: Smiles = None,
    ids: Ids = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="folder to write; default: runs/finetune-NAME")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="delete an earlier model in the folder")] = False,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", help="scaffold, random_scaffold or random, 80/10/10; default: scaffold, of OGB's sets its own"
        ),
    ] = None,
    split_seed: Annotated[int, typer.Option("--split-seed", min=0, help="of the random splits")] = 0,
    metric: Annotated[
        str | None,
        typer.Option("--metric", help="roc_auc, prc_auc, accuracy, rmse, mae; default: by the values, or OGB's"),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="trainings, and members of the ensemble")] = 3,
    epochs: Annotated[int, typer.Option("--epochs", min=1)] = 100,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 32,
    lr: Annotated[float, typer.Option("--lr")] = 1e-3,
    dropout: Annotated[float, typer.Option("--dropout", help="of the encoder while it trains")] = 0.5,
    frozen: Annotated[bool, typer.Option("--frozen", help="train the head alone")] = False,
    layer_decay: Annotated[
        float, typer.Option("--layer-decay", help="learning rate of a layer by that of the next; 1: all alike")
    ] = 1.0,
    patience: Annotated[
        int | None, typer.Option("--patience", min=1, help="stop after so many epochs without a better one")
    ] = None,
    precision: Precision = "32",
    scratch: Annotated[bool, typer.Option("--scratch", help="train from scratch too, for the table")] = False,
    baselines: Annotated[bool, typer.Option("--baselines/--no-baselines", help="ECFP4 beside it")] = True,
    strict: Strict = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Learn an assay: fine-tune a pretrained encoder, score it on held-out molecules, save an ensemble to predict with.

    The folder gets the model, report.md, report.json, predictions.csv (every row of the assay) and rejected.csv.
    """
    ogb = ogb_set(assay)
    if ogb and (smiles is not None or ids is not None):
        raise ValueError(f"--smiles and --id are for files; {ogb} names its columns itself, leave them out")
    if ogb and split_seed:
        raise ValueError(f"--split-seed is for the random splits; {ogb} has OGB's own, leave it out")
    folder = output or Path("runs") / f"finetune-{ogb or Path(assay).name.partition('.')[0]}"
    check_folder(folder, overwrite=overwrite)
    starts = starts_of(model, scratch=scratch, features="ogb" if ogb else "benchmark")
    from graphcl.assay import (
        check_split,
        markdown,
        read_assay,
        read_ogb,
        several,
        table,
        told_of_ogb,
        tune,
        write_folder,
    )
    from graphcl.evaluate.finetune import Settings

    check_split(split, ogb)
    settings = Settings(epochs, lr, batch_size, frozen, layer_decay, patience, dropout, precision).checked()
    set_threads(threads)
    features = features_of(next(iter(starts.values())))
    how: Any = {"features": features, "strict": strict, "progress": not quiet}
    if ogb:
        read = read_ogb(ogb, target or (), **how)
    else:
        read = read_assay(assay, target or (), smiles=smiles, ids=ids, **how)
    settings = settings._replace(precise_norm=read.kind == "regression" and not frozen)
    counted = f"{len(read.store):,} molecules, {len(read.rejected):,} rejected rows"
    out.print(f"{read.path.name}: {counted}; {read.kind} of {several(read.targets)}", highlight=False)
    with kept_if_done(folder), epochs_shown(len(starts) * seeds * epochs, not quiet) as tell:
        tuned = tune(
            read,
            starts,
            split=split,
            split_seed=split_seed,
            metric=metric,
            seeds=range(seeds),
            settings=settings,
            baselines=baselines,
            device=device(),
            tell=tell,
        )
    for path in folder.iterdir():  # an earlier model, under --overwrite
        path.unlink()
    write_folder(folder, read, tuned)
    head, rows = table(tuned.report)
    shown = Table(*head)
    for row in rows:
        shown.add_row(*row)
    out.print(markdown(tuned.report).split("\n\n")[1], highlight=False)
    out.print(shown)
    if ogb:
        out.print(told_of_ogb(tuned.report["ogb"]), highlight=False)
    out.print(
        f"model, report and predictions: {folder}; next: graphcl predict {folder} FILE -o out.csv", highlight=False
    )


def predict(
    folder: Annotated[Path, typer.Argument(help="what finetune wrote", show_default=False)],
    molecules: Molecules,
    output: Rows,
    smiles: Smiles = None,
    ids: Ids = None,
    precision: Precision = "32",
    strict: Strict = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Predict for molecules: a row for every row of the file, with uncertainty and similarity to the training set.

    A row that is no molecule is empty, with the reason.
    """
    from graphcl.assay import value_columns, values
    from graphcl.predictor import load_predictor

    check_precision(precision)
    predictor = load_predictor(folder).to(device())
    columns = value_columns(predictor.config.targets)
    written(
        molecules,
        output,
        columns,
        lambda store: values(predictor, store, precision).numpy(),
        smiles=smiles,
        ids=ids,
        features=predictor.features,
        strict=strict,
        threads=threads,
        quiet=quiet,
    )


def embed(
    model: Model,
    molecules: Annotated[
        Path | None, typer.Argument(help="molecule file, of any length; default: --data, or the run's own data")
    ] = None,
    *,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help=".npz or .parquet; of a molecule file .csv or .parquet", show_default=False
        ),
    ],
    data: Annotated[str | None, typer.Option("--data", help="other data than the run's: a name or a path")] = None,
    smiles: Smiles = None,
    ids: Ids = None,
    precision: Precision = "32",
    strict: Strict = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Write the embeddings of a data set or a molecule file, one row an item, in the original order with its id."""
    check_precision(precision)
    if molecules is None:
        embed_data(model, output, data, threads, precision)
        return
    if data is not None:
        raise ValueError(f"the molecule file {str(molecules)!r} and --data {data!r} are both given; give one")
    from graphcl.evaluate.embed import embed as embed_source
    from graphcl.molecule_tables import check_output

    check_output(output)
    if not molecules.is_file():
        raise ValueError(f"there is no file {str(molecules)!r}")
    encoder = molecule_encoder(model)
    if encoder.readout is None:
        raise ValueError(f"{model!r} embeds nodes, it has no readout")

    def score(store: GraphStore) -> Any:
        with lowered(precision, device()):
            return embed_source(encoder, store, device=device()).numpy()

    written(
        molecules,
        output,
        [f"e{i}" for i in range(encoder.encoder.out_dim)],
        score,
        smiles=smiles,
        ids=ids,
        features=features_of(encoder),
        strict=strict,
        threads=threads,
        quiet=quiet,
    )


def embed_data(model: str, output: Path, data: str | None, threads: int | None, precision: str) -> None:
    """Embeddings of a run's own data, or of data by name or path."""
    if output.suffix not in {".npz", ".parquet"}:
        raise ValueError(f"output {str(output)!r} must end in .npz or .parquet")
    if not output.parent.is_dir():
        raise ValueError(f"output {str(output)!r}: there is no folder {str(output.parent)!r}")
    if data is not None:
        from graphcl.data.catalogue import find

        find(data)
    from graphcl.read_config import find_pretrained, pretrained_names, run_config

    shipped = not Path(model).exists() and model in pretrained_names()
    folder = find_pretrained(model) if shipped else Path(model)
    if (folder / "config.json").is_file():
        if data is None:
            raise ValueError(f"{model!r} has no data of its own; give a molecule file, or --data with a name or a path")
        from graphcl.data.sources import load_data
        from graphcl.hub import load_pretrained

        pretrained = load_pretrained(folder)
        method: Any = pretrained
        features = "ogb" if pretrained.features == "ogb" else pretrained.config.features
        source: Any = load_data(data, features=features, normalize=pretrained.config.normalize)
    else:
        run_config(folder)
        from graphcl.builder import load_run

        run = load_run(folder, [f"data.name={json.dumps(data)}"] if data is not None else [], split=False)
        method, source = run.method, run.data
    from graphcl.evaluate.embed import embed as embed_source
    from graphcl.evaluate.export import write_embeddings

    set_threads(threads)
    from graphcl.evaluate.finetune import device_of

    with lowered(precision, device_of(method).type):
        z = embed_source(method, source)
    write_embeddings(output, z, source)
    out.print(f"{output}: {z.shape[0]} embeddings of width {z.shape[1]}")


def written(
    molecules: Path,
    output: Path,
    columns: list[str],
    score: Callable[..., Any],
    *,
    threads: int | None,
    quiet: bool,
    **how: Any,
) -> None:
    """Stream a molecule file into a table, with progress."""
    from graphcl.molecule_tables import stream

    set_threads(threads)
    began = time.perf_counter()
    with Console(stderr=True, quiet=quiet).status(f"reading {molecules.name}") as status:

        def tell(done: Any) -> None:
            rate = done.molecules / max(time.perf_counter() - began, 1e-9)
            status.update(f"{done.rows:,} rows of {molecules.name}, {rate:,.0f} molecules/s")

        done = stream(molecules, output, columns, score, tell=tell, **how)
    rate = done.molecules / max(time.perf_counter() - began, 1e-9)
    empty = done.rows - done.molecules
    rejected = f" ({empty:,} no molecules, with the reason)" if empty else ""
    out.print(f"{output}: {done.rows:,} rows{rejected}, {rate:,.0f} molecules/s", highlight=False)


@contextmanager
def kept_if_done(folder: Path) -> Iterator[None]:
    """The folder, made before the training, which would be lost without one; taken away again if that fails."""
    from graphcl.checkpoint import make_folder

    new = not folder.exists()
    make_folder(folder)
    try:
        yield
    except BaseException:
        if new:
            folder.rmdir()
        raise


@contextmanager
def epochs_shown(total: int, active: bool) -> Iterator[Callable[[str, int, int, Judged], None]]:
    """A bar over all epochs, with the score on validation."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not active) as bar:
        task = bar.add_task("fine-tuning", total=total)

        def tell(name: str, seed: int, epoch: int, judged: Judged) -> None:
            text = f"{name}, seed {seed}, epoch {epoch + 1}: validation {judged.val:.3f}"
            bar.update(task, advance=1, description=text)

        yield tell


def ogb_set(assay: str) -> str | None:
    """The name of one of OGB's sets; None for a file, which must be there. ValueError with the near names of both."""
    from graphcl.data.catalogue import DATASETS, Entry, find

    path = Path(assay)
    if assay.strip().lower().replace("_", "-").startswith("ogbg-") and isinstance(found := find(assay), Entry):
        return found.name
    if path.is_file():
        return None
    if path.is_dir():
        raise ValueError(f"{assay!r} is a folder; an assay is a molecule file, or a set of OGB such as ogbg-molhiv")
    sets = [name for name, entry in DATASETS.items() if entry.kind == "ogb"]
    beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    close = [*get_close_matches(path.name, beside, n=1), *(name for name in sets if assay.lower() in name)]
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    raise ValueError(
        f"there is no file {assay!r}{hint}; an assay is a molecule file or a set of OGB: {', '.join(sets)}"
    )


def starts_of(
    model: str, *, scratch: bool, features: Literal["benchmark", "ogb"]
) -> dict[str, Pretrained | PretrainedConfig]:
    """Where the trainings begin, by the name in the table.  features: which a network from scratch reads."""
    if model in SCRATCH:
        from graphcl.config_encoders import MoleculeGIN
        from graphcl.hub import PretrainedConfig

        encoder = MoleculeGIN(name="molecule_gin", features=features)
        return {"from scratch": PretrainedConfig(encoder=encoder, readout="mean")}
    pretrained = molecule_encoder(model)
    name = Path(model).name or model
    return {name: pretrained} | ({"from scratch": pretrained.config} if scratch else {})


def molecule_encoder(model: str) -> Pretrained:
    """The pretrained encoder; ValueError if it does not read molecules."""
    from graphcl.hub import load_pretrained

    pretrained = load_pretrained(model)
    if not pretrained.reads_molecules:
        raise ValueError(
            f"{model!r} is the encoder {pretrained.config.encoder.name!r}, which does not read molecules; take one "
            "that was pretrained as molecule_gin, molecule_gcn, molecule_sage or molecule_gat"
        )
    return pretrained


def features_of(start: Pretrained | PretrainedConfig) -> Any:
    """Which atom and bond features an encoder reads."""
    config = getattr(start, "config", start)
    return getattr(config.encoder, "features", "benchmark")


def device() -> str:
    """The GPU, if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def check_precision(precision: str) -> None:
    """ValueError for one that there is not."""
    if precision not in ("32", "bf16-mixed"):
        raise ValueError(f"--precision must be 32 or bf16-mixed, got {precision!r}")


def lowered(precision: str, device: str) -> AbstractContextManager[None]:
    """What computes in bfloat16 where it may, if the precision says so."""
    import torch

    return torch.autocast(device, torch.bfloat16, enabled=precision != "32")


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """An earlier model is not written over without being told to, and what is none is never touched."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    from graphcl.assay import FILES

    if not folder.is_dir() or not {path.name for path in folder.iterdir()} <= FILES:
        raise ValueError(f"{folder} holds something else than a fine-tuned model; choose another with --output")
    if not overwrite:
        raise ValueError(
            f"{folder} holds a model already; replace it with --overwrite, or choose another with --output"
        )
