"""A recurrence that is several layers deep within one step of time."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unrolled.core.errors import ConfigurationError
from unrolled.nn.cell import Cell, HiddenState, RecurrentMask, seen
from unrolled.nn.start import shift_bias, start_input, start_recurrent


class RecurrentHighway(Cell):
    """The recurrent highway network (Zilly et al. 2017, equations 7–9, with the coupled carry gate 1 - transform).

    For each micro-layer l of `depth`, with s = h before the first and h' = s after the last::

        candidate = tanh(U_c x + W_c^l s + b_c^l)          the input enters at the first micro-layer only
        transform = σ(U_t x + W_t^l s + b_t^l)
        s         = transform ∘ candidate + (1 - transform) ∘ s

    `from_input` holds U and the first b, `from_hidden[l]` holds W^l (and b^l above the first), all in the order
    candidate, transform. Transform gates begin nearly closed.
    """

    def __init__(self, input_size: int, hidden_size: int, *, depth: int = 3, transform_bias: float = -2.0) -> None:
        """Make the cell.

        Args:
            input_size: features of the input.
            hidden_size: features of the state.
            depth: micro-layers within a step.
            transform_bias: the bias of the transform gates at the start.

        Raises:
            ConfigurationError: no micro-layer at all.
        """
        super().__init__()
        if depth < 1:
            raise ConfigurationError(f"`depth` must be at least 1 micro-layer, got {depth}")
        self.input_size, self.hidden_size = input_size, hidden_size
        self.from_input = nn.Linear(input_size, 2 * hidden_size)
        layers = [nn.Linear(hidden_size, 2 * hidden_size, bias=layer > 0) for layer in range(depth)]
        self.from_hidden = nn.ModuleList(layers)
        start_input(self.from_input, hidden_size)
        shift_bias(self.from_input.bias, 1, hidden_size, transform_bias)
        for products in layers:
            start_recurrent(products, hidden_size)
            if products.bias is not None:
                shift_bias(products.bias, 1, hidden_size, transform_bias)

    def step(
        self, x: Float[Tensor, "batch input"], state: HiddenState, fixed: RecurrentMask | None = None
    ) -> tuple[Float[Tensor, "batch hidden"], HiddenState]:
        """One step of time; see the equations of the class.

        Args:
            x: the step's input.
            state: the state after the step before.
            fixed: the mask of recurrent dropout, the same at every micro-layer.

        Returns:
            `h'` and the new state.
        """
        s = state.h
        for layer, products in enumerate(self.from_hidden):
            sums = products(seen(s, fixed))
            candidate, transform = (sums if layer else sums + self.from_input(x)).chunk(2, -1)
            transform = torch.sigmoid(transform)
            s = transform * torch.tanh(candidate) + (1 - transform) * s
        return s, HiddenState(s)
