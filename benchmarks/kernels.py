"""Compiled cells beside torch's own layers, the plain loop, JAX and ONNX Runtime on this machine, alternating, medians.

    .venv/bin/python benchmarks/kernels.py [--rows training gru inference:lstm] [--shapes 16x256] [--threads 2 1] [--rounds 5]
                                           [--no-peers] [--cache DIR] [--out FILE]

100 steps, fp32 (bf16 where it says so), inputs as wide as the state; a training step is forward and backward of the sum of all outputs, gradients
of inputs and weights. Ourselves, JAX and ONNX Runtime are one process each, for each number of threads, and are told in turns to run for a while;
before anything is timed, the others must find our outputs and gradients on the same weights (`peers/`). A turn is as many runs as take 30 ms, after one
that does not count; the plain loop has three turns where one takes 300 ms, all else `--rounds`. Ratios are geometric means over the shapes.

All of it takes about ten minutes on two cores, and the machine must have nothing else to do. Parts (`--rows` takes modes, cells and `MODE:CELL`) are
merged into benchmarks/results/kernels.json, and the table shows all that is there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from environments import PEERS, environment
from machine import RESULTS, describe_machine
from workers import Worker

from unrolled.cli.bench_tables import show
from unrolled.tasks.kernel_bench import BENCHED, FEWER, MODES, OURS, PLAIN, STEPS, Held, Line, Measured, plan
from unrolled.tasks.kernel_fresh import MEMORY_SHAPES, FirstUse, PeakMemory, first_use, result, step_memory
from unrolled.tasks.kernel_limits import Limits

UNSEEN = "unseen"
"""Our name for the cell of peers/two_clocks.py."""
CELLS = (*BENCHED, UNSEEN)
TOLERANCE = 1e-4
TURN = 0.03
"""Seconds."""


class Peer(NamedTuple):
    """Another system: its environment, and what it is measured in, with what we are held to there."""

    environment: str
    held: dict[tuple[str, str], Held | None]


OTHERS = {
    "JAX": Peer(
        "jax",
        {
            ("training", "gru"): Held(2),
            ("inference", "gru"): Held(2),
            ("training", "peephole-lstm"): None,
            ("inference", "peephole-lstm"): None,
        },
    ),
    "ONNX Runtime": Peer(
        "onnxruntime",
        {
            ("inference", "gru"): Held(2),
            ("inference", "peephole-lstm"): Held(2),
            ("streaming", "gru"): None,
            ("streaming", "peephole-lstm"): None,
        },
    ),
}
HELD = {
    place: {name: held for name, peer in OTHERS.items() if (held := peer.held.get(place))}
    for peer in OTHERS.values()
    for place in peer.held
}

arguments = argparse.ArgumentParser()
arguments.add_argument("--rows", nargs="+", default=[""], help="modes, cells, or MODE:CELL")
arguments.add_argument("--shapes", nargs="+", help="such as 16x256")
arguments.add_argument("--threads", nargs="+", type=int, default=[2, 1])
arguments.add_argument("--rounds", type=int, default=5)
arguments.add_argument("--no-peers", action="store_true")
arguments.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "unrolled-benchmarks")
arguments.add_argument("--out", type=Path, default=RESULTS / "kernels.json")


class Contestant(NamedTuple):
    """Something that a worker can run."""

    worker: Worker
    name: str

    def turn(self, *, warm: bool) -> float:
        return self.worker.ask({"turn": self.name, "least": TURN, "warm": warm})["milliseconds"]


def race(contestants: list[Contestant], rounds: int) -> dict[str, float]:
    """Median milliseconds of one run, in turns; as `unrolled.tasks.kernel_bench.race`, over processes."""
    taken: dict[str, list[float]] = {}
    last: Worker | None = None
    for one in contestants:  # builds and traces what has to be, and does not count
        taken[one.name] = []
        first = one.worker.ask({"turn": one.name, "least": 0, "warm": False})["milliseconds"]
        if one.name == OURS or first < 100:
            one.turn(warm=False)
    for number in range(rounds):
        for one in contestants:
            mine = taken[one.name]
            if number >= FEWER[0] and one.name == PLAIN and mine[-1] > FEWER[1]:
                continue
            if last is not None and one.worker is not last:
                last.fall_asleep()
            mine.append(one.turn(warm=not mine or mine[-1] < 100))
            last = one.worker
    return {name: median(times) for name, times in taken.items()}


class Workers:
    """The processes of one number of threads, started when they are first needed."""

    def __init__(self, threads: int, options: argparse.Namespace, scratch: Path) -> None:
        self.threads, self.options, self.scratch = threads, options, scratch
        self.running: dict[str, Worker] = {}

    def get(self, name: str) -> Worker:
        if name not in self.running:
            system = OTHERS[name].environment if name in OTHERS else "cells"
            python = environment(system, self.options.cache) if name in OTHERS else sys.executable
            self.running[name] = Worker(python, f"run_{system}.py", self.threads, self.options.cache / f"kernels-{system}.log")
        return self.running[name]

    def measure(self, line: Line) -> tuple[Measured, Limits]:
        """Everybody makes ready, is compared, and takes turns."""
        peers = [] if self.options.no_peers else [name for name, peer in OTHERS.items() if (line.mode, line.cell) in peer.held]
        asked = {**line._asdict(), "steps": STEPS, "arrays": str(self.scratch / "arrays.npz") if peers else None}
        ours = self.get(OURS)
        told = ours.ask({"make": asked})
        contestants = [Contestant(ours, name) for name in told["names"]]
        differences = {OURS: told["difference"]} if peers else {}
        for name in peers:
            answer = self.get(name).ask({"make": asked})
            differences[name] = answer["difference"]
            contestants += [Contestant(self.get(name), own) for own in answer["names"]]
        for name, difference in differences.items():
            if not difference <= TOLERANCE:
                sys.exit(f"{line}: {name} finds other numbers, {difference:.1e} away from those of the plain loop")
        times = race(contestants, self.options.rounds)
        return Measured(line, times, told["least"] and told["least"] / times[OURS]), Limits(**told["limits"])

    def end(self) -> None:
        for worker in self.running.values():
            worker.end()


class Found:
    """All figures, by what was measured; kept in a file, where new ones replace old ones."""

    def __init__(self, file: Path) -> None:
        self.file, self.machine = file, describe_machine()
        self.lines: dict[Line, Measured] = {}
        self.limits: dict[int, Limits] = {}
        self.first_uses: dict[str, FirstUse] = {}
        self.memories: dict[tuple[str, int, int], PeakMemory] = {}
        if file.exists():
            self._read(json.loads(file.read_text()))

    def _read(self, old: dict[str, Any]) -> None:
        if any(old["machine"][key] != self.machine[key] for key in ("processor", "torch")):
            print(f"{self.file.name} is of another machine or torch and is begun anew")
            return
        for one in old["lines"]:
            line = Line(*[one[name] for name in Line._fields])
            self.lines[line] = Measured(line, one["milliseconds"], one["share_of_limit"])
        for one in old["limits"]:
            self.limits[one["threads"]] = Limits(one["products"], one["reading"])
        for one in old["first_use"]:
            self.add(FirstUse(**one))
        for one in old["memory"]:
            self.add(PeakMemory(**{name: one[name] for name in PeakMemory._fields}))

    def add(self, one: Measured | FirstUse | PeakMemory) -> None:
        if isinstance(one, Measured):
            self.lines[one.line] = one
        elif isinstance(one, FirstUse):
            self.first_uses[one.cell] = one
        else:
            self.memories[one.cell, one.batch, one.hidden] = one

    def write(self) -> None:
        """Ordered as the table is, so that parts measured in any order give the same file."""
        order = sorted(self.lines.values(), key=lambda one: (MODES.index(one.line.mode), CELLS.index(one.line.cell), one.line[2:]))
        self.lines = {one.line: one for one in order}
        limits = dict(sorted(self.limits.items(), reverse=True))
        figures = result(order, limits, list(self.first_uses.values()), list(self.memories.values()))
        pinned = {name: (PEERS / f"requirements-{peer.environment}.txt").read_text().split() for name, peer in OTHERS.items()}
        versions = {
            name: next(line for line in lines if line.startswith(f"{OTHERS[name].environment}==")) for name, lines in pinned.items()
        }
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_text(json.dumps({"machine": self.machine, "peers": versions, **figures}, indent=2) + "\n")


def wanted(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Modes and cells that were asked for."""
    for asked in options.rows:
        known = {asked, *asked.split(":")} & {"", *MODES, *CELLS}
        if not known or (":" in asked and len(known) < 2):
            sys.exit(f"`--rows` must name modes ({', '.join(MODES)}), cells ({', '.join(CELLS)}) or MODE:CELL, got `{asked}`")
    for mode in MODES:
        for cell in CELLS:
            if {"", mode, cell, f"{mode}:{cell}"} & set(options.rows):
                yield mode, cell


