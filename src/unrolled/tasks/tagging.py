"""The tagging task: a label for every word of a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.core.padded import Padded
from unrolled.data.batches import token_lists
from unrolled.data.label_schemes import Scheme, detect_scheme, repaired, span_scores
from unrolled.data.label_transitions import allowed_transitions
from unrolled.data.labels import UNSEEN, LabelSet
from unrolled.data.tagged import TaggedForm, TaggedSentences, read_tagged
from unrolled.models.tagger import Tagger
from unrolled.tasks.labelling_objective import TaggedBatch, TaggingObjective
from unrolled.tasks.labelling_settings import TaggingRunSettings
from unrolled.tasks.run_folder import RunFolder
from unrolled.tasks.text_run import TextRun
from unrolled.tasks.text_task import Held, Parts, RowCorpus, Samples, TextTask, batches_of
from unrolled.tasks.training_log import Display
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


class TaggingTask(TextTask):
    """How a tagger is trained."""

    name = "tagging"
    settings = TaggingRunSettings

    def read(self, settings: Any, files: Sequence[Path], *, train: bool) -> tuple[Samples, tuple[str, ...]]:
        """Sentences and their labels; see `TextTask.read`.

        Args:
            settings: `data` of the run.
            files: of one part.
            train: whether they are trained on.

        Returns:
            The sentences, and what a person should know of them.
        """
        found = [read_tagged(path, form_of(settings)) for path in files]
        texts = list(chain.from_iterable(one.tokens for one in found))
        labels = list(chain.from_iterable(one.labels for one in found))
        notes = [finding for one in found for finding in one.findings()]
        scheme = scheme_of(settings, labels)
        mended = repaired(labels, scheme)
        if mended.first is not None:
            row, place, old, new = mended.first
            where = _place(found, row)
            notes.append(
                f"{mended.changed:,} label{'s' * (mended.changed > 1)} broke the scheme {scheme.value.upper()} and "
                f"{'were' if mended.changed > 1 else 'was'} mended, the first one `{old}` into `{new}` (the sentence at {where}, word {place + 1})"
            )
        return Samples(texts, mended.labels), tuple(notes) if train else ()

    def learn_labels(self, settings: Any, parts: Parts) -> LabelSet:
        """The labels of what trains, in alphabetical order.

        Args:
            settings: of the run.
            parts: what trains and what validates.

        Returns:
            The labels with their scheme.
        """
        names = sorted(set(chain.from_iterable(parts.train.labels)))
        return LabelSet(tuple(names), scheme_of(settings.data, parts.train.labels).value)

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
        units = held.units.encode(samples.texts)
        ids = [held.labels.encode(labels) for labels in samples.labels]
        known = np.array([i for i, one in enumerate(ids) if (one != UNSEEN).all()], dtype=np.int64)
        labels = token_lists([np.maximum(one, 0) for one in ids], len(held.labels.names))

        def collate(rows: np.ndarray, epoch: int, among: np.ndarray | None) -> TaggedBatch:
            return TaggedBatch(units.collate(rows, among), labels.padded(rows, among).data)

        return RowCorpus(units, units.lengths, collate, known)

    def score(self, objective: Any, samples: Samples, rows: RowCorpus, settings: Any, held: Held) -> Record:
        """Accuracy of words and, where labels are spans, F1.

        Args:
            objective: in evaluation mode.
            samples: with their labels.
            rows: made of them.
            settings: of the run.
            held: its vocabulary and labels.

        Returns:
            Percentages; `criterion` is what they lack to 100.
        """
        assert held.labels is not None
        found: list[list[str]] = [[] for _ in samples.texts]
        for batch in batches_of(rows, np.arange(len(rows.lengths)), settings.train.evaluation_tokens):
            paths = best_labels(objective.model, objective.model(rows.units.collate(batch).to(objective.model.text.device)))
            for row, path in zip(batch, paths, strict=True):
                found[row] = [held.labels.names[i] for i in path]
        words = sum(map(len, found))
        right = sum(a == b for one, other in zip(samples.labels, found, strict=True) for a, b in zip(one, other, strict=True))
        figures: Record = {"symbols": words, "accuracy": 100 * right / words}
        if held.labels.scheme != Scheme.NONE.value:
            spans = span_scores(samples.labels, found, Scheme(held.labels.scheme))
            figures |= {name: 100 * getattr(spans.micro, name) for name in ("f1", "precision", "recall")}
            figures["types"] = {
                name: [100 * score.precision, 100 * score.recall, 100 * score.f1, score.support] for name, score in spans.types.items()
            }
        best = figures["f1"] if "f1" in figures else figures["accuracy"]
        return figures | ({"criterion": 100 - best} if settings.train.best == "score" else {})


TAGGING = TaggingTask()


class TaggingRun(TextRun):
    """A trained tagger with its vocabulary, its labels and its run folder."""

    @torch.no_grad()
    def tag(self, sentences: Sequence[Sequence[str] | str], *, n_best: int = 1) -> list[list[Tagging]]:
        """Label the words of sentences.

        Args:
            sentences: words, or text that is cut at white space.
            n_best: sequences of labels for each.

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
        full = np.flatnonzero(units.lengths)
        for batch in batches_of(rows, full, self.settings.train.evaluation_tokens):
            for row, taggings in zip(
                batch, self._tag_batch(self.model(units.collate(batch).to(self.model.text.device)), n_best), strict=True
            ):
                found[row] = taggings
        return found

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

    def stream(self, lines: Iterable[str], *, n_best: int = 1, at_once: int = 512) -> Iterator[tuple[list[str], list[Tagging]]]:
        """Label as many sentences as come.

        Args:
            lines: a sentence each, cut at white space.
            n_best: sequences of labels for each.
            at_once: lines that are read before the first is put out.

        Yields:
            The words of a sentence and its labels.
        """
        held: list[list[str]] = []
        for line in lines:
            held.append(line.split())
            if len(held) == at_once:
                yield from zip(held, self.tag(held, n_best=n_best), strict=True)
                held = []
        yield from zip(held, self.tag(held, n_best=n_best), strict=True)

    def evaluate(self, files: Sequence[Path | str] | Path | str | None = None, *, split: str = "valid") -> TaggingScores:
        """Score the tagger.

        Args:
            files: sentences with labels, in the form it was trained on; a part of the run's own when `None`.
            split: `valid` or `train`.

        Returns:
            Loss, accuracy and, where labels are spans, F1.
        """
        return TaggingScores(**self.scored(files, split))


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
    return TaggedForm(settings.format, int(column) if isinstance(column, str) and column.isdigit() else column)


