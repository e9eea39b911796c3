"""Losses over all pairs of rows without the matrix of pairs, in tiles that stay in the cache.

mean_lse       one direction: a block of whole rows gives softmax and both gradients, 6 N M D operations
mean_lse_both  rows and columns: one pass for the sums, one for the gradients, 8 N M D, or 6 if the tiles are kept
mean_lse_self  each row against all others: the matrix is symmetric, so half of its tiles do, 4 N^2 D, or 3
rowwise        any loss of one row of the matrix at a time, 6 N M D
queue_loss     rows against a long queue that takes no gradient, 4 N K D

The gradient is computed in the forward pass, where the softmax is at hand, so that nothing of size N x M waits for
backward: memory is O(N D + block x M). There is no second derivative.

Logits are cosines over tau and so at most 1 / tau: for tau >= 0.02 sums of their exponentials stay within float32 (exp
of 50, a million times, is 1e28) and need no maximum; the logits are then scaled for powers of two, which cost less than
those of e. Below that everything is kept as logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graphcl.objectives._cosine import full_precision, length

SMALL_TAU = 0.02
Block = tuple[int, int]  # rows and columns of a tile
# (logits [b, M], rows): the losses [b] of these rows, and d loss / d logits [b, M]. It may overwrite the logits.
RowLoss = Callable[[Tensor, slice], tuple[Tensor, Tensor]]


def mean_lse(a: Tensor, b: Tensor, tau: float, *, paired: bool = False, block: Block | None = None) -> Tensor:
    """Mean over i of log sum_j exp(a_i.b_j / tau). a: [N, D], b: [M, D], rows no longer than 1.

    paired: minus the mean of a_i.b_i / tau, for N = M; this makes it InfoNCE.
    """
    result: Tensor = _OneWay.apply(a, b, tau, paired, block or _block(a))
    return result


def mean_lse_both(
    a: Tensor, b: Tensor, tau: float, *, paired: bool = False, keep: bool = False, block: Block | None = None
) -> Tensor:
    """(mean_lse(a, b) + mean_lse(b, a)) / 2. keep: hold the N x M exponentials from the first pass to the second."""
    result: Tensor = _TwoPass.apply(a, b, tau, paired, keep, block or _block(a))
    return result


def mean_lse_self(
    z: Tensor, tau: float, *, paired: bool = False, keep: bool = False, block: Block | None = None
) -> Tensor:
    """Mean over i of log sum_{j != i} exp(z_i.z_j / tau). z: [N, D], N >= 2. keep: hold half of N x N exponentials.

    paired: minus the mean of z_i.z_p / tau, where p is the same row in the other half of z; this makes it NT-Xent.
    """
    result: Tensor = _TwoPass.apply(z, None, tau, paired, keep, block or _block(z))
    return result


def rowwise(a: Tensor, b: Tensor, tau: float, row_loss: RowLoss, *, block: int | None = None) -> Tensor:
    """Mean over i of row_loss(a_i.b / tau), with gradient to a [N, D] and b [M, D]."""
    block = block or max(64, 4 * _tile_size(a) // len(b))  # fewer rows would starve the products
    result: Tensor = _RowWise.apply(a, b, tau, row_loss, block)
    return result


def queue_loss(
    q: Tensor,
    k: Tensor,
    queue: Tensor,
    tau: float,
    *,
    ids: Tensor | None = None,
    queue_ids: Tensor | None = None,
    normalized: bool = False,
    block: int | None = None,
) -> Tensor:
    """`queue_infonce` for q and k [N, D] of length 1. The queue [K, D] may be written at once: nothing waits for it."""
    result: Tensor = _Queue.apply(q, k, queue, tau, ids, queue_ids, normalized, block or _width(q, ids))
    return result


class _OneWay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, tau: float, paired: bool, block: Block) -> Tensor:
        n, m = len(a), len(b)
        need_a, need_b = ctx.needs_input_grad[:2]
        grad_a, grad_b = torch.zeros_like(a), torch.zeros_like(b) if need_b else None
        columns = _cuts(m, block[1])
        room = a.new_empty(min(block[0], n) * m)
        total = a.new_zeros(())
        with full_precision(a):
            for first, last in _cuts(n, block[0]):
                rows = a[first:last] * _scale(tau)
                sizes = [(last - first) * (stop - start) for start, stop in columns]
                flats = room[: (last - first) * m].split(sizes)
                tiles = [flat.view(last - first, -1) for flat in flats]
                sums = _no_terms(rows, tau)
                for tile, (start, stop) in zip(tiles, columns, strict=True):
                    torch.mm(rows, b[start:stop].T, out=tile)
                    sums = _add_terms(sums, _exp_(tile, tau), 1, tau)
                total += _log(sums, tau).sum()
                if not (need_a or need_b):
                    continue
                # The softmax is tile * share; to scale the D columns of its factors is cheaper than the M of its own.
                share = 1.0 if tau < SMALL_TAU else (1 / sums)[:, None]
                scaled = a[first:last] * (share / (n * tau))
                out = grad_a[first:last]
                for tile, (start, stop) in zip(tiles, columns, strict=True):
                    if tau < SMALL_TAU:
                        tile.sub_(sums[:, None]).exp_()
                    if need_a:
                        out.addmm_(tile, b[start:stop])
                    if grad_b is not None:
                        grad_b[start:stop].addmm_(tile.T, scaled)
                out.mul_(share / (n * tau))
        ctx.save_for_backward(grad_a if need_a else None, grad_b)
        return total / n - _pairs(a, b, tau, grad_a, grad_b) if paired else total / n

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return *_gradients(ctx, grad), None, None, None


class _TwoPass(torch.autograd.Function):
    """Row and column sums, then the gradients. Without b: of the symmetric matrix of a, its upper triangle of tiles."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor | None, tau: float, paired: bool, keep: bool, block: Block) -> Tensor:
        other = a if b is None else b
        n, m = len(a), len(other)
        places = []  # of the tiles: first and last row, first and last column
        for first, last in _cuts(n, block[0]):
            if b is None:
                places.append((first, last, first, last))
            start = last if b is None else 0
            places += [(first, last, start + left, start + right) for left, right in _cuts(m - start, block[1])]
        sizes = [(last - first) * (stop - start) for first, last, start, stop in places]
        room = a.new_empty(sum(sizes) if keep else max(sizes))
        flats = room.split(sizes) if keep else [room[:size] for size in sizes]
        scaled = a * _scale(tau)

        def exponentials(flat: Tensor, first: int, last: int, start: int, stop: int) -> Tensor:
            tile = torch.mm(scaled[first:last], other[start:stop].T, out=flat.view(last - first, stop - start))
            if b is None and start == first:
                tile.diagonal().fill_(-math.inf)
            return _exp_(tile, tau)

        with full_precision(a):
            rows = _no_terms(a, tau)
            columns = rows if b is None else _no_terms(other, tau)
            for flat, (first, last, start, stop) in zip(flats, places, strict=True):
                tile = exponentials(flat, first, last, start, stop)
                rows[first:last] = _add_terms(rows[first:last], tile, 1, tau)
                if b is not None or start != first:
                    columns[start:stop] = _add_terms(columns[start:stop], tile, 0, tau)
            result = (_log(rows, tau).mean() + _log(columns, tau).mean()) / 2
            one, two = (a, b) if b is not None else a.chunk(2)
            if not any(ctx.needs_input_grad):
                return result - _pairs(one, two, tau) if paired else result

            # In a symmetric matrix every tile stands for its mirror image too, so both halves of the mean are whole.
            factor = tau if b is None else 2 * tau
            u, v = _reciprocal(rows, n * factor, tau), _reciprocal(columns, m * factor, tau)
            grad_a = torch.zeros_like(a)
            grad_b = grad_a if b is None else torch.zeros_like(b)
            scratch = a.new_empty(max(sizes))
            for flat, (first, last, start, stop) in zip(flats, places, strict=True):
                shape = last - first, stop - start
                tile = flat.view(shape) if keep else exponentials(flat, first, last, start, stop)
                both = scratch[: tile.numel()].view(shape)
                if tau < SMALL_TAU:
                    torch.add(tile, v[start:stop], out=both).exp_()
                    both += tile.add_(u[first:last, None]).exp_()
                else:
                    torch.add(u[first:last, None], v[start:stop], out=both).mul_(tile)
                grad_a[first:last].addmm_(both, other[start:stop])
                if b is not None or start != first:
                    grad_b[start:stop].addmm_(both.T, a[first:last])
        ctx.save_for_backward(grad_a, None if b is None else grad_b)
        grads = (grad_a, grad_b) if b is not None else grad_a.chunk(2)
        return result - _pairs(one, two, tau, *grads) if paired else result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return *_gradients(ctx, grad), None, None, None, None


