"""What only a process of its own can tell of a cell: how long the first training step takes, and how much memory one needs.

    python -m unrolled.tasks.kernel_fresh '{"measure": "memory", "of": "gru", "threads": 2, "batch": 32, "hidden": 512, "steps": 100}'

prints one JSON object. `of` is a cell by name, `module:Class`, or `nn.GRU` and `nn.LSTM`.
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from unrolled.models.cell_choice import find_cell
from unrolled.nn.recurrence import Recurrence
from unrolled.tasks.kernel_bench import BESIDE, LAYERS, STEPS, Measured, geometric_means
from unrolled.tasks.kernel_limits import Limits

FIRST_USE_SHAPE = (16, 256)
MEMORY_SHAPES = ((32, 512), (64, 650))
"""Large enough that what is measured is not lost in what any process needs."""


class FirstUse(NamedTuple):
    """Seconds until the first training step of a cell is done, torch being loaded."""

    cell: str
    threads: int
    batch: int
    hidden: int
    cold: float
    """With nothing built."""
    cached: float
    """With the kernel built by another process."""


class PeakMemory(NamedTuple):
    """Megabytes by which a training step raises what the process holds."""

    cell: str
    against: str
    threads: int
    batch: int
    hidden: int
    megabytes: float
    beside: float
    """Those of torch's layer."""

    @property
    def ratio(self) -> float:
        """Ours over theirs; not a number at sizes that no process notices."""
        return self.megabytes / self.beside if self.beside else math.nan


def result(
    lines: Sequence[Measured], limits: Mapping[int, Limits], first_uses: Sequence[FirstUse], memories: Sequence[PeakMemory]
) -> dict[str, Any]:
    """All figures as JSON has them.

    Args:
        lines: measured in turns.
        limits: of the machine, by number of threads.
        first_uses: of cells.
        memories: of training steps.

    Returns:
        An object.
    """
    means = geometric_means(lines)
    return {
        "steps": STEPS,
        "torch": torch.__version__,
        "limits": [{"threads": threads, **limit._asdict()} for threads, limit in limits.items()],
        "lines": [one.facts() for one in lines],
        "ratios": [dict(zip(("mode", "cell", "threads", "against"), key, strict=True)) | {"ratio": ratio} for key, ratio in means.items()],
        "first_use": [one._asdict() for one in first_uses],
        "memory": [one._asdict() | {"ratio": one.ratio} for one in memories],
    }


def first_use(cell: str, threads: int, shape: tuple[int, int] = FIRST_USE_SHAPE, module: str | None = None) -> FirstUse:
    """In two processes that share a cache folder, which is empty for the first.

    Args:
        cell: by name, or `module:Class`.
        threads: of the processor.
        shape: batch and hidden size.
        module: where `cell` is imported from, if it is called by another name there.

    Returns:
        Both times.
    """
    with tempfile.TemporaryDirectory(prefix="unrolled-first-use-") as folder:
        job = _job("first-use", module or cell, threads, shape)
        cold, cached = (ask(job, {"XDG_CACHE_HOME": folder})["seconds"] for _ in range(2))
    return FirstUse(cell, threads, *shape, cold, cached)


def step_memory(cell: str, threads: int, shape: tuple[int, int], module: str | None = None) -> PeakMemory | None:
    """In a process for the cell and one for torch's layer.

    Args:
        cell: by name, or `module:Class`.
        threads: of the processor.
        shape: batch and hidden size.
        module: where `cell` is imported from, if it is called by another name there.

    Returns:
        Both peaks, or `None` where the system does not tell.
    """
    against = BESIDE.get(cell, "nn.LSTM")
    ours, beside = (ask(_job("memory", of, threads, shape), {})["megabytes"] for of in (module or cell, against))
    return None if ours is None or beside is None else PeakMemory(cell, against, threads, *shape, ours, beside)


def ask(job: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    """Start a process on a job.

    Args:
        job: see the top of this file.
        environment: variables beside those of this process.

    Returns:
        What it found.
    """
    threads = {"OMP_NUM_THREADS": str(job["threads"]), "MKL_NUM_THREADS": str(job["threads"])}
    words = [sys.executable, "-m", "unrolled.tasks.kernel_fresh", json.dumps(job)]
    done = subprocess.run(words, env=os.environ | threads | environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _job(measure: str, of: str, threads: int, shape: tuple[int, int]) -> dict[str, Any]:
    return {"measure": measure, "of": of, "threads": threads, "batch": shape[0], "hidden": shape[1], "steps": STEPS}


def _make(of: str, hidden: int) -> nn.Module:
    return LAYERS[of](hidden, hidden, batch_first=True) if of in LAYERS else Recurrence(find_cell(of, trust=True)(hidden, hidden))


def _step(layer: nn.Module, batch: int, steps: int, hidden: int) -> Callable[[], None]:
    xs = torch.randn(batch, steps, hidden, requires_grad=True)
    return lambda: layer(xs)[0].sum().backward()


def _seconds(job: dict[str, Any]) -> dict[str, Any]:
    step = _step(_make(job["of"], job["hidden"]), job["batch"], job["steps"], job["hidden"])
    begin = time.perf_counter()
    step()
    return {"seconds": time.perf_counter() - begin}


def _megabytes(job: dict[str, Any]) -> dict[str, Any]:
    """The gradients belong to the step; what is loaded and built once does not, so a step of two rows and two steps goes first."""
    hidden = job["hidden"]
    layer = _make(job["of"], hidden)
    _step(layer, 2, 2, hidden)()
    layer.zero_grad()
    step = _step(layer, job["batch"], job["steps"], hidden)
    gc.collect()
    if not _forget_peak():
        return {"megabytes": None}
    before = _held("VmRSS")
    step()
    return {"megabytes": (_held("VmHWM") - before) / 1024}


def _forget_peak() -> bool:
    """Give free memory back and begin to watch the peak anew; false where the system cannot."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except (AttributeError, OSError):
        return False
    return True


def _held(name: str) -> int:
    """Kilobytes, as the system counts them."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


MEASURES = {"first-use": _seconds, "memory": _megabytes}


if __name__ == "__main__":
    task = json.loads(sys.argv[1])
    torch.set_num_threads(task["threads"])
    sys.stdout.write(json.dumps(MEASURES[task["measure"]](task)))
