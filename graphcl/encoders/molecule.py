"""GIN with atom and bond embeddings, the encoder of the molecule benchmark.

Papers:  Hu et al., 2020, "Strategies for Pre-training Graph Neural Networks", arXiv:1905.12265;
         You et al., 2020, "Graph Contrastive Learning with Augmentations", arXiv:2010.13902
Shape:   5 layers of 300: a sum of neighbours and their bonds' embeddings, an MLP 300-600-300, batch norm, ReLU
         (not after the last layer), dropout
Differs: jk 'cat' leaves out the atom embeddings, which the original puts first.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import GINConv

from graphcl.encoders.aggregate import CSR, csr_of, entry_sum, remembered
from graphcl.encoders.inputs import NodeNorm, edge_weight, jumped, run_layers, widths

# Rows of the tables, as many as in the original, so that its weights fit; data/molecules.py writes the categories.
ATOMS = 120  # atomic numbers 1 to 118 as 0 to 117, 118 unknown, 119 masked
CHIRALITIES = 3  # none, clockwise, counter-clockwise
BONDS = 6  # single, double, triple, aromatic, the self-loop, masked or unknown
DIRECTIONS = 3  # none, end up right, end down right
SELF_LOOP = 4


class BondConv(GINConv):
    """GINConv whose messages carry their bond: nn(x_i + e_loop + sum_j w_ji (x_j + e_ji)), with e from two tables.

    A sum of table rows is (how often each row occurs) x (table): the counts [N, 9] are the same for every layer.
    """

    def __init__(self, width: int) -> None:
        super().__init__(nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(inplace=True), nn.Linear(2 * width, width)))
        self.bond = _table(BONDS, width)
        self.direction = _table(DIRECTIONS, width)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """x: [N, D]; edge_index: [2, E]; edge_attr: [E, 2] categories; edge_weight: [E]. Returns [N, D]."""
        csr = csr_of(edge_index, x.size(0), loops=True)
        weight, counts = bond_weights(csr, edge_weight, x), bond_counts(csr, edge_attr, edge_weight, x)
        out = entry_sum(x, csr, weight)
        tables = torch.cat([self.bond.weight, self.direction.weight])  # [9, D]
        return self.nn(out.addmm_(counts.to(out.dtype), tables.to(out.dtype)))


def bond_weights(csr: CSR, edge_weight: Tensor | None, x: Tensor) -> Tensor | None:
    """Weights of the entries [E + N], 1 for every atom's own; None if the edges have none."""
    if edge_weight is None:
        return None
    dtype = torch.promote_types(x.dtype, torch.float32)
    return remembered(
        ("own", dtype),
        lambda: csr.entries(torch.cat([edge_weight.to(dtype), x.new_ones(csr.width, dtype=dtype)])),
        csr.rowptr,
        edge_weight,
    )


def bond_counts(csr: CSR, edge_attr: Tensor, edge_weight: Tensor | None, x: Tensor) -> Tensor:
    """[N, 9] how often (with what weight) each bond type and each direction comes into an atom, its self-loop too."""
    dtype = torch.promote_types(x.dtype, torch.float32)

    def make() -> Tensor:
        types, directions = (torch.arange(count, device=x.device) for count in (BONDS, DIRECTIONS))
        try:  # looked up, not computed, so that what is outside the tables is refused on every device
            code = (types * DIRECTIONS).index_select(0, edge_attr[:, 0].long())
            code = code + directions.index_select(0, edge_attr[:, 1].long())  # [E]
        except IndexError:
            raise ValueError(_unknown("edge_attr", "bond type 0 to 5, direction 0 to 2")) from None
        code = torch.cat([code, code.new_full((csr.width,), SELF_LOOP * DIRECTIONS)])
        by_atom = CSR(csr.rowptr, csr.entries(code).to(torch.int32), csr.row, BONDS * DIRECTIONS)
        columns = torch.arange(BONDS + DIRECTIONS, device=x.device)
        of_type = columns == types.repeat_interleave(DIRECTIONS).unsqueeze(1)
        of_direction = columns == BONDS + directions.repeat(BONDS).unsqueeze(1)
        return entry_sum((of_type | of_direction).to(dtype), by_atom, bond_weights(csr, edge_weight, x))

    return remembered(("bonds", dtype), make, csr.rowptr, edge_attr, edge_weight)


