"""What a language model minimises, and how it is scored."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unrolled.core.noise import Noise
from unrolled.core.padded import IGNORED
from unrolled.core.state import State
from unrolled.models.language_model import LanguageModel, Reading
from unrolled.nn.softmax import draw_log_uniform, log_uniform, sampled_cross_entropy
from unrolled.train.group import Group
from unrolled.train.loop import Loss
from unrolled.train.settings import StreamTrainSettings
from unrolled.train.windows import ParallelStreams, Window

EVALUATION_WINDOW = 256
READOUT_NUMBERS = 2**25
"""Logits that are held at once in evaluation (128 MiB)."""


class LanguageModelObjective(nn.Module):
    """Cross entropy of the next symbol, with the two activation penalties of Merity et al. 2018, section 4.2."""

    def __init__(self, model: LanguageModel, settings: StreamTrainSettings) -> None:
        super().__init__()
        self.model, self.settings = model, settings
        model.embedding.sparse = settings.sparse_gradients

    def initial_state(self, batch_size: int) -> State:
        """The model's.

        Args:
            batch_size: rows of the batch.

        Returns:
            A tree with batch as axis 0.
        """
        return self.model.initial_state(batch_size)

    def restart(self, state: State, rows: Bool[Tensor, " batch"]) -> State:
        """The model's initial state for some rows.

        Args:
            state: where the streams stand.
            rows: true where a stream starts afresh.

        Returns:
            The state.
        """
        return self.model.restart(state, rows)

    def scored(self, window: Window) -> int:
        """How many symbols of the window are scored.

        Args:
            window: of parallel streams.

        Returns:
            The number of targets that count.
        """
        return int((window.batch.targets != IGNORED).sum())

    def forward(self, window: Window, state: State, noise: Noise) -> Loss:
        """Read a window and compare with what came next.

        Args:
            window: of parallel streams.
            state: where the streams stand.
            noise: where dropout and sampled symbols come from.

        Returns:
            The objective, its part that is likelihood, and the state to carry on.
        """
        device = self.model.device
        targets = window.batch.targets.to(device)
        reading, carried = self._read(window, state, noise, device)
        losses = self._losses(reading.hidden, targets, noise)
        count = (targets != IGNORED).sum().clamp(min=1)
        nats = losses.sum()
        return Loss(nats / count + self._penalty(reading), nats, carried)

    def _read(self, window: Window, state: State, noise: Noise, device: torch.device) -> tuple[Reading, State]:
        """The whole window, in two parts where the state to carry lies inside it."""
        inputs = window.batch.inputs.to(device)
        resets = None if window.batch.resets is None else window.batch.resets.to(device)
        cut = window.carry_at
        if cut >= inputs.shape[1]:
            reading = self.model.read(inputs, state, resets=resets, noise=noise)
            return reading, reading.state
        parts = [
            (inputs[:, :cut], None if resets is None else resets[:, :cut]),
            (inputs[:, cut:], None if resets is None else resets[:, cut:]),
        ]
        first = self.model.read(parts[0][0], state, resets=parts[0][1], noise=noise)
        second = self.model.read(parts[1][0], first.state, resets=parts[1][1], noise=noise)
        both = Reading(torch.cat([first.hidden, second.hidden], 1), torch.cat([first.raw, second.raw], 1), second.state)
        return both, first.state

    def _losses(self, hidden: Tensor, targets: Int[Tensor, "batch time"], noise: Noise) -> Tensor:
        flat, readout = hidden.flatten(0, 1), self.model.readout
        samples = self.settings.sampled_softmax
        if samples is None or samples >= self.model.vocabulary:
            return cross_entropy(readout(flat).float(), targets.flatten(), ignore_index=IGNORED, reduction="none")
        negatives = draw_log_uniform(self.model.vocabulary, samples, noise.generator, flat.device)
        proposal = log_uniform(self.model.vocabulary, flat.device)
        return sampled_cross_entropy(
            flat, readout.weight, readout.bias, targets.flatten(), negatives, proposal, sparse=self.settings.sparse_gradients
        )

    def _penalty(self, reading: Reading) -> Tensor:
        penalty = reading.hidden.new_zeros(())
        if self.settings.activation_penalty:
            penalty = penalty + self.settings.activation_penalty * reading.hidden.float().square().mean()
        if self.settings.smoothness_penalty and reading.raw.shape[1] > 1:
            penalty = penalty + self.settings.smoothness_penalty * reading.raw.float().diff(dim=1).square().mean()
        return penalty


class Scores(NamedTuple):
    """How well a model predicts a text."""

    loss: float
    """Nats per symbol."""
    perplexity: float
    """`exp(loss)`: per symbol."""
    bits_per_character: float
    """Bits per character of the text, whatever the symbols are."""
    word_perplexity: float | None
    """Perplexity per word of the text (white space and line ends as in WikiText), whatever the symbols are."""
    symbols: int
    """How many were predicted."""


def scores(nats: float, symbols: int, characters: int, words: int) -> Scores:
    """Figures from sums.

    Args:
        nats: negative log-likelihood of all symbols together.
        symbols: how many were predicted.
        characters: of the text they stand for.
        words: of the text they stand for.

    Returns:
        The figures.
    """
    loss = nats / symbols
    per_word = _exp(nats / words) if words else None
    return Scores(loss, _exp(loss), nats / max(characters, 1) / math.log(2), per_word, symbols)


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))


@torch.no_grad()
def count_nats(model: LanguageModel, streams: ParallelStreams, group: Group | None = None) -> tuple[float, int]:
    """Read parallel streams from their beginning and add up what the model did not expect.

    Args:
        model: in evaluation mode.
        streams: this process's rows.
        group: the processes that share the rows.

    Returns:
        Nats and scored symbols, over all processes.
    """
    device = model.device
    total = torch.zeros(2, dtype=torch.float64, device=device)
    state: State = None
    rows = max(1, READOUT_NUMBERS // model.vocabulary)
    for start in range(0, streams.steps, EVALUATION_WINDOW):
        batch = streams.window(start, min(EVALUATION_WINDOW, streams.steps - start))
        resets = None if batch.resets is None else batch.resets.to(device)
        targets = batch.targets.to(device).flatten()
        reading = model.read(batch.inputs.to(device), state, resets=resets)
        state = reading.state
        # A large vocabulary is read out in parts: all logits of a window at once could take gigabytes.
        for part, wanted in zip(reading.hidden.flatten(0, 1).split(rows), targets.split(rows), strict=True):
            total[0] += cross_entropy(model.readout(part).float(), wanted, ignore_index=IGNORED, reduction="sum").double()
        total[1] += (targets != IGNORED).sum()
    nats, count = (group or Group()).sum(total).tolist()
    return nats, int(count)
