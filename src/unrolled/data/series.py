"""Time series out of CSV files: one a file, or many told apart by a column, with times, targets, and inputs that are known in advance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from unrolled.core.errors import ConfigurationError, DataError, nearest
from unrolled.data.rows import csv_rows, place_of
from unrolled.data.text import BYTE_ORDER_MARK, UTF8, text_lines
from unrolled.data.time_axis import TimeAxis, counted, read_times

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})
"""Cells, in small letters, that hold nothing."""
TIMES = ("date", "time", "datetime", "timestamp", "ds", "month", "year")
"""Names of a column of times, where none was said."""
ROW_NAMES = frozenset({"", "rownames", "index", "unnamed: 0"})
"""Names of a column that only counts rows."""


@dataclass(frozen=True)
class SeriesForm:
    """How a file of series is written."""

    time: str | None = None
    """The column of times; one with a usual name, or none, when not given."""
    targets: tuple[str, ...] = ()
    """The columns that are forecast; all other ones when empty."""
    known: tuple[str, ...] = ()
    """Columns whose future is known: prices, holidays, plans."""
    series: str | None = None
    """The column that tells series apart; all rows are one series when not given."""
    delimiter: str = ","
    encoding: str = UTF8
    symbols: tuple[str, ...] | None = None
    """Cells of targets are symbols, of which these are known; all that are found when empty. Numbers where `None`."""


class Series(NamedTuple):
    """One series."""

    name: str
    """What the file calls it; empty where there is only one."""
    axis: TimeAxis
    values: Float[np.ndarray, "time targets"]
    """NaN where a cell holds nothing."""
    known: Float[np.ndarray, "time known"]

    def select(self, begin: int, end: int) -> Series:
        """A part of the series.

        Args:
            begin: the first point.
            end: the first point that is left out.

        Returns:
            The points between.
        """
        return Series(self.name, self.axis.select(begin, end), self.values[begin:end], self.known[begin:end])


class SeriesFile(NamedTuple):
    """What a file holds."""

    series: tuple[Series, ...]
    targets: tuple[str, ...]
    known: tuple[str, ...]
    time: str | None
    """The name of the column of times."""
    findings: tuple[str, ...]
    """What a person should know."""
    symbols: tuple[str, ...] = ()
    """What the numbers in `values` stand for, where cells are symbols."""


class _Columns(NamedTuple):
    time: int | None
    targets: tuple[int, ...]
    known: tuple[int, ...]
    series: int | None


def read_series(path: str | Path, form: SeriesForm | None = None) -> SeriesFile:
    """Read a file, plain or `.gz`.

    Args:
        path: a CSV file with a header.
        form: how it is written.

    Returns:
        Its series.
    """
    form = form or SeriesForm()
    return series_of_lines(text_lines(path, form.encoding), form, name=Path(path).name)


def series_of_lines(lines: Iterable[str], form: SeriesForm, *, name: str = "<stdin>") -> SeriesFile:
    """Series out of lines of CSV.

    Args:
        lines: the first one names the columns.
        form: how they are written.
        name: of the file, for messages.

    Returns:
        The series.

    Raises:
        DataError: as for `read_series`.
    """
    rows = csv_rows((line.rstrip("\r\n") for line in lines), form.delimiter, name)
    header, cells = _table(rows, name)
    columns = _find_columns(header, form, name)
    groups: dict[str, list[tuple[int, list[str]]]] = {}
    for line, row in cells:
        own = "" if columns.series is None else row[columns.series].strip()
        if not own and columns.series is not None:
            raise DataError(f"every row must name its series, but `{form.series}` is empty in {place_of(name, line)}")
        groups.setdefault(own, []).append((line, row))
    symbols = () if form.symbols is None else form.symbols or _found_symbols(cells, columns.targets)
    found = tuple(_one_series(own, group, header, columns, name, symbols) for own, group in groups.items())
    targets, known = (tuple(header[i] for i in places) for places in (columns.targets, columns.known))
    time = None if columns.time is None else header[columns.time]
    return SeriesFile(found, targets, known, time, tuple(_findings(found, targets, name)), symbols)


def _table(rows: Iterator[tuple[int, list[str]]], name: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The names of the columns, and the rows below them with their lines."""
    first = next(rows, None)
    if first is None:
        raise DataError(f"`{name}` must begin with the names of its columns, but it is empty")
    header = [cell.removeprefix(BYTE_ORDER_MARK).strip() for cell in first[1]]
    twice = next((own for place, own in enumerate(header) if own in header[:place]), None)
    if twice is not None:
        raise DataError(f"every column of `{name}` must have a name of its own, but `{twice}` stands twice in its first line")
    cells = list(rows)
    if len(header) == 1:  # an empty line is an empty cell
        there = dict(cells)
        cells = [(line, there.get(line, [""])) for line in range(first[0] + 1, cells[-1][0] + 1)] if cells else []
    for line, row in cells:
        if len(row) != len(header):
            raise DataError(
                f"every row must have {len(header)} columns, as the first line has, got {len(row)} in {place_of(name, line)}; try mending that line"
            )
    if not cells:
        raise DataError(f"`{name}` must hold at least one row of numbers behind its first line, got none")
    return header, cells


