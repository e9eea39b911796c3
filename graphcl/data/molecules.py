"""SMILES -> GraphStore, with the 2 + 2 categorical features of the molecule benchmark or the 9 + 3 of OGB.

Features: Hu et al., 2020, "Strategies for Pre-training Graph Neural Networks", arXiv:1905.12265: type and chirality
of an atom, type and direction of a bond, hydrogens left implicit. Where that code refuses a molecule (wildcard atoms,
coordination bonds, square-planar centres) ours reads it and says "unknown": atom type 118, bond type 5, no chirality.

Imports no torch at the top: the processes that parse start in an instant and stay small.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rdkit import Chem, rdBase
from rdkit.Chem import rdqueries

if TYPE_CHECKING:
    from torch import Tensor

    from graphcl.data.store import GraphStore

MoleculeFeatures = Literal["benchmark", "ogb"]
PARSER = 2  # to be raised with every change of what a molecule becomes; stores in the cache are made again then
CHUNK = 2_500  # molecules that a process parses at a time: half a second
AHEAD = 4  # chunks a process in memory
UNKNOWN_ATOM = 118  # atomic numbers 1 to 118 are 0 to 117; 119 is the masked atom
UNKNOWN_BOND = 5  # 4 is the encoder's self-loop; the benchmark's table ends with 5, which also stands for a masked bond
_CHIRALITY = {Chem.ChiralType.CHI_TETRAHEDRAL_CW: 1, Chem.ChiralType.CHI_TETRAHEDRAL_CCW: 2}  # others: 0
_BOND = {Chem.BondType.SINGLE: 0, Chem.BondType.DOUBLE: 1, Chem.BondType.TRIPLE: 2, Chem.BondType.AROMATIC: 3}
_DIRECTION = {Chem.BondDir.ENDUPRIGHT: 1, Chem.BondDir.ENDDOWNRIGHT: 2}  # others: 0
_ORDERS = np.array([5, 5, 0, 3, 1, 5, 2, 5], dtype=np.uint8)  # twice the order of a bond -> its type
_CHIRAL = rdqueries.HasChiralTagQueryAtom()
_DIRECTED = frozenset("/\\|>")  # what gives a bond a direction in SMILES; | begins an extension
_NONMETALS = np.isin(np.arange(120), [number - 1 for number in (1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 33, 34, 35, 52, 53)])
_SMALL = 256  # atoms up to which a matrix of their bonds is no waste; bonds up to which one may be asked for by number


class Rejected(NamedTuple):
    """What is no molecule: its row in the input, counted from 0, and why; for a file also its line, from 1, and id."""

    row: int
    smiles: str
    reason: str
    line: int | None = None
    id: str | None = None


class MoleculeArrays(NamedTuple):
    """One molecule of n atoms and e / 2 bonds, both directions of each, sorted by target, then source."""

    x: NDArray[np.uint8]  # [n, 2] atom type, chirality; [n, 9] of OGB
    edges: NDArray[np.int32]  # [2, e] source, target
    edge_attr: NDArray[np.uint8]  # [e, 2] bond type, direction; [e, 3] of OGB


class Parsed(NamedTuple):
    """The molecules of a block of b SMILES, as flat arrays; see `parse_block`."""

    kept: list[int]  # places in the block of the k molecules
    x: NDArray[np.uint8]  # [N, F]
    edges: NDArray[np.int32]  # [2, E] source, target, numbered within their molecule
    edge_attr: NDArray[np.uint8]  # [E, Fe]
    atoms: list[int]  # [k]
    bonds: list[int]  # [k], both directions of each
    rejected: list[tuple[int, str]]  # place, reason


def parse_smiles(smiles: str) -> Chem.Mol:
    """The molecule. Raises ValueError with the reason if there is none; RDKit writes nothing to the terminal."""
    if not isinstance(smiles, str):
        raise ValueError(f"not text but {smiles!r}")
    if not smiles.strip():
        raise ValueError("empty")
    if len(smiles.strip().splitlines()) > 1:  # RDKit would take the rest for the molecule's name
        raise ValueError("a line break inside")
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
        if molecule is None:
            unchecked = Chem.MolFromSmiles(smiles, sanitize=False)
            problems = [] if unchecked is None else Chem.DetectChemistryProblems(unchecked)
            raise ValueError(problems[0].Message() if problems else "not a SMILES string")
    if molecule.GetNumAtoms() == 0:
        raise ValueError("no atoms")
    return molecule


def molecule_arrays(molecule: Chem.Mol, features: MoleculeFeatures = "benchmark") -> MoleculeArrays:
    """Features and edges of a molecule."""
    if features == "benchmark":
        return MoleculeArrays(_atoms(molecule), *_bonds(molecule))
    if features == "ogb":
        from graphcl.data.ogb import ogb_arrays  # it imports this file

        return ogb_arrays(molecule)
    raise ValueError(f"unknown molecule features {features!r}; known: benchmark (2 + 2), ogb (9 + 3)")


def _atoms(molecule: Chem.Mol) -> NDArray[np.uint8]:
    x = np.zeros((molecule.GetNumAtoms(), 2), dtype=np.uint8)
    # By index: RDKit's own iterators cost more than what is done with the atoms.
    x[:, 0] = [molecule.GetAtomWithIdx(i).GetAtomicNum() for i in range(len(x))]
    x[:, 0] = np.where((x[:, 0] >= 1) & (x[:, 0] <= 118), x[:, 0] - 1, UNKNOWN_ATOM)
    for atom in molecule.GetAtomsMatchingQuery(_CHIRAL):
        x[atom.GetIdx(), 1] = _CHIRALITY.get(atom.GetChiralTag(), 0)
    return x


def bonds_of(molecule: Chem.Mol) -> Iterator[Chem.Bond]:
    """Its bonds, each once."""
    if molecule.GetNumBonds() <= _SMALL:
        return (molecule.GetBondWithIdx(k) for k in range(molecule.GetNumBonds()))
    # RDKit counts to find bond k, which of tens of thousands takes minutes; those of an atom it knows.
    atoms = range(molecule.GetNumAtoms())
    return (bond for i in atoms for bond in molecule.GetAtomWithIdx(i).GetBonds() if bond.GetBeginAtomIdx() == i)


def _bonds(molecule: Chem.Mol) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    rows = []
    for bond in bonds_of(molecule):
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        kind = _BOND.get(bond.GetBondType(), UNKNOWN_BOND), _DIRECTION.get(bond.GetBondDir(), 0)
        rows += [(i, j, *kind), (j, i, *kind)]  # target, source
    edges = np.array(sorted(rows), dtype=np.int32).reshape(-1, 4)
    return edges[:, 1::-1].T, edges[:, 2:].astype(np.uint8)


def _bonds_at_once(molecule: Chem.Mol, x: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """What `_bonds` gives for a small molecule without directed bonds, several times faster.

    Bond by bond, Python costs as much as RDKit's parsing. A matrix of bond orders comes in one call, and its entries in
    the order of a store; where an order does not tell the type of its bond, they are looked at one by one after all.
    x: [n, 2], its atoms. RDKit makes bonds to metals dative, which have the order of single ones; a search for them
    would be shorter, but RDKit's searches swallow Ctrl-C.
    """
    orders = Chem.GetAdjacencyMatrix(molecule, useBO=True, force=True)  # cached for one kind of matrix: hence force
    target, source = orders.nonzero()
    kinds = _ORDERS[np.minimum(2 * orders[target, source], len(_ORDERS) - 1).astype(np.intp)]
    exotic = len(kinds) != 2 * molecule.GetNumBonds() or bool((kinds == UNKNOWN_BOND).any())
    if exotic or not _NONMETALS[x[:, 0]].all():  # zero order; others; of order 1, but perhaps not single
        return _bonds(molecule)
    return np.array([source, target], dtype=np.int32), np.stack([kinds, np.zeros_like(kinds)], axis=1)


def parse_block(
    smiles: Sequence[str], features: MoleculeFeatures = "benchmark", reasons: Sequence[str | None] | None = None
) -> Parsed:
    """The molecules of a block; the work of one process.

    reasons: [b], why a row could not even be read, or None; such rows are rejected for it.
    """
    kept: list[int] = []
    molecules: list[MoleculeArrays] = []
    rejected: list[tuple[int, str]] = []
    for place, text in enumerate(smiles):
        reason = reasons[place] if reasons else None
        if reason is None:
            try:
                molecule = parse_smiles(text)
                if features == "benchmark" and molecule.GetNumAtoms() <= _SMALL and _DIRECTED.isdisjoint(text):
                    x = _atoms(molecule)
                    molecules.append(MoleculeArrays(x, *_bonds_at_once(molecule, x)))
                else:
                    molecules.append(molecule_arrays(molecule, features))
                kept.append(place)
                continue
            except ValueError as error:
                reason = str(error)
        rejected.append((place, reason))
    if not molecules:
        return Parsed(
            [], np.empty((0, 0), np.uint8), np.empty((2, 0), np.int32), np.empty((0, 0), np.uint8), [], [], rejected
        )
    return Parsed(
        kept,
        np.concatenate([m.x for m in molecules]),
        np.concatenate([m.edges for m in molecules], axis=1),
        np.concatenate([m.edge_attr for m in molecules]),
        [len(m.x) for m in molecules],
        [m.edges.shape[1] for m in molecules],
        rejected,
    )


def store_of(
    parsed: Parsed, smiles: Sequence[str], names: Sequence[str], y: Tensor | None = None, *, name: str = "molecules"
) -> GraphStore:
    """A block's molecules (at least one) as a store. smiles, names: [b]; y: [b] or [b, T]."""
    import torch

    from graphcl.data.store import GraphStore

    edges = torch.from_numpy(parsed.edges)
    return GraphStore(
        x=torch.from_numpy(parsed.x),
        src=edges[0],
        dst=edges[1],
        edge_attr=torch.from_numpy(parsed.edge_attr),
        y=None if y is None else y[parsed.kept],
        node_ptr=torch.tensor([0, *parsed.atoms]).cumsum(0),
        edge_ptr=torch.tensor([0, *parsed.bonds]).cumsum(0),
        smiles=[smiles[place] for place in parsed.kept],
        names=[names[place] for place in parsed.kept],
        name=name,
    )


