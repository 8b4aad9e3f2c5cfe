"""Texts with one label each, or several: CSV, TSV, JSON lines, plain lines `LABEL TEXT`, and sentiment trees; and the same without labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from unrolled.core.errors import DataError, nearest
from unrolled.data.rows import csv_rows, duplicated_ids, format_of, json_label, json_object, json_value, one_label_only, place_of
from unrolled.data.text import UTF8, text_lines
from unrolled.data.trees import BINARY, Phrase, tree_phrases


@dataclass(frozen=True)
class TextForm:
    """How a file of labelled texts is written."""

    format: str | None = None
    """One of `FORMATS`, or of `UNLABELLED_FORMATS`; by the end of the file's name where nothing is said."""
    text: str = "text"
    """The name of the column, or the key, of the text."""
    label: str = "label"
    """The name of the column, or the key, of the label."""
    id: str = "id"
    """The name of the column, or the key, of an id; it may be missing."""
    separator: str | None = None
    """What stands between the labels of one text, such as `|`; a text may then have several, or none. A list in JSON lines needs it not."""
    delimiter: str = ","
    """What stands between the columns of a CSV file."""
    phrases: bool = False
    """Trees: whether every phrase is a text, or whole sentences only."""
    binary: bool = False
    """Trees: `negative` (0, 1) and `positive` (3, 4) without the neutral ones, in place of the five labels."""
    encoding: str = UTF8


@dataclass(frozen=True)
class LabelledTexts:
    """Texts and the labels of each."""

    texts: list[str]
    labels: list[tuple[str, ...]]
    """Of each text; no tuple at all where the texts were read without labels."""
    several: bool
    """Whether a text may have any number of labels; else each has one."""
    file: str
    lines: Sequence[int]
    """The line in which each text begins, counted from 1."""
    ids: Sequence[str | None]
    """What the file calls each text, `None` where it does not."""
    whole: Sequence[bool] = ()
    """With phrases of trees, whether each is a whole sentence; empty where all are."""

    def __len__(self) -> int:
        return len(self.texts)

    def place(self, text: int) -> str:
        """Where a text begins, for a message.

        Args:
            text: its place here.

        Returns:
            Such as `` `train.csv`, line 7 ``.
        """
        return place_of(self.file, self.lines[text])

    def select(self, rows: Iterable[int] | Integer[np.ndarray, " rows"]) -> LabelledTexts:
        """Some of the texts, which keep their lines.

        Args:
            rows: their places here, in any order.

        Returns:
            Those texts.
        """
        rows = [int(row) for row in rows]
        labels = [self.labels[row] for row in rows] if self.labels else []
        texts, lines, ids, whole = (
            [column[row] for row in rows] if column else [] for column in (self.texts, self.lines, self.ids, self.whole)
        )
        return LabelledTexts(texts, labels, self.several, self.file, lines, ids, whole)  # type: ignore[arg-type]

    def findings(self) -> list[str]:
        """What can be learnt from but is probably not meant: ids that stand twice, one label only, one text with different labels.

        Returns:
            Sentences to warn with.
        """
        found = duplicated_ids(self.ids, self.lines, self.file) + one_label_only(chain.from_iterable(self.labels), self.file)
        first: dict[str, int] = {}
        differing = []
        for row, (text, labels) in enumerate(zip(self.texts, self.labels, strict=False)):
            if set(labels) != set(self.labels[first.setdefault(text, row)]):
                differing.append((first[text], row))
        if differing:
            one, other = differing[0]
            found.append(
                f"a text should have the same labels wherever it stands, but {len(differing):,} in `{self.file}` have others than before, the "
                f"first in line {self.lines[other]} (before: line {self.lines[one]})"
            )
        return found


def read_texts(path: str | Path, form: TextForm | None = None, *, labelled: bool = True) -> LabelledTexts:
    """The texts of a file with their labels, or without.

    Args:
        path: a file in one of the formats of `FORMATS` (`UNLABELLED_FORMATS` without labels), plain or gzip.
        form: how it is written, where its name does not tell all.
        labelled: whether labels are wanted; if not, they may be missing, and a `.txt` file is a text a line.

    Returns:
        The texts in the order of the file.

    Raises:
        DataError: the file cannot be used, a line is not as the others, a text is empty or has no label, or there is none.
        ConfigurationError: the form names something that does not exist.
    """
    form = form or TextForm()
    known, endings = (FORMATS, ENDINGS) if labelled else (UNLABELLED_FORMATS, UNLABELLED_ENDINGS)
    read = known[format_of(str(path), form.format, known, endings)]
    return _gathered(read(text_lines(path, form.encoding), _Wanted(str(path), form, labelled)), str(path), form)


