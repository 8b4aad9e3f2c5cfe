"""Structural models as a baseline of back-tests: level, trend and season, fitted to what trains, filtered up to each window, and run on from there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.data.series import Series
from unrolled.ssm.kalman import Component, LinearGaussian, LocalTrend, Seasonal, StructuralModel, TrigonometricSeasonal, kalman_filter
from unrolled.ssm.kalman.compiled import kernel
from unrolled.tasks.forecast_windows import Scales, SeriesWindows

FIT_POINTS = 600
"""So many of the last points of a training part are fitted to, or `SEASONS` seasons where these are more."""
SEASONS = 3
HISTORY = 2000
"""So many points before the first window the filter begins."""
MOST_FITS = 100
"""Columns of all series together; of many more, fits would take minutes."""
MOST_POINTS = 20_000
"""Of a series that the filter reads: it keeps a covariance a point."""
EACH_EFFECT = 12
"""A season of so many points has an effect a point; of a longer one so many states would be slow, and it is made of waves."""
WAVES = 4
LONGEST_SEASON = 400
ITERATIONS, STARTS = 25, (0.03,)
"""Of the search; a longer one from more starts gains little for a forecast."""


class Filtered(NamedTuple):
    """One column of one series."""

    begin: int
    """The first point that the filter read."""
    means: Float[Tensor, "time states"]
    """Of the state, given the outputs up to each point."""
    outlook: Float[Tensor, "horizon states"]
    """What a state lets expect of the next outputs."""

    def forecast(self, origins: np.ndarray) -> Float[Tensor, "windows horizon"]:
        """What comes from some points on.

        Args:
            origins: the first points that are not known.

        Returns:
            The means.
        """
        return self.means[torch.from_numpy(origins - self.begin - 1)] @ self.outlook.T


class StructuralForecasts:
    """Structural forecasts of all windows of a part."""

    def __init__(self, windows: SeriesWindows, columns: Sequence[Sequence[Filtered]]) -> None:
        """Of windows.

        Args:
            windows: of one part.
            columns: the filtered columns of each series.
        """
        self._windows, self._columns = windows, columns

    def of(self, rows: np.ndarray) -> Float[Tensor, "batch horizon targets"]:
        """Forecasts of some windows.

        Args:
            rows: which.

        Returns:
            In deviations of the training part, as all forecasts.
        """
        series, origins = self._windows.origins(rows)
        found = torch.zeros(len(rows), self._windows.sizes.horizon, len(self._columns[0]))
        for number in np.unique(series):
            mine = series == number
            said = [column.forecast(origins[mine]) for column in self._columns[number]]
            found[torch.from_numpy(mine)] = torch.stack(said, -1).float()
        return found


def fit_structural(series: Sequence[Series], scales: Scales, ends: Sequence[int], windows: SeriesWindows) -> StructuralForecasts:
    """Fit each column of each series once, and filter it up to the last window.

    Args:
        series: whole; those of the windows.
        scales: of the run.
        ends: where the training part of each ends.
        windows: of one part.

    Returns:
        Their forecasts.

    Raises:
        DataError: it would take too long, or a column cannot be fitted; the sentence says which.
    """
    fits = sum(one.values.shape[1] for one in series)
    if fits > MOST_FITS:
        raise DataError(f"at most {MOST_FITS} columns are fitted, counted over all series, got {fits}")
    if kernel() is None:
        raise DataError("it takes too long without a C++ compiler")
    owners, origins = windows.origins(np.arange(len(windows)))
    columns = []
    for number, (one, end) in enumerate(zip(series, ends, strict=True)):
        mine = origins[owners == number]
        if not len(mine):
            columns.append([Filtered(0, torch.zeros(0, 1).double(), torch.zeros(windows.sizes.horizon, 1).double())] * one.values.shape[1])
            continue
        scale = scales.of(one)
        values = torch.from_numpy((one.values - scale.mean) / scale.deviation)
        begin, until = max(0, int(mine.min()) - HISTORY), int(mine.max())
        if until - begin > MOST_POINTS:
            raise DataError(f"the filter reads at most {MOST_POINTS:,} points, which are {until - begin:,}{_of(one)}")
        columns.append([_filtered(one, values[:, target], end, (begin, until), windows) for target in range(values.shape[1])])
    return StructuralForecasts(windows, columns)


def components_of(season: int, points: int) -> tuple[Component, ...]:
    """What a series of a season is made of.

    Args:
        season: points of it, 1 where none is known.
        points: how many there are to fit to.

    Returns:
        A trend, and the season where `points` show it twice.
    """
    trend = LocalTrend()
    if season < 2 or season > LONGEST_SEASON or points < 2 * season:
        return (trend,)
    if season <= EACH_EFFECT:
        return trend + Seasonal(season)
    return trend + TrigonometricSeasonal(season, WAVES)


def _filtered(one: Series, values: Tensor, end: int, span: tuple[int, int], windows: SeriesWindows) -> Filtered:
    """Fit a column to the end of its training part, and filter it."""
    _, horizon, season = windows.sizes
    seen = values[max(0, end - max(FIT_POINTS, SEASONS * min(season, LONGEST_SEASON))) : end]
    model = StructuralModel(components_of(season, len(seen)))
    try:
        model.fit(seen.view(1, -1, 1), iterations=ITERATIONS, starts=STARTS)
    except DataError as error:
        raise DataError(f"a column{_of(one)} cannot be fitted: {error}") from None
    begin, until = span
    filtered = kalman_filter(model.system, values[begin:until].view(1, -1, 1))
    return Filtered(begin, filtered.means[0], outlook_of(model.system, horizon))


def outlook_of(system: LinearGaussian, horizon: int) -> Float[Tensor, "horizon states"]:
    """`C A^k`, for k = 1 to the horizon: what the state of a point lets expect of the outputs behind it.

    Args:
        system: of one output, without inputs.
        horizon: how many.

    Returns:
        A row a step.
    """
    rows, now = [], system.emission[0]
    for _ in range(horizon):
        now = now @ system.transition
        rows.append(now)
    return torch.stack(rows)


def _of(one: Series) -> str:
    return f" of `{one.name}`" if one.name else ""
