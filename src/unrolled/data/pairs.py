"""Parallel text: two files of lines, a table of two columns, or JSON lines; with one clear sentence for everything that does not pair."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Integer

from unrolled.core.errors import DataError
from unrolled.data.text import text_lines

COMPARED = 20_000
"""Pairs of each part that `suspected_swap` looks at."""
SIDES = ("sources", "targets")
CLEARLY = 0.25
"""How much more of the words must be known crosswise, as a share of them."""


@dataclass(frozen=True)
class Pairs:
    """Sentences and what each shall become."""

    sources: list[str]
    targets: list[str]
    files: tuple[str, str]
    """Where sources and targets were read; the same file twice for a table or JSON lines."""
    lines: Sequence[int]
    """The line of each pair in its files, counted from 1."""

    def __len__(self) -> int:
        return len(self.sources)

    def source_place(self, pair: SupportsIndex) -> str:
        """Where a source stands, for a message.

        Args:
            pair: its place here.

        Returns:
            Such as `` `train.en`, line 7 ``.
        """
        return f"`{self.files[0]}`, line {self.lines[int(pair)]}"

    def target_place(self, pair: SupportsIndex) -> str:
        """Where a target stands, for a message.

        Args:
            pair: its place here.

        Returns:
            Such as `` `train.de`, line 7 ``.
        """
        return f"`{self.files[1]}`, line {self.lines[int(pair)]}"

    def select(self, rows: Iterable[int] | Integer[np.ndarray, " rows"]) -> Pairs:
        """Some of the pairs, which keep their lines.

        Args:
            rows: their places here, in any order.

        Returns:
            Those pairs.
        """
        rows = [int(row) for row in rows]
        chosen = [[column[row] for row in rows] for column in (self.sources, self.targets)]
        return Pairs(chosen[0], chosen[1], self.files, [self.lines[row] for row in rows])


def read_pairs(paths: Sequence[str | Path], *, keys: tuple[str, str] = ("source", "target")) -> Pairs:
    """The pairs of two text files (one sentence a line each), of one `.tsv` file, or of one `.jsonl` file, each plain or `.gz`.

    Only what ends a line is taken off; white space inside is kept. A table has no quotes: a `"` is a `"`.

    Args:
        paths: the file of the sources and the file of the targets, or the one file with both.
        keys: what the source and the target are called in JSON lines.

    Returns:
        The pairs in the order of the files.

    Raises:
        DataError: a file cannot be used, is of an unknown form, the lines do not pair, or one of a pair is empty.
    """
    names = [str(path) for path in paths]
    forms = [_form(name) for name in names]
    if len(names) == 2 and forms == [None, None]:
        return _two_files(names[0], names[1])
    if len(names) == 1 and forms[0] is not None:
        return _one_file(names[0], FORMS[forms[0]], keys)
    found = ", ".join(f"`{name}`" for name in names) or "none"
    raise DataError(
        "pairs must be two text files (sources, targets; a sentence a line), one `.tsv` file (two columns) or one `.jsonl` file, "
        f"got {found}; try naming the file of the targets as well, or renaming a table to `.tsv`"
    )


def suspected_swap(train: Pairs, valid: Pairs) -> str | None:
    """Whether the validation pairs look as if sources and targets were exchanged, by the words that they share with the training.

    Args:
        train: the pairs to train on.
        valid: the pairs to validate on.

    Returns:
        A sentence to warn with, `None` where all looks well or nothing can be told.
    """
    known = [_words(column) for column in (train.sources, train.targets)]
    asked = [_words(column) for column in (valid.sources, valid.targets)]
    straight = [_known(words, own) for words, own in zip(asked, known, strict=True)]
    crossed = [_known(words, other) for words, other in zip(asked, reversed(known), strict=True)]
    if sum(crossed) - sum(straight) < 2 * CLEARLY:
        return None
    side = 0 if crossed[0] - straight[0] > crossed[1] - straight[1] else 1
    own, other = SIDES[side], SIDES[1 - side]
    return (
        f"sources and targets of the validation look exchanged: of the words in its {own} (`{valid.files[side]}`) {crossed[side]:.0%} are known "
        f"from the {other} of the training and {straight[side]:.0%} from the {own}; try giving the two files the other way round"
    )


def _form(name: str) -> str | None:
    return next((suffix for suffix in FORMS if name.lower().removesuffix(".gz").endswith(suffix)), None)


def _two_files(source: str, target: str) -> Pairs:
    columns = [list(text_lines(name)) for name in (source, target)]
    if len(columns[0]) != len(columns[1]):
        counts = f"got {len(columns[0]):,} in `{source}` and {len(columns[1]):,} in `{target}`"
        raise DataError(f"sources and targets must be as many lines, {counts}; {_advice(columns, (source, target))}")
    pairs = Pairs(columns[0], columns[1], (source, target), range(1, len(columns[0]) + 1))
    _refuse_empty(pairs)
    return pairs


def _advice(columns: list[list[str]], names: tuple[str, str]) -> str:
    for number, texts in enumerate(zip(*columns, strict=False), 1):
        empty = [not text.strip() for text in texts]
        if empty[0] != empty[1]:
            side = empty.index(True)
            return f"the first line that is empty on one side only is line {number} of `{names[side]}`; try looking there"
    return "no line is empty on one side only, so the end of one file seems to be missing; try fetching both again"


def _one_file(path: str, split: Callable[[str, str, tuple[str, str]], tuple[str, str]], keys: tuple[str, str]) -> Pairs:
    sources, targets = [], []
    for number, line in enumerate(text_lines(path), 1):
        if not line.strip():
            raise DataError(f"every line must hold a pair, got an empty line in `{path}`, line {number}; try removing it")
        source, target = split(line, f"`{path}`, line {number}", keys)
        sources.append(source)
        targets.append(target)
    pairs = Pairs(sources, targets, (path, path), range(1, len(sources) + 1))
    _refuse_empty(pairs)
    return pairs


def _columns(line: str, place: str, keys: tuple[str, str]) -> tuple[str, str]:
    columns = line.split("\t")
    if len(columns) != 2:
        found = "1 column" if len(columns) == 1 else f"{len(columns)} columns"
        raise DataError(f"a table of pairs must have two columns with one tab between them, got {found} in {place}; try mending that line")
    return columns[0], columns[1]


def _fields(line: str, place: str, keys: tuple[str, str]) -> tuple[str, str]:
    wanted = f"a JSON object with the texts `{keys[0]}` and `{keys[1]}`"
    try:
        content: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"every line must be {wanted}, but {place}, is no JSON ({error}); try mending that line") from None
    if not isinstance(content, dict):
        raise DataError(f"every line must be {wanted}, got another value in {place}; try an object")
    for key in keys:
        if not isinstance(content.get(key), str):
            found = "no text under it" if key in content else "only " + (", ".join(f"`{k}`" for k in content) or "an empty object")
            raise DataError(
                f"every line must be {wanted}, got {found} in {place} (`{key}` is wanted); try naming the keys that the file has"
            )
        if "\n" in content[key]:
            raise DataError(f"a text must be one line, got a line break in `{key}` of {place}; try a space in its place")
    return content[keys[0]], content[keys[1]]


FORMS: Mapping[str, Callable[[str, str, tuple[str, str]], tuple[str, str]]] = MappingProxyType({".tsv": _columns, ".jsonl": _fields})
"""How a line of a file that holds both sides is split, by the end of the file's name (before `.gz`)."""


def _refuse_empty(pairs: Pairs) -> None:
    for number, (source, target) in enumerate(zip(pairs.sources, pairs.targets, strict=True)):
        if not source.strip() or not target.strip():
            side = "source and target are" if not source.strip() and not target.strip() else "target is" if source.strip() else "source is"
            place = pairs.target_place(number) if source.strip() else pairs.source_place(number)
            also = f" (and `{pairs.files[1]}`)" if side.startswith("source and") and pairs.files[0] != pairs.files[1] else ""
            raise DataError(f"every pair must have text on both sides, but the {side} empty in {place}{also}; try removing that pair")


def _words(texts: list[str]) -> set[str]:
    return set(chain.from_iterable(text.split() for text in texts[:COMPARED]))


def _known(words: set[str], vocabulary: set[str]) -> float:
    return len(words & vocabulary) / max(len(words), 1)
