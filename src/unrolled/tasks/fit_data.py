"""What a fitted model reads: the series of its files as tensors, and what a run keeps of how they were written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrolled.core.errors import DataError, RunError, nearest
from unrolled.core.files import write_json
from unrolled.core.padded import Padded, pad
from unrolled.data.rows import place_of
from unrolled.data.series import Series, SeriesFile, series_of_lines
from unrolled.data.text import text_lines
from unrolled.data.time_axis import Spacing, counted
from unrolled.tasks.forecasting_data import USUAL_HORIZON, form_of, open_series
from unrolled.tasks.series_future import end_of

TEXT_ENDINGS = (".txt", ".txt.gz")
"""Files that are a text of symbols where nothing else is said."""
SYMBOL = "symbol"
"""What the one column of a text is called."""


class Reading(NamedTuple):
    """What a run knows of its series besides the model."""

    targets: tuple[str, ...]
    known: tuple[str, ...]
    symbols: tuple[str, ...]
    """What whole numbers stand for, where outputs are symbols; else none."""
    season: int
    """Points of the usual season of the times; 1 where none is known."""
    text: bool
    """Whether it reads a text of symbols, and not CSV."""
    step: Spacing | None = None
    """Between its times; `None` in runs of older versions."""

    @property
    def horizon(self) -> int:
        """Points that are forecast where nothing is said."""
        return self.season if self.season > 1 else USUAL_HORIZON


class FitData(NamedTuple):
    """What a model is fitted to."""

    outputs: Padded
    """`[batch, time, columns]`; NaN is missing."""
    inputs: Tensor | None
    """What is known in advance, `[batch, time, inputs]`."""
    reading: Reading


def reads_text(data: Any, files: Sequence[Path]) -> bool:
    """Whether files are a text of symbols.

    Args:
        data: settings of the run.
        files: to fit to.

    Returns:
        What was said, or what the end of their names tells.
    """
    given = getattr(data, "format", None)
    return given == "text" if given is not None else hasattr(data, "format") and all(path.name.endswith(TEXT_ENDINGS) for path in files)


def open_data(data: Any, files: Sequence[Path], *, symbols: bool, reading: Reading | None = None) -> SeriesFile:
    """The series of files.

    Args:
        data: settings of the run.
        files: one or several.
        symbols: whether cells are symbols.
        reading: how the run has read its own files; `None` while it is made.

    Returns:
        All of them.
    """
    known = () if reading is None else reading.symbols
    if reads_text(data, files) if reading is None else reading.text:
        lines = [(path.name, list(text_lines(path, data.encoding))) for path in files]
        return symbols_of_lines(lines, data.tokens, known)
    targets = data.targets if reading is None else reading.targets
    if symbols and not known and len(files) > 1:
        known = tuple(sorted({one for path in files for one in open_series(data, [path], targets, symbols=()).symbols}))
    return open_series(data, files, targets, symbols=known if symbols else None)


def read_data_lines(data: Any, lines: Iterable[str], reading: Reading, *, name: str) -> SeriesFile:
    """Series out of lines in the form of the run's own files.

    Args:
        data: settings of the run.
        lines: without what ends them.
        reading: how the run has read its own files.
        name: of the source, for messages.

    Returns:
        The series.
    """
    if reading.text:
        return symbols_of_lines([(name, lines)], data.tokens, reading.symbols)
    form = form_of(data, reading.targets)
    return series_of_lines(lines, replace(form, symbols=reading.symbols) if reading.symbols else form, name=name)


def symbols_of_lines(sources: Sequence[tuple[str, Iterable[str]]], tokens: str, known: tuple[str, ...]) -> SeriesFile:
    """Every line as a sequence of symbols; empty ones are left out.

    Args:
        sources: name and lines of each.
        tokens: what a symbol is: `characters` or `words`.
        known: the symbols that there are; all that are found when empty.

    Returns:
        A series a line, of the places of its symbols among the known ones.

    Raises:
        DataError: no symbol at all, or an unknown one.
    """
    cut = [
        (file, number, line.split() if tokens == "words" else list(line.rstrip("\r\n")))
        for file, lines in sources
        for number, line in enumerate(lines, 1)
    ]
    found = [one for one in cut if one[2]]
    if not found:
        raise DataError(f"`{sources[0][0]}` must hold at least one line of symbols, got none")
    known = known or tuple(sorted({symbol for *_, line in found for symbol in line}))
    codes = {symbol: float(code) for code, symbol in enumerate(known)}
    series = []
    for file, number, line in found:
        unknown = next((symbol for symbol in line if symbol not in codes), None)
        if unknown is not None:
            raise DataError(
                f"every symbol must be one that the model was fitted to, got `{unknown}` in {place_of(file, number)}; {nearest(unknown, known)}"
            )
        values = np.array([[codes[symbol]] for symbol in line])
        name = "" if len(found) == 1 else f"line {number}" if len(sources) == 1 else f"{file}, line {number}"
        series.append(Series(name, counted(len(line)), values, np.zeros((len(line), 0))))
    return SeriesFile(tuple(series), (SYMBOL,), (), None, (), known)


def reading_of(found: SeriesFile, *, text: bool) -> Reading:
    """What a run keeps of its series.

    Args:
        found: the series.
        text: whether they are a text of symbols.

    Returns:
        It.
    """
    longest = max(found.series, key=lambda one: len(one.values))
    step = longest.axis.step()
    return Reading(found.targets, found.known, found.symbols, step.season, text, step)


def tensors_of(series: Sequence[Series], *, to_end: bool = True) -> tuple[Padded, Tensor | None]:
    """Series as models take them.

    Args:
        series: at least one.
        to_end: leave out what stands behind the last value.

    Returns:
        Outputs and what is known in advance.
    """
    cut = [one.select(0, end_of(one)) for one in series] if to_end else series
    outputs = pad([torch.from_numpy(one.values) for one in cut])
    inputs = pad([torch.from_numpy(one.known) for one in cut]).data if cut[0].known.shape[1] else None
    return outputs, inputs


def check_fit(found: SeriesFile, source: str, *, any_column: bool = False) -> None:
    """Refuse what nothing can be learnt from.

    Args:
        found: the series.
        source: where they came from.
        any_column: whether one column that changes is enough.

    Raises:
        DataError: series of one point, or a column that never changes.
    """
    longest = max(end_of(one) for one in found.series)
    if longest < 2:
        raise DataError(f"a fit needs series of at least 2 points, got {longest} in `{source}`; give more of the past")
    values = np.concatenate([one.values for one in found.series])
    constant = np.array([len(np.unique(column[~np.isnan(column)])) < 2 for column in values.T])
    if constant.all() if any_column else constant.any():
        place = int(constant.argmax())
        column = values[:, place]
        value = column[~np.isnan(column)][0]
        shown = f"`{found.symbols[int(value)]}`" if found.symbols else f"{value:g}"
        advice = "give other data" if len(constant) == 1 else "leave it out (`data.targets`)"
        raise DataError(f"every column must change, but `{found.targets[place]}` in `{source}` is {shown} throughout; {advice}")


def save_reading(reading: Reading, path: Path) -> None:
    """Write what a run keeps of its series.

    Args:
        reading: it.
        path: where the file shall stand.
    """
    write_json(path, reading._asdict())


def load_reading(path: Path) -> Reading:
    """Read what `save_reading` wrote.

    Args:
        path: the file.

    Returns:
        It.

    Raises:
        RunError: the file is damaged.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        names = {name: tuple(map(str, told[name])) for name in ("targets", "known", "symbols")}
        step = None if told.get("step") is None else Spacing(float(told["step"][0]), str(told["step"][1]), bool(told["step"][2]))
        return Reading(**names, season=int(told["season"]), text=bool(told["text"]), step=step)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RunError(f"`{path}` must be what unrolled wrote, but it is damaged ({error}); try a whole copy of the run") from None
