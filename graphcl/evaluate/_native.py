"""The dual of the SVM solved for a path of C, its inner loop compiled by numba at first use; without numba libsvm does.

Sources: Fan, Chen and Lin, 2005, "Working Set Selection Using Second Order Information for Training Support Vector
         Machines", JMLR 6 (the pairs); Joachims, 1999, "Making Large-Scale SVM Learning Practical" (the blocks).
Differs: a block holds every free row and the worst of the others; the solution of one C, scaled, is the start of the
         next. Stops where libsvm does, at a violation below 1e-3: decision values agree to about that, not to the bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

TOLERANCE = 1e-3  # libsvm's
BLOCK = 128  # rows of a block besides the free ones: its kernels stay in the cache
STEPS = (
    10_000_000  # after which the solver gives up, as libsvm does; a block costs as many as there are rows, and its own
)
LANES = 64

Array = NDArray[np.float64]


@cache
def native() -> SimpleNamespace | None:
    """The compiled kernels; None without numba."""
    try:
        from numba import njit
    except ImportError:
        return None
    kernels = (pairs, cut, spread)
    # As numpy divides: a check for zero at every division would keep the loops from being vectorized.
    how: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return SimpleNamespace(**{kernel.__name__: njit(cache=True, **how)(kernel) for kernel in kernels})
    except RuntimeError:  # no folder that a cache may be written to: compiled again in every process
        return SimpleNamespace(**{kernel.__name__: njit(**how)(kernel) for kernel in kernels})


def solve(
    kernels: SimpleNamespace, gram: NDArray[np.float32], sign: Array, strengths: Sequence[float]
) -> tuple[Array, Array]:
    """Dual solutions of the C of `strengths`: sign times alpha [S, n], and rho [S]; f(x) = sum_i of k(x, i) - rho.

    gram: [n, n], symmetric, contiguous and finite.  sign: [n], 1 or -1, both present.
    """
    signed, gradient, last = np.zeros(len(sign)), -sign, 0.0
    found, offsets = np.empty((len(strengths), len(sign))), np.empty(len(strengths))
    for place, strength in enumerate(strengths):
        low, high = np.minimum(sign * strength, 0), np.maximum(sign * strength, 0)
        if last * 1e3 < strength:  # scaled so far, the gradient's rounding errors would count
            signed, gradient = np.zeros(len(sign)), -sign
        else:
            bounded = np.abs(signed) == last
            # A row at its bound stays there, which most rows do; to leave it would make all of them free.
            gradient = (gradient + sign) * (strength / last) - sign
            signed = np.where(bounded, sign * strength, np.clip(signed * (strength / last), low, high))
        gradient = descend(kernels, gram, signed, gradient, low, high)
        up, down = signed < high, signed > low
        free = up & down
        found[place], last = signed, strength
        offsets[place] = gradient[free].mean() if free.any() else (gradient[up].min() + gradient[down].max()) / 2
    return found, offsets


def descend(
    kernels: SimpleNamespace, gram: NDArray[np.float32], signed: Array, gradient: Array, low: Array, high: Array
) -> Array:
    """Move `signed` [n], in place, until no pair violates optimality by more than the tolerance; its gradient [n]."""
    steps, gap = STEPS, np.inf
    while steps > 0:
        up, down = signed < high, signed > low
        rising, falling = np.where(up, gradient, np.inf), np.where(down, -gradient, np.inf)
        gap = -rising.min() - falling.min()
        if gap < TOLERANCE:
            return gradient
        block = chosen(up & down, rising, falling)
        size = -(-len(block) // LANES) * LANES  # what is added never moves: its bounds are 0
        part = np.zeros((4, size))
        part[:, : len(block)] = signed[block], gradient[block], low[block], high[block]
        square = np.zeros((size, size), dtype=np.float32)
        kernels.cut(gram, block, square)
        steps -= len(signed) + kernels.pairs(square, *part, max(TOLERANCE / 2, 0.3 * gap), steps)
        kernels.spread(gram, block, part[0, : len(block)] - signed[block], gradient)
        signed[block] = part[0, : len(block)]
    warnings.warn(f"SVM: no solution found, violation {gap:.2g}; scale the columns", ConvergenceWarning, stacklevel=2)
    return gradient


def chosen(free: NDArray[np.bool_], rising: Array, falling: Array) -> NDArray[np.int64]:
    """Rows of the next block: all free ones, and those that violate optimality most on either side."""
    take, half = free.copy(), BLOCK // 2
    for values in (rising, falling):
        values = np.where(free, np.inf, values)
        worst = np.argpartition(values, half)[:half] if half < len(values) else slice(None)
        take[worst] |= np.isfinite(values[worst])
    return np.flatnonzero(take)


def cut(gram, rows, out):
    """gram[rows][:, rows] into the corner of `out`."""
    for r in range(len(rows)):
        row, into = gram[rows[r]], out[r]
        for k in range(np.uintp(len(rows))):
            into[k] = row[np.uintp(rows[k])]


def spread(gram, rows, moved, gradient):
    """gradient += gram[:, rows] @ moved, by rows, as gram is symmetric."""
    for r in range(len(rows)):
        if moved[r] != 0:
            row, by = gram[rows[r]], moved[r]
            for k in range(np.uintp(len(gradient))):
                gradient[k] += by * row[k]


def pairs(gram, signed, gradient, low, high, tolerance, steps):
    """Sequential minimal optimization, in place, until the violation is below `tolerance`; returns the steps taken.

    There are a multiple of LANES rows, and extremes are sought lane by lane: so the compiler may use vectors, which
    for one extreme it does not.
    """
    n, zero, tiny = len(gradient), np.float32(0), np.float32(1e-12)
    rise = np.where(signed < high, 0.0, np.inf)  # added to a gradient, these leave out what cannot move
    fall = np.where(signed > low, zero, np.float32(-np.inf))
    diagonal = np.empty(n, np.float32)
    for k in range(n):
        diagonal[k] = gram[k, k]
    least, most = np.empty(LANES), np.empty(LANES, np.float32)
    i, j, step = 0, 0, 0.0
    for count in range(steps):
        row_i, row_j = gram[i], gram[j]
        least[:] = np.inf
        for start in range(0, n, LANES):
            o = np.uintp(start)
            for k in range(np.uintp(LANES)):
                value = gradient[o + k] + step * (np.float64(row_i[o + k]) - np.float64(row_j[o + k]))
                gradient[o + k] = value
                value += rise[o + k]
                least[k] = value if value < least[k] else least[k]
        lane = int(np.argmin(least))
        i, first = lane, least[lane]
        while gradient[i] + rise[i] != first:
            i += LANES
        row_i, own = gram[i], diagonal[i]
        most[:] = zero
        for start in range(0, n, LANES):
            o = np.uintp(start)
            for k in range(np.uintp(LANES)):
                slope = np.float32(gradient[o + k] - first) + fall[o + k]
                slope = slope if slope > zero else zero
                bend = own + diagonal[o + k] - np.float32(2) * row_i[o + k]
                gain = slope * slope / (bend if bend > tiny else tiny)
                most[k] = gain if gain > most[k] else most[k]
        lane = int(np.argmax(most))
        j, best = lane, -1.0
        for k in range(lane, n, LANES):
            slope = gradient[k] - first + fall[k]
            bend = np.float64(own) + diagonal[k] - 2 * np.float64(row_i[k])
            gain = slope * slope / max(bend, 1e-12)
            if slope > 0 and gain > best:
                j, best = k, gain
        if best < 0:
            return count
        if count % 32 == 0:
            gap = 0.0
            for k in range(n):
                gap = max(gap, gradient[k] - first + fall[k])
            if gap < tolerance:
                return count
        step = (gradient[j] - first) / max(np.float64(own) + diagonal[j] - 2 * np.float64(row_i[j]), 1e-12)
        room_i, room_j = high[i] - signed[i], signed[j] - low[j]
        step = min(step, room_i, room_j)
        signed[i] += step
        signed[j] -= step
        for k in (i, j):  # what rounding left of the way to a bound would pass for a free row, and set rho
            near = 1e-12 * (high[k] - low[k])
            signed[k] = high[k] if high[k] - signed[k] <= near else low[k] if signed[k] - low[k] <= near else signed[k]
            rise[k] = 0.0 if signed[k] < high[k] else np.inf
            fall[k] = zero if signed[k] > low[k] else np.float32(-np.inf)
    return steps
