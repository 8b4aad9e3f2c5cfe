"""What a translation model minimises, and its loss on a set of pairs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from unrolled.core.noise import Noise
from unrolled.core.padded import Padded, length_mask
from unrolled.core.state import State
from unrolled.data.batches import PairBatch
from unrolled.decode.processors import NEVER
from unrolled.models.encoder_decoder import EncoderDecoder, Translating
from unrolled.models.recurrent_decoder import Decoded
from unrolled.nn.softmax import smoothed_cross_entropy
from unrolled.nn.transformer_dropout import branch
from unrolled.tasks.row_windows import RowObjective, RowWindow
from unrolled.train.group import Group
from unrolled.train.loop import Loss


class Teacher(NamedTuple):
    """A target as teacher forcing sees it."""

    inputs: Int[Tensor, "batch time"]
    """The symbol before each predicted one, the start symbol first."""
    wanted: Int[Tensor, "batch time"]
    """The predicted symbols, the end symbol last."""
    mask: Bool[Tensor, "batch time"]
    """True where a symbol is predicted."""


def teach(target: Padded, start: int, end: int) -> Teacher:
    """Shift a target by one step.

    Args:
        target: ids without special symbols.
        start: the start symbol.
        end: the end symbol.

    Returns:
        Inputs, wanted symbols, and which of them count.
    """
    B, T = target.data.shape
    inputs = torch.cat([target.data.new_full((B, 1), start), target.data], 1)
    wanted = torch.cat([target.data, target.data.new_zeros((B, 1))], 1)
    wanted = wanted.scatter(1, target.lengths.unsqueeze(1), end)
    return Teacher(inputs, wanted, length_mask(target.lengths + 1, T + 1))


class TranslationObjective(RowObjective):
    """Cross entropy of the target symbols, averaged over symbols, with label smoothing (Szegedy et al. 2016) and scheduled sampling.

    Scheduled sampling (Bengio et al. 2015) replaces each input symbol with some probability by what the model itself would
    have written there; as in Duckworth et al. 2019 the model's own symbols are drawn in one pass over the true target, so that the
    training pass stays parallel over time.
    """

    def __init__(
        self, model: EncoderDecoder, *, start: int, end: int, label_smoothing: float = 0.0, scheduled_sampling: float = 0.0
    ) -> None:
        super().__init__()
        self.model, self.start, self.end = model, start, end
        self.label_smoothing, self.scheduled_sampling = label_smoothing, scheduled_sampling

    def scored(self, window: RowWindow) -> int:
        """How many target symbols the share has, end symbols included.

        Args:
            window: a share of a batch.

        Returns:
            Their number.
        """
        lengths = window.batch.target.lengths
        return int(lengths.sum()) + len(lengths) if window.counts else 0

    def forward(self, window: RowWindow, state: State, noise: Noise) -> Loss:
        """Read the pairs of a batch.

        Args:
            window: a share of a batch.
            state: ignored.
            noise: where dropout takes its masks from.

        Returns:
            The objective and the log-likelihood.
        """
        model, noise = self.model, Noise(noise.generator, window.first_row, window.total_rows)
        source, target = to_device(window.batch, model.device)
        teacher = teach(target, self.start, self.end)
        translating = model.encode(source, noise)
        inputs = self._own_symbols(teacher, translating, noise) if self.scheduled_sampling and self.training else teacher.inputs
        decoded = model.read(translating, inputs, noise)
        logits = predict_where(model, decoded, translating, teacher.mask)
        wanted = teacher.wanted[teacher.mask]
        summed, nats = smoothed_cross_entropy(logits, wanted, self.label_smoothing if self.training else 0.0)
        objective = summed / max(len(wanted), 1)
        # A stand-in takes part in the exchange of gradients, and in nothing else; its objective is weighted by its count.
        return Loss(objective + self._coverage_loss(decoded, teacher.mask), nats * window.counts, None)

    def _own_symbols(self, teacher: Teacher, translating: Translating, noise: Noise) -> Int[Tensor, "batch time"]:
        """Inputs of which some are the model's own: drawn from what it predicts after the true symbols before.

        How much is drawn depends on this process's share; a source of its own leaves the shared one in step.
        """
        noise = branch(noise, self.model.device)
        with torch.no_grad():
            decoded = self.model.read(translating, teacher.inputs, noise)
            logits = predict_where(self.model, decoded, translating, teacher.mask).float()
            # What begins or ends a target never stands inside one.
            logits[:, [self.start, self.end]] = NEVER
            drawn = torch.multinomial(torch.softmax(logits, -1), 1, generator=noise.generator).squeeze(1)
            own = teacher.wanted.masked_scatter(teacher.mask, drawn)
            own = torch.cat([teacher.inputs[:, :1], own[:, :-1]], 1)
            coin = noise.rows(tuple(own.shape), self.scheduled_sampling, logits.new_empty(0)).bool()
            coin[:, 0] = False
        return torch.where(coin & teacher.mask, own, teacher.inputs)

    def _coverage_loss(self, decoded: Decoded, mask: Bool[Tensor, "batch time"]) -> Tensor | float:
        """`Σ_j min(α_tj, coverage_tj)`, the mean over predicted symbols (See et al. 2017, section 2.3)."""
        attention = self.model.settings.attention
        if not (attention.coverage and attention.coverage_loss and self.training and decoded.weights is not None):
            return 0.0
        weights = decoded.weights.mean(2).float()
        before = weights.cumsum(1) - weights
        again = torch.minimum(weights, before).sum(-1)
        return attention.coverage_loss * again[mask].mean()


def predict_where(
    model: EncoderDecoder, decoded: Decoded, translating: Translating, mask: Bool[Tensor, "batch time"]
) -> Float[Tensor, "symbols vocab"]:
    """Read out only where a symbol is predicted: padding costs nothing.

    Args:
        model: of the target.
        decoded: one vector a step.
        translating: the source.
        mask: which steps count.

    Returns:
        Logits, row by row.
    """
    if translating.source is None:
        return model.predict(decoded.hidden[mask], None, None)
    assert decoded.weights is not None
    ids = translating.source.unsqueeze(1).expand(-1, mask.shape[1], -1)
    return model.predict(decoded.hidden[mask], decoded.weights.mean(2)[mask], ids[mask])


def to_device(batch: PairBatch, device: torch.device) -> PairBatch:
    """A batch where the model computes.

    Args:
        batch: anywhere.
        device: where to.

    Returns:
        The batch there.
    """
    return PairBatch(*(Padded(side.data.to(device), side.lengths.to(device)) for side in batch))


@torch.no_grad()
def nats_by_row(objective: TranslationObjective, batch: PairBatch) -> Float[Tensor, " batch"]:
    """How unexpected each target is after its source: `-Σ log P` of its symbols and its end.

    Args:
        objective: in evaluation mode.
        batch: pairs.

    Returns:
        Nats, a number a pair.
    """
    model = objective.model
    source, target = to_device(batch, model.device)
    teacher = teach(target, objective.start, objective.end)
    translating = model.encode(source)
    logits = predict_where(model, model.read(translating, teacher.inputs), translating, teacher.mask).float()
    losses = cross_entropy(logits, teacher.wanted[teacher.mask], reduction="none")
    return losses.new_zeros(teacher.mask.shape).masked_scatter(teacher.mask, losses).sum(1)


class Sums(NamedTuple):
    """What a set of pairs adds up to."""

    nats: float
    right: float
    symbols: float


@torch.no_grad()
def score_pairs(objective: TranslationObjective, batches: Iterable[PairBatch], group: Group) -> Sums:
    """Loss and accuracy under teacher forcing.

    Args:
        objective: in evaluation mode.
        batches: this process's.
        group: the processes that share the pairs.

    Returns:
        Nats, rightly predicted symbols and all symbols, over all processes.
    """
    model = objective.model
    total = torch.zeros(3, dtype=torch.float64, device=model.device)
    for batch in batches:
        source, target = to_device(batch, model.device)
        teacher = teach(target, objective.start, objective.end)
        translating = model.encode(source)
        logits = predict_where(model, model.read(translating, teacher.inputs), translating, teacher.mask).float()
        wanted = teacher.wanted[teacher.mask]
        total[0] += cross_entropy(logits, wanted, reduction="sum").double()
        total[1] += (logits.argmax(-1) == wanted).sum()
        total[2] += len(wanted)
    return Sums(*group.sum(total).tolist())
