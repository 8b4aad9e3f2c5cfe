"""An LSTM without products of the state: linear in it, so that all steps can be taken at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from unrolled.nn.cell import HiddenState
from unrolled.nn.cells.mingru import positive_part
from unrolled.nn.linear_cell import Coefficients, LinearCell
from unrolled.nn.start import shift_bias, start_input


class MinLSTM(LinearCell):
    """The minimal LSTM with gates that sum to one (Feng et al. 2024, "Were RNNs all we needed?", section 3.2).

    ::

        forget, input = σ(U x + b)                     one U, b for each
        keep          = forget / (forget + input)
        candidate     = g(U_h x + b_h)
        h'            = keep ∘ h + (1 - keep) ∘ candidate

    `keep` is computed as σ(log forget - log input), which has a value where both gates underflow. For g see `MinGRU`.
    `from_input` holds U and b in the order forget, input, candidate.
    """

    def __init__(self, input_size: int, hidden_size: int, *, positive: bool = True, forget_bias: float = 1.0) -> None:
        """Make the cell.

        Args:
            input_size: features of the input.
            hidden_size: features of the state.
            positive: candidates are positive, as in the experiments of the paper.
            forget_bias: the bias of the forget gate at the start.
        """
        super().__init__()
        self.input_size, self.hidden_size, self.positive = input_size, hidden_size, positive
        self.from_input = nn.Linear(input_size, 3 * hidden_size)
        start_input(self.from_input, hidden_size)
        shift_bias(self.from_input.bias, 0, hidden_size, forget_bias)

    def coefficients(self, xs: Tensor) -> Coefficients:
        """`keep` and `(1 - keep) ∘ candidate`.

        Args:
            xs: the inputs of some steps.

        Returns:
            Both in the form of the state.
        """
        # Of half precision only as far as the product: a gate has to tell 0.999 from 1.
        forget, input_gate, candidate = self.from_input(xs).to(self.from_input.weight.dtype).chunk(3, -1)
        keep = torch.sigmoid(logsigmoid(forget) - logsigmoid(input_gate))
        candidate = positive_part(candidate) if self.positive else candidate
        return Coefficients(HiddenState(keep), HiddenState((1 - keep) * candidate))
