"""Rows of molecule files in each format.

`.smi` and `.txt` (SMILES and an optional name on each line), `.csv`, `.tsv`, `.sdf`, each also as `.gz`, `.parquet`.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import math
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from graphcl.data.labels import UNKNOWN, plain_float
from graphcl.data.sdf import LATIN1, properties, records, smiles_of

BATCH = 10_000  # rows of a .parquet that are read at once
LARGEST_CELL = 1 << 20  # characters; the limit of Python, 131,072, is less than some notes have
_LARGEST = float(np.finfo(np.float32).max)
_MARKS = {".csv": ",", ".tsv": "\t"}  # between cells
_EXTENSION = re.compile(r"^\|[^|]*\|")  # of CXSMILES, between the SMILES and the name
_TRUTH = {"true": 1.0, "false": 0.0}


class Row(NamedTuple):
    """A row; reason: why it cannot be read."""

    line: int
    smiles: str
    id: str | None = None
    labels: list[float] = []  # noqa: RUF012
    reason: str | None = None


class Wanted(NamedTuple):
    """Columns by name."""

    smiles: str | None
    targets: tuple[str, ...]
    ids: str | None


def format_of(path: Path) -> str:
    """`.csv` of `a.csv` and of `a.csv.gz`. ValueError if nothing here reads it."""
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    if (found := plain.suffix.lower()) not in READERS:
        raise ValueError(
            f"{path}: not a molecule file; known: .smi .txt .csv .tsv .sdf (also .gz) and .parquet; save a table "
            "as .csv"
        )
    return found


def id_column(path: str | Path) -> str | None:
    """`id`, if a column of a .csv, .tsv or .parquet file is called exactly so; then the rows are named by it."""
    path = Path(path)
    try:
        if format_of(path) in _MARKS:
            opened = gzip.open if path.suffix.lower() == ".gz" else open
            with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
                header = next(csv.reader(file, strict=True, delimiter=_MARKS[format_of(path)]), [])
        elif format_of(path) == ".parquet":
            import pyarrow.parquet as pq

            header = pq.read_schema(path).names
        else:
            return None
    except (ValueError, csv.Error, EOFError, OSError, zlib.error):  # who reads the rows tells it, with the place
        return None
    return "id" if "id" in header else None


def _smi(file: BinaryIO, wanted: Wanted) -> Iterator[Row]:
    for name, known in ((wanted.smiles, "smiles"), (wanted.ids, "name"), *((target, "") for target in wanted.targets)):
        if name not in (None, known):
            raise ValueError(
                f"no column {name!r}; a .smi file has SMILES and names only, labels need a .csv, .tsv, .sdf or .parquet"
            )
    blank: list[int] = []  # they count only if something follows
    for line, text in enumerate(io.TextIOWrapper(file, encoding="utf-8-sig"), start=1):
        cells = text.split(maxsplit=1)
        if not cells:
            blank.append(line)
            continue
        if line == 1 and cells[0].lower().startswith("smiles"):  # no molecule's does
            continue
        yield from (Row(number, "") for number in blank)
        blank.clear()
        smiles, name = cells[0], cells[1] if len(cells) > 1 else ""
        if extension := _EXTENSION.match(name):
            smiles, name = f"{smiles} {extension[0]}", name[extension.end() :]
        yield Row(line, smiles, name.strip() or None)


def _cells(file: BinaryIO, wanted: Wanted, mark: str) -> Iterator[Row]:
    limit = csv.field_size_limit(LARGEST_CELL)
    try:
        yield from _cell_rows(file, wanted, mark)
    finally:
        csv.field_size_limit(limit)


def _cell_rows(file: BinaryIO, wanted: Wanted, mark: str) -> Iterator[Row]:
    # strict: else a quote that is not closed takes the rest of the file into one cell, unseen.
    reader = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), strict=True, delimiter=mark)
    header = next(reader, [])
    other = next((one for one in ",;\t|" if one != mark and one in "".join(header)), "")
    if len(header) == 1 and other and (wanted.smiles or "smiles") not in header:
        raise ValueError(
            f"no column {wanted.smiles or 'smiles'!r}; cells seem to be separated by {other!r} here, in a .csv they "
            "are by commas, in a .tsv by tabs: save it so, or give it the other ending. The first line: "
            f"{header[0]!r:.200}"
        )
    smiles, ids, targets = _columns(wanted, header)
    blank: list[int] = []
    line = reader.line_num + 1
    try:
        for cells in reader:
            begins, line = line, reader.line_num + 1
            if not cells:
                blank.append(begins)
                continue
            yield from (Row(number, "", labels=[math.nan] * len(targets)) for number in blank)
            blank.clear()
            if len(cells) != len(header):
                reason = f"{len(cells)} cells, the header has {len(header)}"
                # What a short row has is in its place, in a long one the first cell.
                placed = ids is not None and (ids < len(cells) < len(header) or ids == 0)
                name = cells[ids].strip() or None if placed and ids is not None else None
                yield Row(begins, "", name, [math.nan] * len(targets), reason)
                continue
            labels = [_number(cells[column], begins, header[column]) for column in targets]
            yield Row(begins, cells[smiles].strip(), None if ids is None else cells[ids].strip() or None, labels)
    except csv.Error as error:
        raise ValueError(f"{error}, in the row from line {line} on; look for a quote that is not closed") from None


def _columns(wanted: Wanted, header: Sequence[str]) -> tuple[int, int | None, list[int]]:
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
        wanted = name.strip().lower()
        close = difflib.get_close_matches(wanted, lower, n=1) or [
            column for column in lower if wanted in re.split(r"[\W_]+", column)
        ]
        hint = f", did you mean {lower[close[0]]!r}?" if close else ""
        raise ValueError(f"no column {name!r}{hint or ';'} columns: {shown or 'none, the file is empty'}")
    if list(header).count(name) > 1:
        raise ValueError(f"column {name!r} stands there {list(header).count(name)} times; rename all but one")
    return list(header).index(name)


def _number(cell: Any, line: int, column: str) -> float:
    if cell is None or (isinstance(cell, str) and cell.strip().lower() in UNKNOWN):
        return math.nan
    try:
        truth = _TRUTH.get(cell.strip().lower()) if isinstance(cell, str) else float(cell)
        value = plain_float(cell) if truth is None else truth
    except (TypeError, ValueError):
        raise ValueError(
            f"line {line}, column {column!r}: {cell!r} is not a number; labels are numbers (classes 0 and 1, or "
            "true and false), or empty where nothing is known"
        ) from None
    if abs(value) > _LARGEST:
        raise ValueError(
            f"line {line}, column {column!r}: {cell!r} is infinite in float32; leave the cell empty if it is unknown"
        )
    return value


def _parquet(file: BinaryIO, wanted: Wanted) -> Iterator[Row]:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file)
    header = table.schema_arrow.names
    smiles, ids, targets = _columns(wanted, header)
    chosen = {column: header[column] for column in (smiles, ids, *targets) if column is not None}
    line = 1
    for batch in table.iter_batches(batch_size=BATCH, columns=list(chosen.values())):
        values = {column: batch.column(name).to_pylist() for column, name in chosen.items()}
        for i, text in enumerate(values[smiles]):
            labels = [_number(values[column][i], line, header[column]) for column in targets]
            name = None if ids is None else _name(values[ids][i])
            if text is None or isinstance(text, str):
                yield Row(line, (text or "").strip(), name, labels)
            else:
                yield Row(line, "", name, labels, f"not text but {text!r}")
            line += 1


def _name(value: Any) -> str | None:
    """An id as text; where some are missing, tables hold whole numbers as 7.0."""
    if value is None or value != value:
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip() or None


def _sdf(file: BinaryIO, wanted: Wanted) -> Iterator[Row]:
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
        yield Row(begins, smiles, name or None, labels, reason)
    if line > 1:
        for name in names:
            _column(name, list(seen))


READERS: dict[str, Callable[[BinaryIO, Wanted], Iterator[Row]]] = {
    ".smi": _smi,
    ".txt": _smi,
    **{ending: partial(_cells, mark=mark) for ending, mark in _MARKS.items()},
    ".parquet": _parquet,
    ".sdf": _sdf,
}
