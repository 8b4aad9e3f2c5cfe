"""How operations of torch are taken apart before they are translated: torch's own ways, and a few that suit us better."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from unrolled.kernels.graph import Unsupported

aten = torch.ops.aten


@functools.cache
def decompositions() -> dict[Any, Callable[..., Any]]:
    """The table that a trace is made with.

    Returns:
        Functions by operation.
    """
    # Imported here: it takes a while, which only those wait for who trace.
    from torch._decomp import get_decompositions

    try:
        from torch._decomp import _core_aten_decompositions_post_autograd as core_table
    except ImportError:  # another version of torch: the same, and a slow import with it
        from torch._decomp import core_aten_decompositions as core_table

    apart = [
        *(aten.native_layer_norm, aten.native_layer_norm_backward, aten.native_group_norm, aten.native_group_norm_backward),
        *(aten._softmax, aten._softmax_backward_data, aten._log_softmax, aten._log_softmax_backward_data),
        *(aten.gelu, aten.gelu_backward, aten.elu, aten.elu_backward, aten.leaky_relu, aten.leaky_relu_backward),
        *(aten.hardtanh, aten.hardtanh_backward, aten.linalg_vector_norm),
    ]
    # What only moves columns is translated as it is.
    as_it_is = {aten.roll, aten.select_scatter, aten.split, aten.stack, aten.unbind, aten.zeros, aten.ones, aten.zeros_like, aten.ones_like}
    known: dict[Any, Callable[..., Any]] = dict(core_table())
    table = {operation: way for operation, way in known.items() if operation.overloadpacket not in as_it_is}
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

        Raises:
            Unsupported: a call of which nothing is seen below.
        """
        if func in PRODUCTS and not kwargs and isinstance(args[0], Tensor) and args[0].dim() > 2 and args[1].dim() == 2:
            parts = [func(part, *args[1:]) for part in args[0].flatten(1, -2).unbind(1)]
            return torch.stack(parts, 1).unflatten(1, args[0].shape[1:-1])
        if func == Tensor.data.__set__:  # type: ignore[attr-defined]
            raise Unsupported("an assignment to `data`")
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


def _wide(way: Callable[..., Any]) -> Callable[..., Any]:
    """A function of single elements computes in single precision where its first argument is of half precision, as torch's own do."""

    @functools.wraps(way)
    def widened(x: Tensor, *rest: Any, **given: Any) -> Any:
        return way(x.to(torch.promote_types(x.dtype, torch.float32)), *rest, **given).to(x.dtype)

    return widened


@_wide
def _gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    if approximate == "tanh":
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))))
    return x * 0.5 * (1 + torch.erf(x * math.sqrt(0.5)))


@_wide
def _gelu_backward(gradient: Tensor, x: Tensor, *, approximate: str = "none") -> Tensor:
    if approximate == "tanh":
        scale = math.sqrt(2 / math.pi)
        bent = torch.tanh(scale * (x + 0.044715 * (x * x * x)))
        slope = (1 - bent * bent) * scale * (1 + 3 * 0.044715 * x * x)
        return gradient * (0.5 * (1 + bent) + 0.5 * x * slope)
    return gradient * (0.5 * (1 + torch.erf(x * math.sqrt(0.5))) + x * torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi))


def _log_sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    # The second is what torch keeps for the gradient; ours does without.
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    small = torch.exp(-wide.abs())
    return (wide.clamp(max=0) - torch.log1p(small)).to(x.dtype), small.to(x.dtype)


