"""The classification task: a label, or several, for a whole text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from unrolled.core.errors import DataError
from unrolled.data.label_scores import indicator, label_scores, multi_label_scores, percentages
from unrolled.data.labelled_texts import LabelledTexts, TextForm, read_texts
from unrolled.data.labels import UNSEEN, LabelSet
from unrolled.models.classifier import Classifier
from unrolled.tasks.labelling_objective import ClassificationObjective, LabelledBatch
from unrolled.tasks.labelling_settings import ClassificationRunSettings
from unrolled.tasks.text_run import TextRun, in_blocks
from unrolled.tasks.text_samples import Held, Judged, RowCorpus, Samples, batches_of
from unrolled.tasks.text_task import TextTask
from unrolled.train.loop import Record

LIKELY = 0.5
"""Where a text may have several labels, it has those of at least this probability."""


class Classified(NamedTuple):
    """The labels of a text."""

    labels: tuple[str, ...]
    """The likeliest one; where a text may have several, all that are more likely than not."""
    probabilities: dict[str, float]
    """Of every label, the likeliest first."""


class ClassificationScores(NamedTuple):
    """How well a classifier does; percentages."""

    sentences: int
    """Texts that are scored."""
    symbols: int
    loss: float
    """Nats per text; of texts with labels that were seen in training."""
    accuracy: float
    """Share of texts with the right label, or with exactly the right ones."""
    macro_f1: float
    """The mean of the labels' F1."""
    micro_f1: float
    """Over all labels together; the accuracy where every text has one."""
    classes: dict[str, Any]
    """Precision, recall, F1 and number of each label."""
    confusion: list[list[int]] | None = None
    """How often the label of the row was taken for that of the column, in the order of `classes`; none where texts may have several."""
    unseen: int = 0
    """Texts with a label that training never saw: they count as wrong, and not for the loss."""


class ClassificationRun(TextRun):
    """A trained classifier with its vocabulary, its labels and its run folder."""

    def classify(self, texts: Sequence[str]) -> list[Classified]:
        """Label texts.

        Args:
            texts: whole.

        Returns:
            Their labels with the probabilities of all.
        """
        labels = self.held.labels
        assert labels is not None
        units = self.held.units.encode(list(texts))
        rows = RowCorpus(units, units.lengths, lambda rows, epoch, among: None, np.arange(len(texts)))
        logits = logits_of(self.model, rows, self.settings.train.evaluation_tokens)
        probabilities = logits.sigmoid() if labels.several else logits.softmax(-1)
        found = []
        for row in probabilities.tolist():
            ranked = dict(sorted(zip(labels.names, row, strict=True), key=lambda one: -one[1]))
            kept = tuple(name for name, value in ranked.items() if value >= LIKELY) if labels.several else (next(iter(ranked)),)
            found.append(Classified(kept, ranked))
        return found

    def stream(self, lines: Iterable[str], *, at_once: int = 512) -> Iterator[Classified]:
        """Label as many texts as come.

        Args:
            lines: a text each, with or without what ends it.
            at_once: lines that are read before the first is put out.

        Yields:
            The labels of each.
        """
        for block in in_blocks(lines, at_once):
            yield from self.classify([line.rstrip("\r\n") for line in block])

    def evaluate(self, files: Sequence[Path | str] | Path | str | None = None, *, split: str = "valid") -> ClassificationScores:
        """Score the classifier.

        Args:
            files: texts with labels, in the form it was trained on; a part of the run's own when `None`.
            split: `valid` or `train`.

        Returns:
            Loss, accuracy, F1 and the confusion of labels.
        """
        return ClassificationScores(**self.scored(files, split))


