"""When things were measured: times out of text, the step between them, the season that is usual for it, and what comes next."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from unrolled.core.errors import DataError

SECONDS = {"minute": 60.0, "hour": 3600.0, "day": 86400.0, "week": 604800.0}
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
MONTH = re.compile(r"\d{4}-\d{2}")
MINUTE = re.compile(r".*[T ]\d{2}:\d{2}")
ZONE = re.compile(r"(.*[T ].*?)(Z|[+-]\d{2}:?\d{2})")


class Spacing(NamedTuple):
    """What lies between one time and the next."""

    size: float
    """Months, seconds, or the unit of numbers."""
    unit: str
    """`months`, `seconds` or `number`."""
    last_days: bool = False
    """Whether months are counted from last day to last day."""

    @property
    def season(self) -> int:
        """How many steps the usual season has; 1 where none is usual."""
        if self.unit == "months":
            return max(1, round(12 / self.size))
        if self.unit == "number":  # a fraction of a year
            parts = round(1 / self.size) if 0 < self.size < 1 else 1
            return parts if parts in (2, 4, 12, 52) else 1
        if self.size < SECONDS["minute"]:
            return round(SECONDS["minute"] / self.size) if self.size >= 1 else 1
        if self.size < SECONDS["day"]:
            return round(SECONDS["day"] / self.size)
        return {1: 7, 7: 52}.get(round(self.size / SECONDS["day"]), 1)


@dataclass(frozen=True)
class TimeAxis:
    """The times of a series."""

    texts: tuple[str, ...]
    """As they were written; their places where the file has none."""
    numbers: Float[np.ndarray, " time"]
    """Seconds since 1970, or the numbers that were written; their places where there are none."""
    dated: bool
    """Whether they are points of a calendar."""

    def select(self, begin: int, end: int) -> TimeAxis:
        """A part of the times.

        Args:
            begin: the first point.
            end: the first point that is left out.

        Returns:
            The times between.
        """
        return TimeAxis(self.texts[begin:end], self.numbers[begin:end], self.dated)

    def step(self) -> Spacing:
        """The usual step, the median; whole months where all lie on one day of the month, or on the last.

        Returns:
            Its size and unit.
        """
        if len(self.numbers) < 2:
            return Spacing(1.0, "number")
        months = months_of(self.numbers) if self.dated else None
        apart = 0.0 if months is None else float(np.median(np.diff(months)))
        if apart >= 1:
            return Spacing(apart, "months", _last_days(self.numbers))
        return Spacing(float(np.median(np.diff(self.numbers))), "seconds" if self.dated else "number")

    def widest_gap(self) -> int | None:
        """Where points are missing.

        Returns:
            The point before the widest gap; `None` where all steps are about as wide as the usual one.
        """
        if len(self.numbers) < 3:
            return None
        step = self.step()
        months = months_of(self.numbers) if step.unit == "months" else None
        apart = np.diff(self.numbers if months is None else months)
        return int(apart.argmax()) if apart.max() > 1.5 * step.size else None

    def after(self, count: int, usual: Spacing | None = None) -> TimeAxis:
        """The times that follow.

        Args:
            count: how many.
            usual: the step where these times are too few to tell.

        Returns:
            They, written like the last one.

        Raises:
            DataError: a single time of a calendar tells no step.
        """
        step, last = self.step(), self.numbers[-1] if len(self.numbers) else -1.0
        if len(self.numbers) == 1 and usual is not None and (usual.unit != "number") == self.dated:
            step = usual
        elif len(self.numbers) == 1 and self.dated and count:
            raise DataError(f"the step between times needs at least 2 of them, got `{self.texts[0]}` alone; give more of the past")
        if step.unit == "months":
            numbers = _months_after(float(last), int(step.size), count, last_days=step.last_days)
        else:
            numbers = last + step.size * np.arange(1, count + 1)
        return TimeAxis(tuple(self._write(number) for number in numbers), numbers, self.dated)

    def _write(self, number: float) -> str:
        if not self.dated:
            return f"{number:.10g}"
        zoned = ZONE.fullmatch(self.texts[-1])
        last = zoned[1] if zoned else self.texts[-1]
        text = str(np.datetime64(round(number * 1e6), "us")).removesuffix(".000000")
        if MONTH.fullmatch(last):
            return text[:7]
        if DAY.fullmatch(last.replace("/", "-")):
            return text[:10]
        if MINUTE.fullmatch(last):
            text = text.removesuffix(":00")
        # Times of other zones were brought to that of Greenwich.
        return text.replace("T", "T" if "T" in last else " ") + (("Z" if zoned[2] == "Z" else "+00:00") if zoned else "")

    def features(self) -> Float[np.ndarray, "time features"]:
        """Where in the day, the week and the year a point lies, as sine and cosine.

        Returns:
            Six features a point; none where times are no points of a calendar.
        """
        if not self.dated:
            return np.zeros((len(self.numbers), 0))
        days = self.numbers / SECONDS["day"]
        turns = np.stack([days % 1, (days + 3) / 7 % 1, days / 365.2425 % 1], 1) * 2 * np.pi
        return np.concatenate([np.sin(turns), np.cos(turns)], 1)


def months_of(numbers: Float[np.ndarray, " time"]) -> Float[np.ndarray, " time"] | None:
    """Months since 1970 of points that lie on one day of the month, or on the last, at one time of the day.

    Args:
        numbers: seconds since 1970.

    Returns:
        Whole numbers; `None` where they do not.
    """
    months, within = _split_months(numbers)
    same = len(within) > 0 and (bool((within == within[0]).all()) or _last_days(numbers))
    return months.astype(np.int64).astype(np.float64) if same else None


def _split_months(numbers: Float[np.ndarray, " time"]) -> tuple[np.ndarray, np.ndarray]:
    """The month of each point, and what is past its beginning."""
    points = numbers.astype(np.int64).astype("datetime64[s]")
    months = points.astype("datetime64[M]")
    return months, points - months.astype("datetime64[s]")


def _last_days(numbers: Float[np.ndarray, " time"]) -> bool:
    """Whether all points lie on the last day of a month, at one time of the day, in months of several lengths."""
    months, within = _split_months(numbers)
    left = (months + 1).astype("datetime64[s]") - months.astype("datetime64[s]") - within
    return bool((left == left[0]).all() and left[0] <= np.timedelta64(1, "D") and not (within == within[0]).all())


def _months_after(last: float, size: int, count: int, *, last_days: bool) -> Float[np.ndarray, " time"]:
    months, within = _split_months(np.array([last]))
    coming = months[0] + size * np.arange(1, count + 1)
    if last_days:
        points = (coming + 1).astype("datetime64[s]") - (
            (months[0] + 1).astype("datetime64[s]") - months[0].astype("datetime64[s]") - within[0]
        )
    else:
        points = coming.astype("datetime64[s]") + within[0]
        shorter = points >= (coming + 1).astype("datetime64[s]")  # a 31st that the month has not: its last day
        points = np.where(
            shorter, (coming + 1).astype("datetime64[s]") - np.timedelta64(1, "D") + within[0] % np.timedelta64(1, "D"), points
        )
    return points.astype(np.int64).astype(np.float64)


def read_times(texts: Sequence[str]) -> TimeAxis | int:
    """Times out of text: numbers, or ISO 8601 dates with or without a time of the day.

    Args:
        texts: cells of a column.

    Returns:
        The times; or the place of the first cell that is none.
    """
    numbers = np.empty(len(texts))
    dated = bool(texts) and not _is_number(texts[0])
    for place, text in enumerate(texts):
        found = _seconds(text.strip()) if dated else _number(text)
        if found is None:
            return place
        numbers[place] = found
    return TimeAxis(tuple(text.strip() for text in texts), numbers, dated)


def counted(length: int) -> TimeAxis:
    """The axis of a series without times.

    Args:
        length: how many points.

    Returns:
        0, 1, 2, …
    """
    return TimeAxis(tuple(map(str, range(length))), np.arange(length, dtype=np.float64), False)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _is_number(text: str) -> bool:
    return _number(text) is not None


def _seconds(text: str) -> float | None:
    """Since 1970; a time without a zone is taken for one of Greenwich."""
    text = text.replace("/", "-")
    try:
        point = datetime.fromisoformat(f"{text}-01" if MONTH.fullmatch(text) else text)
    except ValueError:
        return None
    return (point if point.tzinfo else point.replace(tzinfo=UTC)).timestamp()
