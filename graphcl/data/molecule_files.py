"""Molecules from files, block by block in bounded memory; parsed once, in several processes, into the cache.

A row that cannot be read is a row with a reason, so that nothing is lost unseen and lines can be matched with the file.
"""

from __future__ import annotations

import csv
import gzip
import os
import shutil
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import rdBase
from torch import Tensor

from graphcl.data.cache import cached, store_place
from graphcl.data.molecule_formats import READERS, Wanted, format_of, id_column
from graphcl.data.molecules import CHUNK, PARSER, MoleculeFeatures, Rejected, in_processes, refuse_none, store_of
from graphcl.data.store import GraphStore
from graphcl.process import usable_cores

BLOCK = 10_000
READER = 2  # to be raised with every change of what a file becomes
_HEADER = ["row", "line", "id", "smiles", "reason"]


class MoleculeBlock(NamedTuple):
    """Rows of a file in their order, none left out."""

    rows: list[int]  # from 0, a header not counted
    lines: list[int]  # where the row begins in the file, from 1; of a .parquet, which has no lines, row + 1
    smiles: list[str]  # "" where there is none
    ids: list[str | None]
    y: NDArray[np.float32] | None  # [b, T], NaN: missing
    reasons: list[str | None]  # why the row cannot be read; a SMILES that is no molecule is found out later


def read_blocks(
    path: str | Path,
    *,
    smiles: str | None = None,
    targets: Sequence[str] = (),
    ids: str | None = None,
    block: int = BLOCK,
) -> Iterator[MoleculeBlock]:
    """The rows of a molecule file, `block` at a time.

    smiles, targets, ids: names of columns (of a .sdf: properties); none: column `smiles`, no labels, and as id that of
    `id_column`, or the name that .smi and .sdf files give. Raises ValueError naming the file for a missing column, and
    the line too for a label that is no number.
    """
    path = Path(path)
    format_of(path)
    ids = id_column(path) if ids is None else ids
    with path.open("rb") as file:
        yield from _blocks(file, path, Wanted(smiles, tuple(targets), ids), block)


def _blocks(file: BinaryIO, path: Path, wanted: Wanted, block: int) -> Iterator[MoleculeBlock]:
    plain = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if path.suffix.lower() == ".gz" else file
    first = 0
    try:
        rows = READERS[format_of(path)](plain, wanted)
        while part := list(islice(rows, block)):
            yield MoleculeBlock(
                list(range(first, first + len(part))),
                [row.line for row in part],
                [row.smiles for row in part],
                [row.id for row in part],
                np.array([row.labels for row in part], dtype=np.float32) if wanted.targets else None,
                [row.reason for row in part],
            )
            first += len(part)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: {error}; save it as UTF-8") from None
    except (ValueError, csv.Error, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: {error}") from None


# --- parsed into the cache --------------------------------------------------------------------------------------------


def read_molecules(
    path: str | Path,
    *,
    smiles: str | None = None,
    targets: Sequence[str] = (),
    ids: str | None = None,
    features: MoleculeFeatures = "benchmark",
    workers: int | None = None,
    strict: bool = False,
    rejected: str | Path | None = None,
    progress: bool = False,
    name: str | None = None,
) -> tuple[GraphStore, list[Rejected]]:
    """Store of the molecules of a file, and the rows that are none; parsed once, then opened from the cache.

    Columns as in `read_blocks`. y is float [B, T] (NaN: missing), none without targets; `names` are the ids, where
    there is none the row number.  workers: processes; None: as many as there are cores.  strict: stop at the first row
    that is no molecule.  rejected: a CSV file to write those rows to (row, line, id, smiles, reason); the same file
    always lies beside the store.  progress: a bar on the terminal.  name: of the store; None: of the file.
    Raises ValueError as `read_blocks` does, and if no row is a molecule.
    """
    path = Path(path)
    format_of(path)
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}; leave it out to use the cores that there are")
    wanted = Wanted(smiles, tuple(targets), id_column(path) if ids is None else ids)
    name = name or path.name.removesuffix(".gz").rsplit(".", 1)[0]
    folder = store_place(name, [path], f"{wanted} {features} {PARSER} {READER} {rdBase.rdkitVersion}")
    found: list[Rejected] = []

    def build(target: Path | None) -> Iterator[GraphStore]:
        found.clear()
        yield from _chunks(path, wanted, features, workers or usable_cores(), strict, progress, name, found)
        if target is not None:
            write_rejected(rejected_beside(target), found)

    if not rejected_beside(folder).is_file():
        shutil.rmtree(folder, ignore_errors=True)
    store = cached(folder, name, build)
    if store.folder is not None:
        found = read_rejected(rejected_beside(folder))
    if strict and found:
        raise ValueError(_refusal(path, found[0]))
    if rejected is not None:
        write_rejected(Path(rejected), found)
    return store, found


