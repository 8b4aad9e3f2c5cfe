"""What every kind of attention stands on: a memory that was checked, a softmax that sees no padding, heads."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrolled.core.errors import ConfigurationError, DataError, UserError
from unrolled.core.padded import Padded, check_lengths, length_mask


def checked_memory(memory: Padded, size: int) -> tuple[Float[Tensor, "batch source feature"], Bool[Tensor, "batch source"]]:
    """A memory as attention can use it: every row has something, and nothing lies past a length.

    Args:
        memory: `[batch, source, feature]` with lengths.
        size: how many features there must be.

    Returns:
        The data, zero past a length, and where there is something.

    Raises:
        UserError: another size of features.
        DataError: lengths that do not fit, or a row of length 0.
    """
    data, lengths = memory
    if data.dim() != 3 or data.shape[2] != size:
        raise UserError(f"a memory must be [batch, source, {size}], got {list(data.shape)}")
    check_lengths(lengths, *data.shape[:2])
    empty = (lengths == 0).nonzero()
    if len(empty):
        raise DataError(f"a row to attend to must have at least one place, got length 0 in row {int(empty[0])}; leave such rows out")
    mask = length_mask(lengths.to(data.device), data.shape[1])
    # Zero times NaN is NaN: what lies past a length must not reach the average, though its weight is zero.
    return torch.where(mask.unsqueeze(-1), data, torch.zeros_like(data)), mask


def masked_softmax(scores: Tensor, mask: Bool[Tensor, ...]) -> Tensor:
    """Softmax over the last axis in at least single precision, with exactly zero where nothing may be seen.

    Args:
        scores: `[…, source]`.
        mask: true where something may be seen, broadcast to `scores`; at least one place a row.

    Returns:
        Weights of the type of `scores`.
    """
    precise = scores.to(torch.promote_types(scores.dtype, torch.float32))
    return precise.masked_fill(~mask, -torch.inf).softmax(-1).to(scores.dtype)


def split_heads(xs: Float[Tensor, "batch time dim"], heads: int) -> Float[Tensor, "batch heads time head"]:
    """Features as heads; a view.

    Args:
        xs: heads side by side.
        heads: how many.

    Returns:
        The heads apart.
    """
    return xs.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(xs: Float[Tensor, "batch heads time head"]) -> Float[Tensor, "batch time dim"]:
    """The inverse of `split_heads`.

    Args:
        xs: the heads apart.

    Returns:
        Heads side by side.
    """
    return xs.transpose(1, 2).flatten(2)


def check_heads(dim: int, heads: int) -> int:
    """Refuse heads that do not share features evenly.

    Args:
        dim: features.
        heads: how many heads share them.

    Returns:
        `heads`.

    Raises:
        ConfigurationError: a remainder, or no head.
    """
    if heads < 1 or dim % heads:
        raise ConfigurationError(f"heads must share {dim} features evenly, got {heads}; use a divisor of {dim}")
    return heads
