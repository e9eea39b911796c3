"""Convolutions whose messages carry their bond, and the layers of the molecule encoders.

Each adds embeddings of the bond's categories to the neighbour's row, and an edge of its own kind from every atom to
itself. A sum of table rows is (how often each row occurs) x (table), so no row is made for an edge: the counts [N, R]
are the same for every layer. `edge_weight` [E] >= 0 scales messages, bonds included; an edge of weight 0 is no edge.
"""

from __future__ import annotations

from math import prod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GINConv

from graphcl.encoders.aggregate import CSR, csr_of, entry_sum, remembered, weight_sums
from graphcl.encoders.inputs import NodeNorm, edge_weight
from graphcl.encoders.molecule_alike import Kinds, counted_norm
from graphcl.encoders.molecule_inputs import Columns, add_tables, column_codes, columns_of, tables_of
from graphcl.encoders.padded import short_rows, with_rows

Scheme = Literal["sum", "mean", "symmetric"]


class BondConv(GINConv):
    """GINConv with bonds: nn(x_i + e_loop + sum_j w_ji (x_j + e_ji)), e being the sum over the bond's tables."""

    def __init__(self, width: int, features: str = "benchmark") -> None:
        super().__init__(nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(inplace=True), nn.Linear(2 * width, width)))
        self.columns = columns_of(features)
        add_tables(self, self.columns.bonds, width)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """x: [N, D]; edge_index: [2, E]; edge_attr: [E, C] categories; edge_weight: [E]. Returns [N, D]."""
        csr = csr_of(edge_index, x.size(0), loops=True)
        counts = bond_counts(csr, edge_attr, edge_weight, x, self.columns, "sum")
        return self.of_entries(x, csr, counts, entry_weights(csr, edge_weight, x, "sum"))

    def of_entries(self, x: Tensor, csr: CSR, counts: Tensor, weight: Tensor | None = None) -> Tensor:
        """x: [width, D]; csr: [n, width]; counts: [n, R] of table rows; weight: [E] of entries. Returns [n, D]."""
        out = entry_sum(x, csr, weight)
        more = short_rows(out)
        out = plus_bonds(with_rows(out, more), with_rows(counts, more), tables_of(self, self.columns.bonds))
        return self.nn(out)[: counts.size(0)] if more else self.nn(out)


class BondGCNConv(nn.Module):
    """sum_j w_ji (W x_j + b + e_ji) / sqrt(d_j d_i) over the neighbours and the atom itself, d the sum of weights.

    Differs: d counts the bonds that come in, the original those that go out; in a molecule it is the same.
    """

    def __init__(self, width: int, features: str = "benchmark") -> None:
        super().__init__()
        self.columns = columns_of(features)
        self.linear = nn.Linear(width, width)
        add_tables(self, self.columns.bonds, width)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """x: [N, D]; edge_index: [2, E]; edge_attr: [E, C] categories; edge_weight: [E]. Returns [N, D]."""
        csr = csr_of(edge_index, x.size(0), loops=True)
        counts = bond_counts(csr, edge_attr, edge_weight, x, self.columns, "symmetric")
        out = entry_sum(self.linear(x), csr, entry_weights(csr, edge_weight, x, "symmetric"))
        return plus_bonds(out, counts, tables_of(self, self.columns.bonds))


class BondSAGEConv(nn.Module):
    """The mean of W x_j + b + e_ji, with weights w_ji, over the neighbours and the atom itself, scaled to length 1."""

    def __init__(self, width: int, features: str = "benchmark") -> None:
        super().__init__()
        self.columns = columns_of(features)
        self.linear = nn.Linear(width, width)
        add_tables(self, self.columns.bonds, width)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """x: [N, D]; edge_index: [2, E]; edge_attr: [E, C] categories; edge_weight: [E]. Returns [N, D]."""
        csr = csr_of(edge_index, x.size(0), loops=True)
        counts = bond_counts(csr, edge_attr, edge_weight, x, self.columns, "mean")
        out = entry_sum(self.linear(x), csr, entry_weights(csr, edge_weight, x, "mean"))
        return F.normalize(plus_bonds(out, counts, tables_of(self, self.columns.bonds)), dim=-1)


