"""Densities and moments of Gaussian outputs in C++ (`gaussian.cpp`), where nothing is missing: what `moments.py` computes, with everything in registers."""

from __future__ import annotations

import ctypes
import functools
from importlib.resources import files

import torch
from torch import Tensor

from unrolled.kernels.compiler import NoCompiler, system_compiler

WIDEST = 16
"""Features up to which these kernels are faster than products of matrices."""


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels, built at the first call.

    Returns:
        `None` where there is no compiler.
    """
    source = (files("unrolled.ssm.hmm.emissions") / "gaussian.cpp").read_text(encoding="utf-8")
    try:
        built = system_compiler().load(source)
    except NoCompiler:
        return None
    pointer, whole, small = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
    built.gaussian_scores.argtypes = [pointer] * 5 + [whole] * 3 + [small] * 2
    built.gaussian_moments.argtypes = [pointer] * 4 + [whole] * 3 + [small] * 2
    built.gaussian_scores.restype = built.gaussian_moments.restype = None
    return built


def takes(*tensors: Tensor) -> bool:
    """Whether the kernels can be used: float64 on a CPU, few features, no gradients wanted, and a compiler.

    Args:
        tensors: what is given, the first with the features as its last axis.

    Returns:
        True if so.
    """
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    plain = all(tensor.device.type == "cpu" and tensor.dtype == torch.float64 for tensor in tensors)
    return plain and not wanted and 0 < tensors[0].shape[-1] <= WIDEST and library() is not None


def compiled_scores(values: Tensor, means: Tensor, whitening: Tensor, constants: Tensor) -> Tensor:
    """`constant - ½ |W (y - μ)|²` for each row and state.

    Args:
        values: `[rows, features]`.
        means: `[states, features]`.
        whitening: lower triangular `[states, features, features]`, or `[states, features]` for independent features.
        constants: `[states]`.

    Returns:
        `[rows, states]`.
    """
    K, D = means.shape
    found = torch.empty(len(values), K, dtype=torch.float64)
    full = whitening.dim() > 2
    inside = whitening.permute(1, 2, 0) if full else whitening.T
    inputs = [part.detach().contiguous() for part in (values, means.T, inside, constants)]
    built = library()
    assert built is not None
    built.gaussian_scores(*[part.data_ptr() for part in inputs], found.data_ptr(), len(values), K, D, int(full), torch.get_num_threads())
    return found


def compiled_moments(values: Tensor, weights: Tensor, means: Tensor, *, full: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted sums of one, of differences from the means, and of their products.

    Args:
        values: `[rows, features]`.
        weights: `[rows, states]`.
        means: `[states, features]`.
        full: whether products of different features are wanted.

    Returns:
        `[states]`, `[states, features]`, and `[states, features]` or `[states, features, features]`.
    """
    K, D = means.shape
    sums = torch.zeros(1 + D + (D * D if full else D), K, dtype=torch.float64)
    inputs = [part.detach().contiguous() for part in (values, means.T, weights)]
    built = library()
    assert built is not None
    built.gaussian_moments(*[part.data_ptr() for part in inputs], sums.data_ptr(), len(values), K, D, int(full), torch.get_num_threads())
    first, second = sums[1 : 1 + D].T, sums[1 + D :].T
    if full:
        lower = second.reshape(K, D, D)
        second = lower + lower.tril(-1).transpose(1, 2)
    return sums[0], first, second
