"""When things were measured: times out of text, the step between them, the season that is usual for it, and what comes next."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

SECONDS = {"minute": 60.0, "hour": 3600.0, "day": 86400.0, "week": 604800.0}
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
MONTH = re.compile(r"\d{4}-\d{2}")


class Step(NamedTuple):
    """What lies between one time and the next."""

    size: float
    """Months, seconds, or the unit of numbers."""
    unit: str
    """`months`, `seconds` or `number`."""

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
    """As they were written; empty where the file has none."""
    numbers: Float[np.ndarray, " time"]
    """Seconds since 1970, or the numbers that were written; their places where there are none."""
    dated: bool
    """Whether they are points of a calendar."""

    def step(self) -> Step:
        """The usual step, the median; whole months where all lie on one day of the month.

        Returns:
            Its size and unit.
        """
        if len(self.numbers) < 2:
            return Step(1.0, "number")
        if self.dated:
            months = months_of(self.numbers)
            if months is not None and (apart := np.median(np.diff(months))) >= 1:
                return Step(float(apart), "months")
        return Step(float(np.median(np.diff(self.numbers))), "seconds" if self.dated else "number")

    def after(self, count: int) -> TimeAxis:
        """The times that follow.

        Args:
            count: how many.

        Returns:
            They, written like the last one.
        """
        step, last = self.step(), self.numbers[-1] if len(self.numbers) else -1.0
        if step.unit == "months":
            start = np.datetime64(int(last), "s").astype("datetime64[M]")
            within = np.datetime64(int(last), "s") - start.astype("datetime64[s]")
            points = [(start + int(step.size) * i).astype("datetime64[s]") + within for i in range(1, count + 1)]
            numbers = np.array([point.astype(np.int64) for point in points], dtype=np.float64)
        else:
            numbers = last + step.size * np.arange(1, count + 1)
        return TimeAxis(tuple(self._write(number) for number in numbers), numbers, self.dated)

    def _write(self, number: float) -> str:
        if not self.dated:
            return f"{number:.10g}"
        last = self.texts[-1] if self.texts else ""
        text = str(np.datetime64(int(number), "s"))
        if MONTH.fullmatch(last):
            return text[:7]
        return text[:10] if DAY.fullmatch(last) else text.replace("T", "T" if "T" in last else " ")

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
    """Months since 1970 of points that lie on one day of the month, at one time of the day.

    Args:
        numbers: seconds since 1970.

    Returns:
        Whole numbers; `None` where they do not.
    """
    points = numbers.astype(np.int64).astype("datetime64[s]")
    months = points.astype("datetime64[M]")
    within = points - months.astype("datetime64[s]")
    return months.astype(np.int64).astype(np.float64) if len(within) and (within == within[0]).all() else None


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
    return TimeAxis((), np.arange(length, dtype=np.float64), False)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _is_number(text: str) -> bool:
    return _number(text) is not None


def _seconds(text: str) -> float | None:
    try:
        point = np.datetime64(text.removesuffix("Z").replace("/", "-"))
    except ValueError:
        return None
    return None if np.isnat(point) else float(point.astype("datetime64[us]").astype(np.int64)) / 1e6
