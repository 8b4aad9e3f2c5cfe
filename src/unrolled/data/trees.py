"""Trees of the Stanford Sentiment Treebank (Socher et al. 2013): a sentence a line in brackets, a label from 0 to 4 on every phrase."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from unrolled.core.errors import DataError

PIECE = re.compile(r"\([ \t]*([0-4])(?=[ \t(])|\)|([^() \t]+)|\(")
"""A bracket with a label, a closing bracket, or a word; other white space than blanks and tabs, such as a no-break space, belongs to a word."""
ESCAPED = MappingProxyType({"-LRB-": "(", "-RRB-": ")"})
BINARY: Mapping[str, str | None] = MappingProxyType({"0": "negative", "1": "negative", "2": None, "3": "positive", "4": "positive"})
"""What the five labels become where only two are wanted; `None` is left out."""


class Phrase(NamedTuple):
    """Some words of a sentence and their label."""

    text: str
    label: str


def tree_phrases(line: str, place: str) -> list[Phrase]:
    r"""The phrases of a tree, the whole sentence first, then in the order of their first brackets.

    Brackets in the text (`-LRB-`) and escaped strokes (`\/`, `\*`) become what they stand for.

    Args:
        line: one tree, such as `(3 (2 It) (4 works))`.
        place: where it stands, for a message.

    Returns:
        The phrases; a single word is one as well.

    Raises:
        DataError: it is no such tree.
    """
    words: list[str] = []
    phrases: list[tuple[str, int, int]] = []  # label, first word, word after the last
    opened: list[int] = []  # the phrases whose end is not reached
    for piece in PIECE.finditer(line):
        label, word = piece.groups()
        if piece[0] == "(":
            raise _no_tree("a bracket without a label", place)
        if not opened and (phrases or label is None):
            raise _no_tree(f"`{piece[0]}` outside of the brackets", place)
        if label is not None:
            opened.append(len(phrases))
            phrases.append((label, len(words), len(words)))
        elif word is not None:
            words.append(ESCAPED.get(word, word).replace("\\/", "/").replace("\\*", "*"))
        else:
            label, first, _ = phrases[opened[-1]]
            if first == len(words):
                raise _no_tree("a phrase without words", place)
            phrases[opened.pop()] = (label, first, len(words))
    if opened or not phrases:
        raise _no_tree(f"{len(opened)} brackets that are not closed" if opened else "no bracket", place)
    return [Phrase(" ".join(words[first:stop]), label) for label, first, stop in phrases]


def _no_tree(found: str, place: str) -> DataError:
    return DataError(
        f"every line must be a tree with labels from 0 to 4, such as `(3 (2 It) (4 works))`, got {found} in {place}; try mending that line"
    )
