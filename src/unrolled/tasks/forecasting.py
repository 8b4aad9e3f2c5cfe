"""Training a forecaster on series, scoring it by a rolling back-test beside simple forecasts, and forecasting with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from unrolled.core.errors import DataError, RunError
from unrolled.core.files import write_json
from unrolled.core.noise import Noise
from unrolled.core.settings import resolve
from unrolled.core.state import State
from unrolled.data.series import Series, SeriesFile, SeriesForm, read_series
from unrolled.data.time_axis import TimeAxis
from unrolled.models.forecaster import Forecaster, Shape
from unrolled.models.forecasts import mean_where
from unrolled.tasks.forecast_baselines import BASELINES
from unrolled.tasks.forecast_windows import Scale, Scales, SeriesWindows, Sizes, Window, check_windows, cut, scale_of
from unrolled.tasks.forecasting_settings import ForecastingRunSettings
from unrolled.tasks.recorded_data import record_files, recorded_files
from unrolled.tasks.row_windows import RowObjective, RowWindow, RowWindows
from unrolled.tasks.run_folder import RunFolder, new_run
from unrolled.tasks.training import Kind, Prepared, as_paths, facts_of, seeded, summary_of, train_new, train_on
from unrolled.tasks.training_log import Display, open_tensorboard
from unrolled.tasks.without_effect import FORECASTING_RULES
from unrolled.train.checkpoint import load_weights, read_checkpoint
from unrolled.train.group import Group
from unrolled.train.loop import Loss, Record
from unrolled.train.optimizers import build_optimizer
from unrolled.train.precision import Machine

SILENT = Noise()
USUAL_HORIZON = 12
"""Where neither a person nor the times say more."""
PATCHES = 24
"""At most so many steps make a window of the past where the season gives no patch."""
LEVELS = (0.1, 0.9)
"""Of the band that is scored and shown."""


class Learnt(NamedTuple):
    """What a run knows of its series besides weights."""

    targets: tuple[str, ...]
    known: tuple[str, ...]
    sizes: Sizes
    shape: Shape
    scales: Scales


class ForecastScores(NamedTuple):
    """How good forecasts are; in standard deviations of the training part, so that targets of any size count alike."""

    windows: int
    symbols: int
    """Values that were forecast."""
    loss: float
    """Of the model's own kind: nats of a Gaussian, pinball loss, or squared error."""
    mse: float
    mae: float
    coverage: float | None
    """Percent of values between the 10 % and the 90 % quantile; 80 is right. None where the model says none."""
    baselines: dict[str, list[float]]
    """Squared and absolute error of forecasts that nothing was learnt for, on the same windows."""


class Forecast(NamedTuple):
    """What comes behind the end of a series."""

    series: str
    axis: TimeAxis
    targets: tuple[str, ...]
    best: Float[np.ndarray, "horizon targets"]
    """Mean or median, in the unit of the file."""
    low: Float[np.ndarray, "horizon targets"] | None
    """The 10 % quantile."""
    high: Float[np.ndarray, "horizon targets"] | None
    """The 90 % quantile."""


class Opened(NamedTuple):
    """The windows of a run's own files."""

    train: SeriesWindows
    valid: SeriesWindows
    test: SeriesWindows | None


class ForecastObjective(RowObjective):
    """The loss of a forecaster's outputs, averaged over the values that are there."""

    def __init__(self, model: Forecaster) -> None:
        super().__init__()
        self.model = model

    def scored(self, window: RowWindow) -> int:
        """How many values the share has.

        Args:
            window: a share of a batch.

        Returns:
            Their number.
        """
        return int(window.batch.there.sum()) if window.counts else 0

    def forward(self, window: RowWindow, state: State, noise: Noise) -> Loss:
        """Forecast a batch.

        Args:
            window: a share of a batch.
            state: ignored.
            noise: where dropout takes its masks from.

        Returns:
            The objective and its sum.
        """
        batch = on(window.batch, self.model.device)
        said = self.model(batch.past, batch.marks, Noise(noise.generator, window.first_row, window.total_rows)).float()
        losses = self.model.output.loss(said, batch.future)
        mean = mean_where(losses, batch.there)
        return Loss(mean, (mean * batch.there.sum()).detach() * window.counts, None)


def on(window: Window, device: torch.device) -> Window:
    """Windows on a device.

    Args:
        window: anywhere.
        device: where to.

    Returns:
        The same there.
    """
    return Window(*(part.to(device) for part in window))


