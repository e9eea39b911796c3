"""What the config models share: strictness, ranges, and the error that names a mistake."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Rate = Annotated[float, Field(ge=0, le=1)]
Momentum = Annotated[float, Field(ge=0, le=1)]


class ConfigError(ValueError):
    """A mistake in a config or an override; the message names the place, the value and the way out."""


def near(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'grace'?` or nothing."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


class Strict(BaseModel):
    """Frozen, and refuses keys that it does not know, and true and false where numbers are asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")  # of single fields it is not allowed where `name` chooses the model
    @classmethod
    def _true_is_no_number(cls, values: Any) -> Any:
        for key, value in values.items() if isinstance(values, dict) else ():
            kinds = _kinds(cls.model_fields[key].annotation) if key in cls.model_fields else set()
            if kinds & {int, float} and bool not in kinds and _has_boolean(value):
                what = "should be a number, neither true nor false"
                raise PydanticCustomError("boolean", what, {"key": key, "value": value})
        return values


def _kinds(annotation: Any) -> set[type]:
    """The plain types that an annotation is made of."""
    if isinstance(annotation, type) and not get_args(annotation):
        return {annotation}
    return {kind for inner in get_args(annotation) for kind in _kinds(inner)}


def _has_boolean(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return isinstance(value, bool) or any(map(_has_boolean, inner))
