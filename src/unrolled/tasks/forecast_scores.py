"""Errors of forecasts over many windows, beside those of simple ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.models.forecaster import Forecaster
from unrolled.tasks.forecast_baselines import BASELINES
from unrolled.tasks.forecast_structural import StructuralForecasts
from unrolled.tasks.forecast_windows import SeriesWindows, Window
from unrolled.tasks.series_settings import LEVEL

BATCH = 256
"""Windows that are scored at once."""
STRUCTURAL = "structural"
LEVELS = (round((1 - LEVEL) / 2, 6), round((1 + LEVEL) / 2, 6))
"""Of the band that is scored and shown."""


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
    """Squared and absolute error of simple forecasts on the same windows."""
    left_out: str | None = None
    """Why there is no structural forecast among them."""


def on(window: Window, device: torch.device) -> Window:
    """Windows on a device.

    Args:
        window: anywhere.
        device: where to.

    Returns:
        The same there.
    """
    return Window(*(part.to(device) for part in window))


class Sums:
    """Sums over windows, of what is there."""

    def __init__(self) -> None:
        self.values = 0
        self.loss = 0.0
        self.inside: float | None = None
        self.errors: dict[str, Tensor] = {}

    def add(self, name: str, forecast: Float[Tensor, "*values"], truth: Float[Tensor, "*values"], there: Bool[Tensor, "*values"]) -> None:
        """Add the squared and the absolute errors of a forecast.

        Args:
            name: of what forecast.
            forecast: one number a value.
            truth: what came.
            there: which of them count.
        """
        error = torch.where(there, forecast - truth, 0).double()
        before = self.errors.get(name, torch.zeros(2, dtype=torch.float64))
        self.errors[name] = before + torch.stack([error.square().sum(), error.abs().sum()]).cpu()

    def mean(self, name: str) -> list[float]:
        """The mean errors of a forecast.

        Args:
            name: of what forecast.

        Returns:
            Squared and absolute.
        """
        found: list[float] = (self.errors[name] / self.values).tolist()
        return found


@torch.no_grad()
def score(model: Forecaster, windows: SeriesWindows, rows: np.ndarray, structural: StructuralForecasts | None = None) -> ForecastScores:
    """Score forecasts of windows, and those of the baselines.

    Args:
        model: in evaluation mode.
        windows: of one part.
        rows: which of them.
        structural: forecasts of structural models.

    Returns:
        The scores.

    Raises:
        DataError: no value is there.
    """
    sums = Sums()
    for begin in range(0, len(rows), BATCH):
        past, marks, future, there = batch = on(windows.take(rows[begin : begin + BATCH]), model.device)
        said = model(past, marks).float()
        sums.values += int(there.sum())
        sums.loss += float(torch.where(there, model.output.loss(said, batch.future), 0).double().sum())
        sums.add("", model.output.best(said), future, there)
        for name, baseline in BASELINES.items():
            sums.add(name, baseline(past, windows.sizes.horizon, windows.sizes.season), future, there)
        if structural is not None:
            sums.add(STRUCTURAL, structural.of(rows[begin : begin + BATCH]).to(future), future, there)
        band = model.output.quantiles(said, LEVELS)
        if band is not None:
            within = (band[..., 0] <= future) & (future <= band[..., 1]) & there
            sums.inside = (sums.inside or 0.0) + float(within.sum())
    if not sums.values:
        raise DataError("there must be at least one value to score, but all are missing")
    coverage = None if sums.inside is None else 100 * sums.inside / sums.values
    baselines = {name: sums.mean(name) for name in sums.errors if name}
    mse, mae = sums.mean("")
    return ForecastScores(len(rows), sums.values, sums.loss / sums.values, mse, mae, coverage, baselines)
