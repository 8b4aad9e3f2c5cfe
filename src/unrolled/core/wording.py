"""What a value may be, in plain words: for help, tables of options, and sentences about a value that cannot be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

ONE: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
"""A value of each type."""
SEVERAL: dict[Any, str] = {int: "whole numbers", float: "numbers", str: "texts", Path: "paths"}
"""Several of them."""
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
"""The words for what bounds a number."""


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, or the only one.

    Args:
        annotation: of a field.

    Returns:
        At least one.
    """
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def choices(annotation: Any) -> tuple[Any, ...]:
    """The words that a field may have.

    Args:
        annotation: of the field.

    Returns:
        Those of its literal types; none where it is of another kind.
    """
    return tuple(word for part in alternatives(annotation) if get_origin(part) is Literal for word in get_args(part))


def kind(annotation: Any, bounds: Sequence[Any] = (), examples: Sequence[Any] = ()) -> str:
    """What a value may be.

    Args:
        annotation: its type.
        bounds: what bounds a number, each with one of `BOUNDS` as attribute.
        examples: words that stand for a text.

    Returns:
        Such as `a whole number, at least 1, or none`.
    """
    parts = [part for part in alternatives(annotation) if part is not NoneType]
    words = choices(annotation) or examples
    said = ", ".join(str(word) for word in words) if words else " or ".join(map(_one, parts))
    limits = " and ".join(_limits(bounds))
    said += f", {limits}" if limits else ""
    optional = NoneType in alternatives(annotation)
    return said + (", or none" if limits or words or " or " in said else " or none") * optional


def kind_of(field: FieldInfo) -> str:
    """What a field of a configuration may be.

    Args:
        field: of a settings class.

    Returns:
        Plain words.
    """
    return kind(field.annotation, field.metadata, field.examples or ())


def written(value: Any) -> str:
    """A value as a person writes it after `--set KEY=`.

    Args:
        value: of an option.

    Returns:
        Text.
    """
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _one(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is dict:
        # A value that may be one or several is told as several, as others are.
        return f"{_several(alternatives(parts[1])[0])} by name"
    if origin is tuple and parts[-1] is not Ellipsis:
        return f"{len(parts)} {_several(parts[0])}"
    if origin in (tuple, list):
        return f"a list of {_several(parts[0])}"
    return ONE.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _several(annotation: Any) -> str:
    inner, metadata = getattr(annotation, "__origin__", annotation), getattr(annotation, "__metadata__", ())
    field = next((one for one in metadata if isinstance(one, FieldInfo)), None)
    limits = " and ".join(_limits(field.metadata if field else ()))
    return SEVERAL.get(inner, str(inner)) + (f", each {limits}" if limits else "")


def _limits(bounds: Sequence[Any]) -> Iterator[str]:
    for bound in bounds:
        for name, words in BOUNDS.items():
            limit = getattr(bound, name, None)
            if limit is not None:
                yield f"{words} {limit:,}" if isinstance(limit, int) else f"{words} {limit:g}"
