"""A step of time unrolled by a compiled loop, with its gradients: the entry of this package."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from unrolled.core.batched import is_many
from unrolled.core.padded import length_mask
from unrolled.core.state import State, map_state
from unrolled.kernels.compiler import NoCompiler
from unrolled.kernels.direction import Values
from unrolled.kernels.evaluate import Multiply, Size, over_time
from unrolled.kernels.graph import LoopMaker, Node, Unsupported
from unrolled.kernels.plan import Back, Plan
from unrolled.kernels.structure import Leaf, Role, Step, Structure, Unrolling, describe


class CompiledStep:
    """A step of time, unrolled by compiled loops; traced once for each structure of what it is given.

    What the step reads beside its arguments (attributes, training or evaluation) must stay as it is.
    """

    def __init__(self, step: Step, make: LoopMaker, multiply: Multiply = torch.matmul) -> None:
        """Compile nothing yet.

        Args:
            step: a pure function.
            make: a back end.
            multiply: how matrices are multiplied outside of loops.
        """
        self.step, self.make, self.multiply = step, make, multiply
        self._plans: dict[Structure, Plan | Unsupported | NoCompiler] = {}
        self._lock = threading.Lock()

    def unroll(self, given: Unrolling) -> tuple[State, State]:
        """Take all steps.

        Args:
            given: at least one row and one step.

        Returns:
            Outputs (a tree of `[batch, time, …]`, zero past a length) and the state after each row's last step.

        Raises:
            Unsupported: an operation without an equivalent, at every call.
            NoCompiler: the back end needs one.
        """
        structure, tensors = describe(given)
        with self._lock:
            if structure not in self._plans:
                try:
                    self._plans[structure] = Plan(self.step, given, structure, self.make, self.multiply)
                except (Unsupported, NoCompiler) as reason:
                    self._plans[structure] = reason
        plan = self._plans[structure]
        if isinstance(plan, Unsupported):
            raise Unsupported(*plan.args)
        if isinstance(plan, NoCompiler):
            raise NoCompiler(*plan.args)
        size = Size(tensors[0].shape[1], tensors[0].shape[0], structure.device)
        if given.lengths is not None:
            tensors.append(length_mask(given.lengths, size.time))
        if given.resets is not None:
            tensors.append(given.resets)
        with _own_precision(structure.device):
            results = _Unroll.apply(plan, size, *tensors) if plan.train else _run(plan, size, [tensor.detach() for tensor in tensors])[0]
        rest = iter(results)
        return map_state(lambda _: next(rest), plan.forward.form), map_state(lambda _: next(rest), given.state)


class _Unroll(torch.autograd.Function):
    """Outputs and last state, one tensor each, with gradients by the backward direction."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, size: Size, *tensors: Tensor) -> tuple[Tensor, ...]:
        results, stored = _run(plan, size, tensors)
        ctx.plan, ctx.size = plan, size
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*[result for result in results if not result.dtype.is_floating_point])
        ctx.save_for_backward(*tensors, *stored)
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        plan: Plan = ctx.plan
        saved = ctx.saved_tensors
        special = torch.is_grad_enabled() or any(gradient is not None and is_many(gradient) for gradient in gradients)
        back = None if special else plan.backward(tuple(gradient is not None for gradient in gradients[: len(plan.forward.outputs)]))
        if back is None:
            return None, None, *_by_plain_loop(plan, ctx.size, saved[: len(plan.structure.leaves)], gradients)
        with _own_precision(ctx.size.device):
            found = _run_back(plan, back, ctx.size, saved, gradients)
        return None, None, *[gradient if wanted else None for gradient, wanted in zip(found, ctx.needs_input_grad[2:], strict=True)]


