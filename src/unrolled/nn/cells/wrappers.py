"""Noise for the state of any cell, in training: recurrent dropout and zoneout."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.core.errors import ConfigurationError, nearest
from unrolled.core.noise import Noise
from unrolled.core.state import State, named_leaves, restore_state
from unrolled.nn.cell import Cell, Noisy, RecurrentMask, Workload
from unrolled.nn.dropout import check_probability
from unrolled.nn.linear_cell import LinearCell
from unrolled.nn.step_check import checked_once


class Wrapper(Cell):
    """A cell around a cell, of the same sizes and with the same state."""

    def __init__(self, cell: Cell) -> None:
        """Wrap `cell`.

        Args:
            cell: any cell, also a wrapped one.
        """
        super().__init__()
        self.cell = cell
        self.input_size, self.hidden_size = cell.input_size, cell.hidden_size

    @property
    def output_size(self) -> int:
        """Features of the output of the cell inside."""
        return self.cell.output_size

    def initial_state(self, batch_size: int) -> State:
        """That of the cell inside.

        Args:
            batch_size: rows of the batch.

        Returns:
            The state before the first step.
        """
        return self.cell.initial_state(batch_size)

    def fixed(self, batch_size: int, noise: Noise) -> State:
        """What the cell inside draws once for a sequence.

        Args:
            batch_size: rows of the batch.
            noise: where random masks come from.

        Returns:
            That, or `None`.
        """
        return self.cell.fixed(batch_size, noise)

    def step_noise(self, batch_size: int, time: int, noise: Noise) -> State:
        """What the cell inside draws for every step.

        Args:
            batch_size: rows of the batch.
            time: how many steps will be taken.
            noise: where random masks come from.

        Returns:
            That, or `None`.
        """
        return self.cell.step_noise(batch_size, time, noise)


class RecurrentDropout(Wrapper):
    """Recurrent dropout with one mask a sequence on what the state's products see of `h` (Gal & Ghahramani 2016, "tied" variant).

    ::

        mask ~ Bernoulli(1 - probability) / (1 - probability), the same at every step
        h', state' = cell(x, state with h ∘ mask inside the products)

    What is carried on by addition or by a gate (`c`, the old `h` of a GRU) is not masked. In evaluation it is the cell itself.
    """

    def __init__(self, cell: Cell, probability: float) -> None:
        """Wrap `cell`.

        Args:
            cell: one whose `step` takes `fixed`.
            probability: of a zero in the mask.

        Raises:
            ConfigurationError: not a probability below 1, a cell without `fixed`, or one that has recurrent dropout already.
        """
        super().__init__(cell)
        self.probability = check_probability(probability, "probability")
        *around, core = _inwards(cell)
        if any(isinstance(wrapper, RecurrentDropout) for wrapper in around):
            raise ConfigurationError("this cell has recurrent dropout already; wrap it once")
        if isinstance(core, LinearCell):
            raise ConfigurationError(
                f"recurrent dropout masks what the products of a step see of its state, and `{type(core).__name__}` has no such product; "
                "use zoneout, or dropout between layers"
            )
        if "fixed" not in inspect.signature(core.step).parameters:
            raise ConfigurationError(
                f"recurrent dropout needs a cell that can mask its state, and `{type(core).__name__}.step` has no third argument; write "
                "`step(self, x, state, fixed=None)` and give the state's products `seen(state.h, fixed)`"
            )

    def fixed(self, batch_size: int, noise: Noise) -> RecurrentMask | None:
        """Draw the mask of a sequence.

        Args:
            batch_size: rows of the batch.
            noise: where the mask comes from.

        Returns:
            The mask, or `None` at probability 0.
        """
        if self.probability == 0:
            return None
        keep = 1 - self.probability
        return RecurrentMask(noise.rows((batch_size, self.hidden_size), keep, self.zeros(0)) / keep)

    def step(self, x: Any, state: State, fixed: State = None) -> tuple[Tensor, State]:
        """One step of the cell inside.

        Args:
            x: the step's input.
            state: the state after the step before.
            fixed: the mask, in training.

        Returns:
            What the cell inside returns.
        """
        return checked_once(self.cell, state, self.cell.forward(x, state, fixed))

    def whole(self, xs: Tensor, state: State) -> tuple[Tensor, State] | None:
        """The faster way of the cell inside; in training there is a mask, and then nobody asks.

        Args:
            xs: the inputs.
            state: the state before the first step.

        Returns:
            Outputs and the last state, or `None`.
        """
        return self.cell.whole(xs, state)

    def prefers_whole(self, work: Workload) -> bool:
        """What the cell inside says.

        Args:
            work: what is to be done.

        Returns:
            Whether that is the faster one.
        """
        return self.cell.prefers_whole(work)


class ZoneoutNoise(NamedTuple):
    """The noise of one step under zoneout."""

    old: dict[str, Tensor]
    """By part of the state: 1 where the old value stays."""
    inner: State
    """The noise of the cell inside."""


class Zoneout(Wrapper):
    """Zoneout: some units keep their old value for a step (Krueger et al. 2017, equations 2–4).

    ::

        old ~ Bernoulli(probability), new at every step
        h'  = old ∘ h + (1 - old) ∘ new_h                  in training
        h'  = probability · h + (1 - probability) · new_h  in evaluation, the expectation

    and so for every part of the state that is named. The new values are those that the cell computes without zoneout, so that
    the new `h` of an LSTM comes from its full new `c`. Where the cell puts out its `h`, the output is the zoned-out one.
    """

    def __init__(self, cell: Cell, probabilities: Mapping[str, float]) -> None:
        """Wrap `cell`.

        Args:
            cell: any cell.
            probabilities: of keeping the old value, by name of the part of the state, such as `{"h": 0.05, "c": 0.5}`.

        Raises:
            ConfigurationError: the state has no part of such a name, or not a probability.
        """
        super().__init__(cell)
        known = dict(named_leaves(cell.initial_state(1)))
        for name, value in probabilities.items():
            if name not in known:
                raise ConfigurationError(
                    f"the state of `{type([*_inwards(cell)][-1]).__name__}` has no part `{name}` to zone out; {nearest(name, known)}"
                )
            if not 0 <= value <= 1:
                raise ConfigurationError(f"the zoneout of `{name}` must be between 0 and 1, got {value}")
        self.probabilities = {name: float(value) for name, value in probabilities.items() if value > 0}

    def step_noise(self, batch_size: int, time: int, noise: Noise) -> ZoneoutNoise:
        """Draw which units keep their value at which step.

        Args:
            batch_size: rows of the batch.
            time: how many steps will be taken.
            noise: where the masks come from.

        Returns:
            Masks `[batch, time, …]`, and the noise of the cell inside.
        """
        parts = dict(named_leaves(self.cell.initial_state(1)))
        old = {
            name: noise.rows((batch_size, time, *parts[name].shape[1:]), probability, parts[name])
            for name, probability in self.probabilities.items()
        }
        return ZoneoutNoise(old, self.cell.step_noise(batch_size, time, noise))

    def step(self, x: Any, state: State, fixed: State = None) -> tuple[Tensor, State]:
        """One step of the cell inside, then zoneout of its new state.

        Args:
            x: `Noisy` with the noise of this step in training; the input alone in evaluation.
            state: the state after the step before.
            fixed: what the cell inside keeps for the whole sequence.

        Returns:
            The output and the new state.
        """
        masks: dict[str, Tensor] = {}
        if training := isinstance(x, Noisy):
            masks, inner = x.noise
            x = x.x if inner is None else Noisy(x.x, inner)
        output, new = checked_once(self.cell, state, self.cell.forward(x, state, fixed))
        before, after = dict(named_leaves(state)), dict(named_leaves(new))
        zoned = dict(after)
        for name, probability in self.probabilities.items():
            if training:
                zoned[name] = torch.where(masks[name].bool(), before[name], after[name])
            else:
                zoned[name] = probability * before[name] + (1 - probability) * after[name]
        # A cell that puts out a part of its state puts out the same tensor.
        output = next((zoned[name] for name, part in after.items() if part is output), output)
        return output, restore_state(new, zoned)


def _inwards(cell: Cell) -> Iterator[Cell]:
    yield cell
    if isinstance(cell, Wrapper):
        yield from _inwards(cell.cell)
