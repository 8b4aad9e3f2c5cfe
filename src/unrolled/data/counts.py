"""Characters and words of a text, so that figures per character and per word can be told for any tokenizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class TextCounts(NamedTuple):
    """What was counted so far, and whether the text broke off inside a word."""

    characters: int = 0
    words: int = 0
    """Runs without white space, counted where they begin."""
    inside_word: bool = False

    def plus(self, text: str) -> TextCounts:
        """The counts after more text, which may go on inside the last word.

        Args:
            text: what follows.

        Returns:
            The counts of all.
        """
        if not text:
            return self
        goes_on = self.inside_word and not text[0].isspace()
        return TextCounts(self.characters + len(text), self.words + len(text.split()) - goes_on, not text[-1].isspace())

    def minus(self, start: TextCounts) -> TextCounts:
        """The counts of what lies after `start`.

        Args:
            start: counts of a beginning of the same text.

        Returns:
            The difference.
        """
        return TextCounts(self.characters - start.characters, self.words - start.words, self.inside_word)


def characters_and_words(chunks: Iterable[str]) -> TextCounts:
    """Count a text of any length.

    Args:
        chunks: its pieces in order.

    Returns:
        The counts of the whole.
    """
    counts = TextCounts()
    for chunk in chunks:
        counts = counts.plus(chunk)
    return counts
