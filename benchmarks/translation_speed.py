"""Training and decoding of translation beside Joey NMT, eole and CTranslate2 on this machine, alternating, medians.

    .venv/bin/python benchmarks/translation_speed.py FOLDER [--only training rnn transformer] [--rounds 3] [--seconds 20] [--cache DIR] [--quick]

FOLDER is that of Multi30k (German to English). `training`: target symbols a second of the same GRU in ours, as it comes and in fp32, and in
Joey NMT, which trains in fp32. `rnn`: beam 5 over test_2016 with ours, Joey NMT and eole, all three with the weights of one run of ours.
`transformer`: the same with ours and CTranslate2. What the systems are given, and what had to be patched, is said in peers/README.md.

Environments, trained runs and logs are kept in the cache, by default ~/.cache/unrolled-benchmarks; without them the first start takes longer.
Writes benchmarks/results/translation_speed.json, where `--only` leaves the other parts as they are. `--quick` tries every piece on 50 sentences
and writes nothing there.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from environments import PEERS, call, environment
from machine import RESULTS, describe_machine, write_result

import unrolled

arguments = argparse.ArgumentParser()
arguments.add_argument("folder", type=Path)
arguments.add_argument("--only", nargs="+", choices=["training", "rnn", "transformer"], default=["training", "rnn", "transformer"])
arguments.add_argument("--rounds", type=int, default=3)
arguments.add_argument("--seconds", type=float, default=20, help="of each training, after its first updates")
arguments.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "unrolled-benchmarks")
arguments.add_argument("--quick", action="store_true", help="try everything on little")

SUBWORDS = "--set=data.vocabulary_size=8000"
GRU = [
    "--set=model.encoder.cell=reset-after-gru",
    "--set=model.decoder.cell=reset-after-gru",
    "--set=model.attention.input_feeding=true",
    "--set=model.tie_weights=false",
    SUBWORDS,
    "--set=train.batch_tokens=2048",
]
"""The model that Joey NMT and eole have as well: theirs is the GRU of torch, and their read-out has weights of its own."""
RUNS = {
    "rnn": [
        *GRU,
        "--set=train.batch_tokens=1024",
        "--set=train.epochs=3",
        "--set=train.schedule.warmup_steps=200",
        "--set=train.average=0.98",
    ],
    "transformer": ["--preset=transformer", "--set=train.epochs=6", "--set=train.average=0.995"],
}
"""What is trained once, a few minutes each: enough for outputs of sensible lengths, not for good ones."""
WARM_UPDATES = 5
LONGEST = 150


class System(NamedTuple):
    """What decodes: its interpreter's peer (`None` is our own), and what it is tried with before the rounds."""

    peer: str | None
    candidates: list[dict[str, Any]]


OURS = System(None, [{"batch_tokens": tokens} for tokens in (1024, 4096, 16384)])
DECODERS = {
    "rnn": {
        "unrolled": OURS,
        "joeynmt": System("joeynmt", [{"batch": lines} for lines in (10, 50, 200)]),
        "eole": System("eole", [{"batch": lines} for lines in (30, 100, 300)]),
    },
    "transformer": {
        "unrolled": OURS,
        "ctranslate2": System("ctranslate2", [{"batch": lines, "workers": workers} for workers in (1, 2) for lines in (32, 128)]),
    },
}
PENALTY = {"rnn": "gnmt", "transformer": "average"}
"""The length normalisation that all systems of a part have, with an exponent of 1."""


def pairs(folder: Path, part: str) -> list[str]:
    return [str(folder.resolve() / f"{part}.{side}.gz") for side in ("de", "en")]


def train_ours(folder: Path, out: Path, given: list[str], log: Path) -> None:
    files = [*pairs(folder, "train"), "--valid", *pairs(folder, "val")]
    call([sys.executable, "-m", "unrolled", "train", "translation", *files, f"--out={out}", "--quiet", "--json", *given], log)


def finished(run: Path) -> bool:
    facts = run / "run.json"
    return facts.exists() and json.loads(facts.read_text())["status"] == "finished"


def trained(kind: str, options: argparse.Namespace) -> Path:
    """A run that decodes: that of the cache, made or ended where it is not there; a quick start without it makes a small one."""
    run, log = options.cache / f"run-{kind}", options.cache / f"run-{kind}.log"
    given = [*RUNS[kind], "--set=train.evaluations=2", "--set=train.evaluation_decodes=0", "--set=samples.sentences=0"]
    if options.quick and not finished(run):
        run, given = options.cache / f"run-{kind}-quick", [*given, "--set=train.steps=60"]
    if not finished(run):
        print(f"training {run.name}", flush=True)
        if run.exists():
            call([sys.executable, "-m", "unrolled", "train", "translation", "--resume", f"--out={run}", "--quiet"], log)
        else:
            train_ours(options.folder, run, given, log)
    return run