def form_of(data: Any) -> SeriesForm:
    """How files are written.

    Args:
        data: settings of the run.

    Returns:
        What the reader takes.
    """
    return SeriesForm(data.time, data.targets, data.known, data.series, data.delimiter, data.encoding)


def open_series(data: Any, files: Sequence[Path]) -> SeriesFile:
    """The series of files, which must have the same columns.

    Args:
        data: settings of the run.
        files: one or several.

    Returns:
        All of them.

    Raises:
        DataError: other columns, or two series of one name.
    """
    found = [read_series(path, form_of(data)) for path in files]
    for path, one in zip(files, found, strict=True):
        if one.targets != found[0].targets:
            raise DataError(
                f"all files must have the same columns to forecast, got {', '.join(one.targets)} in `{path.name}`; try `data.targets`"
            )
    named = [
        one._replace(name=path.stem) if len(files) > 1 and not one.name else one
        for path, part in zip(files, found, strict=True)
        for one in part.series
    ]
    names = [one.name for one in named]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"every series must be in one file, but `{twice}` is in two")
    return found[0]._replace(series=tuple(named), findings=tuple(said for one in found for said in one.findings))


def learn(settings: Any, found: SeriesFile) -> Learnt:
    """Sizes and scales of a run.

    Args:
        settings: of the run.
        found: the series that train, whole.

    Returns:
        What the run keeps of them.
    """
    data = settings.data
    axis = max((one.axis for one in found.series), key=lambda axis: len(axis.numbers))
    season = data.season or axis.step().season
    horizon = data.horizon or (season if season > 1 else USUAL_HORIZON)
    ends = cut(found.series, data.test)
    trained = [one.select(0, end) for one, end in zip(found.series, ends, strict=True)]
    longest = max((end for end in cut(trained, data.valid)), default=0)
    lookback = data.lookback or max(1, min(max(2 * horizon, 2 * season), (longest - horizon) // 2))
    scales = {one.name: scale_of(one.values[:end]) for one, end in zip(trained, cut(trained, data.valid), strict=True)}
    known = scale_of(np.concatenate([one.known for one in trained]))
    marks = len(found.known) + (axis.features().shape[1] if settings.model.calendar else 0)
    patch = settings.model.patch or usual_patch(lookback, horizon, season)
    shape = Shape(lookback, horizon, len(found.targets), marks, min(patch, lookback))
    return Learnt(found.targets, found.known, Sizes(lookback, horizon, season), shape, Scales(scales, known))


def usual_patch(lookback: int, horizon: int, season: int) -> int:
    """Points that are read at once: a season where there are several, else so many that few steps are left.

    Args:
        lookback: points of the past.
        horizon: points of the future.
        season: points of a season.

    Returns:
        At most the horizon.
    """
    wanted = season if 1 < season <= lookback // 4 else -(-lookback // PATCHES)
    return max(1, min(wanted, horizon))


def open_windows(settings: Any, learnt: Learnt, files: Sequence[Path], valid: Sequence[Path]) -> Opened:
    """The windows of a run.

    Args:
        settings: of the run.
        learnt: its sizes and scales.
        files: to train on.
        valid: to validate on; the ends of `files` when empty.

    Returns:
        What trains, what validates, and what is left for a test.
    """
    data, series = settings.data, open_series(settings.data, files).series
    ends = cut(series, data.test)
    middles = ends if valid else cut([one.select(0, end) for one, end in zip(series, ends, strict=True)], data.valid)

    def windows(own: Sequence[Series], spans: list[tuple[int, int]]) -> SeriesWindows:
        return SeriesWindows(own, learnt.scales, learnt.sizes, spans, calendar=settings.model.calendar)

    train = windows(series, [(0, middle) for middle in middles])
    advice = "give longer series, or a smaller `data.horizon` or `data.lookback`"
    check_windows(train, series, "to train on", advice)
    if valid:
        others = open_series(data, valid).series
        check = windows(others, [(0, len(one.values)) for one in others])
        check_windows(check, others, "to validate on", advice)
    else:
        check = windows(series, list(zip(middles, ends, strict=True)))
        check_windows(check, series, "to validate on", f"{advice}, or a larger `data.valid`")
    test = windows(series, [(end, len(one.values)) for one, end in zip(series, ends, strict=True)]) if data.test else None
    if test is not None:
        check_windows(test, series, "to test on", "try a larger `data.test`")
    return Opened(train, check, test)


def make_model(settings: Any, learnt: Learnt, *, trust: bool) -> Forecaster:
    """An untrained forecaster.

    Args:
        settings: of the run.
        learnt: its sizes.
        trust: allow the settings to import a class of the user's own.

    Returns:
        The model.
    """
    model: Forecaster = seeded(settings.train.seed, lambda: Forecaster(settings.model, learnt.shape, trust=trust))
    return model


def create_run(
    path: Path,
    settings: Any,
    files: tuple[list[Path], list[Path]],
    machine: Machine,
    group: Group,
    display: Display | None,
    *,
    trust: bool,
) -> None:
    """Make the run folder; everything that can go wrong before training goes wrong here, and then leaves nothing behind.

    Args:
        path: where the run shall stand.
        settings: of the run.
        files: to train on and to validate on.
        machine: what computes.
        group: the processes that will share the training.
        display: is told what a person should know.
        trust: allow the settings to import a class of the user's own.
    """
    with new_run(path) as folder:
        found = open_series(settings.data, files[0])
        learnt = learn(settings, found)
        opened = open_windows(settings, learnt, *files)
        model = make_model(settings, learnt, trust=trust)
        build_optimizer(model, settings.train.optimizer)
        if settings.train.tensorboard:
            open_tensorboard(None)
        save_learnt(learnt, folder.series)
        folder.write_config(settings)
        data = record_files(folder, *files) | {
            "series": len(found.series),
            "targets": list(found.targets),
            "train_tokens": int(sum(len(one.values) for one in found.series)),
            "train_windows": len(opened.train),
            "valid_windows": len(opened.valid),
            **learnt.sizes._asdict(),
        }
        folder.write_facts(facts_of("forecasting", path, machine, group, model, data))
    for note in found.findings:
        if display is not None:
            display.noted(note)


def save_learnt(learnt: Learnt, path: Path) -> None:
    """Write what a run knows of its series.

    Args:
        learnt: sizes and scales.
        path: where the file shall stand.
    """
    scales = {"series": {name: one._asdict() for name, one in learnt.scales.series.items()}, "known": learnt.scales.known._asdict()}
    write_json(path, learnt._asdict() | {"sizes": learnt.sizes._asdict(), "shape": learnt.shape._asdict(), "scales": scales})


def load_learnt(path: Path) -> Learnt:
    """Read what `save_learnt` wrote.

    Args:
        path: the file.

    Returns:
        Sizes and scales.

    Raises:
        RunError: the file is damaged.
    """

    def scale(content: Mapping[str, Any]) -> Scale:
        return Scale(tuple(map(float, content["mean"])), tuple(map(float, content["deviation"])))

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        series = {str(name): scale(one) for name, one in content["scales"]["series"].items()}
        return Learnt(
            tuple(map(str, content["targets"])),
            tuple(map(str, content["known"])),
            Sizes(**content["sizes"]),
            Shape(**content["shape"]),
            Scales(series, scale(content["scales"]["known"])),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"`{path}` must be what unrolled wrote, but it is damaged ({error}); try a whole copy of the run") from None


def prepare(folder: RunFolder, settings: Any, group: Group, trust: bool) -> Prepared:
    """Open what a run folder describes.

    Args:
        folder: the run.
        settings: of the run.
        group: the processes that share the training.
        trust: allow the settings to import a class of the user's own.

    Returns:
        What is trained, on what, and how it is scored.
    """
    train, learnt = settings.train, load_learnt(folder.series)
    opened = open_windows(settings, learnt, *recorded_files(folder))
    objective = ForecastObjective(make_model(settings, learnt, trust=trust))
    lengths = np.ones(len(opened.train), dtype=np.int64)
    source = RowWindows(
        (lengths,), lambda rows, epoch, among: opened.train.take(rows), batch_tokens=train.batch_windows, seed=train.seed, group=group
    )
    check = opened.valid.spread(train.evaluation_windows)

    def evaluate(module: Any, group: Group) -> Record:
        scores = score(module.model, opened.valid, check, train.evaluation_windows)
        return {name: value for name, value in scores._asdict().items() if name not in ("baselines", "windows") and value is not None}

    return Prepared(objective, source, evaluate, lambda module, record: None)


def kind() -> Kind:
    """What every training wants to know of its task.

    Returns:
        The hands of this task.
    """
    return Kind("forecasting", ForecastingRunSettings, prepare, recorded_files, FORECASTING_RULES)


@torch.no_grad()
def score(model: Forecaster, windows: SeriesWindows, rows: np.ndarray, most: int) -> ForecastScores:
    """Score forecasts of windows, and those of the baselines.

    Args:
        model: in evaluation mode.
        windows: of one part.
        rows: which of them.
        most: windows of a batch.

    Returns:
        The scores.
    """
    sums: dict[str, torch.Tensor] = {}
    count, inside, banded = 0, 0.0, False

    def add(name: str, error: torch.Tensor, there: torch.Tensor) -> None:
        error = torch.where(there, error, 0).double()
        sums[name] = sums.get(name, torch.zeros(2, dtype=torch.float64)) + torch.stack([error.square().sum(), error.abs().sum()]).cpu()

    losses = 0.0
    for begin in range(0, len(rows), min(most, BATCH)):
        batch = on(windows.take(rows[begin : begin + min(most, BATCH)]), model.device)
        said = model(batch.past, batch.marks).float()
        losses += float(torch.where(batch.there, model.output.loss(said, batch.future), 0).double().sum())
        count += int(batch.there.sum())
        add("", model.output.best(said) - batch.future, batch.there)
        for name, baseline in BASELINES.items():
            add(name, baseline(batch.past, windows.sizes.horizon, windows.sizes.season) - batch.future, batch.there)
        band = model.output.quantiles(said, LEVELS)
        if band is not None:
            banded = True
            within = (band[..., 0] <= batch.future) & (batch.future <= band[..., 1]) & batch.there
            inside += float(within.sum())
    if not count:
        raise DataError("there must be at least one value to score, but all are missing")
    mse, mae = (sums.pop("") / count).tolist()
    others = {name: (found / count).tolist() for name, found in sums.items()}
    return ForecastScores(len(rows), count, losses / count, mse, mae, 100 * inside / count if banded else None, others)


BATCH = 256
"""Windows that are scored at once."""


class ForecastingRun:
    """A trained forecaster with its scales and its run folder."""

    evaluation_options = frozenset({"split"})
    """What `evaluate` takes besides files."""

    def __init__(self, folder: RunFolder, *, trust: bool = False) -> None:
        """Open a run with its best weights.

        Args:
            folder: the run.
            trust: allow the run to import a class of its own.
        """
        folder.check_task("forecasting")
        self.folder = folder
        self.settings = resolve(ForecastingRunSettings, folder.read_config())
        self.learnt = load_learnt(folder.series)
        self.model = make_model(self.settings, self.learnt, trust=trust).eval()
        tensors, _ = read_checkpoint(folder.weights)
        load_weights(self.model, tensors, folder.weights)

    def evaluate(self, files: Sequence[Path | str] | Path | str | None = None, *, split: str = "valid") -> ForecastScores:
        """A rolling back-test: a forecast from every point that has enough past and future, beside forecasts that nothing was learnt for.

        Args:
            files: series in the form it was trained on; a part of the run's own when `None`.
            split: `valid`, `train`, or `test` where `data.test` left one.

        Returns:
            Errors of model and baselines.

        Raises:
            DataError: no such part.
        """
        if files:
            series = open_series(self.settings.data, as_paths(files)).series
            spans = [(0, len(one.values)) for one in series]
            windows: SeriesWindows | None = SeriesWindows(
                series, self.learnt.scales, self.learnt.sizes, spans, calendar=self.settings.model.calendar
            )
            assert windows is not None
            check_windows(windows, series, "to score", "give longer series")
        else:
            opened = open_windows(self.settings, self.learnt, *recorded_files(self.folder))
            windows = opened._asdict().get(split)
            if windows is None:
                raise DataError(f"`--split` must be one of train, valid, and test where `data.test` left a test part, got `{split}`")
        return score(self.model, windows, np.arange(len(windows)), BATCH)

    @torch.no_grad()
    def forecast(self, series: Series) -> Forecast:
        """What comes behind the last value.

        Args:
            series: its past; rows at the end without any target are the future of what is known in advance.

        Returns:
            The forecast, in the unit of the series.

        Raises:
            DataError: too short a past, or too little of what is known in advance.
        """
        lookback, horizon, _ = self.learnt.sizes
        there = ~np.isnan(series.values).all(1)
        end = int(np.flatnonzero(there)[-1]) + 1 if there.any() else 0
        if end < lookback:
            of = f" of `{series.name}`" if series.name else ""
            raise DataError(f"a forecast needs the last {lookback} points, got {end}{of}; give more of the past")
        ahead = len(series.values) - end
        if self.learnt.known and ahead < horizon:
            raise DataError(
                f"`{self.learnt.known[0]}` must be known for the {horizon} points that are forecast, but only {ahead} rows stand behind the last value"
            )
        past = series.select(0, end)
        after = past.axis.after(horizon)
        axis = TimeAxis(past.axis.texts + after.texts, np.concatenate([past.axis.numbers, after.numbers]), past.axis.dated)
        blank = np.full((horizon, past.values.shape[1]), np.nan)
        known = series.known[: end + horizon] if self.learnt.known else np.zeros((end + horizon, 0))
        whole = Series(series.name, axis, np.concatenate([past.values, blank]), known)
        scale = self.learnt.scales.series.get(series.name) or scale_of(past.values)
        scales = Scales({series.name: scale}, self.learnt.scales.known)
        windows = SeriesWindows([whole], scales, self.learnt.sizes, [(end, end + horizon)], calendar=self.settings.model.calendar)
        batch = on(windows.take(np.arange(1)), self.model.device)
        said = self.model(batch.past, batch.marks).float()
        band = self.model.output.quantiles(said, LEVELS)

        def own(values: torch.Tensor) -> Float[np.ndarray, "horizon targets"]:
            return values[0].double().cpu().numpy() * scale.deviation + scale.mean

        low, high = (None, None) if band is None else (own(band[..., 0]), own(band[..., 1]))
        return Forecast(series.name, after, self.learnt.targets, own(self.model.output.best(said)), low, high)

    def forecasts(self, found: SeriesFile) -> Iterator[Forecast]:
        """What comes behind every series.

        Args:
            found: their past.

        Yields:
            A forecast each.
        """
        for one in found.series:
            yield self.forecast(one)

    def summary(self) -> dict[str, Any]:
        """How the training ended.

        Returns:
            Run, status and the best figures.
        """
        return summary_of(self.folder)


def train_forecasting(
    files: Sequence[Path | str] | Path | str,
    *,
    valid: Sequence[Path | str] | Path | str = (),
    out: Path | str | None = None,
    differences: Mapping[str, Any] | None = None,
    display: Display | None = None,
    trust: bool = False,
) -> ForecastingRun:
    """Train a forecaster on series.

    Args:
        files: CSV files with a header, plain or `.gz`.
        valid: to validate on; the end of every series when empty.
        out: the run folder; a new one below `runs/` when `None`.
        differences: nested options that differ from the defaults, such as `{"data": {"horizon": 24}}`.
        display: shows the training as it goes.
        trust: allow the settings to import a class of the user's own.

    Returns:
        The run, with the best weights loaded.
    """
    paths = as_paths(files), as_paths(valid)
    settings = resolve(ForecastingRunSettings, differences or {})

    def create(path: Path, machine: Machine, group: Group) -> None:
        create_run(path, settings, paths, machine, group, display, trust=trust)

    stem = f"forecasting-{paths[0][0].name.split('.')[0]}" if paths[0] else "forecasting"
    return load_forecasting(train_new(kind(), settings, create, out=out, stem=stem, display=display, trust=trust), trust=trust)


def resume_forecasting(
    path: Path | str, *, changes: Mapping[str, Any] | None = None, display: Display | None = None, trust: bool = False
) -> ForecastingRun:
    """Go on with a training where its last checkpoint stands.

    Args:
        path: the run folder.
        changes: nested options; only the end of the training, its surroundings, and what saves one that diverges may change.
        display: shows the training as it goes.
        trust: allow the settings to import a class of the user's own.

    Returns:
        The run, with the best weights loaded.
    """
    return load_forecasting(train_on(kind(), path, changes or {}, display=display, trust=trust), trust=trust)


def load_forecasting(path: Path | str, *, trust: bool = False) -> ForecastingRun:
    """Open a run with its best weights.

    Args:
        path: the run folder.
        trust: allow the run to import a class of its own.

    Returns:
        The run.
    """
    return ForecastingRun(RunFolder(Path(path)), trust=trust)
