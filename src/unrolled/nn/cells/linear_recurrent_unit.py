"""A linear recurrence of complex numbers, each on its own, and a readout that is not linear."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from unrolled.core.errors import ConfigurationError
from unrolled.nn.linear_cell import Coefficients, ComplexState, LinearCell


class LinearRecurrentUnit(LinearCell):
    """The LRU (Orvieto et al. 2023, "Resurrecting Recurrent Neural Networks for Long Sequences", section 3 and appendix A).

    ::

        λ      = exp(-exp(decay) + i exp(turn))          complex, inside the unit circle whatever the parameters are
        s'     = λ ∘ s + exp(scale) ∘ (B x)              B and s complex
        y      = Re(C s') + D x
        output = (V_1 gelu(y) + b_1) ∘ σ(V_2 gelu(y) + b_2)

    The last line is what the paper puts behind each recurrence: without it layers upon each other would be one linear map. `gated=False` puts out y.
    `scale` begins at `log √(1 - |λ|²)`, so that states are of one size however long they last. The λ begin evenly spread over a ring.
    `from_input` holds Re B and Im B, `from_state` Re C and -Im C, `skip` D, `mix` V and b.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        radii: tuple[float, float] = (0.0, 1.0),
        largest_phase: float = 2 * math.pi,
        gated: bool = True,
    ) -> None:
        """Make the cell.

        Args:
            input_size: features of the input.
            hidden_size: complex numbers of the state, and features of the output.
            radii: of the ring in which λ begins; for what lasts thousands of steps such as `(0.9, 0.999)`.
            largest_phase: the angle of λ begins between 0 and this.
            gated: with the last line of the equations.

        Raises:
            ConfigurationError: no such ring, or no such angle.
        """
        super().__init__()
        if not 0 <= radii[0] < radii[1] <= 1:
            raise ConfigurationError(f"`radii` must be two numbers in 0…1 that ascend, got {radii}")
        if not 0 < largest_phase <= 2 * math.pi:
            raise ConfigurationError(f"`largest_phase` must lie in 0…2π, 0 excluded, got {largest_phase}")
        self.input_size, self.hidden_size = input_size, hidden_size
        self.decay, self.turn, self.scale = (nn.Parameter(torch.empty(hidden_size)) for _ in range(3))
        self.from_input = nn.Linear(input_size, 2 * hidden_size, bias=False)
        self.skip = nn.Linear(input_size, hidden_size, bias=False)
        self.from_state = nn.Linear(2 * hidden_size, hidden_size, bias=False)
        self.mix = nn.Linear(hidden_size, 2 * hidden_size) if gated else None
        self._start(radii, largest_phase)

    @torch.no_grad()
    def _start(self, radii: tuple[float, float], largest_phase: float) -> None:
        # At radius 0 and at radius 1 a logarithm would be infinite.
        share = torch.rand(self.hidden_size).clamp(1e-6, 1 - 1e-6)
        squares = radii[0] ** 2 + share * (radii[1] ** 2 - radii[0] ** 2)
        self.decay.copy_((-0.5 * squares.log()).log())
        self.turn.copy_((largest_phase * torch.rand(self.hidden_size).clamp(1e-6)).log())
        self.scale.copy_(0.5 * (1 - squares).log())
        nn.init.normal_(self.from_input.weight, std=1 / math.sqrt(2 * self.input_size))
        nn.init.normal_(self.skip.weight, std=1 / math.sqrt(self.input_size))
        nn.init.normal_(self.from_state.weight, std=1 / math.sqrt(self.hidden_size))

    def initial_state(self, batch_size: int) -> ComplexState:
        """Zeros.

        Args:
            batch_size: rows of the batch.

        Returns:
            The state before the first step.
        """
        return ComplexState(*self.zeros(2, batch_size, self.hidden_size).unbind())

    def coefficients(self, xs: Tensor) -> Coefficients:
        """λ, and the scaled `B x`.

        Args:
            xs: the inputs of some steps.

        Returns:
            Both in the form of the state; λ without axes for batch and time.
        """
        modulus, phase, scale = torch.exp(-torch.exp(self.decay)), torch.exp(self.turn), torch.exp(self.scale)
        real, imaginary = self.from_input(xs).to(scale.dtype).chunk(2, -1)
        keep = ComplexState(modulus * torch.cos(phase), modulus * torch.sin(phase))
        return Coefficients(keep, ComplexState(scale * real, scale * imaginary))

    def read(self, states: ComplexState, xs: Tensor) -> Tensor:
        """The readout of the equations.

        Args:
            states: after each step.
            xs: the inputs of the steps.

        Returns:
            `[…, hidden]`.
        """
        y = self.from_state(torch.cat(states, -1)) + self.skip(xs)
        if self.mix is None:
            return y
        value, gate = self.mix(gelu(y)).chunk(2, -1)
        return value * torch.sigmoid(gate)
