"""What the readers of labelled data share: the format by the file's name, places for messages, JSON objects, and what looks suspicious."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from unrolled.core.errors import ConfigurationError, DataError, nearest

LONGEST_FIELD = (1 << 31) - 1
"""Of a CSV file; Python's own limit is 131,072 characters, which a long document passes."""


def place_of(file: str, line: int) -> str:
    """Where something stands, for a message.

    Args:
        file: its name.
        line: counted from 1.

    Returns:
        Such as `` `train.tsv`, line 7 ``.
    """
    return f"`{file}`, line {line}"


def format_of(file: str, given: str | None, known: Iterable[str], endings: Mapping[str, str]) -> str:
    """The format of a file: what was said, or what the end of its name tells (before `.gz`).

    Args:
        file: its name.
        given: the format where it was said.
        known: the formats that there are.
        endings: which format the end of a name means.

    Returns:
        One of the known formats.

    Raises:
        ConfigurationError: the format that was said is unknown.
        DataError: the name tells nothing.
    """
    known = tuple(known)
    if given is not None:
        if given not in known:
            raise ConfigurationError(f"`data.format` must be one of {_listed(known)}, got `{given}`; {nearest(given, known)}")
        return given
    name = file.lower().removesuffix(".gz")
    found = next((end for end in endings if name.endswith(end)), None)
    if found is None:
        raise DataError(
            f"`{file}` must end in {_listed(endings)} (or that and `.gz`); try naming its form (`data.format`): {_listed(known)}"
        )
    return endings[found]


def csv_rows(lines: Iterable[str], delimiter: str, file: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file; a text in quotes may have several lines.

    Args:
        lines: without what ends them.
        delimiter: one character.
        file: its name, for messages.

    Yields:
        The line with which a row begins, and its cells; empty lines are left out.

    Raises:
        ConfigurationError: the delimiter is no single character.
        DataError: a row that is not whole.
    """
    if len(delimiter) != 1 or delimiter in '"\n\r':
        raise ConfigurationError(f"`data.delimiter` must be one character, got `{delimiter}`; try `,` or `;`")
    reader = csv.reader((line + "\n" for line in lines), delimiter=delimiter, strict=True)
    while True:
        begin = reader.line_num + 1
        try:
            with _long_fields():
                row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            advice = "is a quote not closed?" if reader.line_num > begin else 'try `""` for a quote in a text that stands in quotes'
            raise DataError(
                f"every row of a CSV file must be whole, but the one in {place_of(file, begin)}, is not ({error}); {advice}"
            ) from None
        if row:
            yield begin, row


@contextmanager
def _long_fields() -> Iterator[None]:
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def json_object(line: str, place: str, wanted: str) -> dict[str, Any]:
    """The object of a JSON line.

    Args:
        line: the line.
        place: where it stands.
        wanted: what it must be, for the message.

    Returns:
        The object.

    Raises:
        DataError: it is empty, no JSON, or another value.
    """
    if not line.strip():
        raise DataError(f"every line must be {wanted}, got an empty line in {place}; try removing it")
    try:
        content: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"every line must be {wanted}, but {place}, is no JSON ({error}); try mending that line") from None
    if not isinstance(content, dict):
        raise DataError(f"every line must be {wanted}, got another value in {place}; try an object")
    return content


def json_value(content: dict[str, Any], key: str, place: str, wanted: str) -> Any:
    """What an object has under a key.

    Args:
        content: the object of a JSON line.
        key: a key that it must have.
        place: where it stands.
        wanted: what it must be, for the message.

    Returns:
        The value.

    Raises:
        DataError: there is no such key.
    """
    if key not in content:
        found = ", ".join(f"`{other}`" for other in content) or "an empty object"
        raise DataError(
            f"every line must be {wanted}, got only {found} in {place} (`{key}` is wanted); try naming the keys that the file has"
        )
    return content[key]


def json_label(value: Any) -> str | None:
    """A label out of JSON, where a whole number is as good as its digits.

    Args:
        value: what JSON gave.

    Returns:
        The label without white space around it; `None` where it is none.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value.strip() or None if isinstance(value, str) else None


def duplicated_ids(ids: Sequence[str | None], lines: Sequence[int], file: str) -> list[str]:
    """A sentence to warn with where an id stands more than once.

    Args:
        ids: what the file calls each sentence or text, `None` where it does not.
        lines: where each begins.
        file: the name of the file.

    Returns:
        One sentence, or none.
    """
    where: dict[str, list[int]] = defaultdict(list)
    for own, line in zip(ids, lines, strict=True):
        if own is not None:
            where[own].append(line)
    twice = {own: found for own, found in where.items() if len(found) > 1}
    if not twice:
        return []
    own, found = next(iter(twice.items()))
    more = f" (and {len(twice) - 1:,} more ids)" if len(twice) > 1 else ""
    return [
        f"ids should be different, but `{own}`{more} stands {len(found)} times in `{file}`, lines {found[0]} and {found[1]} for a start; "
        "was a part of the file copied twice?"
    ]


def one_label_only(labels: Iterable[str], file: str) -> list[str]:
    """A sentence to warn with where there is nothing to tell apart.

    Args:
        labels: every label of a file.
        file: its name.

    Returns:
        One sentence, or none.
    """
    counts = Counter(labels)
    if len(counts) != 1:
        return []
    label, count = next(iter(counts.items()))
    return [f"there should be at least two labels, but all {count:,} in `{file}` are `{label}`; was another column meant?"]


def _listed(names: Iterable[str]) -> str:
    *first, last = (f"`{name}`" for name in names)
    return f"{', '.join(first)} or {last}" if first else last
