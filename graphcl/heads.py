"""Projector and predictor: small MLPs that are used in pretraining and left behind after it."""

from __future__ import annotations

from typing import Literal

from torch import nn

_ACTIVATIONS = {"relu": nn.ReLU, "prelu": nn.PReLU, "elu": nn.ELU}


def mlp(
    in_dim: int,
    hidden: int,
    out_dim: int,
    *,
    batch_norm: bool = False,
    activation: Literal["relu", "prelu", "elu"] = "relu",
) -> nn.Sequential:
    """[N, in_dim] -> [N, out_dim] by one hidden layer. GraphCL has ReLU, GRACE ELU, BGRL's predictor PReLU."""
    for name, width in (("in_dim", in_dim), ("hidden", hidden), ("out_dim", out_dim)):
        if width < 1:
            raise ValueError(f"mlp: {name} must be >= 1, got {width!r}")
    if activation not in _ACTIVATIONS:
        raise ValueError(f"mlp: no activation {activation!r}; known: {', '.join(_ACTIVATIONS)}")
    norm = [nn.BatchNorm1d(hidden)] if batch_norm else []
    return nn.Sequential(nn.Linear(in_dim, hidden), *norm, _ACTIVATIONS[activation](), nn.Linear(hidden, out_dim))
