"""What a fitted linear-Gaussian model says of series: what they are without noise, and what comes next."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.core.padded import Padded
from unrolled.data.series import Series
from unrolled.ssm.kalman import LinearGaussian, Smoothed, StructuralModel
from unrolled.tasks.fit_data import tensors_of
from unrolled.tasks.fit_panels import FitLook, Panel, banded, forecast_curve, plain
from unrolled.tasks.fitted_run import FittedRun
from unrolled.tasks.forecasting import Forecast
from unrolled.tasks.series_future import end_of, with_future
from unrolled.tasks.series_settings import LEVEL


class LinearRun(FittedRun):
    """A fitted linear-Gaussian model with its run folder."""

    def forecast(self, series: Series, horizon: int | None = None, *, level: float = LEVEL) -> Forecast:
        """What comes behind the last value, with the band that a share of values falls into.

        Args:
            series: its past; rows at the end without any value are the future of what is known in advance.
            horizon: how many points; a season, or 12, or as many as are known in advance, when not given.
            level: the share.

        Returns:
            The forecast, in the unit of the series.

        Raises:
            DataError: its past is too short to fix the state.
        """
        found = self._forecast(series, horizon, level)
        if not is_fixed(found):
            there, rank = int((~np.isnan(series.values)).sum()), self.model.system.rank
            of = f" of `{series.name}`" if series.name else ""
            raise DataError(
                f"a forecast needs at least {rank} value{'s' * (rank != 1)} of the past to fix the state, "
                f"got {there}{of}{' that do not' * (there >= rank)}; give more of the past"
            )
        return found

    def _forecast(self, series: Series, horizon: int | None, level: float) -> Forecast:
        """The same, with an infinitely wide band where the past does not fix the state."""
        horizon, end = horizon or max(self.usual_horizon(series), 1), end_of(series)
        whole = with_future(series, horizon, self.reading.known, self.reading.step)
        outputs, inputs = tensors_of([whole.select(0, end)])
        future = torch.from_numpy(whole.known[end:]).unsqueeze(0) if self.reading.known else None
        found = self.model.forecast(outputs, horizon, inputs, future_inputs=future, level=level)
        best, low, high = (part[0].numpy() for part in (found.means, found.lower, found.upper))
        return Forecast(series.name, whole.axis.select(end, end + horizon), self.reading.targets, best, low, high)

    def panel(self, series: Series, settings: FitLook) -> Panel:
        """The series, what it is without noise, what comes next, and the parts or the hidden state, all with bands.

        Args:
            series: in the form that the model was fitted to.
            settings: what is asked for.

        Returns:
            A part of a trace.
        """
        past, horizon = series.select(0, end_of(series)), settings.horizon or self.usual_horizon(series)
        forecast = self._forecast(series, horizon, settings.level) if horizon else None
        forecast = forecast if forecast is not None and is_fixed(forecast) else None
        outputs, inputs = tensors_of([past])
        system: LinearGaussian = self.model.system
        smoothed, known = self.model.smooth(outputs, inputs), self.model.known_inputs(outputs, inputs)
        means = smoothed.means[0] @ system.emission.T
        if known is not None and system.emission_input is not None:
            means = means + known[0] @ system.emission_input.T
        spread = torch.einsum("dk,tkl,dl->td", system.emission, smoothed.covariances[0], system.emission)
        columns = []
        for place, name in list(enumerate(self.reading.targets))[: settings.columns]:
            fit = banded("without noise", means[:, place], spread[:, place], settings.level)
            values = plain(past.values[:, place])
            columns.append(
                {
                    "name": name,
                    "values": values,
                    "levels": None,
                    "fit": fit,
                    "ahead": None if forecast is None else forecast_curve(forecast, place),
                }
            )
        times = [*past.axis.texts, *(forecast.axis.texts if forecast is not None else ())]
        components = self._components(outputs, inputs, smoothed, settings.level)
        return {"series": series.name, "times": times, "columns": columns, "states": None, "components": components}

    def _components(self, outputs: Padded, inputs: Tensor | None, smoothed: Smoothed, level: float) -> list[dict[str, Any]]:
        """What adds up to the series, or the numbers of the hidden state."""
        if isinstance(self.model, StructuralModel):
            parts = self.model.decompose_with_variances(outputs, inputs)
            # One alone is what the series is without noise.
            return [banded(name, one.means[0], one.variances[0], level) for name, one in parts.items()] if len(parts) > 1 else []
        means, variances = smoothed.means[0].T, smoothed.covariances[0].diagonal(dim1=1, dim2=2).T
        return [banded(f"hidden {place}", *pair, level) for place, pair in enumerate(zip(means, variances, strict=True), 1)]


def is_fixed(forecast: Forecast) -> bool:
    """Whether the past told enough for a forecast.

    Args:
        forecast: with its band.

    Returns:
        False where the band is infinitely wide.
    """
    return forecast.low is None or bool(np.isfinite(forecast.low).all())
