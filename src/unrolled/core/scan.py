"""Running combinations in logarithmic depth: what a loop over time computes, where one step may be combined with another.

The scheme is that of Blelloch (1990): neighbours are combined in pairs, the half as long sequence is scanned in the same way, and what lies between is
combined once more. About `2 time` combinations in `2 log2 time` rounds, each a few operations on whole tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unrolled.core.batched import is_many_by_gradients

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


def linear_scan(keep: Tensor, add: Tensor, initial: Tensor, *, reverse: bool = False) -> Tensor:
    """All states of a linear recurrence of single elements, by chunks of time side by side.

    ::

        h[0] = initial,   h[t + 1] = keep[t] ∘ h[t] + add[t]
        h[T] = initial,   h[t] = keep[t] ∘ h[t + 1] + add[t]     with `reverse`

    It is the associative scan of the maps `h -> keep ∘ h + add`, but for its memory: of each chunk of time only the map as a whole is made, then the state
    at its begin (by the same function), and then its states, all chunks at once. Nothing is divided and no logarithm taken, so that a product of many `keep` that
    underflows is the zero that it should be; of `keep` above 1 in size it may overflow, where one step after the other would not.
    Backwards it is the same recurrence from the other end: kept for that are `keep` and the states.

    Args:
        keep: factors `[batch, time, …]`, real or complex.
        add: of the same shape and type.
        initial: the state before the first step, `[batch, …]`; with `reverse` the one behind the last.
        reverse: go from the end.

    Returns:
        States `[batch, time + 1, …]`, that at the begin included; differentiable any number of times, in both modes, and under `torch.vmap`.

    Example:
        >>> half, ones = torch.full((1, 3), 0.5), torch.ones(1, 3)
        >>> linear_scan(half, ones, torch.zeros(1))
        tensor([[0.0000, 1.0000, 1.5000, 1.7500]])
    """
    if torch.compiler.is_compiling():
        return by_pairs(keep, add, initial, reverse=reverse)  # which torch can look into
    if any(is_many_by_gradients(part) for part in (keep, add, initial)):
        return _one_by_one(keep, add, initial, reverse)  # `autograd.grad(…, is_grads_batched=True)` asks for no rule of a function
    states: Tensor = _LinearScan.apply(keep, add, initial, reverse)
    return states


CHUNK = 16
"""Steps that are taken one by one, all chunks of that length side by side: 3 operations of torch each, in as many levels as the time has digits to this base."""


class _LinearScan(torch.autograd.Function):
    """`linear_scan`, with the same recurrence from the other end for its gradients."""

    @staticmethod
    def forward(keep: Tensor, add: Tensor, initial: Tensor, reverse: bool) -> Tensor:
        states = add.new_empty(add.shape[0], add.shape[1] + 1, *add.shape[2:])
        states[:, -1 if reverse else 0] = initial
        _fill(states, keep, add, reverse)
        return states

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        keep, _, _, ctx.reverse = inputs
        ctx.save_for_backward(keep, output)
        ctx.save_for_forward(keep, output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        keep, states = ctx.saved_tensors
        begin, beyond = (slice(1, None), slice(None, -1)) if ctx.reverse else (slice(None, -1), slice(1, None))
        # `begin` are the states before each step, `beyond` those after it; backwards each changes places with the other.
        first = gradient[:, 0 if ctx.reverse else -1]
        of_states = linear_scan(keep.conj().resolve_conj(), gradient[:, begin], first, reverse=not ctx.reverse)
        of_add = of_states[:, beyond]
        of_keep = of_add * states[:, begin].conj() if ctx.needs_input_grad[0] else None
        return of_keep, of_add, of_states[:, -1 if ctx.reverse else 0], None

    @staticmethod
    def jvp(ctx: Any, keep_change: Tensor | None, add_change: Tensor | None, initial_change: Tensor | None, _: None) -> Tensor:
        keep, states = ctx.saved_tensors
        before = states[:, 1:] if ctx.reverse else states[:, :-1]
        change = torch.zeros_like(keep) if add_change is None else add_change
        if keep_change is not None:
            change = change + keep_change * before
        start = torch.zeros_like(keep[:, 0]) if initial_change is None else initial_change
        return linear_scan(keep, change, start, reverse=ctx.reverse)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], keep: Tensor, add: Tensor, initial: Tensor, reverse: bool) -> tuple[Tensor, int]:
        # Elements do not meet, so that what is mapped over is one axis more of them.
        moved = [
            part.unsqueeze(-1).expand(*part.shape, info.batch_size) if axis is None else part.movedim(axis, -1)
            for part, axis in zip((keep, add, initial), in_dims, strict=False)
        ]
        return linear_scan(*moved, reverse=reverse), -1


def _fill(states: Tensor, keep: Tensor, add: Tensor, reverse: bool) -> None:
    """Write all states after the one that is there, at the begin or with `reverse` at the end."""
    time = keep.shape[1]
    chunks = time // CHUNK
    if chunks < 2:
        _take_steps(states, keep, add, reverse)
        return
    span = chunks * CHUNK
    start = time - span if reverse else 0
    keeps, adds = (part[:, start : start + span].unflatten(1, (chunks, CHUNK)) for part in (keep, add))
    order = range(CHUNK)[:: -1 if reverse else 1]
    product, total = keeps[:, :, order[0]].clone(), adds[:, :, order[0]].clone()
    for step in order[1:]:
        torch.addcmul(adds[:, :, step], keeps[:, :, step], total, out=total)
        product.mul_(keeps[:, :, step])
    borders = states.new_empty(states.shape[0], chunks + 1, *states.shape[2:])
    borders[:, -1 if reverse else 0] = states[:, -1 if reverse else 0]
    _fill(borders, product, total, reverse)
    now = borders[:, 1:] if reverse else borders[:, :-1]
    after = states[:, start + (not reverse) :][:, :span].unflatten(1, (chunks, CHUNK))
    for step in order:
        now = torch.addcmul(adds[:, :, step], keeps[:, :, step], now, out=after[:, :, step])
    if span < time:
        rest = slice(None, start) if reverse else slice(span, None)
        _take_steps(states[:, : start + 1] if reverse else states[:, span:], keep[:, rest], add[:, rest], reverse)


def _take_steps(states: Tensor, keep: Tensor, add: Tensor, reverse: bool) -> None:
    for step in range(keep.shape[1])[:: -1 if reverse else 1]:
        before, after = (step + 1, step) if reverse else (step, step + 1)
        torch.addcmul(add[:, step], keep[:, step], states[:, before], out=states[:, after])


def _one_by_one(keep: Tensor, add: Tensor, initial: Tensor, reverse: bool) -> Tensor:
    states = [initial]
    for step in range(keep.shape[1])[:: -1 if reverse else 1]:
        states.append(keep[:, step] * states[-1] + add[:, step])
    return torch.stack(states[:: -1 if reverse else 1], 1)


def by_pairs(keep: Tensor, add: Tensor, initial: Tensor, *, reverse: bool = False) -> Tensor:
    """`linear_scan` by `associative_scan`, made of torch's own operations alone.

    Args:
        keep: factors `[batch, time, …]`.
        add: of the same shape.
        initial: the state before the first step.
        reverse: go from the end.

    Returns:
        States `[batch, time + 1, …]`.
    """
    products, sums = associative_scan(_one_after_the_other[reverse], (keep, add), reverse=reverse)
    parts = [initial.unsqueeze(1), products * initial.unsqueeze(1) + sums]
    return torch.cat(parts[:: -1 if reverse else 1], 1)


def _forwards(earlier: Elements, later: Elements) -> Elements:
    return later[0] * earlier[0], later[0] * earlier[1] + later[1]


_one_after_the_other: dict[bool, Combine] = {False: _forwards, True: lambda earlier, later: _forwards(later, earlier)}
"""Maps `h -> keep ∘ h + add` in turn, by whether the later one comes first."""
