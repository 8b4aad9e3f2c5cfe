"""Forecasts that nothing was learnt for: what any model must beat."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Past = Float[Tensor, "batch lookback targets"]
Future = Float[Tensor, "batch horizon targets"]


def naive(past: Past, horizon: int, season: int) -> Future:
    """The last value, for ever.

    Args:
        past: values.
        horizon: points to forecast.
        season: ignored.

    Returns:
        The forecast.
    """
    return past[:, -1:].expand(-1, horizon, -1)


def seasonal_naive(past: Past, horizon: int, season: int) -> Future:
    """The last season again and again (Hyndman & Athanasopoulos 2021, section 5.2); the last value where the past is shorter.

    Args:
        past: values.
        horizon: points to forecast.
        season: points of a season.

    Returns:
        The forecast.
    """
    if past.shape[1] < season:
        return naive(past, horizon, season)
    last = past[:, past.shape[1] - season :]
    return last.repeat(1, -(-horizon // season), 1)[:, :horizon]


def drift(past: Past, horizon: int, season: int) -> Future:
    """The straight line through the first and the last value (section 5.2 again).

    Args:
        past: values.
        horizon: points to forecast.
        season: ignored.

    Returns:
        The forecast.
    """
    slope = (past[:, -1:] - past[:, :1]) / max(past.shape[1] - 1, 1)
    return past[:, -1:] + slope * torch.arange(1, horizon + 1, device=past.device).view(1, -1, 1)


BASELINES: dict[str, Callable[[Past, int, int], Future]] = {"naive": naive, "seasonal naive": seasonal_naive, "drift": drift}
"""By name, in the order in which they are shown."""
