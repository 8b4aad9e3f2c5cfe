"""Structural forecasts of all windows beside the same model asked window by window, and when there are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from unrolled.core.errors import DataError
from unrolled.data.series import Series
from unrolled.data.time_axis import counted
from unrolled.ssm.kalman import LocalTrend, Seasonal, StructuralModel, TrigonometricSeasonal
from unrolled.tasks import forecast_structural
from unrolled.tasks.forecast_structural import components_of, fit_structural
from unrolled.tasks.forecast_windows import Scale, Scales, SeriesWindows, WindowSizes
from unrolled.tasks.forecasting import train_forecasting

from .test_forecasting import options, sine, write


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast_structural, "ITERATIONS", 3)


SCALES = Scales({"a": Scale((2.0,), (3.0,)), "b": Scale((-1.0,), (0.5,))}, Scale((), ()))
SIZES = WindowSizes(6, 5, 4)


def made(name: str, length: int, seed: int) -> Series:
    values = np.random.default_rng(seed).normal(size=(length, 1)).cumsum(0) + np.arange(length)[:, None] % 4
    values[[length // 3, length - 4]] = np.nan
    return Series(name, counted(length), values, np.zeros((length, 0)))


def both() -> tuple[list[Series], list[int], SeriesWindows]:
    series, ends = [made("a", 40, 0), made("b", 25, 1)], [28, 15]
    spans = [(end, len(one.values)) for one, end in zip(series, ends, strict=True)]
    return series, ends, SeriesWindows(series, SCALES, SIZES, spans, calendar=False)


def test_forecasts_are_those_of_the_model_asked_window_by_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast_structural, "FIT_POINTS", 20)
    series, ends, windows = both()
    found = fit_structural(series, SCALES, ends, windows).of(np.arange(len(windows)))
    rows = iter(found)
    for one, end in zip(series, ends, strict=True):
        scale = SCALES.series[one.name]
        values = torch.from_numpy((one.values - scale.mean) / scale.deviation).unsqueeze(0)
        model = StructuralModel(LocalTrend() + Seasonal(4)).fit(values[:, max(0, end - 20) : end], iterations=3, starts=(0.03,))
        for origin in range(end, len(one.values) - 5 + 1):
            torch.testing.assert_close(next(rows), model.forecast(values[:, :origin], 5).means[0].float(), rtol=1e-4, atol=1e-5)
    assert next(rows, None) is None


def test_nothing_behind_a_window_or_a_training_part_is_known() -> None:
    series, ends, windows = both()
    before = fit_structural(series, SCALES, ends, windows).of(np.arange(len(windows)))
    series[0].values[30:] += 7
    changed = SeriesWindows(series, SCALES, SIZES, [(28, 40), (15, 25)], calendar=False)
    after = fit_structural(series, SCALES, ends, changed).of(np.arange(len(windows)))
    assert torch.equal(before[:3], after[:3])  # up to 28, 29 and 30 points
    assert not torch.isclose(before[3:8], after[3:8]).any()
    assert torch.equal(before[8:], after[8:])


def test_a_filter_may_begin_later(monkeypatch: pytest.MonkeyPatch) -> None:
    series, ends = [made("a", 400, 0)], [390]
    windows = SeriesWindows(series, SCALES, SIZES, [(390, 400)], calendar=False)
    whole = fit_structural(series, SCALES, ends, windows).of(np.arange(len(windows)))
    monkeypatch.setattr(forecast_structural, "HISTORY", 60)
    later = fit_structural(series, SCALES, ends, windows).of(np.arange(len(windows)))
    assert not torch.equal(later, whole)
    torch.testing.assert_close(later, whole, rtol=0, atol=1e-3)


def test_what_a_series_is_made_of() -> None:
    assert components_of(1, 100) == (LocalTrend(),)
    assert components_of(12, 24) == (LocalTrend(), Seasonal(12))
    assert components_of(12, 23) == (LocalTrend(),)
    assert components_of(24, 600) == (LocalTrend(), TrigonometricSeasonal(24, 4))
    assert components_of(8766, 10**6) == (LocalTrend(),)


def test_what_cannot_be_fitted_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    series, ends, windows = both()
    series[1].values[:15] = 3.0
    with pytest.raises(DataError, match=r"a column of `b` cannot be fitted: every output must vary, got 8 everywhere"):
        fit_structural(series, SCALES, ends, windows)
    monkeypatch.setattr(forecast_structural, "MOST_POINTS", 10)
    with pytest.raises(DataError, match="the filter reads at most 10 points, which are 35 of `a`"):
        fit_structural(series, SCALES, ends, windows)
    monkeypatch.setattr(forecast_structural, "MOST_FITS", 1)
    with pytest.raises(DataError, match="at most 1 columns are fitted, counted over all series, got 2"):
        fit_structural(series, SCALES, ends, windows)


def test_a_run_is_scored_beside_them_or_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "f.csv", x=sine(120))
    run = train_forecasting(path, out=tmp_path / "run", differences=options(train__steps=1, train__evaluations=1, data__test=30))
    found = run.evaluate(split="test")
    assert found.left_out is None
    assert found.baselines["structural"][0] < 0.5 * found.baselines["naive"][0]
    monkeypatch.setattr(forecast_structural, "kernel", lambda: None)
    found = run.evaluate()
    assert found.left_out == "it takes too long without a C++ compiler"
    assert set(found.baselines) == {"naive", "seasonal naive", "drift"}
