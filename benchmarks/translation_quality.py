"""Pairs of sequences learnt within a time on this machine: translation, pronunciation, commands.

    .venv/bin/python benchmarks/translation_quality.py multi30k FOLDER [--minutes 60] [--models NAME …] [--keep DIR]
    .venv/bin/python benchmarks/translation_quality.py cmudict FOLDER [--minutes 40]
    .venv/bin/python benchmarks/translation_quality.py scan FOLDER [--minutes 10]

FOLDER is the data set's own. Each model is trained on its own, one after the other, and scored on the test part by `unrolled eval`, greedy and with
a beam of 5. Adds them to benchmarks/results/translation_NAME.json, for multi30k also docs/_static/bleu_by_length.svg.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import tempfile
from collections.abc import Iterator
from hashlib import md5
from itertools import pairwise
from pathlib import Path
from typing import Any

from machine import write_result
from trainings import rows_of, score, train, unrolled

arguments = argparse.ArgumentParser()
arguments.add_argument("data", choices=["multi30k", "cmudict", "scan"])
arguments.add_argument("folder", type=Path)
arguments.add_argument("--minutes", type=float)
arguments.add_argument("--models", nargs="*", help="only these")
arguments.add_argument("--keep", type=Path, help="keep the runs here, and do not train again what is there")
arguments.add_argument("--set", action="append", default=[], dest="sets")

MINUTES = {"multi30k": 60.0, "cmudict": 40.0, "scan": 10.0}
TRANSFORMER = ["--preset", "transformer"]
MODELS: dict[str, dict[str, list[str]]] = {
    "multi30k": {
        "LSTM, additive attention": [],
        "Transformer": TRANSFORMER,
        "published GRU, additive attention before the step": [
            "--set=model.encoder.cell=gru",
            "--set=model.decoder.cell=gru",
            "--set=model.attention.when=before",
        ],
        "LSTM without attention": ["--set=model.attention.kind=none"],
    },
    "cmudict": {
        "LSTM, additive attention": [
            "--set=data.source_tokens=characters",
            "--set=data.target_tokens=words",
            "--set=model.hidden_size=384",
            "--set=model.encoder.layers=2",
            "--set=model.input_dropout=0.1",  # one letter in three left out leaves no word
            "--set=model.hidden_dropout=0.2",
            "--set=model.output_dropout=0.2",
        ],
    },
    "scan": {
        "simple split": ["--set=data.tokens=words", "--set=model.hidden_size=256"],
        "length split": ["--set=data.tokens=words", "--set=model.hidden_size=256"],
    },
}
EDGES = (1, 9, 11, 13, 16, 20, 100)
"""Where the groups of source lengths begin, in words."""


def read(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return file.read().removesuffix("\n").split("\n")


def multi30k(folder: Path, work: Path) -> dict[str, dict[str, list[str]]]:
    parts = {
        part: [str(folder / f"{name}.{side}.gz") for side in ("de", "en")]
        for part, name in (("train", "train"), ("valid", "val"), ("test", "test_2016_flickr"))
    }
    return dict.fromkeys(MODELS["multi30k"], parts)


def cmudict(folder: Path, work: Path) -> dict[str, dict[str, list[str]]]:
    """Without stress; split by the hash of the headword: 0 develops, 1 tests, the other 18 of 20 train."""
    lines: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for line in read(folder / "cmudict.dict.gz"):
        word, *phones = line.partition("#")[0].split()
        word = word.partition("(")[0]
        part = {0: "valid", 1: "test"}.get(int(md5(word.encode()).hexdigest(), 16) % 20, "train")
        phones = [phone.rstrip("012") for phone in phones]
        lines[part].append(f"{word}\t{' '.join(phones)}\n")
    files = {}
    for part, found in lines.items():
        path = work / f"{part}.tsv"
        path.write_text("".join(dict.fromkeys(found)), encoding="utf-8")
        files[part] = [str(path)]
    return dict.fromkeys(MODELS["cmudict"], files)


def scan(folder: Path, work: Path) -> dict[str, dict[str, list[str]]]:
    """Commands into actions; the last 2 % of the training part, as it stands, validate."""
    found = {}
    for split in ("simple", "length"):
        files = {}
        for part in ("train", "test"):
            pairs = [line.removeprefix("IN: ").split(" OUT: ") for line in read(folder / f"{split}_split" / f"tasks_{part}_{split}.txt.gz")]
            rows = ["\t".join(pair) + "\n" for pair in pairs]
            cut = len(rows) - len(rows) // 50 if part == "train" else len(rows)
            for name, some in ((part, rows[:cut]), ("valid", rows[cut:])):
                if some:
                    path = work / f"{split}-{name}.tsv"
                    path.write_text("".join(some), encoding="utf-8")
                    files[name] = [str(path)]
        found[f"{split} split"] = files
    return found


def measure(name: str, files: dict[str, list[str]], run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train one model and score it."""
    minutes = options.minutes or MINUTES[options.data]
    given = [*MODELS[options.data][name], f"--set=train.minutes={minutes}", *[f"--set={one}" for one in options.sets]]
    row = {"model": name, "minutes": minutes} | train("translation", files, run, given)
    row["target_tokens_per_second"] = row.pop("tokens_per_second")
    config = row.pop("config")
    for width in (1, 5):
        row[f"beam {width}"] = score(run, files["test"], f"--beam={width}")
    row["config"] = config
    print(
        f"{name}: BLEU {row['beam 1']['bleu']:.1f} greedy, {row['beam 5']['bleu']:.1f} beam 5; exact {row['beam 5']['exact_match']:.1f} %",
        flush=True,
    )
    return row


