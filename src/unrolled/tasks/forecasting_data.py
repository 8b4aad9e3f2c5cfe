"""What a run of forecasting reads: the series of its files, what it keeps of them, and their windows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unrolled.core.errors import DataError, RunError
from unrolled.core.files import write_json
from unrolled.data.series import Series, SeriesFile, SeriesForm, read_series
from unrolled.models.forecaster import Shape
from unrolled.tasks.forecast_windows import Scale, Scales, SeriesWindows, WindowSizes, check_windows, cut, scale_of

USUAL_HORIZON = 12
"""Where neither a person nor the times say more."""
USUAL_VALID = 0.1
"""The share of a series that validates."""
VALID_HORIZONS = 2
"""So many horizons validate at least, where a third of the series is that long."""
PATCHES = 24
"""At most so many steps make a window of the past where the season gives no patch."""


class Learnt(NamedTuple):
    """What a run knows of its series besides weights."""

    targets: tuple[str, ...]
    known: tuple[str, ...]
    sizes: WindowSizes
    shape: Shape
    scales: Scales

    @property
    def calendar(self) -> bool:
        """Whether the model sees where in the day, the week and the year a point lies."""
        return self.shape.marks > len(self.known)


class Parts(NamedTuple):
    """Where the parts of series lie: training begins at 0, the test part ends with the series."""

    valid: list[int]
    """Where what validates begins."""
    test: list[int]
    """Where what is left for a test begins."""


class Opened(NamedTuple):
    """The windows of a run's own files."""

    train: SeriesWindows
    valid: SeriesWindows
    test: SeriesWindows | None


def form_of(data: Any, targets: tuple[str, ...] = ()) -> SeriesForm:
    """How files are written.

    Args:
        data: settings of the run.
        targets: the columns that the run forecasts; those of the settings when empty.

    Returns:
        What the reader takes.
    """
    return SeriesForm(data.time, targets or data.targets, data.known, data.series, data.delimiter, data.encoding)


def open_series(data: Any, files: Sequence[Path], targets: tuple[str, ...] = (), *, symbols: tuple[str, ...] | None = None) -> SeriesFile:
    """The series of files, which must have the same columns.

    Args:
        data: settings of the run.
        files: one or several.
        targets: the columns that the run forecasts; those of the settings, or of the first file, when empty.
        symbols: what cells of targets are, where they are no numbers; all that are found when empty.

    Returns:
        All of them.

    Raises:
        DataError: other columns, or two series of one name.
    """
    form = replace(form_of(data, targets), symbols=symbols)
    found = [read_series(path, form) for path in files]
    for path, one in zip(files, found, strict=True):
        if one.targets != found[0].targets:
            columns = ", ".join(f"`{name}`" for name in one.targets)
            raise DataError(f"all files must have the same columns to forecast, got {columns} in `{path.name}`; try `data.targets`")
    named = [
        part._replace(name=path.stem) if len(files) > 1 and not part.name else part
        for path, one in zip(files, found, strict=True)
        for part in one.series
    ]
    names = [one.name for one in named]
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise DataError(f"every series must be in one file, but `{twice}` is in two")
    return found[0]._replace(series=tuple(named), findings=tuple(said for one in found for said in one.findings))


def season_of(data: Any, series: Sequence[Series]) -> tuple[int, int]:
    """The season and the horizon of a run.

    Args:
        data: settings of the run.
        series: that train; the longest decides.

    Returns:
        Points of a season, 1 where none is known, and points that are forecast.
    """
    longest = max(series, key=lambda one: len(one.values))
    season = data.season or longest.axis.step().season
    return season, data.horizon or (season if season > 1 else USUAL_HORIZON)