@_wide
def _elu(x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor:
    return torch.where(x > 0, x * scale, torch.expm1(x * input_scale) * (alpha * scale))


@_wide
def _softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    scaled = x * beta
    return torch.where(scaled > threshold, x, torch.log1p(torch.exp(scaled)) / beta)


@_wide
def _with_product(x: Tensor, first: Tensor, second: Tensor, *, value: float = 1.0) -> Tensor:
    return x + value * first * second


@_wide
def _with_quotient(x: Tensor, first: Tensor, second: Tensor, *, value: float = 1.0) -> Tensor:
    return x + value * first / second


@_wide
def _length(x: Tensor, order: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    from torch._decomp import decomposition_table

    axes = [axis % x.dim() for axis in ([dim] if isinstance(dim, int) else dim or range(x.dim()))]
    if order != 2 or dtype is not None or not axes:
        result: Tensor = decomposition_table[aten.linalg_vector_norm.default](x, order, dim, keepdim, dtype=dtype)
        return result
    if all(x.shape[axis] == 1 for axis in axes):
        return x.abs().sum(axes, keepdim)
    return x.square().sum(axes, keepdim).sqrt()


def _softmax(x: Tensor, dim: int, half_to_float: bool) -> Tensor:
    grown = torch.exp(x - x.amax(dim, keepdim=True))
    return grown / grown.sum(dim, keepdim=True)


def _softmax_backward(gradient: Tensor, result: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    passed = gradient * result
    return passed - result * passed.sum(dim, keepdim=True)


def _log_softmax(x: Tensor, dim: int, half_to_float: bool) -> Tensor:
    shifted = x - x.amax(dim, keepdim=True)
    return shifted - torch.log(torch.exp(shifted).sum(dim, keepdim=True))


def _log_softmax_backward(gradient: Tensor, result: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    return gradient - torch.exp(result) * gradient.sum(dim, keepdim=True)


def _log_sum_of_exponentials(x: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    largest = x.amax(dim, keepdim=True)
    largest = torch.where(largest.abs() == math.inf, 0, largest)
    total = torch.log(torch.exp(x - largest).sum(dim, keepdim=True)) + largest
    return total if keepdim else total.sum(dim)


def _glu(x: Tensor, dim: int = -1) -> Tensor:
    value, gate = x.split(x.shape[dim] // 2, dim)
    return value * torch.sigmoid(gate)


@_wide
def _silu_backward(gradient: Tensor, x: Tensor) -> Tensor:
    opened = torch.sigmoid(x)
    return gradient * opened * (1 + x * (1 - opened))


def _filled(value: float) -> Callable[..., Tensor]:
    def fill(x: Tensor, size: list[int], *, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: Any = None) -> Tensor:
        return torch.full(size, value, dtype=dtype or x.dtype, device=device or x.device)

    return fill


def _slice_backward(gradient: Tensor, sizes: list[int], dim: int, start: int, end: int, step: int) -> Tensor:
    return torch.slice_scatter(gradient.new_zeros(sizes), gradient, dim, start, end, step)


def _select_backward(gradient: Tensor, sizes: list[int], dim: int, index: int) -> Tensor:
    return torch.select_scatter(gradient.new_zeros(sizes), gradient, dim, index)


def _reversed_difference(x: Tensor, other: Any, alpha: float = 1) -> Tensor:
    # A minus sign would come back here.
    return torch.sub(other, x, alpha=alpha)


def _layer_norm(x: Tensor, shape: list[int], weight: Tensor | None, bias: Tensor | None, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    inner = list(range(x.dim() - len(shape), x.dim()))
    if list(x.shape[inner[0] :]) != list(shape):
        raise RuntimeError(f"layer norm over {list(shape)} of {list(x.shape)}")
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, inner, correction=0, keepdim=True)
    deviation = torch.rsqrt(variance + epsilon)
    result = (wide - mean) * deviation
    result = result if weight is None else result * weight
    result = result if bias is None else result + bias
    return result.to(x.dtype), mean.to(x.dtype), deviation.to(x.dtype)


def _layer_norm_backward(
    gradient: Tensor, x: Tensor, shape: list[int], mean: Tensor, deviation: Tensor, weight: Tensor | None, bias: Tensor | None, mask: Any
) -> tuple[Tensor | None, ...]:
    outer, inner = list(range(x.dim() - len(shape))), list(range(x.dim() - len(shape), x.dim()))
    gradient, wide = (tensor.to(torch.promote_types(x.dtype, torch.float32)) for tensor in (gradient, x))
    normal = (wide - mean) * deviation
    found: list[Tensor | None] = [None, None, None]
    if mask[0]:
        size = math.prod(shape)
        passed = gradient if weight is None else gradient * weight
        rest = passed * size - passed.sum(inner, True) - normal * (passed * normal).sum(inner, True)
        found[0] = (deviation / size * rest).to(x.dtype)
    for place, parts in ((1, gradient * normal), (2, gradient)):
        if mask[place]:
            found[place] = (parts.sum(outer) if outer else parts).to(x.dtype)
    return tuple(found)


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
    # Torch's ways of these load its compiler, which takes over a second.
    aten.sigmoid_backward.default: lambda gradient, result: gradient * (result * (1 - result)),
    aten.tanh_backward.default: lambda gradient, result: gradient * (1 - result * result),
    aten.threshold_backward.default: lambda gradient, x, threshold: torch.where(x <= threshold, 0.0, gradient),
    aten._softmax.default: _wide(_softmax),
    aten._softmax_backward_data.default: _wide(_softmax_backward),
    aten._log_softmax.default: _wide(_log_softmax),
    aten._log_softmax_backward_data.default: _wide(_log_softmax_backward),
    aten.slice_backward.default: _slice_backward,
    aten.select_backward.default: _select_backward,
    aten.rsub.Scalar: _reversed_difference,
    aten.rsub.Tensor: _reversed_difference,
    aten.new_zeros.default: _filled(0),
    aten.new_ones.default: _filled(1),
    aten.masked_fill.Scalar: lambda x, mask, value: torch.where(mask, value, x).to(x.dtype),
    aten.silu.default: _wide(lambda x: x * torch.sigmoid(x)),
    aten.silu_backward.default: _silu_backward,
    aten.sgn.default: torch.sign,
    aten.glu.default: _glu,
    aten.logsumexp.default: _wide(_log_sum_of_exponentials),
    aten.gelu.default: _gelu,
    aten.gelu_backward.default: _gelu_backward,
    aten.log_sigmoid_forward.default: _log_sigmoid,
    aten.log_sigmoid_backward.default: _wide(lambda gradient, x, _: gradient * torch.sigmoid(-x)),
    aten.elu.default: _elu,
    aten.softplus.default: _softplus,
    aten.leaky_relu.default: lambda x, slope=0.01: torch.where(x > 0, x, x * slope),
    aten.hardtanh.default: lambda x, low=-1, high=1: x.clamp(low, high),
    aten.mish.default: _wide(lambda x: x * torch.tanh(_softplus(x))),
    aten.addcmul.default: _with_product,
    aten.addcdiv.default: _with_quotient,
    aten.linalg_vector_norm.default: _length,
    aten.native_layer_norm.default: _layer_norm,
    aten.native_layer_norm_backward.default: _layer_norm_backward,
}
"""Ways of our own, by operation."""