def read(path: str) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return file.read().removesuffix("\n").split("\n")


class Pieces:
    """Our sub-words as other systems get them: text of pieces with spaces between, and text from such pieces."""

    def __init__(self, run: Any) -> None:
        self.codec = run.codecs.target
        self.symbols = self.codec.tokenizer.symbols
        self.id_of = {symbol: i for i, symbol in enumerate(self.symbols)}
        assert all(len(symbol.split()) == 1 for symbol in self.symbols)
        assert not self.id_of.keys() & {"<unk>", "<pad>", "<blank>", "<s>", "</s>"}

    def cut(self, lines: list[str]) -> list[str]:
        return [" ".join(self.symbols[i] for i in ids) for ids in self.codec.encode_all(lines)]

    def text(self, pieces: str) -> str:
        return self.codec.decode(self.id_of[piece] for piece in pieces.split(" ") if piece in self.id_of)

    def write(self, lines: list[str], path: Path) -> str:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(path)


def export(run: Any, pieces: Pieces, folder: Path) -> str:
    """The weights of a run by our names, and its vocabulary."""
    folder.mkdir()
    np.savez(folder / "weights.npz", **{name: weight.numpy() for name, weight in run.model.state_dict().items()})
    (folder / "symbols.txt").write_text("\n".join(pieces.symbols), encoding="utf-8")
    return str(folder)


def ask(system: str, python: str, job: dict[str, Any], work: Path, log: Path) -> dict[str, Any]:
    """Start a runner on a job and read what it writes."""
    job = job | {"result": str(work / "result.json")}
    (work / "job.json").write_text(json.dumps(job), encoding="utf-8")
    call([python, str(PEERS / f"run_{system}.py"), str(work / "job.json")], log)
    return json.loads((work / "result.json").read_text(encoding="utf-8"))


def our_training(given: list[str], options: argparse.Namespace, work: Path, number: int) -> dict[str, Any]:
    """Target symbols and seconds of `train translation` after its first updates, as its own metrics count them."""
    out = work / f"training-{number}-{len(given)}"
    minutes = (options.seconds + 5) / 60
    sets = {"train.minutes": minutes, "train.evaluations": 0, "train.log_every": WARM_UPDATES}
    train_ours(
        options.folder, out, [*GRU, *given, *[f"--set={key}={value}" for key, value in sets.items()]], options.cache / "training.log"
    )
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["kind"] == "train"]
    first, last = rows[0], next((row for row in rows[1:] if row["seconds"] - rows[0]["seconds"] >= options.seconds), rows[-1])
    precision = json.loads((out / "run.json").read_text())["machine"]["precision"]
    shutil.rmtree(out)
    return {
        "updates": last["step"] - first["step"],
        "symbols": last["tokens"] - first["tokens"],
        "seconds": last["seconds"] - first["seconds"],
        "precision": precision,
    }


