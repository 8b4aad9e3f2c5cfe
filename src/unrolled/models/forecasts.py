"""What a forecaster says of every future value: a Gaussian, quantiles, or a point; its loss, its best guess, and its bands."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from statistics import NormalDist

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrolled.models.forecaster_settings import OutputSettings

Values = Float[Tensor, "*rows"]
Parameters = Float[Tensor, "*rows parameters"]
Bands = Float[Tensor, "*rows levels"]
Moves = Float[Tensor, "*#rows"]


class Output(ABC):
    """A way of saying what a future value will be."""

    width: int
    """Numbers a value."""

    @abstractmethod
    def loss(self, said: Parameters, truth: Values) -> Values:
        """How wrong it was.

        Args:
            said: of every value.
            truth: what came.

        Returns:
            The lower the better, in expectation lowest for the truth.
        """

    @abstractmethod
    def best(self, said: Parameters) -> Values:
        """One number a value.

        Args:
            said: of every value.

        Returns:
            Mean or median.
        """

    @abstractmethod
    def quantiles(self, said: Parameters, levels: Sequence[float]) -> Bands | None:
        """Below which numbers the value will be, with which probability.

        Args:
            said: of every value.
            levels: the probabilities.

        Returns:
            A number a level; `None` where nothing is said of them.
        """

    def moved(self, said: Parameters, scale: Moves, shift: Moves) -> Parameters:
        """The same of `scale · value + shift`; an output that says something else than values does it in its own way.

        Args:
            said: of every value.
            scale: positive.
            shift: any number.

        Returns:
            What is said of the moved value.
        """
        return said * scale.unsqueeze(-1) + shift.unsqueeze(-1)


class Gaussian(Output):
    """Mean and logarithm of the standard deviation; the loss is the negative log-likelihood in nats."""

    width = 2
    NARROWEST = -7.0
    """Of the logarithm: what is narrower would be a claim that a float cannot hold."""

    def _parts(self, said: Parameters) -> tuple[Tensor, Tensor]:
        mean, log_deviation = said.unbind(-1)
        return mean, log_deviation.clamp(min=self.NARROWEST)

    def loss(self, said: Parameters, truth: Values) -> Values:
        """The negative log-likelihood; see `Output.loss`.

        Args:
            said: of every value.
            truth: what came.

        Returns:
            Nats.
        """
        mean, log_deviation = self._parts(said)
        return 0.5 * ((truth - mean) * torch.exp(-log_deviation)).square() + log_deviation + 0.5 * math.log(2 * math.pi)

    def best(self, said: Parameters) -> Values:
        """The mean; see `Output.best`.

        Args:
            said: of every value.

        Returns:
            One number a value.
        """
        return said[..., 0]

    def quantiles(self, said: Parameters, levels: Sequence[float]) -> Bands:
        """Of the normal distribution; see `Output.quantiles`.

        Args:
            said: of every value.
            levels: the probabilities.

        Returns:
            A number a level.
        """
        mean, log_deviation = self._parts(said)
        places = said.new_tensor([NormalDist().inv_cdf(level) for level in levels])
        return mean.unsqueeze(-1) + log_deviation.exp().unsqueeze(-1) * places

    def moved(self, said: Parameters, scale: Moves, shift: Moves) -> Parameters:
        """See `Output.moved`.

        Args:
            said: of every value.
            scale: positive.
            shift: any number.

        Returns:
            What is said of the moved value.
        """
        mean, log_deviation = self._parts(said)
        return torch.stack([mean * scale + shift, log_deviation + scale.log()], -1)


class Quantiles(Output):
    """Several quantiles; the loss is the mean of their pinball losses (Koenker & Bassett 1978), twice, so that of a median it is the absolute error."""

    def __init__(self, levels: Sequence[float]) -> None:
        """Name the quantiles.

        Args:
            levels: rising probabilities, an odd number of them.
        """
        self.levels, self.width = tuple(levels), len(levels)

    def loss(self, said: Parameters, truth: Values) -> Values:
        """The pinball loss; see `Output.loss`.

        Args:
            said: of every value.
            truth: what came.

        Returns:
            In the unit of the values.
        """
        levels = said.new_tensor(self.levels)
        over = truth.unsqueeze(-1) - said
        return 2 * torch.maximum(levels * over, (levels - 1) * over).mean(-1)

    def best(self, said: Parameters) -> Values:
        """The middle quantile; see `Output.best`.

        Args:
            said: of every value.

        Returns:
            One number a value.
        """
        return said.sort(-1).values[..., self.width // 2]

    def quantiles(self, said: Parameters, levels: Sequence[float]) -> Bands | None:
        """Those that were learnt, in order, and straight lines between them; see `Output.quantiles`.

        Args:
            said: of every value.
            levels: the probabilities.

        Returns:
            A number a level; `None` where one lies beyond the outermost that were learnt.
        """
        if min(levels) < self.levels[0] or max(levels) > self.levels[-1]:
            return None
        rising, own = said.sort(-1).values, self.levels
        found = []
        for level in levels:
            above = next(i for i, known in enumerate(own) if known >= level)
            below = above - 1 if own[above] > level else above
            share = 0.0 if above == below else (level - own[below]) / (own[above] - own[below])
            found.append(torch.lerp(rising[..., below], rising[..., above], share))
        return torch.stack(found, -1)


class Point(Output):
    """One number; the loss is the squared error."""

    width = 1

    def loss(self, said: Parameters, truth: Values) -> Values:
        """The squared error; see `Output.loss`.

        Args:
            said: of every value.
            truth: what came.

        Returns:
            In the square of the values' unit.
        """
        return (said[..., 0] - truth).square()

    def best(self, said: Parameters) -> Values:
        """The number itself; see `Output.best`.

        Args:
            said: of every value.

        Returns:
            One number a value.
        """
        return said[..., 0]

    def quantiles(self, said: Parameters, levels: Sequence[float]) -> None:
        """Nothing is said of them; see `Output.quantiles`.

        Args:
            said: of every value.
            levels: the probabilities.
        """
        return


OUTPUTS: dict[str, Callable[[OutputSettings], Output]] = {
    "gaussian": lambda settings: Gaussian(),
    "quantiles": lambda settings: Quantiles(settings.quantiles),
    "point": lambda settings: Point(),
}
"""What is said of a value, by the kind that a configuration names."""


def mean_where(values: Values, there: Bool[Tensor, "*rows"]) -> Float[Tensor, ""]:
    """The mean of what is there.

    Args:
        values: of any shape.
        there: which of them count.

    Returns:
        0 where none does.
    """
    return torch.where(there, values, 0).sum() / there.sum().clamp(min=1)
