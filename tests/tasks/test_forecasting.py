"""Forecasting from file to scores: where windows lie, what they may know, what is learnt, kept, resumed, refused, and forecast."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unrolled
from unrolled.core.errors import ConfigurationError, DataError, RunError
from unrolled.core.noise import Noise
from unrolled.core.settings import merge, parse_override, resolve
from unrolled.data.series import Series, SeriesFile, read_series
from unrolled.data.time_axis import counted
from unrolled.models.forecaster import Forecaster, Shape
from unrolled.models.forecasts import Quantiles
from unrolled.report import write_look
from unrolled.tasks.forecast_baselines import drift, naive, seasonal_naive
from unrolled.tasks.forecast_look import read_for_look, trace_forecasting
from unrolled.tasks.forecast_scores import LEVELS
from unrolled.tasks.forecast_windows import Scale, Scales, SeriesWindows, Window, WindowSizes, scale_of
from unrolled.tasks.forecasting import ForecastingRun, ForecastObjective, resume_forecasting, train_forecasting
from unrolled.tasks.forecasting_data import learn, load_learnt, open_windows
from unrolled.tasks.forecasting_settings import ForecastingRunSettings
from unrolled.tasks.row_windows import RowWindow
from unrolled.tasks.without_effect import FORECASTING_RULES, without_effect
from unrolled.train.checkpoint import read_checkpoint

TINY: dict[str, Any] = {
    "data": {"horizon": 4, "lookback": 16, "season": 8},
    "model": {"hidden_size": 16, "patch": 4, "output_dropout": 0.0},
    "train": {
        "steps": 120,
        "evaluations": 2,
        "average": None,
        "precision": "fp32",
        "threads": 1,
        "optimizer": {"learning_rate": 0.02},
        "schedule": {"warmup_steps": 5},
    },
}


def options(**changes: Any) -> dict[str, Any]:
    """`TINY` with other values: `train__steps=3`."""
    found: Mapping[str, Any] = TINY
    for key, value in changes.items():
        for name in reversed(key.split("__")):
            value = {name: value}
        found = merge(found, value)
    return dict(found)


def write(path: Path, **columns: Sequence[Any]) -> Path:
    """Columns as CSV; NaN is an empty cell."""
    rows = zip(*columns.values(), strict=True)
    lines = [",".join("" if value != value else str(value) for value in row) for row in rows]
    path.write_text("\n".join([",".join(columns), *lines]) + "\n")
    return path


def sine(length: int = 240, seed: int = 0) -> np.ndarray:
    """A season of 8 points on a slow random walk."""
    draw = np.random.default_rng(seed)
    steps = np.arange(length)
    return 50 + 10 * np.sin(steps * 2 * np.pi / 8) + np.cumsum(draw.normal(0, 0.3, length))


def series(values: np.ndarray, name: str = "", known: np.ndarray | None = None) -> Series:
    values = values.reshape(len(values), -1)
    return Series(name, counted(len(values)), values, np.zeros((len(values), 0)) if known is None else known)


UNIT = Scales({"": Scale((0.0,), (1.0,))}, Scale((), ()))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[ForecastingRun, Path]:
    folder = tmp_path_factory.mktemp("forecasting")
    path = write(folder / "sine.csv", x=sine())
    return train_forecasting(path, out=folder / "run", differences=options(data__valid=40, data__test=30)), path


# --- Windows ------------------------------------------------------------------------------------------------------------


def test_windows_lie_where_they_should() -> None:
    found = series(np.arange(100.0))
    windows = SeriesWindows([found], UNIT, WindowSizes(10, 5, 1), [(50, 70)], calendar=False)
    assert len(windows) == 16  # futures 50–54, 51–55, …, 65–69
    taken = windows.take(np.array([0, 15]))
    assert taken.future.tolist() == [list(map(list, np.arange(start, start + 5)[:, None])) for start in (50, 65)]
    assert taken.past[0, :, 0].tolist() == list(range(40, 50))
    assert taken.there.all()
    assert len(SeriesWindows([found], UNIT, WindowSizes(10, 5, 1), [(0, 50)], calendar=False)) == 36  # the first 10 points are past alone
    two = SeriesWindows([found, found], UNIT, WindowSizes(10, 5, 1), [(90, 100), (0, 15)], calendar=False)
    assert two.take(np.arange(len(two))).future[:, 0, 0].tolist() == [90, 91, 92, 93, 94, 95, 10]
    assert windows.spread(4).tolist() == [0, 5, 10, 15]
    assert windows.spread(99).tolist() == list(range(16))


def test_the_parts_of_a_run_by_hand_count(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", x=np.arange(100))
    for data, counts in (
        ({"valid": 20, "test": 30}, (36, 16, 26)),
        ({"valid": 0.2, "test": 0.5}, (26, 6, 46)),
        ({}, (76, 6, None)),  # a tenth of 100 points
        ({"horizon": 20}, (38, 14, None)),  # a third of them: less than two horizons
    ):
        settings = resolve(ForecastingRunSettings, {"data": {"horizon": 5, "lookback": 10} | data})
        learnt = learn(settings, read_series(path), valid=False)
        opened = open_windows(settings.data, learnt, [path], [])
        assert tuple(None if part is None else len(part) for part in opened) == counts
    learnt = learn(settings, read_series(path), valid=True)
    opened = open_windows(settings.data, learnt, [path], [path])
    assert (len(opened.train), len(opened.valid)) == (71, 71)
    assert learnt.scales.series[""] == scale_of(np.arange(100.0)[:, None])


def test_nothing_of_the_future_is_in_a_past() -> None:
    draw = np.random.default_rng(0)
    values = draw.normal(size=(60, 2))
    values[draw.random(values.shape) < 0.3] = np.nan
    values[:15, 1] = np.nan  # longer than a window of the past
    scales = Scales({"": Scale((0.0, 0.0), (1.0, 1.0))}, Scale((), ()))
    sizes = WindowSizes(8, 4, 1)
    windows = SeriesWindows([series(values)], scales, sizes, [(0, 60)], calendar=False)
    origins = windows.begins + 8
    assert origins[0] == int((~np.isnan(values[:, 1])).argmax()) + 1  # earlier ones know nothing of the second column
    for row, origin in enumerate(map(int, origins)):
        changed = values.copy()
        changed[origin:] = draw.normal(size=changed[origin:].shape)
        again = SeriesWindows([series(changed)], scales, sizes, [(origin, origin + 4)], calendar=False)
        torch.testing.assert_close(again.take(np.array([0])).past, windows.take(np.array([row])).past)


def test_scales_are_of_the_training_part_and_of_each_series(tmp_path: Path) -> None:
    values = np.concatenate([sine(100), sine(100) * 1000])
    columns = {"of": ["a"] * 100 + ["b"] * 100, "x": values, "p": np.tile(np.arange(100.0), 2)}
    path = write(tmp_path / "f.csv", **columns)
    settings = resolve(ForecastingRunSettings, options(data__series="of", data__known=["p"], data__valid=20, data__test=20))
    learnt = learn(settings, read_series(path, unrolled_form(settings)), valid=False)
    for name, own in (("a", values[:60]), ("b", values[100:160])):
        assert learnt.scales.series[name].mean == pytest.approx([own.mean()])
        assert learnt.scales.series[name].deviation == pytest.approx([own.std()])
    assert learnt.scales.known.mean == pytest.approx([np.arange(60).mean()])
    later = values.copy()
    later[60:100] *= 9
    later[160:] *= 9
    changed = write(tmp_path / "g.csv", **columns | {"x": later})
    assert learn(settings, read_series(changed, unrolled_form(settings)), valid=False) == learnt
    opened = [open_windows(settings.data, learnt, [file], []).train for file in (path, changed)]
    first, second = (part.take(np.arange(len(part))) for part in opened)
    assert len(opened[0]) == 2 * (60 - 16 - 4 + 1)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(first.past[:41], first.past[41:])  # `b` is `a` in other units


def unrolled_form(settings: ForecastingRunSettings) -> Any:
    from unrolled.tasks.forecasting_data import form_of

    return form_of(settings.data)


def test_a_series_that_begins_only_after_training_is_scaled_as_the_others(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", of=["a"] * 100 + ["b"] * 10, x=np.concatenate([sine(100), sine(10)]))
    settings = resolve(ForecastingRunSettings, options(data__series="of", data__valid=20))
    learnt = learn(settings, read_series(path, unrolled_form(settings)), valid=False)
    assert learnt.scales.series["b"] == learnt.scales.series["a"]


def test_a_constant_column_has_a_scale() -> None:
    assert scale_of(np.full((9, 1), 0.1)).deviation == (1.0,)
    assert scale_of(np.zeros((0, 2))) == Scale((0.0, 0.0), (1.0, 1.0))
    assert scale_of(np.array([[1.0], [np.nan], [3.0]])) == Scale((2.0,), (1.0,))


def test_simple_forecasts_by_hand() -> None:
    past = torch.tensor([1.0, 5.0, 2.0, 7.0]).view(1, 4, 1)
    assert naive(past, 3, 3).flatten().tolist() == [7, 7, 7]
    assert seasonal_naive(past, 5, 3).flatten().tolist() == [5, 2, 7, 5, 2]
    assert seasonal_naive(past, 2, 9).flatten().tolist() == [7, 7]
    assert drift(past, 2, 3).flatten().tolist() == [9, 11]


# --- Training and scores ------------------------------------------------------------------------------------------------


def test_a_season_on_a_walk_is_learnt(trained: tuple[ForecastingRun, Path]) -> None:
    run, _ = trained
    for split, windows in (("valid", 37), ("test", 27), ("train", 170 - 16 - 4 + 1)):
        found = run.evaluate(split=split, structural=False)
        assert (found.windows, found.symbols) == (windows, 4 * windows)
        assert found.mse < 0.1 * found.baselines["naive"][0]
        assert found.coverage is not None
        assert 40 < found.coverage < 100
    assert found.mse < found.baselines["seasonal naive"][0]


def test_a_back_test_is_one_forecast_after_the_other(trained: tuple[ForecastingRun, Path]) -> None:
    run, path = trained
    (whole,) = read_series(path).series
    deviation = whole.values[:170].std()
    errors, inside, walks = [], [], []
    for origin in range(210, 240 - 4 + 1):
        found = run.forecast(whole.select(0, origin))
        truth = whole.values[origin : origin + 4]
        assert found.low is not None
        assert found.high is not None
        errors.append((found.best - truth) / deviation)
        inside.append((found.low <= truth) & (truth <= found.high))
        walks.append((whole.values[origin - 1] - truth) / deviation)
    scores = run.evaluate(split="test", structural=False)
    assert scores.mse == pytest.approx(np.square(errors).mean(), rel=1e-4)
    assert scores.mae == pytest.approx(np.abs(errors).mean(), rel=1e-4)
    assert scores.coverage == pytest.approx(100 * np.mean(inside))
    assert scores.baselines["naive"] == pytest.approx([np.square(walks).mean(), np.abs(walks).mean()], rel=1e-4)


def test_a_run_is_kept_whole(trained: tuple[ForecastingRun, Path]) -> None:
    run, path = trained
    again = unrolled.load(run.folder.path)
    assert isinstance(again, ForecastingRun)
    assert again.learnt == run.learnt
    assert again.evaluate(structural=False) == run.evaluate(structural=False)
    facts = json.loads((run.folder.path / "run.json").read_text())
    assert facts["data"]["targets"] == ["x"]
    assert (facts["data"]["train_windows"], facts["data"]["valid_windows"]) == (151, 37)
    assert facts["result"]["mse"] == pytest.approx(again.evaluate(structural=False).mse)
    assert run.evaluate(path).windows == 240 - 16 - 4 + 1


def test_going_on_ends_where_an_uninterrupted_training_does(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", x=sine(80), y=sine(80, seed=1))
    given = {"train__schedule__name": "constant", "model__output_dropout": 0.2, "model__input_dropout": 0.2}
    whole = train_forecasting(path, out=tmp_path / "whole", differences=options(train__steps=8, **given))
    train_forecasting(path, out=tmp_path / "parts", differences=options(train__steps=4, **given))
    parts = resume_forecasting(tmp_path / "parts", changes={"train": {"steps": 8}})
    first, second = (read_checkpoint(run.folder.checkpoint)[0] for run in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_unit_of_a_file_is_that_of_its_forecast(tmp_path: Path) -> None:
    plain = sine(100)
    found = []
    for name, values in (("plain", plain), ("other", 1000 * plain - 7)):
        path = write(tmp_path / f"{name}.csv", x=values)
        run = train_forecasting(path, out=tmp_path / name, differences=options(train__steps=5))
        found.append(run.forecast(read_series(path).series[0]))
    np.testing.assert_allclose(found[1].best, 1000 * found[0].best - 7, rtol=1e-4)
    assert found[0].low is not None
    assert found[1].low is not None
    np.testing.assert_allclose(found[1].low, 1000 * found[0].low - 7, rtol=1e-4)
    assert found[0].axis.texts == ("100", "101", "102", "103")


def test_what_is_missing_counts_neither_in_loss_nor_in_scores(trained: tuple[ForecastingRun, Path], tmp_path: Path) -> None:
    run, _ = trained
    values = sine(40, seed=5)
    values[[20, 21, 30]] = np.nan
    found = run.evaluate(write(tmp_path / "f.csv", x=values))
    windows = range(16, 40 - 4 + 1)
    assert found.windows == len(windows)
    assert found.symbols == sum(int((~np.isnan(values[origin : origin + 4])).sum()) for origin in windows)
    last = np.array([values[:origin][~np.isnan(values[:origin])][-1] for origin in windows])
    errors = (
        np.array([values[origin : origin + 4] - last[row] for row, origin in enumerate(windows)]) / run.learnt.scales.series[""].deviation
    )
    assert found.baselines["naive"] == pytest.approx([np.nanmean(errors**2), np.nanmean(np.abs(errors))], rel=1e-4)

    windows_there = SeriesWindows([series(values)], run.learnt.scales, run.learnt.sizes, [(0, 40)], calendar=False)
    batch = windows_there.take(np.arange(len(windows_there)))
    objective = ForecastObjective(run.model)
    loss = objective(RowWindow(batch, 0, len(batch.past)), None, Noise())
    said = run.model(batch.past, batch.marks)
    wanted = run.model.output.loss(said, batch.future)[batch.there]
    assert loss.objective.item() == pytest.approx(wanted.mean().item())
    assert loss.nats.item() == pytest.approx(wanted.sum().item())
    assert objective.scored(RowWindow(batch, 0, len(batch.past))) == found.symbols
    blank = batch._replace(there=torch.zeros_like(batch.there))
    assert objective(RowWindow(blank, 0, len(batch.past)), None, Noise()).objective.item() == 0


def test_inputs_that_are_known_in_advance_are_used(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    known = draw.normal(size=200)
    path = write(tmp_path / "f.csv", sold=5 + 3 * known + draw.normal(0, 0.1, 200), price=known)
    given = options(data__known=["price"], data__targets=["sold"], data__lookback=4, model__centre="none", model__patch=1)
    run = train_forecasting(path, out=tmp_path / "run", differences=given)
    found = run.evaluate(structural=False)
    assert found.mse < 0.1 * min(error for error, _ in found.baselines.values())

    (whole,) = read_series(path, unrolled_form(run.settings)).series
    whole.values[-4:] = np.nan
    forecast = run.forecast(whole)
    assert np.abs(forecast.best[:, 0] - (5 + 3 * known[-4:])).max() < 1.5
    assert forecast.axis.texts == ("196", "197", "198", "199")
    with pytest.raises(DataError, match=r"`price` must be known for all 4 points that are forecast, but 3 rows stand behind"):
        run.forecast(whole.select(0, 199))


def test_several_files_are_several_series(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}.csv", x=sine(60, seed)) for seed, name in enumerate("ab")]
    run = train_forecasting(paths, out=tmp_path / "run", differences=options(train__steps=1, train__evaluations=1))
    assert set(run.learnt.scales.series) == {"a", "b"}
    (forecast,) = run.forecasts(read_series(paths[0]))
    assert forecast.best.shape == (4, 1)
    with pytest.raises(DataError, match="`a` is in two"):
        train_forecasting([paths[0], paths[0]], out=tmp_path / "no", differences=options())
    other = write(tmp_path / "c.csv", y=sine(60))
    with pytest.raises(DataError, match=r"must have the same columns to forecast, got `y` in `c\.csv`"):
        train_forecasting([paths[0], other], out=tmp_path / "no", differences=options())
    assert not (tmp_path / "no").exists()


def test_columns_of_other_files_are_found_by_their_names(tmp_path: Path) -> None:
    columns = {"x": sine(80), "y": 100 - sine(80, seed=1)}
    run = train_forecasting(
        write(tmp_path / "f.csv", **columns), out=tmp_path / "run", differences=options(train__steps=3, train__evaluations=1)
    )
    swapped = write(tmp_path / "g.csv", z=np.ones(80), y=columns["y"], x=columns["x"])
    assert run.evaluate(swapped) == run.evaluate(tmp_path / "f.csv")
    with pytest.raises(ConfigurationError, match=r"must name columns of `h\.csv`, got `y`"):
        run.evaluate(write(tmp_path / "h.csv", x=columns["x"]))


def test_dates_are_seen_and_asked_for(tmp_path: Path) -> None:
    dates = [str(np.datetime64("2020-01-01T00", "h") + hour) for hour in range(80)]
    path = write(tmp_path / "f.csv", date=[text.replace("T", " ") + ":00" for text in dates], x=sine(80))
    run = train_forecasting(path, out=tmp_path / "run", differences=options(train__steps=1, train__evaluations=1))
    assert run.learnt.calendar
    assert run.learnt.shape.marks == 6
    assert run.forecast(read_series(path).series[0]).axis.texts[0] == "2020-01-04 08:00"
    with pytest.raises(DataError, match="times must be dates, as those that the run was trained on"):
        run.evaluate(write(tmp_path / "g.csv", x=sine(80)))
    blind = train_forecasting(
        path, out=tmp_path / "blind", differences=options(train__steps=1, train__evaluations=1, model__calendar=False)
    )
    assert not blind.learnt.calendar


@pytest.mark.parametrize(
    ("dates", "length", "wanted"),
    [
        ("M", 144, WindowSizes(24, 12, 12)),
        ("h", 500, WindowSizes(48, 24, 24)),
        (None, 100, WindowSizes(24, 12, 1)),
        (None, 40, WindowSizes(7, 12, 1)),
    ],
)
def test_usual_sizes_follow_from_the_times(dates: str | None, length: int, wanted: WindowSizes, tmp_path: Path) -> None:
    columns: dict[str, Any] = {"x": sine(length)}
    if dates is not None:
        columns = {"date": [str(np.datetime64("2020-01", dates) + step) for step in range(length)]} | columns
    found = read_series(write(tmp_path / "f.csv", **columns))
    learnt = learn(ForecastingRunSettings(), found, valid=False)
    assert learnt.sizes == wanted
    open_windows(ForecastingRunSettings().data, learnt, [tmp_path / "f.csv"], [])


@pytest.mark.parametrize(
    ("length", "data", "words"),
    [
        (1, {}, "must have room for a window of 16 points of the past and 4 of the future to train on, but the longest has 1 points"),
        (19, {}, "to train on, but the longest has 19 points"),
        (60, {"valid": 3}, "to validate on, but the longest has 60 points; .* or a larger `data.valid`"),
        (60, {"test": 3}, "to test on, but the longest has 60 points; try a larger `data.test`"),
        (60, {"valid": 1000}, "to train on"),
    ],
)
def test_too_short_series_leave_nothing_behind(length: int, data: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", x=sine(length))
    with pytest.raises(DataError, match=words):
        train_forecasting(path, out=tmp_path / "run", differences=merge(options(), {"data": data}))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["f.csv"]


def test_what_a_forecast_needs(trained: tuple[ForecastingRun, Path], tmp_path: Path) -> None:
    run, path = trained
    (whole,) = read_series(path).series
    with pytest.raises(DataError, match="a forecast needs the last 16 points, got 15"):
        run.forecast(whole.select(0, 15))
    short = SeriesFile((whole.select(0, 16)._replace(name="a"), whole.select(0, 2)._replace(name="b")), ("x",), (), None, ())
    with pytest.raises(DataError, match="of `b`, got 2"):
        list(run.forecasts(short))
    with pytest.raises(ConfigurationError, match=r"`--split` must be one of train, valid, test, got `best`$"):
        run.evaluate(split="best")
    with pytest.raises(DataError, match="all are missing"):
        run.evaluate(write(tmp_path / "f.csv", x=[*sine(16), *[np.nan] * 4], y=range(20)))
    broken = tmp_path / "series.json"
    broken.write_text("{}")
    with pytest.raises(RunError, match=r"series\.json` must be what unrolled wrote"):
        load_learnt(broken)


# --- A look inside ------------------------------------------------------------------------------------------------------


def test_a_look_draws_the_runs_own_forecasts(trained: tuple[ForecastingRun, Path], tmp_path: Path) -> None:
    run, path = trained
    trace = trace_forecasting(run, None, "")
    (panel,) = trace["panels"]
    (whole,) = read_series(path).series
    assert (trace["source"], trace["part"], trace["more"]) == ("sine.csv", "the test part", 0)
    assert panel["chart"]["past"] == whole.values[-16:, 0].tolist()
    assert panel["chart"]["fan"]["best"] == run.forecast(whole).best[:, 0].tolist()
    assert panel["chart"]["fan"]["truth"] is None
    assert [check["fan"]["times"][0] for check in panel["checks"]] == ["210", "223", "236"]
    for check in panel["checks"]:
        origin = int(check["fan"]["times"][0])
        assert check["fan"]["truth"] == whole.values[origin : origin + 4, 0].tolist()
        assert check["fan"]["low"] == run.forecast(whole.select(0, origin)).low[:, 0].tolist()
    assert write_look(trace, tmp_path / "look.html").exists()
    other = trace_forecasting(run, read_for_look(run, path), "sine.csv", past=30, checks=2)
    assert [check["fan"]["times"][0] for check in other["panels"][0]["checks"]] == ["232", "236"]
    assert len(other["panels"][0]["chart"]["past"]) == 30
    with pytest.raises(ConfigurationError, match=r"`steps` is no option of looking into a run of the task `forecasting`"):
        trace_forecasting(run, None, "", steps=3)


def test_without_a_test_part_there_is_none_to_score(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", x=sine(60))
    run = train_forecasting(
        path, out=tmp_path / "run", differences=options(train__steps=1, train__evaluations=1, model__output__kind="point")
    )
    with pytest.raises(ConfigurationError, match=r"got `test`; the run left no test part \(`data\.test`\)"):
        run.evaluate(split="test")
    assert run.evaluate(structural=False).coverage is None
    assert run.forecast(read_series(path).series[0]).low is None


def test_options_without_effect_are_told() -> None:
    def told(**changes: Any) -> list[str]:
        return without_effect(resolve(ForecastingRunSettings, options(**changes)), FORECASTING_RULES)

    assert told() == []
    (said,) = told(model__output__quantiles=[0.1, 0.5, 0.9])
    assert "`model.output.quantiles`" in said
    assert told(model__output={"kind": "quantiles", "quantiles": [0.1, 0.5, 0.9]}) == []
    (said,) = told(model__encoder={"kind": "transformer", "cell": "lstm"})
    assert "`model.encoder.cell`" in said


OPTIONS = [
    "encoder.layers=3",
    "encoder.cell=lstm",
    "encoder.bidirectional=true",
    "encoder.width=5",
    "transformer.heads=1",
    "transformer.norm=post",
    "patch=3",
    "channels=joint",
    "centre=mean",
    "shortcut=true",
    "calendar=false",
    "input_dropout=0.5",
    "hidden_dropout=0.5",
    "recurrent_dropout=0.5",
    "output_dropout=0.5",
    "output.kind=point",
    "output.quantiles=[0.2, 0.5, 0.8]",
]


def test_the_usual_quantiles_hold_the_band_that_is_shown() -> None:
    output = Quantiles(ForecastingRunSettings().model.output.quantiles)
    band = output.quantiles(torch.arange(10.0).view(2, 5), LEVELS)
    assert band is not None
    assert band.tolist() == [[0, 4], [5, 9]]


@pytest.mark.parametrize(
    "base",
    [[], ["encoder.layers=2"], ["encoder.kind=transformer"], ["encoder.kind=convolutional"], ["output.kind=quantiles"]],
    ids=" ".join,
)
def test_a_forecaster_is_the_same_exactly_where_that_is_told(base: list[str]) -> None:
    def settings_of(*given: str) -> ForecastingRunSettings:
        differences: dict[str, Any] = {"model": {"hidden_size": 8, "transformer": {"heads": 2}}}
        for option in (*base, *given):
            differences = merge(differences, parse_override(f"model.{option}"))
        return resolve(ForecastingRunSettings, differences)

    def loss(settings: ForecastingRunSettings) -> float:
        """The objective of a batch under dropout: all that a model's options can change."""
        torch.manual_seed(0)
        marks = 1 + 6 * settings.model.calendar
        model = Forecaster(settings.model, Shape(12, 6, 2, marks, settings.model.patch or 4)).train()
        draw = torch.Generator().manual_seed(1)
        parts = [torch.randn(3, time, size, generator=draw) for time, size in ((12, 2), (18, marks), (6, 2))]
        batch = Window(*parts, torch.ones(3, 6, 2, dtype=torch.bool))
        return ForecastObjective(model)(RowWindow(batch, 0, 3), None, Noise(torch.Generator().manual_seed(0))).objective.item()

    before = settings_of()
    for option in OPTIONS:
        after = settings_of(option)
        if after.model != before.model:
            told = without_effect(after, FORECASTING_RULES)
            key = f"`model.{option.partition('=')[0]}`"
            assert any(key in said.partition(":")[0] for said in told) == (loss(after) == loss(before)), option
