"""Position vectors: where in its sequence each symbol stands."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unrolled.core.errors import UserError


class Positions(nn.Module, ABC):
    """A vector for each place, counted from 0."""

    dim: int

    @abstractmethod
    def forward(self, places: Int[Tensor, "batch time"], dtype: torch.dtype | None = None) -> Float[Tensor, "batch time dim"]:
        """Look places up.

        Args:
            places: counted from 0.
            dtype: of the vectors; torch's default, or that of what was learned, when `None`.

        Returns:
            A vector for each.
        """


class SinusoidalPositions(Positions):
    """`PE(p, 2i) = sin(p / 10000^(2i/dim))`, `PE(p, 2i+1) = cos(p / 10000^(2i/dim))` (Vaswani et al. 2017, section 3.5)."""

    def __init__(self, dim: int) -> None:
        """Positions without weights, for sequences of any length.

        Args:
            dim: features of a vector.
        """
        super().__init__()
        self.dim = dim

    def forward(self, places: Int[Tensor, "batch time"], dtype: torch.dtype | None = None) -> Float[Tensor, "batch time dim"]:
        """Compute the vectors; see `Positions.forward`."""
        dtype = dtype or torch.get_default_dtype()
        length = int(places.max()) + 1 if places.numel() else 0
        if places.numel() <= length:
            return sinusoids(places, self.dim).to(dtype)
        return torch.nn.functional.embedding(places, sinusoids(torch.arange(length, device=places.device), self.dim).to(dtype))


def sinusoids(places: Int[Tensor, "*shape"], dim: int) -> Float[Tensor, "*shape dim"]:
    """The vectors of `SinusoidalPositions`.

    Args:
        places: counted from 0.
        dim: features of a vector; the last is a sine where there is an odd number.

    Returns:
        A vector for each, in double precision.
    """
    # In double precision: the rounded angle of a far place would be wrong in the third digit.
    pairs = torch.arange(0, dim, 2, dtype=torch.float64, device=places.device)
    angles = places.unsqueeze(-1) * torch.exp(pairs * (-math.log(10000.0) / dim))
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)[..., :dim]


class LearnedPositions(Positions):
    """One learned vector for each of the first places (Gehring et al. 2017; Vaswani et al. 2017, section 3.5)."""

    def __init__(self, dim: int, longest: int) -> None:
        """A table of vectors.

        Args:
            dim: features of a vector.
            longest: how many places there are.
        """
        super().__init__()
        self.dim = dim
        self.table = nn.Embedding(longest, dim)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, places: Int[Tensor, "batch time"], dtype: torch.dtype | None = None) -> Float[Tensor, "batch time dim"]:
        """Look places up.

        Args:
            places: counted from 0.
            dtype: of the vectors; torch's default, or that of what was learned, when `None`.

        Returns:
            A vector for each.

        Raises:
            UserError: a place beyond the table.
        """
        length = int(places.max()) + 1 if places.numel() else 0
        if length > self.table.num_embeddings:
            raise UserError(
                f"learned positions reach {self.table.num_embeddings} places, got a sequence of {length}; "
                "shorten it, train with a longer table, or use sinusoidal positions"
            )
        vectors = self.table(places)
        return vectors if dtype is None else vectors.to(dtype)


POSITIONS: dict[str, Callable[[int, int], Positions]] = {
    "sinusoidal": lambda dim, longest: SinusoidalPositions(dim),
    "learned": LearnedPositions,
}
"""Every kind of positions by name; made from features and how many places there may be."""