def shapes(options: argparse.Namespace) -> list[tuple[int, int]] | None:
    """Batch and hidden size of each, or nothing."""
    try:
        return [(int(batch), int(hidden)) for batch, hidden in (text.split("x") for text in options.shapes)] if options.shapes else None
    except ValueError:
        sys.exit(f"`--shapes` must be batch and hidden size, such as 16x256, got {options.shapes}")


def fresh(mode: str, cell: str, options: argparse.Namespace) -> Iterator[FirstUse | PeakMemory]:
    """What needs processes of its own."""
    threads, module = options.threads[0], "two_clocks:TwoClocks" if cell == UNSEEN else None
    if mode == "first-use":
        yield first_use(cell, threads, module=module)
    else:
        for shape in shapes(options) or MEMORY_SHAPES:
            found = step_memory(cell, threads, shape, module=module)
            if found is not None:
                yield found


def install(rows: list[tuple[str, str]], options: argparse.Namespace) -> None:
    """The environments that are needed, before anything is measured."""
    for peer in OTHERS.values():
        if not options.no_peers and any(place in peer.held for place in rows):
            environment(peer.environment, options.cache)


def main() -> None:
    """Line by line, each kept as soon as it is there."""
    options = arguments.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    options.cache = options.cache.resolve()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(PEERS)]))
    rows, sizes, found, begin = list(wanted(options)), shapes(options), Found(options.out), time.perf_counter()

    def keep(one: Measured | FirstUse | PeakMemory) -> None:
        found.add(one)
        found.write()
        what, figures = (
            (one.line, {name: round(ms, 2) for name, ms in one.milliseconds.items()}) if isinstance(one, Measured) else (one, "")
        )
        print(f"{time.perf_counter() - begin:5.0f} s  {' '.join(map(str, what))}  {figures}", flush=True)

    install(rows, options)
    for threads in options.threads:
        with tempfile.TemporaryDirectory() as scratch:
            workers = Workers(threads, options, Path(scratch))
            for mode, cell in rows:
                for line in plan([cell], [mode], sizes, [threads]):
                    one, found.limits[threads] = workers.measure(line)
                    keep(one)
            workers.end()
    for mode, cell in rows:
        if mode in ("first-use", "memory"):
            for one in fresh(mode, cell, options):
                keep(one)
    show(list(found.lines.values()), found.limits, list(found.first_uses.values()), list(found.memories.values()), HELD)


if __name__ == "__main__":
    main()
