"""The commands predict and embed: a row of numbers for every molecule of a file; embed takes data sets too."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from graphcl.cli_molecules import (
    Ids,
    Model,
    Precision,
    Quiet,
    Smiles,
    Strict,
    Threads,
    check_precision,
    device,
    lowered,
    molecule_encoder,
    out,
    own_molecules,
)
from graphcl.process import set_threads

if TYPE_CHECKING:
    from graphcl.data.store import GraphStore

Molecules = Annotated[
    Path,
    typer.Argument(
        help=".csv, .tsv, .smi, .sdf (also .gz) or .parquet", exists=True, dir_okay=False, show_default=False
    ),
]
Rows = Annotated[Path, typer.Option("--output", "-o", help="file to write, .csv or .parquet", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(
        epilog="Examples: graphcl embed runs/quickstart -o cora.npz | graphcl embed runs/moco --data my/graphs "
        "-o out.parquet | graphcl embed runs/mine molecules.csv -o out.parquet"
    )(embed)
    app.command(epilog="Example: graphcl predict runs/finetune-assay molecules.csv -o out.csv")(predict)


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
            "--output",
            "-o",
            help=".npz or .parquet; of a molecule file .csv or .parquet, with a row for each of its rows",
            show_default=False,
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
    if molecules is not None and data is not None:
        raise ValueError(f"the molecule file {str(molecules)!r} and --data {data!r} are both given; give one")
    from graphcl.hub import load_pretrained
    from graphcl.molecule_tables import check_output

    if molecules is not None:
        if output.suffix == ".npz":
            raise ValueError(
                f"output {str(output)!r}: a row for each row of a file goes to .csv or .parquet; for arrays of its "
                "molecules alone give the molecules by --data"
            )
        check_output(output)
        if not molecules.is_file():
            raise ValueError(f"there is no file {str(molecules)!r}")
        encoder = molecule_encoder(model)
        if encoder.readout is None:
            raise ValueError(f"{model!r} embeds nodes, it has no readout")
    else:
        molecules, own_smiles, own_ids = molecule_file(model, data)
        if molecules is None or output.suffix == ".npz":
            if molecules is None and (smiles is not None or ids is not None or strict):
                raise ValueError("--smiles, --id and --strict are for molecule files; leave them out here")
            embed_data(model, output, data, threads, precision, smiles, ids)
            return
        check_output(output)
        encoder, smiles, ids = load_pretrained(model), smiles or own_smiles, ids or own_ids
    from graphcl.data.features import prepared
    from graphcl.evaluate.embed import embed as embed_source

    config = encoder.config

    def score(store: GraphStore) -> Any:
        store = prepared(store, config.features, config.normalize)
        with lowered(precision, device()):
            return embed_source(encoder, store, device=device()).numpy()

    written(
        molecules,
        output,
        [f"e{i}" for i in range(encoder.encoder.out_dim)],
        score,
        smiles=smiles,
        ids=ids,
        features="ogb" if "ogb" in (encoder.features, config.features) else "benchmark",
        strict=strict,
        threads=threads,
        quiet=quiet,
    )


def molecule_file(model: str, data: str | None) -> tuple[Path | None, str | None, str | None]:
    """The molecule file that --data or the data of the run is, with the run's columns of SMILES and ids; else None."""
    from graphcl.read_config import load_config, run_config

    run = load_config(run_config(Path(model))) if (Path(model) / "config.yaml").is_file() else None
    if run is not None and getattr(run.method, "variational", False):  # it embeds by more than its encoder
        return None, None, None
    if data is not None:
        return own_molecules(data), None, None
    if run is None:
        return None, None, None
    asked = run.data
    return own_molecules(asked.name), asked.smiles, asked.ids


def embed_data(
    model: str,
    output: Path,
    data: str | None,
    threads: int | None,
    precision: str,
    smiles: str | None = None,
    ids: str | None = None,
) -> None:
    """Embeddings of a run's own data, or of data by name or path; smiles, ids: columns of a molecule file."""
    if output.is_dir() or not output.parent.is_dir():
        what = "it is a folder" if output.is_dir() else f"there is no folder {str(output.parent)!r}"
        raise ValueError(f"output {str(output)!r}: {what}")
    from graphcl.data.catalogue import find
    from graphcl.read_config import find_pretrained, load_config, pretrained_names, run_config

    if data is not None:
        find(data)
    folder = find_pretrained(model) if model in pretrained_names() else Path(model)
    alone = (folder / "config.json").is_file()
    if alone and data is None:
        raise ValueError(f"{model!r} has no data of its own; give a molecule file, or --data with a name or a path")
    if output.suffix not in {".npz", ".parquet"}:
        raise ValueError(f"output {str(output)!r} must end in .npz or .parquet")
    read = find(data if data is not None else load_config(run_config(folder)).data.name)
    if isinstance(read, Path) and output.exists() and output.samefile(read):
        raise ValueError(f"{output} is the data and would be written over; choose another output")
    columns = {name: value for name, value in (("smiles", smiles), ("ids", ids)) if value is not None}
    if alone:
        from graphcl.data.sources import load_data
        from graphcl.hub import load_pretrained

        pretrained = load_pretrained(folder)
        method: Any = pretrained
        features = "ogb" if pretrained.features == "ogb" else pretrained.config.features
        source: Any = load_data(str(data), features=features, normalize=pretrained.config.normalize, **columns)
    else:
        from graphcl.builder import load_run

        # The columns that the run's file had are none of the other's.
        other: dict[str, Any] = {} if data is None else {"name": data, "targets": [], "smiles": None, "ids": None}
        asked = [f"data.{name}={json.dumps(value)}" for name, value in (other | columns).items()]
        run = load_run(folder, asked, split=False)
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
    with Console(stderr=True, quiet=quiet).status(Text(f"reading {molecules.name}")) as status:

        def tell(done: Any) -> None:
            rate = done.molecules / max(time.perf_counter() - began, 1e-9)
            status.update(Text(f"{done.rows:,} rows of {molecules.name}, {rate:,.0f} molecules/s"))

        with sigterm_as_ctrl_c():
            done = stream(molecules, output, columns, score, tell=tell, **how)
    rate = done.molecules / max(time.perf_counter() - began, 1e-9)
    empty = done.rows - done.molecules
    rejected = f" ({empty:,} no molecules, with the reason)" if empty else ""
    out.print(f"{output}: {done.rows:,} rows{rejected}, {rate:,.0f} molecules/s", highlight=False)


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Under it SIGTERM ends as Ctrl-C does, so that no half-written file stays."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