def texts_of_lines(lines: Iterable[str], form: TextForm | None = None, *, name: str = "<stdin>") -> LabelledTexts:
    """The texts of lines from anywhere, without labels; a text a line where no format is said.

    Args:
        lines: with or without what ends them.
        form: how they are written; its encoding does not count.
        name: what to call them in messages.

    Returns:
        The texts in their order, without labels.

    Raises:
        DataError: a line cannot be read, or there is no text.
        ConfigurationError: the form names something that does not exist.
    """
    form = form or TextForm()
    read = UNLABELLED_FORMATS[format_of(name, form.format or "text", UNLABELLED_FORMATS, UNLABELLED_ENDINGS)]
    return _gathered(read((line.rstrip("\r\n") for line in lines), _Wanted(name, form, False)), name, form)


class _Wanted(NamedTuple):
    file: str
    form: TextForm
    labelled: bool

    def place(self, line: int) -> str:
        return place_of(self.file, line)


class _Text(NamedTuple):
    line: int
    id: str | None
    text: str
    labels: tuple[str, ...] | None
    listed: bool = False
    """Whether the labels stood in a list."""
    part: bool = False
    """Whether it is a part of a text."""


Reader = Callable[[Iterable[str], _Wanted], Iterator[_Text]]


def _gathered(texts: Iterator[_Text], file: str, form: TextForm) -> LabelledTexts:
    found = []
    for one in texts:
        if not one.text.strip():
            raise DataError(f"every text must hold something, got an empty one in {place_of(file, one.line)}; try removing it")
        found.append(one)
    if not found:
        raise DataError(f"`{file}` must hold at least one text, got none; try another file")
    labels = [one.labels for one in found if one.labels is not None]
    several = form.separator is not None or any(one.listed for one in found)
    whole = [not one.part for one in found] if any(one.part for one in found) else []
    return LabelledTexts([one.text for one in found], labels, several, file, [one.line for one in found], [one.id for one in found], whole)


def _labels(value: str, line: int, wanted: _Wanted) -> tuple[str, ...]:
    if wanted.form.separator is None:
        if not value.strip():
            raise DataError(f"every text must have a label, got one without in {wanted.place(line)}; try mending that line")
        return (value.strip(),)
    return tuple(dict.fromkeys(label.strip() for label in value.split(wanted.form.separator) if label.strip()))


# --- CSV and TSV --------------------------------------------------------------------------------------------------------


def _csv(lines: Iterable[str], wanted: _Wanted) -> Iterator[_Text]:
    return _table(csv_rows(lines, wanted.form.delimiter, wanted.file), wanted)


def _tsv(lines: Iterable[str], wanted: _Wanted) -> Iterator[_Text]:
    return _table(((number, line.split("\t")) for number, line in enumerate(lines, 1) if line.strip()), wanted)


def _table(rows: Iterator[tuple[int, list[str]]], wanted: _Wanted) -> Iterator[_Text]:
    number, header = next(rows, (1, []))
    header = [name.strip() for name in header]
    twice = next((name for place, name in enumerate(header) if name and name in header[:place]), None)
    if twice is not None:
        raise DataError(f"columns must have different names, got `{twice}` twice in {wanted.place(number)}; try naming them anew")
    form = wanted.form
    text, label = _columns(header, {"text": form.text} | ({"label": form.label} if wanted.labelled else {}), wanted)
    own = header.index(form.id) if form.id in header else None
    for number, row in rows:
        if len(row) != len(header):
            found = f"got {len(row)} in {wanted.place(number)}"
            raise DataError(f"every row must have {len(header)} columns, as the first line has, {found}; try mending that line")
        labels = _labels(row[label], number, wanted) if wanted.labelled else None
        yield _Text(number, row[own] or None if own is not None else None, row[text], labels)


