"""The page of a fitted model: what it says and draws, in a browser as well, and that a wrong trace is one sentence."""

from __future__ import annotations

import copy
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from test_in_chromium import CHROMIUM
from test_look import paths_of
from test_look_in_chromium import TIP, ask
from test_report import HOSTILE, Page

from unrolled.core.errors import DataError
from unrolled.report import write_look

Made = dict[str, Any]


def curve(name: str = "fit", **changes: Any) -> Made:
    return {"name": name, "best": [1.0, 2.0, 3.0], "low": None, "high": None} | changes


def column(**changes: Any) -> Made:
    ahead = curve("forecast", best=[4.0, 5.0], low=[3.5, 4.0], high=[4.5, 60000.0])
    return {"name": "sold", "values": [1.0, None, 3.0], "levels": None, "fit": curve(), "ahead": ahead} | changes


def panel(**changes: Any) -> Made:
    states = {"path": [1, 1, 2], "probabilities": [[0.9, 0.8, 0.0, 0.5, 0.5], [0.1, 0.2, 1.0, 0.5, 0.5]]}
    made = {"series": "north", "times": ["Mon", "Tue", "Wed", "Thu", "Fri"], "columns": [column()], "states": states, "components": []}
    return made | changes


def table(**changes: Any) -> Made:
    rows = {"state 1": [0.75, 0.25], "state 2": [0.5, 0.5]}
    return {"name": "from ↓ to →", "columns": ["state 1", "state 2"], "rows": rows} | changes


def trace(**changes: Any) -> Made:
    made = {"format": 1, "task": "hmm", "run": "runs/a", "source": "shops.csv", "level": 0.8, "panels": [panel()], "more": 0}
    searches = [{"name": "beginning 1", "values": [-9.0, -5.0]}, {"name": "beginning 2", "values": [-9.0, -4.5, -4.0]}]
    return made | {"tables": [table()], "searches": searches, "figures": {"log-likelihood": -1234.56789, "parameters": 3}} | changes


def page_of(made: Made, folder: Path) -> Page:
    return Page(write_look(made, folder / "look.html").read_text(encoding="utf-8"))


def test_all_of_a_fit_is_told(tmp_path: Path) -> None:
    page = page_of(trace(more=2), tmp_path)
    assert page.headings[:3] == ["shops.csv", "north · sold", "Probability of each state; above it the likeliest sequence of states"]
    assert page.headings[-2:] == ["What was learnt", "Log-likelihood while it was fitted"]
    assert "-1,234.5679" in page.said
    assert "2 more series are not drawn; ask for more with --set panels=3" in page.said
    chart, states, searches = json.loads(page.scripts[0])
    assert [layer["name"] for layer in chart["layers"]] == ["mean of the state", "seen", "forecast"]
    assert (chart["now"], chart["layers"][2]["begin"], chart["layers"][1]["best"]) == (3, 3, [1, None, 3])
    assert states["path"] == [1, 1, 2]
    assert [layer["css"] for layer in searches["layers"]] == ["past", "best"]  # the one that was kept is drawn last
    shares = [attributes["style"] for tag, attributes in page.tags if "share" in attributes.get("class", "")]
    assert shares == ["--share: 75.0%", "--share: 25.0%", "--share: 50.0%", "--share: 50.0%"]


def test_components_and_numbers_that_are_no_probabilities(tmp_path: Path) -> None:
    parts = [curve("level", low=[0.0, 1.0, 2.0], high=[2.0, 3.0, 4.0]), curve("seasonal")]
    variances = {"name": "variances", "columns": [""], "rows": {"level": [15098.5], "irregular": [None]}}
    one = panel(series="", states=None, components=parts, columns=[column(ahead=None)], times=["Mon", "Tue", "Wed"])
    page = page_of(trace(task="structural", panels=[one], tables=[variances], searches=[]), tmp_path)
    assert page.headings == ["shops.csv", "sold", "The parts that add up to the series", "What was learnt"]
    assert "15,098.5" in page.said
    assert not any("share" in attributes.get("class", "") for _, attributes in page.tags)
    assert [chart["times"] for chart in json.loads(page.scripts[0])] == [["Mon", "Tue", "Wed"]] * 3


