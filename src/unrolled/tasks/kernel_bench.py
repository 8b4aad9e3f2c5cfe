"""How fast cells run on this machine: compiled loops beside torch's own layers and the plain loop, alternating, medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unrolled.nn.cell import Cell
from unrolled.nn.recurrence import Recurrence
from unrolled.tasks.kernel_limits import Limits, least_milliseconds

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
VENDOR = ("lstm",)
"""Cells that have a vendor form of their own: the plain loop is never taken, so it is not measured."""
OURS, PLAIN = "compiled", "plain loop"
FEWER = (3, 300.0)
"""So many turns have to do for the plain loop where it takes so many milliseconds."""
TIMED = ("training", "inference", "streaming", "bf16-training", "bf16-inference")
"""A training step (forward and backward), reading, one call a step with one row, and the first two under autocast to bf16."""
FRESH = ("first-use", "memory")
"""What needs a process of its own: seconds until the first training step of a cell is done, and the memory one takes."""
MODES = (*TIMED, *FRESH)
STREAMING = 256
"""The hidden size that is streamed, where no shape is asked for."""
LEAST_BF16 = 16
"""The batch size from which bf16 is measured."""


class Held(NamedTuple):
    """What a ratio is held to."""

    least: float
    aim: float | None = None


LOOP = Held(3, 5)
CALL = Held(3, 8)
HALF = Held(1.3)
HELD: dict[tuple[str, str], dict[str, Held]] = {
    ("training", "gru"): {"nn.GRU": Held(1.8, 2.5), PLAIN: Held(4, 6)},
    ("inference", "gru"): {"nn.GRU": Held(2.5)},
    ("training", "peephole-lstm"): {PLAIN: LOOP, "nn.LSTM": Held(0.9)},
    ("inference", "peephole-lstm"): {"nn.LSTM": Held(0.9)},
    ("training", "lstm"): {"nn.LSTM": Held(0.97)},
    ("inference", "lstm"): {"nn.LSTM": Held(0.97)},
}
"""By mode and cell, against what, geometric mean over the shapes; see `held_to` for the rest."""
HELD_ANY = {
    "training": {PLAIN: LOOP},
    "inference": {PLAIN: LOOP},
    "streaming": {"nn.GRU": CALL, "nn.LSTM": CALL},
    "bf16-training": {"fp32": HALF},
    "bf16-inference": {"fp32": HALF},
}
"""By mode, for cells without an entry of their own."""
FIRST_USE_COLD, FIRST_USE_CACHED, MEMORY = 10.0, 1.0, 1.1
"""At most: seconds with nothing built, seconds with the kernel built, and the memory of a training step over that of torch's layer."""

Work = Callable[[], Any]
Makers = Mapping[str, Callable[[int, int], Cell]]


class Line(NamedTuple):
    """What is measured: one cell, in one way, at one size."""

    mode: str
    cell: str
    threads: int
    batch: int
    hidden: int


class Measured(NamedTuple):
    """One line of the table."""

    line: Line
    milliseconds: dict[str, float]
    """Medians by contestant, for all steps of time."""
    share: float | None = None
    """The least time the machine could take, over the time of the compiled loop."""

    def ratios(self) -> dict[str, float]:
        """How many times as fast the compiled loop is.

        Returns:
            By contestant.
        """
        return {name: ms / self.milliseconds[OURS] for name, ms in self.milliseconds.items() if name != OURS}

    def facts(self) -> dict[str, Any]:
        """The line as JSON has it.

        Returns:
            What was measured, and the figures.
        """
        return {**self.line._asdict(), "milliseconds": self.milliseconds, "share_of_limit": self.share}


class Contest(NamedTuple):
    """The same cell in several ways."""

    cell: Cell
    xs: Tensor
    works: dict[str, Work]


def plan(
    cells: Iterable[str], modes: Iterable[str], shapes: Sequence[tuple[int, int]] | None, threads: Iterable[int], quick: bool = False
) -> list[Line]:
    """What is to be measured in turns.

    Args:
        cells: names.
        modes: of `MODES`; those of `FRESH` are left out.
        shapes: batch and hidden size; streaming takes each hidden size once. `SHAPES` when `None`, and 256 for streaming.
        threads: of the processor; everything is measured with each.
        quick: leave the largest of `SHAPES` out.

    Returns:
        Line by line.
    """
    sizes = shapes or SHAPES[: -1 if quick else None]
    streamed = [(1, STREAMING)] if shapes is None else [(1, hidden) for hidden in dict.fromkeys(hidden for _, hidden in shapes)]
    by_mode = dict.fromkeys(TIMED, sizes) | {"streaming": streamed}
    for mode in ("bf16-training", "bf16-inference"):
        by_mode[mode] = sizes if shapes else [shape for shape in sizes if shape[0] >= LEAST_BF16]
    cells, modes = list(cells), [mode for mode in modes if mode in TIMED]
    return [Line(mode, cell, count, *shape) for count in threads for mode in modes for cell in cells for shape in by_mode[mode]]


def held_to(mode: str, cell: str) -> dict[str, Held]:
    """What the ratios of a cell are held to.

    Args:
        mode: of `TIMED`.
        cell: by name.

    Returns:
        By contestant; those that are not there are shown beside.
    """
    return HELD.get((mode, cell), HELD_ANY[mode])


