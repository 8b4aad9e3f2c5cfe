"""How the cost of cells that are linear in their state grows with time, and by which way their steps are best taken; alternating, medians.

    .venv/bin/python benchmarks/linear_recurrences.py [--cells mingru …] [--threads 1] [--rounds 3] [--seconds 500]
    .venv/bin/python benchmarks/linear_recurrences.py --draw

Time grows from 64 to 16,384 steps by factors of 4, for 1 and 16 rows of 256 features: inference and a training step (forward and backward, gradients of
weights and input), by the compiled loop, the scan (all steps at once in torch), the scan by pairs (Blelloch's rounds under autograd; one row), and the plain loop.
The published GRU, compiled, is measured beside them. All ways must agree before they are timed. What would take longer than the seconds that are left is not
measured. Processor time is taken, so that with one thread it does not matter much what else runs.
Parts are merged into benchmarks/results/linear_recurrences.json; docs/_static/linear_recurrences.svg is drawn from it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from machine import RESULTS, describe_machine, write_result
from torch import Tensor

from unrolled.core import scan
from unrolled.nn import parallel
from unrolled.nn.cell import Cell
from unrolled.nn.cells import CELLS
from unrolled.nn.compiled import run_compiled
from unrolled.nn.parallel import run_parallel
from unrolled.nn.unroll import Sequences, run_steps

HIDDEN, TIMES, BATCHES = 256, (64, 256, 1024, 4096, 16384), (1, 16)
PICTURE = Path(__file__).parents[1] / "docs" / "_static" / "linear_recurrences.svg"
Way = Callable[[Cell, Tensor], Tensor]

arguments = argparse.ArgumentParser()
arguments.add_argument("--cells", nargs="*", default=["mingru", "minlstm", "linear-recurrent-unit", "gru"])
arguments.add_argument("--threads", type=int, default=1)
arguments.add_argument("--rounds", type=int, default=3)
arguments.add_argument("--seconds", type=float, default=500, help="begin nothing that would end later than this")
arguments.add_argument("--draw", action="store_true", help="only draw what is there")


def compiled(cell: Cell, xs: Tensor) -> Tensor:
    found = run_compiled(cell, xs, Sequences(xs, None, None), cell.initial_state(len(xs)), None, None)
    assert found is not None
    return found[0]


def at_once(cell: Cell, xs: Tensor) -> Tensor:
    found = run_parallel(cell, Sequences(xs, None, None), cell.initial_state(len(xs)), None)
    assert found is not None
    return found[0]


def by_pairs(cell: Cell, xs: Tensor) -> Tensor:
    ours = parallel.linear_scan
    parallel.linear_scan = lambda keep, add, initial: scan.by_pairs(keep, add, initial, reverse=False)
    try:
        return at_once(cell, xs)
    finally:
        parallel.linear_scan = ours


def one_by_one(cell: Cell, xs: Tensor) -> Tensor:
    return run_steps(cell, xs, Sequences(xs, None, None), cell.initial_state(len(xs)), None, None)[0]


WAYS: dict[str, Way] = {"compiled": compiled, "scan": at_once, "pairs": by_pairs, "plain": one_by_one}


def inference(way: Way, cell: Cell, xs: Tensor) -> None:
    with torch.inference_mode():
        way(cell, xs)


def training(way: Way, cell: Cell, xs: Tensor) -> None:
    cell.zero_grad()
    data = xs.detach().requires_grad_()
    way(cell, data).sum().backward()


def kept(way: Way, cell: Cell, xs: Tensor) -> float:
    """Numbers of float32 that are kept for the backward pass, for each step, row and unit."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = way(cell, xs.detach().requires_grad_())
    assert outputs.requires_grad
    weights = sum(parameter.untyped_storage().nbytes() for parameter in cell.parameters())
    return round((sum(sizes.values()) - weights) / (4 * xs.numel()), 2)


def ways_of(name: str, batch: int) -> dict[str, Way]:
    """The plain loop is slow and the same for all: it is measured for the minGRU."""
    left = {"gru": ["compiled"], "mingru": ["compiled", "scan", *(["pairs"] if batch == 1 else []), "plain"]}.get(
        name, ["compiled", "scan"]
    )
    return {way: WAYS[way] for way in left}


def agree(cell: Cell, xs: Tensor, ways: dict[str, Way]) -> None:
    """All ways give the same; what has to be compiled is compiled by this."""
    found = []
    for way in ways.values():
        inference(way, cell, xs)
        training(way, cell, xs)
        found.append([way(cell, xs).detach(), *[parameter.grad for parameter in cell.parameters()]])
    for others in found[1:]:
        for ours, first in zip(others, found[0], strict=True):
            torch.testing.assert_close(ours, first, rtol=1e-3, atol=1e-3)


def seconds_of(work: Callable[[], None]) -> float:
    """Processor time of one call, of as many as take a twentieth of a second."""
    begun, calls = time.process_time(), 0
    while calls == 0 or time.process_time() - begun < 0.05:
        work()
        calls += 1
    return (time.process_time() - begun) / calls


