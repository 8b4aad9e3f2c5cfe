"""Labels learnt within a time on this machine: parts of speech, names, sentiment, kinds of questions.

    .venv/bin/python benchmarks/label_quality.py ewt|wnut17|sst2|trec FOLDER [--minutes M] [--seeds 5] [--models NAME …] [--keep DIR]

FOLDER is the data set's own. Each model is trained with each seed, one after the other, and scored by `unrolled eval` on the test part (WNUT-17: the
development part, and a tenth of the training part validates). `from plain text` begins from a masked language model that is trained first, on `--plain FILE …`.
Adds mean, standard deviation and every seed to benchmarks/results/labels_NAME.json.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from machine import write_result
from trainings import rows_of, score, train

arguments = argparse.ArgumentParser()
arguments.add_argument("data", choices=["ewt", "wnut17", "sst2", "trec"])
arguments.add_argument("folder", type=Path)
arguments.add_argument("--minutes", type=float)
arguments.add_argument("--seeds", type=int)
arguments.add_argument("--models", nargs="*", help="only these")
arguments.add_argument("--keep", type=Path, help="keep the runs here, and do not train again what is there")
arguments.add_argument("--plain", nargs="*", default=[], type=Path, help="what the masked language model reads")
arguments.add_argument("--plain-minutes", type=float, default=10.0)
arguments.add_argument("--set", action="append", default=[], dest="sets")

FROM_PLAIN = "from plain text"


class Data(NamedTuple):
    """A data set: its files, and how models are trained and scored on it."""

    task: str
    files: dict[str, str]
    figure: str
    minutes: float
    seeds: int
    options: tuple[str, ...]
    models: dict[str, tuple[str, ...]]


CRF_OR_NOT = {"CRF": (), "softmax": ("model.crf=false",)}
STARTS: dict[str, tuple[str, ...]] = {"BiLSTM": (), f"BiLSTM, {FROM_PLAIN}": ()}
CONVOLUTIONS = (
    "model.encoder.kind=convolutional",
    "model.encoder.layers=2",
    "model.pooling=max",
    "model.input_dropout=0.5",
    "model.hidden_dropout=0.5",
    "model.output_dropout=0.5",
)
STRONGER_DROPOUT = (
    "model.word_dropout=0.2",
    "model.input_dropout=0.4",
    "model.hidden_dropout=0.5",
    "model.output_dropout=0.5",
    "model.spelling.width=5",
    "model.spelling.size=128",
)
"""For many passes over few texts."""
SETS = {
    "ewt": Data(
        "tagging",
        {"train": "en_ewt-ud-train.conllu.gz", "valid": "en_ewt-ud-dev.conllu.gz", "test": "en_ewt-ud-test.conllu.gz"},
        "accuracy",
        30,
        1,
        STRONGER_DROPOUT,
        {"CRF": ()},
    ),
    "wnut17": Data("tagging", {"train": "wnut17train.conll.gz", "test": "emerging.dev.conll.gz"}, "f1", 1.2, 5, (), CRF_OR_NOT),
    "sst2": Data(
        "classification",
        {"train": "sst_trees/train.txt.gz", "valid": "sst_trees/dev.txt.gz", "test": "sst_trees/test.txt.gz"},
        "accuracy",
        2,
        5,
        ("data.format=trees",),
        STARTS,
    ),
    "trec": Data(
        "classification",
        {"train": "TREC.train.all.gz", "test": "TREC.test.all.gz"},
        "accuracy",
        1,
        5,
        ("data.format=plain", "data.encoding=latin-1"),
        {"convolutions": CONVOLUTIONS, **STARTS},
    ),
}


def seeds_of(data: Data, name: str, keep: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train a model with each seed and score it."""
    files = {part: [str(options.folder / file)] for part, file in data.files.items()}
    minutes = options.minutes or data.minutes
    given = [*data.options, *data.models[name], f"train.minutes={minutes}", *options.sets]
    start = [f"--init-from={plain(keep, options)}"] if name.endswith(FROM_PLAIN) else []
    rows = []
    for seed in range(options.seeds or data.seeds):
        run = keep / f"{options.data}-{name.replace(', ', '-').replace(' ', '-')}-{seed}"
        row = {"seed": seed} | train(data.task, files, run, [*start, *[f"--set={one}" for one in (*given, f"train.seed={seed}")]])
        row["test"] = score(run, files["test"])
        rows.append(row)
        print(f"{options.data}, {name}, seed {seed}: {data.figure} {row['test'][data.figure]:.2f}", flush=True)
    return rows


def plain(keep: Path, options: argparse.Namespace) -> str:
    """The masked language model, trained where it is not there yet."""
    if not options.plain:
        arguments.error(f"`{FROM_PLAIN}` needs --plain FILE …, or leave it out by --models")
    run = keep / "masked-lm"
    train("masked-lm", {"train": [str(path) for path in options.plain]}, run, [f"--set=train.minutes={options.plain_minutes}"])
    return str(run)


def main() -> None:
    """All models of one data set."""
    options = arguments.parse_args()
    options.folder = options.folder.resolve()
    data, name = SETS[options.data], f"labels_{options.data}"
    with tempfile.TemporaryDirectory() as scratch:
        for model in options.models or data.models:
            seeds = seeds_of(data, model, options.keep or Path(scratch), options)
            figures = [seed["test"][data.figure] for seed in seeds]
            spread = statistics.stdev(figures) if len(figures) > 1 else None
            row: dict[str, Any] = {"model": model, "figure": data.figure, "mean": statistics.mean(figures), "spread": spread}
            row |= {key: seeds[0][key] for key in ("machine", "parameters", "config")}
            row["seeds"] = [{key: value for key, value in seed.items() if key not in row} for seed in seeds]
            print(f"{options.data}, {model}: {data.figure} {row['mean']:.2f} ± {spread or 0:.2f}", flush=True)
            write_result(name, {"rows": [old for old in rows_of(name) if old["model"] != model] + [row]})


if __name__ == "__main__":
    main()
