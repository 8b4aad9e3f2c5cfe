"""What a fitted model says of series, as a trace that `report` can draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unrolled.data.series import SeriesFile
from unrolled.tasks.fit_learnt import Part
from unrolled.tasks.fit_panels import FitLook, Panel
from unrolled.tasks.fitted_run import FittedRun
from unrolled.tasks.label_look import look_settings
from unrolled.tasks.recorded_data import recorded_files

FORMAT = 1
ITERATIONS = 1000
"""At most so many of a search are drawn: the last ones."""
NAMES = {"log_likelihood": "log-likelihood", "aic": "AIC", "bic": "BIC"}
"""What figures are called that are not called by their names."""


FIGURES = ("states", "log_likelihood", "parameters", "aic", "bic", "iterations")
"""What stands at the head of the page."""


def trace_fit(run: FittedRun, found: SeriesFile | None, source: str, **changes: Any) -> dict[str, Any]:
    """All that a fitted model says of series.

    Args:
        run: a fitted model.
        found: the series; the run's own when `None`.
        source: where they came from.
        **changes: options of `FitLook`.

    Returns:
        What `write_look` takes.
    """
    task = str(run.folder.fact("task"))
    settings = look_settings(FitLook, task, changes)
    if found is None:
        found, source = run.open(), ", ".join(path.name for path in recorded_files(run.folder)[0])
    panels = [run.panel(one, settings) for one in found.series[: settings.panels]]
    result = run.folder.fact("result")
    return {
        "format": FORMAT,
        "task": task,
        "run": str(run.folder.path),
        "source": source,
        "level": settings.level,
        "panels": [_last(panel, settings.past) for panel in panels],
        "more": max(0, len(found.series) - settings.panels),
        "tables": [_table(part) for part in run.learnt()] + _tried(run.folder.fact("tried")),
        "searches": _searches(run.history(), result.get("states")),
        "figures": {NAMES.get(name, name): result[name] for name in FIGURES if name in result},
    }


def _table(part: Part) -> dict[str, Any]:
    rows = {row: [None if value is None else float(value) for value in values] for row, values in part["rows"].items()}
    return {"name": part["name"], "columns": part["columns"], "rows": rows}


def _tried(tried: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The sizes that were tried, where there were several."""
    if len(tried) < 2:
        return []
    names = ("log_likelihood", "parameters", "aic", "bic")
    rows = {str(one["states"]): [float(one[name]) for name in names] for one in tried}
    return [{"name": "states that were tried", "columns": [NAMES.get(name, name) for name in names], "rows": rows}]


def _searches(lines: Sequence[dict[str, Any]], states: int | None) -> list[dict[str, Any]]:
    """The searches that the chosen model came from."""
    found: dict[int, list[tuple[int, float]]] = {}
    for line in lines:
        if line.get("states") == states:
            found.setdefault(int(line["start"]), []).append((int(line["iteration"]), float(line["log_likelihood"])))
    drawn = {start: told[-ITERATIONS:] for start, told in found.items()}
    return [{"name": f"beginning {start}", "values": [one for _, one in told], "first": told[0][0]} for start, told in drawn.items()]


def _last(panel: Panel, past: int) -> Panel:
    """A panel with so many points of the past."""
    drop = max(0, len(panel["columns"][0]["values"]) - past)
    if not drop:
        return panel

    def cut(curve: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if curve is None else {name: part[drop:] if isinstance(part, list) else part for name, part in curve.items()}

    columns = [one | {"values": one["values"][drop:], "fit": cut(one["fit"])} for one in panel["columns"]]
    states = panel["states"]
    if states is not None:
        states = {"path": states["path"][drop:], "probabilities": [row[drop:] for row in states["probabilities"]]}
    return panel | {
        "times": panel["times"][drop:],
        "columns": columns,
        "states": states,
        "components": [cut(one) for one in panel["components"]],
    }
