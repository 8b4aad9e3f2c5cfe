"""Configuration: frozen models that refuse unknown keys, TOML files of differences, and `key=value` on the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args, get_origin

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo

from unrolled.core.errors import ConfigurationError, closest, nearest
from unrolled.core.wording import alternatives, choices, kind_of, written

Differences = dict[str, Any]
"""Nested dictionaries that hold only what differs from the defaults."""


class Settings(BaseModel):
    """A group of options: each field has a default, a type that is checked, and a sentence that says what it does."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=False,
        allow_inf_nan=False,
        coerce_numbers_to_str=True,  # `--set data.column=4` is a text that looks like a number
    )

    @model_validator(mode="before")
    @classmethod
    def _read_words(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: cls._word(name, value) for name, value in given.items()}

    @classmethod
    def _word(cls, name: str, value: Any) -> Any:
        """A word in any case; `none`, which `--set` reads as nothing, where it is one of the words, and nothing where it is none of them."""
        field = cls.model_fields.get(name)
        words = () if field is None else choices(field.annotation)
        if value is None and "none" in words:
            return "none"
        parts = () if field is None else alternatives(field.annotation)
        if isinstance(value, str) and value.lower() == "none" and type(None) in parts and str not in parts:
            return None
        return value.lower() if isinstance(value, str) and value.lower() in words else value


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
    """All settings as TOML; what is `None` has no line, unless its default is something else: then the word `none` stands there.

    Args:
        settings: any group.

    Returns:
        The text of the file.
    """
    return tomli_w.dumps(_with_nones(settings))


def _with_nones(settings: Settings) -> Differences:
    found = settings.model_dump(mode="json", exclude_none=True)
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            found[name] = _with_nones(value)
        elif value is None and field.get_default(call_default_factory=True) is not None:
            found[name] = "none"
    return found


class Option(NamedTuple):
    """One key of a configuration, for tables and help."""

    key: str
    default: Any
    what: str
    """The sentence that explains it."""
    may_be: str
    """What it may be, in words."""


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
            yield Option(prefix + name, default, " ".join((field.description or "").split()), kind_of(field))


def _group_of(annotation: Any) -> type[Settings] | None:
    candidates = (annotation, *get_args(annotation))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, Settings)), None)


def _sentence(group: type[Settings], error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = [str(part) for part in first["loc"]]
    key = ".".join(place)
    if first["type"] == "extra_forbidden":
        return f"`{key}` is not an option; {_nearest_key(group, place)}"
    if first["type"] == "value_error":
        message = first["msg"].removeprefix("Value error, ")
        return f"`{key}`: {message}" if key else message
    field = _field_at(group, place)
    given = f"`{written(first['input'])}`"
    if field is None:
        return f"settings must be given by name, got {given}"
    info, rest = field
    key, below = ".".join(place[: len(place) - len(rest)]), _group_of(info.annotation)
    if below is not None:
        return f"`{key}` is a group of options, got {given}; set one of them, such as `{next(options(below, key + '.')).key}`"
    place_in_it = f" at `{'.'.join([key, *_untagged(info.annotation, rest)])}`" if rest else ""
    return f"`{key}` must be {_must_be(info, first['type'])}, got {given}{place_in_it}{_hint(info, first['input'])}"


def _untagged(annotation: Any, rest: Sequence[str]) -> Sequence[str]:
    """A path into a value without the type that pydantic names behind a key whose value may be of several types."""
    united = get_origin(annotation) is dict and len(alternatives(get_args(annotation)[1])) > 1
    return [*rest[:1], *rest[2:]] if united else rest


def _must_be(info: FieldInfo, error_type: str) -> str:
    words = kind_of(info)
    if choices(info.annotation) or info.examples:
        return f"one of {words}"
    return words.replace("a number", "a finite number", 1) if error_type == "finite_number" else words


def _hint(info: FieldInfo, given: Any) -> str:
    close = closest(str(given), map(str, choices(info.annotation)))
    default = info.get_default(call_default_factory=True)
    if close is not None:
        return f"; did you mean `{close}`?"
    return "" if default is None else f"; its default is `{written(default)}`"


class _Place(NamedTuple):
    info: FieldInfo
    rest: Sequence[str]
    """What of the path leads on into the field's value."""


def _field_at(group: type[Settings], place: Sequence[str]) -> _Place | None:
    """The field that a path of names leads to."""
    for at, name in enumerate(place):
        info = group.model_fields.get(name)
        if info is None:
            return None
        below = _group_of(info.annotation)
        if below is None or at + 1 == len(place):
            return _Place(info, place[at + 1 :])
        group = below
    return None


def _nearest_key(group: type[Settings], place: Sequence[str]) -> str:
    known = [option.key for option in options(group)]
    full = ".".join(place)
    same_name = [key for key in known if key.split(".")[-1] == place[-1]]
    if same_name:
        return f"did you mean `{same_name[0]}`?"
    siblings = [key for key in known if key.startswith(".".join(place[:-1]))]
    return nearest(full, siblings or known)
