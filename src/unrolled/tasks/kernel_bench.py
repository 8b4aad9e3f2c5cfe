"""How fast cells run on this machine: compiled loops beside torch's own layers and the plain loop, alternating, medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unrolled.nn.cells import CELLS
from unrolled.nn.recurrence import Recurrence

SHAPES = ((1, 256), (16, 256), (32, 512), (64, 650))
"""Batch and hidden size; inputs are as wide as the state."""
STEPS = 100
"""Time steps of a sequence."""
BENCHED = ("gru", "peephole-lstm", "layer-norm-lstm", "coupled-lstm", "minimal-gated", "lstm")
"""Cells by name, in the order of the table."""
LAYERS: dict[str, Callable[..., nn.RNNBase]] = {"nn.GRU": nn.GRU, "nn.LSTM": nn.LSTM}
"""Torch's own layers, which compute something near."""
BESIDE = {"gru": "nn.GRU", "minimal-gated": "nn.GRU"}
"""The layer of torch that stands beside a cell; for all others `nn.LSTM`."""
MODES = ("training", "inference", "streaming")
"""A training step (forward and backward), reading, and one call a step with one row."""

Work = Callable[[], Any]


class Measured(NamedTuple):
    """One line of the table."""

    cell: str
    mode: str
    batch: int
    hidden: int
    milliseconds: float
    """The median, for all steps of time."""
    others: dict[str, float]
    """Medians of what ran beside it, in milliseconds."""


def bench_kernels(
    *,
    cells: Sequence[str] = BENCHED,
    modes: Sequence[str] = MODES,
    shapes: Sequence[tuple[int, int]] = SHAPES,
    steps: int = STEPS,
    rounds: int = 5,
) -> Iterator[Measured]:
    """Measure, line by line.

    Args:
        cells: names of cells.
        modes: of `MODES`.
        shapes: batch and hidden size; streaming takes each hidden size once, with one row.
        steps: of a sequence.
        rounds: how often each is run, in turns.

    Yields:
        A line as soon as it is measured.
    """
    for mode in modes:
        for cell in cells:
            for batch, hidden in shapes if mode != "streaming" else [(1, size) for size in dict.fromkeys(h for _, h in shapes)]:
                ran = race(_contestants(cell, mode, batch, hidden, steps), rounds)
                yield Measured(cell, mode, batch, hidden, ran.pop("compiled"), ran)


def race(contestants: dict[str, Work], rounds: int) -> dict[str, float]:
    """Let each work once to warm up and then in turns.

    Args:
        contestants: what to run, by name.
        rounds: how many turns.

    Returns:
        Median milliseconds by name.
    """
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for work in contestants.values():
        work()
    for _ in range(rounds):
        for name, work in contestants.items():
            begin = time.perf_counter()
            work()
            taken[name].append(1000 * (time.perf_counter() - begin))
    return {name: statistics.median(times) for name, times in taken.items()}


def geometric_means(lines: Sequence[Measured]) -> dict[tuple[str, str, str], float]:
    """How many times as fast compiled loops are, over all shapes.

    Args:
        lines: of a table.

    Returns:
        By cell, mode, and what it is compared with.
    """
    found: dict[tuple[str, str, str], list[float]] = {}
    for line in lines:
        for name, milliseconds in line.others.items():
            found.setdefault((line.cell, line.mode, name), []).append(milliseconds / line.milliseconds)
    return {key: statistics.geometric_mean(ratios) for key, ratios in found.items()}


def _contestants(name: str, mode: str, batch: int, hidden: int, steps: int) -> dict[str, Work]:
    cell = CELLS[name](hidden, hidden)
    beside = BESIDE.get(name, "nn.LSTM")
    layer = LAYERS[beside](hidden, hidden, batch_first=True)
    xs = torch.randn(batch, steps, hidden, requires_grad=mode == "training")
    layers: dict[str, nn.Module] = {"compiled": Recurrence(cell), "plain loop": Recurrence(cell, plain=True), beside: layer}
    if mode == "streaming":
        return _streams(cell, layer, beside, xs)
    run = _train if mode == "training" else _read
    return {key: run(module, xs) for key, module in layers.items()}


def _train(layer: nn.Module, xs: Tensor) -> Work:
    def work() -> None:
        layer.zero_grad()
        xs.grad = None
        layer(xs)[0].sum().backward()

    return work


def _read(layer: nn.Module, xs: Tensor) -> Work:
    def work() -> None:
        with torch.inference_mode():
            layer(xs)

    return work


def _streams(cell: Any, layer: nn.Module, beside: str, xs: Tensor) -> dict[str, Work]:
    """One call a step, the state handed from call to call."""
    columns, single = xs.unbind(1), [x.unsqueeze(1) for x in xs.unbind(1)]
    stream = Recurrence(cell)

    def ours() -> None:
        with torch.inference_mode():
            state = cell.initial_state(1)
            for x in columns:
                _, state = stream.step(x, state)

    def plain() -> None:
        with torch.inference_mode():
            state = cell.initial_state(1)
            for x in columns:
                _, state = cell.step(x, state)

    def vendor() -> None:
        with torch.inference_mode():
            state = None
            for x in single:
                _, state = layer(x, state)

    return {"compiled": ours, "plain loop": plain, beside: vendor}
