"""The figures of kernels as tables that a person reads."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from unrolled.tasks.kernel_bench import FIRST_USE_CACHED, FIRST_USE_COLD, MEMORY, Held, Measured, geometric_means, held_to
from unrolled.tasks.kernel_fresh import FirstUse, PeakMemory
from unrolled.tasks.kernel_limits import Limits

HeldTo = Mapping[tuple[str, str], Mapping[str, Held]]
"""What else is measured beside a cell, by mode and cell: see `held_to`."""


def show(
    lines: Sequence[Measured],
    limits: Mapping[int, Limits],
    first_uses: Sequence[FirstUse],
    memories: Sequence[PeakMemory],
    more: HeldTo | None = None,
) -> None:
    """Print all there is.

    Args:
        lines: measured in turns.
        limits: of the machine, by number of threads.
        first_uses: of cells.
        memories: of training steps.
        more: what other systems are held to.
    """
    console = Console(highlight=False)
    tables = [ratio_table(lines, more or {}), share_table(lines, limits), first_use_table(first_uses), memory_table(memories)]
    for table in tables:
        if table.row_count:
            console.print(f"\n[bold]{table.title}", soft_wrap=True)
            table.title = None  # as a title it would be cut to the table's width
            console.print(table)
    console.print("\n! misses what it is held to")


def ratio_table(lines: Sequence[Measured], more: HeldTo) -> Table:
    """How many times as fast, geometric means over the shapes.

    Args:
        lines: measured in turns.
        more: what other systems are held to.

    Returns:
        A row for each cell, way and contestant, a column for each number of threads.
    """
    means = geometric_means(lines)
    threads = sorted({count for _, _, count, _ in means}, reverse=True)
    table = _table("times as fast, over all shapes", "", "cell", "than")
    for count in threads:
        table.add_column(_threads(count), justify="right")
    table.add_column("held to", justify="right")
    for mode, cell, other in dict.fromkeys((mode, cell, other) for mode, cell, _, other in means):
        held = {**held_to(mode, cell), **more.get((mode, cell), {})}.get(other)
        found = [means.get((mode, cell, count, other)) for count in threads]
        table.add_row(mode, cell, other, *[_ratio(ratio, held) for ratio in found], _held(held))
    return table


def share_table(lines: Sequence[Measured], limits: Mapping[int, Limits]) -> Table:
    """How near compiled loops come to what the machine could do.

    Args:
        lines: measured in turns.
        limits: of the machine, by number of threads.

    Returns:
        A row for each cell and way; batches and single rows are limited by different things.
    """
    found: dict[tuple[str, str], dict[tuple[int, bool], list[float]]] = {}
    for one in lines:
        if one.share is not None:
            place = one.line.threads, one.line.batch == 1
            found.setdefault((one.line.mode, one.line.cell), {}).setdefault(place, []).append(one.share)
    said = "; ".join(
        f"{_threads(count)}: {limit.products / 1e9:.0f} GFLOP/s"
        + ("" if limit.reading is None else f", one row {limit.reading / 1e9:.0f} GB/s")
        for count, limit in sorted(limits.items(), reverse=True)
    )
    table = _table(f"share of the machine's own limit ({said})", "", "cell")
    places = sorted({place for shares in found.values() for place in shares}, reverse=True)
    for count, single in places:
        table.add_column(f"{'one row' if single else 'batches'}, {_threads(count)}", justify="right")
    for (mode, cell), shares in found.items():
        cells = [f"{100 * statistics.geometric_mean(shares[place]):.0f} %" if place in shares else "" for place in places]
        table.add_row(mode, cell, *cells)
    return table


def first_use_table(found: Sequence[FirstUse]) -> Table:
    """Seconds until the first training step of a cell is done.

    Args:
        found: of cells.

    Returns:
        A row for each.
    """
    table = _table(f"first use, seconds (held to {FIRST_USE_COLD:g} and {FIRST_USE_CACHED:g})", "cell", "nothing built", "built before")
    for one in found:
        table.add_row(one.cell, _at_most(one.cold, FIRST_USE_COLD), _at_most(one.cached, FIRST_USE_CACHED))
    return table


def memory_table(found: Sequence[PeakMemory]) -> Table:
    """The memory of a training step beside that of torch's layer.

    Args:
        found: of cells.

    Returns:
        A row for each size.
    """
    table = _table(f"memory of a training step, MB (ratio held to {MEMORY:g})", "cell", "size", "compiled", "beside", "ratio")
    for one in found:
        size, beside = f"{one.batch} × {one.hidden}", f"{one.against} {one.beside:.0f}"
        table.add_row(one.cell, size, f"{one.megabytes:.0f}", beside, _at_most(one.ratio, MEMORY))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, title=title)
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count != 1)}"


def _ratio(ratio: float | None, held: Held | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio:.2f} !" if held is not None and ratio < held.least else f"{ratio:.2f}  "


def _held(held: Held | None) -> str:
    if held is None:
        return ""
    return f"≥ {held.least:g}" + ("" if held.aim is None else f", aim {held.aim:g}")


def _at_most(value: float, most: float) -> str:
    return f"{value:.2f} !" if value > most else f"{value:.2f}  "
