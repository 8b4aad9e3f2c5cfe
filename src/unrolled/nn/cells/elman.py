"""The plain recurrent network: one product of the input, one of the state, one nonlinearity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unrolled.core.errors import ConfigurationError, nearest
from unrolled.nn.cell import Cell, HiddenState, RecurrentMask, Workload, seen
from unrolled.nn.cells.vendor import run_kernel
from unrolled.nn.exchange import read_layer, write_layer
from unrolled.nn.start import start_input


class Activation(NamedTuple):
    """What changes with the nonlinearity."""

    function: Callable[[Tensor], Tensor]
    kernel: Callable[..., Any]
    """The kernel of torch that computes the same."""
    start: Callable[[Tensor], Tensor]
    """How the recurrent matrix begins."""


ACTIVATIONS = {
    "tanh": Activation(torch.tanh, torch.rnn_tanh, nn.init.orthogonal_),
    "relu": Activation(torch.relu, torch.rnn_relu, nn.init.eye_),
}


class Elman(Cell):
    """The vanilla recurrent network (Elman 1990).

    ::

        h' = activation(U x + W h + b)

    `from_input` holds U and b, `from_hidden` holds W, which begins orthogonal for tanh and as the identity for relu
    (Le et al. 2015: without it a relu recurrence explodes or dies). Weights exchange exactly with `torch.nn.RNN`, whose
    two biases are one here.
    """

    def __init__(self, input_size: int, hidden_size: int, *, activation: str = "tanh") -> None:
        """Make the cell.

        Args:
            input_size: features of the input.
            hidden_size: features of the state.
            activation: the nonlinearity, `tanh` or `relu`.

        Raises:
            ConfigurationError: another nonlinearity.
        """
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ConfigurationError(f"`activation` must be tanh or relu, got `{activation}`; {nearest(activation, ACTIVATIONS)}")
        self.input_size, self.hidden_size, self.activation = input_size, hidden_size, activation
        self.from_input = nn.Linear(input_size, hidden_size)
        self.from_hidden = nn.Linear(hidden_size, hidden_size, bias=False)
        start_input(self.from_input, hidden_size)
        ACTIVATIONS[activation].start(self.from_hidden.weight)

    def step(
        self, x: Float[Tensor, "batch input"], state: HiddenState, fixed: RecurrentMask | None = None
    ) -> tuple[Float[Tensor, "batch hidden"], HiddenState]:
        """One step of time; see the equation of the class.

        Args:
            x: the step's input.
            state: the state after the step before.
            fixed: the mask of recurrent dropout.

        Returns:
            `h'` and the new state.
        """
        h = ACTIVATIONS[self.activation].function(self.from_input(x) + self.from_hidden(seen(state.h, fixed)))
        return h, HiddenState(h)

    def whole(self, xs: Float[Tensor, "batch time input"], state: HiddenState) -> tuple[Tensor, HiddenState]:
        """The vendor kernel of torch on the same weights.

        Args:
            xs: the inputs.
            state: the state before the first step.

        Returns:
            Outputs and the last state.
        """
        bias = self.from_input.bias
        weights = self.from_input.weight, self.from_hidden.weight, bias, torch.zeros_like(bias)
        outputs, after = run_kernel(ACTIVATIONS[self.activation].kernel, xs, state, weights)
        return outputs, HiddenState(*after)

    def prefers_whole(self, work: Workload) -> bool:
        """Whether torch's kernel is faster than the compiled loop.

        Args:
            work: what is to be done.

        Returns:
            No: where it is torch's own, it is a loop over the steps.
        """
        return False

    @classmethod
    def from_torch(cls, source: nn.RNNBase) -> Elman:
        """The cell with the weights and the nonlinearity of a one-layer `torch.nn.RNN`; its two biases are added.

        Args:
            source: a `torch.nn.RNN` of one layer, one direction.

        Returns:
            A cell that computes the same, to rounding.
        """
        from_input, from_hidden, bias, second_bias = read_layer(source, nn.RNN)
        cell = cls(source.input_size, source.hidden_size, activation=source.mode.removeprefix("RNN_").lower()).to(from_input)
        with torch.no_grad():
            cell.from_input.weight.copy_(from_input)
            cell.from_input.bias.copy_(bias + second_bias)
            cell.from_hidden.weight.copy_(from_hidden)
        return cell

    def to_torch(self) -> nn.RNN:
        """A `torch.nn.RNN` (batch first) with these weights and this nonlinearity; the second bias is zero.

        Returns:
            A new layer that computes the same, to rounding.
        """
        weight, bias = self.from_input.weight, self.from_input.bias
        layer = nn.RNN(self.input_size, self.hidden_size, nonlinearity=self.activation, batch_first=True).to(weight)
        return write_layer(layer, (weight, self.from_hidden.weight, bias, torch.zeros_like(bias)))
