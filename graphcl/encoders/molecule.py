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
from torch_geometric.typing import OptPairTensor, OptTensor

from graphcl.encoders.inputs import edge_weight, jumped, node_norm, run_layers, widths

# Rows of the tables, as many as in the original, so that its weights fit; data/molecules.py writes the categories.
ATOMS = 120  # atomic numbers 1 to 118 as 0 to 117, 118 unknown, 119 masked
CHIRALITIES = 3  # none, clockwise, counter-clockwise
BONDS = 6  # single, double, triple, aromatic, the self-loop, masked or unknown
DIRECTIONS = 3  # none, end up right, end down right
SELF_LOOP = 4


class BondConv(GINConv):
    """GINConv whose messages carry their bond: nn(x_i + e_loop + sum_j w_ji (x_j + e_ji)), with e from two tables."""

    propagate_type: ClassVar[dict[str, Any]] = {"x": OptPairTensor, "bond": Tensor, "edge_weight": OptTensor}

    def __init__(self, width: int) -> None:
        super().__init__(nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)))
        self.bond = _table(BONDS, width)
        self.direction = _table(DIRECTIONS, width)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """x: [N, D]; edge_index: [2, E]; edge_attr: [E, 2] categories; edge_weight: [E]. Returns [N, D]."""
        bond = _look_up(self.bond, self.direction, edge_attr, "edge_attr", "bond type 0 to 5, direction 0 to 2")
        out = self.propagate(edge_index, x=(x, x), bond=bond, edge_weight=edge_weight, size=None)
        return self.nn(out + x + self.bond.weight[SELF_LOOP] + self.direction.weight[0])

    def message(self, x_j: Tensor, bond: Tensor, edge_weight: Tensor | None) -> Tensor:
        """A neighbour's row and its bond, times the weight of the edge."""
        return x_j + bond if edge_weight is None else edge_weight.unsqueeze(1) * (x_j + bond)


class MoleculeLayer(nn.Module):
    """Convolution, batch norm, ReLU unless it is the last layer, dropout."""

    def __init__(self, width: int, last: bool, dropout: float) -> None:
        super().__init__()
        self.conv = BondConv(width)
        self.finish = nn.Sequential(node_norm(width), nn.Identity() if last else nn.ReLU(), nn.Dropout(dropout))

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
        raise ValueError(f"{name} has a category that molecule_gin does not know; known: {ranges}") from None
