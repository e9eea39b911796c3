"""Sums over neighbours, without a row for every edge.

Edges grouped by target are a CSR matrix, and `embedding_bag` on it gathers and adds in one pass, on the CPU and on CUDA
alike. The backward pass is the same sum over the transposed matrix, in a fixed order too: equal inputs give equal bits.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils.weak import TensorWeakRef, WeakTensorKeyDictionary

from graphcl.encoders._native import native

T = TypeVar("T")
BLOCK = 1 << 22  # numbers at a time, of the edges' rows that the gradient of their weights needs

_kept: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def remembered(name: Hashable, make: Callable[[], T], *sources: Tensor | None) -> T:
    """What `make()` gives, made once for these very tensors: as long as the first lives and none is written to.

    So the layers of an encoder, and views that leave the edges alone, share one CSR; a view that rebinds them has a
    tensor of its own, which nothing is kept for. What `make` gives must hold none of `sources`, or they live for ever.
    Results with a gradient are not kept, since a backward pass frees its graph.
    """
    tensors = [source for source in sources if source is not None]
    if (
        torch.compiler.is_compiling()
        or torch.is_inference_mode_enabled()  # what is made there cannot be saved for a backward pass
        or any(tensor.requires_grad or tensor.is_inference() for tensor in tensors)
        or any(isinstance(tensor, Parameter) for tensor in tensors)  # a fused optimizer writes without raising _version
    ):
        return make()
    results = _kept.setdefault(tensors[0], {})
    now = [None if source is None else source._version for source in sources]
    if name in results:
        seen, versions, value = results[name]
        if versions == now and all(ref is None or ref() is source for ref, source in zip(seen, sources, strict=True)):
            return value
    value = make()
    results[name] = ([None if source is None else TensorWeakRef(source) for source in sources], now, value)
    return value


def on_host(tensor: Tensor) -> bool:
    """Whether the values can be looked at without waiting: a real tensor in the CPU's memory."""
    return tensor.device.type == "cpu" and type(tensor) is Tensor and not torch.compiler.is_compiling()


class CSR:
    """A sparse matrix [n, width] by rows: of edges, row i has the sources of the edges into node i.

    rowptr [n + 1]: where each row starts.  col [E]: column of every entry.  row [E]: its row.  order [E]: the edge that
    each entry was, None if edges came in this order.  All int32, so E < 2^31.
    """

    def __init__(self, rowptr: Tensor, col: Tensor, row: Tensor, width: int, order: Tensor | None = None) -> None:
        self.rowptr, self.col, self.row, self.width, self.order = rowptr, col, row, width, order
        self._transposed: tuple[Tensor, Tensor, Tensor | None] | None = None

    @staticmethod
    def of_edges(edge_index: Tensor, n: int, loops: bool = False) -> CSR:
        """Of the edges [2, E] between n nodes, and with `loops` of n more, one from every node to itself.

        On the CPU ValueError names a node that is not there.
        """
        if on_host(edge_index):
            _check(edge_index, n)
        # Copies: a view of edge_index would keep it alive, and this with it.
        col, row = (ends.to(torch.int32, copy=True) for ends in edge_index.unbind())
        if loops:
            own = torch.arange(n, dtype=torch.int32, device=edge_index.device)
            col, row = torch.cat([col, own]), torch.cat([row, own])
        rowptr, order = _grouped(row, n)
        if order is None:
            return CSR(rowptr, col, row, n)
        return CSR(rowptr, col.index_select(0, order), row.index_select(0, order), n, order)

    @staticmethod
    def of_matrix(x: Tensor) -> tuple[CSR, Tensor]:
        """The entries of x [N, F] that are not zero, and their values."""
        flat = x.reshape(-1)
        if on_host(flat):
            place = torch.from_numpy(np.flatnonzero(flat.bool().numpy()))  # a third of the time of torch's nonzero
        else:
            place = flat.nonzero().view(-1)
        row = torch.div(place, x.size(1), rounding_mode="floor")
        col = (place - row * x.size(1)).to(torch.int32)
        return CSR(_pointer(row, x.size(0)), col, row.to(torch.int32), x.size(1)), flat.index_select(0, place)

    @staticmethod
    def of_groups(group: Tensor, n: int) -> CSR:
        """Row g has the places where `group` [N], in 0..n-1, is g. On the CPU ValueError names a group that is not."""
        if on_host(group) and group.numel():
            low, high = (int(end) for end in group.aminmax())
            if low < 0 or high >= n:
                wrong = low if low < 0 else high
                raise ValueError(f"batch names graph {wrong}, but there are {n} graphs, numbered from 0")
        row = group.to(torch.int32, copy=True)
        rowptr, order = _grouped(row, n)
        places = torch.arange(row.size(0) + 1, dtype=torch.int32, device=row.device)
        col = places[:-1] if order is None else order
        csr = CSR(rowptr, col, row if order is None else row.index_select(0, order), row.size(0), order)
        csr._transposed = places, row.view(-1), None  # every place is in one group
        return csr

    def transposed(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """rowptr [width + 1], col [E] and for each of its entries the entry here [E]; made when first asked for."""
        if self._transposed is None:
            rowptr, order = _grouped(self.col, self.width)
            self._transposed = rowptr, self.row if order is None else self.row.index_select(0, order), order
        return self._transposed

    def entries(self, values: Tensor) -> Tensor:
        """Values of the edges [E] in the order of the entries."""
        return values if self.order is None else values.index_select(0, self.order)


def csr_of(edge_index: Tensor, n: int, loops: bool = False) -> CSR:
    """`CSR.of_edges`, one for every layer, direction and view with this very tensor."""
    if not isinstance(n, int):  # a symbol, while torch traces
        return CSR.of_edges(edge_index, n, loops)
    return remembered(("csr", n, loops), lambda: CSR.of_edges(edge_index, n, loops), edge_index)


def neighbour_sum(x: Tensor, csr: CSR, weight: Tensor | None = None) -> Tensor:
    """out[i] = the sum of weight[e] * x[j] over the edges e = (j, i).

    x: [width, D]; weight: [E] in the order of the edges. Returns [n, D] in the type of x. Gradients to x and weight.
    """
    return entry_sum(x, csr, None if weight is None else csr.entries(weight))


def entry_sum(x: Tensor, csr: CSR, weight: Tensor | None) -> Tensor:
    """`neighbour_sum` with the weights in the order of the entries, as `csr.entries` gives them."""
    weight = None if weight is None else weight.to(x.dtype)
    back = csr.transposed() if x.requires_grad and torch.is_grad_enabled() else (None, None, None)
    out: Tensor = _Sum.apply(x, weight, csr.rowptr, csr.col, csr.row, *back)
    return out


def weight_sums(csr: CSR, weight: Tensor) -> Tensor:
    """[n], sum of the weights [E], in the order of the entries, of each row."""
    return entry_sum(torch.ones(csr.width, 1, dtype=weight.dtype, device=weight.device), csr, weight).view(-1)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, rowptr: Tensor, col: Tensor, row: Tensor, *back: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight, col, row, *back)
        return _bag(x.detach(), col, rowptr, weight)  # torch prepares its own backward for what requires a gradient

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, col, row, back_ptr, back_col, back_order = ctx.saved_tensors
        to_x = to_weight = None
        if ctx.needs_input_grad[0]:
            if weight is not None and back_order is not None:
                weight = weight.index_select(0, back_order)
            to_x = _bag(grads[0], back_col, back_ptr, weight)
        if ctx.needs_input_grad[1]:
            to_weight = _products(grads[0], row, x, col)
        return to_x, to_weight, None, None, None, None, None, None


