"""The picture of `polyphonic_music.py`: forecasts by the number of hidden states, and what these states tell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

WIDTH, HEIGHT, TOP, BOTTOM, LEFT, GAP = 660, 350, 84, 44, 40, 56
PANEL = (WIDTH - LEFT - 16 - GAP) / 2
HIDDEN = "#a21caf"
CELLS = {"gru": ("GRU", "#1f6feb"), "lstm": ("LSTM", "#c2410c"), "elman": ("tanh", "#15803d")}


class Axes(NamedTuple):
    """A panel, the power of two at its right edge, and the values at its lower and upper edge."""

    panel: int
    powers: float
    low: float
    high: float

    def place(self, power: float, value: float) -> tuple[float, float]:
        """Where a point is drawn."""
        across = LEFT + self.panel * (PANEL + GAP) + PANEL * power / self.powers
        return across, TOP + (HEIGHT - BOTTOM - TOP) * (self.high - value) / (self.high - self.low)


def grid(axes: Axes, title: str) -> Iterator[str]:
    """Lines and numbers."""
    (left, _), (right, _) = axes.place(0, axes.low), axes.place(axes.powers, axes.low)
    yield f'<text x="{left:.1f}" y="16">{title}</text>'
    for value in range(math.ceil(axes.low), math.floor(axes.high) + 1):
        y = axes.place(0, value)[1]
        yield f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="#8884"/>'
        yield f'<text x="{left - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{value}</text>'
    for power in range(int(axes.powers) + 1):
        yield f'<text x="{axes.place(power, 0)[0]:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{2**power}</text>'
    yield f'<text x="{(left + right) / 2:.1f}" y="{HEIGHT - 4}" text-anchor="middle">hidden states N</text>'


def curve(axes: Axes, points: list[tuple[float, float]], colour: str, dashes: str = "") -> Iterator[str]:
    """Values by the power of two."""
    places = [axes.place(*point) for point in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2.2"{dashes}/>'
    if not dashes:
        yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places)


def key(x: float, y: float, colour: str, dashes: str, label: str) -> str:
    """A line of a legend."""
    line = f'<line x1="{x:.1f}" x2="{x + 18:.1f}" y1="{y - 4}" y2="{y - 4}" stroke="{colour}" stroke-width="2.2"{dashes}/>'
    return f'{line}<text x="{x + 24:.1f}" y="{y}">{label}</text>'


DASHED, DOTTED = ' stroke-dasharray="6 4"', ' stroke-dasharray="2 3"'


def losses(hidden: list[dict[str, Any]], cells: list[dict[str, Any]], powers: float) -> Iterator[str]:
    """Nats a frame."""
    seen = [row[name] for row in hidden for name in ("joint_frames", "apart_frames")] + [row["apart_frames"] for row in cells]
    axes = Axes(0, powers, math.floor(min(seen)), math.ceil(max(seen)))
    yield from grid(axes, "test, nats a frame")
    yield from curve(axes, [(math.log2(row["states"]), row["joint_frames"]) for row in hidden], HIDDEN)
    yield from curve(axes, [(math.log2(row["states"]), row["apart_frames"]) for row in hidden], HIDDEN, DASHED)
    yield key(LEFT, 38, HIDDEN, "", "HMM, frame as a whole")
    yield key(LEFT, 54, HIDDEN, DASHED, "HMM, each note by itself")
    for number, row in enumerate(cells):
        label, colour = CELLS[row["model"]]
        yield from curve(axes, [(0, row["apart_frames"]), (powers, row["apart_frames"])], colour, DASHED)
        yield key(LEFT + 98 * number, 70, colour, DASHED, f"{label} {row['apart_frames']:.2f}")


def information(hidden: list[dict[str, Any]], powers: float) -> Iterator[str]:
    """Bits a frame."""
    axes = Axes(1, powers, 0, math.ceil(powers))
    left = axes.place(0, 0)[0]
    yield from grid(axes, "bits")
    yield from curve(axes, [(0, 0), (powers, powers)], "#888", DOTTED)
    yield from curve(axes, [(math.log2(row["states"]), row["entropy"]) for row in hidden], "#b45309")
    yield from curve(axes, [(math.log2(row["states"]), row["bits"]) for row in hidden], HIDDEN)
    yield key(left, 38, "#888", DOTTED, "log2 N: what N states can hold")
    yield key(left, 54, "#b45309", "", "entropy of the states that occur")
    yield key(left, 70, HIDDEN, "", "what the state told of the next frame")


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Both panels as one SVG.

    Args:
        rows: of the result.
        path: where it shall stand.
    """
    hidden = [row for row in rows if row["model"] == "hmm"]
    cells = [row for name in CELLS for row in rows if row["model"] == name]
    if len(hidden) < 2:
        return
    powers = math.log2(hidden[-1]["states"])
    body = "\n".join([*losses(hidden, cells, powers), *information(hidden, powers)])
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Forecasts of chorales by hidden states"'
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'{head} font-family="sans-serif" font-size="12" fill="#888">\n{body}\n</svg>\n', encoding="utf-8")
