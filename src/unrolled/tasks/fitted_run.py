"""What a run of `unrolled fit` can do: forecast, score, tell what was learnt."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unrolled.core.errors import RunError
from unrolled.data.series import Series, SeriesFile
from unrolled.tasks.fit_data import Reading, load_reading, open_data, tensors_of
from unrolled.tasks.fit_panels import FitLook, Panel
from unrolled.tasks.forecasting import Forecast
from unrolled.tasks.recorded_data import recorded_files
from unrolled.tasks.run_folder import RunFolder
from unrolled.tasks.series_future import end_of
from unrolled.tasks.series_settings import LEVEL
from unrolled.tasks.training import as_paths, summary_of


class FitScores(NamedTuple):
    """How well a model fits series."""

    log_likelihood: float
    """Of all series together, in nats."""
    loss: float
    """The negative log-likelihood a value."""
    perplexity: float | None
    """Its exponential, where values are symbols."""
    values: int
    """How many were seen."""


class FittedRun(ABC):
    """A fitted model with its run folder."""

    evaluation_options: frozenset[str] = frozenset()
    """What `evaluate` takes besides files: nothing."""

    def __init__(self, folder: RunFolder, settings: Any, model: Any) -> None:
        """Of what a task has opened.

        Args:
            folder: the run.
            settings: of the run.
            model: fitted.
        """
        self.folder, self.settings, self.model = folder, settings, model
        self.reading: Reading = load_reading(folder.series)

    @abstractmethod
    def forecast(self, series: Series, horizon: int | None = None, *, level: float = LEVEL) -> Forecast:
        """What comes behind the last value.

        Args:
            series: its past; rows at the end without any value are the future of what is known in advance.
            horizon: how many points; a season, or 12, or as many as are known in advance, when not given.
            level: the share of values that shall fall into the band.

        Returns:
            The forecast, in the unit of the series.
        """

    @abstractmethod
    def panel(self, series: Series, settings: FitLook) -> Panel:
        """All that is drawn of a series.

        Args:
            series: in the form that the model was fitted to.
            settings: what is asked for.

        Returns:
            A part of a trace.
        """

    def usual_horizon(self, series: Series) -> int:
        """How many points are forecast where nothing is said: a season, or 12; of known inputs as far as they are known.

        Args:
            series: with the rows behind its last value.

        Returns:
            At least 0.
        """
        return len(series.values) - end_of(series) if self.reading.known else self.reading.horizon

    def forecasts(self, found: SeriesFile, horizon: int | None = None, *, level: float = LEVEL) -> Iterator[Forecast]:
        """What comes behind every series.

        Args:
            found: their past.
            horizon: how many points; a season, or 12, or as many as are known in advance, when not given.
            level: the share of values that shall fall into the band.

        Yields:
            A forecast each.
        """
        for one in found.series:
            yield self.forecast(one, horizon, level=level)

    def open(self, files: Sequence[Path | str] | Path | str | None = None) -> SeriesFile:
        """Series in the form that the model was fitted to.

        Args:
            files: one path or several; the run's own when `None`.

        Returns:
            The series.
        """
        paths = recorded_files(self.folder)[0] if files is None else as_paths(files)
        return open_data(self.settings.data, paths, symbols=bool(self.reading.symbols), reading=self.reading)

    def evaluate(self, files: Sequence[Path | str] | Path | str | None = None) -> FitScores:
        """How likely series are.

        Args:
            files: in the form that the model was fitted to; the run's own when `None`.

        Returns:
            Log-likelihood and loss.
        """
        outputs, inputs = tensors_of(self.open(files).series)
        log_likelihood = self.model.score(outputs, inputs)
        values = int((~outputs.data[outputs.mask].isnan()).sum())
        loss = -log_likelihood / max(values, 1)
        return FitScores(log_likelihood, loss, perplexity_of(loss) if self.reading.symbols else None, values)

    def history(self) -> list[dict[str, Any]]:
        """The log-likelihood in each iteration.

        Returns:
            A line each, with `states` (where several were tried), `start`, `iteration` and `log_likelihood`.
        """
        return self.folder.metric_lines()

    def learnt(self) -> list[dict[str, Any]]:
        """What the model has learnt, as tables.

        Returns:
            Of each its `name`, its `columns`, and `rows` of numbers by name.

        Raises:
            RunError: the file is damaged.
        """
        try:
            return list(json.loads(self.folder.learnt.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"`{self.folder.learnt}` must be what unrolled wrote, but it is damaged ({error}); fit again") from None

    def summary(self) -> dict[str, Any]:
        """How the fit ended.

        Returns:
            Run, status and figures.
        """
        return summary_of(self.folder)


def perplexity_of(loss: float) -> float:
    """The exponential of a loss.

    Args:
        loss: in nats.

    Returns:
        As many symbols are as if equally likely; infinite beyond what can be said.
    """
    return math.exp(loss) if loss < 700 else math.inf