class ClassificationTask(TextTask[ClassificationRun]):
    """How a classifier is trained."""

    name = "classification"
    unit = "text"
    settings = ClassificationRunSettings
    run = ClassificationRun

    def read(self, settings: Any, files: Sequence[Path], labels: LabelSet | None = None) -> tuple[Samples, tuple[str, ...]]:
        """Texts and their labels; see `TextTask.read`.

        Args:
            settings: `data` of the run.
            files: of one part.
            labels: of the run; `None` for what is trained on, phrases of trees among it.

        Returns:
            The texts, and what a person should know of them.

        Raises:
            DataError: a text without a label, or with several, where each has one.
        """
        form = form_of(settings)
        found = [read_texts(path, replace(form, phrases=form.phrases and labels is None)) for path in files]
        several = settings.several if labels is None else labels.several
        if several is None:
            several = any(one.several for one in found)
        if not several:
            for one in found:
                _check_single(one)
        texts, own = list(chain.from_iterable(one.texts for one in found)), list(chain.from_iterable(one.labels for one in found))
        if not any(one.whole for one in found):
            notes = tuple(finding for one in found for finding in one.findings()) if labels is None else ()
            return Samples(texts, own, several=several), notes
        lines = [(place, line) for place, one in enumerate(found) for line in one.lines]
        numbers = {line: number for number, line in enumerate(dict.fromkeys(lines))}
        whole = list(chain.from_iterable(one.whole or [True] * len(one) for one in found))
        return Samples(texts, own, [numbers[line] for line in lines], whole, several), ()

    def learn_labels(self, settings: Any, samples: Samples) -> LabelSet:
        """The labels of what trains, in alphabetical order.

        Args:
            settings: `data` of the run.
            samples: what trains.

        Returns:
            The labels.

        Raises:
            DataError: there is only one, so that there is nothing to learn.
        """
        names, several = tuple(sorted(set(chain.from_iterable(samples.labels)))), samples.several
        if len(names) < (1 if several else 2):
            raise DataError(
                f"texts must have at least 2 different labels, or there is nothing to learn, got {', '.join(f'`{n}`' for n in names) or 'none'}; "
                "try other data, or another column (`data.label`)"
            )
        return LabelSet(names, several=several)

    def make_model(self, settings: Any, held: Held, *, trust: bool) -> Classifier:
        """An untrained classifier.

        Args:
            settings: of the run.
            held: its vocabulary and labels.
            trust: allow the settings to import a class of the user's own.

        Returns:
            The model.
        """
        assert held.labels is not None
        return Classifier(settings.model, held.units.vocabulary, held.units.characters, len(held.labels.names), trust=trust)

    def make_objective(self, settings: Any, model: Any, samples: Samples, held: Held) -> ClassificationObjective:
        """What a classifier minimises.

        Args:
            settings: of the run.
            model: to be trained.
            samples: whose labels are counted for their weights.
            held: vocabulary and labels.

        Returns:
            The objective.
        """
        weights = None
        if settings.train.class_weights == "balanced" and held.labels is not None:
            weights = balanced_weights(samples, held.labels)
        return ClassificationObjective(model, weights=weights, label_smoothing=settings.train.label_smoothing)

    def make_rows(self, settings: Any, samples: Samples, held: Held, *, train: bool) -> RowCorpus:
        """Texts with the ids of their labels; see `TextTask.make_rows`.

        Args:
            settings: of the run.
            samples: of one part.
            held: its vocabulary and labels.
            train: whether they are trained on.

        Returns:
            The rows.
        """
        labels = held.labels
        assert labels is not None
        units = held.units.encode(samples.texts)
        if train:
            units = units.cut(settings.data.longest)
        ids = [labels.encode(one) for one in samples.labels]
        known = np.array([i for i, one in enumerate(ids) if (one != UNSEEN).all()], dtype=np.int64)
        wanted = self._wanted(ids, labels)

        def collate(rows: np.ndarray, epoch: int, among: np.ndarray | None) -> LabelledBatch:
            return LabelledBatch(units.collate(rows, among), wanted[torch.from_numpy(rows)])

        return RowCorpus(units, units.lengths, collate, known)

    def _wanted(self, ids: list[np.ndarray], labels: LabelSet) -> torch.Tensor:
        if not labels.several:
            return torch.tensor([int(one[0]) for one in ids])
        return torch.from_numpy(indicator([one[one != UNSEEN].tolist() for one in ids], len(labels.names))).float()

    def judge(self, objective: Any, batch: LabelledBatch, counts: bool) -> Judged:
        """The scores that a model gives labels; see `TextTask.judge`.

        Args:
            objective: in evaluation mode.
            batch: of texts.
            counts: whether their labels are all known.

        Returns:
            The logits of each text.
        """
        logits = objective.model(batch.units.to(objective.model.text.device)).float()
        nats = float(objective.judge(logits, batch)[1]) if counts else 0.0
        return Judged(nats, len(logits) * counts, list(logits.cpu()))

    def figures(self, samples: Samples, answers: Sequence[Any], settings: Any, held: Held) -> Record:
        """Accuracy and F1.

        Args:
            samples: with their labels.
            answers: logits.
            settings: of the run.
            held: its vocabulary and labels.

        Returns:
            Percentages; `criterion` is what they lack to 100.
        """
        labels = held.labels
        assert labels is not None
        logits = torch.stack(list(answers))
        ids = [labels.encode(one) for one in samples.labels]
        figures = _several(ids, logits, labels) if labels.several else _one(np.array([int(one[0]) for one in ids]), logits, labels)
        best = figures["micro_f1"] if labels.several else figures["accuracy"]
        return figures | ({"criterion": 100 - best} if settings.train.best == "score" else {})


