"""How operations of torch are taken apart before they are translated: torch's own ways, and a few that suit us better."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten


@functools.cache
def decompositions() -> dict[Any, Callable[..., Any]]:
    """The table that a trace is made with.

    Returns:
        Functions by operation.
    """
    # Imported here: it takes a while, which only those wait for who trace.
    from torch._decomp import core_aten_decompositions, get_decompositions

    apart = [
        *(aten.native_layer_norm, aten.native_layer_norm_backward, aten.native_group_norm, aten.native_group_norm_backward),
        *(aten._softmax, aten._softmax_backward_data, aten._log_softmax, aten._log_softmax_backward_data),
        *(aten.gelu, aten.gelu_backward, aten.elu, aten.elu_backward, aten.leaky_relu, aten.leaky_relu_backward),
        *(aten.hardtanh, aten.hardtanh_backward, aten.linalg_vector_norm),
    ]
    # What only moves columns is translated as it is.
    table = {
        operation: way
        for operation, way in core_aten_decompositions().items()
        if operation not in (aten.roll.default, aten.select_scatter.default)
    }
    return {**table, **get_decompositions(apart), **OWN}


class PlainProducts(TorchFunctionMode):
    """While a step is traced: what torch would make of all rows at once, merging the batch with other axes, is done axis by axis."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Take a call apart.

        Args:
            func: of torch.
            types: unused.
            args: positional arguments.
            kwargs: arguments by name.

        Returns:
            Its result.
        """
        if func in PRODUCTS and not kwargs and isinstance(args[0], Tensor) and args[0].dim() > 2 and args[1].dim() == 2:
            parts = [func(part, *args[1:]) for part in args[0].flatten(1, -2).unbind(1)]
            return torch.stack(parts, 1).unflatten(1, args[0].shape[1:-1])
        if func in (torch.cumsum, Tensor.cumsum) and args[0].dim() == 2 and (args[1:] or (kwargs or {}).get("dim")) in ((1,), (-1,), 1, -1):
            return args[0] @ args[0].new_ones(args[0].shape[1], args[0].shape[1]).triu()
        return func(*args, **(kwargs or {}))


PRODUCTS = (torch.nn.functional.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__)
"""Products of all but the last axis with a matrix."""


def _variance_and_mean(
    x: Tensor, dim: list[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    axes = list(range(x.dim())) if dim is None else dim
    mean = x.mean(axes, keepdim=True)
    count = math.prod(x.shape[axis] for axis in axes)
    total = (x - mean).square().sum(axes, keepdim=keepdim)
    return total / (count - (1 if correction is None else correction)), mean if keepdim else x.mean(axes)


def _variance(x: Tensor, dim: list[int] | None = None, *, correction: float | None = None, keepdim: bool = False) -> Tensor:
    return _variance_and_mean(x, dim, correction=correction, keepdim=keepdim)[0]


def _between(start: Tensor, end: Tensor, weight: Any) -> Tensor:
    return start + weight * (end - start)


def _sinh(x: Tensor) -> Tensor:
    # Exact near zero, where two exponentials would cancel.
    grown = torch.expm1(x)
    return (grown + grown / (grown + 1)) / 2


OWN: dict[Any, Callable[..., Any]] = {
    aten.var.correction: _variance,
    aten.var_mean.correction: _variance_and_mean,
    aten.lerp.Tensor: _between,
    aten.lerp.Scalar: _between,
    aten.mv.default: lambda matrix, vector: torch.mm(matrix, vector.unsqueeze(1)).squeeze(1),
    aten.exp2.default: lambda x: torch.exp(x * math.log(2)),
    aten.log2.default: lambda x: torch.log(x) / math.log(2),
    aten.log10.default: lambda x: torch.log(x) / math.log(10),
    aten.sinh.default: _sinh,
    aten.cosh.default: lambda x: (torch.exp(x) + torch.exp(-x)) / 2,
    aten.tan.default: lambda x: torch.sin(x) / torch.cos(x),
    aten.hardshrink_backward.default: lambda gradient, x, bound: torch.where(x.abs() <= bound, 0.0, gradient),
    aten.softshrink_backward.default: lambda gradient, x, bound: torch.where(x.abs() <= bound, 0.0, gradient),
}
"""Ways of our own, by operation."""
