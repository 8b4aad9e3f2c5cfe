"""The contract of a recurrent cell: an initial state and one step of time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unrolled.core.noise import Noise
from unrolled.core.state import State


class HiddenState(NamedTuple):
    """The state of a cell that remembers one vector."""

    h: Float[Tensor, "batch hidden"]


class Workload(NamedTuple):
    """What is to be unrolled, as far as it decides which way is the fastest."""

    rows: int
    runs: int
    """Runs of steps at whose ends some row ends or restarts; one, where all rows are of one length."""
    gradients: bool = False
    """Whether any are wanted."""
    of_inputs: bool = False
    """Whether those of the inputs are wanted too."""
    bfloat16: bool = False
    """Whether the compiled loop would multiply in bfloat16."""


class Cell(nn.Module, ABC):
    """One step of time: give `initial_state` and `step`, and everything else in this package works with it.

    The three things a step sees are kept apart. `state` changes at every step; `fixed` holds for a whole sequence
    (a mask drawn once, a decoder's memory); `x` is the step's own input. Batch is axis 0 of every leaf of all three.
    A cell that needs nothing fixed has `step(x, state)`, one that does has `step(x, state, fixed)`.
    """

    input_size: int
    hidden_size: int
    begins_anew: ClassVar[bool] = False
    """Whether there is `whole_anew`."""

    @property
    def output_size(self) -> int:
        """Features of the output of one step; the hidden size unless a cell says otherwise."""
        return self.hidden_size

    @property
    def offers_whole(self) -> bool:
        """Whether there is `whole`, for some inputs at least."""
        return type(self).whole is not Cell.whole

    def initial_state(self, batch_size: int) -> State:
        """The state before the first step: zeros, with the dtype and device of the parameters.

        Args:
            batch_size: rows of the batch.

        Returns:
            A named tuple of tensors `[batch, …]`.
        """
        return HiddenState(self.zeros(batch_size, self.hidden_size))

    @abstractmethod
    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of time.

        Args:
            x: the step's input, `[batch, input]`.
            state: the state after the step before.

        Returns:
            The output `[batch, output]` and the new state.
        """

    def fixed(self, batch_size: int, noise: Noise) -> State:
        """What is drawn once in training and holds for a whole sequence; `None` for a cell that draws nothing.

        What else holds for a sequence, such as a decoder's memory, is handed to `Recurrence` as `fixed`.

        Args:
            batch_size: rows of the batch.
            noise: where random masks come from.

        Returns:
            The third argument of `step`, or `None` when `step` takes two.
        """
        return None

    def step_noise(self, batch_size: int, time: int, noise: Noise) -> State:
        """Noise that is new at every step; `None` for a cell that needs none.

        Args:
            batch_size: rows of the batch.
            time: how many steps will be taken.
            noise: where random masks come from.

        Returns:
            A tree of `[batch, time, …]`; `step` then receives `Noisy(x, noise)` in the place of `x`.
        """
        return None

    def whole(self, xs: Tensor, state: State) -> tuple[Tensor, State] | None:
        """The same as taking every step in turn, by a faster way; `None` where there is none for this input.

        Args:
            xs: `[batch, time, input]`, at least one row and one step.
            state: the state before the first step.

        Returns:
            Outputs `[batch, time, output]` and the state after the last step, or `None`.
        """
        return None

    def whole_anew(self, xs: Tensor, between: Tensor) -> Tensor:
        """The outputs of several sequences behind one another in each row, by a faster way.

        Args:
            xs: `[batch, time, input]`, finite throughout.
            between: `[batch, time]`, true at steps that belong to no sequence; what follows one begins with the initial state.

        Returns:
            Outputs `[batch, time, output]`, whatever they are between sequences.

        Raises:
            NotImplementedError: the cell has no such way.
        """
        raise NotImplementedError(f"`{type(self).__name__}` reads one sequence a row")

    def prefers_whole(self, work: Workload) -> bool:
        """Whether `whole`, called for one run of steps after the other, is faster than the compiled loop over all steps.

        Args:
            work: what is to be done.

        Returns:
            Whether there is `whole`, unless a cell knows better.
        """
        return self.offers_whole

    def zeros(self, *shape: int) -> Tensor:
        """Zeros with the dtype and device of the parameters.

        Args:
            shape: the sizes.

        Returns:
            A new tensor.
        """
        like = next(self.parameters(), None)
        return torch.zeros(shape) if like is None else like.new_zeros(shape)

    def forward(self, x: Any, state: State, fixed: State = None) -> Any:
        """Calling a cell takes one step.

        Args:
            x: the step's input, `Noisy` where the cell draws noise for each step.
            state: the state after the step before.
            fixed: what holds for the whole sequence, where the cell needs it.

        Returns:
            What `step` returns.
        """
        return self.step(x, state) if fixed is None else self.step(x, state, fixed)  # type: ignore[call-arg]


class Noisy(NamedTuple):
    """A step's input together with the noise drawn for this step."""

    x: Tensor
    noise: State


class RecurrentMask(NamedTuple):
    """The `fixed` of a cell under recurrent dropout: what the state's matrix products see of `h` is `h ∘ mask`, the same mask at every step."""

    mask: Float[Tensor, "batch hidden"]


def seen(h: Tensor, fixed: RecurrentMask | None) -> Tensor:
    """The hidden state as the matrix products of a step see it.

    Args:
        h: the hidden state, `[batch, hidden]`.
        fixed: the mask of recurrent dropout, or `None`.

    Returns:
        `h`, masked where there is a mask.
    """
    return h if fixed is None else h * fixed.mask
