"""The command finetune, and what it shares with predict and embed (cli_embed.py)."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from graphcl.process import set_threads, warn_of_slow_bf16

if TYPE_CHECKING:
    from graphcl.evaluate.tasks import Judged
    from graphcl.hub import Pretrained, PretrainedConfig

out = Console(markup=False, emoji=False)
SCRATCH = ("none", "scratch")
TRAININGS = "trainings"  # in the folder of a model, while it trains: see graphcl/trainings.py
OURS = re.compile(r"[0-9a-f]{16}\.pt(\.tmp)?")  # files in it
Model = Annotated[
    str,
    typer.Argument(help="a shipped name (graphcl pretrained), or a folder of pretrain or export", show_default=False),
]
Smiles = Annotated[str | None, typer.Option("--smiles", help="column of the SMILES; default: smiles")]
Ids = Annotated[str | None, typer.Option("--id", help="column that names the rows; default: id, or row numbers")]
Precision = Annotated[str, typer.Option("--precision", help="32, or for the encoder bf16-mixed")]
Strict = Annotated[bool, typer.Option("--strict", help="stop at the first row that is no molecule")]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads; default: OMP_NUM_THREADS, else all cores")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress")]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(
        epilog="Examples: graphcl finetune runs/mine assay.csv --target active | graphcl finetune none assay.csv "
        "--target active | graphcl finetune attribute-masking-zinc250k ogbg-molhiv"
    )(finetune)


def finetune(
    model: Annotated[
        str,
        typer.Argument(
            help="a shipped name (graphcl pretrained), a folder of pretrain or export, or the word none: from scratch",
            show_default=False,
        ),
    ],
    assay: Annotated[
        str,
        typer.Argument(
            help=".csv, .tsv, .sdf (also .gz) or .parquet; or a set of OGB by its name, ogbg-mol...", show_default=False
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
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with a run that was stopped; trainings that had ended are kept")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="delete an earlier model in the folder, and trainings of a run that was stopped"
        ),
    ] = False,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", help="scaffold, random_scaffold or random, 80/10/10; default: scaffold, of OGB's sets its own"
        ),
    ] = None,
    split_seed: Annotated[int, typer.Option("--split-seed", min=0, max=2**32 - 1, help="of the random splits")] = 0,
    metric: Annotated[
        str | None,
        typer.Option("--metric", help="roc_auc, prc_auc, accuracy, rmse, mae; default: by the values, or OGB's"),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="trainings, and members of the ensemble")] = 3,
    epochs: Annotated[int, typer.Option("--epochs", min=1)] = 100,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, max=2**31 - 1)] = 32,
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
    check_folder(folder, resume=resume, overwrite=overwrite)
    replaced = resume and (folder / "predictor.json").exists()  # what was stopped began with --overwrite
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
    from graphcl.data.molecule_formats import id_column
    from graphcl.evaluate.finetune import Settings

    check_split(split, ogb)
    settings = Settings(epochs, lr, batch_size, frozen, layer_decay, patience, dropout, precision).checked()
    set_threads(threads)
    features = features_of(next(iter(starts.values())))
    how: Any = {"features": features, "strict": strict, "progress": not quiet}
    if ogb:
        read = read_ogb(ogb, target or (), **how)
    else:
        read = read_assay(assay, target or (), smiles=smiles, ids=ids or id_column(assay), **how)
    settings = settings._replace(precise_norm=read.kind == "regression" and not frozen)
    counted = f"{len(read.store):,} molecules, {len(read.rejected):,} rejected rows"
    out.print(f"{read.path.name}: {counted}; {read.kind} of {several(read.targets)}", highlight=False)
    with kept_if_done(folder, resume=resume), epochs_shown(len(starts) * seeds * epochs, not quiet) as tell:
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
            keep=folder / TRAININGS,
        )
    clear_folder(folder, overwrite=overwrite or replaced)
    write_folder(folder, read, tuned)
    clear_trainings(folder)
    if tuned.report["taken"]:
        told = f"{tuned.report['taken']} of {len(starts) * seeds} trainings had ended before"
        out.print(f"{told}; {folder / TRAININGS} is gone, as all are done", highlight=False)
    head, rows = table(tuned.report)
    shown = Table(*head)
    for row in rows:
        shown.add_row(*row)
    out.print(markdown(tuned.report).split("\n\n")[1], highlight=False)
    out.print(shown)
    if ogb:
        out.print(told_of_ogb(tuned.report["ogb"]), highlight=False)
    out.print(
        f"model, report and predictions: {folder}; next: graphcl predict {shlex.quote(str(folder))} FILE -o out.csv",
        highlight=False,
        soft_wrap=True,  # to be copied in one piece
    )


@contextmanager
def kept_if_done(folder: Path, *, resume: bool) -> Iterator[None]:
    """The folder, made before the training, which would be lost without one.

    Taken away again if that fails, but for trainings that had ended. Those of an earlier run go without `resume`.
    """
    from graphcl.checkpoint import make_folder

    new = not folder.exists()
    make_folder(folder)
    if not resume:
        clear_trainings(folder)
    try:
        yield
    except BaseException:
        if any((folder / TRAININGS).glob("*.pt")):
            print(f"trainings that had ended are kept in {folder / TRAININGS}: go on with --resume", file=sys.stderr)
        else:
            clear_trainings(folder)
        if new:
            with suppress(OSError):  # somebody put a file there, which stays
                folder.rmdir()
        raise


@contextmanager
def epochs_shown(total: int, active: bool) -> Iterator[Callable[[str, int, int, Judged], None]]:
    """A bar over all epochs, with the score on validation."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
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