def measure_training(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """All trainings, alternating."""
    python = environment("joeynmt", options.cache)
    run = unrolled.load(trained("rnn", options))
    pieces = Pieces(run)
    for part in ("train", "val"):
        for side, path in zip(("de", "en"), pairs(options.folder, part), strict=True):
            pieces.write(pieces.cut(read(path)), work / f"{part}.{side}")
    pieces.write(pieces.symbols, work / "symbols.txt")
    job = {"task": "train", "text": str(work), "seconds": options.seconds, "warm_updates": WARM_UPDATES}
    found: dict[str, list[dict[str, Any]]] = {"unrolled": [], "joeynmt": [], "unrolled fp32": []}
    for number in range(options.rounds):
        found["unrolled"].append(our_training([], options, work, number))
        found["joeynmt"].append(ask("joeynmt", python, job, work, options.cache / "training-joeynmt.log"))
        found["unrolled fp32"].append(our_training(["--set=train.precision=fp32"], options, work, number))
    rows = {}
    for name, rounds in found.items():
        speeds = [one["symbols"] / one["seconds"] for one in rounds]
        rows[name] = {
            "precision": rounds[0].get("precision", "fp32"),
            "target_symbols_per_second": [round(speed) for speed in speeds],
            "median": round(statistics.median(speeds)),
            "target_symbols_per_update": round(sum(one["symbols"] for one in rounds) / sum(one["updates"] for one in rounds)),
        }
        print(f"training, {name} ({rows[name]['precision']}): {rows[name]['median']} target symbols/s", flush=True)
    return {"machine": describe_machine(), "batch_tokens": 2048, "seconds": options.seconds, "systems": rows}


def decoding_jobs(kind: str, options: argparse.Namespace, work: Path) -> tuple[dict[str, dict[str, Any]], Pieces]:
    """What each system is asked, without candidates."""
    path = trained(kind, options)
    run = unrolled.load(path)
    pieces = Pieces(run)
    lines = read(pairs(options.folder, "test_2016_flickr")[0])[: 50 if options.quick else None]
    shared = {"warm": min(64, len(lines)), "beam": 5, "longest": LONGEST, "threads": torch.get_num_threads()}
    wishes = {"beam": 5, "normalisation": PENALTY[kind], "alpha": 1.0, "max_ratio": 0.0, "max_extra": LONGEST}
    ours = shared | {"run": str(path), "wishes": wishes, "sources": pieces.write(lines, work / "lines.txt")}
    model = run.settings.model
    sizes = {"layers": model.encoder.layers, "heads": model.transformer.heads}
    peers = shared | sizes | {"weights": export(run, pieces, work / f"weights-{kind}"), "task": "decode"}
    peers["sources"] = pieces.write(pieces.cut(lines), work / "pieces.txt")
    return {name: peers if system.peer else ours for name, system in DECODERS[kind].items()}, pieces


def measure_decoding(kind: str, options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Every system tries its candidates once, then the best of each alternate."""
    systems = DECODERS[kind]
    pythons = {name: environment(system.peer, options.cache) if system.peer else sys.executable for name, system in systems.items()}
    jobs, pieces = decoding_jobs(kind, options, work)

    def decode(name: str, candidates: list[dict[str, Any]]) -> dict[str, Any]:
        return ask(name, pythons[name], jobs[name] | {"candidates": candidates}, work, options.cache / f"{kind}-{name}.log")

    tried = {name: decode(name, system.candidates)["runs"] for name, system in systems.items()}
    best = {name: min(runs, key=lambda run: run["seconds"])["candidate"] for name, runs in tried.items()}
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    last: dict[str, dict[str, Any]] = {}
    for _ in range(options.rounds):
        for name in systems:
            last[name] = decode(name, [best[name]])
            seconds[name].append(last[name]["runs"][0]["seconds"])
    texts = {
        name: [pieces.text(one) for one in found["outputs"]] if systems[name].peer else found["outputs"] for name, found in last.items()
    }
    rows = {}
    for name, found in last.items():
        middle, count = statistics.median(seconds[name]), len(found["outputs"])
        rows[name] = {
            "seconds": seconds[name],
            "median": middle,
            "sources_per_second": count / middle,
            "output_symbols_per_second": sum(found["lengths"]) / middle,
            "mean_output_length": statistics.mean(found["lengths"]),
            "same_as_ours": sum(a == b for a, b in zip(texts[name], texts["unrolled"], strict=True)) / count,
            "parameters": found["parameters"],
            "best": best[name],
            "tried": tried[name],
        }
        print(
            f"{kind}, {name} {best[name]}: {rows[name]['sources_per_second']:.1f} sources/s, {rows[name]['output_symbols_per_second']:.0f} symbols/s, "
            f"{rows[name]['mean_output_length']:.2f} symbols each, {100 * rows[name]['same_as_ours']:.1f} % as ours",
            flush=True,
        )
    return {"machine": describe_machine(), "beam": 5, "normalisation": PENALTY[kind], "sentences": count, "systems": rows}


def versions(part: str) -> dict[str, str]:
    """What the peers of a part are pinned to."""
    peers = {"training": ["joeynmt"], "rnn": ["joeynmt", "eole"], "transformer": ["ctranslate2"]}[part]
    lines = [line for peer in peers for line in (PEERS / f"requirements-{peer}.txt").read_text().splitlines()]
    return dict(line.split("==") for line in lines if line.split("==")[0] in (*peers, "torch"))


def main() -> None:
    """The parts that were asked for, each written as soon as it is there."""
    options = arguments.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    options.cache = options.cache.resolve()
    if options.quick:
        options.rounds, options.seconds = 1, min(options.seconds, 10)
    file = RESULTS / "translation_speed.json"
    result = json.loads(file.read_text()) if file.exists() else {}
    for part in options.only:
        with tempfile.TemporaryDirectory() as scratch:
            measured = measure_training(options, Path(scratch)) if part == "training" else measure_decoding(part, options, Path(scratch))
        result[part] = measured | {"peers": versions(part)}
        if not options.quick:
            write_result("translation_speed", result)


if __name__ == "__main__":
    main()
