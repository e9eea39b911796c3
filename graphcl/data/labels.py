"""Labels of data of one's own: classes by number or by name, values, and what is unknown."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

UNKNOWN = {"", "nan", "na", "n/a", "null", "none"}  # texts, without case, that stand for no label


def label_array(values: np.ndarray, where: str) -> Tensor:
    """[N] or [N, T]: int64 classes from 0, -1 unknown, or float32 values, NaN unknown."""
    if values.ndim not in (1, 2) or values.dtype.kind not in "fiub":
        raise ValueError(f"{where} must be numbers [N] or [N, T], got {values.dtype} {values.shape}")
    if values.dtype.kind == "f":
        if np.isinf(values).any():
            raise ValueError(f"{where} has infinite values; NaN stands for unknown")
        return torch.from_numpy(values.astype(np.float32))
    if values.dtype.kind == "i" and values.min(initial=0) < -1:
        raise ValueError(f"{where} has the class {values.min()}; classes count from 0, -1 is unknown")
    return torch.from_numpy(values.astype(np.int64))


def label_text(value: Any, where: str) -> str:
    """The label that a NetworkX graph has, as text; empty if it has none."""
    if value is None:
        return ""
    if not isinstance(value, str | int | float | np.generic):
        raise ValueError(
            f"{where}: its attribute y is {value!r:.60}; it must be one number or text, else give y= [B, T]"
        )
    return str(value)


def targets(texts: Sequence[str], where: str) -> Tensor:
    """Labels from text: whole numbers are classes, other numbers values, anything else classes by name.

    An empty text, nan, NA, N/A, null and none are unknown, and so is -1 among classes.
    """
    given = ["" if text.strip().lower() in UNKNOWN else text.strip() for text in texts]
    try:
        values = np.array([plain_float(text) if text else np.nan for text in given])
        whole = np.where(np.isnan(values), -1, values)
        finite = bool(np.isfinite(whole).all())
        if finite and np.abs(whole).max(initial=0) >= 2**53:  # there float64 makes one of two numbers
            raise ValueError
    except ValueError:
        _tell_of_minus(given, where)
        names = {text: i for i, text in enumerate(sorted(set(given) - {"", "-1"}))}
        return torch.tensor([names.get(text, -1) for text in given])
    if finite and (whole == np.round(whole)).all():
        if not any("." in text for text in given):
            _tell_of_minus(given, where)
            return label_array(whole.astype(np.int64), where)
        warnings.warn(f"{where}: the labels are read as values; write classes as 1, not as 1.0", stacklevel=3)
    return label_array(values, where)


def _tell_of_minus(given: Sequence[str], where: str) -> None:
    if number := given.count("-1"):
        warnings.warn(
            f"{where}: {number} of {len(given)} labels are -1, which means unknown; if it is a class, write the "
            "classes as 0, 1, 2 ... or as names",
            stacklevel=4,
        )


def plain_float(text: str) -> float:
    """The number, or a ValueError."""
    if "_" in text:  # Python would read 1_0 as 10
        raise ValueError(text)
    return float(text)
