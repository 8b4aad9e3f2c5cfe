"""Weights to and from the recurrent layers of `torch.nn`, exact or refused."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from unrolled.core.errors import ConfigurationError

Layer = TypeVar("Layer", bound=nn.RNNBase)


def read_layer(source: nn.RNNBase, kind: type[nn.RNNBase]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four parameter tensors of a one-layer, one-direction recurrence of `torch.nn`.

    Args:
        source: the layer to read.
        kind: the class it must be of.

    Returns:
        Input weight, recurrent weight, input bias, recurrent bias (zeros where the layer has none).

    Raises:
        ConfigurationError: another class, several layers, both directions, or a projection: no single cell computes that.
    """
    if not isinstance(source, kind):
        raise ConfigurationError(f"these weights must come from `torch.nn.{kind.__name__}`, got `{type(source).__name__}`")
    if source.num_layers != 1 or source.bidirectional or source.proj_size:
        raise ConfigurationError(
            f"one cell takes the weights of one layer in one direction without projection, got {source.num_layers} layers, "
            f"bidirectional={source.bidirectional}, proj_size={source.proj_size}; convert layer by layer into `Stacked` or `Bidirectional`"
        )
    slots = [weight.detach() for weight in source.all_weights[0]]
    zero = torch.zeros_like(slots[0][:, 0])
    return slots[0], slots[1], *(slots[2:] if source.bias else (zero, zero))


@torch.no_grad()
def write_layer(target: Layer, weights: tuple[Tensor, Tensor, Tensor, Tensor]) -> Layer:
    """Put four parameter tensors into a one-layer recurrence of `torch.nn`.

    Args:
        target: a fresh layer.
        weights: input weight, recurrent weight, input bias, recurrent bias.

    Returns:
        `target`.
    """
    for slot, value in zip(target.all_weights[0], weights, strict=True):
        slot.copy_(value)
    return target
