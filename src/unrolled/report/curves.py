"""Lines of metrics as points to draw, few enough for a page."""

from __future__ import annotations

from collections.abc import Sequence

from unrolled.report.reading import Record, RunData, number

MOST_POINTS = 1000
SCORES = ("bleu", "f1", "accuracy", "mse")
"""Scores of validation that are drawn, where a task has them; keys of the `valid` lines."""
SMALL_CURVES = ("learning_rate", "gradient_norm", "tokens_per_second")
"""Drawn small, below the losses; keys of the `train` lines."""

Point = list[float | None]
"""Step, minutes, tokens, then values; the first value is what is drawn."""


def curves(run: RunData) -> dict[str, list[Point]]:
    """Every curve of the page.

    Args:
        run: what was read.

    Returns:
        Points by the name of the curve; a curve without points is there and empty.
    """
    found = {
        "train": points(run.train, ("loss",)),
        "valid": points(run.valid, ("loss", "perplexity", "bits_per_character")),
    }
    scores = {name: points(run.valid, (name,)) for name in SCORES}
    return found | scores | {name: points(run.train, (name,)) for name in SMALL_CURVES}


def points(lines: Sequence[Record], values: Sequence[str]) -> list[Point]:
    """The lines that can be drawn, thinned out.

    Args:
        lines: of one kind.
        values: their keys; lines whose first is no finite number are left out.

    Returns:
        At most `MOST_POINTS` points in the order of the lines.
    """
    found: list[Point] = []
    for line in lines:
        step, first = number(line, "step"), number(line, values[0])
        if step is None or first is None:
            continue
        seconds = number(line, "seconds")
        minutes = None if seconds is None else seconds / 60
        found.append([_short(x) for x in (step, minutes, number(line, "tokens"), first, *(number(line, key) for key in values[1:]))])
    return thin(found, MOST_POINTS)


def thin(found: list[Point], most: int) -> list[Point]:
    """Keep the first and last point and, of each equal stretch between, the lowest and the highest: no spike is lost.

    Args:
        found: points in order.
        most: how many may stay, at least 4.

    Returns:
        The points that stay, in order.
    """
    if len(found) <= most:
        return found
    inner = range(1, len(found) - 1)
    stretches = (most - 2) // 2
    heights = [point[3] or 0.0 for point in found]
    kept = {0, len(found) - 1}
    for s in range(stretches):
        stretch = inner[s * len(inner) // stretches : (s + 1) * len(inner) // stretches]
        kept |= {min(stretch, key=heights.__getitem__), max(stretch, key=heights.__getitem__)}
    return [found[i] for i in sorted(kept)]


def _short(value: float | None) -> float | None:
    """Six digits are more than a screen shows; whole numbers stay whole."""
    if value is None or value == int(value):
        return value if value is None else int(value)
    return float(f"{value:.6g}")
