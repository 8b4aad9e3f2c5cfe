"""Sentences of tokens with one label each: CoNLL-U, columns as in CoNLL-2003, TSV and JSON lines, and the same without labels."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from unrolled.core.errors import ConfigurationError, DataError, nearest
from unrolled.data.rows import duplicated_ids, format_of, json_label, json_object, json_value, one_label_only, place_of
from unrolled.data.text import UTF8, text_lines

DOCUMENT_START = "-DOCSTART-"
CONLLU_COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
CONLLU_LABELS = ("upos", "xpos", "deprel", "feats", "lemma")
CONLLU_ENTRIES = ("feats", "misc")
"""Columns of entries such as `Number=Sing`."""
MAY_BE_BLANK = ("feats", "lemma")
"""Columns in which `_` is a value: no features, or the lemma of an underscore."""
SKIPPED_ID = re.compile(r"\d+-\d+|\d+\.\d+")
"""Multiword ranges and empty nodes."""
SENTENCE_ID = re.compile(r"#\s*sent_id\s*=\s*(\S.*)")
ID_KEYS = ("sent_id", "id")


@dataclass(frozen=True)
class TaggedForm:
    """How a file of tagged sentences is written."""

    format: str | None = None
    """One of `LABELLED`, or of `UNLABELLED` for text without labels; by the end of the file's name where nothing is said."""
    label: str | int | None = None
    """CoNLL-U: `upos` (the default), `xpos`, `deprel`, `feats`, `feats.KEY` or `misc.KEY`; columns: the number of the column, counted from
    1, or `last` (the default); JSON lines: the key of the labels, `labels`."""
    tokens: str = "tokens"
    """JSON lines: the key of the tokens."""
    encoding: str = UTF8


@dataclass(frozen=True)
class TaggedSentences:
    """Sentences of tokens, and the label of each token."""

    tokens: list[list[str]]
    labels: list[list[str]]
    """As many of each sentence as it has tokens; no sentence at all where the text was read without labels."""
    file: str
    lines: Sequence[int]
    """The line of each sentence's first token, counted from 1."""
    ids: Sequence[str | None]
    """What the file calls each sentence, `None` where it does not."""

    def __len__(self) -> int:
        return len(self.tokens)

    def place(self, sentence: int) -> str:
        """Where a sentence begins, for a message.

        Args:
            sentence: its place here.

        Returns:
            Such as `` `train.conllu`, line 7 ``.
        """
        return place_of(self.file, self.lines[sentence])

    def select(self, rows: Iterable[int] | Integer[np.ndarray, " rows"]) -> TaggedSentences:
        """Some of the sentences, which keep their lines.

        Args:
            rows: their places here, in any order.

        Returns:
            Those sentences.
        """
        rows = [int(row) for row in rows]
        labels = [self.labels[row] for row in rows] if self.labels else []
        return TaggedSentences(
            [self.tokens[row] for row in rows], labels, self.file, [self.lines[r] for r in rows], [self.ids[r] for r in rows]
        )

    def findings(self) -> list[str]:
        """What can be learnt from but is probably not meant: ids that stand twice, one label only.

        Returns:
            Sentences to warn with.
        """
        return duplicated_ids(self.ids, self.lines, self.file) + one_label_only(chain.from_iterable(self.labels), self.file)


def read_tagged(path: str | Path, form: TaggedForm | None = None) -> TaggedSentences:
    """The sentences of a file, each token with its label.

    Args:
        path: a file in one of the formats of `LABELLED`, plain or gzip.
        form: how it is written, where its name does not tell all.

    Returns:
        The sentences in the order of the file.

    Raises:
        DataError: the file cannot be used, a line is not as the others, a token has no label, or there is no sentence.
        ConfigurationError: the form names something that does not exist.
    """
    form = form or TaggedForm()
    read = LABELLED[format_of(str(path), form.format, LABELLED, ENDINGS)]
    return _gathered(read(text_lines(path, form.encoding), _Wanted(str(path), form, True)), str(path))


