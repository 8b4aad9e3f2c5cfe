"""The smallest gated cell: one gate."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unrolled.nn.cell import Cell, HiddenState, RecurrentMask, seen
from unrolled.nn.start import shift_bias, start_input, start_recurrent


class MinimalGatedUnit(Cell):
    """One gate that both resets and updates (Zhou et al. 2016, equation 8).

    ::

        forget    = σ(U_f x + W_f h + b_f)
        candidate = tanh(U_h x + W_h (forget ∘ h) + b_h)
        h'        = (1 - forget) ∘ h + forget ∘ candidate

    `from_input` holds U and b in the order forget, candidate; W_f is `forget_from_hidden`, W_h `candidate_from_hidden`.
    """

    def __init__(self, input_size: int, hidden_size: int, *, forget_bias: float = 0.0) -> None:
        """Make the cell.

        Args:
            input_size: features of the input.
            hidden_size: features of the state.
            forget_bias: the bias of the gate at the start; here a *low* one makes for a long memory.
        """
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.from_input = nn.Linear(input_size, 2 * hidden_size)
        self.forget_from_hidden = nn.Linear(hidden_size, hidden_size, bias=False)
        self.candidate_from_hidden = nn.Linear(hidden_size, hidden_size, bias=False)
        start_input(self.from_input, hidden_size)
        start_recurrent(self.forget_from_hidden, hidden_size)
        start_recurrent(self.candidate_from_hidden, hidden_size)
        shift_bias(self.from_input.bias, 0, hidden_size, forget_bias)

    def step(
        self, x: Float[Tensor, "batch input"], state: HiddenState, fixed: RecurrentMask | None = None
    ) -> tuple[Float[Tensor, "batch hidden"], HiddenState]:
        """One step of time; see the equations of the class.

        Args:
            x: the step's input.
            state: the state after the step before.
            fixed: the mask of recurrent dropout.

        Returns:
            `h'` and the new state.
        """
        h = seen(state.h, fixed)
        forget, candidate = self.from_input(x).chunk(2, -1)
        forget = torch.sigmoid(forget + self.forget_from_hidden(h))
        candidate = torch.tanh(candidate + self.candidate_from_hidden(forget * h))
        new = (1 - forget) * state.h + forget * candidate
        return new, HiddenState(new)
