"""`unrolled bench kernels`: how fast cells run on this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from unrolled.cli.output import duration, print_json
from unrolled.cli.plain import PlainCommand, PlainGroup
from unrolled.core.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from unrolled.nn.cell import Cell
    from unrolled.tasks.kernel_bench import Line, Measured
    from unrolled.tasks.kernel_fresh import FirstUse, PeakMemory
    from unrolled.tasks.kernel_limits import Limits

app = typer.Typer(cls=PlainGroup, help="Measure speed on this machine.", no_args_is_help=True)

QUICK_FRESH = ("gru",)
"""The cells whose first use and memory are measured where nothing else is asked for."""
QUICK_MODES = ("training", "inference", "streaming", "first-use", "memory")


@app.callback()
def _door() -> None:
    """Measure speed on this machine."""


@app.command(cls=PlainCommand)
def kernels(
    cells: Annotated[list[str] | None, typer.Option("--cell", metavar="NAME", help="Only this cell; may be given again.")] = None,
    modes: Annotated[
        list[str] | None,
        typer.Option(
            "--mode", metavar="NAME", help="Only training, inference, streaming, bf16-training, bf16-inference, first-use or memory."
        ),
    ] = None,
    shapes: Annotated[list[str] | None, typer.Option("--shape", metavar="BATCHxHIDDEN", help="Only this shape, such as 16x256.")] = None,
    threads: Annotated[
        list[int] | None, typer.Option("--threads", min=1, help="Processor threads, may be given again; all cores when not given.")
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Turns of each; the median counts.")] = 5,
    full: Annotated[bool, typer.Option("--full", help="Everything: all cores and one, the largest shape, bf16, all first uses.")] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Allow `--cell module:Class` to import a file of yours.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time compiled cells beside the plain loop and torch's own layers, 100 steps; by default a selection that takes a minute or two."""
    import torch

    from unrolled.tasks.kernel_bench import BENCHED, MODES, bench_kernels, plan
    from unrolled.tasks.kernel_fresh import result

    for mode in modes or []:
        if mode not in MODES:
            raise ConfigurationError(f"`--mode` must name one there is, got `{mode}`; {nearest(mode, MODES)}")
    makers = {name: _maker(name, trust) for name in dict.fromkeys(cells or BENCHED)}
    sizes = [_shape(text) for text in shapes or []] or None
    every = torch.get_num_threads()
    counts = list(dict.fromkeys(threads or ([every, 1] if full else [every])))
    asked = modes or (MODES if full else QUICK_MODES)
    lines = plan(makers, asked, sizes, counts, quick=not full)
    jobs = _fresh_jobs(asked, list(makers) if cells or full else list(QUICK_FRESH), counts[0], sizes, full=full)
    limits = _limits(counts) if lines else {}
    _say(f"{len(lines) + len(jobs)} measurements, about {duration(_expected(lines, rounds, limits, len(jobs)))}")
    measured = [_told(one, number, len(lines)) for number, one in enumerate(bench_kernels(lines, makers, limits, rounds), 1)]
    first_uses, memories = _fresh(jobs)
    if json:
        print_json(result(measured, limits, first_uses, memories))
    else:
        from unrolled.cli.bench_tables import show

        show(measured, limits, first_uses, memories)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _told(one: Measured, number: int, count: int) -> Measured:
    """A line, said as soon as it is there."""
    line, times = one.line, "  ".join(f"{name} {ms:.2f}" for name, ms in one.milliseconds.items())
    size = f"{line.batch} × {line.hidden}"
    threads = f"{line.threads} thread{'s' * (line.threads != 1)}"
    _say(f"{number}/{count}  {line.mode:14} {line.cell:15} {size:>8}, {threads}: {times} ms")
    return one


def _limits(counts: list[int]) -> dict[int, Limits]:
    import torch

    from unrolled.tasks.kernel_limits import measure_limits

    before, found = torch.get_num_threads(), {}
    try:
        for count in counts:
            torch.set_num_threads(count)
            found[count] = measure_limits()
    finally:
        torch.set_num_threads(before)
    return found


def _expected(lines: list[Line], rounds: int, limits: dict[int, Limits], jobs: int) -> float:
    """Seconds, roughly: what is slow is the plain loop, and what is compiled or started anew."""
    from unrolled.tasks.kernel_bench import expected_seconds

    return sum(expected_seconds(line, rounds, limits[line.threads]) for line in lines) + 9 * jobs


def _fresh_jobs(
    modes: Iterable[str], cells: list[str], threads: int, sizes: list[tuple[int, int]] | None, *, full: bool
) -> list[Callable[[], FirstUse | PeakMemory | None]]:
    """What is measured in processes of its own: first uses, and the memory of training steps."""
    from unrolled.tasks.kernel_fresh import FIRST_USE_SHAPE, MEMORY_SHAPES, first_use, step_memory

    jobs: list[Callable[[], FirstUse | PeakMemory | None]] = []
    if "first-use" in modes:
        jobs += [partial(first_use, cell, threads, (sizes or [FIRST_USE_SHAPE])[0]) for cell in cells]
    if "memory" in modes:
        chosen = sizes or MEMORY_SHAPES[: None if full else 1]
        jobs += [partial(step_memory, cell, threads, shape) for cell in cells for shape in chosen]
    return jobs


def _fresh(jobs: list[Callable[[], FirstUse | PeakMemory | None]]) -> tuple[list[FirstUse], list[PeakMemory]]:
    from unrolled.tasks.kernel_fresh import FirstUse, PeakMemory

    found = []
    for number, job in enumerate(jobs, 1):
        _say(f"process {number}/{len(jobs)}")
        found.append(job())
    if None in found:
        _say("this system does not tell the largest memory of a process")
    return [one for one in found if isinstance(one, FirstUse)], [one for one in found if isinstance(one, PeakMemory)]


def _maker(name: str, trust: bool) -> Callable[[int, int], Cell]:
    from unrolled.models.cell_choice import find_cell
    from unrolled.nn.cells import CELLS

    if name not in CELLS and ":" not in name:
        raise ConfigurationError(f"`--cell` must name one there is, or `module:Class`, got `{name}`; {nearest(name, CELLS)}")
    return find_cell(name, trust=trust)


def _shape(text: str) -> tuple[int, int]:
    batch, _, hidden = text.partition("x")
    if not (batch.isdecimal() and hidden.isdecimal() and int(batch) and int(hidden)):
        raise ConfigurationError(f"`--shape` must be batch and hidden size, both at least 1, such as 16x256, got `{text}`")
    return int(batch), int(hidden)