def _one(gold: np.ndarray, logits: torch.Tensor, labels: LabelSet) -> Record:
    found = label_scores(gold, logits.argmax(-1).numpy(), len(labels.names))
    return {
        "accuracy": 100 * found.accuracy,
        "macro_f1": 100 * found.macro.f1,
        "micro_f1": 100 * found.accuracy,
        "classes": percentages(labels.names, found.classes),
        "confusion": found.confusion.tolist(),
    }


def _several(ids: list[np.ndarray], logits: torch.Tensor, labels: LabelSet) -> Record:
    count = len(labels.names)
    predicted = (logits.sigmoid() >= LIKELY).numpy()
    if any((one == UNSEEN).any() for one in ids):  # all of them together are one more class, which is always missed
        ids, predicted, count = [np.where(one == UNSEEN, count, one) for one in ids], np.pad(predicted, ((0, 0), (0, 1))), count + 1
    found = multi_label_scores(indicator([one.tolist() for one in ids], count), predicted)
    return {
        "accuracy": 100 * found.exact,
        "macro_f1": 100 * found.macro.f1,
        "micro_f1": 100 * found.micro.f1,
        "classes": percentages(labels.names, found.classes),
    }


@torch.no_grad()
def logits_of(model: Classifier, rows: RowCorpus, batch_tokens: int) -> torch.Tensor:
    """The scores of all labels of texts.

    Args:
        model: in evaluation mode.
        rows: the texts.
        batch_tokens: units of a batch.

    Returns:
        float32 `[texts, labels]` on the CPU.
    """
    found = torch.zeros(len(rows.lengths), model.readout.out_features)
    for batch in batches_of(rows, np.arange(len(rows.lengths)), batch_tokens):
        found[torch.from_numpy(batch)] = model(rows.units.collate(batch).to(model.text.device)).float().cpu()
    return found


def balanced_weights(samples: Samples, labels: LabelSet) -> torch.Tensor:
    """Weights by which all labels count alike together: `texts / (labels * count)`; of several labels a text, how many have it not for one that has.

    Args:
        samples: what is trained on.
        labels: of the run.

    Returns:
        A weight a label.
    """
    counts = Counter(chain.from_iterable(samples.labels))
    total = len(samples.labels)
    if labels.several:
        return torch.tensor([max(total - counts[name], 1) / max(counts[name], 1) for name in labels.names])
    return torch.tensor([total / (len(labels.names) * max(counts[name], 1)) for name in labels.names])


def _check_single(found: LabelledTexts) -> None:
    for row, labels in enumerate(found.labels):
        if len(labels) != 1:
            had = ", ".join(f"`{label}`" for label in labels) or "none"
            raise DataError(
                f"every text must have one label, as those that were trained on have, got {had} in {found.place(row)}; "
                "try `data.several=true` in training"
            )


def form_of(settings: Any) -> TextForm:
    """How files are written.

    Args:
        settings: `data` of the run.

    Returns:
        What the reader takes.
    """
    kept = ("format", "text", "label", "id", "separator", "delimiter", "encoding", "phrases", "binary")
    return TextForm(**{name: getattr(settings, name) for name in kept})


CLASSIFICATION = ClassificationTask()
train_classification = CLASSIFICATION.train
"""Train a classifier on texts with labels: CSV, TSV, JSON lines, lines of a label and a text, or sentiment trees; see `TextTask.train`."""
resume_classification = CLASSIFICATION.resume
"""Go on with a training where its last checkpoint stands; see `TextTask.resume`."""
load_classification = CLASSIFICATION.load
"""Open a run with its best weights; see `TextTask.load`."""
