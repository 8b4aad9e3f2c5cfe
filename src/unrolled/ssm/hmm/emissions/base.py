"""What an emission is: how likely each state makes an output, how it is fitted to outputs whose states are guessed, and how it is drawn from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrolled.core.padded import Padded
from unrolled.ssm.hmm.rows import Rows, rows_of_features, unpack

Fixed = Mapping[str, Tensor]
"""Parameters that fitting leaves as they are, by name: boolean, true where an entry is frozen; one element for all of a parameter."""


class Emission(ABC):
    """The outputs of each state. Subclasses are frozen data classes; those of their fields that are tensors are the parameters, a row a state."""

    fixed: Fixed

    @property
    def states(self) -> int:
        """How many states there are."""
        return len(next(value for field in fields(self) if isinstance(value := getattr(self, field.name), Tensor)))  # type: ignore[arg-type]

    @property
    @abstractmethod
    def free_parameters(self) -> int:
        """How many numbers are fitted, each constraint taken off."""

    @property
    def order(self) -> int:
        """How many outputs it looks back."""
        return 0

    @abstractmethod
    def scores(self, rows: Rows) -> Tensor:
        """`log P(y_t | z_t)` of what was seen of each output.

        Args:
            rows: outputs.

        Returns:
            `[rows, states]`; zero where nothing was seen.
        """

    @abstractmethod
    def fitted(self, rows: Rows, weights: Tensor) -> Emission:
        """The M-step: the parameters that make outputs likeliest where `weights` say how much of each output a state has made.

        Args:
            rows: outputs.
            weights: `P(z_t | y)`, `[rows, states]`.

        Returns:
            A new emission. Where something is missing, what is expected of it under the present one is counted.
        """

    @abstractmethod
    def draw(self, states: Int[Tensor, " count"], history: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """Outputs of given states.

        Args:
            states: `[count]`.
            history: for outputs that look back, `[count, steps, features]`, the latest last; else of no meaning.
            generator: source of randomness.

        Returns:
            `[count, features]`, or `[count]` for categorical outputs.
        """

    @abstractmethod
    def mean(self) -> Float[Tensor, "states features"]:
        """The expected output of each state; for categorical outputs the probabilities."""

    @abstractmethod
    def variance(self) -> Float[Tensor, "states features"]:
        """The variance of each feature of each state's output."""

    def log_prior(self) -> Tensor:
        """What the prior adds to the log-likelihood, up to a constant; 0 without one."""
        return torch.zeros((), dtype=torch.float64)

    def at_floor(self) -> Bool[Tensor, " states"]:
        """Which states have a variance that was fitted and is as small as it may be: their outputs' density says how small that is, and little else."""
        return torch.zeros(self.states, dtype=torch.bool)

    def check(self) -> None:  # noqa: B027 (nothing to refuse where a kind does not say so)
        """Refuse parameters that cannot be; see each emission."""

    def rows(self, outputs: Padded) -> Rows:
        """Outputs in the form that the other methods take.

        Args:
            outputs: `[batch, time, features]`; NaN is missing.

        Returns:
            Rows.
        """
        return rows_of_features(outputs, self.mean().shape[1])

    def log_likelihood(self, outputs: Padded) -> Padded:
        """`log P(y_t | z_t)` of a padded batch: the scores that inference takes.

        Args:
            outputs: `[batch, time, features]`; NaN is missing.

        Returns:
            `[batch, time, states]`, zero past a length.
        """
        return Padded(unpack(self.scores(self.rows(outputs)), outputs.lengths, outputs.data.shape[1]), outputs.lengths)

    def parameters(self) -> dict[str, Tensor]:
        """The tensors by name; those of an emission inside are named `inside.name`."""
        found: dict[str, Tensor] = {}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                found[field.name] = value
            elif isinstance(value, Emission):
                found.update({f"{field.name}.{name}": tensor for name, tensor in value.parameters().items()})
        return found

    def with_parameters(self, given: Mapping[str, Tensor]) -> Any:
        """The same emission with other tensors.

        Args:
            given: by the names of `parameters`; what is left out stays.

        Returns:
            A new emission.
        """
        changes: dict[str, Any] = {name: tensor for name, tensor in given.items() if "." not in name}
        for field in fields(self):  # type: ignore[arg-type]
            value, prefix = getattr(self, field.name), f"{field.name}."
            if isinstance(value, Emission):
                inside = {name.removeprefix(prefix): tensor for name, tensor in given.items() if name.startswith(prefix)}
                changes[field.name] = value.with_parameters(inside)
        return replace(self, **changes)  # type: ignore[type-var]

    def unfrozen(self, name: str) -> int:
        """How many numbers of a parameter are fitted, where nothing else binds them.

        Args:
            name: of the parameter.

        Returns:
            Those that are not frozen.
        """
        value: Tensor = getattr(self, name)
        return value.numel() - (int(self.fixed[name].expand_as(value).sum()) if name in self.fixed else 0)

    def kept(self, name: str, fresh: Tensor) -> Tensor:
        """A fitted parameter whose frozen entries are as they were.

        Args:
            name: of the parameter.
            fresh: its new value.

        Returns:
            The value to use.
        """
        return torch.where(self.fixed[name], getattr(self, name), fresh) if name in self.fixed else fresh