def measure(
    name: str, shape: tuple[int, int], rounds: int, before: dict[tuple[str, str, int], float], until: float
) -> Iterator[dict[str, Any]]:
    """Both modes of all ways for one cell and shape, in turns; `before` has the seconds of a fourth of the steps."""
    batch, steps = shape
    torch.manual_seed(0)
    cell, xs = CELLS[name](HIDDEN, HIDDEN), torch.randn(batch, steps, HIDDEN)
    ways = ways_of(name, batch)
    agree(cell, xs[:, :64], ways)
    for mode, work in {"inference": inference, "training": training}.items():
        taken: dict[str, list[float]] = {}
        for _ in range(rounds):
            for way, run in ways.items():
                expected = taken[way][0] if way in taken else 4.5 * before.get((way, mode, batch), 0.0)
                if time.perf_counter() + 2 * expected < until:
                    taken.setdefault(way, []).append(seconds_of(partial(work, run, cell, xs)))
        for way, seconds in taken.items():
            before[way, mode, batch] = median(seconds)
            line = {"cell": name, "way": way, "mode": mode, "batch": batch, "steps": steps}
            line |= {"milliseconds": round(1e3 * median(seconds), 3), "rounds": len(seconds)}
            if mode == "training" and steps == TIMES[1]:
                line["kept"] = kept(ways[way], cell, xs)
            yield line


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Milliseconds of a training step over time, both on logarithmic axes, one panel for each number of rows."""
    colours = {"compiled": "#4c78a8", "scan": "#f58518", "pairs": "#b279a2", "plain": "#54a24b"}
    words = {"compiled": "compiled loop", "scan": "scan", "pairs": "scan by pairs", "plain": "plain loop"}
    chosen = [row for row in rows if row["cell"] == "mingru" and row["mode"] == "training"]
    low, high = (
        math.floor(math.log10(min(row["milliseconds"] for row in chosen))),
        math.ceil(math.log10(max(row["milliseconds"] for row in chosen))),
    )
    width, height, left, top, gap = 300, 220, 64, 30, 70

    def y_of(milliseconds: float) -> float:
        return round(top + height * (1 - (math.log10(milliseconds) - low) / (high - low)), 1)

    body = []
    for place, batch in enumerate(BATCHES):
        begin = left + place * (width + gap)
        body.append(f'<text x="{begin}" y="{top - 12}" fill="#888">{batch} row{"s" if batch > 1 else ""}</text>')
        for power in range(low, high + 1):
            y = y_of(10**power)
            body.append(f'<line x1="{begin}" x2="{begin + width}" y1="{y}" y2="{y}" stroke="#888" stroke-opacity="0.25"/>')
            body.append(f'<text x="{begin - 6}" y="{y + 4}" text-anchor="end">{10**power:,g}</text>')
        xs = {steps: round(begin + width * index / (len(TIMES) - 1), 1) for index, steps in enumerate(TIMES)}
        body += [f'<text x="{x}" y="{top + height + 18}" text-anchor="middle">{steps:,}</text>' for steps, x in xs.items()]
        for way, colour in colours.items():
            line = [(xs[row["steps"]], y_of(row["milliseconds"])) for row in chosen if row["way"] == way and row["batch"] == batch]
            if line:
                points = " ".join(f"{x},{y}" for x, y in sorted(line))
                body.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
                body += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in line]
    total_width = left + 2 * width + gap + 24
    body.append(f'<text x="{total_width / 2}" y="{top + height + 38}" text-anchor="middle">steps</text>')
    body.append(
        f'<text x="14" y="{top + height / 2}" text-anchor="middle" transform="rotate(-90 14 {top + height / 2})">milliseconds</text>'
    )
    x = float(left)
    for way, colour in colours.items():
        body.append(f'<rect x="{x}" y="{top + height + 52}" width="12" height="12" fill="{colour}"/>')
        body.append(f'<text x="{x + 18}" y="{top + height + 62}">{words[way]}</text>')
        x += 40 + 7 * len(words[way])
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total_width} {top + height + 76}" role="img"'
    label = "Milliseconds of a training step of the minGRU over the number of steps, by the way its steps are taken"
    inside = "\n".join(body)
    path.write_text(
        f'{head} aria-label="{label}" font-family="sans-serif" font-size="12" fill="#888">\n{inside}\n</svg>\n', encoding="utf-8"
    )


def main() -> None:
    """All cells and shapes, the short ones first."""
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    file = RESULTS / "linear_recurrences.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text())["rows"] if file.exists() else []
    until = time.perf_counter() + options.seconds
    keys = ("cell", "way", "mode", "batch", "steps")
    for name in [] if options.draw else options.cells:
        before: dict[tuple[str, str, int], float] = {}
        for steps, batch in itertools.product(TIMES, BATCHES):
            for row in measure(name, (batch, steps), options.rounds, before, until):
                print(row, flush=True)
                rows = [old for old in rows if any(old[key] != row[key] for key in keys)] + [row]
                write_result("linear_recurrences", {"machine": describe_machine(), "hidden": HIDDEN, "clock": "process_time", "rows": rows})
    draw(rows, PICTURE)


if __name__ == "__main__":
    main()
