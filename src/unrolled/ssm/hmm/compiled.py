"""Inference as C++ that is built for this processor (`forward_backward.cpp`): each sequence on a thread, in probabilities, in logarithms where needed.

Works on rows: sequences one behind the other, or with gaps between them, in one tensor without a batch axis.
"""

from __future__ import annotations

import ctypes
import functools
from importlib.resources import files
from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.core.padded import Padded
from unrolled.kernels.compiler import NoCompiler, system_compiler
from unrolled.ssm.hmm.chain import Chain
from unrolled.ssm.hmm.results import Filtered, Form, Paths, Smoothed
from unrolled.ssm.hmm.serial import filtered_of, paths_of, smoothed_of

SMALLEST = 1e-100
"""Transitions below this are watched: what comes back through them may have been too faint to be kept."""


class Places(NamedTuple):
    """Where sequences lie among rows."""

    starts: Tensor
    """The first row of each, int64 `[batch]`."""
    lengths: Tensor
    """int64 `[batch]`."""


class Flat(NamedTuple):
    """What the kernel fills; rows of no sequence stay zero."""

    filtered: Tensor
    predicted: Tensor
    evidence: Tensor
    smoothed: Tensor | None
    transitions: Tensor | None
    log_likelihood: Tensor


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels of this room, built at the first call.

    Returns:
        `None` where there is no compiler.
    """
    source = (files("unrolled.ssm.hmm") / "forward_backward.cpp").read_text(encoding="utf-8")
    try:
        built = system_compiler().load(source)
    except NoCompiler:
        return None
    pointer, whole, small = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
    built.forward_backward.argtypes = [pointer, pointer, pointer, whole, whole, whole, small, small]
    built.viterbi.argtypes = [pointer, pointer, pointer, whole, whole, whole, small]
    built.forward_backward.restype = built.viterbi.restype = None
    return built


def takes(*tensors: Tensor) -> bool:
    """Whether the kernels can be used: on a CPU, with a compiler, where nobody wants gradients.

    Args:
        tensors: what is given.

    Returns:
        True if so.
    """
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return not wanted and all(tensor.device.type == "cpu" for tensor in tensors) and library() is not None


def run_rows(chain: Chain, scores: Tensor, places: Places, *, smooth: bool = True) -> Flat:
    """Filter, and smooth, sequences that lie among rows.

    Args:
        chain: with `[rows, states, states]` where the transition varies.
        scores: `log P(y | z)`, `[rows, states]`.
        places: of the sequences.
        smooth: whether the backward half is wanted.

    Returns:
        What was computed, in float64.
    """
    N, K = scores.shape
    batch = len(places.lengths)
    initial, transition, scores = (_exact(tensor) for tensor in (chain.initial, chain.transition, scores))
    guard = bool((transition < SMALLEST).any())
    log_transition = transition.log() if guard else transition
    # Where every row belongs to a sequence, every row is written.
    fresh = torch.empty if int(places.lengths.sum()) == N else torch.zeros
    state_rows = [fresh(N, K, dtype=torch.float64) for _ in range(3 if smooth else 2)]
    counts = torch.zeros(batch, K, K, dtype=torch.float64) if smooth else None
    evidence, total = fresh(N, dtype=torch.float64), torch.zeros(batch, dtype=torch.float64)
    smoothed = state_rows[2] if smooth else None
    tensors = (initial, transition, log_transition, scores, state_rows[0], state_rows[1], evidence, smoothed, counts, total)
    stride = K * K if transition.dim() > 2 else 0
    starts, lengths = places.starts.long().contiguous(), places.lengths.long().contiguous()
    built = library()
    assert built is not None
    built.forward_backward(_pointers(tensors), starts.data_ptr(), lengths.data_ptr(), batch, K, stride, int(guard), torch.get_num_threads())
    return Flat(state_rows[0], state_rows[1], evidence, smoothed, counts, total)


def viterbi_rows(chain: Chain, scores: Tensor, places: Places) -> tuple[Tensor, Tensor]:
    """The likeliest states of sequences that lie among rows.

    Args:
        chain: with `[rows, states, states]` where the transition varies.
        scores: `log P(y | z)`, `[rows, states]`.
        places: of the sequences.

    Returns:
        The states `[rows]`, -1 in rows of no sequence, and `log P(y, z)` of each sequence.
    """
    N, K = scores.shape
    initial, transition, scores = _exact(chain.initial).log(), _exact(chain.transition).log(), _exact(scores)
    paths = torch.full((N,), -1, dtype=torch.long)
    totals = torch.zeros(len(places.lengths), dtype=torch.float64)
    stride = K * K if transition.dim() > 2 else 0
    starts, lengths = places.starts.long().contiguous(), places.lengths.long().contiguous()
    built = library()
    assert built is not None
    built.viterbi(
        _pointers((initial, transition, scores, paths, totals)),
        starts.data_ptr(),
        lengths.data_ptr(),
        len(totals),
        K,
        stride,
        torch.get_num_threads(),
    )
    return paths, totals


def _exact(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.float64).contiguous()


def _pointers(tensors: tuple[Tensor | None, ...]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*[None if tensor is None else tensor.data_ptr() for tensor in tensors])


def rows_of(chain: Chain, scores: Padded) -> tuple[Chain, Tensor, Places]:
    """A padded batch as rows with gaps.

    Args:
        chain: its matrices of steps become matrices of rows.
        scores: `[batch, time, states]`.

    Returns:
        Chain, rows and where the sequences lie.
    """
    B, T, K = scores.data.shape
    flat = Chain(chain.initial, chain.transition.reshape(-1, K, K)) if chain.varies else chain
    starts = torch.arange(B) * T
    return flat, scores.data.reshape(-1, K), Places(starts, scores.lengths)


def _run(chain: Chain, scores: Padded, *, smooth: bool) -> tuple[Flat, Filtered]:
    B, T, K = scores.data.shape
    flat = run_rows(*rows_of(chain, scores), smooth=smooth)
    shaped = (flat.filtered.view(B, T, K), flat.predicted.view(B, T, K), flat.evidence.view(B, T))
    filtered = Filtered(*shaped, flat.log_likelihood)
    if bool((flat.log_likelihood == -torch.inf).any()):
        filtered = filtered_of(*shaped, scores)
    return flat, Filtered(*(part.to(scores.data.dtype) for part in filtered))


def filter_compiled(chain: Chain, scores: Padded) -> Filtered:
    """The forward recursion in C++.

    Args:
        chain: initial state and transitions.
        scores: `log P(y_t | z_t)`.

    Returns:
        The filter's results.
    """
    return _run(chain, scores, smooth=False)[1]


def smooth_compiled(chain: Chain, scores: Padded) -> Smoothed:
    """Forward and backward in C++.

    Args:
        chain: initial state and transitions.
        scores: `log P(y_t | z_t)`.

    Returns:
        The smoother's results.
    """
    flat, filtered = _run(chain, scores, smooth=True)
    assert flat.smoothed is not None
    assert flat.transitions is not None
    dtype = scores.data.dtype
    smoothed = flat.smoothed.view(scores.data.shape).to(dtype), flat.transitions.to(dtype)
    if bool((filtered.log_likelihood == -torch.inf).any()):
        return smoothed_of(*smoothed, filtered, scores)
    return Smoothed(*smoothed, filtered)


def viterbi_compiled(chain: Chain, scores: Padded) -> Paths:
    """The likeliest sequence of states in C++.

    Args:
        chain: initial state and transitions.
        scores: `log P(y_t | z_t)`.

    Returns:
        States and scores.
    """
    states, totals = viterbi_rows(*rows_of(chain, scores))
    return paths_of(states.view(scores.data.shape[:2]), totals.to(scores.data.dtype), scores)


COMPILED = Form("compiled", filter_compiled, smooth_compiled, viterbi_compiled)