def test_no_text_of_a_file_becomes_a_tag(tmp_path: Path) -> None:
    one = panel(series=HOSTILE, times=[HOSTILE] * 5, columns=[column(name=HOSTILE, levels=[HOSTILE] * 4)], components=[curve(HOSTILE)])
    learnt = table(name=HOSTILE, columns=[HOSTILE, HOSTILE], rows={HOSTILE: [0.5, 0.5]})
    made = trace(run=HOSTILE, source=HOSTILE, panels=[one], tables=[learnt], figures={HOSTILE: HOSTILE}, searches=[])
    page = page_of(made, tmp_path)
    assert sum(tag == "script" for tag, _ in page.tags) == 2
    assert not any(tag == "img" or "onerror" in attributes for tag, attributes in page.tags)


@pytest.mark.parametrize("broken", [math.nan, math.inf, None])
def test_values_that_are_no_numbers_are_dashes(tmp_path: Path, broken: float | None) -> None:
    three = [broken] * 3
    one = column(values=three, fit=curve(best=three, low=three, high=three), ahead=None)
    learnt = table(rows={"state 1": [broken, broken]})
    made = trace(panels=[panel(columns=[one], states=None, times=["Mon", "Tue", "Wed"])], tables=[learnt], searches=[])
    page = page_of(made, tmp_path)
    assert not re.search(r"\b(nan|inf|None)\b", page.said, re.IGNORECASE)
    assert json.loads(page.scripts[0])[0]["layers"][0]["best"] == [None] * 3


def test_a_trace_without_a_key_is_one_sentence(tmp_path: Path) -> None:
    free = ("figures", "rows")  # what stands in them has names of its own
    for path in paths_of(trace()):
        if path == ("task",) or any(name in path[:-1] for name in free):
            continue
        made = copy.deepcopy(trace())
        holder: Any = made
        for key in path[:-1]:
            holder = holder[key]
        del holder[path[-1]]
        with pytest.raises(DataError, match=r"must be in the trace, and it is not there"):
            write_look(made, tmp_path / "look.html")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (trace(panels=[]), "must hold at least one"),
        (trace(panels=[panel(columns=[column(fit=curve(best=[1.0]))])]), "`fit` must hold 3 values, got 1"),
        (trace(panels=[panel(columns=[column(ahead=curve())])]), "`ahead` must hold 2 values, got 3"),
        (trace(panels=[panel(columns=[column(fit=curve(low=[1.0] * 3))])]), "both ends of a band"),
        (trace(panels=[panel(states={"path": [1], "probabilities": []})]), "`path` must hold 3 values, got 1"),
        (trace(panels=[panel(states={"path": [1] * 3, "probabilities": [[1.0]]})]), "`probabilities` must hold 5 values, got 1"),
        (trace(panels=[panel(components=[curve(best=[1.0])])]), "`components` must hold 3 values, got 1"),
        (trace(tables=[table(columns=["a"])]), "every row of the table `from ↓ to →` must hold 1 values"),
    ],
)
def test_a_trace_that_contradicts_itself_is_one_sentence(made: Made, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        write_look(made, tmp_path / "look.html")
    assert said in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_draws_states_and_bands_and_tells_each_point(tmp_path: Path) -> None:
    script = """
    const chart = document.querySelector('[data-chart]'), states = document.querySelector('[data-states]');
    const keys = (place, ...all) => all.forEach((key) => place.dispatchEvent(new KeyboardEvent('keydown', {key})));
    answer = [chart.querySelectorAll('polygon.band').length, chart.querySelectorAll('circle.past').length,
      states.querySelectorAll('polygon.area').length, states.querySelectorAll('rect.area').length];
    keys(chart, 'End'); answer.push(document.getElementById('told').textContent);
    keys(chart, 'Home', 'ArrowRight'); answer.push(TIP);
    keys(states, 'Home'); answer.push(TIP); keys(states, 'End'); answer.push(TIP);
    keys(states, 'Escape'); answer.push(document.getElementById('tip').hidden);
    document.body.style.width = '360px'; answer.push(document.querySelector('main').scrollWidth);""".replace("TIP", TIP)
    band, dots, areas, ribbons, told, missing, first, last, hidden, width = ask(trace(), tmp_path, script, width=500)
    assert (band, dots, areas, ribbons) == (1, 2, 2, 2)  # a missing value cuts what was seen into single points
    assert told == "Fri, forecast 5 (80 % between 4 and 60 k)"
    assert missing == "Tue\nmean of the state 2"
    assert first == "Mon\nlikeliest sequence: state 1\nstate 1: 90.0 %\nstate 2: 10.0 %"
    assert last == "Fri\nexpected\nstate 1: 50.0 %\nstate 2: 50.0 %"
    assert hidden
    assert width == 360
