"""Tensors that stand for many at once, under `torch.vmap` and in batched gradients: torch tells them apart by names of its own only."""

from __future__ import annotations

from torch import Tensor

try:
    from torch._C._functorch import is_batchedtensor, is_legacy_batchedtensor
except ImportError:  # names of torch's own may go; what is fast then takes every tensor for a single one

    def is_batchedtensor(tensor: Tensor) -> bool:  # noqa: D103
        return False

    def is_legacy_batchedtensor(tensor: Tensor) -> bool:  # noqa: D103
        return False


def is_many(tensor: Tensor) -> bool:
    """Whether a tensor stands for many, in either way.

    Args:
        tensor: any.

    Returns:
        True for one that only torch's own operations understand.
    """
    return is_batchedtensor(tensor) or is_legacy_batchedtensor(tensor)


def is_many_by_gradients(tensor: Tensor) -> bool:
    """Whether `torch.autograd.grad(…, is_grads_batched=True)` made it, which asks for no rule of a function of one's own.

    Args:
        tensor: any.

    Returns:
        False under `torch.vmap`.
    """
    return is_legacy_batchedtensor(tensor)
