"""Ourselves, torch's own layers and the plain loop: a worker of `kernels.py`; see turns.py."""

from __future__ import annotations

import functools
from typing import Any

from turns import Works, keep_to_threads, serve

if __name__ == "__main__":
    keep_to_threads()

import numpy as np
import torch
from parity import difference
from two_clocks import TwoClocks

from unrolled.nn.cells import CELLS
from unrolled.nn.recurrence import Recurrence
from unrolled.tasks.kernel_bench import Contest, Line, prepare
from unrolled.tasks.kernel_limits import least_milliseconds, measure_limits

limits = functools.cache(measure_limits)
"""Measured when first asked for, with as many threads as this process has for good."""


def store(contest: Contest, mode: str, file: str) -> float:
    """What peers are given, and what they have to find: by the plain loop, which is the definition. Tells how far the compiled one is from it."""
    cell, xs = contest.cell, contest.xs
    outputs = Recurrence(cell, plain=True)(xs)[0]
    arrays = dict(cell.named_parameters())
    if mode == "training":
        gradients = torch.autograd.grad(outputs.sum(), [xs, *arrays.values()])
        arrays |= {f"gradient {name}": gradient for name, gradient in zip(("xs", *arrays), gradients, strict=True)}
    arrays |= {"xs": xs, "outputs": outputs}
    expected = {name: array.detach().numpy() for name, array in arrays.items()}
    np.savez(file, **expected)
    return difference(expected, {"outputs": Recurrence(cell)(xs)[0].detach().numpy()})


def make(asked: dict[str, Any]) -> tuple[Works, dict[str, Any]]:
    """All ways of one cell; `arrays` is written where it is named."""
    torch.manual_seed(0)
    line = Line(asked["mode"], asked["cell"], torch.get_num_threads(), asked["batch"], asked["hidden"])
    contest = prepare(line, TwoClocks if line.cell == "unseen" else CELLS[line.cell], asked["steps"])
    for name in ("input_peephole", "forget_peephole", "output_peephole"):
        if name in dict(contest.cell.named_parameters()):  # zeros at the start, which would show no fault
            torch.nn.init.normal_(contest.cell.get_parameter(name), std=0.1)
    found = store(contest, line.mode, asked["arrays"]) if asked["arrays"] else None
    least = None if line.mode.startswith("bf16") else least_milliseconds(contest.cell, line.mode, line.batch, asked["steps"], limits())
    return contest.works, {"difference": found, "least": least, "limits": limits()._asdict()}


if __name__ == "__main__":
    serve(make)