class _RowWise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, tau: float, row_loss: RowLoss, block: int) -> Tensor:
        n, m = len(a), len(b)
        need_a, need_b = ctx.needs_input_grad[:2]
        grad_a = torch.empty_like(a) if need_a else None
        grad_b = torch.zeros_like(b) if need_b else None
        room = a.new_empty(min(block, n) * m)
        total = a.new_zeros(())
        with full_precision(a):
            for first, last in _cuts(n, block):
                rows = a[first:last] / tau
                logits = torch.mm(rows, b.T, out=room[: (last - first) * m].view(last - first, m))
                losses, slope = row_loss(logits, slice(first, last))
                total += losses.sum()
                if grad_a is not None:
                    grad_a[first:last] = (slope @ b) / (n * tau)
                if grad_b is not None:
                    grad_b.addmm_(slope.T, rows / n)
        ctx.save_for_backward(grad_a, grad_b)
        return total / n

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return *_gradients(ctx, grad), None, None, None


class _Queue(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        queue: Tensor,
        tau: float,
        ids: Tensor | None,
        queue_ids: Tensor | None,
        normalized: bool,
        block: int,
    ) -> Tensor:
        n, size = len(q), len(queue)
        need = ctx.needs_input_grad[0]
        scaled = q * _scale(tau)
        positive = (q / tau * k).sum(1)  # [N]
        # Sums over the negatives, of exp and of exp times key, both divided by exp(top).
        top = positive if tau < SMALL_TAU else torch.zeros_like(positive)
        total, pull = torch.zeros_like(positive), torch.zeros_like(q)
        valid = q.new_ones(size) if queue_ids is None else (queue_ids != -1).to(q.dtype)  # [K]
        # An empty slot's key is 0, which saves a pass over the tiles: it pulls nothing, and its exp is not added.
        ready = normalized and queue.dtype == q.dtype
        scale = valid[:, None] if normalized else valid[:, None] / length(queue, q.dtype)
        empty = None if normalized or queue_ids is None else (queue_ids == -1)[:, None]  # may hold anything, nan too
        own = None if ids is None or queue_ids is None else _places(ids, queue_ids, q.dtype)
        block = min(block, max(size, 1))
        keys_room, room = q.new_empty(block, q.shape[1]), q.new_empty(n * block)
        negative_room = None if own is None else torch.empty_like(room)
        with full_precision(q):
            for start in range(0, size, block):
                part = slice(start, min(start + block, size))
                width = part.stop - part.start
                keys = queue[part] if ready else torch.mul(queue[part], scale[part], out=keys_room[:width])
                if empty is not None:
                    keys.masked_fill_(empty[part], 0)
                tile = torch.mm(scaled, keys.T, out=room[: n * width].view(n, width))
                if own is not None and negative_room is not None:
                    negative = negative_room[: n * width].view(n, width)
                    torch.ne(own[0], own[1][part], out=negative)  # 0.0 at the query's own item
                if tau < SMALL_TAU:
                    tile += valid[part].log()
                    if own is not None:
                        tile += negative.log_()
                    higher = torch.maximum(top, tile.amax(1))
                    shrink = (top - higher).exp_()
                    top = higher
                    total *= shrink
                    pull *= shrink[:, None]
                    tile.sub_(top[:, None]).exp_()
                _exp_(tile, tau)
                if own is not None and tau >= SMALL_TAU:
                    tile *= negative
                total.addmv_(tile, valid[part])
                if need:
                    pull.addmm_(tile, keys)
        # d loss / d q is sum_j p_j key_j + p_k k - k, with 1 - p_k written as the sum of the other p.
        whole = total + (positive - top).exp()
        ctx.save_for_backward((pull - total[:, None] * k) / (whole * (n * tau))[:, None] if need else None)
        # Not log(whole) - positive: this is 0 to the last bit where there is no negative.
        return F.softplus(total.log() + top - positive).mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return *_gradients(ctx, grad), None, None, None, None, None, None, None