def _run(plan: Plan, size: Size, tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and last state, and what is stored for the backward direction."""
    forward, leaves = plan.forward, plan.structure.leaves
    values = _leaf_values(plan, plan.ahead.leaves, tensors, size)
    initial = [tensor.reshape(size.batch, -1) for tensor in plan.state(tensors)]
    results, finals = plan.ahead.run(values, initial, size)
    count = len(forward.outputs)
    values.update(zip(plan.stored, results[count:], strict=True))
    outputs = []
    for node, rows, shape in zip(forward.outputs, results, forward.shapes, strict=False):
        own = over_time(rows, size)
        own = own.clone() if node in forward.leaves else own  # a leaf is somebody else's
        outputs.append(own.reshape(size.time, size.batch, *shape).transpose(0, 1))
    shapes = [leaf.shape for leaf in plan.state(leaves)]
    # What is no view may be written to.
    state = [final if len(shape) == 1 else final.view(size.batch, *shape) for final, shape in zip(finals, shapes, strict=True)]
    return [*outputs, *state], [values[node] for node in plan.read if node not in plan.inputs]


def _run_back(plan: Plan, back: Back, size: Size, saved: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The gradients of all leaves, from leaves, what was stored, and the gradients of outputs and last state."""
    count = len(plan.forward.outputs)
    tensors, stored = saved[: len(plan.structure.leaves)], saved[len(plan.structure.leaves) :]
    values = _leaf_values(plan, back.direction.leaves, tensors, size)
    values.update(zip([node for node in plan.read if node not in plan.inputs], stored, strict=True))
    for node, gradient in zip(back.trace.of_outputs, gradients, strict=False):
        if node is not None and gradient is not None:
            values[node] = _time_first(gradient, size)
    initial = [
        torch.zeros(size.batch, node.width, dtype=node.dtype, device=size.device) if gradient is None else gradient.reshape(size.batch, -1)
        for node, gradient in zip(back.trace.of_after, gradients[count:], strict=True)
        if node is not None
    ]
    results, finals = back.direction.run(values, initial, size)
    found: list[Tensor | None] = [None] * len(tensors)
    for place, result in zip(back.places, results, strict=True):
        found[place] = _as_leaf(plan.structure.leaves[place], result, size)
    first = iter(finals)
    for place, leaf in enumerate(plan.structure.leaves):
        if leaf.role is Role.STATE and leaf.dtype.is_floating_point:
            found[place] = next(first).view(size.batch, *leaf.shape)
    return found


def _as_leaf(leaf: Leaf, gradient: Tensor, size: Size) -> Tensor:
    if leaf.role is Role.PARAMETER:
        return gradient.reshape(leaf.shape)
    if leaf.role is Role.INPUT:
        return over_time(gradient, size).reshape(size.time, size.batch, *leaf.shape).transpose(0, 1)
    return gradient.reshape(size.batch, *leaf.shape)


def _leaf_values(plan: Plan, needed: Iterable[Node], tensors: Sequence[Tensor], size: Size) -> Values:
    values = {}
    places = {node: place for place, node in enumerate(plan.forward.leaves)}
    for node in needed:
        if node in places:
            leaf, tensor = plan.structure.leaves[places[node]], tensors[places[node]]
            if leaf.role is Role.INPUT:
                values[node] = _time_first(tensor, size)
            elif leaf.role is Role.FIXED:
                values[node] = tensor.reshape(size.batch, -1)
            elif leaf.role is Role.PARAMETER:
                values[node] = tensor
    return values


def _time_first(tensor: Tensor, size: Size) -> Tensor:
    """From `[batch, time, …]` to `[time, batch, width]`, which is no work where it lies so."""
    return tensor.transpose(0, 1).reshape(size.time, size.batch, -1).contiguous()


def _by_plain_loop(plan: Plan, size: Size, tensors: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The gradients by the plain loop: those that may be differentiated again, or that come in many at once (`torch.vmap`)."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views, so that no gradient takes a way that leads from one leaf to another outside of the loop.
        values = [tensor.view_as(tensor) for tensor in tensors]
        results = plan.plain(values, size.time)
    pairs = zip(results, gradients, strict=True)
    through = [(result, gradient) for result, gradient in pairs if gradient is not None and result.requires_grad]
    places = [place for place, value in enumerate(values) if value.requires_grad]
    outputs, incoming = zip(*through, strict=True)
    wanted = [values[place] for place in places]
    parts = dict(zip(places, torch.autograd.grad(outputs, wanted, incoming, create_graph=again, allow_unused=True), strict=True))
    return [parts.get(place) for place in range(len(values))]


def _own_precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Types are as they are given; torch would shorten those of the products alone."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()
