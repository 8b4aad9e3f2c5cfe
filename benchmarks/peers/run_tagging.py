"""Ourselves: training of a tagger by its own task, and prediction by `tag`, as a worker of `label_speed.py`; see turns.py and metered.py.

What is made: `{"train": FILE, "run": FOLDER, "differences": {…}, "batch": SENTENCES or null}`, for prediction also `{"predict": FILE}`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from turns import Works, keep_to_threads, serve

if __name__ == "__main__":
    threads = keep_to_threads()

import numpy as np
import torch
from metered import Meter

from unrolled.core.settings import merge
from unrolled.tasks.row_windows import RowWindows
from unrolled.tasks.run_folder import RunFolder
from unrolled.tasks.tagging import TaggingTask, load_tagging
from unrolled.tasks.training import Prepared
from unrolled.tasks.training_log import Silence
from unrolled.train.group import Group


class BySentences(TaggingTask):
    """The task with batches of so many sentences as they come, in place of so many words of sentences of a length."""

    def __init__(self, sentences: int) -> None:
        self.sentences = sentences

    def prepare(self, folder: RunFolder, settings: Any, group: Group, trust: bool) -> Prepared:
        found = super().prepare(folder, settings, group, trust)
        alike = np.ones(folder.facts()["data"]["train_texts"], dtype=np.int64)
        windows = RowWindows((alike,), found.source.collate, batch_tokens=self.sentences, seed=settings.train.seed, group=group)
        return found._replace(source=windows)


class Metered(Silence):
    """Tells the meter of every update."""

    def __init__(self, meter: Meter) -> None:
        self.meter, self.words = meter, 0

    def begun(self, facts: dict[str, Any]) -> None:
        self.meter.ready(parameters=facts["parameters"], precision=facts["machine"]["precision"], threads=facts["machine"]["threads"])

    def advanced(self, done: float, record: dict[str, Any]) -> None:
        words, self.words = record["tokens"] - self.words, record["tokens"]
        self.meter.updated(words)


def train() -> None:
    """Train for ever, as it is its turn."""
    meter = Meter()
    asked = meter.asked
    task = BySentences(asked["batch"]) if asked["batch"] else TaggingTask()
    without_end = {"train": {"evaluations": 0, "epochs": 1000, "threads": threads}}
    with tempfile.TemporaryDirectory() as folder:
        task.train(asked["train"], out=Path(folder) / "run", differences=merge(asked["differences"], without_end), display=Metered(meter))


def make(asked: dict[str, Any]) -> tuple[Works, dict[str, Any]]:
    """Prediction by a run of some updates."""
    path = Path(asked["run"])
    if not path.exists():
        few = {"train": {"evaluations": 0, "steps": 100, "threads": threads}}
        TaggingTask().train(asked["train"], out=path, differences=merge(asked["differences"], few))
    run = load_tagging(path)
    texts = [json.loads(line)["tokens"] for line in Path(asked["predict"]).read_text(encoding="utf-8").splitlines()]

    def predict() -> list[str]:
        return [label for found in run.tag(texts) for label in found[0].labels]

    words = sum(map(len, texts))
    assert len(predict()) == words
    told = {"words": words, "parameters": sum(weight.numel() for weight in run.model.parameters()), "threads": torch.get_num_threads()}
    return {"tag": predict}, told


if __name__ == "__main__":
    torch.set_num_threads(threads)
    train() if sys.argv[2:] == ["train"] else serve(make)
