"""Configuration: unknown keys are refused with the nearest known one, values are checked, differences are merged."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from unrolled.core.errors import ConfigurationError
from unrolled.core.settings import Settings, combine, merge, options, parse_override, read_toml, resolve, write_toml


class Inner(Settings):
    rate: float = Field(0.1, gt=0)
    """How fast."""
    limit: int | None = None
    """How far."""


class Outer(Settings):
    name: str = "x"
    """A name."""
    inner: Inner = Inner()


def test_defaults_and_differences() -> None:
    assert resolve(Outer, {"inner": {"rate": 2}}).inner.rate == 2.0


class Choice(Settings):
    kind: Literal["some", "none"] = "some"
    """One of the words may be `none`."""
    limit: int | None = 3
    """Nothing at all may be a value."""


def test_none_is_a_word_where_it_is_a_choice() -> None:
    assert resolve(Choice, merge(parse_override("kind=none"), parse_override("limit=none"))) == Choice(kind="none", limit=None)
    with pytest.raises(ConfigurationError, match=r"`name` should be a valid string, got None"):
        resolve(Outer, parse_override("name=none"))


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"`inner.rat` is not an option; did you mean `inner.rate`\?"):
        resolve(Outer, {"inner": {"rat": 2}})


def test_key_in_the_wrong_group_is_found() -> None:
    with pytest.raises(ConfigurationError, match=r"`rate` is not an option; did you mean `inner.rate`\?"):
        resolve(Outer, {"rate": 2})


@pytest.mark.parametrize("value", [-1, 0, "fast", float("nan")])
def test_impossible_value(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^`inner.rate` should be .*, got "):
        resolve(Outer, {"inner": {"rate": value}})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=3", 3),
        ("a.b=1e-3", 1e-3),
        ("a.b=true", True),
        ("a.b=none", None),
        ("a.b=gru", "gru"),
        ("a.b=[1, 2]", [1, 2]),
        ("a.b='3'", "3"),
        ("a.b=x=y", "x=y"),
    ],
)
def test_overrides(text: str, value: object) -> None:
    assert parse_override(text) == {"a": {"b": value}}


@pytest.mark.parametrize("text", ["a.b", "=3", "a..b=3"])
def test_override_without_a_key_or_value(text: str) -> None:
    with pytest.raises(ConfigurationError, match="`--set` must be given as `group.key=value`"):
        parse_override(text)


def test_later_differences_win(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("name = 'file'\n[inner]\nrate = 3.0\nlimit = 4\n")
    assert combine([file], ["inner.rate=5"]) == {"name": "file", "inner": {"rate": 5, "limit": 4}}
    assert merge({"a": {"b": 1}}, {"a": 2}) == {"a": 2}


def test_written_settings_read_back(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    settings = resolve(Outer, {"inner": {"rate": 0.25}})
    file.write_text(write_toml(settings))
    assert resolve(Outer, read_toml(file)) == settings


def test_broken_and_missing_files(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("name = ")
    with pytest.raises(ConfigurationError, match="must be a TOML file"):
        read_toml(file)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_toml(tmp_path / "b.toml")


def test_the_table_of_options_has_every_sentence() -> None:
    assert list(options(Outer)) == [
        ("name", "x", "A name.", ""),
        ("inner.rate", 0.1, "How fast.", "above 0"),
        ("inner.limit", None, "How far.", ""),
    ]
    assert [option.may_be for option in options(Choice)] == ["some, none", ""]


def test_words_are_read_in_any_case() -> None:
    assert resolve(Choice, parse_override("kind=SOME")).kind == "some"
    with pytest.raises(ConfigurationError, match="'Other'"):
        resolve(Choice, parse_override("kind=Other"))