def in_processes(
    blocks: Iterable[tuple[Sequence[str], Sequence[str | None] | None]], features: MoleculeFeatures, workers: int
) -> Iterator[Parsed]:
    """`parse_block` of each block (SMILES, reasons), in their order, by so many processes."""
    blocks = iter(blocks)
    ahead = [] if workers == 1 else list(islice(blocks, 2))
    if len(ahead) < 2:  # one block is parsed sooner than processes start
        for smiles, reasons in chain(ahead, blocks):
            yield parse_block(smiles, features, reasons)
        return
    # Not the standard library's processes: those that are spawned run the user's script again if it has no
    # `if __name__ == "__main__"`, those that are forked inherit torch's threads.
    from joblib import Parallel, delayed

    with Parallel(workers, batch_size=1, max_nbytes=None) as parallel:
        blocks = chain(ahead, blocks)
        while part := list(islice(blocks, AHEAD * workers)):  # read here: what goes wrong there would be lost
            yield from parallel(delayed(parse_block)(smiles, features, reasons) for smiles, reasons in part)


def molecules_to_store(
    smiles: Sequence[str],
    y: ArrayLike | Tensor | None = None,
    *,
    features: MoleculeFeatures = "benchmark",
    name: str = "molecules",
    folder: str | Path | None = None,
    workers: int = 1,
) -> tuple[GraphStore, list[Rejected]]:
    """Store of the molecules in their order, and the rows that are none.

    x and edge_attr are uint8, [N, 2] and [E, 2] (`features="ogb"`: [N, 9] and [E, 3]), `smiles` as given, `names` the
    row that each molecule had in what was given.  y: [B] or [B, T] labels, one row for each SMILES; those of rejected
    rows are left out.  folder: a new folder to write the store to chunk by chunk; without one it is made in memory.
    workers: processes. Raises ValueError if y does not fit or no row is a molecule.
    """
    import torch

    from graphcl.data.store import GraphStore
    from graphcl.data.store_file import StoreWriter

    if isinstance(smiles, str):
        raise ValueError(f"smiles must be a list of strings, got the string {smiles!r}; put it into a list")
    labels = None if y is None else torch.as_tensor(y)
    if labels is not None and (labels.dim() == 0 or len(labels) != len(smiles)):
        raise ValueError(
            f"{name}: labels of shape {tuple(labels.shape)} for {len(smiles)} SMILES; one row each is needed"
        )
    rejected: list[Rejected] = []

    def chunks() -> Iterator[GraphStore]:
        parts = [slice(first, first + CHUNK) for first in range(0, len(smiles), CHUNK)]
        for part, parsed in zip(
            parts, in_processes(((smiles[part], None) for part in parts), features, workers), strict=True
        ):
            rows, texts = range(len(smiles))[part], smiles[part]
            rejected.extend(Rejected(rows[place], str(texts[place]), reason) for place, reason in parsed.rejected)
            if parsed.kept:
                names = [str(row) for row in rows]
                yield store_of(parsed, texts, names, None if labels is None else labels[part], name=name)
        refuse_none(len(smiles), rejected, name)

    if folder is None:
        return GraphStore.concat(list(chunks())), rejected
    with StoreWriter(folder, name=name) as writer:
        for chunk in chunks():
            writer.append(chunk)
    return GraphStore.open(folder), rejected


def refuse_none(rows: int, rejected: Sequence[Rejected], name: str) -> None:
    """Raise ValueError if no row is a molecule, with the first one's reason."""
    if len(rejected) == rows:
        first = f"; the first, {rejected[0].smiles!r:.200}: {rejected[0].reason}" if rejected else ""
        raise ValueError(f"{name}: none of {rows} SMILES is a molecule{first}")
