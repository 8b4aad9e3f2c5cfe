"""A GRU without products of the state: linear in it, so that all steps can be taken at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unrolled.nn.cell import HiddenState
from unrolled.nn.linear_cell import Coefficients, LinearCell
from unrolled.nn.start import shift_bias, start_input


class MinGRU(LinearCell):
    """The minimal GRU (Feng et al. 2024, "Were RNNs all we needed?", section 3.1).

    ::

        update    = σ(U_z x + b_z)
        candidate = g(U_h x + b_h)
        h'        = (1 - update) ∘ h + update ∘ candidate

    g(a) = a + 1/2 for a ≥ 0 and σ(a) below, as in all experiments of the paper (its appendix B). There g has to be positive because states are summed
    as logarithms, which keeps quotients of products over many steps from overflowing. The scan used here divides nothing: products of `1 - update` only
    shrink, and what underflows is forgotten. So it computes in plain numbers, safely for candidates of either sign, and a state may be any number:
    `positive=False` is the form of section 3.1, with g(a) = a. `from_input` holds U and b in the order update, candidate.
    """

    def __init__(self, input_size: int, hidden_size: int, *, positive: bool = True, update_bias: float = 0.0) -> None:
        """Make the cell.

        Args:
            input_size: features of the input.
            hidden_size: features of the state.
            positive: candidates are positive, as in the experiments of the paper.
            update_bias: the bias of the gate at the start; a low one makes for a long memory.
        """
        super().__init__()
        self.input_size, self.hidden_size, self.positive = input_size, hidden_size, positive
        self.from_input = nn.Linear(input_size, 2 * hidden_size)
        start_input(self.from_input, hidden_size)
        shift_bias(self.from_input.bias, 0, hidden_size, update_bias)

    def coefficients(self, xs: Tensor) -> Coefficients:
        """`1 - update` and `update ∘ candidate`.

        Args:
            xs: the inputs of some steps.

        Returns:
            Both in the form of the state.
        """
        # Of half precision only as far as the product: 1 - update has to tell 0.999 from 1.
        update, candidate = self.from_input(xs).to(self.from_input.weight.dtype).chunk(2, -1)
        update = torch.sigmoid(update)
        candidate = positive_part(candidate) if self.positive else candidate
        return Coefficients(HiddenState(1 - update), HiddenState(update * candidate))


def positive_part(a: Tensor) -> Tensor:
    """A positive number for any: `a + 1/2` from 0 on, `σ(a)` below (Feng et al. 2024, appendix B).

    Args:
        a: any numbers.

    Returns:
        A tensor of the same shape.
    """
    return torch.where(a >= 0, a + 0.5, torch.sigmoid(a))