class BondGATConv(nn.Module):
    """Attention over the neighbours and the atom itself; the mean of the heads, plus a bias.

    With m_ji = W x_j + b + e_ji: a_ji = w_ji exp(leaky_relu(att . [W x_i + b, m_ji])), scaled to sum 1 over j; the
    head gives sum_j a_ji m_ji.
    Differs: the original scales to sum 1 over the edges that leave j.
    """

    def __init__(self, width: int, features: str = "benchmark", heads: int = 2, slope: float = 0.2) -> None:
        super().__init__()
        self.columns, self.heads, self.slope = columns_of(features), heads, slope
        self.linear = nn.Linear(width, heads * width)
        self.att = nn.Parameter(nn.init.xavier_uniform_(torch.empty(heads, 2 * width)))
        self.bias = nn.Parameter(torch.zeros(width))
        add_tables(self, self.columns.bonds, heads * width)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """x: [N, D]; edge_index: [2, E]; edge_attr: [E, C] categories; edge_weight: [E]. Returns [N, D]."""
        csr = csr_of(edge_index, x.size(0), loops=True)
        bonds, indicator = bond_entries(csr, edge_attr, self.columns, x)
        rows = self.linear(x).unflatten(1, (self.heads, -1))  # [N, H, D]
        tables = tables_of(self, self.columns.bonds).unflatten(1, (self.heads, -1))  # [R, H, D]
        to, of = self.att.unsqueeze(0).chunk(2, dim=2)  # [1, H, D] each
        by_target, by_source = (rows * to).sum(2).to(indicator.dtype), (rows * of).sum(2).to(indicator.dtype)
        by_bond = indicator @ (tables * of).sum(2).to(indicator.dtype)
        score = by_target.index_select(0, csr.row) + by_source.index_select(0, csr.col)
        score = F.leaky_relu(score + by_bond.index_select(0, bonds.col), self.slope)  # [E + N, H]
        share = shares(score, csr, entry_weights(csr, edge_weight, x, "sum"))
        out = torch.zeros_like(x, dtype=indicator.dtype)
        for head, part in enumerate(share.unbind(1)):
            neighbours = entry_sum(rows[:, head], csr, part).to(indicator.dtype)
            out = out + plus_bonds(neighbours, entry_sum(indicator, bonds, part), tables[:, head])
        return (out / self.heads + self.bias).to(rows.dtype)


def shares(score: Tensor, csr: CSR, weight: Tensor | None) -> Tensor:
    """[E + N, H], w exp(score) scaled to sum 1 over the entries of each row."""
    index = csr.row.long().unsqueeze(1).expand_as(score)
    ranked = score.detach() if weight is None else score.detach() + weight.detach().log().unsqueeze(1)
    top = score.new_zeros(csr.rowptr.size(0) - 1, score.size(1))
    top = top.scatter_reduce(0, index, ranked, "amax", include_self=False)  # every row has the atom's own entry
    part = score - top.index_select(0, csr.row)
    # An edge of weight 0 may score far above those that count; its weight has a gradient, which must be finite.
    part = part.exp() if weight is None else part.clamp(max=60).exp() * weight.unsqueeze(1)
    total = torch.stack([weight_sums(csr, column) for column in part.unbind(1)], dim=1)
    return part / total.index_select(0, csr.row)


def plus_bonds(out: Tensor, counts: Tensor, tables: Tensor) -> Tensor:
    """out [N, D] + counts [N, R] x tables [R, D], in place."""
    return out.addmm_(counts.to(out.dtype), tables.to(out.dtype))


def entry_weights(csr: CSR, edge_weight: Tensor | None, x: Tensor, scheme: Scheme) -> Tensor | None:
    """Weights of the entries [E + N], of edges (1 if they have none) and 1 of every atom's own; None if all are 1.

    scheme: "sum" as they are; "mean" over the sum of the row; "symmetric" over the roots of the sums of both ends.
    """
    if scheme == "sum" and edge_weight is None:
        return None
    dtype = torch.promote_types(x.dtype, torch.float32)

    def make() -> Tensor:
        if edge_weight is None:
            weight = torch.ones(csr.col.size(0), dtype=dtype, device=x.device)
        else:
            check_edges("edge_weight", edge_weight, csr)
            weight = csr.entries(torch.cat([edge_weight.to(dtype), x.new_ones(csr.width, dtype=dtype)]))
        if scheme == "sum":
            return weight
        total = weight_sums(csr, weight)
        if scheme == "mean":
            return weight / total.index_select(0, csr.row)
        scale = total.rsqrt()
        return scale.index_select(0, csr.col) * weight * scale.index_select(0, csr.row)

    return remembered(("own", scheme, dtype), make, csr.rowptr, edge_weight)


def bond_counts(
    csr: CSR, edge_attr: Tensor, edge_weight: Tensor | None, x: Tensor, columns: Columns, scheme: Scheme
) -> Tensor:
    """[N, R] how often (with what weight) each row of the bonds' tables comes into an atom, its self-loop too."""
    dtype = torch.promote_types(x.dtype, torch.float32)

    def make() -> Tensor:
        bonds, indicator = bond_entries(csr, edge_attr, columns, x)
        return entry_sum(indicator, bonds, entry_weights(csr, edge_weight, x, scheme))

    return remembered(("counts", scheme, columns.loop, dtype), make, csr.rowptr, edge_attr, edge_weight)


