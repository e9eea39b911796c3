"""Atoms with like surroundings, computed once.

Paper:   Bollen et al., 2023, "Learning Graph Neural Networks using Exact Compression", arXiv:2304.14793
What GIN gives an atom in layer l depends on its surroundings of l bonds and on nothing else: atoms that get one colour
in l rounds of colour refinement get one row. Of 256 molecules (BBBP) a fifteenth of the atoms differ after one layer,
four tenths after two, three quarters after five, so half of the products say what is said already. Here each layer
computes one atom of every kind, and batch norm counts each row as often as it occurs: the same function and the same
gradients, but for the order in which numbers are added. Dropout, which tells every atom apart, ends it.
Differs: the paper compresses the graph once, for all layers; here every layer has its own kinds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from graphcl.encoders.aggregate import CSR, csr_of, entry_sum, on_host, remembered
from graphcl.encoders.molecule_inputs import Columns

FEWEST = 1 << 24  # atoms x width^2, below which looking for what is alike costs more than it saves


class Kinds(NamedTuple):
    """The K kinds of atoms that a layer tells apart, each by its first atom."""

    csr: CSR  # [K, kinds of the layer below]: what comes into that atom, itself too
    bonds: Tensor  # [K, R] how often each row of the bonds' tables comes into it
    sizes: Tensor  # [K] how many atoms are of the kind, as floats
    of: Tensor  # [N] the kind of every atom, int32

    def spread(self, rows: Tensor) -> Tensor:
        """Rows of the kinds [K, D] for every atom, [N, D]."""
        places = torch.arange(self.of.size(0) + 1, dtype=torch.int32, device=rows.device)
        return entry_sum(rows, CSR(places, self.of, places[:-1], rows.size(0)), None)


def worth_it(x: Tensor, edge_weight: Tensor | None, width: int) -> bool:
    """Whether to look for like atoms: categories x [N, C] on the CPU, enough of them, and bonds that all count 1.

    The number of kinds must be known to go on, for which a GPU would have to be waited for.
    """
    return on_host(x) and edge_weight is None and x.size(0) * width**2 >= FEWEST


def like_atoms(
    x: Tensor, edge_index: Tensor, edge_attr: Tensor, columns: Columns, counts: Tensor, depth: int
) -> tuple[Tensor, list[Kinds]]:
    """First atoms [K] of the kinds that x [N, C] has, and the kinds of as many layers as `depth`.

    counts: [N, R] of the bonds into every atom. Colours are 64 random bits, so that two of n that differ agree with a
    probability of n^2 / 2^65: 10^-12 for 6,000 atoms.
    """

    def make() -> tuple[Tensor, list[Kinds]]:
        csr = csr_of(edge_index, x.size(0), loops=True)
        rowptr, col = csr.rowptr.numpy(), csr.col.numpy()
        bonds = _colours(counts.detach().numpy())
        colours = _colours(x.numpy())
        first, below, _ = _grouped(colours)
        start, kinds = torch.from_numpy(first), []
        for _ in range(depth):
            # The sum of the neighbours' rows and the sum of the bonds' are all that the layer sees.
            colours = _mixed(np.add.reduceat(_mixed(colours)[col], rowptr[:-1]) + bonds)
            first, of, sizes = _grouped(colours)
            length = np.diff(rowptr)[first]
            ends = np.concatenate([[0], length.cumsum()]).astype(np.int32)
            entries = np.arange(ends[-1]) + (rowptr[first] - ends[:-1]).repeat(length)
            inward = CSR(
                torch.from_numpy(ends),
                torch.from_numpy(below[col[entries]]),
                torch.from_numpy(np.arange(len(first), dtype=np.int32).repeat(length)),
                int(below.max()) + 1,
            )
            rows = torch.from_numpy(first)
            kinds.append(
                Kinds(
                    inward,
                    counts.detach().index_select(0, rows),
                    torch.from_numpy(sizes).to(counts.dtype),
                    torch.from_numpy(of),
                )
            )
            below = of
        return start, kinds

    return remembered(("alike", columns.loop, depth, counts.dtype), make, edge_index, x, edge_attr)


def counted_norm(norm: Any, rows: Tensor, kinds: Kinds) -> Tensor:
    """What a `NodeNorm` gives rows of kinds [K, D], each of which counts as many times as there are atoms of it."""
    bn, atoms = norm.module, kinds.of.size(0)
    if not norm.training or atoms == 1:
        out: Tensor = norm(rows)
        return out
    out, mean, var = _CountedNorm.apply(rows, bn.weight, bn.bias, kinds.sizes, atoms, bn.eps)
    with torch.no_grad():
        bn.num_batches_tracked.add_(1)
        bn.running_mean.lerp_(mean.to(bn.running_mean.dtype), bn.momentum)
        bn.running_var.lerp_((var * (atoms / (atoms - 1))).to(bn.running_var.dtype), bn.momentum)
    return out


class _CountedNorm(torch.autograd.Function):
    """(rows [K, D], scale [D], shift [D], sizes [K], their sum, eps) -> rows [K, D], mean [D], variance [D]."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, scale: Tensor, shift: Tensor, sizes: Tensor, total: int, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = rows.to(torch.promote_types(rows.dtype, scale.dtype))
        share = (sizes / total).to(wide.dtype)
        mean = share @ wide
        apart = wide - mean
        var = share @ apart.square()
        inverse = (var + eps).rsqrt()
        ctx.save_for_backward(apart, inverse, scale, share)
        ctx.mark_non_differentiable(mean, var)
        return torch.addcmul(shift, apart, inverse * scale).to(rows.dtype), mean, var

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        apart, inverse, scale, share = ctx.saved_tensors
        grad = grads[0].to(apart.dtype)
        to_shift, along = grad.sum(0), (grad * apart).sum(0)
        slope = inverse * scale
        # grad is the sum over the atoms of a kind; what the mean and the variance send back goes to each of them.
        back = torch.addcmul(-to_shift * slope, apart, -along * slope * inverse.square())
        back = back.mul_(share.unsqueeze(1)).addcmul_(grad, slope)
        return back.to(grads[0].dtype), along * inverse, to_shift, None, None, None


def _mixed(colours: Any) -> Any:
    """Every number another one, that looks drawn: the finalizer of splitmix64 (Steele et al., 2014)."""
    colours = (colours ^ (colours >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    colours = (colours ^ (colours >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return colours ^ (colours >> np.uint64(31))


def _colours(codes: Any) -> Any:
    """A colour for every row of whole numbers [N, C]."""
    colours = np.full(len(codes), 0x9E3779B97F4A7C15, dtype=np.uint64)
    for column in codes.T:
        colours = _mixed(colours + column.astype(np.int64).view(np.uint64))
    return colours


def _grouped(colours: Any) -> tuple[Any, Any, Any]:
    """First place of each of K colours [K], which of them every place has [N] (int32), and how often each is there."""
    _, first, of, sizes = np.unique(colours, return_index=True, return_inverse=True, return_counts=True)
    return first, of.astype(np.int32), sizes