def own_molecules(name: str) -> Path | None:
    """The molecule file that a data set is, by its path; None for other data."""
    from graphcl.data.catalogue import find
    from graphcl.data.sources import MOLECULE_FILES

    found = find(name)
    is_one = isinstance(found, Path) and found.is_file() and found.name.lower().endswith(MOLECULE_FILES)
    return found if is_one and isinstance(found, Path) else None


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

    warn_of_slow_bf16(precision, device)
    return torch.autocast(device, torch.bfloat16, enabled=precision != "32")


def check_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """An earlier model is not written over without being told to, and what is none is never touched."""
    if resume and overwrite:
        raise ValueError("--resume goes on with the earlier run and --overwrite deletes it; give one of them")
    from graphcl.assay import FILES

    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    kept = [path.name for path in (folder / TRAININGS).glob("*")]
    own = all(OURS.fullmatch(name) for name in kept) and not (folder / TRAININGS).is_file()
    if (folder.exists() and not folder.is_dir()) or not names <= FILES | {TRAININGS} or not own:
        raise ValueError(f"{folder} holds something else than a fine-tuned model; choose another with --output")
    if resume and not kept:
        what = "holds a finished model" if names - {TRAININGS} else "holds no training that had ended"
        raise ValueError(f"nothing to resume: {folder} {what}; leave --resume out to begin anew")
    if resume or overwrite or not (kept or names - {TRAININGS}):
        return
    if kept:
        raise ValueError(
            f"{folder} holds trainings of a run that was stopped; go on with --resume, delete them with --overwrite, "
            "or choose another with --output"
        )
    raise ValueError(f"{folder} holds a model already; replace it with --overwrite, or choose another with --output")


def clear_trainings(folder: Path) -> None:
    """Delete the trainings that were kept in the folder."""
    for path in (folder / TRAININGS).glob("*"):
        if OURS.fullmatch(path.name):
            path.unlink()
    with suppress(OSError):  # there are none
        (folder / TRAININGS).rmdir()


def clear_folder(folder: Path, *, overwrite: bool) -> None:
    """Take an earlier model out of the folder under --overwrite; what is none stays, also if it came meanwhile."""
    from graphcl.assay import FILES

    there = [folder / name for name in sorted(FILES) if (folder / name).exists()]
    if there and not overwrite:
        raise ValueError(
            f"{there[0]} was written while this model trained, which is not saved; "
            "train it again with another --output, or with --overwrite"
        )
    for path in there:
        path.unlink()
