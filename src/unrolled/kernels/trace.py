"""Tracing a step of time, and its vector–Jacobian product, into a graph."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.core.state import State, map_state, named_leaves, where_state
from unrolled.kernels.build import Graph
from unrolled.kernels.decompose import PlainProducts
from unrolled.kernels.graph import BATCH_REDUCTIONS, Kind, Node, Unsupported, ordered
from unrolled.kernels.lower import Lowering
from unrolled.kernels.places import line_of
from unrolled.kernels.sketch import Sketching
from unrolled.kernels.structure import Leaf, Role, Step, Structure, Unrolling
from unrolled.kernels.terms import Term

BATCHES = (1_000_003, 999_983)
"""Primes that no other axis is as long as: a trace with the one tells the batch from features, one with the other that no number came from it.
The tensors of a trace have no elements, so that it costs nothing."""


class Forward(NamedTuple):
    """A step, traced."""

    leaves: tuple[Node, ...]
    """As in the structure."""
    outputs: tuple[Node, ...]
    shapes: tuple[tuple[int, ...], ...]
    """Of the outputs, behind the batch."""
    after: tuple[Node, ...]
    """The new state, in the order of its leaves."""
    form: State
    """A tree of the form of the output."""


class Backward(NamedTuple):
    """The vector–Jacobian product of a step, traced."""

    of_outputs: tuple[Node | None, ...]
    """Leaves: the gradients that come in for the outputs; `None` where none does."""
    of_after: tuple[Node | None, ...]
    """Leaves: those that come in for the new state; `None` for a part without gradient."""
    gradients: tuple[Node | None, ...]
    """As the leaves in the structure; `None` where there is none."""


class Tracer:
    """Traces one step of one structure, into one graph."""

    def __init__(self, step: Step, given: Unrolling, structure: Structure, *, changing: Collection[Role] = (Role.STATE,)) -> None:
        """Get ready to trace.

        Args:
            step: a pure function.
            given: an example of what it is unrolled over.
            structure: of `given`.
            changing: what is not known before the loop; products with it stay apart from those with what is.

        Raises:
            Unsupported: an axis that is as long as what stands for the batch.
        """
        self.step, self.structure, self.graph = step, structure, Graph()
        restart = given.restart if structure.resets else None
        self.forms = [map_state(_nothing, tree) for tree in (given.inputs, given.state, given.fixed, restart, dict(given.parameters))]
        self.train = any(leaf.gradient for leaf in structure.leaves)
        if any(size in BATCHES for leaf in structure.leaves for size in leaf.shape):
            raise Unsupported(f"an axis of length {' or '.join(map(str, BATCHES))}")
        self.leaves = tuple(
            self.graph.leaf(f"{leaf.role.value} {place}", *_axes(leaf), leaf.dtype, carried=leaf.role in changing)
            for place, leaf in enumerate(structure.leaves)
        )
        for leaf in structure.leaves:
            if leaf.role is not Role.PARAMETER and 0 in leaf.shape:
                raise Unsupported(f"{WORDS[leaf.role]} without features")
            if leaf.role is not Role.PARAMETER and not (leaf.dtype.is_floating_point or leaf.dtype == torch.bool):
                raise Unsupported(f"{WORDS[leaf.role]} of type {leaf.dtype} (numbers are of a floating type)")

    def forward(self) -> Forward:
        """Trace the step.

        Returns:
            The graph of the step.

        Raises:
            Unsupported: an operation without an equivalent, or a result that depends on the number of rows.
        """
        drawn = random.getstate()
        try:
            first, second = (self._forward(batch) for batch in BATCHES)
        finally:
            # What a step drew of Python's random numbers is drawn again by the plain loop.
            random.setstate(drawn)
        if any(node.operation in BATCH_REDUCTIONS for node in ordered([*first.outputs, *first.after])):
            raise Unsupported("a sum over the rows of the batch")
        if first[:-1] != second[:-1]:
            raise Unsupported("a result that depends on the number of rows, or is another one each time")
        return first

    def backward(self, forward: Forward, present: Sequence[bool]) -> Backward:
        """Trace the vector–Jacobian product, into the graph of the step.

        Args:
            forward: the step.
            present: for each output, whether a gradient comes in.

        Returns:
            The gradients.
        """
        results = [*zip(forward.outputs, forward.shapes, present, strict=True)]
        results += [(node, leaf.shape, True) for node, leaf in zip(forward.after, self._state, strict=True)]
        incoming: list[Term | None] = []
        for place, (node, shape, comes) in enumerate(results):
            carried = place >= len(forward.outputs)
            leaf = self.graph.leaf(f"gradient {place}", Kind.ROWS, node.shape, node.dtype, carried=carried)
            incoming.append(Term(leaf, (BATCHES[0], *shape)) if comes and node.dtype.is_floating_point else None)
        needing: list[int] = []

        def gradients(*tensors: Tensor) -> list[Tensor | None]:
            values = self._values(tensors)
            given = iter(tensors[len(values) :])
            pairs = [(result, next(given)) for result, term in zip(self.take_step(values)[0], incoming, strict=True) if term is not None]
            needing[:] = [place for place, value in enumerate(values) if value.requires_grad]
            through = [pair for pair in pairs if pair[0].requires_grad]
            if not through:
                return [None] * len(needing)
            outputs, cotangents = zip(*through, strict=True)
            return list(torch.autograd.grad(_Begin.apply(cotangents, *outputs), [values[place] for place in needing], allow_unused=True))

        terms = self._trace(gradients, [*self._terms(BATCHES[0]), *[term for term in incoming if term is not None]])
        by_place = dict(zip(needing, terms, strict=True))
        found = [by_place.get(place) for place in range(len(self.leaves))]
        leaves = [None if term is None else term.node for term in incoming]
        count = len(forward.outputs)
        return Backward(tuple(leaves[:count]), tuple(leaves[count:]), tuple(None if term is None else _straight(term) for term in found))

    def take_step(self, values: Sequence[Tensor]) -> tuple[list[Tensor], State]:
        """What happens at one step, lengths and resets included.

        Args:
            values: of all leaves, `[batch, …]` or a parameter.

        Returns:
            The leaves of output and new state in a row, and the output.
        """
        rest = iter(values)
        x, state, fixed, restart, parameters = (map_state(lambda _: next(rest), form) for form in self.forms)
        alive = next(rest) if self.structure.lengths else None
        if alive is not None:
            x = where_state(alive, x, map_state(torch.zeros_like, x))
        if self.structure.resets:
            state = where_state(next(rest), restart, state)
        output, after = self.step(x, state, fixed, parameters)
        if alive is not None:
            after = where_state(alive, after, state)
            output = where_state(alive, output, map_state(torch.zeros_like, output))
        # By name: a dictionary may come back in another order.
        after = map_state(lambda _, new: new, state, after)
        return [leaf for tree in (output, after) for _, leaf in named_leaves(tree)], output

    @property
    def _state(self) -> list[Leaf]:
        return [leaf for leaf in self.structure.leaves if leaf.role is Role.STATE]

    def _forward(self, batch: int) -> Forward:
        trees: list[State] = []

        def results(*tensors: Tensor) -> list[Tensor]:
            flat, output = self.take_step(self._values(tensors))
            trees.append(output)
            return flat

        terms = self._trace(results, self._terms(batch))
        count = len(terms) - len(self._state)
        for term, leaf in zip(terms[count:], self._state, strict=True):
            if term.shape[1:] != leaf.shape or term.node.dtype != leaf.dtype:
                raise Unsupported(f"a state that changes from {leaf.dtype} {list(leaf.shape)} to {term.node.dtype} {list(term.shape[1:])}")
        nodes = tuple(_straight(term) for term in terms)
        if any(node.kind is Kind.SHARED for node in nodes):
            raise Unsupported("a result without a batch")
        return Forward(
            self.leaves, nodes[:count], tuple(term.shape[1:] for term in terms[:count]), nodes[count:], map_state(_nothing, trees[0])
        )

    def _terms(self, batch: int) -> list[Term]:
        shapes = [leaf.shape if leaf.role is Role.PARAMETER else (batch, *leaf.shape) for leaf in self.structure.leaves]
        return [Term(node, shape) for node, shape in zip(self.leaves, shapes, strict=True)]

    def _values(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The leaves, fit to be differentiated by; every part of the state is, since gradients pass through it from step to step."""
        needs = [
            leaf.gradient or (self.train and leaf.role is Role.STATE and leaf.dtype.is_floating_point) for leaf in self.structure.leaves
        ]
        return [tensor.detach().requires_grad_(need) for tensor, need in zip(tensors, needs, strict=False)]

    def _trace(self, function: Callable[..., list[Any]], terms: list[Term]) -> list[Any]:
        number = next((term.node.dtype for term in terms if term.is_rows and term.node.dtype.is_floating_point), torch.float32)
        sketching = Sketching(Lowering(self.graph, terms[0].shape[0], number), self.structure.device)
        with _surroundings():
            leaves = [sketching.sketch(term) for term in terms]
            try:
                with PlainProducts(), sketching:
                    results = function(*leaves)
            except Unsupported:
                raise
            except Exception as error:  # whatever a step may raise on tensors without elements; the plain loop then says what is wrong
                raise Unsupported(_reason(error)) from error
        return [sketching.term(result) for result in results]


