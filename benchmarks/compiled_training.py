"""What compiled cells gain in whole trainings: the same run with a compiler and without one, in turns, medians.

    .venv/bin/python benchmarks/compiled_training.py TEXT MULTI30K_FOLDER [--rounds 3] [--minutes 0.35]

Language models on TEXT and German to English, with cells that no vendor has a kernel for. Writes benchmarks/results/compiled_training.json.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from statistics import median
from typing import NamedTuple

from machine import describe_machine, write_result
from trainings import train

arguments = argparse.ArgumentParser()
arguments.add_argument("text", type=Path)
arguments.add_argument("multi30k", type=Path)
arguments.add_argument("--rounds", type=int, default=3)
arguments.add_argument("--minutes", type=float, default=0.35)
arguments.add_argument("--threads", type=int, default=2)


class Work(NamedTuple):
    """A training: its task and what it changes."""

    task: str
    options: tuple[str, ...]


TRAININGS = {
    "language model, published GRU": Work("lm", ("model.cell=gru",)),
    "language model, peephole LSTM": Work("lm", ("model.cell=peephole-lstm",)),
    "translation, published GRU": Work("translation", ("model.encoder.cell=gru", "model.decoder.cell=gru")),
}
WITHOUT = "/no/compiler"


def speed(work: Work, files: dict[str, list[str]], options: argparse.Namespace, *, compiled: bool) -> float:
    """Symbols a second of one training."""
    if compiled:
        os.environ.pop("CXX", None)
    else:
        os.environ["CXX"] = WITHOUT
    given = [*work.options, f"train.minutes={options.minutes}", f"train.threads={options.threads}", "train.evaluations=1"]
    with tempfile.TemporaryDirectory() as folder:
        row = train(work.task, files, Path(folder) / "run", [f"--set={one}" for one in given])
    return float(row["tokens_per_second"])


def main() -> None:
    """All trainings, in turns."""
    options = arguments.parse_args()
    pairs = {
        part: [str(options.multi30k.resolve() / f"{name}.{side}.gz") for side in ("de", "en")]
        for part, name in (("train", "train"), ("valid", "val"))
    }
    files = {"lm": {"train": [str(options.text.resolve())]}, "translation": pairs}
    rows = []
    for name, work in TRAININGS.items():
        found: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(options.rounds):
            for compiled, speeds in found.items():
                speeds.append(speed(work, files[work.task], options, compiled=compiled))
        with_, without = (median(found[compiled]) for compiled in (True, False))
        rows.append(
            {
                "training": name,
                "compiled": with_,
                "plain loop": without,
                "ratio": with_ / without,
                "all": {"compiled": found[True], "plain loop": found[False]},
            }
        )
        print(f"{name}: {with_:,.0f} symbols/s compiled, {without:,.0f} without, {with_ / without:.2f} times", flush=True)
    write_result("compiled_training", {"machine": describe_machine(), "minutes": options.minutes, "threads": options.threads, "rows": rows})


if __name__ == "__main__":
    main()