def _chunks(
    path: Path,
    wanted: Wanted,
    features: MoleculeFeatures,
    workers: int,
    strict: bool,
    progress: bool,
    name: str,
    rejected: list[Rejected],
) -> Iterator[GraphStore]:
    """A store for each block that has molecules; the rows that are none go to `rejected`."""
    rows, waiting = 0, deque[MoleculeBlock]()

    def texts(file: BinaryIO) -> Iterator[tuple[list[str], list[str | None]]]:
        for block in _blocks(file, path, wanted, CHUNK):
            waiting.append(block)
            yield block.smiles, block.reasons

    with _opened(path, progress) as (file, advance):
        for parsed in in_processes(texts(file), features, workers):
            block = waiting.popleft()
            rows += len(block.rows)
            advance(rows)
            for k, reason in parsed.rejected:
                rejected.append(Rejected(block.rows[k], block.smiles[k], reason, block.lines[k], block.ids[k]))
            if strict and rejected:
                raise ValueError(_refusal(path, rejected[0]))
            if parsed.kept:
                names = named(block.ids, block.rows, wanted.ids)
                y = None if block.y is None else torch.from_numpy(block.y)
                yield store_of(parsed, block.smiles, names, y, name=name)
    refuse_none(rows, rejected, str(path))


def named(ids: Sequence[str | None], rows: Sequence[int], column: str | None) -> list[str]:
    """The ids of rows; row numbers where there is none, but an empty cell of a column of ids stays empty."""
    return [one or ("" if column is not None else str(row)) for one, row in zip(ids, rows, strict=True)]


def _refusal(path: Path, one: Rejected) -> str:
    where = f"{path}: line {one.line}, {one.smiles!r:.200}"
    return f"{where}: {one.reason}; without --strict (strict=True) such rows are left out and listed"


@contextmanager
def _opened(path: Path, progress: bool) -> Iterator[tuple[BinaryIO, Callable[[int], None]]]:
    """The file, and what is to be told how many rows are done; a bar shows how much of the file has been read."""
    if not progress:
        with path.open("rb") as file:
            yield file, lambda rows: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"reading {path.name}", total=path.stat().st_size)

        def advance(rows: int) -> None:
            bar.update(task, description=f"reading {path.name}: {rows:,} molecules")

        with path.open("rb") as file:
            yield bar.wrap_file(file, task_id=task), advance


def rejected_beside(folder: Path) -> Path:
    """Where the rejected rows of a store in the cache are listed."""
    return folder.with_name(f"{folder.name}.rejected.csv")


def write_rejected(path: Path, rejected: Iterable[Rejected]) -> None:
    """List rows that are no molecules: row, line, id, smiles, reason. The file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    with half.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_HEADER)
        writer.writerows((one.row, one.line, one.id, one.smiles, one.reason) for one in rejected)
    os.replace(half, path)


def read_rejected(path: Path) -> list[Rejected]:
    """What `write_rejected` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Rejected(int(row), smiles, reason, int(line) if line else None, name or None)
            for row, line, name, smiles, reason in islice(csv.reader(file), 1, None)
        ]


def task_kinds(y: Tensor) -> list[Literal["classification", "regression"]]:
    """What each task (a column of y, [B, T] or [B]) is: classification if all known values (not NaN) are 0 or 1."""
    columns = y if y.dim() == 2 else y[:, None]
    classes = ((columns == 0) | (columns == 1) | columns.isnan()).all(dim=0)
    return ["classification" if one else "regression" for one in classes.tolist()]
