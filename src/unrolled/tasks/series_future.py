"""Where the future of a series begins, and the rows that it needs: their times, and what is known of them in advance."""

from __future__ import annotations

import numpy as np

from unrolled.core.errors import DataError
from unrolled.data.series import Series
from unrolled.data.time_axis import Spacing, TimeAxis


def end_of(series: Series) -> int:
    """The point behind the last value; rows behind it are the future of what is known in advance.

    Args:
        series: any.

    Returns:
        Its place, 0 where nothing was seen.
    """
    there = np.flatnonzero(~np.isnan(series.values).all(1))
    return int(there[-1]) + 1 if len(there) else 0


def with_future(series: Series, horizon: int, known: tuple[str, ...], step: Spacing | None = None) -> Series:
    """The series with as many rows behind its last value as are forecast.

    Args:
        series: its past; rows at the end without any target are the future of what is known in advance.
        horizon: how many points are forecast.
        known: the columns that are known in advance.
        step: between its times, where the series is too short to tell.

    Returns:
        The series up to the last point that is forecast.

    Raises:
        DataError: not all is known of these points that must be, or nothing tells the step.
    """
    end = end_of(series)
    given = series.select(0, end + horizon)
    missing = end + horizon - len(given.values)
    if known and missing:
        of = f" of `{series.name}`" if series.name else ""
        raise DataError(
            f"`{known[0]}`{of} must be known for all {horizon} points that are forecast, "
            f"but {horizon - missing} rows stand behind the last value; give rows without values for the others"
        )
    more = given.axis.after(missing, step)
    axis = TimeAxis(given.axis.texts + more.texts, np.concatenate([given.axis.numbers, more.numbers]), more.dated)
    blank, nothing = np.full((missing, given.values.shape[1]), np.nan), np.zeros((missing, given.known.shape[1]))
    return Series(series.name, axis, np.concatenate([given.values, blank]), np.concatenate([given.known, nothing]))
