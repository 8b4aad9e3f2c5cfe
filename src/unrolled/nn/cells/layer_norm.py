"""An LSTM with layer normalisation inside the step."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unrolled.nn.cell import Cell, RecurrentMask, seen
from unrolled.nn.cells.lstm import LSTMState
from unrolled.nn.start import shift_bias, start_input, start_recurrent


class LayerNormLSTM(Cell):
    """The LSTM with layer normalisation (Ba et al. 2016, equations 20–22 of the supplementary material).

    ::

        products = LN_x(U x) + LN_h(W h) + b               split into input, forget, candidate, output
        c'       = σ(forget) ∘ c + σ(input) ∘ tanh(candidate)
        h'       = σ(output) ∘ tanh(LN_c(c'))

    LN_x and LN_h run over all four gates at once and have gains of their own; their biases are one with b, which
    changes nothing. LN_c has a gain and a bias; `c'` itself stays as it is. `from_input` holds U, `from_hidden` W.
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
        self.from_input = nn.Linear(input_size, 4 * hidden_size, bias=False)
        self.from_hidden = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(4 * hidden_size))
        self.norm_input = nn.LayerNorm(4 * hidden_size, bias=False)
        self.norm_hidden = nn.LayerNorm(4 * hidden_size, bias=False)
        self.norm_cell = nn.LayerNorm(hidden_size)
        start_input(self.from_input, hidden_size)
        start_recurrent(self.from_hidden, hidden_size)
        shift_bias(self.bias, 1, hidden_size, forget_bias)

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
        products = self.norm_input(self.from_input(x)) + self.norm_hidden(self.from_hidden(seen(state.h, fixed))) + self.bias
        input, forget, candidate, output = products.chunk(4, -1)
        c = torch.sigmoid(forget) * state.c + torch.sigmoid(input) * torch.tanh(candidate)
        h = torch.sigmoid(output) * torch.tanh(self.norm_cell(c))
        return h, LSTMState(h, c)
