"""Training a forecaster on series, scoring it by a rolling back-test beside simple forecasts, and forecasting with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.core.noise import Noise
from unrolled.core.settings import resolve
from unrolled.core.state import State
from unrolled.data.series import Series, SeriesFile
from unrolled.data.time_axis import TimeAxis
from unrolled.models.forecaster import Forecaster
from unrolled.models.forecasts import mean_where
from unrolled.tasks.forecast_scores import LEVELS, ForecastScores, on, score
from unrolled.tasks.forecast_structural import StructuralForecasts, fit_structural
from unrolled.tasks.forecast_windows import SeriesWindows, check_windows
from unrolled.tasks.forecasting_data import Learnt, learn, load_learnt, open_series, open_windows, parts_of, save_learnt, windows_of
from unrolled.tasks.forecasting_settings import ForecastingRunSettings
from unrolled.tasks.recorded_data import record_files, recorded_files
from unrolled.tasks.row_windows import RowObjective, RowWindow, RowWindows
from unrolled.tasks.run_folder import RunFolder, new_run
from unrolled.tasks.series_future import end_of, with_future
from unrolled.tasks.task import DataFiles, Task
from unrolled.tasks.training import as_paths, facts_of, seeded, summary_of
from unrolled.tasks.training_log import Display, Prepared, open_tensorboard
from unrolled.tasks.without_effect import FORECASTING_RULES
from unrolled.train.checkpoint import load_weights, read_checkpoint
from unrolled.train.group import Group
from unrolled.train.loop import Loss, Record
from unrolled.train.optimizers import build_optimizer
from unrolled.train.precision import Machine

NOT_KEPT = ("baselines", "left_out", "windows")
"""Scores that are not written down during training."""
NO_PART = "they are fitted to the training part of each series, which other files have none of"
"""Why there are no structural forecasts."""


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
    opened = open_windows(settings.data, learnt, *recorded_files(folder))
    objective = ForecastObjective(make_model(settings, learnt, trust=trust))
    lengths = np.ones(len(opened.train), dtype=np.int64)
    source = RowWindows(
        (lengths,), lambda rows, epoch, among: opened.train.take(rows), batch_tokens=train.batch_windows, seed=train.seed, group=group
    )
    check = opened.valid.spread(train.evaluation_windows)

    def evaluate(module: Any, group: Group) -> Record:
        scores = score(module.model, opened.valid, check)
        return {name: value for name, value in scores._asdict().items() if name not in NOT_KEPT and value is not None}

    return Prepared(objective, source, evaluate, lambda module, record: None)


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
        self.folder = folder
        self.settings = resolve(ForecastingRunSettings, folder.read_config())
        self.learnt = load_learnt(folder.series)
        self.model = make_model(self.settings, self.learnt, trust=trust).eval()
        tensors, _ = read_checkpoint(folder.weights)
        load_weights(self.model, tensors, folder.weights)

    def evaluate(
        self, files: Sequence[Path | str] | Path | str | None = None, *, split: str = "valid", structural: bool = True
    ) -> ForecastScores:
        """A rolling back-test: a forecast from every point that has enough past and future, beside simple forecasts.

        Args:
            files: series in the form it was trained on; a part of the run's own when `None`.
            split: `valid`, `train`, or `test` where `data.test` left one.
            structural: fit structural models as well, one a column, which takes a part of a second each.

        Returns:
            Errors of model and baselines.

        Raises:
            ConfigurationError: no such part.
        """
        if files:
            series = open_series(self.settings.data, as_paths(files), self.learnt.targets).series
            windows = windows_of(self.learnt, series)
            check_windows(windows, series, "to score", "give longer series")
            return score(self.model, windows, np.arange(len(windows)))._replace(left_out=NO_PART if structural else None)
        recorded = DataFiles(*recorded_files(self.folder))
        opened = open_windows(self.settings.data, self.learnt, *recorded)
        parts = {name: part for name, part in opened._asdict().items() if part is not None}
        if split not in parts:
            why = "" if opened.test is not None else "; the run left no test part (`data.test`)"
            raise ConfigurationError(f"`--split` must be one of {', '.join(parts)}, got `{split}`{why}")
        found, left_out = None, None
        if structural:
            try:
                found = self._structural(parts[split], recorded, split)
            except DataError as error:
                left_out = str(error)
        return score(self.model, parts[split], np.arange(len(parts[split])), found)._replace(left_out=left_out)

    def _structural(self, windows: SeriesWindows, recorded: DataFiles, split: str) -> StructuralForecasts:
        """Structural models of the run's own series."""
        if recorded.valid and split == "valid":
            raise DataError(NO_PART)
        data = self.settings.data
        series = open_series(data, recorded.train, self.learnt.targets).series
        ends = parts_of(data, series, self.learnt.sizes.horizon, valid=bool(recorded.valid)).valid
        return fit_structural(series, self.learnt.scales, ends, windows)

    @torch.no_grad()
    def forecast(self, series: Series) -> Forecast:
        """What comes behind the last value.

        Args:
            series: its past; rows at the end without any target are the future of what is known in advance.

        Returns:
            The forecast, in the unit of the series.
        """
        whole, end = self._with_future(series)
        horizon, scale = self.learnt.sizes.horizon, self.learnt.scales.of(whole)
        batch = on(windows_of(self.learnt, [whole], [(end, end + horizon)]).take(np.arange(1)), self.model.device)
        said = self.model(batch.past, batch.marks).float()
        band = self.model.output.quantiles(said, LEVELS)

        def own(values: torch.Tensor) -> Float[np.ndarray, "horizon targets"]:
            return values[0].double().cpu().numpy() * scale.deviation + scale.mean

        low, high = (None, None) if band is None else (own(band[..., 0]), own(band[..., 1]))
        axis = whole.axis.select(end, end + horizon)
        return Forecast(series.name, axis, self.learnt.targets, own(self.model.output.best(said)), low, high)

    def _with_future(self, series: Series) -> tuple[Series, int]:
        """The series with as many rows behind its last value as are forecast, and where they begin."""
        lookback, horizon, _ = self.learnt.sizes
        end = end_of(series)
        if end < lookback:
            of = f" of `{series.name}`" if series.name else ""
            raise DataError(f"a forecast needs the last {lookback} points{of}, got {end}; give more of the past")
        return with_future(series, horizon, self.learnt.known), end

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


class ForecastingTask(Task[ForecastingRun]):
    """How a forecaster is trained."""

    name = "forecasting"
    settings = ForecastingRunSettings
    rules = FORECASTING_RULES
    prepare = staticmethod(prepare)

    def create_run(
        self,
        path: Path,
        settings: Any,
        files: DataFiles,
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
            found = open_series(settings.data, files.train)
            learnt = learn(settings, found, valid=bool(files.valid))
            opened = open_windows(settings.data, learnt, *files)
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
            folder.write_facts(facts_of(self.name, path, machine, group, model, data, unit="value"))
        for note in found.findings:
            if display is not None:
                display.noted(note)

    def open_run(self, folder: RunFolder, *, trust: bool) -> ForecastingRun:
        """Open a run with its best weights.

        Args:
            folder: the run.
            trust: allow the run to import a class of its own.

        Returns:
            The run.
        """
        return ForecastingRun(folder, trust=trust)


FORECASTING = ForecastingTask()
train_forecasting = FORECASTING.train
"""Train a forecaster on series in CSV files; see `Task.train`."""
resume_forecasting = FORECASTING.resume
"""Go on with a training where its last checkpoint stands; see `Task.resume`."""
load_forecasting = FORECASTING.load
"""Open a run with its best weights; see `Task.load`."""
