"""What a fitted hidden Markov model says of series: in which states they were, and what comes next."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrolled.core.errors import ConfigurationError
from unrolled.core.padded import Padded
from unrolled.data.series import Series
from unrolled.tasks.fit_data import tensors_of
from unrolled.tasks.fit_panels import FitLook, Panel, curve, forecast_curve, plain
from unrolled.tasks.fitted_run import FittedRun
from unrolled.tasks.forecasting import Forecast
from unrolled.tasks.series_future import end_of, with_future
from unrolled.tasks.series_settings import LEVEL

DRAWS = 4000
"""Continuations of a series of which the ends of a band are quantiles."""


class States(NamedTuple):
    """What a model says of the states of a series."""

    path: Int[np.ndarray, " time"]
    """The likeliest sequence of states (Viterbi), counted from 1."""
    probabilities: Float[np.ndarray, "time states"]
    """`P(state at t)`, given the whole series."""


class HiddenMarkovRun(FittedRun):
    """A fitted hidden Markov model with its run folder."""

    def states(self, series: Series) -> States:
        """In which states a series was.

        Args:
            series: in the form that the model was fitted to.

        Returns:
            A row a point.
        """
        outputs, inputs = tensors_of([series], to_end=False)
        path, posterior = self.model.decode(outputs, inputs), self.model.posterior(outputs, inputs)
        return States(path.states[0].numpy() + 1, posterior.data[0].numpy())

    def forecast(self, series: Series, horizon: int | None = None, *, level: float = LEVEL) -> Forecast:
        """What comes behind the last value; of symbols, the probability of each.

        Args:
            series: its past; rows at the end without any value are the future of what is known in advance.
            horizon: how many points; a season, or 12, or as many as are known in advance, when not given.
            level: the share of drawn continuations within the band; symbols have none.

        Returns:
            The forecast, in the unit of the series.

        Raises:
            ConfigurationError: a share that is none.
        """
        whole, outputs, both = self._ahead(series, horizon or max(self.usual_horizon(series), 1))
        end, horizon = end_of(series), len(whole.values) - end_of(series)
        found = self.model.predict(outputs, horizon, inputs=both)
        axis, best = whole.axis.select(end, end + horizon), found.mean[0].numpy()
        if self.reading.symbols:
            return Forecast(series.name, axis, self.reading.symbols, best, None, None)
        if not 0 < level < 1:
            raise ConfigurationError(f"`level` must be above 0 and below 1, got {level:g}")
        drawn = self.model.draw_ahead(outputs, horizon, draws=DRAWS, inputs=both)[0]
        shares = drawn.new_tensor([(1 - level) / 2, (1 + level) / 2])
        # A column at a time: older versions of torch take at most 2^24 numbers.
        ends = torch.stack([torch.quantile(column, shares, dim=0) for column in drawn.unbind(-1)], -1).numpy()
        return Forecast(series.name, axis, self.reading.targets, best, ends[0], ends[1])

    def coming_states(self, series: Series, horizon: int) -> Float[np.ndarray, "horizon states"]:
        """In which states a series will be.

        Args:
            series: its past.
            horizon: how many points.

        Returns:
            Probabilities.
        """
        _, outputs, both = self._ahead(series, horizon)
        found: np.ndarray = self.model.predict(outputs, horizon, inputs=both).states[0].numpy()
        return found

    def _ahead(self, series: Series, horizon: int) -> tuple[Series, Padded, tuple[Tensor, Tensor] | None]:
        """The series with its future, its outputs, and what is known of both."""
        end = end_of(series)
        whole = with_future(series, horizon, self.reading.known, self.reading.step)
        outputs, inputs = tensors_of([whole.select(0, end)])
        return whole, outputs, None if inputs is None else (inputs, torch.from_numpy(whole.known[end:]).unsqueeze(0))

    def panel(self, series: Series, settings: FitLook) -> Panel:
        """The series, the mean of its states, what comes next, and the probabilities of the states.

        Args:
            series: in the form that the model was fitted to.
            settings: what is asked for.

        Returns:
            A part of a trace.
        """
        past, symbols = series.select(0, end_of(series)), list(self.reading.symbols)
        horizon = settings.horizon or (0 if symbols else self.usual_horizon(series))
        states, coming = self.states(past), self.coming_states(series, horizon)
        forecast = self.forecast(series, horizon, level=settings.level) if horizon else None
        means = self.model.emission.mean().numpy()
        columns = []
        for place, name in list(enumerate(self.reading.targets))[: settings.columns]:
            fit = None if symbols else curve("mean of the state", means[states.path - 1, place])
            ahead = None if symbols or forecast is None else forecast_curve(forecast, place)
            values = plain(past.values[:, place])
            columns.append({"name": name, "values": values, "levels": symbols or None, "fit": fit, "ahead": ahead})
        chances = np.concatenate([states.probabilities, coming]).T.tolist()
        return {
            "series": series.name,
            "times": [*past.axis.texts, *(forecast.axis.texts if forecast is not None else ())],
            "columns": columns,
            "states": {"path": states.path.tolist(), "probabilities": chances},
            "components": [],
        }