def by_length(run: Path, files: dict[str, list[str]]) -> list[dict[str, float]]:
    """BLEU of each group of source lengths, beam 5."""
    from sacrebleu.metrics import BLEU

    sources, references = (read(Path(path)) for path in files["test"])
    outputs = unrolled("predict", str(run), input="\n".join(sources) + "\n").removesuffix("\n").split("\n")
    found = []
    for begin, end in pairwise(EDGES):
        rows = [i for i, source in enumerate(sources) if begin <= len(source.split()) < end]
        score = BLEU().corpus_score([outputs[i] for i in rows], [[references[i] for i in rows]]).score
        lengths = statistics.mean(len(sources[i].split()) for i in rows)
        found.append({"from": begin, "below": end, "sentences": len(rows), "mean_length": lengths, "bleu": score})
    return found


COLOURS = ("#1f6feb", "#c2410c", "#15803d", "#7e22ce")


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """BLEU by source length, a line a model, as one SVG."""
    width, left, bottom, most = 640, 52, 44, 50.0
    top = 18 + 18 * len(rows)
    height = 300 + top
    longest = max(point["mean_length"] for row in rows for point in row["by_length"]) + 1

    def place(x: float, y: float) -> tuple[float, float]:
        return left + (width - left - 16) * (x - 4) / (longest - 4), top + (height - bottom - top) * (1 - y / most)

    def lines() -> Iterator[str]:
        for y in range(0, int(most) + 1, 10):
            at = place(4, y)[1]
            yield f'<line x1="{left}" x2="{width - 16}" y1="{at:.1f}" y2="{at:.1f}" stroke="#8884"/>'
            yield f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{y}</text>'
        for x in range(6, int(longest) + 1, 4):
            yield f'<text x="{place(x, 0)[0]:.1f}" y="{height - bottom + 20}" text-anchor="middle">{x}</text>'
        yield f'<text x="{width / 2}" y="{height - 2}" text-anchor="middle">words of the source</text>'
        yield f'<text x="{left - 8}" y="{top - 14}" text-anchor="end">BLEU</text>'
        for number, (row, colour) in enumerate(zip(rows, COLOURS, strict=False)):
            points = [place(point["mean_length"], point["bleu"]) for point in row["by_length"]]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>'
            yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points)
            y = 16 + 18 * number
            yield f'<rect x="{left + 12}" y="{y - 9}" width="12" height="4" fill="{colour}"/><text x="{left + 30}" y="{y - 3}">{row["model"]}</text>'

    body = "\n".join(lines())
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="BLEU by source length"'
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'{head} font-family="sans-serif" font-size="12" fill="#888">\n{body}\n</svg>\n', encoding="utf-8")


def main() -> None:
    """All models of one data set."""
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work, rows = Path(scratch), rows_of(f"translation_{options.data}")
        for name, files in {"multi30k": multi30k, "cmudict": cmudict, "scan": scan}[options.data](options.folder.resolve(), work).items():
            if options.models and name not in options.models:
                continue
            run = (options.keep or work) / f"{options.data}-{name.replace(', ', '-').replace(' ', '-')}"
            row = measure(name, files, run, options)
            if options.data == "multi30k":
                row["by_length"] = by_length(run, files)
            rows = [old for old in rows if old["model"] != name] + [row]
            write_result(f"translation_{options.data}", {"rows": rows})
    if options.data == "multi30k":
        draw(
            sorted(rows, key=lambda row: list(MODELS["multi30k"]).index(row["model"])),
            Path(__file__).parents[1] / "docs" / "_static" / "bleu_by_length.svg",
        )


if __name__ == "__main__":
    main()
