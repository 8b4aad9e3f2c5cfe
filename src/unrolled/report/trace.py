"""What all traces have in common: how they are checked, and how their texts are made to be seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from unrolled.core.errors import DataError, nearest

UNSEEN = str.maketrans({"\n": "↵", "\r": "␍", "\t": "⇥", " ": "␣", "\u00a0": "␣", "\u200b": "∅", "\ufeff": "∅"})


class Part(BaseModel):
    """A part of a trace: all keys are needed, none other is known."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


Whole = TypeVar("Whole", bound=Part)


def checked(form: type[Whole], trace: dict[str, Any], parts: Sequence[type[Part]]) -> Whole:
    """Check the form of a trace.

    Args:
        form: the trace as a whole.
        trace: what JSON knows.
        parts: all that it is made of.

    Returns:
        The same with names.

    Raises:
        DataError: a key is missing or unknown, or its value cannot be.
    """
    try:
        return form.model_validate(trace)
    except ValidationError as error:
        raise DataError(_sentence(error, {*form.model_fields, *(name for part in parts for name in part.model_fields)})) from None


def _sentence(error: ValidationError, known: set[str]) -> str:
    first = error.errors(include_url=False)[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"`{key}` must be in the trace, and it is not there; write the trace again with this version"
    if first["type"] == "extra_forbidden":
        return f"`{key}` is not known in a trace; {nearest(str(first['loc'][-1]), known)}"
    must = first["msg"].removeprefix("Input should ")
    return f"`{key or 'trace'}` of the trace must {must}, got {first['input']!r:.80}; write the trace again with this version"


def finite(value: float | None) -> float | None:
    """A number that can be drawn.

    Args:
        value: any.

    Returns:
        `None` for what is no number.
    """
    return value if value is not None and math.isfinite(value) else None


def visible(symbol: str) -> str:
    """A symbol that can be seen, blanks and all.

    Args:
        symbol: any text.

    Returns:
        At least one character.
    """
    return clean(symbol).translate(UNSEEN) or "∅"


def clean(text: str) -> str:
    """Text that can be written: half of a surrogate pair cannot.

    Args:
        text: any.

    Returns:
        The same without such halves.
    """
    return text.encode("utf-8", errors="replace").decode("utf-8")
