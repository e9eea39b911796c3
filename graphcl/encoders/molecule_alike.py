"""Atoms with like surroundings, computed once.

Paper:   Bollen et al., 2023, "Learning Graph Neural Networks using Exact Compression", arXiv:2304.14793
What GIN gives an atom in layer l depends on its surroundings of l bonds and on nothing else: atoms that get one colour
in l rounds of colour refinement get one row. In a batch of molecules few atoms differ after one layer and not all after
five, so about half of the products say what is said already. Here each layer computes one atom of every kind, and batch
norm counts each row as often as it occurs: the same function and the same gradients, but for the order in which numbers
are added. Dropout, which tells every atom apart, ends it.
Differs: the paper compresses the graph once, for all layers; here every layer has its own kinds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from graphcl.encoders.aggregate import CSR, entry_sum, on_host, remembered

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


def worth_it(encoder: nn.Module, x: Tensor, width: int) -> bool:
    """Whether to look for like atoms: categories x [N, C] on the CPU, enough of them, and layers as they were made.

    The number of kinds must be known to go on, for which a GPU would have to be waited for. A hook may want every row.
    """
    return on_host(x) and x.size(0) * width**2 >= FEWEST and not any(map(_changed, encoder.modules()))


def _changed(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks)


def like_atoms(x: Tensor, csr: CSR, edge_attr: Tensor, counts: Tensor, depth: int) -> tuple[Tensor, list[Kinds]]:
    """First atoms [K] of the kinds that x [N, C] has, and the kinds of as many layers as `depth`.

    csr: of the edges and every atom's own. counts: [N, R] of the rows of edge_attr's tables that come into every atom.
    Colours are 64 random bits, so that two of n that differ agree with a probability of n^2 / 2^65: 10^-12 for 6,000.
    """

    def make() -> tuple[Tensor, list[Kinds]]:
        rowptr, col = csr.rowptr.numpy(), csr.col.numpy()
        bonds, colours = _colours(counts.numpy()), _colours(x.numpy())
        first, below, _ = _grouped(colours)
        start, kinds = torch.from_numpy(first), []
        for _ in range(depth):
            # The sum of the neighbours' rows and the sum of the bonds' are all that the layer sees.
            colours = _mixed(np.add.reduceat(_mixed(colours)[col], rowptr[:-1]) + bonds)
            first, of, sizes = _grouped(colours)
            length = np.diff(rowptr)[first]
            ends = np.concatenate([[0], length.cumsum()]).astype(np.int32)
            entries = np.arange(ends[-1]) + (rowptr[first] - ends[:-1]).repeat(length)
            row = np.arange(len(first), dtype=np.int32).repeat(length)
            tensors = [torch.from_numpy(array) for array in (ends, below[col[entries]], row)]
            inward = CSR(tensors[0], tensors[1], tensors[2], int(below.max()) + 1)
            many = torch.from_numpy(sizes).to(counts.dtype)
            kinds.append(Kinds(inward, counts.index_select(0, torch.from_numpy(first)), many, torch.from_numpy(of)))
            below = of
        return start, kinds

    return remembered(("alike", depth, counts.dtype), make, csr.rowptr, x, edge_attr)


def counted_norm(norm: Any, rows: Tensor, kinds: Kinds) -> Tensor:
    """What a NodeNorm gives rows of kinds [K, D], each of which counts as many times as there are atoms of it."""
    bn, atoms = norm.module, kinds.of.size(0)
    if not norm.training or atoms == 1:
        by_running: Tensor = norm(rows)
        return by_running
    with torch.autocast("cpu", enabled=False):
        wide = rows.to(torch.promote_types(rows.dtype, bn.weight.dtype))
        share = (kinds.sizes / atoms).to(wide.dtype)
        mean = share @ wide
        apart = wide - mean
        var = share @ apart.square()
        out = torch.addcmul(bn.bias, apart, (var + bn.eps).rsqrt() * bn.weight)
    with torch.no_grad():
        bn.num_batches_tracked.add_(1)
        bn.running_mean.lerp_(mean, bn.momentum)
        bn.running_var.lerp_(var * (atoms / (atoms - 1)), bn.momentum)
    return out.to(rows.dtype)


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