class _Begin(torch.autograd.Function):
    """A number from which a backward pass begins with given gradients. Torch can be given them too, but then loads its compiler to look at them."""

    @staticmethod
    def forward(ctx: Any, gradients: Sequence[Tensor], *outputs: Tensor) -> Tensor:
        ctx.gradients = gradients
        return outputs[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *one: Tensor) -> tuple[Any, ...]:
        return None, *ctx.gradients


@contextlib.contextmanager
def _surroundings() -> Iterator[None]:
    """A trace does not depend on the modes that it is made under."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(device, enabled=False))
        if torch._C._autograd._top_saved_tensors_default_hooks(False) is not None:
            # What is kept is for the trace alone: a checkpoint, say, would count it among its own.
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(_unchanged, _unchanged))
        yield


def _reason(error: Exception) -> str:
    """What a step did that cannot be traced, in the words of who wrote it."""
    said = str(error).strip().partition("\n")[0]
    for name, part, words in TRACE_ERRORS:
        if type(error).__name__ == name and part in said:
            return f"{words}{line_of(error)}"
    return f"{type(error).__name__}: {said[:200]}{line_of(error)}"


WORDS = {Role.INPUT: "an input", Role.STATE: "a state", Role.FIXED: "something fixed"}

TRACE_ERRORS = (
    # What torch raises, a part of what it says then, and what it means.
    ("RuntimeError", ".numpy()", "arithmetic outside of torch"),
)


def _axes(leaf: Leaf) -> tuple[Kind, tuple[int, ...]]:
    if leaf.role is Role.PARAMETER:
        return Kind.SHARED, leaf.shape
    return Kind.ROWS, (torch.Size(leaf.shape).numel(),)


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor


def _nothing(leaf: Tensor) -> Tensor:
    return torch.empty(0)


def _straight(term: Term) -> Node:
    if term.is_rows and term.shape[0] not in BATCHES:
        raise Unsupported("a result whose batch is not in front")
    return term.node