def _columns(header: list[str], names: Mapping[str, str], wanted: _Wanted) -> list[int]:
    """Where the columns of text and label stand; all that are missing are told at once. (The label is nowhere where none is wanted.)"""
    missing = {option: name for option, name in names.items() if name not in header}
    if not missing:
        return [header.index(names[option]) if option in names else 0 for option in ("text", "label")]
    there = [column for column in header if column]
    told = " and ".join(f"`{name}` (option `data.{option}`)" for option, name in missing.items())
    advice = nearest(next(iter(missing.values())), there) if len(missing) == 1 else f"there are {', '.join(f'`{one}`' for one in there)}"
    if len(header) == 1 and ";" in header[0]:
        advice = "try `data.delimiter=;`"
    raise DataError(f"the first line of `{wanted.file}` must name the columns, {told} among them, got others; {advice}")


# --- JSON lines, plain lines, trees -------------------------------------------------------------------------------------


def _json_lines(lines: Iterable[str], wanted: _Wanted) -> Iterator[_Text]:
    form = wanted.form
    shape = f"a JSON object with the text `{form.text}`" + (f" and `{form.label}`" if wanted.labelled else "")
    for number, line in enumerate(lines, 1):
        place = wanted.place(number)
        content = json_object(line, place, shape)
        text = json_value(content, form.text, place, shape)
        if not isinstance(text, str):
            raise DataError(f"`{form.text}` must be a text, got another value in {place}; try mending that line")
        own = content.get(form.id)
        value = json_value(content, form.label, place, shape) if wanted.labelled else None
        labels = _json_labels(value, number, wanted) if wanted.labelled else None
        yield _Text(number, str(own) if isinstance(own, str | int) else None, text, labels, isinstance(value, list))


def _json_labels(value: object, line: int, wanted: _Wanted) -> tuple[str, ...]:
    values = [json_label(one) for one in (value if isinstance(value, list) else [value])]
    labels = tuple(dict.fromkeys(label for label in values if label is not None))
    if None in values:
        found = f"got {'none' if value is None else 'another value'} under `{wanted.form.label}` in {wanted.place(line)}"
        raise DataError(f"a label must be a text or a whole number, or a list of those, {found}; try mending that line")
    return labels if isinstance(value, list) else _labels(labels[0], line, wanted)


def _plain(lines: Iterable[str], wanted: _Wanted) -> Iterator[_Text]:
    for number, line in enumerate(lines, 1):
        parts = line.split(maxsplit=1)
        if len(parts) < 2:
            found = f"only `{parts[0]}`" if parts else "an empty line"
            raise DataError(f"every line must hold a label and a text, got {found} in {wanted.place(number)}; try mending that line")
        yield _Text(number, None, parts[1].rstrip(), _labels(parts[0], number, wanted) if wanted.labelled else None)


def _text_lines(lines: Iterable[str], wanted: _Wanted) -> Iterator[_Text]:
    return (_Text(number, None, line.strip(), None) for number, line in enumerate(lines, 1))


def _trees(lines: Iterable[str], wanted: _Wanted) -> Iterator[_Text]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        phrases: list[Phrase] = tree_phrases(line, wanted.place(number))
        for place, (text, fine) in enumerate(phrases if wanted.form.phrases else phrases[:1]):
            label = BINARY[fine] if wanted.form.binary else fine
            if label is not None or not wanted.labelled:
                yield _Text(number, None, text, (label,) if wanted.labelled and label is not None else None, part=place > 0)


FORMATS: Mapping[str, Reader] = MappingProxyType({"csv": _csv, "tsv": _tsv, "jsonl": _json_lines, "plain": _plain, "trees": _trees})
"""The formats of labelled texts; `plain` is a label, white space and the text in a line."""
UNLABELLED_FORMATS: Mapping[str, Reader] = MappingProxyType({**FORMATS, "text": _text_lines})
"""The formats of texts alone; `text` is a text a line."""
ENDINGS: Mapping[str, str] = MappingProxyType({".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".txt": "plain", ".trees": "trees"})
"""Which format the end of a file's name means."""
UNLABELLED_ENDINGS: Mapping[str, str] = MappingProxyType({**ENDINGS, ".txt": "text"})