def expected_seconds(line: Line, rounds: int, limits: Limits, steps: int = STEPS) -> float:
    """Roughly how long a line takes to measure on an idle machine.

    Args:
        line: what is measured.
        rounds: how often.
        limits: of the machine.
        steps: of a sequence.

    Returns:
        Seconds: each way runs at a part of the machine's limit, the plain loop takes its time at each step, and a kernel may have to be built.
    """
    training = line.mode.endswith("training")
    multiplied = 2 * line.batch * steps * 8 * line.hidden**2 * (3 if training else 1)
    one = 6 * multiplied / limits.products + steps * (4e-4 if training else 1e-4)
    return one * (rounds + 2) + (2.5 if training else 1)


def bench_kernels(lines: Sequence[Line], makers: Makers, limits: Mapping[int, Limits], rounds: int = 5) -> Iterator[Measured]:
    """Measure, line by line.

    Args:
        lines: see `plan`.
        makers: of the cells, from input and hidden size.
        limits: of the machine, by number of threads; without them no share is told.
        rounds: how often each is run, in turns.

    Yields:
        A line as soon as it is measured.
    """
    before = torch.get_num_threads()
    try:
        for line in lines:
            torch.set_num_threads(line.threads)
            contest = prepare(line, makers[line.cell])
            yield measured(line, race(contest.works, rounds), contest.cell, limits.get(line.threads))
    finally:
        torch.set_num_threads(before)


def measured(line: Line, milliseconds: dict[str, float], cell: Cell, limits: Limits | None, steps: int = STEPS) -> Measured:
    """A line with the share of the machine's limit.

    Args:
        line: what was measured.
        milliseconds: by contestant.
        cell: of that size.
        limits: of the machine, or `None`.
        steps: of a sequence.

    Returns:
        The line; no share in bf16, whose limit is another.
    """
    if limits is None or line.mode.startswith("bf16"):
        return Measured(line, milliseconds)
    least = least_milliseconds(cell, line.mode, line.batch, steps, limits)
    return Measured(line, milliseconds, None if least is None else least / milliseconds[OURS])


def race(works: Mapping[str, Work], rounds: int, least: float = 0.03) -> dict[str, float]:
    """Let each work once to warm up and then in turns.

    Args:
        works: what to run, by name.
        rounds: how many turns; see `FEWER`.
        least: seconds; a turn is as many runs as that takes.

    Returns:
        Median milliseconds of one run, by name.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for number in range(rounds):
        for name, work in works.items():
            if number < FEWER[0] or name != PLAIN or taken[name][-1] < FEWER[1]:
                taken[name].append(take_turn(work, least, warm=not taken[name] or taken[name][-1] < 100))
    return {name: statistics.median(times) for name, times in taken.items()}


def take_turn(work: Work, least: float, *, warm: bool) -> float:
    """Run for a while.

    Args:
        work: what to run.
        least: seconds; it is run at least once.
        warm: run it once more before, so that caches hold its data and threads are awake.

    Returns:
        Milliseconds of one run.
    """
    if warm:
        work()
    runs, begin = 0, time.perf_counter()
    while True:
        work()
        runs, spent = runs + 1, time.perf_counter() - begin
        if spent >= least:
            return 1000 * spent / runs


def geometric_means(lines: Iterable[Measured]) -> dict[tuple[str, str, int, str], float]:
    """How many times as fast compiled loops are, over all shapes.

    Args:
        lines: of a table.

    Returns:
        By mode, cell, threads, and what it is compared with.
    """
    found: dict[tuple[str, str, int, str], list[float]] = {}
    for one in lines:
        for name, ratio in one.ratios().items():
            found.setdefault((one.line.mode, one.line.cell, one.line.threads, name), []).append(ratio)
    return {key: statistics.geometric_mean(ratios) for key, ratios in found.items()}


def prepare(line: Line, make: Callable[[int, int], Cell], steps: int = STEPS) -> Contest:
    """The same cell in all ways of a mode.

    Args:
        line: mode and sizes.
        make: the cell, from input and hidden size.
        steps: of a sequence.

    Returns:
        What can be run, `compiled` first.
    """
    cell = make(line.hidden, line.hidden)
    mode = line.mode.removeprefix("bf16-")
    xs = torch.randn(line.batch, steps, line.hidden, requires_grad=mode == "training")
    run = _train if mode == "training" else _read
    if mode != line.mode:
        own = run(Recurrence(cell), xs)
        return Contest(cell, xs, {OURS: _in_bf16(_train if mode == "training" else _read, Recurrence(cell), xs), "fp32": own})
    beside = BESIDE.get(line.cell, "nn.LSTM")
    layer = LAYERS[beside](line.hidden, line.hidden, batch_first=True)
    if mode == "streaming":
        works = _streams(cell, layer, beside, xs)
    else:
        layers: dict[str, nn.Module] = {OURS: Recurrence(cell), PLAIN: Recurrence(cell, plain=True), beside: layer}
        works = {name: run(module, xs) for name, module in layers.items()}
    if line.cell in VENDOR:
        works.pop(PLAIN)
    return Contest(cell, xs, works)


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


def _in_bf16(run: Callable[[nn.Module, Tensor], Work], layer: nn.Module, xs: Tensor) -> Work:
    """As a training does it: the forward pass under autocast, the backward pass outside of it."""

    class Surrounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, xs: Tensor) -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                return self.layer(xs)

    return run(Surrounded(), xs)


def _streams(cell: Cell, layer: nn.Module, beside: str, xs: Tensor) -> dict[str, Work]:
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

    return {OURS: ours, PLAIN: plain, beside: vendor}
