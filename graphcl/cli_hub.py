"""The commands for weights that others use: pretrained, export, convert."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

out = Console(markup=False, emoji=False)
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace an earlier encoder in the folder")]
Full = Annotated[bool, typer.Option("--full", help="float32 weights, twice the size")]
Output = Annotated[Path, typer.Option("--output", "-o", help="folder to write", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(epilog="Examples: graphcl pretrained | graphcl pretrained runs/mine")(pretrained)
    app.command(epilog="Example: graphcl export runs/mine -o my-encoder")(export)
    app.command(epilog="Example: graphcl convert graphcl_80.pth -o graphcl-zinc2m")(convert)


def pretrained(
    name: Annotated[str | None, typer.Argument(help="a shipped name or a folder: show its card")] = None,
) -> None:
    """List the encoders that ship with the package, or show the card of one."""
    from graphcl.hub import list_pretrained, load_pretrained

    table = Table("name", "what") if name is None else Table("", name)
    if name is None:
        rows = list_pretrained().items()
    else:
        card = load_pretrained(name).card.model_dump(exclude_none=True)
        scores = card.pop("scores")
        rows = {key: str(value) for key, value in (card | scores).items()}.items()
    for row in rows:
        table.add_row(*row)
    out.print(table)


def export(
    run_folder: Annotated[Path, typer.Argument(help="folder of a finished run", show_default=False)],
    output: Output,
    about: Annotated[str | None, typer.Option(help="what the card says first; default: encoder, method, data")] = None,
    full: Full = False,
    overwrite: Overwrite = False,
) -> None:
    """Write the encoder of a run as a folder to share: config.json, half-precision weights, a model card."""
    check_output(output, overwrite=overwrite)
    from graphcl.hub import load_pretrained, save_pretrained

    model = load_pretrained(run_folder)
    card = model.card if about is None else model.card.model_copy(update={"about": about})
    config = model.config
    with as_options():
        save_pretrained(
            output,
            model.encoder,
            config=config.encoder,
            readout=config.readout,
            card=card,
            in_dim=config.in_dim,
            features=config.features,
            normalize=config.normalize,
            half=not full,
        )
    size = (output / "model.safetensors").stat().st_size
    out.print(f"{output}: {size / 2**20:.1f} MiB, load it with graphcl.load_pretrained({str(output)!r})")


def convert(
    weights: Annotated[Path, typer.Argument(help="a .pth file of the pretrain-gnns family", show_default=False)],
    output: Output,
    gnn: Annotated[str, typer.Option(help="gin, gcn or graphsage")] = "gin",
    about: Annotated[str | None, typer.Option(help="what the card says of the weights; default: their file")] = None,
    full: Full = False,
    overwrite: Overwrite = False,
) -> None:
    """Turn a public state dict of the molecule benchmark (5 layers of 300) into a folder of graphcl."""
    check_output(output, overwrite=overwrite)
    from graphcl.convert import convert_pretrain_gnns
    from graphcl.hub import ModelCard, save_pretrained

    encoder, config = convert_pretrain_gnns(weights, gnn=gnn)
    card = ModelCard(about=about or f"weights of {weights.name}", method="unknown", data="unknown", license="unknown")
    with as_options():
        save_pretrained(output, encoder, config=config, readout="mean", card=card, half=not full)
    out.print(f"{output}: load it with graphcl.load_pretrained({str(output)!r})")


def check_output(folder: Path, *, overwrite: bool) -> None:
    """An earlier encoder is not written over without being told to."""
    if (folder / "config.json").exists() and not overwrite:
        raise ValueError(f"{folder} holds an encoder already; replace it with --overwrite, or choose another folder")


@contextmanager
def as_options() -> Iterator[None]:
    """Under it errors name the option of the command line for the argument of `save_pretrained`."""
    from graphcl.checkpoint import CheckpointError

    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(str(error).replace("half=False", "--full")) from None
