"""Anonymous memory while training on a 1 MB and on a 1 GB corpus.

    .venv/bin/python benchmarks/memory.py [--large 1000]

Both texts are synthetic and written to a temporary folder. Writes benchmarks/results/memory.json.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from machine import describe_machine, write_result

arguments = argparse.ArgumentParser()
arguments.add_argument("--large", type=int, default=1000, help="megabytes of the large corpus")


def write_text(path: Path, megabytes: int) -> None:
    """Random words, the same however long the text is."""
    chosen = random.Random(0)
    words = ["".join(chosen.choices("abcdefghijklmnopqrstuvwxyz", k=chosen.randint(2, 9))) for _ in range(5000)]
    block = "".join(chosen.choice(words) + chosen.choice([" ", " ", " ", "\n"]) for _ in range(170_000))[:1_000_000]
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(megabytes):
            file.write(block)


def anonymous_megabytes(process: int) -> float:
    """RssAnon of a process."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return 0.0


def peak_while_training(text: Path, out: Path) -> float:
    """The largest RssAnon of `unrolled train lm` from its start to its end, set-up included."""
    program = str(Path(sys.executable).with_name("unrolled"))
    sets = [
        "train.steps=30",
        "train.evaluations=0",
        "model.hidden_size=128",
        "train.batch_size=16",
        "train.window=64",
        "data.valid_share=0.0005",
    ]
    command = [program, "train", "lm", str(text), "--out", str(out), "--quiet", *[f"--set={one}" for one in sets]]
    process = subprocess.Popen(command)
    peak = 0.0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            try:
                peak = max(peak, anonymous_megabytes(process.pid))
            except (FileNotFoundError, ProcessLookupError):
                return
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    if process.wait():
        raise SystemExit(f"training on {text.name} failed")
    watcher.join()
    return peak


def main() -> None:
    """Train on both, compare."""
    options = arguments.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for megabytes in (1, options.large):
            text = Path(folder) / f"{megabytes}.txt"
            write_text(text, megabytes)
            begin = time.perf_counter()
            found[f"{megabytes} MB"] = {
                "peak_anonymous_MB": round(peak_while_training(text, Path(folder) / f"run-{megabytes}"), 1),
                "seconds": round(time.perf_counter() - begin, 1),
            }
            print(json.dumps(found), flush=True)
    peaks = [one["peak_anonymous_MB"] for one in found.values()]
    print(f"difference: {peaks[1] - peaks[0]:.1f} MB")
    write_result("memory", {"machine": describe_machine(), "corpora": found, "difference_MB": round(peaks[1] - peaks[0], 1)})


if __name__ == "__main__":
    main()