class MoleculeLayer(nn.Module):
    """Convolution, batch norm, ReLU unless it is the last layer, dropout."""

    def __init__(self, width: int, last: bool, dropout: float) -> None:
        super().__init__()
        self.conv = BondConv(width)
        activation = nn.Identity() if last else nn.ReLU(inplace=True)
        self.finish = nn.Sequential(NodeNorm(width), activation, nn.Dropout(dropout))

    def forward(self, h: Tensor, data: Any) -> Tensor:
        """h: [N, D]. Returns [N, D]."""
        return self.finish(self.conv(h, data.edge_index, data.edge_attr, edge_weight(data, h)))


class MoleculeGIN(nn.Module):
    """GIN for molecules: (data) -> [N, hidden], or [N, layers * hidden] with jk 'cat'.

    Reads `x` [N, 2] (atom type, chirality) and `edge_attr` [E, 2] (bond type, direction), both integer categories as
    graphcl/data/molecules.py writes them, and `edge_weight` [E], with gradient. A masked atom is atom type 119, a
    masked bond bond type 5. Raises ValueError for other features and categories (on CUDA a category beyond the tables
    is torch's device-side assert: looking first would wait for the device).
    """

    takes_in_dim: ClassVar[bool] = False

    def __init__(self, hidden: int = 300, *, layers: int = 5, jk: str = "last", dropout: float = 0.0) -> None:
        super().__init__()
        sizes = widths(hidden, hidden, None, layers)
        self.jk, self.out_dim = jk, jumped(jk, sizes[1:])
        self.atom = _table(ATOMS, hidden)
        self.chirality = _table(CHIRALITIES, hidden)
        self.layers = nn.ModuleList(MoleculeLayer(hidden, i == layers - 1, dropout) for i in range(layers))

    def start(self, data: Any) -> Tensor:
        """Input of the first layer [N, hidden]."""
        _check(data.x, "x", "atom type and chirality")
        _check(data.edge_attr, "edge_attr", "bond type and direction")
        return _look_up(self.atom, self.chirality, data.x, "x", "atom type 0 to 119, chirality 0 to 2")

    def forward(self, data: Any) -> Tensor:
        """Embeddings [N, out_dim]."""
        return run_layers(self.layers, self.start(data), data, self.jk)


def _table(rows: int, width: int) -> nn.Embedding:
    table = nn.Embedding(rows, width)
    nn.init.xavier_uniform_(table.weight)
    return table


def _check(codes: Tensor | None, name: str, meaning: str) -> None:
    if (
        codes is None
        or codes.dim() != 2
        or codes.size(1) != 2
        or codes.is_floating_point()
        or codes.dtype == torch.bool
    ):
        got = "nothing" if codes is None else f"{codes.dtype} of shape {tuple(codes.shape)}"
        raise ValueError(
            f"molecule_gin reads {name} as two integer columns, {meaning}, got {got}; "
            "read molecules from SMILES, or use the encoder gin for other graphs"
        )


def _look_up(first: nn.Embedding, second: nn.Embedding, codes: Tensor, name: str, ranges: str) -> Tensor:
    """Sum of the embeddings of both columns [., D]; codes: [., 2]."""
    codes = codes.long()
    try:
        return first(codes[:, 0]) + second(codes[:, 1])
    except IndexError:
        raise ValueError(_unknown(name, ranges)) from None


def _unknown(name: str, ranges: str) -> str:
    return f"{name} has a category that molecule_gin does not know; known: {ranges}"
