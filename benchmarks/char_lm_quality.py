"""Validation loss after the same minutes of training: `unrolled train lm` beside the plain torch script, seed by seed, one after the other.

    .venv/bin/python benchmarks/char_lm_quality.py TEXT REFERENCE_SCRIPT [--minutes 3] [--seeds 3]

Nothing else should run on the machine meanwhile. Writes benchmarks/results/char_lm_quality.json.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import describe_machine, write_result

arguments = argparse.ArgumentParser()
arguments.add_argument("text", type=Path)
arguments.add_argument("reference", type=Path, help="char_lm.py, the plain torch script")
arguments.add_argument("--minutes", type=float, default=3)
arguments.add_argument("--seeds", type=int, default=3)


def reference(options: argparse.Namespace, seed: int) -> dict[str, float]:
    """One run of the plain script, in the number format that the processor multiplies natively."""
    import torch

    from unrolled.train.precision import has_native_bf16

    command = [sys.executable, str(options.reference), str(options.text), "--minutes", str(options.minutes), "--seed", str(seed)]
    if not has_native_bf16(torch.device("cpu")):
        command.append("--fp32")
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    loss, rate = re.search(r"validation ([\d.]+) nats/char, (\d+) chars/s", printed).groups()
    return {"loss": float(loss), "characters_per_second": float(rate)}


def ours(options: argparse.Namespace, seed: int) -> dict[str, float]:
    """One run of `unrolled train lm` with its defaults, scored by `unrolled eval`."""
    program = str(Path(sys.executable).with_name("unrolled"))
    with tempfile.TemporaryDirectory() as folder:
        run = str(Path(folder) / "run")
        sets = [f"--set=train.minutes={options.minutes}", f"--set=train.seed={seed}"]
        printed = subprocess.run(
            [program, "train", "lm", str(options.text), "--out", run, "--json", "--quiet", *sets],
            check=True,
            capture_output=True,
            text=True,
        )
        summary = json.loads(printed.stdout)
        scored = subprocess.run(
            [program, "eval", run, "--split", "valid", "--streams", "64", "--json"], check=True, capture_output=True, text=True
        )
    return {
        "loss": json.loads(scored.stdout)["loss"],
        "characters_per_second": summary["tokens"] / summary["seconds"],
        "steps": summary["steps"],
    }


def main() -> None:
    """Alternate the two, then say how they stand."""
    options = arguments.parse_args()
    rows = []
    for seed in range(options.seeds):
        for name, run in (("reference", reference), ("unrolled", ours)):
            rows.append({"who": name, "seed": seed, **run(options, seed)})
            print(rows[-1], flush=True)
    medians = {name: statistics.median(row["loss"] for row in rows if row["who"] == name) for name in ("reference", "unrolled")}
    print(f"median validation loss, nats/character: {medians}")
    write_result("char_lm_quality", {"machine": describe_machine(), "minutes": options.minutes, "rows": rows, "median_loss": medians})


if __name__ == "__main__":
    main()
