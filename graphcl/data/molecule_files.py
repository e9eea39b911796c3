"""Molecules from files, block by block in bounded memory; parsed once, in several processes, into the cache.

`.smi` and `.txt` (SMILES and an optional name on each line), `.csv`, `.sdf`, each also as `.gz`, and `.parquet`.
A row that cannot be read is a row with a reason, so that nothing is lost unseen and lines can be matched with the file.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import math
import os
import shutil
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import rdBase
from torch import Tensor

from graphcl.data.cache import cached, store_place
from graphcl.data.labels import UNKNOWN, plain_float
from graphcl.data.molecules import CHUNK, PARSER, MoleculeFeatures, Rejected, in_processes, refuse_none, store_of
from graphcl.data.sdf import LATIN1, properties, records, smiles_of
from graphcl.data.store import GraphStore
from graphcl.process import usable_cores

BLOCK = 10_000
READER = 1  # to be raised with every change of what a file becomes
_LARGEST = float(np.finfo(np.float32).max)
LARGEST_CELL = 1 << 20  # characters; the limit of Python, 131,072, is less than some notes have
_HEADER = ["row", "line", "id", "smiles", "reason"]


class MoleculeBlock(NamedTuple):
    """Rows of a file in their order, none left out."""

    rows: list[int]  # from 0, a header not counted
    lines: list[int]  # where the row begins in the file, from 1; of a .parquet, which has no lines, row + 1
    smiles: list[str]  # "" where there is none
    ids: list[str | None]
    y: NDArray[np.float32] | None  # [b, T], NaN: missing
    reasons: list[str | None]  # why the row cannot be read; a SMILES that is no molecule is found out later


class _Row(NamedTuple):
    line: int
    smiles: str
    id: str | None = None
    labels: list[float] = []  # noqa: RUF012
    reason: str | None = None


class _Wanted(NamedTuple):
    """Columns by name."""

    smiles: str | None
    targets: tuple[str, ...]
    ids: str | None


def _format(path: Path) -> str:
    """`.csv` of `a.csv` and of `a.csv.gz`."""
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return plain.suffix.lower()


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
    if _format(path) not in _READERS:
        raise ValueError(f"{path}: not a molecule file; known: .smi .txt .csv .sdf (also .gz) and .parquet")
    ids = id_column(path) if ids is None else ids
    with path.open("rb") as file:
        yield from _blocks(file, path, _Wanted(smiles, tuple(targets), ids), block)


def id_column(path: str | Path) -> str | None:
    """`id`, if a column of a .csv or .parquet file is called exactly so; then the rows are named by it."""
    path = Path(path)
    try:
        if _format(path) == ".csv":
            opened = gzip.open if path.suffix.lower() == ".gz" else open
            with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
                header = next(csv.reader(file, strict=True), [])
        elif _format(path) == ".parquet":
            import pyarrow.parquet as pq

            header = pq.read_schema(path).names
        else:
            return None
    except (ValueError, csv.Error, EOFError, OSError, zlib.error):  # who reads the rows tells it, with the place
        return None
    return "id" if "id" in header else None


def _blocks(file: BinaryIO, path: Path, wanted: _Wanted, block: int) -> Iterator[MoleculeBlock]:
    plain = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if path.suffix.lower() == ".gz" else file
    first = 0
    try:
        rows = _READERS[_format(path)](plain, wanted)
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


# --- the formats ------------------------------------------------------------------------------------------------------


def _smi(file: BinaryIO, wanted: _Wanted) -> Iterator[_Row]:
    for name, known in ((wanted.smiles, "smiles"), (wanted.ids, "name"), *((target, "") for target in wanted.targets)):
        if name not in (None, known):
            raise ValueError(f"no column {name!r}; a .smi file has SMILES and names only, labels need a .csv")
    blank: list[int] = []  # they count only if something follows
    for line, text in enumerate(io.TextIOWrapper(file, encoding="utf-8-sig"), start=1):
        cells = text.split(maxsplit=1)
        if not cells:
            blank.append(line)
            continue
        if line == 1 and cells[0].lower().startswith("smiles"):  # no molecule's does
            continue
        yield from (_Row(number, "") for number in blank)
        blank.clear()
        yield _Row(line, cells[0], cells[1].strip() if len(cells) > 1 else None)


def _csv(file: BinaryIO, wanted: _Wanted) -> Iterator[_Row]:
    limit = csv.field_size_limit(LARGEST_CELL)
    try:
        yield from _csv_rows(file, wanted)
    finally:
        csv.field_size_limit(limit)


def _csv_rows(file: BinaryIO, wanted: _Wanted) -> Iterator[_Row]:
    # strict: else a quote that is not closed takes the rest of the file into one cell, unseen.
    reader = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), strict=True)
    header = next(reader, [])
    smiles, ids, targets = _columns(wanted, header)
    blank: list[int] = []
    line = reader.line_num + 1
    try:
        for cells in reader:
            begins, line = line, reader.line_num + 1
            if not cells:
                blank.append(begins)
                continue
            yield from (_Row(number, "", labels=[math.nan] * len(targets)) for number in blank)
            blank.clear()
            if len(cells) != len(header):
                reason = f"{len(cells)} cells, the header has {len(header)}"
                # What a short row has is in its place, in a long one the first cell.
                placed = ids is not None and (ids < len(cells) < len(header) or ids == 0)
                name = cells[ids].strip() or None if placed and ids is not None else None
                yield _Row(begins, "", name, [math.nan] * len(targets), reason)
                continue
            labels = [_number(cells[column], begins, header[column]) for column in targets]
            yield _Row(begins, cells[smiles].strip(), None if ids is None else cells[ids].strip() or None, labels)
    except csv.Error as error:
        raise ValueError(f"{error}, in the row from line {line} on; look for a quote that is not closed") from None


def _columns(wanted: _Wanted, header: Sequence[str]) -> tuple[int, int | None, list[int]]:
    """Where the columns stand: SMILES, id, targets."""
    smiles = wanted.smiles
    if smiles is None:
        alike = [name for name in header if name.strip().lower() == "smiles"]
        smiles = alike[0] if len(alike) == 1 else "smiles"
    return (
        _column(smiles, header),
        None if wanted.ids is None else _column(wanted.ids, header),
        [_column(name, header) for name in wanted.targets],
    )


def _column(name: str, header: Sequence[str]) -> int:
    if name not in header:
        shown = ", ".join(header[:20]) + (", ..." if len(header) > 20 else "")
        lower = {column.strip().lower(): column for column in header}
        close = difflib.get_close_matches(name.strip().lower(), lower, n=1)
        hint = f", did you mean {lower[close[0]]!r}?" if close else ""
        if len(header) == 1 and (other := next((mark for mark in ";\t|" if mark in header[0]), "")):
            hint = f"; cells are separated by commas here, in the file it seems by {other!r}: save it with commas;"
        raise ValueError(f"no column {name!r}{hint or ';'} columns: {shown or 'none, the file is empty'}")
    if list(header).count(name) > 1:
        raise ValueError(f"column {name!r} stands there {list(header).count(name)} times; rename all but one")
    return list(header).index(name)


def _number(cell: Any, line: int, column: str) -> float:
    if cell is None or (isinstance(cell, str) and cell.strip().lower() in UNKNOWN):
        return math.nan
    try:
        value = plain_float(cell) if isinstance(cell, str) else float(cell)
    except (TypeError, ValueError):
        raise ValueError(
            f"line {line}, column {column!r}: {cell!r} is not a number; labels are numbers (classes 0 and 1), or empty "
            "where nothing is known"
        ) from None
    if abs(value) > _LARGEST:
        raise ValueError(
            f"line {line}, column {column!r}: {cell!r} is infinite in float32; leave the cell empty if it is unknown"
        )
    return value


def _parquet(file: BinaryIO, wanted: _Wanted) -> Iterator[_Row]:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file)
    header = table.schema_arrow.names
    smiles, ids, targets = _columns(wanted, header)
    chosen = {column: header[column] for column in (smiles, ids, *targets) if column is not None}
    line = 1
    for batch in table.iter_batches(batch_size=BLOCK, columns=list(chosen.values())):
        values = {column: batch.column(name).to_pylist() for column, name in chosen.items()}
        for i, text in enumerate(values[smiles]):
            labels = [_number(values[column][i], line, header[column]) for column in targets]
            name = None if ids is None else _name(values[ids][i])
            if text is None or isinstance(text, str):
                yield _Row(line, (text or "").strip(), name, labels)
            else:
                yield _Row(line, "", name, labels, f"not text but {text!r}")
            line += 1


def _name(value: Any) -> str | None:
    """An id as text; where some are missing, tables hold whole numbers as 7.0."""
    if value is None or value != value:
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip() or None


def _sdf(file: BinaryIO, wanted: _Wanted) -> Iterator[_Row]:
    if wanted.smiles is not None:
        raise ValueError(f"smiles={wanted.smiles!r} names a column, but a .sdf holds the structures; leave it out")
    names = (*wanted.targets, *(() if wanted.ids is None else (wanted.ids,)))
    seen: dict[str, None] = {}
    line = 1
    for record in records(io.TextIOWrapper(file, encoding="utf-8-sig", errors=LATIN1)):
        begins, line = line, line + len(record)
        if not "".join(record).strip("$ \t\r\n"):
            continue
        ends = next((i for i, text in enumerate(record, start=1) if text.startswith("M  END")), len(record))
        values = properties(record[ends:])
        seen.update(dict.fromkeys(values))
        smiles, reason = smiles_of("".join(record[:ends]))
        labels = [_number(values.get(name), begins, name) for name in wanted.targets]
        name = record[0].strip() if wanted.ids is None else values.get(wanted.ids, "").strip()
        yield _Row(begins, smiles, name or None, labels, reason)
    if line > 1:
        for name in names:
            _column(name, list(seen))


_READERS: dict[str, Callable[[BinaryIO, _Wanted], Iterator[_Row]]] = {
    ".smi": _smi,
    ".txt": _smi,
    ".csv": _csv,
    ".parquet": _parquet,
    ".sdf": _sdf,
}


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
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}; leave it out to use the cores that there are")
    wanted = _Wanted(smiles, tuple(targets), id_column(path) if ids is None else ids)
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
    wanted: _Wanted,
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
