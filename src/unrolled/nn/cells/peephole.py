"""An LSTM whose gates look at the cell state."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unrolled.nn.cell import Cell, RecurrentMask, seen
from unrolled.nn.cells.lstm import LSTMState
from unrolled.nn.start import shift_bias, start_input, start_recurrent


class PeepholeLSTM(Cell):
    """The LSTM with peepholes (Gers & Schmidhuber 2000; Graves 2013, equations 7–11).

    ::

        input     = σ(U_i x + W_i h + V_i ∘ c + b_i)
        forget    = σ(U_f x + W_f h + V_f ∘ c + b_f)
        candidate = tanh(U_c x + W_c h + b_c)
        c'        = forget ∘ c + input ∘ candidate
        output    = σ(U_o x + W_o h + V_o ∘ c' + b_o)      the output gate looks at the new cell
        h'        = output ∘ tanh(c')

    `from_input` holds U and b, `from_hidden` holds W, both in the order input, forget, candidate, output; the diagonal
    V are `input_peephole`, `forget_peephole`, `output_peephole`, zero at the start, so that it begins as a plain LSTM.
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
        self.from_input = nn.Linear(input_size, 4 * hidden_size)
        self.from_hidden = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.input_peephole = nn.Parameter(torch.zeros(hidden_size))
        self.forget_peephole = nn.Parameter(torch.zeros(hidden_size))
        self.output_peephole = nn.Parameter(torch.zeros(hidden_size))
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
        products = self.from_input(x) + self.from_hidden(seen(state.h, fixed))
        input, forget, candidate, output = products.chunk(4, -1)
        input = torch.sigmoid(input + self.input_peephole * state.c)
        forget = torch.sigmoid(forget + self.forget_peephole * state.c)
        c = forget * state.c + input * torch.tanh(candidate)
        output = torch.sigmoid(output + self.output_peephole * c)
        h = output * torch.tanh(c)
        return h, LSTMState(h, c)
