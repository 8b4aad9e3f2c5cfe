"""Everything that shapes a run of forecasting."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from unrolled.core.settings import Settings
from unrolled.models.forecaster_settings import ForecasterSettings
from unrolled.tasks.labelling_settings import LabelOptimizerSettings
from unrolled.tasks.series_settings import SeriesDataSettings
from unrolled.train.settings import TrainSettings


class ForecastingDataSettings(SeriesDataSettings):
    """How series are read, and what of them is forecast."""

    horizon: int | None = Field(None, ge=1)
    """Points of the future that are forecast at once; a season, or 12 points, when not given."""
    lookback: int | None = Field(None, ge=1)
    """Points of the past that a forecast sees; twice the horizon, and at least two seasons, when not given."""
    season: int | None = Field(None, ge=1)
    """Points of a season (24 of hours, 12 of months); the usual one of the times when not given."""
    valid: float | None = Field(None, gt=0)
    """The end of every series validates: a share of it, or from 1 on so many points; a tenth, and room for some windows, when not given."""
    test: float = Field(0.0, ge=0)
    """What comes behind that is left for `eval --split test`: a share, or from 1 on so many points."""


class ForecastingTrainSettings(TrainSettings):
    """Training on windows of series."""

    batch_windows: int = Field(32, ge=1)
    """Windows of a batch."""
    evaluation_windows: int = Field(2000, ge=1)
    """At most so many windows, evenly spread, are scored during training; `unrolled eval` scores all of them."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """`bf16` autocast, which keeps three digits, or `fp32`; `auto` takes bf16 where the processor multiplies it natively."""
    average: float | None = Field(0.998, gt=0, lt=1)
    """Keep an exponential moving average of the weights with this decay and evaluate that."""
    optimizer: LabelOptimizerSettings = LabelOptimizerSettings()


class ForecastingRunSettings(Settings):
    """Everything that shapes a run of forecasting."""

    task: Literal["forecasting"] = "forecasting"
    """What kind of run this is."""
    data: ForecastingDataSettings = ForecastingDataSettings()
    model: ForecasterSettings = ForecasterSettings()
    train: ForecastingTrainSettings = ForecastingTrainSettings()
