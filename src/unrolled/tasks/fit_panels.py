"""What is drawn of a series and a fitted model: curves with bands, as parts of a trace."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from unrolled.core.settings import Settings
from unrolled.ssm.kalman.forecast import band
from unrolled.tasks.forecasting import Forecast
from unrolled.tasks.series_settings import LEVEL

Panel = dict[str, Any]
"""A series as `report` draws it: what JSON knows."""


class FitLook(Settings):
    """What is drawn of a fitted model."""

    past: int = Field(2000, ge=2)
    """At most so many points of the past are drawn, the last ones."""
    panels: int = Field(4, ge=1, le=100)
    """At most so many series are drawn."""
    columns: int = Field(12, ge=1, le=100)
    """At most so many columns of each."""
    horizon: int | None = Field(None, ge=1)
    """Points that are forecast; a season, or 12, when `none`, and none of symbols."""
    level: float = Field(LEVEL, gt=0, lt=1)
    """The share of values that shall fall into the bands."""


def banded(name: str, means: Tensor, variances: Tensor, level: float) -> dict[str, Any]:
    """A curve of normal variables.

    Args:
        name: what it is.
        means: `[time]`.
        variances: `[time]`.
        level: the share of values within the band.

    Returns:
        A part of a trace.
    """
    low, high = band(means, variances.clamp(min=0), level)
    return curve(name, means.numpy(), low.numpy(), high.numpy())


def curve(name: str, best: np.ndarray, low: np.ndarray | None = None, high: np.ndarray | None = None) -> dict[str, Any]:
    """A curve, with or without a band.

    Args:
        name: what it is.
        best: `[time]`.
        low: the lower end of the band.
        high: the upper end.

    Returns:
        A part of a trace.
    """
    return {"name": name, "best": plain(best), "low": None if low is None else plain(low), "high": None if high is None else plain(high)}


def forecast_curve(forecast: Forecast, column: int) -> dict[str, Any] | None:
    """What comes next of one column.

    Args:
        forecast: of a series.
        column: its place.

    Returns:
        A part of a trace; `None` where there is no band.
    """
    if forecast.low is None or forecast.high is None:
        return None
    return curve("forecast", forecast.best[:, column], forecast.low[:, column], forecast.high[:, column])


def plain(values: Float[np.ndarray, " time"]) -> list[float | None]:
    """Numbers as JSON knows them.

    Args:
        values: `[time]`.

    Returns:
        `None` for what is no finite number.
    """
    return [float(value) if np.isfinite(value) else None for value in values]
