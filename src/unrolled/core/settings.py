"""Configuration: frozen models that refuse unknown keys, TOML files of differences, and `key=value` on the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo

from unrolled.core.errors import ConfigurationError, nearest

Differences = dict[str, Any]
"""Nested dictionaries that hold only what differs from the defaults."""


class Settings(BaseModel):
    """A group of options: each field has a default, a type that is checked, and a sentence that says what it does."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=False, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _none_may_be_a_choice(cls, given: Any) -> Any:
        # `--set key=none` is read before anyone knows what the key may be: where `none` is one of its words, that was meant.
        if not isinstance(given, dict):
            return given
        return {name: cls._word(name, value) for name, value in given.items()}

    @classmethod
    def _word(cls, name: str, value: Any) -> Any:
        words = cls._words(name)
        if value is None and "none" in words:
            return "none"
        return value.lower() if isinstance(value, str) and value.lower() in words else value

    @classmethod
    def _words(cls, name: str) -> tuple[Any, ...]:
        field = cls.model_fields.get(name)
        return () if field is None else get_args(field.annotation)


Group = TypeVar("Group", bound=Settings)


def resolve(group: type[Group], differences: Mapping[str, Any]) -> Group:
    """Check differences against a settings class.

    Args:
        group: the class.
        differences: what differs from its defaults, nested.

    Returns:
        The full settings.

    Raises:
        ConfigurationError: an unknown key (the nearest known one is named) or a value that cannot be.
    """
    try:
        return group.model_validate(differences)
    except ValidationError as error:
        raise ConfigurationError(_sentence(group, error)) from None


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Differences:
    """Lay `changes` over `base`, group by group.

    Args:
        base: differences.
        changes: later differences, which win.

    Returns:
        Both in one.
    """
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def parse_override(text: str) -> Differences:
    """Read one `group.key=value`; the value is TOML (`3`, `0.5`, `true`, `[1, 2]`) or else plain text.

    Args:
        text: as written on the command line.

    Returns:
        The nested difference.

    Raises:
        ConfigurationError: there is no `=` or no key.
    """
    key, equals, value = text.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise ConfigurationError(f"`--set` must be given as `group.key=value`, got `{text}`; try `--set train.minutes=3`")
    nested: Any = _read_value(value.strip())
    for name in reversed(names):
        nested = {name: nested}
    return nested


def _read_value(text: str) -> Any:
    if text.lower() in ("none", "null"):
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def combine(files: Iterable[Path], overrides: Iterable[str]) -> Differences:
    """Lay configuration files and overrides over each other in their order.

    Args:
        files: TOML files of differences.
        overrides: `key=value` texts.

    Returns:
        All differences.
    """
    found: Differences = {}
    for file in files:
        found = merge(found, read_toml(file))
    for text in overrides:
        found = merge(found, parse_override(text))
    return found


def read_toml(path: Path) -> Differences:
    """Read a TOML file.

    Args:
        path: the file.

    Returns:
        Its tables, nested.

    Raises:
        ConfigurationError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"the configuration file `{path}` cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"`{path}` must be a TOML file: {error}") from None


def write_toml(settings: Settings) -> str:
    """All settings as TOML; what is `None` has no line.

    Args:
        settings: any group.

    Returns:
        The text of the file.
    """
    return tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True))


class Option(NamedTuple):
    """One key of a configuration, for tables and help."""

    key: str
    default: Any
    what: str
    """The sentence that explains it."""
    may_be: str
    """The words or the range it may have; empty where the type says it all."""


def options(group: type[Settings], prefix: str = "") -> Iterator[Option]:
    """Every option below a settings class, for tables and help.

    Args:
        group: the class.
        prefix: put before every key.

    Yields:
        The options in their order.
    """
    for name, field in group.model_fields.items():
        below = _group_of(field.annotation)
        if below is not None:
            yield from options(below, f"{prefix}{name}.")
        else:
            default = field.get_default(call_default_factory=True)
            yield Option(prefix + name, default, " ".join((field.description or "").split()), _may_be(field))


BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
"""The words for what bounds a number."""


def _may_be(field: FieldInfo) -> str:
    """The words a field may have, or the range of its numbers."""
    words = [
        str(word) for part in (field.annotation, *get_args(field.annotation)) if get_origin(part) is Literal for word in get_args(part)
    ]
    if words or field.examples:
        return ", ".join(words or [str(one) for one in field.examples or []])
    bounds = ((word, getattr(one, name, None)) for one in field.metadata for name, word in BOUNDS.items())
    return ", ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)


def _group_of(annotation: Any) -> type[Settings] | None:
    candidates = (annotation, *get_args(annotation))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, Settings)), None)


def _sentence(group: type[Settings], error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = [str(part) for part in first["loc"]]
    key = ".".join(place)
    if first["type"] == "extra_forbidden":
        return f"`{key}` is not an option; {_nearest_key(group, place)}"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if first["type"] == "value_error":
        return f"`{key}`: {message}" if key else message
    return f"`{key}` {message}, got {first['input']!r}"


def _nearest_key(group: type[Settings], place: Sequence[str]) -> str:
    known = [option.key for option in options(group)]
    full = ".".join(place)
    same_name = [key for key in known if key.split(".")[-1] == place[-1]]
    if same_name:
        return f"did you mean `{same_name[0]}`?"
    siblings = [key for key in known if key.startswith(".".join(place[:-1]))]
    return nearest(full, siblings or known)
