"""The recurrent kernels of torch (oneDNN on a CPU, cuDNN on a GPU), called with a cell's own weights."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unrolled.nn.cell import Workload

MOST_RUNS = 4
"""How often oneDNN's LSTM is called for one batch of sequences where the compiled loop could be taken."""


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


def prefers_lstm_kernel(units: int, work: Workload) -> bool:
    """Whether oneDNN's LSTM is faster than the compiled loop: measured on a CPU (`benchmarks/lstm_ways.py`); nothing is compiled elsewhere.

    Args:
        units: the hidden size.
        work: what is to be done.

    Returns:
        Yes, but for one row or two, for wide ones, and for training in bfloat16 or where the inputs want no gradient (oneDNN computes it anyway).
    """
    wide = 1024 if work.bfloat16 else 640
    if work.runs > MOST_RUNS or (units >= 256 and work.rows <= 2) or (units >= wide and work.rows <= 32):
        return False
    if work.gradients and work.bfloat16:
        return units < 128
    if work.gradients and not work.of_inputs:
        return units < 192 and (units < 96 or work.rows < 96)
    return True


@contextlib.contextmanager
def _surroundings(device: torch.device) -> Iterator[None]:
    if device.type == "cpu" and torch.is_autocast_enabled("cpu") and not _has_kernel(torch.get_autocast_dtype("cpu")):
        with torch.autocast("cpu", enabled=False):
            yield
    elif device.type == "cuda":
        with warnings.catch_warnings():
            # cuDNN gathers the weights at every call, as they are parameters of a cell; its advice is for `torch.nn`.
            warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")
            yield
    else:
        yield


def _has_kernel(dtype: torch.dtype) -> bool:
    """On a CPU without its instructions oneDNN has no LSTM of this type and raises, where a matrix product would only be slow."""
    name = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}.get(dtype)
    known = None if name is None else getattr(torch.ops.mkldnn, name, None)  # absent in a build without oneDNN
    return known is None or bool(known())
