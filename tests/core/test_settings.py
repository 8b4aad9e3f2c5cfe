"""Configuration: unknown keys are refused with the nearest known one, values are checked, differences are merged."""

from pathlib import Path
from typing import Annotated, Literal

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
    with pytest.raises(ConfigurationError, match=r"`name` must be text, got `none`; its default is `x`"):
        resolve(Outer, parse_override("name=none"))


def test_nothing_in_place_of_a_default_is_written_and_read(tmp_path: Path) -> None:
    class Whole(Settings):
        choice: Choice = Choice()
        rest: int | None = None
        """Nothing, as its default is: it needs no line."""

    given, file = Whole(choice=Choice(kind="none", limit=None)), tmp_path / "a.toml"
    file.write_text(write_toml(given))
    assert resolve(Whole, read_toml(file)) == given
    assert "rest" not in file.read_text()


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"`inner.rat` is not an option; did you mean `inner.rate`\?"):
        resolve(Outer, {"inner": {"rat": 2}})


def test_key_in_the_wrong_group_is_found() -> None:
    with pytest.raises(ConfigurationError, match=r"`rate` is not an option; did you mean `inner.rate`\?"):
        resolve(Outer, {"rate": 2})


@pytest.mark.parametrize("value", [-1, 0, "fast", float("nan")])
def test_impossible_value(value: object) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^`inner.rate` must be a (finite )?number, above 0, got `(-1|0|fast|nan)`; its default is `0.1`$"
    ):
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
        ("name", "x", "A name.", "text"),
        ("inner.rate", 0.1, "How fast.", "a number, above 0"),
        ("inner.limit", None, "How far.", "a whole number or none"),
    ]
    assert [option.may_be for option in options(Choice)] == ["some, none", "a whole number or none"]


class Kinds(Settings):
    word: Literal["left", "right"] | None = None
    """A word or nothing."""
    pair: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.5, 0.25)
    """Two of a kind."""
    texts: tuple[str, ...] = ()
    """Any number."""
    shares: dict[str, float] | None = None
    """By name."""
    name: str = Field("a", examples=["a", "b"])
    """Some names are known."""
    yes: bool | None = None
    """Or no."""
    size: int = Field(3, ge=1, le=10_000)
    """How large."""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("word=lift", "`word` must be one of left, right, or none, got `lift`; did you mean `left`?"),
        ("pair=[0.5, 1.5]", "`pair` must be 2 numbers, each at least 0 and below 1, got `1.5` at `pair.1`; its default is `[0.5, 0.25]`"),
        ("pair=3", "`pair` must be 2 numbers, each at least 0 and below 1, got `3`; its default is `[0.5, 0.25]`"),
        ("texts=3", "`texts` must be a list of texts, got `3`; its default is `[]`"),
        ("shares={h = 'x'}", "`shares` must be numbers by name or none, got `x` at `shares.h`"),
        ("name=true", "`name` must be one of a, b, got `true`; its default is `a`"),
        ("yes=perhaps", "`yes` must be true or false, or none, got `perhaps`"),
        ("size=1.5", "`size` must be a whole number, at least 1 and at most 10,000, got `1.5`; its default is `3`"),
    ],
)
def test_what_must_be_is_said_in_plain_words(text: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve(Kinds, parse_override(text))
    assert str(caught.value) == sentence


def test_a_text_may_look_like_a_number() -> None:
    assert resolve(Outer, parse_override("name=4")).name == "4"


def test_a_group_is_no_value() -> None:
    with pytest.raises(ConfigurationError, match=r"^`inner` is a group of options, got `3`; set one of them, such as `inner.rate`$"):
        resolve(Outer, {"inner": 3})


def test_words_are_read_in_any_case() -> None:
    assert resolve(Choice, parse_override("kind=SOME")).kind == "some"
    assert resolve(Kinds, parse_override("word=Left")).word == "left"
    with pytest.raises(ConfigurationError, match="`Other`"):
        resolve(Choice, parse_override("kind=Other"))
