"""From expected counts to probabilities: Dirichlet priors, entries that stay as they are, entries that are zero and stay so."""

from __future__ import annotations

import torch
from torch import Tensor

from unrolled.core.errors import ConfigurationError


def probable(counts: Tensor, old: Tensor, concentration: float, fixed: Tensor | None) -> Tensor:
    """The most probable rows of probabilities.

    Args:
        counts: how often each outcome is expected to have happened.
        old: the present probabilities; what is exactly zero is impossible and stays so.
        concentration: of a Dirichlet prior on each row, at least 1, where it has no effect.
        fixed: boolean, entries that stay; the others share what these leave.

    Returns:
        Rows that sum to one; a row without counts stays as it was.
    """
    free = old > 0 if fixed is None else (old > 0) & ~fixed
    counts = torch.where(free, counts + (concentration - 1), 0)
    mass = torch.where(free, old, 0).sum(-1, keepdim=True)
    total = counts.sum(-1, keepdim=True)
    return torch.where(free & (total > 0), counts / torch.where(total > 0, total, 1) * mass, old)


def log_dirichlet(probabilities: Tensor, concentration: float, fixed: Tensor | None) -> Tensor:
    """The logarithm of the prior on rows, up to a constant.

    Args:
        probabilities: rows.
        concentration: of the prior.
        fixed: entries that have none.

    Returns:
        A number.
    """
    free = probabilities > 0 if fixed is None else (probabilities > 0) & ~fixed
    return (concentration - 1) * torch.where(free, torch.where(free, probabilities, 1).log(), 0).sum()


def free_numbers(probabilities: Tensor, fixed: Tensor | None) -> int:
    """How many numbers of rows of probabilities are fitted.

    Args:
        probabilities: rows.
        fixed: entries that stay.

    Returns:
        Of each row the possible entries that are not fixed, less one.
    """
    free = probabilities > 0 if fixed is None else (probabilities > 0) & ~fixed
    return int((free.sum(-1) - 1).clamp(min=0).sum())


def check_concentration(concentration: float) -> None:
    """Refuse a prior whose most probable value may lie outside.

    Args:
        concentration: of a Dirichlet prior.

    Raises:
        ConfigurationError: it is below 1.
    """
    if not concentration >= 1:
        raise ConfigurationError(
            f"`concentration` must be at least 1, got {concentration}; 1 is no prior, 2 is one output more of each kind"
        )