def read_tokens(path: str | Path, form: TaggedForm | None = None) -> TaggedSentences:
    """The sentences of a file without their labels, which may be there or not; a `.txt` file is plain text, cut at white space.

    Args:
        path: a file in one of the formats of `UNLABELLED`, plain or gzip.
        form: how it is written, where its name does not tell all.

    Returns:
        The sentences in the order of the file, without labels.

    Raises:
        DataError: the file cannot be used, or there is no sentence.
        ConfigurationError: the form names something that does not exist.
    """
    form = form or TaggedForm()
    read = UNLABELLED[format_of(str(path), form.format, UNLABELLED, UNLABELLED_ENDINGS)]
    return _gathered(read(text_lines(path, form.encoding), _Wanted(str(path), form, False)), str(path))


def tokens_of_lines(lines: Iterable[str], form: TaggedForm | None = None, *, name: str = "<stdin>") -> TaggedSentences:
    """The sentences of lines from anywhere, without labels; plain text where no format is said.

    Args:
        lines: with or without what ends them.
        form: how they are written; its encoding does not count.
        name: what to call them in messages.

    Returns:
        The sentences in their order, without labels.

    Raises:
        DataError: a line cannot be read, or there is no sentence.
        ConfigurationError: the form names something that does not exist.
    """
    form = form or TaggedForm()
    read = UNLABELLED[format_of(name, form.format or "text", UNLABELLED, UNLABELLED_ENDINGS)]
    return _gathered(read((line.rstrip("\r\n") for line in lines), _Wanted(name, form, False)), name)


class _Wanted(NamedTuple):
    file: str
    form: TaggedForm
    labelled: bool

    def place(self, line: int) -> str:
        return place_of(self.file, line)


class _Sentence(NamedTuple):
    line: int
    id: str | None
    tokens: list[str]
    labels: list[str]


Lines = list[tuple[int, str]]
Reader = Callable[[Iterable[str], _Wanted], Iterator[_Sentence]]


def _gathered(sentences: Iterator[_Sentence], file: str) -> TaggedSentences:
    found = list(sentences)
    if not found:
        raise DataError(f"`{file}` must hold at least one sentence, got none; try another file")
    labels = [sentence.labels for sentence in found if sentence.labels]
    return TaggedSentences([s.tokens for s in found], labels, file, [s.line for s in found], [s.id for s in found])


def _blocks(lines: Iterable[str]) -> Iterator[Lines]:
    """The numbered lines between borders: empty lines, and where a document of CoNLL-2003 begins."""
    block: Lines = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith(DOCUMENT_START):
            block.append((number, line))
        elif block:
            yield block
            block = []
    if block:
        yield block


# --- Columns ------------------------------------------------------------------------------------------------------------


def _columns(lines: Iterable[str], wanted: _Wanted) -> Iterator[_Sentence]:
    return _table(lines, wanted, _split_anyhow, None)


def _two_columns(lines: Iterable[str], wanted: _Wanted) -> Iterator[_Sentence]:
    if wanted.form.label not in (None, "last", 2, "2"):
        found = f"`{wanted.form.label}` for `{wanted.file}`"
        raise ConfigurationError(f"`data.column` must be left out for a TSV file (token, label), got {found}; try `data.format=columns`")
    return _table(lines, wanted, lambda line: line.split("\t"), 2)


def _split_anyhow(line: str) -> list[str]:
    # Only blanks and tabs part columns: a token may hold any other white space.
    return [field.strip(" ") for field in line.split("\t")] if "\t" in line else [field for field in line.split(" ") if field]


