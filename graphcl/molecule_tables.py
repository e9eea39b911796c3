"""Tables of numbers for molecules, .csv or .parquet: a row for every row of the input, in its order.

A file of any length is read, scored and written block by block. The output appears whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from graphcl.data.molecule_files import named, read_blocks
from graphcl.data.molecule_formats import id_column
from graphcl.data.molecules import MoleculeFeatures, Rejected, parse_block, store_of
from graphcl.data.store import GraphStore

BLOCK = 4096  # molecules in memory
SUFFIXES = (".csv", ".parquet")


class Streamed(NamedTuple):
    """Rows of a file and how many of them are molecules."""

    rows: int
    molecules: int


class TableWriter:
    """A table that grows: text columns, numbers in between, and why a row is empty. To be used under `with`."""

    def __init__(self, path: str | Path, texts: Sequence[str], numbers: Sequence[str]) -> None:
        self.path = check_output(path)
        self.partial = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        fields = [(name, pa.string()) for name in texts] + [(name, pa.float32()) for name in numbers]
        self.schema = pa.schema([*fields, ("reason", pa.string())])

    def __enter__(self) -> TableWriter:
        self.file = self.partial.open("wb")
        if self.path.suffix == ".csv":
            options = pyarrow.csv.WriteOptions(quoting_style="needed")
            self.writer: Any = pyarrow.csv.CSVWriter(self.file, self.schema, write_options=options)
        else:
            self.writer = pq.ParquetWriter(self.file, self.schema)
        return self

    def append(
        self, texts: Sequence[Sequence[str | None]], numbers: NDArray[np.float32], reasons: Sequence[str | None]
    ) -> None:
        """b more rows. texts: one sequence a column.  numbers: [b, columns], NaN is an empty cell."""
        arrays = [pa.array(column, pa.string()) for column in texts]
        arrays += [pa.array(column, pa.float32(), from_pandas=True) for column in numbers.T]
        self.writer.write_table(pa.table([*arrays, pa.array(reasons, pa.string())], schema=self.schema))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.writer.close()
            self.file.close()
            if kind is None:
                os.replace(self.partial, self.path)
        finally:
            self.file.close()
            self.partial.unlink(missing_ok=True)


def check_output(path: str | Path) -> Path:
    """The path; ValueError if it has another suffix, is a folder, or has none to lie in."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"output {str(path)!r} must end in {' or '.join(SUFFIXES)}")
    if path.is_dir():
        raise ValueError(f"output {str(path)!r} is a folder; choose another name")
    if not path.parent.is_dir():
        raise ValueError(f"output {str(path)!r}: there is no folder {str(path.parent)!r}")
    return path


def stream(
    path: str | Path,
    output: str | Path,
    columns: Sequence[str],
    score: Callable[[GraphStore], NDArray[np.float32]],
    *,
    smiles: str | None = None,
    ids: str | None = None,
    features: MoleculeFeatures = "benchmark",
    strict: bool = False,
    block: int = BLOCK,
    tell: Callable[[Streamed], None] | None = None,
) -> Streamed:
    """Write a row for every row of a molecule file: id, smiles, the numbers of its molecule, reason if it is none.

    score: store of b molecules -> [b, columns].  smiles, ids: columns of the file, see `read_blocks`; without ids the
    row number.  strict: stop at the first row that is no molecule.  tell: called after every block.
    Raises ValueError as `read_blocks` does, then nothing is written, and if no row is a molecule, after writing why.
    """
    if Path(output).exists() and os.path.samefile(path, output):
        raise ValueError(f"{path} would be written over; choose another output")
    ids = id_column(path) if ids is None else ids
    done, first = Streamed(0, 0), None
    with TableWriter(output, ("id", "smiles"), columns) as table:
        for part in read_blocks(path, smiles=smiles, ids=ids, block=block):
            parsed = parse_block(part.smiles, features, part.reasons)
            reasons: list[str | None] = [None] * len(part.rows)
            for place, reason in parsed.rejected:
                reasons[place] = reason
                if first is None:
                    first = Rejected(part.rows[place], part.smiles[place], reason, part.lines[place])
            if strict and first is not None:
                raise ValueError(f"{path}: {_said(first)}; without --strict such rows stay empty")
            names = named(part.ids, part.rows, ids)
            numbers = np.full((len(names), len(columns)), np.nan, dtype=np.float32)
            if parsed.kept:
                numbers[parsed.kept] = score(store_of(parsed, part.smiles, names))
            table.append((names, part.smiles), numbers, reasons)
            done = Streamed(done.rows + len(names), done.molecules + len(parsed.kept))
            if tell is not None:
                tell(done)
        if done.rows == 0:
            raise ValueError(f"{path}: there are no rows; nothing is written")
    if first is not None and done.molecules == 0:
        raise ValueError(
            f"{path}: none of {done.rows} rows is a molecule; the first: {_said(first)}; {output} has every row with "
            "its reason"
        )
    return done


def _said(one: Rejected) -> str:
    return f"line {one.line}, {one.smiles!r}: {one.reason}"
