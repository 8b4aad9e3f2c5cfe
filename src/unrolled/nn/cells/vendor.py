"""The recurrent kernels of torch (oneDNN on a CPU, cuDNN on a GPU), called with a cell's own weights."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

MOST_RUNS: dict[Callable[..., Any], int] = {torch.lstm: 4, torch.gru: 0, torch.rnn_tanh: 0, torch.rnn_relu: 0}
"""How often a kernel is called for one batch of sequences where the compiled loop could be taken. oneDNN has an LSTM, which no loop of ours beats in
float32 while all rows are of one length; torch's other kernels are loops themselves. Measured on a CPU; nothing is compiled elsewhere."""

WIDE = 256
"""Units from which on an LSTM trains faster in bfloat16 by the compiled loop than by oneDNN. Measured on a CPU."""


def run_kernel(
    kernel: Callable[..., Any], xs: Float[Tensor, "batch time input"], state: Sequence[Tensor], weights: Sequence[Tensor]
) -> tuple[Float[Tensor, "batch time hidden"], list[Float[Tensor, "batch hidden"]]]:
    """Run a kernel over whole sequences, one layer in one direction.

    Args:
        kernel: `torch.lstm`, `torch.gru`, `torch.rnn_tanh` or `torch.rnn_relu`.
        xs: the inputs.
        state: the parts of the state before the first step, `[batch, hidden]` each.
        weights: input weight, recurrent weight, input bias, recurrent bias.

    Returns:
        Outputs, and the parts of the state after the last step.
    """
    # Under autocast an input or a state may come in a shorter type than the weights; the kernels take one type only.
    start = [part.to(weights[0].dtype).unsqueeze(0) for part in state]
    hidden = start if kernel is torch.lstm else start[0]
    # The flag says whether a backward pass may follow: cuDNN cannot give gradients to what it ran for inference.
    backward = torch.is_grad_enabled()
    with _surroundings(xs.device):
        outputs, *after = kernel(xs.to(weights[0].dtype), hidden, list(weights), True, 1, 0.0, backward, False, True)
    return outputs, [part[0] for part in after]


@contextlib.contextmanager
def _surroundings(device: torch.device) -> Iterator[None]:
    # On a CPU without bf16 instructions oneDNN has no bf16 LSTM and raises, where a matrix product would only be slow.
    has_bf16 = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # absent in a build without oneDNN
    if device.type == "cpu" and torch.is_autocast_enabled("cpu") and has_bf16 is not None and not has_bf16():
        with torch.autocast("cpu", enabled=False):
            yield
    elif device.type == "cuda":
        with warnings.catch_warnings():
            # cuDNN gathers the weights at every call, as they are parameters of a cell; its advice is for `torch.nn`.
            warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")
            yield
    else:
        yield