def _table(lines: Iterable[str], wanted: _Wanted, split: Callable[[str], list[str]], width: int | None) -> Iterator[_Sentence]:
    first = 0
    for block in _blocks(lines):
        rows = [(number, split(line)) for number, line in block]
        if not wanted.labelled:
            yield _Sentence(rows[0][0], None, [_present(row[0], "token", number, wanted) for number, row in rows], [])
            continue
        width, first = width or len(rows[0][1]), first or rows[0][0]
        column = _label_column(wanted, width, first)
        for number, row in rows:
            if len(row) != width:
                raise _ragged(row, width, number, first, wanted)
        tokens = [_present(row[0], "token", number, wanted) for number, row in rows]
        yield _Sentence(rows[0][0], None, tokens, [_present(row[column], "label", number, wanted) for number, row in rows])


def _label_column(wanted: _Wanted, width: int, line: int) -> int:
    if width < 2:
        raise _without_label(line, wanted)
    chosen = wanted.form.label
    if chosen is None or chosen == "last":
        return width - 1
    if not str(chosen).isdecimal():
        raise ConfigurationError(
            f"`data.column` must be the number of a column or `last` for a file of columns, got `{chosen}`; try `last`"
        )
    if not 2 <= int(chosen) <= width:
        raise DataError(
            f"`data.column` must be a column after the token's, so 2 to {width} in `{wanted.file}`, got {chosen}; try `last`, or look at line {line}"
        )
    return int(chosen) - 1


def _ragged(row: list[str], width: int, number: int, first: int, wanted: _Wanted) -> DataError:
    if len(row) == 1:
        return _without_label(number, wanted)
    like = f"as line {first} has" if first != number else "token, tab, label"
    return DataError(f"every token must have {width} columns, {like}, got {len(row)} in {wanted.place(number)}; try mending that line")


def _without_label(number: int, wanted: _Wanted) -> DataError:
    return DataError(f"every token must have a label, got one without in {wanted.place(number)}; try mending that line")


def _present(field: str, what: str, number: int, wanted: _Wanted) -> str:
    if not field.strip():
        if what == "label":
            raise _without_label(number, wanted)
        raise DataError(f"every line of a sentence must hold a token, got an empty one in {wanted.place(number)}; try mending that line")
    return field


# --- CoNLL-U ------------------------------------------------------------------------------------------------------------


def _conllu(lines: Iterable[str], wanted: _Wanted) -> Iterator[_Sentence]:
    column, key = _conllu_label(wanted)
    known: set[str] = set()
    for block in _blocks(lines):
        names = [match[1].strip() for _, line in block if (match := SENTENCE_ID.match(line))]
        rows = list(_words(block, wanted))
        if not rows:
            continue
        tokens = [_present(fields[1], "token", number, wanted) for number, fields in rows]
        labels = [_conllu_value(fields, column, key, number, wanted) for number, fields in rows] if wanted.labelled else []
        if key:
            known.update(chain.from_iterable(_entries(fields[column]) for _, fields in rows))
        yield _Sentence(rows[0][0], names[0] if names else None, tokens, labels)
    if wanted.labelled and key and key not in known:
        found = f"`{wanted.form.label}`, which no token of `{wanted.file}` has"
        advice = nearest(key, known) if known else "the column is empty in every line"
        raise DataError(f"`data.column` must name something that is in the file, got {found}; {advice}")


def _words(block: Lines, wanted: _Wanted) -> Iterator[tuple[int, list[str]]]:
    last = 0
    for number, line in block:
        if line.startswith("#"):
            continue
        fields = line.split("\t")
        if len(fields) != len(CONLLU_COLUMNS):
            found = f"got {len(fields)} in {wanted.place(number)}"
            raise DataError(
                f"every line of a CoNLL-U sentence must have {len(CONLLU_COLUMNS)} columns with tabs between them, {found}; try mending that line"
            )
        if SKIPPED_ID.fullmatch(fields[0]):
            continue
        if fields[0] != str(last + 1):
            found = f"got `{fields[0]}` in {wanted.place(number)}"
            advice = "try an empty line between two sentences" if fields[0] == "1" else "try mending that line"
            raise DataError(f"the words of a CoNLL-U sentence must count 1, 2, 3 and so on (here {last + 1}), {found}; {advice}")
        last += 1
        yield number, fields


