"""Elementwise dropout in a Transformer, keyed by the rows of the global batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unrolled.core.noise import Noise


@dataclass(frozen=True)
class Dropping:
    """Elementwise dropout of one pass: what is drawn has the shape of the whole batch, whichever rows and columns the pass is about.

    So the masks of a row do not depend on what the other rows of the batch, or other processes, have to do.
    """

    probability: float
    noise: Noise
    shape: tuple[int, ...]
    """`[rows, columns]` or `[rows, stretches, columns]` of the draw."""
    chosen: tuple[Tensor, Tensor] | None = None
    """Row and stretch of each row of the pass, where it reads stretches."""
    before: int = 0
    """Room for columns before the new ones, in masks of weights."""

    def __call__(self, x: Float[Tensor, "rows time dim"]) -> Float[Tensor, "rows time dim"]:
        """Drop features.

        Args:
            x: what a part adds.

        Returns:
            The same with zeros, scaled to keep the mean.
        """
        return self._drop(x, (*self.shape, x.shape[2]), (slice(x.shape[1]),))

    def own_weights(self, x: Float[Tensor, "rows heads time columns"]) -> Float[Tensor, "rows heads time columns"]:
        """Drop weights of attention over own columns, of which the last are those of the queries.

        Args:
            x: the weights.

        Returns:
            The same with zeros, scaled to keep the mean.
        """
        *outer, most = self.shape
        _, heads, time, columns = x.shape
        first = self.before - (columns - time)
        return self._drop(x, (*outer, heads, most, self.before + most), (slice(heads), slice(time), slice(first, first + columns)))

    def memory_weights(self, x: Float[Tensor, "rows heads time source"]) -> Float[Tensor, "rows heads time source"]:
        """Drop weights of attention over a memory.

        Args:
            x: the weights.

        Returns:
            The same with zeros, scaled to keep the mean.
        """
        return self._drop(x, (*self.shape[:-1], x.shape[1], self.shape[-1], x.shape[3]), (slice(x.shape[1]), slice(x.shape[2])))

    def _drop(self, x: Tensor, shape: tuple[int, ...], cut: tuple[slice, ...]) -> Tensor:
        keep = 1 - self.probability
        mask = self.noise.rows(shape, keep, x)
        if self.chosen is not None:
            mask = mask[self.chosen]
        return x * (mask[(slice(None), *cut)] / keep)


def branch(noise: Noise, device: torch.device) -> Noise:
    """A source of masks that takes one number from `noise`, however much is drawn from it.

    Args:
        noise: the source of the whole model.
        device: where masks are drawn.

    Returns:
        A source for the same rows.
    """
    of = noise.generator
    seed = int(torch.randint(1 << 62, (), generator=of, device="cpu" if of is None else of.device))
    return Noise(torch.Generator(device).manual_seed(seed), noise.first_row, noise.total_rows)
