"""What a forecaster says of the future of series, as one HTML page: the past, the forecast with its band, and forecasts whose truth is known.

The input is a trace, a dictionary of what JSON knows; `ForecastTrace` and the classes above it are its format.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from unrolled.core.errors import DataError
from unrolled.report.page import fill
from unrolled.report.trace import Part, checked, clean, finite
from unrolled.report.wording import NOTHING, setting

TASK = "forecasting"
"""Whose traces are of this form."""
DIGITS = 6
"""Of a value on the page: more than a screen shows."""


class Fan(Part):
    """A forecast."""

    times: list[str]
    best: list[float | None]
    """Mean or median."""
    low: list[float | None] | None
    """The 10 % quantile; `None` where the model says none."""
    high: list[float | None] | None
    """The 90 % quantile."""
    truth: list[float | None] | None
    """What came; `None` where that is not known."""


class Chart(Part):
    """A forecast behind the past that it came from."""

    times: list[str]
    past: list[float | None]
    """`None` where a value is missing."""
    fan: Fan


class Panel(Part):
    """All that is drawn of one column of one series."""

    series: str
    """Empty where there is only one."""
    target: str
    chart: Chart
    checks: list[Chart]
    """Forecasts from earlier points, whose truth is known."""


class ForecastTrace(Part):
    """What a forecaster says of some series."""

    format: Literal[1]
    task: Literal["forecasting"]
    run: str
    source: str
    """Where the series came from."""
    part: str
    """What the checks are of."""
    panels: list[Panel]
    more: int
    """Columns that are not drawn."""
    figures: dict[str, Any]
    """Plain numbers and words by their names."""


class Shown(NamedTuple):
    """A panel as the page shows it."""

    title: str
    summary: str
    header: list[str]
    rows: list[list[str]]
    """The numbers of its forecast."""
    checks: int


def read_trace(trace: dict[str, Any]) -> ForecastTrace:
    """Check a trace.

    Args:
        trace: what JSON knows.

    Returns:
        The same with names.

    Raises:
        DataError: a key is missing or unknown, or its value cannot be.
    """
    found = checked(ForecastTrace, trace, (Panel, Chart, Fan))
    for wrong in _contradictions(found):
        raise DataError(wrong)
    return found


def render(trace: ForecastTrace) -> str:
    """The page.

    Args:
        trace: checked.

    Returns:
        HTML.
    """
    banded = any(panel.chart.fan.low is not None for panel in trace.panels)
    return fill(
        "forecast_look.html.j2",
        title=clean(trace.source),
        run=clean(trace.run),
        part=clean(trace.part),
        figures=[(clean(name).replace("_", " "), clean(setting(value))) for name, value in trace.figures.items()],
        panels=[_shown(panel) for panel in trace.panels],
        more=trace.more,
        banded=banded,
        known=any(panel.chart.fan.truth is not None for panel in trace.panels),
        drawn=[[_drawn(chart) for chart in (panel.chart, *panel.checks)] for panel in trace.panels],
    )


def _contradictions(trace: ForecastTrace) -> Iterator[str]:
    """One sentence for each place where two parts of the trace do not fit together."""
    if not trace.panels:
        yield "`panels` of the trace must hold at least one, got none"
    for place, panel in enumerate(trace.panels):
        for chart in (panel.chart, *panel.checks):
            fan = chart.fan
            lists = {"past": (chart.past, chart.times)} | {
                name: (getattr(fan, name), fan.times) for name in ("best", "low", "high", "truth")
            }
            for name, (values, times) in lists.items():
                if values is not None and len(values) != len(times):
                    yield f"`panels.{place}`: `{name}` must hold one value for each of the {len(times)} times, got {len(values)}"
            if (fan.low is None) != (fan.high is None):
                yield f"`panels.{place}` must have both ends of a band, or none"
            if not fan.times:
                yield f"`panels.{place}` must forecast at least one point, got none"


def _shown(panel: Panel) -> Shown:
    fan = panel.chart.fan
    columns = [("forecast", fan.best), ("10 %", fan.low), ("90 %", fan.high), ("came", fan.truth)]
    there = [(name, values) for name, values in columns if values is not None]
    rows = [[clean(time), *(_said(values[place]) for _, values in there)] for place, time in enumerate(fan.times)]
    title = " · ".join(clean(name) for name in (panel.series, panel.target) if name)
    return Shown(title, _summary(panel), ["time", *(name for name, _ in there)], rows, len(panel.checks))


def _summary(panel: Panel) -> str:
    fan, last = panel.chart.fan, len(panel.chart.fan.times) - 1
    told = f"{_at(fan, 0)}" if not last else f"{_at(fan, 0)}, {_at(fan, last)}"
    return f"Forecast: {told}."


def _at(fan: Fan, place: int) -> str:
    band = "" if fan.low is None or fan.high is None else f" (80 % between {_said(fan.low[place])} and {_said(fan.high[place])})"
    return f"{_said(fan.best[place])}{band} at {clean(fan.times[place])}"


def _said(value: float | None) -> str:
    found = finite(value)
    return NOTHING if found is None else f"{found:.4g}" if abs(found) < 1e4 else f"{found:,.0f}"


def _drawn(chart: Chart) -> dict[str, Any]:
    """What the script needs."""
    fan = chart.fan
    return {
        "times": [clean(time) for time in (*chart.times, *fan.times)],
        "past": _short(chart.past),
        "best": _short(fan.best),
        "low": _short(fan.low),
        "high": _short(fan.high),
        "truth": _short(fan.truth),
    }


def _short(values: list[float | None] | None) -> list[float | None] | None:
    if values is None:
        return None
    found = (finite(value) for value in values)
    return [None if value is None else float(f"{value:.{DIGITS}g}") for value in found]
