"""Splits of molecules by scaffold: no scaffold is in two parts.

Source:  Hu et al., 2020, "Strategies for Pre-training Graph Neural Networks", arXiv:1905.12265, and its code, which the
         molecule benchmark took over. A scaffold is Bemis and Murcko's, 1996: rings and what links them, here with
         chirality; molecules without a ring share one.
Differs: the random split draws from a torch generator, so a seed gives other parts than that code; parts are sorted. A
         molecule with rings and more than 600 atoms is its own scaffold: RDKit's time grows with the third power and
         more.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import torch
from rdkit import rdBase
from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles

from graphcl.data.molecules import parse_smiles
from graphcl.data.splits import Split

Ratios = tuple[float, float, float]
LARGE = 600  # atoms; no molecule of the benchmark's sets has as many (492 at most, in SIDER)


def scaffold_split(smiles: Sequence[str], ratios: Ratios = (0.8, 0.1, 0.1)) -> Split:
    """The benchmark's split, the same for the same list.

    Scaffolds from the largest to the smallest set, of equal ones that whose first molecule comes later; each goes to
    train if it still fits, else to val if it fits, else to test. Raises ValueError for ratios that do not sum to 1, for
    a SMILES that is no molecule, and if a part gets no molecule.
    """
    groups = _groups(smiles, ratios)
    room = (ratios[0] * len(smiles), (ratios[0] + ratios[1]) * len(smiles))
    train: list[int] = []
    val: list[int] = []
    test: list[int] = []
    for group in sorted(groups, key=lambda group: (len(group), group[0]), reverse=True):
        if len(train) + len(group) <= room[0]:
            train += group
        elif len(train) + len(val) + len(group) <= room[1]:
            val += group
        else:
            test += group
    return _split((train, val, test), ratios, len(smiles), len(groups))


def random_scaffold_split(smiles: Sequence[str], seed: int = 0, ratios: Ratios = (0.8, 0.1, 0.1)) -> Split:
    """The benchmark's random scaffold split.

    Scaffolds in an order drawn from `seed`; each goes to val if it still fits, else to test if it fits, else to train,
    which so gets the large ones. Raises ValueError as `scaffold_split` does.
    """
    groups = _groups(smiles, ratios)
    room = (math.floor(ratios[1] * len(smiles)), math.floor(ratios[2] * len(smiles)))
    train: list[int] = []
    val: list[int] = []
    test: list[int] = []
    for i in torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed)).tolist():
        if len(val) + len(groups[i]) <= room[0]:
            val += groups[i]
        elif len(test) + len(groups[i]) <= room[1]:
            test += groups[i]
        else:
            train += groups[i]
    return _split((train, val, test), ratios, len(smiles), len(groups))


def _groups(smiles: Sequence[str], ratios: Ratios) -> list[list[int]]:
    """Molecules of each scaffold, in the order in which the scaffolds appear."""
    if len(ratios) != 3 or min(ratios) < 0 or not math.isclose(sum(ratios), 1):
        raise ValueError(f"ratios must be three shares (train, val, test) that sum to 1, got {ratios}")
    groups: dict[str, list[int]] = defaultdict(list)
    for i, text in enumerate(smiles):
        try:
            groups[_scaffold(text)].append(i)
        except ValueError as error:
            raise ValueError(f"molecule {i}, {text!r}: {error}; leave it out before splitting") from None
    return list(groups.values())


@lru_cache(maxsize=1 << 17)  # splits of the same molecules are drawn over and over, and a scaffold takes a millisecond
def _scaffold(smiles: str) -> str:
    molecule = parse_smiles(smiles)
    if molecule.GetRingInfo().NumRings() == 0:  # as RDKit says, after minutes for a chain of thousands of atoms
        return ""
    if molecule.GetNumAtoms() > LARGE:
        return smiles
    with rdBase.BlockLogs():
        return str(MurckoScaffoldSmiles(mol=molecule, includeChirality=True))


def _split(parts: tuple[list[int], list[int], list[int]], ratios: Ratios, molecules: int, scaffolds: int) -> Split:
    for part, rows, ratio in zip(Split._fields, parts, ratios, strict=True):
        if ratio > 0 and not rows:
            raise ValueError(
                f"scaffold split: {part} gets none of {molecules} molecules, as they have only {scaffolds} "
                "scaffolds; split at random instead"
            )
    return Split(*(torch.tensor(sorted(rows), dtype=torch.long) for rows in parts))
