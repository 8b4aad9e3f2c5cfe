"""Training and prediction of a BiLSTM-CRF tagger beside flair on this machine, in turns, medians.

    .venv/bin/python benchmarks/label_speed.py FOLDER [--only training prediction] [--threads 2 1] [--rounds 5] [--seconds 8] [--cache DIR] [--quick]

FOLDER is that of UD English EWT; the label is the part of speech. `unrolled` has the sizes of flair's tagger: words of 100 features learnt from the
start, characters read by an LSTM of 25 from each end, an LSTM of 256 from each end, a CRF, batches of 32 sentences as they come, fp32.
`unrolled as it comes` is `train tagging` without any option. Words a second; training is the task's own (`train tagging`, the trainer
of flair with its SGD), prediction is `tag`, from words to labels with their probabilities, beside `predict` of flair, whose sentences are made before the
clock starts; with `from words` they are made within. flair has the batch size that is its fastest of those tried.

Every system has a process for each number of threads, which does nothing while it is not its turn (peers/). Its environment and the runs that predict
are kept in the cache. Writes benchmarks/results/label_speed.json, where `--only` and `--threads` leave the rest as it is. `--quick` tries
everything on little and writes nothing there.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from environments import PEERS, environment
from machine import RESULTS, describe_machine, write_result
from workers import Worker

arguments = argparse.ArgumentParser()
arguments.add_argument("folder", type=Path)
arguments.add_argument("--only", nargs="+", choices=["training", "prediction"], default=["training", "prediction"])
arguments.add_argument("--threads", nargs="+", type=int, default=[2, 1])
arguments.add_argument("--rounds", type=int, default=5)
arguments.add_argument("--seconds", type=float, default=8, help="of a turn of training")
arguments.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "unrolled-benchmarks")
arguments.add_argument("--quick", action="store_true", help="try everything on little")

SIZES = {"words": 100, "characters": 25, "spelling": 50, "hidden": 512, "min_count": 2, "batch": 32}
BATCHES = [32, 128]
"""With which flair is tried; it has 32 if it is not told."""
OURS: dict[str, dict[str, Any]] = {
    "unrolled": {
        "data": {"lowercase": False, "min_count": SIZES["min_count"]},
        "model": {
            "embedding_size": SIZES["words"],
            "hidden_size": SIZES["hidden"],
            "spelling": {"kind": "recurrent", "embedding_size": SIZES["characters"], "size": SIZES["spelling"]},
            # As in flair, which leaves out words and features before the layer, and features behind it.
            "word_dropout": 0.05,
            "input_dropout": 0.5,
            "output_dropout": 0.5,
        },
        "train": {"precision": "fp32", "average": None},
    },
    "unrolled as it comes": {},
}
WARM_UPDATES = 5
PAUSE = 2
"""Updates of every further turn that do not count."""


def write_sentences(folder: Path, work: Path, most: int | None) -> dict[str, str]:
    """Words and labels as JSON lines, which all systems are given."""
    found = {}
    for part in ("train", "test"):
        with gzip.open(folder / f"en_ewt-ud-{part}.conllu.gz", "rt", encoding="utf-8") as file:
            blocks = file.read().strip().split("\n\n")
        lines = []
        for block in blocks[:most]:
            cells = [row.split("\t") for row in block.splitlines() if not row.startswith("#")]
            cells = [row for row in cells if row[0].isdigit()]
            lines.append(json.dumps({"tokens": [row[1] for row in cells], "labels": [row[3] for row in cells]}))
        found[part] = str(work / f"{part}.jsonl")
        Path(found[part]).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return found


def ask_ours(name: str, files: dict[str, str], options: argparse.Namespace) -> dict[str, Any]:
    run = options.cache / f"{name.replace(' ', '-')}-tagger{'-quick' if options.quick else ''}"
    batch = SIZES["batch"] if name == "unrolled" else None
    return {"train": files["train"], "predict": files["test"], "run": str(run), "differences": OURS[name], "batch": batch}


def start(
    part: str, threads: int, files: dict[str, str], options: argparse.Namespace
) -> tuple[dict[str, Worker], dict[str, dict[str, Any]]]:
    """The processes of a part, ready, and what they tell of themselves."""
    words = ["train"] if part == "training" else []
    workers, told = {}, {}
    for name in [*OURS, "flair"]:
        script = "run_flair.py" if name == "flair" else "run_tagging.py"
        python = environment("flair", options.cache) if name == "flair" else sys.executable
        log = options.cache / f"labels-{part}-{name.replace(' ', '-')}.log"
        workers[name] = Worker(python, script, threads, log, *words)
        asked = {**SIZES, **files, "predict": files["test"], "batches": BATCHES} if name == "flair" else ask_ours(name, files, options)
        told[name] = workers[name].ask(asked if part == "training" else {"make": asked})
    return workers, told


def rest(workers: dict[str, Worker]) -> None:
    """Threads of one system may look for work after its turn; the next one has to have the machine to itself."""
    for worker in workers.values():
        worker.fall_asleep()


def train(workers: dict[str, Worker], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Words a second of every system, in turns."""
    speeds: dict[str, list[float]] = {name: [] for name in workers}
    updates: dict[str, float] = {}
    for number in range(options.rounds):
        for name, worker in workers.items():
            rest(workers)
            found = worker.ask({"seconds": options.seconds, "warm": PAUSE if number else WARM_UPDATES})
            speeds[name].append(found["words"] / found["seconds"])
            updates[name] = found["words"] / found["updates"]
    return {name: {**summary(found), "words_per_update": round(updates[name], 1)} for name, found in speeds.items()}


