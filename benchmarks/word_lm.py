"""WikiText-2 with the tied two-layer LSTM: test perplexity after some minutes on this machine.

    .venv/bin/python benchmarks/word_lm.py FOLDER [--minutes 60] [--set KEY=VALUE …]

FOLDER holds train.txt.gz, valid.txt.gz and test.txt.gz. Writes benchmarks/results/word_lm.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import describe_machine, write_result

arguments = argparse.ArgumentParser()
arguments.add_argument("folder", type=Path)
arguments.add_argument("--minutes", type=float, default=60)
arguments.add_argument("--set", action="append", default=[], dest="sets")
arguments.add_argument("--out", type=Path, help="keep the run here")


def main() -> None:
    """Train, score the test part as one stream, keep the figures."""
    options = arguments.parse_args()
    program = str(Path(sys.executable).with_name("unrolled"))
    train, valid, test = (str(options.folder / f"{part}.txt.gz") for part in ("train", "valid", "test"))
    sets = [f"--set={one}" for one in (f"train.minutes={options.minutes}", *options.sets)]
    with tempfile.TemporaryDirectory() as folder:
        run = str(options.out or Path(folder) / "run")
        command = [program, "train", "lm", train, "--valid", valid, "--preset", "tied-lstm", "--out", run, "--json", *sets]
        summary = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        scored = subprocess.run([program, "eval", run, test, "--streams", "4", "--json"], check=True, stdout=subprocess.PIPE, text=True)
        shown = subprocess.run([program, "show", run, "--json"], check=True, stdout=subprocess.PIPE, text=True)
    result = {
        "machine": describe_machine(),
        "minutes": options.minutes,
        "summary": summary,
        "test": json.loads(scored.stdout),
        "config": json.loads(shown.stdout)["config"],
    }
    for part in ("summary", "test"):
        result[part].pop("run", None)
    print(f"valid perplexity {summary['perplexity']:.1f}, test perplexity {result['test']['perplexity']:.1f}")
    write_result("word_lm", result)


if __name__ == "__main__":
    main()