def scheme_of(settings: Any, labels: Sequence[Sequence[str]]) -> Scheme:
    """How labels stand for spans.

    Args:
        settings: `data` of the run.
        labels: of each sentence.

    Returns:
        The scheme asked for, or the one that is found.
    """
    return detect_scheme(labels) if settings.scheme == "auto" else Scheme(settings.scheme)


def _place(found: Sequence[TaggedSentences], row: int) -> str:
    for one in found:
        if row < len(one):
            return one.place(row)
        row -= len(one)
    raise DataError(f"there is no sentence {row}")


def train_tagging(
    files: Sequence[Path | str] | Path | str,
    *,
    valid: Sequence[Path | str] | Path | str = (),
    out: Path | str | None = None,
    differences: Mapping[str, Any] | None = None,
    init_from: Path | str | None = None,
    display: Display | None = None,
    trust: bool = False,
) -> TaggingRun:
    """Train a tagger on sentences with a label for each word.

    Args:
        files: CoNLL-U, columns, TSV or JSON lines; plain or `.gz`.
        valid: to validate on; a tenth of `files`, drawn at random, when empty.
        out: the run folder; a new one below `runs/` when `None`.
        differences: nested options that differ from the defaults, such as `{"model": {"crf": False}}`.
        init_from: a run whose vocabulary and encoder this one begins from.
        display: shows the training as it goes.
        trust: allow the settings to import a class of your own.

    Returns:
        The run, with the best weights loaded.
    """
    path = TAGGING.train(files, valid=valid, out=out, differences=differences, init_from=init_from, display=display, trust=trust)
    return load_tagging(path, trust=trust)


def resume_tagging(
    path: Path | str, *, changes: Mapping[str, Any] | None = None, display: Display | None = None, trust: bool = False
) -> TaggingRun:
    """Go on with a training where its last checkpoint stands.

    Args:
        path: the run folder.
        changes: nested options; only the end of the training, its surroundings, and what saves one that diverges may change.
        display: shows the training as it goes.
        trust: allow the settings to import a class of your own.

    Returns:
        The run, with the best weights loaded.
    """
    return load_tagging(TAGGING.resume(path, changes=changes, display=display, trust=trust), trust=trust)


def load_tagging(path: Path | str, *, trust: bool = False) -> TaggingRun:
    """Open a run with its best weights.

    Args:
        path: the run folder.
        trust: allow the run to import a class of its own.

    Returns:
        The run.
    """
    return TaggingRun(TAGGING, RunFolder(Path(path)), trust=trust)
