"""An LSTM whose input gate is what the forget gate leaves."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unrolled.nn.cell import Cell, RecurrentMask, seen
from unrolled.nn.cells.lstm import LSTMState
from unrolled.nn.start import shift_bias, start_input, start_recurrent


class CoupledLSTM(Cell):
    """The LSTM with coupled input and forget gate (CIFG in Greff et al. 2017, section III; here without peepholes).

    ::

        forget, output = σ(U x + W h + b)            one U, W, b for each
        candidate      = tanh(U_c x + W_c h + b_c)
        c'             = forget ∘ c + (1 - forget) ∘ candidate
        h'             = output ∘ tanh(c')

    Greff et al. keep the input gate and write forget = 1 - input: the same with that gate's weights negated.
    `from_input` holds U and b, `from_hidden` holds W, both in the order forget, candidate, output.
    """

    def __init__(self, input_size: int, hidden_size: int, *, forget_bias: float = 1.0) -> None:
        """Make the cell.

        Args:
            input_size: features of the input.
            hidden_size: features of `h` and `c`.
            forget_bias: the bias of the forget gate at the start.
        """
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.from_input = nn.Linear(input_size, 3 * hidden_size)
        self.from_hidden = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        start_input(self.from_input, hidden_size)
        start_recurrent(self.from_hidden, hidden_size)
        shift_bias(self.from_input.bias, 0, hidden_size, forget_bias)

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
        products = self.from_input(x) + self.from_hidden(seen(state.h, fixed))
        forget, candidate, output = products.chunk(3, -1)
        forget = torch.sigmoid(forget)
        c = forget * state.c + (1 - forget) * torch.tanh(candidate)
        h = torch.sigmoid(output) * torch.tanh(c)
        return h, LSTMState(h, c)