def predict(workers: dict[str, Worker], told: dict[str, dict[str, Any]], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Words a second of every system and way, in turns; flair's faster batch size alone is kept."""
    ways = [(name, way) for name, one in told.items() for way in one["names"]]
    speeds: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
    for number in range(options.rounds):
        for name, way in ways:
            rest(workers)
            least = 0.0 if options.quick else 1.0
            found = workers[name].ask({"turn": way, "least": least, "warm": number == 0})
            speeds[name, way].append(1000 * told[name]["words"] / found["milliseconds"])
    rows = {}
    for name in workers:
        for ending in ("", ", from words"):
            mine = {way: speeds[name, way] for way in told[name]["names"] if way.endswith(ending) and ("from words" in way) == bool(ending)}
            if mine:
                best = max(mine, key=lambda way: statistics.median(mine[way]))
                rows[name + ending] = summary(mine[best]) | ({"batch": int(best.split(",")[0])} if name == "flair" else {})
    return rows


def summary(speeds: list[float]) -> dict[str, Any]:
    return {"words_per_second": [round(speed) for speed in speeds], "median": round(statistics.median(speeds))}


def measure(part: str, threads: int, files: dict[str, str], options: argparse.Namespace) -> dict[str, Any]:
    """All systems in one part, with as many threads."""
    workers, told = start(part, threads, files, options)
    rows = train(workers, options) if part == "training" else predict(workers, told, options)
    for worker in workers.values():
        worker.end()
    for name, row in rows.items():
        facts = {key: value for key, value in told[name.partition(",")[0]].items() if key in ("parameters", "precision")}
        row |= {"precision": "fp32", **facts, "times_flair": round(row["median"] / rows["flair"]["median"], 2)}
        print(
            f"{part}, {threads} threads, {name}: {row['median']:,} words/s, {row['times_flair']} × flair, {row['parameters']:,} parameters"
        )
    sys.stdout.flush()
    return {"part": part, "machine": describe_machine() | {"threads": threads}, "systems": rows}


def main() -> None:
    """The parts that were asked for, each written as soon as it is there."""
    options = arguments.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    options.cache = options.cache.resolve()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(PEERS)]))
    if options.quick:
        options.rounds, options.seconds = 1, 1
    environment("flair", options.cache)
    file = RESULTS / "label_speed.json"
    rows = json.loads(file.read_text())["rows"] if file.exists() else []
    pinned = (PEERS / "requirements-flair.txt").read_text().split()
    versions = dict(line.split("==") for line in pinned if line.split("==")[0] in ("flair", "torch"))
    with tempfile.TemporaryDirectory() as scratch:
        files = write_sentences(options.folder, Path(scratch), 200 if options.quick else None)
        for threads in options.threads:
            for part in options.only:
                row = measure(part, threads, files, options)
                rows = [old for old in rows if (old["part"], old["machine"]["threads"]) != (part, threads)] + [row]
                if not options.quick:
                    write_result("label_speed", {"sizes": SIZES, "peers": versions, "rows": rows})


if __name__ == "__main__":
    main()
