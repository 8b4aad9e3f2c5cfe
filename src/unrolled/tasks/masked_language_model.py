"""The task of a masked language model: plain text in, an encoder out that taggers and classifiers can begin from (Devlin et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from unrolled.core.errors import DataError
from unrolled.core.noise import Noise
from unrolled.core.state import State
from unrolled.data.labels import LabelSet
from unrolled.data.masking import MaskedBatch, Masking
from unrolled.data.text import open_text
from unrolled.models.masked_language_model import MaskedLanguageModel
from unrolled.nn.softmax import smoothed_cross_entropy
from unrolled.tasks.labelling_settings import MaskedRunSettings
from unrolled.tasks.row_windows import RowObjective, RowWindow
from unrolled.tasks.text_run import TextRun
from unrolled.tasks.text_samples import Held, Judged, RowCorpus, Samples
from unrolled.tasks.text_task import TextTask
from unrolled.train.loop import Loss, Record

VALIDATED = 0
"""The seed by which units of validation texts are hidden: the same ones for every run on the same texts."""


class MaskedScores(NamedTuple):
    """How well a model guesses hidden units."""

    sentences: int
    symbols: int
    """Units that were asked for."""
    loss: float
    """Nats per unit."""
    perplexity: float
    accuracy: float
    """Share of the units that were guessed, in percent."""


class MaskedObjective(RowObjective):
    """Cross entropy of the units that are asked for."""

    def __init__(self, model: MaskedLanguageModel, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.model, self.label_smoothing = model, label_smoothing

    def scored(self, window: RowWindow) -> int:
        """How many units are asked for.

        Args:
            window: a share of a batch.

        Returns:
            Their number.
        """
        return len(window.batch.wanted) if window.counts else 0

    def forward(self, window: RowWindow, state: State, noise: Noise) -> Loss:
        """Read texts with hidden units.

        Args:
            window: a share of a batch.
            state: ignored.
            noise: where dropout takes its masks from.

        Returns:
            The objective and the log-likelihood.
        """
        model, noise = self.model, Noise(noise.generator, window.first_row, window.total_rows)
        units, asked, wanted = window.batch
        device = model.text.device
        logits = model(units.to(device), asked.to(device), noise).float()
        wanted = wanted.to(device)
        summed, nats = smoothed_cross_entropy(logits, wanted, self.label_smoothing if self.training else 0.0)
        return Loss(summed / max(len(wanted), 1), nats * window.counts, None)


class MaskedRun(TextRun):
    """A trained masked language model with its vocabulary and its run folder."""

    @torch.no_grad()
    def evaluate(self, files: Sequence[Path | str] | Path | str | None = None, *, split: str = "valid") -> MaskedScores:
        """Hide units of texts and see which of them are guessed.

        Args:
            files: plain text; a part of the run's own when `None`.
            split: `valid` or `train`.

        Returns:
            Loss, perplexity and accuracy.
        """
        record = self.scored(files, split)
        return MaskedScores(perplexity=math.exp(min(record["loss"], 700.0)), **record)


class MaskedTask(TextTask[MaskedRun]):
    """How a masked language model is trained."""

    name = "masked-lm"
    settings = MaskedRunSettings
    run = MaskedRun

    def read(self, settings: Any, files: Sequence[Path], labels: LabelSet | None = None) -> tuple[Samples, tuple[str, ...]]:
        """A text a line; see `TextTask.read`.

        Args:
            settings: not needed.
            files: of one part.
            labels: there are none.

        Returns:
            The lines that hold words.

        Raises:
            DataError: there is none.
        """
        texts = [line.strip() for path in files for line in "".join(open_text(path)).split("\n") if line.strip()]
        if not texts:
            raise DataError(f"`{files[0]}` must hold text, got blank lines only; try another file")
        return Samples(texts, [None] * len(texts)), ()

    def learn_labels(self, settings: Any, samples: Samples) -> None:
        """There are none.

        Args:
            settings: not needed.
            samples: not needed.
        """

    def make_model(self, settings: Any, held: Held, *, trust: bool) -> MaskedLanguageModel:
        """An untrained model.

        Args:
            settings: of the run.
            held: its vocabulary.
            trust: allow the settings to import a class of the user's own.

        Returns:
            The model.
        """
        return MaskedLanguageModel(settings.model, held.units.vocabulary, held.units.characters, trust=trust)

    def make_objective(self, settings: Any, model: Any, samples: Samples, held: Held) -> MaskedObjective:
        """What the model minimises.

        Args:
            settings: of the run.
            model: to be trained.
            samples: not needed.
            held: not needed.

        Returns:
            The objective.
        """
        return MaskedObjective(model, label_smoothing=settings.train.label_smoothing)

    def make_rows(self, settings: Any, samples: Samples, held: Held, *, train: bool) -> RowCorpus:
        """Texts with hidden units: others in every epoch of training, always the same in evaluation.

        Args:
            settings: of the run.
            samples: of one part.
            held: its vocabulary.
            train: whether they are trained on.

        Returns:
            The rows.
        """
        units = held.units.encode(samples.texts)
        if train:
            units = units.cut(settings.data.longest)
        masking = Masking(units, held.units, settings.data.masked, settings.train.seed if train else VALIDATED)
        return RowCorpus(units, units.lengths, masking.collate, np.flatnonzero(units.lengths))

    def judge(self, objective: Any, batch: MaskedBatch, counts: bool) -> Judged:
        """How many hidden units a model guesses; see `TextTask.judge`.

        Args:
            objective: in evaluation mode.
            batch: of texts with hidden units.
            counts: false for texts that hold nothing.

        Returns:
            The number of right guesses and that of all, for the first text of the batch on behalf of all.
        """
        rows = len(batch.units.places.data)
        if not counts:
            return Judged(0.0, 0, [(0, 0)] * rows)
        device = objective.model.text.device
        logits, wanted = objective.model(batch.units.to(device), batch.asked.to(device)).float(), batch.wanted.to(device)
        right = int((logits.argmax(-1) == wanted).sum())
        _, nats = smoothed_cross_entropy(logits, wanted)
        return Judged(float(nats), len(wanted), [(right, len(wanted))] + [(0, 0)] * (rows - 1))

    def figures(self, samples: Samples, answers: Sequence[Any], settings: Any, held: Held) -> Record:
        """The share of units that are guessed.

        Args:
            samples: not needed.
            answers: right guesses and all.
            settings: of the run.
            held: not needed.

        Returns:
            Percentages.
        """
        right, total = (sum(column) for column in zip(*answers, strict=True))
        accuracy = 100 * right / max(total, 1)
        return {"accuracy": accuracy} | ({"criterion": 100 - accuracy} if settings.train.best == "score" else {})


MASKED = MaskedTask()
train_masked_language_model = MASKED.train
"""Train a masked language model on plain text, a text a line; see `TextTask.train`."""
resume_masked_language_model = MASKED.resume
"""Go on with a training where its last checkpoint stands; see `TextTask.resume`."""
load_masked_language_model = MASKED.load
"""Open a run with its best weights; see `TextTask.load`."""
