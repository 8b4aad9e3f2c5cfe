"""Parts of a structural time-series model (Harvey 1989; Durbin & Koopman 2012, ch. 3): each a small state of its own; their outputs add up."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrolled.core.errors import ConfigurationError
from unrolled.ssm.kalman.parametrise import CORRELATION, INVERTIBLE, POSITIVE, REAL, STATIONARY, Kind


class Block(NamedTuple):
    """What a component adds to the system."""

    transition: Float[Tensor, "state state"]
    covariance: Float[Tensor, "state state"]
    emission: Float[Tensor, " state"]
    initial_covariance: Float[Tensor, "state state"]
    diffuse: Bool[Tensor, " state"]


@dataclass(frozen=True)
class Component(ABC):
    """A part of a structural model. `+` puts parts together."""

    @abstractmethod
    def parameters(self) -> dict[str, tuple[Kind, int]]:
        """What is to be fitted.

        Returns:
            By name: how the numbers are bound, and how many there are.
        """

    @abstractmethod
    def block(self, values: Mapping[str, Tensor]) -> Block:
        """The component's own state.

        Args:
            values: by the names of `parameters`, `[count]` each.

        Returns:
            Its matrices; differentiable.
        """

    def __add__(self, other: Component | tuple[Component, ...]) -> tuple[Component, ...]:
        return (self, *(other if isinstance(other, tuple) else (other,)))

    def __radd__(self, other: tuple[Component, ...]) -> tuple[Component, ...]:
        return (*other, self)


@dataclass(frozen=True)
class LocalLevel(Component):
    """A level that wanders: `level' = level + η`."""

    def parameters(self) -> dict[str, tuple[Kind, int]]:
        """The variance of `η`."""
        return {"level": (POSITIVE, 1)}

    def block(self, values: Mapping[str, Tensor]) -> Block:
        """One state."""
        return _diffuse(torch.ones(1, 1), values["level"], [1.0])


@dataclass(frozen=True)
class LocalTrend(Component):
    """A level with a slope that wanders: `level' = level + slope + η`, `slope' = damping · slope + ζ`."""

    damped: bool = False
    """Whether the slope fades."""
    smooth: bool = False
    """Whether the level has no noise of its own: the integrated random walk."""

    def parameters(self) -> dict[str, tuple[Kind, int]]:
        """The variances of `η` and `ζ`, and the damping."""
        level: dict[str, tuple[Kind, int]] = {} if self.smooth else {"level": (POSITIVE, 1)}
        return level | {"slope": (POSITIVE, 1)} | ({"damping": (CORRELATION, 1)} if self.damped else {})

    def block(self, values: Mapping[str, Tensor]) -> Block:
        """Two states: level and slope."""
        slope = values["slope"]
        keep = values["damping"] if self.damped else torch.ones_like(slope)
        transition = torch.stack([torch.ones_like(slope).expand(2), torch.cat([torch.zeros_like(slope), keep])])
        noise = torch.cat([torch.zeros_like(slope) if self.smooth else values["level"], slope])
        return _diffuse(transition, noise, [1.0, 0.0])


@dataclass(frozen=True)
class Seasonal(Component):
    """One effect a season, which add up to noise over a period: `γ' = -(γ_1 + … + γ_{period-1}) + ω`."""

    period: int
    """Steps until it comes again."""

    def __post_init__(self) -> None:
        _check_period(self.period)

    def parameters(self) -> dict[str, tuple[Kind, int]]:
        """The variance of `ω`."""
        return {"seasonal": (POSITIVE, 1)}

    def block(self, values: Mapping[str, Tensor]) -> Block:
        """`period - 1` states: the effects of the last seasons."""
        size = self.period - 1
        transition = torch.diag(torch.ones(size - 1), -1)
        transition[0] = -1
        variance = values["seasonal"]
        return _diffuse(transition, torch.cat([variance, variance.new_zeros(size - 1)]), [1.0, *[0.0] * (size - 1)])


@dataclass(frozen=True)
class TrigonometricSeasonal(Component):
    """A sum of waves that wander, with one variance: smoother from season to season than `Seasonal`, and shorter with fewer waves."""

    period: int
    """Steps until it comes again."""
    harmonics: int | None = None
    """How many waves; all, `period // 2`, as if not given."""

    def __post_init__(self) -> None:
        _check_period(self.period)
        if self.harmonics is not None and not 1 <= self.harmonics <= self.period // 2:
            raise ConfigurationError(f"`harmonics` must lie in 1..{self.period // 2} for the period {self.period}, got {self.harmonics}")

    def parameters(self) -> dict[str, tuple[Kind, int]]:
        """The variance of the noise of each state."""
        return {"seasonal": (POSITIVE, 1)}

    def block(self, values: Mapping[str, Tensor]) -> Block:
        """Two states a wave, one for the wave of two steps."""
        blocks, emission = [], []
        for wave in range(1, (self.harmonics or self.period // 2) + 1):
            angle = 2 * math.pi * wave / self.period
            cosine, sine = math.cos(angle), math.sin(angle)
            turn = [[-1.0]] if 2 * wave == self.period else [[cosine, sine], [-sine, cosine]]
            blocks.append(torch.tensor(turn, dtype=torch.float64))
            emission += [1.0] if 2 * wave == self.period else [1.0, 0.0]
        return _diffuse(torch.block_diag(*blocks), values["seasonal"].expand(len(emission)), emission)


@dataclass(frozen=True)
class ARMA(Component):
    """A stationary autoregression with a moving average (Harvey 1989, section 3.3): `x' = Σ ar_i x_{-i} + ε + Σ ma_j ε_{-j}`."""

    autoregressive: int = 1
    """How many earlier values count."""
    moving_average: int = 0
    """How many earlier shocks count."""

    def __post_init__(self) -> None:
        if self.autoregressive < 0 or self.moving_average < 0 or self.autoregressive + self.moving_average == 0:
            raise ConfigurationError(
                f"the orders of `ARMA` must be at least 0 and not both 0, got {self.autoregressive} and {self.moving_average}"
            )

    def parameters(self) -> dict[str, tuple[Kind, int]]:
        """The coefficients, bound to be stationary and invertible, and the variance of `ε`."""
        orders = {"ar": (STATIONARY, self.autoregressive), "ma": (INVERTIBLE, self.moving_average), "shock": (POSITIVE, 1)}
        return {name: (kind, count) for name, (kind, count) in orders.items() if count}

    def block(self, values: Mapping[str, Tensor]) -> Block:
        """`max(p, q + 1)` states, which begin in their stationary distribution."""
        shock = values["shock"]
        size = max(self.autoregressive, self.moving_average + 1)
        nothing = shock.new_zeros
        ar = torch.cat([values.get("ar", nothing(0)), nothing(size - self.autoregressive)])
        load = torch.cat([shock.new_ones(1), values.get("ma", nothing(0)), nothing(size - 1 - self.moving_average)])
        transition = torch.cat([ar.unsqueeze(1), torch.eye(size, dtype=shock.dtype)[:, : size - 1]], 1)
        covariance = shock * load.unsqueeze(1) * load
        stationary = torch.linalg.solve(
            torch.eye(size * size, dtype=shock.dtype) - torch.kron(transition, transition), covariance.flatten()
        )
        emission = torch.eye(size, dtype=shock.dtype)[0]
        return Block(transition, covariance, emission, stationary.view(size, size), torch.zeros(size, dtype=torch.bool))


@dataclass(frozen=True)
class Regression(Component):
    """What known inputs add to the output: a coefficient each, fitted with the rest."""

    inputs: int
    """How many."""

    def __post_init__(self) -> None:
        if self.inputs < 1:
            raise ConfigurationError(f"`inputs` must be at least 1, got {self.inputs}")

    def parameters(self) -> dict[str, tuple[Kind, int]]:
        """The coefficients."""
        return {"coefficient": (REAL, self.inputs)}

    def block(self, values: Mapping[str, Tensor]) -> Block:
        """No state."""
        none = values["coefficient"].new_zeros(0, 0)
        return Block(none, none, none.new_zeros(0), none, torch.zeros(0, dtype=torch.bool))


COMPONENTS: dict[str, type[Component]] = {
    "level": LocalLevel,
    "trend": LocalTrend,
    "seasonal": Seasonal,
    "trigonometric": TrigonometricSeasonal,
    "arma": ARMA,
    "regression": Regression,
}
"""All there are, by the names under which they are saved."""


def _diffuse(transition: Tensor, variances: Tensor, emission: list[float]) -> Block:
    size = len(emission)
    flat = torch.ones(size, dtype=torch.bool)
    return Block(
        transition.to(variances), variances.diag(), torch.tensor(emission, dtype=variances.dtype), variances.new_zeros(size, size), flat
    )


def _check_period(period: int) -> None:
    if period < 2:
        raise ConfigurationError(f"`period` must be at least 2, got {period}")
