"""What a forecaster says of the future of series, and what it would have said before, as a trace that `report` can draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from unrolled.core.settings import Settings
from unrolled.data.series import Series, SeriesFile
from unrolled.tasks.forecasting import Forecast, ForecastingRun
from unrolled.tasks.forecasting_data import open_series, parts_of
from unrolled.tasks.label_look import look_settings
from unrolled.tasks.recorded_data import recorded_files
from unrolled.tasks.series_future import end_of

FORMAT = 1
MOST_PAST = 300
"""Points of the past that are drawn where nothing is said."""


class ForecastLook(Settings):
    """What is drawn of a forecaster."""

    past: int | None = Field(None, ge=1)
    """Points of the past that are drawn; those that the forecast sees, up to 300, and at least twice those that are forecast, when `none`."""
    panels: int = Field(12, ge=1, le=1000)
    """At most so many columns are drawn, of all series together."""
    checks: int = Field(3, ge=0, le=100)
    """Forecasts whose truth is known, a series."""


def trace_forecasting(run: ForecastingRun, found: SeriesFile | None, source: str, **changes: Any) -> dict[str, Any]:
    """Forecasts of series, as a trace.

    Args:
        run: a trained forecaster.
        found: the past; the run's own series when `None`.
        source: where it came from.
        **changes: options of `ForecastLook`.

    Returns:
        What `write_look` takes.
    """
    settings = look_settings(ForecastLook, "forecasting", changes)
    lookback, horizon, season = run.learnt.sizes
    part, spans = "the last points of the file", None
    if found is None:
        files, valid = recorded_files(run.folder)
        found = open_series(run.settings.data, files, run.learnt.targets)
        parts = parts_of(run.settings.data, found.series, horizon, valid=bool(valid))
        tested = bool(run.settings.data.test)
        part = "the test part" if tested else "the part that validates" if not valid else part
        spans = parts.test if tested else parts.valid if not valid else None
        source = source or ", ".join(path.name for path in files)
    past = settings.past or max(min(lookback, MOST_PAST), 2 * horizon)
    columns = len(run.learnt.targets)
    begins: list[int | None] = [None] * len(found.series) if spans is None else list(spans)
    able = [pair for pair in zip(found.series, begins, strict=True) if end_of(pair[0]) >= lookback] or [(found.series[0], None)]
    panels = []
    for one, begin in able[: -(-settings.panels // columns)]:
        panels += _panels(run, one, past, _origins(one, (lookback, horizon), begin, settings.checks))
    figures = {"look-back": lookback, "horizon": horizon, "season": season, "series": len(found.series), "columns": columns}
    return {
        "format": FORMAT,
        "task": "forecasting",
        "run": str(run.folder.path),
        "source": source,
        "part": part,
        "panels": panels[: settings.panels],
        "more": max(0, len(able) * columns - settings.panels),
        "figures": figures,
    }


def read_for_look(run: ForecastingRun, path: Path) -> SeriesFile:
    """The series of a file.

    Args:
        run: a trained forecaster.
        path: in the form it was trained on.

    Returns:
        Its series.
    """
    return open_series(run.settings.data, [path], run.learnt.targets)


def _origins(series: Series, sizes: tuple[int, int], begin: int | None, count: int) -> list[int]:
    """Points from which forecasts are made whose truth is known: evenly over a part, or the last ones that do not overlap."""
    lookback, horizon = sizes
    there, last = ~np.isnan(series.values).all(1), end_of(series) - horizon
    if begin is None:
        wanted = [last - horizon * step for step in reversed(range(count))]
    else:
        wanted = (
            np.unique(np.linspace(max(begin, lookback), last, count).round().astype(int)).tolist() if last >= max(begin, lookback) else []
        )
    return [origin for origin in wanted if origin >= lookback and there[origin - 1]]


def _panels(run: ForecastingRun, series: Series, past: int, origins: list[int]) -> list[dict[str, Any]]:
    """A panel for each column of a series."""
    horizon, end = run.learnt.sizes.horizon, end_of(series)
    if run.learnt.known and len(series.values) < end + horizon and end - horizon >= run.learnt.sizes.lookback:
        end -= horizon  # what is known in advance ends with the file: the last forecast that could be made
    forecasts = [(origin, run.forecast(_as_of(series, origin, horizon))) for origin in (end, *(one for one in origins if one != end))]
    panels = []
    for column, target in enumerate(run.learnt.targets):
        charts = [_chart(series, column, origin, past, forecast) for origin, forecast in forecasts]
        panels.append({"series": series.name, "target": target, "chart": charts[0], "checks": charts[1:]})
    return panels


def _as_of(series: Series, origin: int, horizon: int) -> Series:
    """A series as it was known at a point: what comes behind it is gone, but for what is known in advance."""
    seen = series.select(0, origin + horizon)
    values = seen.values.copy()
    values[origin:] = np.nan
    return seen._replace(values=values)


def _chart(series: Series, column: int, origin: int, past: int, forecast: Forecast) -> dict[str, Any]:
    begin, horizon = max(0, origin - past), len(forecast.best)
    came = series.values[origin : origin + horizon, column]
    known = len(came) == horizon and not np.isnan(came).all()

    def plain(values: np.ndarray | None) -> list[float | None] | None:
        return None if values is None else [None if np.isnan(value) else float(value) for value in values[:, column]]

    fan = {
        "times": list(forecast.axis.texts),
        "best": plain(forecast.best),
        "low": plain(forecast.low),
        "high": plain(forecast.high),
        "truth": plain(series.values[origin : origin + horizon]) if known else None,
    }
    return {"times": list(series.axis.texts[begin:origin]), "past": plain(series.values[begin:origin]), "fan": fan}
