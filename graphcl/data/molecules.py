"""SMILES -> GraphStore, with the 2 + 2 categorical features of the molecule benchmark; scaffold split.

Features: Hu et al., 2020, "Strategies for Pre-training Graph Neural Networks", arXiv:1905.12265: type and chirality
of an atom, type and direction of a bond, hydrogens left implicit. Where that code refuses a molecule (wildcard atoms,
coordination bonds, square-planar centres) ours reads it and says "unknown": atom type 118, bond type 5, no chirality.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from rdkit import Chem, rdBase
from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles
from torch import Tensor

from graphcl.data.splits import Split
from graphcl.data.store import GraphStore
from graphcl.data.store_file import StoreWriter

CHUNK = 10_000  # molecules in memory at a time
UNKNOWN_ATOM = 118  # atomic numbers 1 to 118 are 0 to 117; 119 is the masked atom
UNKNOWN_BOND = 5  # 4 is the encoder's self-loop; the benchmark's table ends with 5, which also stands for a masked bond
_CHIRALITY = {Chem.ChiralType.CHI_TETRAHEDRAL_CW: 1, Chem.ChiralType.CHI_TETRAHEDRAL_CCW: 2}  # others: 0
_BOND = {Chem.BondType.SINGLE: 0, Chem.BondType.DOUBLE: 1, Chem.BondType.TRIPLE: 2, Chem.BondType.AROMATIC: 3}
_DIRECTION = {Chem.BondDir.ENDUPRIGHT: 1, Chem.BondDir.ENDDOWNRIGHT: 2}  # others: 0


class Rejected(NamedTuple):
    """A SMILES that is no molecule: its row in the input, counted from 0, and why."""

    row: int
    smiles: str
    reason: str


class MoleculeArrays(NamedTuple):
    """One molecule of n atoms and e / 2 bonds, both directions of each, sorted by target, then source."""

    x: NDArray[np.uint8]  # [n, 2] atom type, chirality
    edges: NDArray[np.int32]  # [2, e] source, target
    edge_attr: NDArray[np.uint8]  # [e, 2] bond type, direction


def parse_smiles(smiles: str) -> Chem.Mol:
    """The molecule. Raises ValueError with the reason if there is none; RDKit writes nothing to the terminal."""
    if not isinstance(smiles, str):
        raise ValueError(f"not text but {smiles!r}")
    if not smiles.strip():
        raise ValueError("empty")
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
        if molecule is None:
            unchecked = Chem.MolFromSmiles(smiles, sanitize=False)
            problems = [] if unchecked is None else Chem.DetectChemistryProblems(unchecked)
            raise ValueError(problems[0].Message() if problems else "not a SMILES string")
    if molecule.GetNumAtoms() == 0:
        raise ValueError("no atoms")
    return molecule


def molecule_arrays(molecule: Chem.Mol) -> MoleculeArrays:
    """Features and edges of a molecule."""
    # By index: RDKit's own iterators cost more than what is done with the atoms.
    atoms = []
    for i in range(molecule.GetNumAtoms()):
        atom = molecule.GetAtomWithIdx(i)
        atoms.append((_atom_type(atom.GetAtomicNum()), _CHIRALITY.get(atom.GetChiralTag(), 0)))
    rows = []
    for k in range(molecule.GetNumBonds()):
        bond = molecule.GetBondWithIdx(k)
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        kind = _BOND.get(bond.GetBondType(), UNKNOWN_BOND), _DIRECTION.get(bond.GetBondDir(), 0)
        rows += [(i, j, *kind), (j, i, *kind)]  # target, source
    edges = np.array(sorted(rows), dtype=np.int32).reshape(-1, 4)
    return MoleculeArrays(np.array(atoms, dtype=np.uint8), edges[:, 1::-1].T, edges[:, 2:].astype(np.uint8))


def _atom_type(number: int) -> int:
    return number - 1 if 1 <= number <= 118 else UNKNOWN_ATOM


def molecule_chunks(
    blocks: Iterable[tuple[Sequence[str], Tensor | None]], rejected: list[Rejected], *, name: str = "molecules"
) -> Iterator[GraphStore]:
    """A store for each block of SMILES and their labels ([b] or [b, T]), of those that are molecules.

    Each has x [N, 2] and edge_attr [E, 2] as uint8, `smiles` as given, and `names`, the row that each molecule had in
    what was given. Rows that are no molecules go to `rejected`. Raises ValueError at the end if no row is a molecule.
    """
    rows = 0
    for smiles, y in blocks:
        kept: list[int] = []
        molecules: list[MoleculeArrays] = []
        for place, text in enumerate(smiles):
            try:
                molecules.append(molecule_arrays(parse_smiles(text)))
                kept.append(place)
            except ValueError as error:
                rejected.append(Rejected(rows + place, str(text), str(error)))
        if molecules:
            edges = torch.from_numpy(np.concatenate([m.edges for m in molecules], axis=1))
            yield GraphStore(
                x=torch.from_numpy(np.concatenate([m.x for m in molecules])),
                src=edges[0],
                dst=edges[1],
                edge_attr=torch.from_numpy(np.concatenate([m.edge_attr for m in molecules])),
                y=None if y is None else y[kept],
                node_ptr=_pointer([len(m.x) for m in molecules]),
                edge_ptr=_pointer([m.edges.shape[1] for m in molecules]),
                smiles=[smiles[place] for place in kept],
                names=[str(rows + place) for place in kept],
                name=name,
            )
        rows += len(smiles)
    if len(rejected) == rows:
        first = f"; the first, {rejected[0].smiles!r}: {rejected[0].reason}" if rejected else ""
        raise ValueError(f"{name}: none of {rows} SMILES is a molecule{first}")


def _pointer(counts: list[int]) -> Tensor:
    return torch.tensor([0, *counts]).cumsum(0)


def molecules_to_store(
    smiles: Sequence[str],
    y: ArrayLike | Tensor | None = None,
    *,
    name: str = "molecules",
    folder: str | Path | None = None,
) -> tuple[GraphStore, list[Rejected]]:
    """Store of the molecules in their order, and the rows that are none; see `molecule_chunks` for what it holds.

    y: [B] or [B, T] labels, one row for each SMILES; those of rejected rows are left out.  folder: a new folder to
    write the store to chunk by chunk; without one it is made in memory. Raises ValueError if y does not fit or no row
    is a molecule.
    """
    if isinstance(smiles, str):
        raise ValueError(f"smiles must be a list of strings, got the string {smiles!r}; put it into a list")
    labels = None if y is None else torch.as_tensor(y)
    if labels is not None and (labels.dim() == 0 or len(labels) != len(smiles)):
        raise ValueError(
            f"{name}: labels of shape {tuple(labels.shape)} for {len(smiles)} SMILES; one row each is needed"
        )
    parts = [slice(first, first + CHUNK) for first in range(0, len(smiles), CHUNK)]
    blocks = ((smiles[part], None if labels is None else labels[part]) for part in parts)
    rejected: list[Rejected] = []
    return _collected(molecule_chunks(blocks, rejected, name=name), folder, name), rejected


def _collected(chunks: Iterator[GraphStore], folder: str | Path | None, name: str) -> GraphStore:
    if folder is None:
        return GraphStore.concat(list(chunks))
    with StoreWriter(folder, name=name) as writer:
        for chunk in chunks:
            writer.append(chunk)
    return GraphStore.open(folder)


def read_molecule_csv(
    path: str | Path,
    *,
    smiles_column: str = "smiles",
    targets: Sequence[str] = (),
    name: str | None = None,
    folder: str | Path | None = None,
) -> tuple[GraphStore, list[Rejected]]:
    """Store of the molecules of a CSV file (`.csv` or `.csv.gz`, with a header), and the rows that are none.

    y is float [B, T], one column for each of `targets`, NaN where a cell is empty; none without targets. Rows count
    from 0 after the header.  folder: a new folder to write the store to, so that files larger than memory can be read.
    Raises ValueError for a missing column, a ragged row and a label that is no number.
    """
    rejected: list[Rejected] = []
    name = name or Path(path).stem
    chunks = csv_chunks(path, rejected, smiles_column=smiles_column, targets=targets, name=name)
    return _collected(chunks, folder, name), rejected


def csv_chunks(
    path: str | Path, rejected: list[Rejected], *, smiles_column: str, targets: Sequence[str], name: str
) -> Iterator[GraphStore]:
    """The store of `read_molecule_csv` chunk by chunk; rows that are no molecules go to `rejected`."""
    path = Path(path)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        yield from molecule_chunks(_blocks(csv.reader(file), path, (smiles_column, *targets)), rejected, name=name)


def _blocks(
    reader: Iterator[list[str]], path: Path, wanted: Sequence[str]
) -> Iterator[tuple[list[str], Tensor | None]]:
    try:
        header = next(reader, [])
        columns = [_column(name, header) for name in wanted]
        numbered = enumerate(reader)
        while lines := list(islice(numbered, CHUNK)):
            for row, cells in lines:
                if len(cells) != len(header):
                    raise ValueError(f"row {row} has {len(cells)} cells, the header {len(header)}")
            labels = [[_number(cells[c], f"row {i}, column {header[c]!r}") for c in columns[1:]] for i, cells in lines]
            smiles = [cells[columns[0]].strip() for _, cells in lines]
            yield smiles, torch.tensor(labels, dtype=torch.float32) if columns[1:] else None
    except (ValueError, csv.Error, gzip.BadGzipFile, EOFError) as error:
        raise ValueError(f"{path}: {error}") from None


def _column(name: str, header: list[str]) -> int:
    if name not in header:
        shown = ", ".join(header[:20]) + (", ..." if len(header) > 20 else "")
        raise ValueError(f"no column {name!r}; columns: {shown or 'none, the file is empty'}")
    return header.index(name)


def _number(cell: str, where: str) -> float:
    try:
        value = float(cell) if cell.strip() else math.nan
    except ValueError:
        raise ValueError(f"{where}: label {cell!r} is not a number") from None
    if math.isinf(value):
        raise ValueError(f"{where}: label {cell!r} is infinite; leave the cell empty if it is unknown")
    return value


def scaffold_split(smiles: Sequence[str], ratios: tuple[float, float, float] = (0.8, 0.1, 0.1)) -> Split:
    """Split in which molecules of one Bemis-Murcko scaffold stay together; the same for the same list.

    The benchmark's rule: scaffolds (chirality included) from the largest to the smallest set, of equal ones that whose
    first molecule comes later; each goes to train if it still fits, else to val if it fits, else to test. Raises
    ValueError for ratios that do not sum to 1, for a SMILES that is no molecule, and if a part gets no molecule.
    """
    if len(ratios) != 3 or min(ratios) < 0 or not math.isclose(sum(ratios), 1):
        raise ValueError(f"ratios must be three shares (train, val, test) that sum to 1, got {ratios}")
    scaffolds: dict[str, list[int]] = defaultdict(list)
    for i, text in enumerate(smiles):
        try:
            molecule = parse_smiles(text)
        except ValueError as error:
            raise ValueError(f"molecule {i}, {text!r}: {error}; leave it out before splitting") from None
        with rdBase.BlockLogs():
            scaffolds[MurckoScaffoldSmiles(mol=molecule, includeChirality=True)].append(i)
    room = (ratios[0] * len(smiles), (ratios[0] + ratios[1]) * len(smiles))
    train: list[int] = []
    val: list[int] = []
    test: list[int] = []
    for group in sorted(scaffolds.values(), key=lambda group: (len(group), group[0]), reverse=True):
        if len(train) + len(group) <= room[0]:
            train += group
        elif len(train) + len(val) + len(group) <= room[1]:
            val += group
        else:
            test += group
    for part, rows, ratio in zip(Split._fields, (train, val, test), ratios, strict=True):
        if ratio > 0 and not rows:
            raise ValueError(
                f"scaffold split: {part} gets none of {len(smiles)} molecules, as they have only {len(scaffolds)} "
                "scaffolds; split at random instead"
            )
    return Split(*(torch.tensor(sorted(rows), dtype=torch.long) for rows in (train, val, test)))
