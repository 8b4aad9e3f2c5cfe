"""Gated recurrent units: as published, and the form of cuDNN and torch that resets after the product."""

from __future__ import annotations

from typing import NamedTuple, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unrolled.core.errors import ConfigurationError
from unrolled.nn.cell import Cell, HiddenState, RecurrentMask, Workload, seen
from unrolled.nn.cells.vendor import run_kernel
from unrolled.nn.exchange import read_layer, write_layer
from unrolled.nn.start import start_input, start_recurrent


class GateWeights(NamedTuple):
    """The weights of one gate or candidate: the product of the input, the product of the state, the bias."""

    from_input: Float[Tensor, "hidden input"]
    from_hidden: Float[Tensor, "hidden hidden"]
    bias: Float[Tensor, " hidden"]


class GRU(Cell):
    """The gated recurrent unit as published: the reset comes before the product (Cho et al. 2014, equations 5–8), `update` \
multiplies the *new* content (Chung et al. 2014, equations 4–7).

    ::

        reset, update = σ(U x + W h + b)                  one U, W, b for each
        candidate     = tanh(U_h x + W_h (reset ∘ h) + b_h)
        h'            = (1 - update) ∘ h + update ∘ candidate

    `from_input` holds U and b in the order reset, update, candidate; the W of both gates are `gates_from_hidden`, W_h is
    `candidate_from_hidden`. Weights whose gate *keeps* the old state (Cho's z) come in by `from_gates(…, keep=…)`.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        """Make the cell.

        Args:
            input_size: features of the input.
            hidden_size: features of the state.
        """
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.from_input = nn.Linear(input_size, 3 * hidden_size)
        self.gates_from_hidden = nn.Linear(hidden_size, 2 * hidden_size, bias=False)
        self.candidate_from_hidden = nn.Linear(hidden_size, hidden_size, bias=False)
        start_input(self.from_input, hidden_size)
        start_recurrent(self.gates_from_hidden, hidden_size)
        start_recurrent(self.candidate_from_hidden, hidden_size)

    def step(
        self, x: Float[Tensor, "batch input"], state: HiddenState, fixed: RecurrentMask | None = None
    ) -> tuple[Float[Tensor, "batch hidden"], HiddenState]:
        """One step of time; see the equations of the class.

        Args:
            x: the step's input.
            state: the state after the step before.
            fixed: the mask of recurrent dropout.

        Returns:
            `h'` and the new state.
        """
        h = seen(state.h, fixed)
        reset_in, update_in, candidate_in = self.from_input(x).chunk(3, -1)
        reset_hidden, update_hidden = self.gates_from_hidden(h).chunk(2, -1)
        reset, update = torch.sigmoid(reset_in + reset_hidden), torch.sigmoid(update_in + update_hidden)
        candidate = torch.tanh(candidate_in + self.candidate_from_hidden(reset * h))
        new = (1 - update) * state.h + update * candidate
        return new, HiddenState(new)

    @classmethod
    @torch.no_grad()
    def from_gates(
        cls, *, reset: GateWeights, candidate: GateWeights, update: GateWeights | None = None, keep: GateWeights | None = None
    ) -> GRU:
        """The cell with weights given gate by gate, in either convention; exact, as 1 - σ(a) = σ(-a).

        Args:
            reset: the gate before the candidate's product.
            candidate: the new content.
            update: the gate that multiplies the new content (Chung et al. 2014).
            keep: the gate that multiplies the old state (z of Cho et al. 2014, ONNX, Keras with `reset_after=False`).

        Returns:
            A cell that computes the same.

        Raises:
            ConfigurationError: both `update` and `keep`, or neither.
        """
        if keep is not None and update is None:
            update = GateWeights(*(-part for part in keep))
        elif update is None or keep is not None:
            raise ConfigurationError(
                "`from_gates` needs either `update` (multiplies the new content) or `keep` (multiplies the old state), not both"
            )
        hidden_size, input_size = reset.from_input.shape
        cell = cls(input_size, hidden_size).to(reset.from_input)
        gates = (reset, update, candidate)
        cell.from_input.weight.copy_(torch.cat([gate.from_input for gate in gates]))
        cell.from_input.bias.copy_(torch.cat([gate.bias for gate in gates]))
        cell.gates_from_hidden.weight.copy_(torch.cat([reset.from_hidden, update.from_hidden]))
        cell.candidate_from_hidden.weight.copy_(candidate.from_hidden)
        return cell

    @classmethod
    def from_torch(cls, source: nn.RNNBase) -> NoReturn:
        """Refused: only the place of the reset does not convert.

        Args:
            source: a layer that resets after the product.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            f"`GRU` resets before the matrix product and `torch.nn.{type(source).__name__}` after it, which no weights can make equal; "
            "try `ResetAfterGRU.from_torch`"
        )


