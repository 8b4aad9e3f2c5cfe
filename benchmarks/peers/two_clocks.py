"""A cell that the package has never seen, for `kernels.py`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from unrolled.nn.cell import Cell


class Clocks(NamedTuple):
    """What is remembered quickly and what slowly."""

    quick: Tensor
    slow: Tensor


class TwoClocks(Cell):
    """A state that follows the input and one that follows it slowly, kept at unit length; each looks at the other.

    ::

        mix, rate = σ(U x + W quick + b)                       one U, W, b for each
        slow'     = normalised((1 - rate) ∘ slow + rate ∘ relu(U_s x + W_s quick + b_s))
        quick'    = mix ∘ quick + (1 - mix) ∘ tanh(U_q x + V (slow' ∘ quick) + b_q)
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.from_input = nn.Linear(input_size, 4 * hidden_size)
        self.from_quick = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.from_both = nn.Linear(hidden_size, hidden_size, bias=False)

    def initial_state(self, batch_size: int) -> Clocks:
        return Clocks(*self.zeros(2, batch_size, self.hidden_size).unbind())

    def step(self, x: Tensor, state: Clocks) -> tuple[Tensor, Clocks]:
        mix_in, rate_in, slow_in, quick_in = self.from_input(x).chunk(4, -1)
        mix_quick, rate_quick, slow_quick = self.from_quick(state.quick).chunk(3, -1)
        mix, rate = torch.sigmoid(mix_in + mix_quick), torch.sigmoid(rate_in + rate_quick)
        slow = (1 - rate) * state.slow + rate * torch.relu(slow_in + slow_quick)
        slow = slow * torch.rsqrt(slow.square().mean(-1, keepdim=True) + 1e-3)
        quick = mix * state.quick + (1 - mix) * torch.tanh(quick_in + self.from_both(slow * state.quick))
        return quick, Clocks(quick, slow)
