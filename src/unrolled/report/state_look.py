"""What a fitted state-space model says of series, as one HTML page: states in time, components, what comes next, and what was learnt.

The input is a trace, a dictionary of what JSON knows; `StateTrace` and the classes above it are its format.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from unrolled.core.errors import DataError
from unrolled.report.forecast_look import DIGITS
from unrolled.report.page import fill
from unrolled.report.trace import Part, checked, clean, finite
from unrolled.report.wording import NOTHING, setting

HEIGHT = 260
"""Of the chart of a column; less where it holds few symbols."""
COLOURS = 8
"""Of states; the next one has the first again."""
STATE = re.compile(r"state (\d+)")
ROUNDING = 1e-3
"""How far from 1 a row of probabilities may sum to be shaded."""


class Curve(Part):
    """Numbers over time, in the middle of a band where there is one."""

    name: str
    best: list[float | None]
    low: list[float | None] | None
    high: list[float | None] | None


class Seen(Part):
    """One column of a series, and what the model makes of it."""

    name: str
    values: list[float | None]
    """`None` where one is missing; as long as the past."""
    levels: list[str] | None
    """What whole numbers stand for, where the column holds symbols."""
    fit: Curve | None
    """What the model takes the past to be without noise."""
    ahead: Curve | None
    """What comes next."""


class Chances(Part):
    """In which of its states a series was."""

    path: list[int]
    """The likeliest sequence of states, counted from 1; as long as the past."""
    probabilities: list[list[float | None]]
    """By state: over the past, and what is expected of the future."""


class StatePanel(Part):
    """All that is drawn of one series."""

    series: str
    """Empty where there is only one."""
    times: list[str]
    """The past and the future that is forecast."""
    columns: list[Seen]
    states: Chances | None
    components: list[Curve]
    """What adds up to the series, or the numbers of its hidden state; as long as the past."""


class LearntTable(Part):
    """Numbers that were learnt."""

    name: str
    columns: list[str]
    rows: dict[str, list[float | None]]


class Search(Part):
    """The log-likelihood in each iteration from one beginning."""

    name: str
    values: list[float | None]
    first: int = 1
    """The iteration of the first value; 0 is the beginning itself."""


class StateTrace(Part):
    """What a fitted model says of some series."""

    format: Literal[1]
    task: Literal["hmm", "lds", "structural"]
    run: str
    source: str
    """Where the series came from."""
    level: float
    """The share of values within a band."""
    panels: list[StatePanel]
    more: int
    """Series that are not drawn."""
    tables: list[LearntTable]
    searches: list[Search]
    figures: dict[str, Any]
    """Plain numbers and words by their names."""


class ShownTable(NamedTuple):
    """A table as the page shows it."""

    name: str
    columns: list[str]
    rows: list[tuple[str, int | None, list[tuple[str, float | None]]]]
    """Name, colour, and cells: what stands there, and the share by which it is shaded."""


KINDS = {"hmm": "hidden Markov model", "lds": "linear dynamical system", "structural": "structural model"}
"""What models are called on the page."""
PARTS = {"hmm": "", "lds": "the hidden state", "structural": "the parts that add up to the series"}
"""What the components of each are."""
FITS = {"hmm": "mean of the state", "lds": "without noise", "structural": "without noise"}
"""What the model takes the past to be."""


def read_trace(trace: dict[str, Any]) -> StateTrace:
    """Check a trace.

    Args:
        trace: what JSON knows.

    Returns:
        The same with names.

    Raises:
        DataError: a key is missing or unknown, or its value cannot be.
    """
    found = checked(StateTrace, trace, (StatePanel, Seen, Curve, Chances, LearntTable, Search))
    for wrong in _contradictions(found):
        raise DataError(wrong)
    return found


def render(trace: StateTrace) -> str:
    """The page.

    Args:
        trace: checked.

    Returns:
        HTML.
    """
    charts: list[dict[str, Any]] = []
    panels = [_panel(trace, panel, charts) for panel in trace.panels]
    searches = None if not trace.searches else _put(charts, _searches(trace.searches))
    return fill(
        "state_look.html.j2",
        title=clean(trace.source),
        kind=KINDS[trace.task],
        run=clean(trace.run),
        figures=[(clean(name), clean(_figure(value))) for name, value in trace.figures.items()],
        panels=panels,
        more=trace.more,
        parts=PARTS[trace.task],
        fits=FITS[trace.task],
        band=f"{trace.level * 100:g} % band",
        fitted=any(column.fit for panel in trace.panels for column in panel.columns),
        ahead=any(column.ahead for panel in trace.panels for column in panel.columns),
        tables=[_table(table) for table in trace.tables],
        searches=searches,
        several=len(trace.searches) > 1,
        drawn=charts,
    )


def _contradictions(trace: StateTrace) -> Iterator[str]:
    """One sentence for each place where two parts of the trace do not fit together."""
    if not trace.panels:
        yield "`panels` of the trace must hold at least one, got none"
    for place, panel in enumerate(trace.panels):
        for name, length, wanted in _lengths(panel):
            if length != wanted:
                yield f"`panels.{place}`: `{name}` must hold {wanted} values, got {length}"
        curves = [curve for column in panel.columns for curve in (column.fit, column.ahead) if curve] + panel.components
        if any((curve.low is None) != (curve.high is None) for curve in curves):
            yield f"`panels.{place}` must have both ends of a band, or none"
    for table in trace.tables:
        if any(len(values) != len(table.columns) for values in table.rows.values()):
            yield f"every row of the table `{table.name}` must hold {len(table.columns)} values"


def _lengths(panel: StatePanel) -> Iterator[tuple[str, int, int]]:
    """How long lists are, and how long they must be."""
    past = len(panel.columns[0].values) if panel.columns else 0
    ahead = len(panel.times) - past
    for column in panel.columns:
        yield "values", len(column.values), past
        for name, curve, wanted in (("fit", column.fit, past), ("ahead", column.ahead, ahead)):
            yield from () if curve is None else ((name, len(part), wanted) for part in _parts(curve))
    for curve in panel.components:
        yield from (("components", len(part), past) for part in _parts(curve))
    if panel.states is not None:
        yield "path", len(panel.states.path), past
        yield from (("probabilities", len(row), len(panel.times)) for row in panel.states.probabilities)


def _parts(curve: Curve) -> list[list[float | None]]:
    return [part for part in (curve.best, curve.low, curve.high) if part is not None]


def _put(charts: list[dict[str, Any]], chart: dict[str, Any]) -> int:
    """A chart for the script, and its place."""
    charts.append(chart)
    return len(charts) - 1


def _panel(trace: StateTrace, panel: StatePanel, charts: list[dict[str, Any]]) -> dict[str, Any]:
    """A series as the page shows it; its charts are for the script."""
    times = [clean(time) for time in panel.times]
    columns = []
    for column in panel.columns:
        past = {"name": "seen", "css": "past", "best": _short(column.values)}
        fit = [] if column.fit is None else [_layer(column.fit, "fit", FITS[trace.task], step=trace.task == "hmm")]
        ahead = [] if column.ahead is None else [_layer(column.ahead, "best", "forecast", begin=len(column.values))]
        levels = None if column.levels is None else [clean(level) for level in column.levels]
        chart = {"times": times, "now": len(column.values), "layers": [*fit, past, *ahead], "levels": levels, "level": trace.level}
        columns.append((clean(column.name), _put(charts, chart), HEIGHT if levels is None else min(HEIGHT, 60 + 30 * len(levels))))
    states = None if panel.states is None else _put(charts, _chances(times, panel.states))
    parts = [
        (
            clean(one.name),
            _put(
                charts,
                {
                    "times": times[: len(one.best)],
                    "now": None,
                    "level": trace.level,
                    "levels": None,
                    "layers": [_layer(one, "fit", clean(one.name))],
                },
            ),
        )
        for one in panel.components
    ]
    return {"title": clean(panel.series), "columns": columns, "states": states, "parts": parts, "count": _count(panel)}


def _count(panel: StatePanel) -> int:
    return 0 if panel.states is None else len(panel.states.probabilities)


def _layer(curve: Curve, css: str, name: str, *, begin: int = 0, step: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "css": css,
        "best": _short(curve.best),
        "low": _short(curve.low),
        "high": _short(curve.high),
        "begin": begin,
        "step": step,
    }


def _chances(times: list[str], states: Chances) -> dict[str, Any]:
    rows = [_short(row, 4) for row in states.probabilities]
    return {"times": times, "now": len(states.path), "path": states.path, "chances": rows}


def _searches(searches: Sequence[Search]) -> dict[str, Any]:
    """Log-likelihoods over iterations; the search that reached most comes last and is drawn above the others."""
    ranked = sorted(searches, key=lambda search: max((value for value in search.values if value is not None), default=float("-inf")))
    longest = max(len(search.values) for search in searches)
    layers = [
        {"name": clean(search.name), "css": "best" if search is ranked[-1] else "past", "best": _short(search.values, 10)}
        for search in ranked
    ]
    return {
        "times": [f"iteration {ranked[-1].first + place}" for place in range(longest)],
        "now": None,
        "layers": layers,
        "levels": None,
        "floor": _floor(ranked),
    }


def _floor(ranked: Sequence[Search]) -> float | None:
    """Where the axis begins, so that the second iteration of the best search is seen: the first may be so far below that nothing else would be."""
    numbers = [[value for value in search.values if value is not None and finite(value) is not None] for search in ranked]
    if not numbers[-1]:
        return None
    best = max(numbers[-1])
    return max(min(map(min, filter(None, numbers))), best - 1.2 * (best - min(numbers[-1][min(1, len(numbers[-1]) // 8) :])))


def _figure(value: Any) -> str:
    """A number at the head of the page."""
    return f"{value:,.4f}" if isinstance(value, float) and finite(value) is not None else setting(value)


def _table(table: LearntTable) -> ShownTable:
    shaded = bool(table.columns) and all(_probable(values) for values in table.rows.values())
    rows = []
    for name, values in table.rows.items():
        state = STATE.fullmatch(name)
        cells = [(_said(value), value if shaded else None) for value in values]
        rows.append((clean(name), None if state is None else (int(state[1]) - 1) % COLOURS, cells))
    return ShownTable(clean(table.name), [clean(name) for name in table.columns], rows)


def _probable(values: list[float | None]) -> bool:
    """Whether a row holds probabilities that sum to one."""
    numbers = [value for value in values if value is not None]
    return len(numbers) == len(values) > 1 and min(numbers) >= 0 and abs(sum(numbers) - 1) < ROUNDING


def _said(value: float | None) -> str:
    found = finite(value)
    if found is None:
        return NOTHING
    return f"{found:.3g}" if abs(found) < 1e3 else f"{found:,.1f}" if abs(found) < 1e6 else f"{found:.4g}"


def _short(values: list[float | None] | None, digits: int = DIGITS) -> list[float | None] | None:
    if values is None:
        return None
    found = (finite(value) for value in values)
    return [None if value is None else float(f"{value:.{digits}g}") for value in found]