def parts_of(data: Any, series: Sequence[Series], horizon: int, *, valid: bool) -> Parts:
    """Where the parts of series lie.

    Args:
        data: settings of the run.
        series: that train.
        horizon: points that are forecast.
        valid: whether files of their own validate.

    Returns:
        The places.
    """
    test = cut([len(one.values) for one in series], data.test)
    if valid:
        return Parts(test, test)
    if data.valid is not None:
        return Parts(cut(test, data.valid), test)
    usual = [max(round(USUAL_VALID * end), min(VALID_HORIZONS * horizon, end // 3)) for end in test]
    return Parts([end - points for end, points in zip(test, usual, strict=True)], test)


def learn(settings: Any, found: SeriesFile, *, valid: bool) -> Learnt:
    """WindowSizes and scales of a run, of what trains alone.

    Args:
        settings: of the run.
        found: the series that train, whole.
        valid: whether files of their own validate.

    Returns:
        What the run keeps of them.
    """
    data, series = settings.data, found.series
    season, horizon = season_of(data, series)
    ends = parts_of(data, series, horizon, valid=valid).valid
    room = max(max(ends) - horizon, 2)
    lookback = data.lookback or max(1, min(max(2 * horizon, 2 * season), room // 2))
    trained = [one.select(0, end) for one, end in zip(series, ends, strict=True)]
    together = scale_of(np.concatenate([one.values for one in trained]))  # for a series that begins only later
    scales = {one.name: scale_of(one.values) if len(one.values) else together for one in trained}
    known = scale_of(np.concatenate([one.known for one in trained]))
    dated = settings.model.calendar and all(one.axis.dated for one in series)
    marks = len(found.known) + (series[0].axis.features().shape[1] if dated else 0)
    patch = settings.model.patch or usual_patch(lookback, horizon, season)
    shape = Shape(lookback, horizon, len(found.targets), marks, min(patch, lookback))
    return Learnt(found.targets, found.known, WindowSizes(lookback, horizon, season), shape, Scales(scales, known))


def usual_patch(lookback: int, horizon: int, season: int) -> int:
    """Points that are read at once: a season where there are several, else so many that few steps are left.

    Args:
        lookback: points of the past.
        horizon: points of the future.
        season: points of a season.

    Returns:
        At most the horizon.
    """
    wanted = season if 1 < season <= lookback // 4 else -(-lookback // PATCHES)
    return max(1, min(wanted, horizon))


def windows_of(learnt: Learnt, series: Sequence[Series], spans: Sequence[tuple[int, int]] | None = None) -> SeriesWindows:
    """Windows as a run sees them.

    Args:
        learnt: its sizes and scales.
        series: whole.
        spans: where the futures of windows may lie; anywhere when not given.

    Returns:
        All of them.
    """
    whole = [(0, len(one.values)) for one in series]
    return SeriesWindows(series, learnt.scales, learnt.sizes, spans if spans is not None else whole, calendar=learnt.calendar)


def open_windows(data: Any, learnt: Learnt, files: Sequence[Path], valid: Sequence[Path]) -> Opened:
    """The windows of a run.

    Args:
        data: settings of the run.
        learnt: its sizes and scales.
        files: to train on.
        valid: to validate on; the ends of `files` when empty.

    Returns:
        What trains, what validates, and what is left for a test.
    """
    series = open_series(data, files, learnt.targets).series
    middles, ends = parts_of(data, series, learnt.sizes.horizon, valid=bool(valid))
    train = windows_of(learnt, series, [(0, middle) for middle in middles])
    advice = "give longer series, or a smaller `data.horizon` or `data.lookback`"
    check_windows(train, series, "to train on", advice)
    if valid:
        others = open_series(data, valid, learnt.targets).series
        check = windows_of(learnt, others)
        check_windows(check, others, "to validate on", advice)
    else:
        check = windows_of(learnt, series, list(zip(middles, ends, strict=True)))
        check_windows(check, series, "to validate on", f"{advice}, or a larger `data.valid`")
    test = windows_of(learnt, series, [(end, len(one.values)) for one, end in zip(series, ends, strict=True)]) if data.test else None
    if test is not None:
        check_windows(test, series, "to test on", "try a larger `data.test`")
    return Opened(train, check, test)


def save_learnt(learnt: Learnt, path: Path) -> None:
    """Write what a run knows of its series.

    Args:
        learnt: sizes and scales.
        path: where the file shall stand.
    """
    scales = {"series": {name: one._asdict() for name, one in learnt.scales.series.items()}, "known": learnt.scales.known._asdict()}
    write_json(path, learnt._asdict() | {"sizes": learnt.sizes._asdict(), "shape": learnt.shape._asdict(), "scales": scales})


def load_learnt(path: Path) -> Learnt:
    """Read what `save_learnt` wrote.

    Args:
        path: the file.

    Returns:
        WindowSizes and scales.

    Raises:
        RunError: the file is damaged.
    """

    def scale(content: Mapping[str, Any]) -> Scale:
        return Scale(tuple(map(float, content["mean"])), tuple(map(float, content["deviation"])))

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        series = {str(name): scale(one) for name, one in content["scales"]["series"].items()}
        return Learnt(
            tuple(map(str, content["targets"])),
            tuple(map(str, content["known"])),
            WindowSizes(**content["sizes"]),
            Shape(**content["shape"]),
            Scales(series, scale(content["scales"]["known"])),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"`{path}` must be what unrolled wrote, but it is damaged ({error}); try a whole copy of the run") from None
