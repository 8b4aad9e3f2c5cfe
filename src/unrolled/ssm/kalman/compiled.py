"""The same as `loop.py` by a compiled kernel (`kernel.cpp`), in double precision on the processor; and the score of the log-likelihood.

The score is that of Koopman & Shephard (1992): derivatives come from what the smoother computes on its way back, without a graph.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unrolled.kernels.compiler import NoCompiler, system_compiler
from unrolled.ssm.kalman.entries import Entries
from unrolled.ssm.kalman.results import Filtered, Smoothed
from unrolled.ssm.kalman.system import LinearGaussian

READ = ("transition", "noise", "rows", "variances", "mean", "covariance", "diffuse", "values", "shift", "weights", "patterns", "lengths")
FILTERED = (
    "log_likelihoods",
    "predicted_means",
    "predicted_covariances",
    "predicted_diffuse",
    "means",
    "covariances",
    "diffuse_covariances",
)
SMOOTHED = ("smoothed_means", "smoothed_covariances", "lagged_covariances")
SCORE = ("to_transition", "to_noise", "to_rows", "to_variances", "to_mean", "to_covariance", "to_values", "to_shift")
ORDER = READ + FILTERED + SMOOTHED + SCORE
"""The fields of `Arrays` in `kernel.cpp`."""


MUCH_WORK = 50_000
"""From so many steps of all series on it pays to build a kernel for the number of states."""
MOST_STATES = 8
"""Of more states the loops are long enough as they are."""


@functools.cache
def kernel(states: int | None = None) -> Any | None:
    """The kernel, built at the first call.

    Args:
        states: build it for so many; for any number, if not given.

    Returns:
        The function, or `None` where there is no compiler.
    """
    known = "" if states is None else f"#define STATES {states}\n"
    try:
        library = system_compiler().load(known + (Path(__file__).parent / "kernel.cpp").read_text(encoding="utf-8"))
    except NoCompiler:
        return None
    library.run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
    library.run.restype = None
    return library.run


def can_run(system: LinearGaussian, series: Entries) -> bool:
    """Whether the kernel can take this.

    Args:
        system: the model.
        series: its outputs.

    Returns:
        True on a processor that has a compiler, for at least one step.
    """
    return series.values.device.type == "cpu" and 0 not in series.values.shape and system.states > 0 and kernel() is not None


def filter_compiled(system: LinearGaussian, series: Entries) -> Filtered:
    """The filter.

    Args:
        system: the model.
        series: its outputs, at least one step.

    Returns:
        All of `Filtered`, without a graph.
    """
    return _filtered(_run(system, series, _filter_sizes(system), back=False))


def smoother_compiled(system: LinearGaussian, series: Entries) -> Smoothed:
    """The filter, then the smoother.

    Args:
        system: the model.
        series: its outputs, at least one step.

    Returns:
        All of `Smoothed`, without a graph.
    """
    return _smoothed(_run(system, series, {"log_likelihoods": (), **_smoother_sizes(system)}, back=True))


def both_compiled(system: LinearGaussian, series: Entries) -> tuple[Filtered, Smoothed]:
    """The filter, then the smoother.

    Args:
        system: the model.
        series: its outputs, at least one step.

    Returns:
        All of `Filtered` and of `Smoothed`, without a graph.
    """
    found = _run(system, series, _filter_sizes(system) | _smoother_sizes(system), back=True)
    return _filtered(found), _smoothed(found)


def _filter_sizes(system: LinearGaussian) -> dict[str, tuple[int, ...]]:
    K = system.states
    sizes = {"log_likelihoods": (), "predicted_means": (K,), "predicted_covariances": (K, K), "means": (K,), "covariances": (K, K)}
    return sizes | ({"predicted_diffuse": (K, K), "diffuse_covariances": (K, K)} if system.rank else {})


def _smoother_sizes(system: LinearGaussian) -> dict[str, tuple[int, ...]]:
    K = system.states
    return {"smoothed_means": (K,), "smoothed_covariances": (K, K), "lagged_covariances": (K, K)}


def _filtered(found: Mapping[str, Tensor]) -> Filtered:
    given = {name: found.get(name) for name in FILTERED}
    infinite = {"predicted_diffuse": given.pop("predicted_diffuse"), "diffuse": given.pop("diffuse_covariances")}
    return Filtered(**given, **infinite)  # type: ignore[arg-type]


def _smoothed(found: Mapping[str, Tensor]) -> Smoothed:
    return Smoothed(found["log_likelihoods"].sum(1), *(found[name] for name in SMOOTHED))


def log_likelihood_compiled(system: LinearGaussian, series: Entries) -> Tensor:
    """The log-likelihood of each series.

    Args:
        system: the model.
        series: its outputs, at least one step.

    Returns:
        `[batch]`; differentiable once.
    """
    mean, covariance, diffuse = system.prior()
    given = (system.transition, system.transition_covariance, series.rows, series.variances, mean, covariance, series.values, series.shift)
    return _LogLikelihood.apply(*given, diffuse, series.patterns, series.lengths)


class _LogLikelihood(torch.autograd.Function):
    """Forward is the filter; backward runs the filter again and the smoother, which gives all derivatives."""

    @staticmethod
    def forward(ctx: Any, *given: Tensor | None) -> Tensor:
        """The filter.

        Args:
            ctx: keeps what backward needs.
            given: transition, its noise, rows, variances, prior mean and covariance, values, shift; then the diffuse part, patterns and lengths.

        Returns:
            The log-likelihoods.
        """
        ctx.save_for_backward(*given)
        values = given[6]
        assert values is not None
        told = torch.empty(values.shape[:2], dtype=torch.float64)
        _call(_named(given), {"log_likelihoods": told}, back=False)
        return told.sum(1).to(values.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor | None, ...]:
        """The score.

        Args:
            ctx: what forward kept.
            weights: the derivative by each log-likelihood.

        Returns:
            One derivative an argument.
        """
        given = ctx.saved_tensors
        found = {name: torch.zeros(one.shape, dtype=torch.float64) for name, one in zip(SCORE, given, strict=False) if one is not None}
        _call(_named(given) | {"weights": weights}, found, back=True)
        return *(found[name].to(one) if name in found else None for name, one in zip(SCORE, given, strict=False)), None, None, None


GIVEN = ("transition", "noise", "rows", "variances", "mean", "covariance", "values", "shift", "diffuse", "patterns", "lengths")


def _named(given: tuple[Tensor | None, ...]) -> dict[str, Tensor | None]:
    return dict(zip(GIVEN, given, strict=True))


def _run(system: LinearGaussian, series: Entries, sizes: Mapping[str, tuple[int, ...]], *, back: bool) -> dict[str, Tensor]:
    found = {name: torch.empty(*series.values.shape[:2], *size, dtype=torch.float64) for name, size in sizes.items()}
    mean, covariance, diffuse = system.prior()
    read = {
        "transition": system.transition,
        "noise": system.transition_covariance,
        "rows": series.rows,
        "variances": series.variances,
        "mean": mean,
        "covariance": covariance,
        "diffuse": diffuse,
        "values": series.values,
        "shift": series.shift,
        "patterns": series.patterns,
        "lengths": series.lengths,
    }
    _call(read, found, back=back)
    return {name: one.to(series.values.dtype) for name, one in found.items()}


def _call(read: Mapping[str, Tensor | None], found: Mapping[str, Tensor], *, back: bool) -> None:
    whole = ("patterns", "lengths")
    held = {
        name: one.detach().to(torch.int64 if name in whole else torch.float64).contiguous() for name, one in read.items() if one is not None
    }
    rank = int(held["diffuse"].diag().sum()) if "diffuse" in held else 0
    sizes = (*held["values"].shape[:2], len(held["mean"]), held["values"].shape[2], len(held["rows"]), rank)
    arrays = held | dict(found)
    pointers = (ctypes.c_void_p * len(ORDER))(*[arrays[name].data_ptr() if name in arrays else None for name in ORDER])
    run = kernel(sizes[2] if sizes[0] * sizes[1] >= MUCH_WORK and sizes[2] <= MOST_STATES else None)
    assert run is not None
    run(pointers, (ctypes.c_long * len(sizes))(*sizes), int(back), torch.get_num_threads())
