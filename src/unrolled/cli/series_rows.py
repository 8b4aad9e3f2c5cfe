"""What comes behind series, and the states that they were in, as rows of CSV or JSON objects on standard output."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from json import dumps
from typing import Any

from unrolled.cli.output import finite

DIGITS = ".6g"
PLACES = 6
"""Of a probability."""


def write_forecasts(forecasts: Sequence[Any], form: Any, time: str | None, *, json: bool, level: float) -> None:
    """A row a point of the future, with a band for each column where there is one; or an object a series.

    Args:
        forecasts: of every series.
        form: how the series were written: delimiter and the column that tells series apart.
        time: the name of the column of times.
        json: whether objects are wanted.
        level: the share of values within a band.
    """
    if json:
        for one in forecasts:
            values = {
                name: None if part is None else part.tolist() for name, part in (("best", one.best), ("low", one.low), ("high", one.high))
            }
            _print({"series": one.series, "times": list(one.axis.texts), "targets": one.targets} | values)
        return
    banded, ends = forecasts[0].low is not None, [f"{50 * (1 + side * level):.4g}%" for side in (-1, 1)]
    columns = [name for target in forecasts[0].targets for name in (target, *((f"{target} {end}" for end in ends) if banded else ()))]
    write, many = _writer(form), _names_series(form, forecasts)
    write([*many, time or "step", *columns])
    for one in forecasts:
        parts = [part for part in (one.best, one.low, one.high) if part is not None]
        for step, when in enumerate(one.axis.texts):
            row = [f"{part[step, place]:{DIGITS}}" for place in range(len(one.targets)) for part in parts]
            write([*([one.series] if many else []), when, *row])


def write_states(found: Sequence[tuple[Any, Any]], form: Any, time: str | None, *, json: bool) -> None:
    """A row a point: the likeliest state, and the probability of each; or an object a series.

    Args:
        found: each series with what the model says of its states.
        form: how the series were written.
        time: the name of the column of times.
        json: whether objects are wanted.
    """
    if json:
        for series, states in found:
            told = {"states": states.path.tolist(), "probabilities": states.probabilities.tolist()}
            _print({"series": series.name, "times": list(series.axis.texts)} | told)
        return
    write, many = _writer(form), _names_series(form, [series for series, _ in found], of="name")
    write([*many, time or "step", "state", *(f"state {number}" for number in range(1, found[0][1].probabilities.shape[1] + 1))])
    for series, states in found:
        for when, state, row in zip(series.axis.texts, states.path, states.probabilities, strict=True):
            write([*([series.name] if many else []), when, state, *(f"{round(value, PLACES):g}" for value in row)])


def _names_series(form: Any, found: Iterable[Any], of: str = "series") -> list[str]:
    """The column that tells series apart, where there are several."""
    return [form.series or "series"] if form.series or any(getattr(one, of) for one in found) else []


def _writer(form: Any) -> Any:
    return csv.writer(sys.stdout, delimiter=form.delimiter, lineterminator="\n").writerow


def _print(told: dict[str, Any]) -> None:
    print(dumps(finite(told), ensure_ascii=False))
