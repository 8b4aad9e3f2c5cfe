"""What taggers and classifiers minimise."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from unrolled.core.noise import Noise
from unrolled.core.padded import Padded
from unrolled.core.state import State
from unrolled.data.unit_corpus import UnitBatch
from unrolled.models.classifier import Classifier
from unrolled.models.tagger import Tagger
from unrolled.nn.softmax import smoothed_cross_entropy
from unrolled.tasks.row_windows import RowObjective, RowWindow
from unrolled.train.loop import Loss


class TaggedBatch(NamedTuple):
    """Sentences with a label for each word."""

    units: UnitBatch
    labels: Int[Tensor, "batch words"]
    """Ids of labels, zero past a row's words."""


class LabelledBatch(NamedTuple):
    """Texts with a label, or several."""

    units: UnitBatch
    labels: Tensor
    """Ids of labels `[batch]`; or, where a text may have several, 1 for each that it has, `[batch, labels]`."""


class TaggingObjective(RowObjective):
    """The negative log-likelihood of the labels, averaged over words: of whole sequences under a CRF, else of each label by itself."""

    def __init__(self, model: Tagger, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.model, self.label_smoothing = model, label_smoothing

    def scored(self, window: RowWindow) -> int:
        """How many words the share has.

        Args:
            window: a share of a batch.

        Returns:
            Their number.
        """
        return int(window.batch.units.firsts.lengths.sum()) if window.counts else 0

    def forward(self, window: RowWindow, state: State, noise: Noise) -> Loss:
        """Read the sentences of a batch.

        Args:
            window: a share of a batch.
            state: ignored.
            noise: where dropout takes its masks from.

        Returns:
            The objective and the log-likelihood.
        """
        emissions = self.model(window.batch.units.to(self.model.text.device), Noise(noise.generator, window.first_row, window.total_rows))
        objective, nats = self.judge(emissions, window.batch)
        return Loss(objective / window.batch.units.firsts.lengths.sum().clamp(min=1), nats * window.counts, None)

    def judge(self, emissions: Padded, batch: TaggedBatch) -> tuple[Tensor, Tensor]:
        """How far scores are from the right labels.

        Args:
            emissions: logits of the words of a batch.
            batch: with their labels.

        Returns:
            What is minimised and the negative log-likelihood, both summed over all words.
        """
        labels, crf = batch.labels.to(emissions.data.device), self.model.crf
        if crf is not None:
            nats = -crf.log_likelihood(emissions, labels).sum()
            return nats, nats.detach()
        inside = emissions.mask
        return smoothed_cross_entropy(emissions.data[inside].float(), labels[inside], self.label_smoothing if self.training else 0.0)


class ClassificationObjective(RowObjective):
    """Cross entropy of the label of each text; of every label by itself where a text may have several."""

    weights: Tensor | None

    def __init__(self, model: Classifier, *, weights: Float[Tensor, " labels"] | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.model, self.label_smoothing = model, label_smoothing
        self.register_buffer("weights", weights, persistent=False)

    def scored(self, window: RowWindow) -> int:
        """How many texts the share has.

        Args:
            window: a share of a batch.

        Returns:
            Their number.
        """
        return len(window.batch.labels) if window.counts else 0

    def forward(self, window: RowWindow, state: State, noise: Noise) -> Loss:
        """Read the texts of a batch.

        Args:
            window: a share of a batch.
            state: ignored.
            noise: where dropout takes its masks from.

        Returns:
            The objective and the log-likelihood.
        """
        logits = self.model(
            window.batch.units.to(self.model.text.device), Noise(noise.generator, window.first_row, window.total_rows)
        ).float()
        objective, nats = self.judge(logits, window.batch)
        return Loss(objective / max(len(logits), 1), nats * window.counts, None)

    def judge(self, logits: Float[Tensor, "batch labels"], batch: LabelledBatch) -> tuple[Tensor, Tensor]:
        """How far scores are from the right labels.

        Args:
            logits: of the texts of a batch.
            batch: with their labels.

        Returns:
            What is minimised and the negative log-likelihood, both summed over all texts.
        """
        labels = batch.labels.to(logits.device)
        if labels.dim() == 2:
            nats = binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(1)
            weighted = (
                nats
                if self.weights is None
                else binary_cross_entropy_with_logits(logits, labels, pos_weight=self.weights, reduction="none").sum(1)
            )
        else:
            nats = cross_entropy(logits, labels, reduction="none")
            smoothing = self.label_smoothing if self.training else 0.0
            weighted = cross_entropy(logits, labels, weight=self.weights, label_smoothing=smoothing, reduction="none")
        return weighted.sum(), nats.detach().sum()