def _places(ids: Tensor, queue_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Small numbers [N, 1] and [K], equal where the ids are. As floats they fill a tile of floats 20 times faster."""
    ordered = ids.sort().values
    near = torch.searchsorted(ordered, queue_ids).clamp_(max=len(ids) - 1)
    found = ordered.index_select(0, near) == queue_ids
    return torch.searchsorted(ordered, ids)[:, None].to(dtype), torch.where(found, near, -1).to(dtype)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The saved gradients, scaled by that of the loss."""
    if torch.is_grad_enabled():  # by create_graph=True. The saved gradients are constants: theirs would be wrong.
        raise RuntimeError('a streamed loss has no second derivative; take form="dense" for create_graph=True')
    return tuple(None if x is None else grad * x for x in ctx.saved_tensors)


def _pairs(a: Tensor, b: Tensor, tau: float, grad_a: Tensor | None = None, grad_b: Tensor | None = None) -> Tensor:
    """Mean of a_i.b_i / tau; its gradient is taken off grad_a and grad_b."""
    share = 1 / (len(a) * tau)
    for grad, other in ((grad_a, b), (grad_b, a)):
        if grad is not None:
            grad.sub_(other, alpha=share)
    return (a * b).sum(1).sum() * share


# Terms of a sum of exponentials: themselves, or for a small tau their logarithms.


def _scale(tau: float) -> float:
    return 1 / tau if tau < SMALL_TAU else 1 / (tau * math.log(2))


def _exp_(tile: Tensor, tau: float) -> Tensor:
    return tile if tau < SMALL_TAU else tile.exp2_()


def _no_terms(like: Tensor, tau: float) -> Tensor:
    return like.new_full((len(like),), -math.inf if tau < SMALL_TAU else 0.0)


def _add_terms(sums: Tensor, tile: Tensor, dim: int, tau: float) -> Tensor:
    return torch.logaddexp(sums, tile.logsumexp(dim)) if tau < SMALL_TAU else sums + tile.sum(dim)


def _log(sums: Tensor, tau: float) -> Tensor:
    return sums if tau < SMALL_TAU else sums.log()


def _reciprocal(sums: Tensor, factor: float, tau: float) -> Tensor:
    """1 / (factor * sum)."""
    return -(sums + math.log(factor)) if tau < SMALL_TAU else 1 / (sums * factor)


def _cuts(length: int, size: int) -> list[tuple[int, int]]:
    """0..length in as few pieces of at most `size` as will do, all about equally long."""
    pieces = -(-length // size)
    bounds = [length * piece // pieces for piece in range(pieces + 1)] if pieces else []
    return list(pairwise(bounds))


def _tile_size(x: Tensor) -> int:
    """Numbers in a tile: on a CPU half a MiB of float32, a quarter of a core's L2; else what keeps a device busy."""
    return 2**17 if x.device.type == "cpu" else 2**24


def _block(x: Tensor) -> Block:
    rows = math.isqrt(_tile_size(x) // 2)
    return rows, 2 * rows


def _width(q: Tensor, ids: Tensor | None) -> int:
    # With ids there are two tiles at a time.
    return max(256, _tile_size(q) * (2 if ids is None else 1) // len(q))
