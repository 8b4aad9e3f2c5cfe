"""Any feed-forward network as a recurrence: it reads its own last output beside the input."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unrolled.core.errors import ConfigurationError
from unrolled.nn.cell import Cell


class OutputState(NamedTuple):
    """What a feed-forward network fed back remembers: its last output."""

    y: Float[Tensor, "batch output"]


class FeedForward(Cell):
    """A feed-forward network F whose output is fed back (Jordan 1986, with F free).

    ::

        y' = F([x ; y])

    The first output is fed back as zeros. Recurrent dropout has no single product to act on here and is refused.
    """

    def __init__(self, network: nn.Module, input_size: int, output_size: int) -> None:
        """Make a recurrence of `network`.

        Args:
            network: maps `[batch, input + output]` to `[batch, output]`.
            input_size: features of the input.
            output_size: features of the output, which is also the state.
        """
        super().__init__()
        self.input_size, self.hidden_size = input_size, output_size
        self.network = network

    @classmethod
    def two_layers(cls, input_size: int, hidden_size: int) -> FeedForward:
        """The recurrence of a network of two tanh layers of the same size.

        Args:
            input_size: features of the input.
            hidden_size: features of the layer between and of the output.

        Returns:
            The cell.
        """
        below, above = nn.Linear(input_size + hidden_size, hidden_size), nn.Linear(hidden_size, hidden_size)
        return cls(nn.Sequential(below, nn.Tanh(), above, nn.Tanh()), input_size, hidden_size)

    def initial_state(self, batch_size: int) -> OutputState:
        """Zeros.

        Args:
            batch_size: rows of the batch.

        Returns:
            The state before the first step.
        """
        return OutputState(self.zeros(batch_size, self.hidden_size))

    def step(self, x: Float[Tensor, "batch input"], state: OutputState) -> tuple[Float[Tensor, "batch output"], OutputState]:
        """One step of time; see the equation of the class.

        Args:
            x: the step's input.
            state: the output of the step before.

        Returns:
            `y'` and the new state.

        Raises:
            ConfigurationError: the network gives something of another size.
        """
        y = self.network(torch.cat([x, state.y], -1))
        if y.shape != state.y.shape:
            raise ConfigurationError(f"`network` must give {list(state.y.shape)}, the size it is fed back with, got {list(y.shape)}")
        return y, OutputState(y)
