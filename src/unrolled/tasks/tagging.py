"""The tagging task: a label for every word of a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.core.padded import Padded
from unrolled.data.batches import token_lists
from unrolled.data.label_schemes import Repaired, Scheme, detect_scheme, fitted, odd_labels, span_scores
from unrolled.data.label_scores import label_scores, percentages
from unrolled.data.label_transitions import allowed_transitions
from unrolled.data.labels import UNSEEN, LabelSet
from unrolled.data.tagged import TaggedForm, TaggedSentences, read_tagged
from unrolled.models.tagger import Tagger
from unrolled.tasks.labelling_objective import TaggedBatch, TaggingObjective
from unrolled.tasks.labelling_settings import TaggingRunSettings
from unrolled.tasks.text_run import TextRun, in_blocks
from unrolled.tasks.text_samples import Held, Judged, RowCorpus, Samples, batches_of
from unrolled.tasks.text_task import TextTask
from unrolled.train.loop import Record


class Tagging(NamedTuple):
    """A sequence of labels for a sentence."""

    labels: list[str]
    probability: float
    """Of the whole sequence with a CRF, else the product over words."""
    probabilities: list[float]
    """Of each label by itself, whatever stands beside it."""


class TaggingScores(NamedTuple):
    """How well a tagger does; percentages."""

    sentences: int
    symbols: int
    """Words of the sentences that are scored."""
    loss: float
    """Nats per word; of sentences with labels that were seen in training."""
    accuracy: float
    """Share of words with the right label."""
    f1: float | None = None
    """Of spans, all types together, as seqeval has it; none where labels are no spans."""
    precision: float | None = None
    recall: float | None = None
    types: dict[str, Any] | None = None
    """Precision, recall, F1 and number of the spans of each type."""
    classes: dict[str, Any] | None = None
    """The same of each label, where labels are no spans."""
    unseen: int = 0
    """Sentences with a label that training never saw: they count as wrong, and not for the loss."""


class TaggingRun(TextRun):
    """A trained tagger with its vocabulary, its labels and its run folder."""

    @torch.no_grad()
    def tag(self, sentences: Sequence[Sequence[str] | str], *, n_best: int = 1, probabilities: bool = True) -> list[list[Tagging]]:
        """Label the words of sentences.

        Args:
            sentences: words, or text that is cut at white space.
            n_best: sequences of labels for each.
            probabilities: whether those are wanted; NaN otherwise, which is faster.

        Returns:
            The likeliest first; fewer than `n_best` where there are no more.

        Raises:
            ConfigurationError: more than one sequence of a model without a CRF.
        """
        if n_best > 1 and self.model.crf is None:
            raise ConfigurationError("more than one sequence of labels needs a CRF, and this run has none (`model.crf=false`)")
        texts = [sentence.split() if isinstance(sentence, str) else list(sentence) for sentence in sentences]
        units = self.held.units.encode(texts)
        rows = RowCorpus(units, units.lengths, lambda rows, epoch, among: None, np.arange(len(texts)))
        found: list[list[Tagging]] = [[Tagging([], 1.0, [])] for _ in texts]
        for batch in batches_of(rows, np.flatnonzero(units.lengths), self.settings.train.evaluation_tokens):
            emissions = self.model(units.collate(batch).to(self.model.text.device))
            taggings = self._tag_batch(emissions, n_best) if probabilities or n_best > 1 else self._name_batch(emissions)
            for row, one in zip(batch, taggings, strict=True):
                found[row] = one
        return found

    def _name_batch(self, emissions: Padded) -> Iterator[list[Tagging]]:
        assert self.held.labels is not None
        names, nan = self.held.labels.names, float("nan")
        for path in best_labels(self.model, emissions):
            yield [Tagging([names[i] for i in path], nan, [nan] * len(path))]

    def _tag_batch(self, emissions: Padded, n_best: int) -> Iterator[list[Tagging]]:
        assert self.held.labels is not None
        names, crf = self.held.labels.names, self.model.crf
        if crf is None:
            by_label = emissions.data.float().softmax(-1)
            paths, totals = by_label.argmax(-1).unsqueeze(1), None
        else:
            best = crf.n_best(emissions, n_best)
            by_label, paths, totals = crf.marginals(emissions).float(), best.paths, best.log_probabilities.exp().tolist()
        singles = by_label.gather(2, paths.clamp(min=0).transpose(1, 2)).transpose(1, 2).tolist()
        for row, (length, some) in enumerate(zip(emissions.lengths.tolist(), paths.tolist(), strict=True)):
            one = []
            for place, path in enumerate(some):
                if length and path[0] < 0:
                    break  # there are no more sequences
                single = singles[row][place][:length]
                total = math.prod(single) if totals is None else totals[row][place]
                one.append(Tagging([names[i] for i in path[:length]], total, single))
            yield one

    def stream(
        self, lines: Iterable[str | Sequence[str]], *, n_best: int = 1, probabilities: bool = True, at_once: int = 512
    ) -> Iterator[tuple[list[str], list[Tagging]]]:
        """Label as many sentences as come.

        Args:
            lines: a sentence each, as words or cut at white space.
            n_best: sequences of labels for each.
            probabilities: whether those are wanted.
            at_once: lines that are read before the first is put out.

        Yields:
            The words of a sentence and its labels.
        """
        for block in in_blocks(lines, at_once):
            sentences = [line.split() if isinstance(line, str) else list(line) for line in block]
            yield from zip(sentences, self.tag(sentences, n_best=n_best, probabilities=probabilities), strict=True)

    def evaluate(self, files: Sequence[Path | str] | Path | str | None = None, *, split: str = "valid") -> TaggingScores:
        """Score the tagger.

        Args:
            files: sentences with labels, in the form it was trained on; a part of the run's own when `None`.
            split: `valid` or `train`.

        Returns:
            Loss, accuracy and, where labels are spans, F1.
        """
        return TaggingScores(**self.scored(files, split))


class TaggingTask(TextTask[TaggingRun]):
    """How a tagger is trained."""

    name = "tagging"
    unit = "word"
    settings = TaggingRunSettings
    run = TaggingRun

    def read(self, settings: Any, files: Sequence[Path], labels: LabelSet | None = None) -> tuple[Samples, tuple[str, ...]]:
        """Sentences and their labels; see `TextTask.read`.

        Args:
            settings: `data` of the run.
            files: of one part.
            labels: of the run, whose scheme the spans are brought into; `None` for what is trained on.

        Returns:
            The sentences, and what a person should know of them.

        Raises:
            DataError: a label that cannot be of the scheme.
        """
        found = [read_tagged(path, form_of(settings)) for path in files]
        texts = list(chain.from_iterable(one.tokens for one in found))
        given = list(chain.from_iterable(one.labels for one in found))
        notes = [] if labels is not None else [finding for one in found for finding in one.findings()]
        scheme = scheme_of(settings, given) if labels is None else Scheme(labels.scheme)
        if labels is None and settings.scheme == "auto" and scheme is Scheme.NONE:
            notes.extend(filter(None, [odd_labels(given)]))
        fit = fitted(given, scheme, None if settings.scheme == "auto" and labels is not None else scheme)
        if fit.odd is not None:
            row, place, odd = fit.odd
            whose = "`data.scheme`" if labels is None else "as the run's are"
            raise DataError(
                f"labels must be of the scheme {scheme.value.upper()} ({whose}), got `{odd}` in the sentence at {_place(found, row)}, word {place + 1}; "
                "try mending it, or `data.scheme=none`"
            )
        if fit.source is not scheme:
            notes.append(
                f"labels of `{found[0].file}` are in the scheme {fit.source.value.upper()} and were brought into {scheme.value.upper()}"
            )
        elif fit.mended is not None and fit.mended.first is not None:
            notes.append(_mended(fit.mended, scheme, found))
        return Samples(texts, fit.labels), tuple(notes)

    def learn_labels(self, settings: Any, samples: Samples) -> LabelSet:
        """The labels of what trains, in alphabetical order.

        Args:
            settings: `data` of the run.
            samples: what trains.

        Returns:
            The labels with their scheme.
        """
        return LabelSet(tuple(sorted(set(chain.from_iterable(samples.labels)))), scheme_of(settings, samples.labels).value)

    def make_model(self, settings: Any, held: Held, *, trust: bool) -> Tagger:
        """An untrained tagger.

        Args:
            settings: of the run.
            held: its vocabulary and labels.
            trust: allow the settings to import a class of the user's own.

        Returns:
            The model.
        """
        labels = held.labels
        assert labels is not None
        constrained = settings.model.crf and settings.model.constrain and labels.scheme != Scheme.NONE.value
        allowed = allowed_transitions(labels.names, labels.scheme) if constrained else None
        return Tagger(settings.model, held.units.vocabulary, held.units.characters, len(labels.names), allowed=allowed, trust=trust)

    def make_objective(self, settings: Any, model: Any, samples: Samples, held: Held) -> TaggingObjective:
        """What a tagger minimises.

        Args:
            settings: of the run.
            model: to be trained.
            samples: not needed.
            held: not needed.

        Returns:
            The objective.
        """
        return TaggingObjective(model, label_smoothing=settings.train.label_smoothing)

    def make_rows(self, settings: Any, samples: Samples, held: Held, *, train: bool) -> RowCorpus:
        """Sentences with the ids of their labels; see `TextTask.make_rows`.

        Args:
            settings: of the run.
            samples: of one part.
            held: its vocabulary and labels.
            train: whether they are trained on.

        Returns:
            The rows.
        """
        assert held.labels is not None
        longest = settings.data.longest if train else None
        units = held.units.encode([text[:longest] for text in samples.texts])
        ids = [held.labels.encode(labels[:longest]) for labels in samples.labels]
        known = np.array([i for i, one in enumerate(ids) if (one != UNSEEN).all()], dtype=np.int64)
        labels = token_lists([np.maximum(one, 0) for one in ids], len(held.labels.names))

        def collate(rows: np.ndarray, epoch: int, among: np.ndarray | None) -> TaggedBatch:
            return TaggedBatch(units.collate(rows, among), labels.padded(rows, among).data)

        return RowCorpus(units, units.lengths, collate, known)

    def judge(self, objective: Any, batch: TaggedBatch, counts: bool) -> Judged:
        """The labels that a model gives; see `TextTask.judge`.

        Args:
            objective: in evaluation mode.
            batch: of sentences.
            counts: whether their labels are all known.

        Returns:
            The ids of the labels of each sentence.
        """
        emissions = objective.model(batch.units.to(objective.model.text.device))
        answers = best_labels(objective.model, emissions)
        if not counts:
            return Judged(0.0, 0, answers)
        return Judged(float(objective.judge(emissions, batch)[1]), int(emissions.lengths.sum()), answers)

    def figures(self, samples: Samples, answers: Sequence[Any], settings: Any, held: Held) -> Record:
        """Accuracy of words and, where labels are spans, F1.

        Args:
            samples: with their labels.
            answers: ids of labels.
            settings: of the run.
            held: its vocabulary and labels.

        Returns:
            Percentages; `criterion` is what they lack to 100.
        """
        assert held.labels is not None
        found = [[held.labels.names[i] for i in path] for path in answers]
        words = sum(map(len, found))
        right = sum(a == b for one, other in zip(samples.labels, found, strict=True) for a, b in zip(one, other, strict=True))
        figures: Record = {"symbols": words, "accuracy": 100 * right / words}
        if held.labels.scheme != Scheme.NONE.value:
            spans = span_scores(samples.labels, found, Scheme(held.labels.scheme))
            figures |= {name: 100 * getattr(spans.micro, name) for name in ("f1", "precision", "recall")}
            figures["types"] = percentages(list(spans.types), list(spans.types.values()))
        else:
            figures["classes"] = _by_label(samples.labels, answers, held.labels)
        best = figures["f1"] if "f1" in figures else figures["accuracy"]
        return figures | ({"criterion": 100 - best} if settings.train.best == "score" else {})


def _by_label(right: Sequence[Sequence[str]], answers: Sequence[Sequence[int]], labels: LabelSet) -> dict[str, Any]:
    gold, found = (np.concatenate([np.asarray(one) for one in rows]) for rows in ([labels.encode(one) for one in right], answers))
    scores = percentages(labels.names, label_scores(gold, found, len(labels.names)).classes)
    return {name: score for name, score in scores.items() if score[-1]}


def best_labels(model: Tagger, emissions: Padded) -> list[list[int]]:
    """The likeliest labels of each row.

    Args:
        model: that scored them.
        emissions: logits `[batch, words, labels]`.

    Returns:
        Ids by row.
    """
    paths = emissions.data.argmax(-1) if model.crf is None else model.crf.decode(emissions).paths
    return [path[:length].tolist() for path, length in zip(paths, emissions.lengths.tolist(), strict=True)]


def form_of(settings: Any) -> TaggedForm:
    """How files are written.

    Args:
        settings: `data` of the run.

    Returns:
        What the readers take.
    """
    column = settings.column
    return TaggedForm(
        settings.format, int(column) if isinstance(column, str) and column.isdigit() else column, settings.words, settings.encoding
    )


def scheme_of(settings: Any, labels: Sequence[Sequence[str]]) -> Scheme:
    """How labels stand for spans.

    Args:
        settings: `data` of the run.
        labels: of each sentence.

    Returns:
        The scheme asked for, or the one that is found.
    """
    return detect_scheme(labels) if settings.scheme == "auto" else Scheme(settings.scheme)


def _mended(mended: Repaired, scheme: Scheme, found: Sequence[TaggedSentences]) -> str:
    assert mended.first is not None
    row, place, old, new = mended.first
    were = "were" if mended.changed > 1 else "was"
    return (
        f"{mended.changed:,} label{'s' * (mended.changed > 1)} broke the scheme {scheme.value.upper()} and {were} mended, "
        f"the first one `{old}` into `{new}` (the sentence at {_place(found, row)}, word {place + 1})"
    )


def _place(found: Sequence[TaggedSentences], row: int) -> str:
    for one in found:
        if row < len(one):
            return one.place(row)
        row -= len(one)
    raise DataError(f"there is no sentence {row}")


TAGGING = TaggingTask()
train_tagging = TAGGING.train
"""Train a tagger on sentences with a label for each word: CoNLL-U, columns, TSV or JSON lines; see `TextTask.train`."""
resume_tagging = TAGGING.resume
"""Go on with a training where its last checkpoint stands; see `TextTask.resume`."""
load_tagging = TAGGING.load
"""Open a run with its best weights; see `TextTask.load`."""
