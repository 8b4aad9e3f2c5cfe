"""The page of forecasts: what it says and draws, in a browser as well, and that a wrong trace is one sentence."""

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


def chart(**fan: Any) -> Made:
    return {
        "times": ["Mon", "Tue", "Wed"],
        "past": [1.0, None, 3.0],
        "fan": {"times": ["Thu", "Fri"], "best": [4.0, 5.0], "low": [3.5, 4.0], "high": [4.5, 60000.0], "truth": None} | fan,
    }


def panel(**changes: Any) -> Made:
    return {"series": "north", "target": "sold", "chart": chart(), "checks": [chart(truth=[4.2, None])]} | changes


def trace(**changes: Any) -> Made:
    made = {"format": 1, "task": "forecasting", "run": "runs/a", "source": "shops.csv", "part": "the test part"}
    return made | {"panels": [panel()], "more": 0, "figures": {"look-back": 3}} | changes


def page_of(made: Made, folder: Path) -> Page:
    return Page(write_look(made, folder / "look.html").read_text(encoding="utf-8"))


def test_all_of_a_forecast_is_told(tmp_path: Path) -> None:
    page = page_of(trace(more=2), tmp_path)
    assert page.headings == ["shops.csv", "north · sold", "Forecasts whose truth is known: the test part"]
    assert "Forecast: 4 (80 % between 3.5 and 4.5) at Thu, 5 (80 % between 4 and 60,000) at Fri." in page.said
    assert "2 more columns are not drawn; ask for more with --set panels=3" in page.said
    assert [attributes["data-chart"] for tag, attributes in page.tags if "data-chart" in attributes] == ["0", "1"]
    ((first, second),) = json.loads(page.scripts[0])
    assert first["times"] == ["Mon", "Tue", "Wed", "Thu", "Fri"]
    assert (first["past"], first["truth"], second["truth"]) == ([1, None, 3], None, [4.2, None])


def test_a_forecast_without_band_or_checks(tmp_path: Path) -> None:
    page = page_of(trace(panels=[panel(series="", chart=chart(low=None, high=None), checks=[])]), tmp_path)
    assert page.headings == ["shops.csv", "sold"]
    assert "Forecast: 4 at Thu, 5 at Fri." in page.said
    assert "80 %" not in page.said
    assert "what came" not in page.said


def test_no_text_of_a_file_becomes_a_tag(tmp_path: Path) -> None:
    one = chart(times=[HOSTILE, HOSTILE]) | {"times": [HOSTILE] * 3}
    made = trace(run=HOSTILE, source=HOSTILE, part=HOSTILE, figures={HOSTILE: HOSTILE}, panels=[panel(series=HOSTILE, chart=one)])
    page = page_of(made, tmp_path)
    assert sum(tag == "script" for tag, _ in page.tags) == 2
    assert not any(tag == "img" or "onerror" in attributes for tag, attributes in page.tags)


@pytest.mark.parametrize("broken", [math.nan, math.inf, None])
def test_values_that_are_no_numbers_are_dashes(tmp_path: Path, broken: float | None) -> None:
    nothing = [broken, broken]
    one = chart(best=nothing, low=nothing, high=nothing, truth=nothing) | {"past": [broken] * 3}
    page = page_of(trace(panels=[panel(chart=one)]), tmp_path)
    assert not re.search(r"\b(nan|inf|None)\b", page.said, re.IGNORECASE)
    assert json.loads(page.scripts[0])[0][0]["best"] == [None, None]


def test_a_trace_without_a_key_is_one_sentence(tmp_path: Path) -> None:
    for path in paths_of(trace()):
        made = copy.deepcopy(trace())
        holder: Any = made
        for key in path[:-1]:
            holder = holder[key]
        del holder[path[-1]]
        if path == ("task",):  # what has no task is no trace of a forecast
            continue
        with pytest.raises(DataError, match=r"must be in the trace, and it is not there"):
            write_look(made, tmp_path / "look.html")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (trace(panels=[]), "must hold at least one"),
        (trace(panels=[panel(chart=chart(best=[1.0]))]), "`best` must hold one value for each of the 2 times, got 1"),
        (trace(panels=[panel(chart=chart() | {"past": [1.0]})]), "`past` must hold one value for each of the 3 times, got 1"),
        (trace(panels=[panel(chart=chart(low=None))]), "both ends of a band"),
        (trace(panels=[panel(checks=[chart(times=[], best=[], low=[], high=[])])]), "at least one point"),
    ],
)
def test_a_trace_that_contradicts_itself_is_one_sentence(made: Made, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        write_look(made, tmp_path / "look.html")
    assert said in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_draws_lines_band_and_gaps_and_tells_each_point(tmp_path: Path) -> None:
    script = """
    const [first, second] = document.querySelectorAll('.chart');
    const keys = (...all) => all.forEach((key) => first.dispatchEvent(new KeyboardEvent('keydown', {key})));
    answer = [first.querySelectorAll('polygon.band').length, first.querySelectorAll('circle.past').length, first.querySelectorAll('.truth').length,
      second.querySelectorAll('.truth').length, getComputedStyle(document.querySelector('.legend .band')).opacity];
    keys('End'); answer.push(document.getElementById('told').textContent);
    keys('Home', 'ArrowRight'); answer.push(TIP); keys('Escape'); answer.push(document.getElementById('tip').hidden);
    document.body.style.width = '360px'; answer.push(document.querySelector('main').scrollWidth);""".replace("TIP", TIP)
    band, dots, none, came, opacity, told, missing, hidden, width = ask(trace(), tmp_path, script, width=500)
    assert (band, dots, none, came, opacity) == (1, 2, 0, 1, "1")  # a missing value cuts the past into single points
    assert told == "Fri, forecast 5, 80 % between 4 and 60 k"
    assert missing == "Tue\nmissing"
    assert hidden
    assert width == 360
