"""What the config models share: strictness, ranges, and the error that names a mistake."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Rate = Annotated[float, Field(ge=0, le=1)]
Momentum = Annotated[float, Field(ge=0, le=1)]


class ConfigError(ValueError):
    """A mistake in a config or an override; the message names the place, the value and the way out."""


def near(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'grace'?` or nothing."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


class Strict(BaseModel):
    """Frozen, and refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())
