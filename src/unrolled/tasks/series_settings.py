"""How files of series are read: the options that all tasks on series share."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from unrolled.core.settings import Settings

LEVEL = 0.8
"""The share of values that shall fall into the band of a forecast, where nothing is said."""


class SeriesDataSettings(Settings):
    """How series are read."""

    targets: tuple[str, ...] = ()
    """The columns that are forecast, or fitted, with commas between them; all other ones when empty."""
    known: tuple[str, ...] = ()
    """Columns whose future is known, with commas between them: prices, holidays, plans."""
    time: str | None = None
    """The column of times; one with a usual name (`date`, `time`, …), or none, when not given."""
    series: str | None = None
    """The column that tells several series apart."""
    delimiter: str = Field(",", min_length=1, max_length=1)
    """What stands between the cells of a row."""
    encoding: str = "utf-8"
    """How the bytes of files stand for characters."""

    @field_validator("targets", "known", mode="before")
    @classmethod
    def _names(cls, given: Any) -> Any:
        return listed(given)


def listed(given: Any) -> Any:
    """Several values out of one text with commas: `--set data.known=price,holiday` is what a person types.

    Args:
        given: the value of an option.

    Returns:
        A tuple, where it was a text or a number; else what was given.
    """
    if isinstance(given, int | float) and not isinstance(given, bool):
        return (str(given),)
    return tuple(name.strip() for name in given.split(",")) if isinstance(given, str) else given