def _bag(table: Tensor, index: Tensor, pointer: Tensor, weight: Tensor | None) -> Tensor:
    # positions: scale_grad_by_freq, mode (0 is sum), sparse, per_sample_weights, include_last_offset
    return torch.embedding_bag(table.contiguous(), index, pointer, False, 0, False, weight, True)[0]


def _products(a: Tensor, i: Tensor, b: Tensor, j: Tensor) -> Tensor:
    """[E], the inner products a[i[e]] . b[j[e]], in blocks: never all E rows at once."""
    edges, step = i.numel(), max(1, BLOCK // max(1, a.size(1)))
    if torch.compiler.is_compiling() or not isinstance(edges, int) or edges <= step:  # a traced loop would fix E
        return (a.index_select(0, i) * b.index_select(0, j)).sum(1)
    blocks = [slice(start, start + step) for start in range(0, edges, step)]
    return torch.cat([(a.index_select(0, i[block]) * b.index_select(0, j[block])).sum(1) for block in blocks])


def _grouped(keys: Tensor, n: int) -> tuple[Tensor, Tensor | None]:
    """Where each of n keys starts [n + 1], and the places of the keys [E] in ascending order, all int32.

    Equal keys stay in their old order. No places if the keys are in order; that is looked at on the CPU only, elsewhere
    it would wait for the device.
    """
    if not on_host(keys):
        keys, order = keys.sort(stable=True)
        return _pointer(keys, n), order.to(torch.int32)
    group = native()
    if group is not None:
        pointer, order = torch.zeros(n + 1, dtype=torch.int32, device=keys.device), torch.empty_like(keys)
        return pointer, None if group(keys.numpy(), pointer.numpy(), order.numpy()) else order
    if bool((keys[1:] >= keys[:-1]).all()):
        return _pointer(keys, n), None
    # numpy's vectorised sort of (key, place) as one number takes a seventh of the time of torch's.
    places = torch.arange(keys.numel(), device=keys.device)
    packed = torch.from_numpy(np.sort(((keys.long() << 32) | places).numpy()))
    return _pointer((packed >> 32), n), packed.to(torch.int32)  # its lower half


def _pointer(rows: Tensor, n: int) -> Tensor:
    """[n + 1] int32, where each of n rows starts in the ascending `rows` [E]."""
    counts = torch.zeros(n + 1, dtype=torch.int32, device=rows.device)
    ones = torch.ones(1, dtype=torch.int32, device=rows.device).expand(rows.size(0))
    counts[1:].scatter_add_(0, rows.long(), ones)
    return counts.cumsum(0, dtype=torch.int32)


def _check(edge_index: Tensor, n: int) -> None:
    if edge_index.numel():
        low, high = (int(end) for end in edge_index.aminmax())
        if low < 0 or high >= n:
            raise ValueError(
                f"edge_index names node {low if low < 0 else high}, but there are features (x) of {n} nodes, numbered "
                "from 0; give every node a row of x"
            )
