"""Series as a forecaster sees them: in units of their own spread, without gaps, cut into windows of past and future."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.data.series import Series


class Scale(NamedTuple):
    """What is subtracted from the values of a series, and what divides them."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]


class Scales(NamedTuple):
    """The scales of a run, of its training parts."""

    series: Mapping[str, Scale]
    """Of the targets, by series."""
    known: Scale
    """Of the inputs that are known in advance, over all series."""

    def of(self, series: Series) -> Scale:
        """The scale of one series.

        Args:
            series: of the run, or a new one.

        Returns:
            That of its training part; a new series is scaled by itself.
        """
        return self.series.get(series.name) or scale_of(series.values)


class WindowSizes(NamedTuple):
    """Of windows."""

    lookback: int
    horizon: int
    season: int


class Window(NamedTuple):
    """Some windows side by side."""

    past: Float[Tensor, "batch lookback targets"]
    """In deviations of the training part; what is missing is as the value before."""
    marks: Float[Tensor, "batch window marks"]
    """What is known in advance, past and future."""
    future: Float[Tensor, "batch horizon targets"]
    """Zero where nothing is known."""
    there: Bool[Tensor, "batch horizon targets"]
    """Which values of the future there are."""


def scale_of(values: Float[np.ndarray, "time columns"]) -> Scale:
    """Mean and standard deviation of columns.

    Args:
        values: NaN where nothing is known.

    Returns:
        A deviation of 1 where a column never changes.
    """
    if not len(values):
        return Scale((0.0,) * values.shape[1], (1.0,) * values.shape[1])
    there = ~np.isnan(values)
    count = there.sum(0).clip(min=1)
    mean = np.where(there, values, 0).sum(0) / count
    spread = np.sqrt((np.where(there, values - mean, 0) ** 2).sum(0) / count)
    # Of a constant column rounding leaves a little.
    spread = np.where(spread > 1e-9 * np.maximum(np.abs(mean), 1e-300), spread, 1.0)
    return Scale(tuple(mean.tolist()), tuple(spread.tolist()))


def filled(values: Float[np.ndarray, "time columns"]) -> Float[np.ndarray, "time columns"]:
    """Every missing value as the one before it, at the beginning as the first there is.

    Args:
        values: NaN where nothing is known.

    Returns:
        Without any NaN; 0 in a column that has nothing else.
    """
    there = ~np.isnan(values)
    last = np.maximum.accumulate(np.where(there, np.arange(len(values))[:, None], -1), 0)
    first = there.argmax(0) if len(values) else np.zeros(values.shape[1], dtype=np.int64)
    places = np.where(last < 0, first, last)
    return np.nan_to_num(np.take_along_axis(values, places, 0), nan=0.0)


class SeriesWindows:
    """All windows of a part of some series."""

    def __init__(
        self, series: Sequence[Series], scales: Scales, sizes: WindowSizes, spans: Sequence[tuple[int, int]], *, calendar: bool
    ) -> None:
        """Cut series into windows; those whose past holds no value at all of some target are left out.

        Args:
            series: whole.
            scales: of the run; a series without one is scaled by itself.
            sizes: of the windows.
            spans: of each series, where the futures of windows may begin and must end; their pasts may lie before.
            calendar: whether marks say where in the day, the week and the year a point lies.
        """
        self.sizes = sizes
        values, marks, begins, starts = [], [], [], []
        offset = 0
        for one, (begin, end) in zip(series, spans, strict=True):
            scale = scales.of(one)
            values.append((one.values - scale.mean) / scale.deviation)
            marks.append(marks_of(one, scales.known, calendar=calendar))
            first = max(begin, sizes.lookback, int((~np.isnan(one.values)).argmax(0).max(initial=0)) + 1)
            begins.append(offset + np.arange(first, end - sizes.horizon + 1) - sizes.lookback)
            starts.append(offset)
            offset += len(one.values)
        whole = np.concatenate(values)
        self._past = torch.from_numpy(np.concatenate([filled(part) for part in values]).astype(np.float32))
        self._there = torch.from_numpy(~np.isnan(whole))
        self._future = torch.from_numpy(np.nan_to_num(whole, nan=0.0).astype(np.float32))
        self._marks = torch.from_numpy(np.concatenate(marks).astype(np.float32))
        self._starts = np.array(starts)
        self.begins: Int[np.ndarray, " windows"] = np.concatenate(begins)

    def __len__(self) -> int:
        return len(self.begins)

    def take(self, rows: np.ndarray) -> Window:
        """Some windows.

        Args:
            rows: which.

        Returns:
            Them side by side.
        """
        begins, (lookback, horizon, _) = torch.from_numpy(self.begins[rows]).unsqueeze(1), self.sizes
        past, future = begins + torch.arange(lookback), begins + torch.arange(lookback, lookback + horizon)
        there = self._there[future]
        return Window(self._past[past], self._marks[torch.cat([past, future], 1)], self._future[future], there)

    def origins(self, rows: np.ndarray) -> tuple[Int[np.ndarray, " windows"], Int[np.ndarray, " windows"]]:
        """Where forecasts begin.

        Args:
            rows: which windows.

        Returns:
            Of each the number of its series, and the first point of its future in that series.
        """
        points = self.begins[rows] + self.sizes.lookback
        # A series without points starts where the next one does, and has no window.
        series = np.searchsorted(self._starts, points - 1, side="right") - 1
        return series, points - self._starts[series]

    def spread(self, most: int) -> np.ndarray:
        """Windows that lie evenly over all.

        Args:
            most: how many at most.

        Returns:
            Their places.
        """
        return np.unique(np.linspace(0, len(self) - 1, min(most, len(self))).round().astype(np.int64)) if len(self) else np.arange(0)


def marks_of(series: Series, scale: Scale, *, calendar: bool) -> Float[np.ndarray, "time marks"]:
    """What is known in advance of every point.

    Args:
        series: whole.
        scale: of its known inputs.
        calendar: whether that is also where in the day, the week and the year a point lies.

    Returns:
        Known inputs in deviations, then sines and cosines.

    Raises:
        DataError: the run saw dates, and the series has none.
    """
    known = (series.known - scale.mean) / scale.deviation
    if not calendar:
        return known
    if not series.axis.dated:
        of = f" of `{series.name}`" if series.name else ""
        raise DataError(f"times{of} must be dates, as those that the run was trained on; try naming their column (`data.time`)")
    return np.concatenate([known, series.axis.features()], 1)


def cut(lengths: Sequence[int], share: float) -> list[int]:
    """Where the end of each series begins.

    Args:
        lengths: of the series.
        share: a share of each, or from 1 on so many points.

    Returns:
        A place a series.
    """
    return [max(0, length - (round(length * share) if share < 1 else round(share))) for length in lengths]


def check_windows(windows: SeriesWindows, series: Sequence[Series], what: str, advice: str) -> None:
    """Refuse a part without any window.

    Args:
        windows: of the part.
        series: what it was cut from.
        what: what the part is for.
        advice: what to try.

    Raises:
        DataError: there is none.
    """
    if len(windows):
        return
    lookback, horizon, _ = windows.sizes
    longest = max(len(one.values) for one in series)
    raise DataError(
        f"at least one series must have room for a window of {lookback} points of the past and {horizon} of the future {what}, "
        f"but the longest has {longest} points; {advice}"
    )
