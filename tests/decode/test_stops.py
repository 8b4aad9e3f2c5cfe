"""Stop strings against a naive search, however the text is cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unrolled.core.errors import ConfigurationError
from unrolled.decode import StopStrings

texts = st.text(alphabet="ab\n", max_size=12)
stop_lists = st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=3)


def naive(text: str, stops: list[str]) -> tuple[str, bool]:
    """The shortest beginning that ends in a stop string, without the longest such."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


def streamed(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    stream, printed = StopStrings(stops), ""
    for piece in pieces:
        printed += stream.push(piece)
    return printed + stream.flush(), stream.finished


@given(texts.filter(lambda text: len(text) <= 8), stop_lists)
def test_every_chunking_agrees_with_a_naive_search(text: str, stops: list[str]) -> None:
    for cuts in itertools.product([False, True], repeat=max(len(text) - 1, 0)):
        pieces = [text[:1]]
        for cut, letter in zip(cuts, text[1:], strict=True):
            pieces = [*pieces, letter] if cut else [*pieces[:-1], pieces[-1] + letter]
        assert streamed(pieces, stops) == naive(text, stops)


@given(texts, stop_lists)
def test_nothing_of_a_stop_is_printed_and_nothing_more_is_held_than_must_be(text: str, stops: list[str]) -> None:
    stream, printed = StopStrings(stops), ""
    for end, letter in enumerate(text, 1):
        printed += stream.push(letter)
        if stream.finished:
            break
        held = text[len(printed) : end]
        assert printed + held == text[:end]
        begins = {text[at:end] for at in range(end) if any(stop.startswith(text[at:end]) for stop in stops)}
        assert held == max(begins, key=len, default="")
    assert naive(text, stops)[0].startswith(printed)


def test_after_the_stop_nothing_comes() -> None:
    stream = StopStrings(["END"])
    assert [stream.push("one E"), stream.push("N"), stream.push("D two"), stream.push("three"), stream.flush()] == ["one ", "", "", "", ""]
    assert stream.finished


def test_one_string_is_one_stop_and_empty_pieces_pass() -> None:
    stream = StopStrings("ab")
    assert [stream.push("a"), stream.push(""), stream.push("c")] == ["", "", "ac"]


def test_an_empty_stop_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match="a stop string must have at least one character, got an empty one; leave it out for no stop"
    ):
        StopStrings(["x", ""])
