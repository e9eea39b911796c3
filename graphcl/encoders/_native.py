"""A counting sort for the CPU, compiled by numba at first use; without numba, torch and numpy do the same."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np


@cache
def native() -> Any:
    """The compiled `group`; None without numba."""
    try:
        from numba import njit
    except ImportError:
        return None
    try:
        return njit(cache=True, nogil=True)(group)
    except RuntimeError:  # no folder that a cache may be written to: compiled again in every process
        return njit(nogil=True)(group)


def group(keys, pointer, order):
    """Places [E] of the keys [E] in ascending order, equal ones in their old order, and where each key starts [n + 1].

    pointer comes in as zeros. Returns whether the keys were in order; then `order` is not written.
    """
    in_order, before = True, 0
    # Places are unsigned: of every signed index numba asks whether it counts from the end.
    for e in range(len(keys)):
        key = keys[e]
        in_order &= key >= before
        before = key
        pointer[np.uintp(key) + np.uintp(1)] += 1
    for i in range(1, len(pointer)):
        pointer[np.uintp(i)] += pointer[np.uintp(i - 1)]
    if not in_order:
        place = pointer[:-1].copy()
        for e in range(len(keys)):
            key = np.uintp(keys[e])
            order[np.uintp(place[key])] = e
            place[key] += 1
    return in_order
