"""oneDNN's LSTM beside the compiled loop: which is taken is decided by `prefers_lstm_kernel` in `unrolled/nn/cells/vendor.py`, which this is for.

    .venv/bin/python benchmarks/lstm_ways.py [--threads 2] [--steps 48] [--units 128 256 …] [--rows 1 4 …] [--modes training …] [--seconds 2]

Both ways in turns on the same weights and inputs, after they have been seen to agree; medians of as many rounds as the seconds allow, six at least. `training` is
a forward and a backward pass with the gradient of the inputs, as behind an embedding or another layer, `first-layer` one without.
Lines are merged into benchmarks/results/lstm_ways.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from machine import RESULTS, describe_machine, write_result
from torch import Tensor

from unrolled.nn.cells import LSTM
from unrolled.nn.compiled import run_compiled
from unrolled.nn.unroll import Sequences

MODES = ("inference", "training", "first-layer", "bf16-inference", "bf16-training")

arguments = argparse.ArgumentParser()
arguments.add_argument("--threads", type=int, default=2)
arguments.add_argument("--steps", type=int, default=48)
arguments.add_argument("--units", type=int, nargs="*", default=[128, 256, 512, 768, 1024])
arguments.add_argument("--rows", type=int, nargs="*", default=[1, 4, 16, 64])
arguments.add_argument("--modes", nargs="*", choices=MODES, default=MODES)
arguments.add_argument("--seconds", type=float, default=2, help="for each line")


def vendor(cell: LSTM, xs: Tensor) -> Tensor:
    outputs, _ = cell.whole(xs, cell.initial_state(len(xs)))
    return outputs


def compiled(cell: LSTM, xs: Tensor) -> Tensor:
    found = run_compiled(cell, xs, Sequences(xs, None, None), cell.initial_state(len(xs)), None, None)
    assert found is not None
    return found[0]


def work(mode: str, cell: LSTM, xs: Tensor, way: Callable[[LSTM, Tensor], Tensor]) -> Tensor:
    """One pass, or a forward and a backward one."""
    trains = not mode.endswith("inference")
    data = xs.detach().requires_grad_(mode.endswith("training"))
    with torch.set_grad_enabled(trains), torch.autocast("cpu", torch.bfloat16, enabled=mode.startswith("bf16")):
        outputs = way(cell, data)
    if trains:
        cell.zero_grad()
        outputs.float().sum().backward()
    return outputs.detach().float()


def measure(mode: str, units: int, rows: int, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of both ways."""
    torch.manual_seed(0)
    cell, xs = LSTM(units, units), torch.randn(rows, options.steps, units)
    works = {way.__name__: partial(work, mode, cell, xs, way) for way in (vendor, compiled)}
    found = [run() for run in works.values() for _ in range(2)]
    torch.testing.assert_close(found[1], found[3], rtol=0, atol=3e-2 if mode.startswith("bf16") else 1e-4)
    taken: dict[str, list[float]] = {name: [] for name in works}
    until, order = time.monotonic() + options.seconds, list(works)
    while len(taken["vendor"]) < 6 or time.monotonic() < until:
        for name in order:
            begun = time.perf_counter()
            works[name]()
            taken[name].append(1e3 * (time.perf_counter() - begun))
        order.reverse()
    shape = {"mode": mode, "units": units, "rows": rows, "steps": options.steps, "threads": options.threads}
    return {**shape, **{name: round(median(times), 3) for name, times in taken.items()}}


if __name__ == "__main__":
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    path = RESULTS / "lstm_ways.json"
    before = json.loads(path.read_text())["lines"] if path.exists() else []
    lines = {tuple(line[key] for key in ("mode", "units", "rows", "steps", "threads")): line for line in before}
    for mode, units, rows in itertools.product(options.modes, options.units, options.rows):
        line = measure(mode, units, rows, options)
        lines[mode, units, rows, options.steps, options.threads] = line
        ratio = line["vendor"] / line["compiled"]
        print(
            f"{mode:>15} {units:>5} units {rows:>4} rows  oneDNN {line['vendor']:>9.2f} ms  compiled {line['compiled']:>9.2f} ms  {ratio:.2f}",
            flush=True,
        )
        write_result("lstm_ways", {"machine": describe_machine(), "lines": list(lines.values())})
