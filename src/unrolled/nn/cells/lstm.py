"""Long short-term memory: a cell state `c` carried by addition, three gates around it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unrolled.nn.cell import Cell, RecurrentMask, Workload, seen
from unrolled.nn.cells.vendor import prefers_lstm_kernel, run_kernel
from unrolled.nn.exchange import read_layer, write_layer
from unrolled.nn.start import shift_bias, start_input, start_recurrent

CLOSED = -1e4
"""What a gate sees that shall be zero, to the last bit and in its gradient, whatever else it sees."""


class LSTMState(NamedTuple):
    """What an LSTM remembers."""

    h: Float[Tensor, "batch hidden"]
    c: Float[Tensor, "batch hidden"]


class LSTM(Cell):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000).

    ::

        input, forget, output = σ(U x + W h + b)          one U, W, b for each
        candidate             = tanh(U_c x + W_c h + b_c)
        c' = forget ∘ c + input ∘ candidate
        h' = output ∘ tanh(c')

    `from_input` holds U and b, `from_hidden` holds W, both in the order input, forget, candidate, output. Weights
    exchange exactly with `torch.nn.LSTM`, whose two biases are one here.
    """

    begins_anew = True

    def __init__(self, input_size: int, hidden_size: int, *, forget_bias: float = 1.0) -> None:
        """Make the cell.

        Args:
            input_size: features of the input.
            hidden_size: features of `h` and `c`.
            forget_bias: the bias of the forget gate at the start.
        """
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.from_input = nn.Linear(input_size, 4 * hidden_size)
        self.from_hidden = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        start_input(self.from_input, hidden_size)
        start_recurrent(self.from_hidden, hidden_size)
        shift_bias(self.from_input.bias, 1, hidden_size, forget_bias)

    def initial_state(self, batch_size: int) -> LSTMState:
        """Zeros for `h` and `c`.

        Args:
            batch_size: rows of the batch.

        Returns:
            The state before the first step.
        """
        return LSTMState(*self.zeros(2, batch_size, self.hidden_size).unbind())

    def step(
        self, x: Float[Tensor, "batch input"], state: LSTMState, fixed: RecurrentMask | None = None
    ) -> tuple[Float[Tensor, "batch hidden"], LSTMState]:
        """One step of time; see the equations of the class.

        Args:
            x: the step's input.
            state: the state after the step before.
            fixed: the mask of recurrent dropout.

        Returns:
            `h'` and the new state.
        """
        gates = self.from_input(x) + self.from_hidden(seen(state.h, fixed))
        input, forget, candidate, output = gates.chunk(4, -1)
        c = torch.sigmoid(forget) * state.c + torch.sigmoid(input) * torch.tanh(candidate)
        h = torch.sigmoid(output) * torch.tanh(c)
        return h, LSTMState(h, c)

    def whole(self, xs: Float[Tensor, "batch time input"], state: LSTMState) -> tuple[Tensor, LSTMState] | None:
        """The vendor kernel of torch (oneDNN, cuDNN) on the same weights.

        Args:
            xs: the inputs.
            state: the state before the first step.

        Returns:
            Outputs and the last state.
        """
        bias = self.from_input.bias
        weights = self.from_input.weight, self.from_hidden.weight, bias, torch.zeros_like(bias)
        outputs, after = run_kernel(torch.lstm, xs, state, weights)
        return outputs, LSTMState(*after)

    def whole_anew(self, xs: Float[Tensor, "batch time input"], between: Bool[Tensor, "batch time"]) -> Tensor:
        """The vendor kernel over sequences behind one another; one more input closes all gates between them, so that `h` and `c` are zero there.

        Args:
            xs: the inputs.
            between: true where no sequence lies.

        Returns:
            Outputs.
        """
        bias, weight = self.from_input.bias, self.from_input.weight
        # Not the candidate: what is behind a closed gate does not count.
        closing = weight.new_tensor([CLOSED, CLOSED, 0, CLOSED]).repeat_interleave(self.hidden_size).unsqueeze(1)
        weights = torch.cat([weight, closing], 1), self.from_hidden.weight, bias, torch.zeros_like(bias)
        # Joined with time as the first axis, which it is in memory.
        seen_too = torch.cat([xs.transpose(0, 1), between.t().unsqueeze(-1).to(xs.dtype)], -1).transpose(0, 1)
        return run_kernel(torch.lstm, seen_too, self.initial_state(len(xs)), weights)[0]

    def prefers_whole(self, work: Workload) -> bool:
        """Whether torch's kernel is faster than the compiled loop.

        Args:
            work: what is to be done.

        Returns:
            What measurements say.
        """
        return prefers_lstm_kernel(self.hidden_size, work)

    @classmethod
    def from_torch(cls, source: nn.RNNBase) -> LSTM:
        """The cell with the weights of a one-layer `torch.nn.LSTM`; its two biases are added.

        Args:
            source: a `torch.nn.LSTM` of one layer, one direction, no projection.

        Returns:
            A cell that computes the same, to rounding.
        """
        from_input, from_hidden, bias, second_bias = read_layer(source, nn.LSTM)
        cell = cls(source.input_size, source.hidden_size).to(from_input)
        with torch.no_grad():
            cell.from_input.weight.copy_(from_input)
            cell.from_input.bias.copy_(bias + second_bias)
            cell.from_hidden.weight.copy_(from_hidden)
        return cell

    def to_torch(self) -> nn.LSTM:
        """A `torch.nn.LSTM` (batch first) with these weights; the second bias is zero.

        Returns:
            A new layer that computes the same, to rounding.
        """
        weight, bias = self.from_input.weight, self.from_input.bias
        layer = nn.LSTM(self.input_size, self.hidden_size, batch_first=True).to(weight)
        return write_layer(layer, (weight, self.from_hidden.weight, bias, torch.zeros_like(bias)))
