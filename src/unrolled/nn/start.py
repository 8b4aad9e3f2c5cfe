"""How the weights of a recurrent cell begin."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


@torch.no_grad()
def start_recurrent(products: nn.Linear, hidden_size: int) -> None:
    """Orthogonal start for every square block of a state's product (Saxe et al. 2014; Le et al. 2015 for its use in RNNs).

    Args:
        products: weight `[gates * hidden, hidden]`, one block a gate.
        hidden_size: the size of a block.
    """
    for block in products.weight.split(hidden_size):
        nn.init.orthogonal_(block)
    if products.bias is not None:
        nn.init.zeros_(products.bias)


@torch.no_grad()
def start_input(products: nn.Linear, hidden_size: int) -> None:
    """Uniform in ±1/√hidden, as `torch.nn` starts its recurrent layers; biases at zero.

    Args:
        products: weight `[gates * hidden, input]`.
        hidden_size: sets the range.
    """
    bound = 1 / math.sqrt(hidden_size)
    nn.init.uniform_(products.weight, -bound, bound)
    if products.bias is not None:
        nn.init.zeros_(products.bias)


@torch.no_grad()
def shift_bias(bias: Tensor, gate: int, hidden_size: int, value: float) -> None:
    """Set the bias of one gate, such as the forget gate at 1 (Gers et al. 2000; Jozefowicz et al. 2015).

    Args:
        bias: `[gates * hidden]`.
        gate: which block.
        hidden_size: the size of a block.
        value: the bias at the start.
    """
    bias[gate * hidden_size : (gate + 1) * hidden_size].fill_(value)
