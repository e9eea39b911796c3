"""Categories of atoms and bonds, and their embeddings: a table for every column, summed.

"benchmark" is Hu et al., 2020, arXiv:1905.12265 (type and chirality, type and direction); "ogb" is Hu et al., 2020,
arXiv:2005.00687 (9 + 3). graphcl/data writes the categories.
Differs: OGB's tables have one row more for each column, of what is masked or in no list, and its bond types one more
         for the self-loop, which OGB's own encoders do not have.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from graphcl.encoders.aggregate import CSR, entry_sum

# Rows of the benchmark's tables, as many as in the original, so that its weights fit.
ATOMS = 120  # atomic numbers 1 to 118 as 0 to 117, 118 unknown, 119 masked; the same with OGB's features
CHIRALITIES = 3  # none, clockwise, counter-clockwise
BONDS = 6  # single, double, triple, aromatic, the self-loop, masked or unknown
DIRECTIONS = 3  # none, end up right, end down right
SELF_LOOP = 4


class Columns(NamedTuple):
    """The tables of a feature set by name, in the order of the columns, with their rows."""

    atoms: dict[str, int]
    bonds: dict[str, int]
    loop: tuple[int, ...]  # categories of an atom's edge to itself
    setting: str  # of data.features, that gives these columns


FEATURES = {
    "benchmark": Columns(
        {"atom": ATOMS, "chirality": CHIRALITIES},
        {"bond": BONDS, "direction": DIRECTIONS},
        (SELF_LOOP, 0),
        "given",
    ),
    # The last row of each is masked or unknown, but for the bond's, where it is the self-loop (6) and 5 is masked.
    "ogb": Columns(
        {
            "atom": ATOMS,
            "chirality": 6,
            "degree": 13,
            "charge": 13,
            "hydrogens": 11,
            "radicals": 7,
            "hybridization": 7,
            "aromatic": 3,
            "ring": 3,
        },
        {"bond": 7, "stereo": 7, "conjugated": 3},
        (6, 0, 0),
        "ogb",
    ),
}


def columns_of(features: str) -> Columns:
    """The tables of a feature set. Raises ValueError for another name."""
    if features not in FEATURES:
        raise ValueError(f"unknown features {features!r} of a molecule encoder; known: {', '.join(FEATURES)}")
    return FEATURES[features]


def add_tables(module: nn.Module, columns: dict[str, int], width: int) -> None:
    """Give `module` an embedding [rows, width] for each column, by its name."""
    for name, rows in columns.items():
        table = nn.Embedding(rows, width)
        nn.init.xavier_uniform_(table.weight)
        module.add_module(name, table)


def tables_of(module: nn.Module, columns: dict[str, int]) -> Tensor:
    """The tables below each other [R, D]."""
    return torch.cat([getattr(module, name).weight for name in columns])


def column_codes(codes: Tensor, columns: dict[str, int], strides: list[int], starts: list[int], what: str) -> Tensor:
    """starts[k] + strides[k] * codes[:, k], [., C]; ValueError for a category beyond its table.

    On CUDA that is torch's device-side assert: looking first would wait for the device.
    """
    try:  # looked up, not computed, so that what is outside the tables is refused on every device
        looked_up = [
            torch.arange(start, start + rows * stride, stride, device=codes.device).index_select(0, column.long())
            for column, rows, stride, start in zip(codes.unbind(1), columns.values(), strides, starts, strict=True)
        ]
    except IndexError:
        known = ", ".join(f"{name} 0 to {rows - 1}" for name, rows in columns.items())
        raise ValueError(f"{what} has a category that the molecule encoders do not know; known: {known}") from None
    return torch.stack(looked_up, dim=1)


def atom_rows(module: nn.Module, x: Tensor, columns: dict[str, int]) -> Tensor:
    """Sum of the embeddings of all columns [N, D]; x: [N, C]."""
    rows = list(columns.values())
    starts = [sum(rows[:k]) for k in range(len(rows))]
    codes = column_codes(x, columns, [1] * len(rows), starts, "x").to(torch.int32)
    atoms = torch.arange(x.size(0) + 1, dtype=torch.int32, device=x.device)
    csr = CSR(atoms * len(rows), codes.view(-1), atoms[:-1].repeat_interleave(len(rows)), sum(rows))
    return entry_sum(tables_of(module, columns), csr, None)


def check_codes(codes: Tensor | None, name: str, columns: dict[str, int], features: str) -> None:
    """Refuse what is not one integer column for each table."""
    if (
        codes is None
        or codes.dim() != 2
        or codes.size(1) != len(columns)
        or codes.is_floating_point()
        or codes.dtype == torch.bool
    ):
        got = "nothing" if codes is None else f"{codes.dtype} of shape {tuple(codes.shape)}"
        width = codes.size(1) if codes is not None and codes.dim() == 2 else 0
        part = "atoms" if name == "x" else "bonds"
        other = [key for key, known in FEATURES.items() if width == len(getattr(known, part)) and key != features]
        integers = codes is not None and not codes.is_floating_point()
        way = f"encoder.features={other[0]} reads these; or " if other and integers else ""
        raise ValueError(
            f"molecule encoders with features={features!r} read {name} as {len(columns)} integer columns "
            f"({', '.join(columns)}), got {got}; {way}read molecules from SMILES with data.features="
            f"{FEATURES[features].setting}, or use the encoder gin for other graphs"
        )
