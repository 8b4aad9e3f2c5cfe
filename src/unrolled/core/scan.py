"""Running combinations in logarithmic depth: what a loop over time computes, where one step may be combined with another.

The scheme is that of Blelloch (1990): neighbours are combined in pairs, the half as long sequence is scanned in the same way, and what lies between is
combined once more. About `2 time` combinations in `2 log2 time` rounds, each a few operations on whole tensors.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Elements = tuple[Tensor, ...]
"""Tensors `[batch, time, …]` that are one element a step together."""
Combine = Callable[[Elements, Elements], Elements]
"""The element that stands for two in turn: called with the earlier and the later ones, of any length along axis 1."""


def associative_scan(combine: Combine, elements: Elements, *, reverse: bool = False) -> Elements:
    """The combination of the first `t` elements for every `t`, or with `reverse` of all from `t` on.

    Args:
        combine: an associative function, `combine(earlier, later)`; called on many places of axis 1 at once.
        elements: tensors that agree in batch and time, the time as axis 1.
        reverse: combine from the end; `combine` still sees the earlier first.

    Returns:
        Tensors of the same shapes: at `t` the elements `0..t` combined (`reverse`: `t..time-1`). Gradients are autograd's own.

    Example:
        >>> associative_scan(lambda earlier, later: (earlier[0] + later[0],), (torch.tensor([[1, 2, 3]]),))
        (tensor([[1, 3, 6]]),)
    """
    if reverse:
        flipped = associative_scan(lambda earlier, later: combine(later, earlier), tuple(element.flip(1) for element in elements))
        return tuple(element.flip(1) for element in flipped)
    time = elements[0].shape[1]
    if time < 2:
        return elements
    pairs = combine(tuple(element[:, :-1:2] for element in elements), tuple(element[:, 1::2] for element in elements))
    odd = associative_scan(combine, pairs)
    first = tuple(element[:, :1] for element in elements)
    if time == 2:
        return tuple(torch.cat(both, 1) for both in zip(first, odd, strict=True))
    later = tuple(element[:, 2::2] for element in elements)
    between = combine(tuple(element[:, : later[0].shape[1]] for element in odd), later)
    even = tuple(torch.cat(both, 1) for both in zip(first, between, strict=True))
    return tuple(_interleaved(*both) for both in zip(even, odd, strict=True))


def _interleaved(even: Tensor, odd: Tensor) -> Tensor:
    """Steps 0, 2, 4, … and 1, 3, 5, … in one; there may be one more of the former."""
    count = odd.shape[1]
    mixed = torch.stack((even[:, :count], odd), 2).flatten(1, 2)
    return mixed if even.shape[1] == count else torch.cat((mixed, even[:, count:]), 1)
