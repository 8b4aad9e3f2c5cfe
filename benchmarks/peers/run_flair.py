"""flair: training and prediction of a BiLSTM-CRF tagger, as a worker of `label_speed.py`; see turns.py and metered.py.

What is made: `{"train": FILE, "words": …, "characters": …, "spelling": …, "hidden": …, "min_count": …, "batch": …}`, for prediction also
`{"predict": FILE, "batches": […]}`. Files hold a JSON object a line, with `tokens` and `labels`.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

from turns import Works, keep_to_threads, serve

if __name__ == "__main__":
    threads = keep_to_threads()

import flair
import torch
from flair.data import Corpus, Dictionary, Sentence
from flair.embeddings import CharacterEmbeddings, OneHotEmbeddings, StackedEmbeddings
from flair.models import SequenceTagger
from flair.trainers import ModelTrainer
from flair.trainers.plugins import TrainerPlugin
from metered import Meter

LABEL = "upos"
logging.getLogger("flair").handlers.clear()  # it logs to the standard output, which is for answers


def read(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def sentences(rows: list[dict[str, Any]]) -> list[Sentence]:
    found = []
    for row in rows:
        sentence = Sentence(row["tokens"])
        for token, label in zip(sentence, row["labels"], strict=True):
            token.add_label(LABEL, label)
        found.append(sentence)
    return found


def dictionary(items: list[str], *, unknown: bool) -> Dictionary:
    found = Dictionary(add_unk=unknown)
    for item in items:
        found.add_item(item)
    return found


def make_tagger(asked: dict[str, Any], rows: list[dict[str, Any]]) -> SequenceTagger:
    """The tagger of flair with words and characters learnt from the start, and no layer that ours lacks."""
    counts = Counter(chain.from_iterable(row["tokens"] for row in rows))
    words = OneHotEmbeddings(
        dictionary([word for word, count in counts.items() if count >= asked["min_count"]], unknown=True), embedding_length=asked["words"]
    )
    letters = CharacterEmbeddings(
        dictionary(sorted(set(chain.from_iterable(counts))), unknown=True),
        char_embedding_dim=asked["characters"],
        hidden_size_char=asked["spelling"] // 2,
    )
    return SequenceTagger(
        StackedEmbeddings([words, letters]),
        dictionary(sorted({label for row in rows for label in row["labels"]}), unknown=False),
        LABEL,
        hidden_size=asked["hidden"] // 2,
        reproject_embeddings=False,
    )


def facts(tagger: SequenceTagger) -> dict[str, Any]:
    return {
        "parameters": sum(weight.numel() for weight in tagger.parameters() if weight.requires_grad),
        "threads": torch.get_num_threads(),
        "version": flair.__version__,
    }


class Metered(TrainerPlugin):
    """Tells the meter of every batch."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self.meter = meter

    @TrainerPlugin.hook
    def after_training_batch(self, batch: list[Sentence], **others: Any) -> None:
        self.meter.updated(sum(map(len, batch)))


def train() -> None:
    """Train for ever, as it is its turn."""
    meter = Meter()
    rows = read(meter.asked["train"])
    tagger, data = make_tagger(meter.asked, rows), sentences(rows)
    meter.ready(**facts(tagger))
    with tempfile.TemporaryDirectory() as folder:
        ModelTrainer(tagger, Corpus(train=data, sample_missing_splits=False)).train(
            folder, mini_batch_size=meter.asked["batch"], max_epochs=1000, train_with_dev=True, plugins=[Metered(meter)]
        )


def make(asked: dict[str, Any]) -> tuple[Works, dict[str, Any]]:
    """Prediction with one batch size or another; the sentences are made before."""
    rows = read(asked["train"])
    tagger = make_tagger(asked, rows).eval()
    texts = read(asked["predict"])
    given = [Sentence(row["tokens"]) for row in texts]

    def predict(batch: int) -> list[str]:
        tagger.predict(given, mini_batch_size=batch)
        return [token.get_label(LABEL).value for sentence in given for token in sentence]

    def make_and_predict(batch: int) -> list[str]:
        fresh = [Sentence(row["tokens"]) for row in texts]
        tagger.predict(fresh, mini_batch_size=batch)
        return [token.get_label(LABEL).value for sentence in fresh for token in sentence]

    words = sum(len(row["tokens"]) for row in texts)
    assert len(predict(asked["batches"][0])) == words
    works = {f"{batch}": (lambda batch=batch: predict(batch)) for batch in asked["batches"]}
    works |= {f"{batch}, from words": (lambda batch=batch: make_and_predict(batch)) for batch in asked["batches"]}
    return works, {"words": words, **facts(tagger)}


if __name__ == "__main__":
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    train() if sys.argv[2:] == ["train"] else serve(make)