def _find_columns(header: list[str], form: SeriesForm, file: str) -> _Columns:
    series = None if form.series is None else _place(header, form.series, "series", file)
    known = tuple(_place(header, own, "known", file) for own in form.known)
    if form.time is not None:
        time: int | None = _place(header, form.time, "time", file)
    else:
        free = {own.lower(): i for i, own in enumerate(header) if i not in (series, *known) and own not in form.targets}
        time = next((free[usual] for usual in TIMES if usual in free), None)
    targets = tuple(_place(header, own, "targets", file) for own in form.targets)
    named = [i for i in (time, series, *known, *targets) if i is not None]
    twice = next((i for place, i in enumerate(named) if i in named[:place]), None)
    if twice is not None:
        raise ConfigurationError(f"a column must be named for one thing alone, but `{header[twice]}` is for two; try other columns")
    if not targets:
        targets = tuple(i for i, own in enumerate(header) if i not in named and own.lower() not in ROW_NAMES)
    if not targets:
        raise DataError(
            f"`{file}` must have a column to forecast, got {', '.join(f'`{own}`' for own in header)}; try naming it (`data.targets`)"
        )
    return _Columns(time, targets, known, series)


def _place(header: list[str], wanted: str, option: str, file: str) -> int:
    if wanted not in header:
        raise ConfigurationError(f"`data.{option}` must name columns of `{file}`, got `{wanted}`; {nearest(wanted, header)}")
    return header.index(wanted)


def _found_symbols(cells: list[tuple[int, list[str]]], places: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(sorted({row[place].strip() for _, row in cells for place in places} - {""}))


def _one_series(
    own: str, group: list[tuple[int, list[str]]], header: list[str], columns: _Columns, file: str, symbols: tuple[str, ...]
) -> Series:
    lines = [line for line, _ in group]
    if columns.time is None:
        axis = counted(len(group))
    else:
        found = read_times([row[columns.time] for _, row in group])
        if isinstance(found, int):
            raise DataError(
                f"`{header[columns.time]}` must hold times (2016-07-01 13:00) or numbers, got `{group[found][1][columns.time]}` "
                f"in {place_of(file, lines[found])}; try another column (`data.time`)"
            )
        axis = found
        _check_order(axis, lines, own, file)
    values = _codes(group, columns.targets, symbols, file) if symbols else _numbers(group, columns.targets, header, file)
    known = _numbers(group, columns.known, header, file)
    empty = np.isnan(values).all(0)
    if empty.any():
        what = f"`{header[columns.targets[int(empty.argmax())]]}`{f' of `{own}`' if own else ''} in `{file}`"
        raise DataError(f"every column must hold at least one number, but {what} has none; leave it out (`data.targets`)")
    if np.isnan(known).any():
        row, column = np.argwhere(np.isnan(known))[0]
        raise DataError(
            f"what is known in advance must be there in every row, but `{header[columns.known[column]]}` is empty in {place_of(file, lines[row])}"
        )
    return Series(own, axis, values, known)


def _check_order(axis: TimeAxis, lines: list[int], own: str, file: str) -> None:
    of = f" of the series `{own}`" if own else ""
    for place, (before, after) in enumerate(pairwise(axis.numbers)):
        if after <= before:
            at = f"`{axis.texts[place + 1]}` in {place_of(file, lines[place + 1])}"
            if after == before:
                raise DataError(f"times{of} must differ, but {at} stands twice; are there several series (`data.series`)?")
            raise DataError(f"times{of} must rise, but {at} is before the one above it; try sorting the rows")


def _numbers(
    group: list[tuple[int, list[str]]], places: tuple[int, ...], header: list[str], file: str
) -> Float[np.ndarray, "time columns"]:
    found = np.empty((len(group), len(places)))
    for row, (line, cells) in enumerate(group):
        for column, place in enumerate(places):
            text = cells[place].strip()
            try:
                found[row, column] = np.nan if text.lower() in MISSING else float(text)
            except ValueError:
                raise DataError(
                    f"every cell must be a number or empty, got `{text}` in {place_of(file, line)}, column `{header[place]}`; "
                    "leave that column out (`data.targets`), or name what it is (`data.time`, `data.series`)"
                ) from None
            if np.isinf(found[row, column]):
                raise DataError(f"every cell must be finite, got `{text}` in {place_of(file, line)}, column `{header[place]}`")
    return found


def _codes(
    group: list[tuple[int, list[str]]], places: tuple[int, ...], symbols: tuple[str, ...], file: str
) -> Float[np.ndarray, "time columns"]:
    """The places of symbols among the known ones; NaN for an empty cell."""
    codes = {"": np.nan, **{symbol: float(code) for code, symbol in enumerate(symbols)}}
    for line, cells in group:
        unknown = next((cells[place] for place in places if cells[place].strip() not in codes), None)
        if unknown is not None:
            raise DataError(
                f"every symbol must be one that the model was fitted to, got `{unknown}` in {place_of(file, line)}; {nearest(unknown, symbols)}"
            )
    return np.array([[codes[cells[place].strip()] for place in places] for _, cells in group])


def _findings(series: Sequence[Series], targets: tuple[str, ...], file: str) -> Iterable[str]:
    for one in series:
        of = f" of `{one.name}`" if one.name else ""
        seen = [values[~np.isnan(values)] for values in one.values.T]
        constant = [name for name, values in zip(targets, seen, strict=True) if len(values) > 1 and (values == values[0]).all()]
        if constant:
            yield f"`{constant[0]}`{of} in `{file}` never changes: there is nothing to learn from it"
            break
    for one in series:
        before = one.axis.widest_gap()
        if before is not None:
            widest = one.axis.texts[before]
            yield f"times in `{file}` leave gaps, the widest behind `{widest}`: rows are taken as if they followed each other"
            return
