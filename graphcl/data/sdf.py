"""The records of an `.sdf` file: a structure, which becomes SMILES, and properties."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence

from rdkit import Chem, rdBase

LATIN1 = "graphcl.latin1"  # how to decode a file: what is no UTF-8 as Latin-1, which many older programs write


def _as_latin1(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error(LATIN1, _as_latin1)


def records(lines: Iterable[str]) -> Iterator[list[str]]:
    """The lines of each record; the last one has no end mark."""
    record: list[str] = []
    for text in lines:
        record.append(text)
        if text.startswith("$$$$"):
            yield record
            record = []
    yield record


def properties(lines: Sequence[str]) -> dict[str, str]:
    """The values of a record by name: `> <name>`, the value on the lines after it, a blank line."""
    values: dict[str, str] = {}
    name: str | None = None
    for text in lines:
        if text.startswith(">") and (found := re.search("<(.+)>", text)):
            name = found[1]
            values[name] = ""
        elif not text.strip() or text.startswith("$$$$"):
            name = None
        elif name is not None:
            values[name] += ("\n" if values[name] else "") + text.strip()
    return values


def smiles_of(block: str) -> tuple[str, str | None]:
    """SMILES of a mol block, or "" and why there is none."""
    with rdBase.BlockLogs():
        molecule = Chem.MolFromMolBlock(block)
        if molecule is None:
            unchecked = Chem.MolFromMolBlock(block, sanitize=False)
            problems = [] if unchecked is None else Chem.DetectChemistryProblems(unchecked)
            return "", problems[0].Message() if problems else "not a mol block"
        return Chem.MolToSmiles(molecule), None if molecule.GetNumAtoms() else "no atoms"
