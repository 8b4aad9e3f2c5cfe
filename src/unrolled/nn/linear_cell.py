"""The contract of a cell whose step is linear in its state: its coefficients, from which the step follows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from unrolled.core.state import State, map_state
from unrolled.nn.cell import Cell

Numbers = TypeVar("Numbers", bound=tuple[Tensor, ...])
"""The form of a state: `ComplexState`, or any other named tuple of tensors, whose parts are real and do not meet."""


class ComplexState(NamedTuple):
    """The state of a cell that remembers one vector of complex numbers."""

    real: Tensor
    """`[batch, hidden]`."""
    imaginary: Tensor
    """`[batch, hidden]`."""


class Coefficients(NamedTuple):
    """The step `state' = keep ∘ state + add` for every place of some inputs; both in the form of the state, without the axes that they do not depend on."""

    keep: Any
    """What each element of the state is multiplied with."""
    add: Any
    """What is added."""


class LinearCell(Cell):
    """A cell of the form ::

        state' = keep(x) ∘ state + add(x)
        output = read(state', x)

    `keep` and `add` look at the input alone, so that all steps can be computed at once: `Recurrence` does so where it does not compile the cell.
    A cell gives `coefficients`, and `read` where its output is not its state; `step` follows from them.
    """

    @abstractmethod
    def coefficients(self, xs: Tensor) -> Coefficients:
        """What the steps for some inputs do to the state. Of factors above 1 in size the products over many steps may overflow.

        Args:
            xs: `[…, input]`: one step of each row, or all steps.

        Returns:
            Tensors `[…, hidden]`, or `[hidden]` where they do not depend on the input, in the form of the state.
        """

    def read(self, states: State, xs: Tensor) -> Tensor:
        """The outputs, from the state after each step and its input.

        Args:
            states: in the form of the state, `[…, hidden]`.
            xs: `[…, input]`.

        Returns:
            `[…, output]`; the first part of the state unless a cell says otherwise.
        """
        first: Tensor = states[0]
        return first

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of time; see the equations of the class.

        Args:
            x: the step's input, `[batch, input]`.
            state: the state after the step before.

        Returns:
            The output and the new state.
        """
        keep, add = self.coefficients(x)
        after = map_state(torch.add, multiply(keep, state), add)
        return self.read(after, x), after


def multiply(left: Numbers, right: Numbers) -> Numbers:
    """Products of single elements, real or complex.

    Args:
        left: in the form of a state.
        right: of the same form.

    Returns:
        Of that form too.
    """
    form: Callable[..., Numbers] = type(right)
    if not isinstance(right, ComplexState):
        return form(*[a * b for a, b in zip(left, right, strict=True)])
    (a, b), (c, d) = left, right
    return form(a * c - b * d, a * d + b * c)