def bond_entries(csr: CSR, edge_attr: Tensor, columns: Columns, x: Tensor) -> tuple[CSR, Tensor]:
    """The entries [E + N] by combination of bond categories, and which rows of the tables [K, R] a combination has."""
    rows = list(columns.bonds.values())
    strides = [prod(rows[k + 1 :]) for k in range(len(rows))]

    def make() -> Tensor:
        check_edges("edge_attr", edge_attr, csr)
        code = column_codes(edge_attr, columns.bonds, strides, [0] * len(rows), "edge_attr").sum(1)
        loop = sum(category * stride for category, stride in zip(columns.loop, strides, strict=True))
        return csr.entries(torch.cat([code, code.new_full((csr.width,), loop)])).to(torch.int32)

    codes = remembered(("codes", columns.loop), make, csr.rowptr, edge_attr)
    every = torch.arange(prod(rows), device=x.device)
    indicator = torch.cat(
        [
            (every // stride % count).unsqueeze(1) == torch.arange(count, device=x.device)
            for stride, count in zip(strides, rows, strict=True)
        ],
        dim=1,
    )
    return (
        CSR(csr.rowptr, codes, csr.row, prod(rows)),
        indicator.to(torch.promote_types(x.dtype, torch.float32)),
    )


def check_edges(name: str, values: Tensor, csr: CSR) -> None:
    """Refuse values that are not a row for each edge; csr has the edges and an own entry for every node."""
    edges = csr.col.size(0) - csr.width
    if values.size(0) != edges:
        raise ValueError(f"{name} has {values.size(0)} rows for {edges} edges; give it one for each")


class MoleculeLayer(nn.Module):
    """Convolution, batch norm, ReLU unless it is the last layer, dropout.

    With a virtual node (Gilmer et al., 2017, arXiv:1704.01212, as in OGB's baseline) the last B rows of what goes in
    and comes out belong to the graphs: added to their atoms before the convolution, and then, but in the last layer,
    v <- MLP(v + the sum of the atoms' rows).
    """

    def __init__(self, conv: nn.Module, width: int, last: bool, dropout: float, virtual_node: bool) -> None:
        super().__init__()
        self.conv, self.virtual_node = conv, virtual_node
        activation = nn.Identity() if last else nn.ReLU(inplace=True)
        self.finish = nn.Sequential(NodeNorm(width), activation, nn.Dropout(dropout))
        self.update = virtual_mlp(width, dropout) if virtual_node and not last else None

    def forward(self, h: Tensor, data: Any) -> Tensor:
        """h: [N, D], with a virtual node [N + B, D]. Returns the same shape."""
        if not self.virtual_node:
            return self._nodes(h, data)
        h, virtual = h.split([data.x.size(0), h.size(0) - data.x.size(0)])
        if data.batch is None:
            batch = torch.zeros(h.size(0), dtype=torch.long, device=h.device)
        else:
            batch = data.batch
        h = h + virtual.index_select(0, batch)
        if self.update is not None:
            groups = CSR.of_groups(batch, virtual.size(0))
            virtual = self.update(virtual + entry_sum(h, groups, None))
        out = self._nodes(h, data)
        return torch.cat([out, virtual.to(out.dtype)])

    @property
    def as_made(self) -> bool:
        """Whether it consists of what it was made of, so that `of_kinds` may take its parts one by one."""
        kinds = (NodeNorm, nn.ReLU | nn.Identity, nn.Dropout)
        parts = list(self.finish) if isinstance(self.finish, nn.Sequential) else []
        return len(parts) == 3 and all(map(isinstance, parts, kinds))

    def of_kinds(self, h: Tensor, kinds: Kinds) -> Tensor:
        """Of GIN without a virtual node: rows of the kinds below -> rows of these kinds [K, D], before dropout."""
        conv: Any = self.conv
        norm, activation, _ = self.finish
        rows: Tensor = activation(counted_norm(norm, conv.of_entries(h, kinds.csr, kinds.bonds), kinds))
        return rows

    def _nodes(self, h: Tensor, data: Any) -> Tensor:
        out: Tensor = self.finish(self.conv(h, data.edge_index, data.edge_attr, edge_weight(data, h)))
        return out


def virtual_mlp(width: int, dropout: float) -> nn.Sequential:
    """What makes a graph's next state of its own and its atoms' sum, [B, D] -> [B, D]."""
    return nn.Sequential(
        nn.Linear(width, 2 * width),
        NodeNorm(2 * width),
        nn.ReLU(inplace=True),
        nn.Linear(2 * width, width),
        NodeNorm(width),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
    )