class ResetAfterGRU(Cell):
    """The gated recurrent unit of cuDNN and `torch.nn.GRU`: the reset comes after the product, and the gate they call z is
    `keep`, for it keeps the *old* state.

    ::

        reset, keep = σ(U x + W h + b)                    one U, W, b for each
        candidate   = tanh(U_h x + b_h + reset ∘ (W_h h + d))
        h'          = keep ∘ h + (1 - keep) ∘ candidate

    `from_input` holds U and b, `from_hidden` holds W, both in the order reset, keep, candidate; d is `candidate_bias`.
    Weights exchange exactly with `torch.nn.GRU`, whose two biases of each gate are one here.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        """Make the cell.

        Args:
            input_size: features of the input.
            hidden_size: features of the state.
        """
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.from_input = nn.Linear(input_size, 3 * hidden_size)
        self.from_hidden = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.candidate_bias = nn.Parameter(torch.zeros(hidden_size))
        start_input(self.from_input, hidden_size)
        start_recurrent(self.from_hidden, hidden_size)

    def step(
        self, x: Float[Tensor, "batch input"], state: HiddenState, fixed: RecurrentMask | None = None
    ) -> tuple[Float[Tensor, "batch hidden"], HiddenState]:
        """One step of time; see the equations of the class.

        Args:
            x: the step's input.
            state: the state after the step before.
            fixed: the mask of recurrent dropout.

        Returns:
            `h'` and the new state.
        """
        reset_in, keep_in, candidate_in = self.from_input(x).chunk(3, -1)
        reset_hidden, keep_hidden, candidate_hidden = self.from_hidden(seen(state.h, fixed)).chunk(3, -1)
        reset, keep = torch.sigmoid(reset_in + reset_hidden), torch.sigmoid(keep_in + keep_hidden)
        candidate = torch.tanh(candidate_in + reset * (candidate_hidden + self.candidate_bias))
        new = keep * state.h + (1 - keep) * candidate
        return new, HiddenState(new)

    def whole(self, xs: Float[Tensor, "batch time input"], state: HiddenState) -> tuple[Tensor, HiddenState]:
        """The vendor kernel of torch on the same weights.

        Args:
            xs: the inputs.
            state: the state before the first step.

        Returns:
            Outputs and the last state.
        """
        outputs, after = run_kernel(torch.gru, xs, state, self._torch_weights())
        return outputs, HiddenState(*after)

    def prefers_whole(self, work: Workload) -> bool:
        """Whether torch's kernel is faster than the compiled loop.

        Args:
            work: what is to be done.

        Returns:
            No: where it is torch's own, it is a loop over the steps.
        """
        return False

    def _torch_weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        hidden_bias = nn.functional.pad(self.candidate_bias, (2 * self.hidden_size, 0))
        return self.from_input.weight, self.from_hidden.weight, self.from_input.bias, hidden_bias

    @classmethod
    def from_torch(cls, source: nn.RNNBase) -> ResetAfterGRU:
        """The cell with the weights of a one-layer `torch.nn.GRU`; the two biases of each gate are added.

        Args:
            source: a `torch.nn.GRU` of one layer, one direction.

        Returns:
            A cell that computes the same, to rounding.
        """
        from_input, from_hidden, bias, hidden_bias = read_layer(source, nn.GRU)
        cell = cls(source.input_size, source.hidden_size).to(from_input)
        gates = 2 * source.hidden_size
        with torch.no_grad():
            cell.from_input.weight.copy_(from_input)
            cell.from_hidden.weight.copy_(from_hidden)
            cell.from_input.bias.copy_(bias)
            cell.from_input.bias[:gates] += hidden_bias[:gates]
            cell.candidate_bias.copy_(hidden_bias[gates:])
        return cell

    def to_torch(self) -> nn.GRU:
        """A `torch.nn.GRU` (batch first) with these weights; the second biases of the gates are zero.

        Returns:
            A new layer that computes the same, to rounding.
        """
        layer = nn.GRU(self.input_size, self.hidden_size, batch_first=True).to(self.from_input.weight)
        return write_layer(layer, self._torch_weights())