def _conllu_label(wanted: _Wanted) -> tuple[int, str]:
    chosen = str(wanted.form.label or "upos")
    name, _, key = chosen.partition(".")
    if chosen not in CONLLU_LABELS and not (key and name in CONLLU_ENTRIES):
        listed = [*CONLLU_LABELS, *(f"{column}.KEY" for column in CONLLU_ENTRIES)]
        raise ConfigurationError(
            f"`data.column` must be a column of CoNLL-U, got `{chosen}` for `{wanted.file}`; {nearest(chosen, listed)}"
        )
    return CONLLU_COLUMNS.index(name), key


def _conllu_value(fields: list[str], column: int, key: str, number: int, wanted: _Wanted) -> str:
    value = fields[column]
    if key:
        return _entries(value).get(key) or "_"
    if value == "_" and CONLLU_COLUMNS[column] not in MAY_BE_BLANK:
        raise _without_label(number, wanted)
    return _present(value, "label", number, wanted)


def _entries(value: str) -> dict[str, str]:
    return {name: content for name, is_one, content in (entry.partition("=") for entry in value.split("|")) if is_one}


# --- JSON lines and plain text ------------------------------------------------------------------------------------------


def _json_lines(lines: Iterable[str], wanted: _Wanted) -> Iterator[_Sentence]:
    token_key, label_key = wanted.form.tokens, str(wanted.form.label or "labels")
    shape = f"a JSON object with the list `{token_key}`" + (f" and the list `{label_key}`" if wanted.labelled else "")
    for number, line in enumerate(lines, 1):
        place = wanted.place(number)
        content = json_object(line, place, shape)
        tokens = json_value(content, token_key, place, shape)
        if not isinstance(tokens, list) or not all(isinstance(token, str) and token.strip() and "\n" not in token for token in tokens):
            raise DataError(f"`{token_key}` must be a list of tokens (texts that are not empty, of one line), got another value in {place}")
        if not tokens:
            raise DataError(f"every sentence must have a token, got an empty list in {place}; try removing that line")
        own = next((content[key] for key in ID_KEYS if isinstance(content.get(key), str | int)), None)
        labels = _json_labels(json_value(content, label_key, place, shape), len(tokens), label_key, place) if wanted.labelled else []
        yield _Sentence(number, None if own is None else str(own), tokens, labels)


def _json_labels(values: object, count: int, key: str, place: str) -> list[str]:
    if not isinstance(values, list):
        raise DataError(f"`{key}` must be a list of labels, got another value in {place}; try one label a token")
    if len(values) != count:
        raise DataError(f"a sentence must have one label a token, got {len(values)} for {count} tokens in {place}; try mending that line")
    labels = [json_label(value) for value in values]
    for position, label in enumerate(labels, 1):
        if label is None:
            raise DataError(
                f"every token must have a label (a text or a whole number), got none for token {position} in {place}; try mending that line"
            )
    return [label for label in labels if label is not None]


def _plain_text(lines: Iterable[str], wanted: _Wanted) -> Iterator[_Sentence]:
    for number, line in enumerate(lines, 1):
        if tokens := line.split():
            yield _Sentence(number, None, tokens, [])


LABELLED: Mapping[str, Reader] = MappingProxyType({"conllu": _conllu, "columns": _columns, "tsv": _two_columns, "jsonl": _json_lines})
"""The formats of tagged sentences."""
UNLABELLED: Mapping[str, Reader] = MappingProxyType({**LABELLED, "text": _plain_text})
"""The formats of sentences alone."""
ENDINGS: Mapping[str, str] = MappingProxyType(
    {".conllu": "conllu", ".conll": "columns", ".bio": "columns", ".iob": "columns", ".txt": "columns", ".tsv": "tsv", ".jsonl": "jsonl"}
)
"""Which format the end of a file's name means."""
UNLABELLED_ENDINGS: Mapping[str, str] = MappingProxyType({**ENDINGS, ".txt": "text"})
