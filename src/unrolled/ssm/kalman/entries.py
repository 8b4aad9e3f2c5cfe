"""Series as the filter takes them: one number after the other, each with a noise of its own.

The numbers of one output are taken in turn (univariate treatment, Durbin & Koopman 2012, section 6.4): nothing is inverted, and a missing number
is simply not taken. Their noises have to be independent for that. Where they are not, the seen part of an output is multiplied by `L^-1` first, with
`emission_covariance = L diag(variances) L'` of the rows and columns that are seen and `L` unit lower triangular; there are as many `L` as there are
patterns of what is missing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.core.padded import Padded, check_lengths, length_mask
from unrolled.ssm.kalman.system import LinearGaussian

TABLE = 16
"""Up to so many outputs all patterns that could be are counted; the patterns of more are sorted."""


class Entries(NamedTuple):
    """Outputs whose noises are independent."""

    values: Float[Tensor, "batch time observed"]
    """Less what the input adds; NaN where nothing was seen, and past a length."""
    lengths: Int[Tensor, " batch"]
    rows: Float[Tensor, "patterns observed state"]
    """How each value follows from the state."""
    variances: Float[Tensor, "patterns observed"]
    """Of the noise of each value."""
    patterns: Int[Tensor, "batch time"] | None
    """Which row of `rows` and `variances` holds at each step; `None` where there is only one."""
    shift: Float[Tensor, "batch time state"] | None
    """What the input adds to the state."""


def as_padded(system: LinearGaussian, series: Tensor | Padded) -> Padded:
    """Series with their lengths, in the system's type.

    Args:
        system: says how many numbers an output has.
        series: `[batch, time, observed]`; NaN is missing.

    Returns:
        The same, NaN past every length.

    Raises:
        DataError: another shape, an infinite number, or lengths that do not fit.
    """
    data, lengths = series if isinstance(series, Padded) else (series, None)
    if data.dim() != 3 or data.shape[2] != system.observed:
        raise DataError(
            f"a series must be [batch, time, {system.observed}] for the {system.observed} outputs of the system, got {tuple(data.shape)}"
        )
    if lengths is None:
        lengths = torch.full((len(data),), data.shape[1])
    lengths = lengths.to(data.device)
    check_lengths(lengths, *data.shape[:2])
    data = data.to(system.transition).where(length_mask(lengths, data.shape[1]).unsqueeze(2), torch.nan)
    if bool(data.isinf().any()):
        raise DataError(
            f"a series must be finite or NaN (missing), got infinity at {data.isinf().nonzero()[0].tolist()} (series, step, output)"
        )
    return Padded(data, lengths)


def check_inputs(system: LinearGaussian, series: Padded, inputs: Tensor | None) -> Tensor | None:
    """Known inputs as they go with their series.

    Args:
        system: says how many there are.
        series: what they belong to.
        inputs: `[batch, time, input]`.

    Returns:
        The inputs, zero past every length; `None` where the system has none.

    Raises:
        DataError: they are missing, not wanted, not finite, or of another shape.
    """
    wanted = (*series.data.shape[:2], system.inputs)
    if inputs is None and not system.inputs:
        return None
    if inputs is None or not system.inputs or inputs.shape != wanted:
        found = "none" if inputs is None else f"the shape {tuple(inputs.shape)}"
        raise DataError(f"`inputs` must be {wanted} (batch, time, the {system.inputs} inputs of the system), got {found}")
    inputs = inputs.to(system.transition).where(series.mask.unsqueeze(2), 0)
    if not bool(inputs.isfinite().all()):
        place = (~inputs.isfinite()).nonzero()[0].tolist()
        raise DataError(f"`inputs` must be known everywhere (finite), got {float(inputs[tuple(place)])} at {place} (series, step, input)")
    return inputs


def entries(system: LinearGaussian, series: Padded, inputs: Tensor | None) -> Entries:
    """Outputs one by one.

    Args:
        system: the model.
        series: from `as_padded`.
        inputs: from `check_inputs`.

    Returns:
        Outputs whose noises are independent; differentiable in system, series and inputs.
    """
    values, shift = series.data, None
    if inputs is not None and system.emission_input is not None:
        values = values - inputs @ system.emission_input.T
    if inputs is not None and system.transition_input is not None:
        shift = inputs @ system.transition_input.T
    noise = system.emission_covariance
    if len(noise) == 1 or (not noise.requires_grad and not bool((noise - noise.diag().diag()).any())):
        return Entries(values, series.lengths, system.emission.unsqueeze(0), noise.diag().unsqueeze(0), None, shift)
    missing = values.isnan()
    kinds, patterns = _patterns(~missing)
    variances, mixing = _decorrelate(noise, kinds)
    rows = torch.linalg.solve_triangular(mixing, system.emission.expand(len(kinds), -1, -1), upper=False, unitriangular=True)
    values = _solved(mixing, values.nan_to_num(), patterns).where(~missing, torch.nan)
    return Entries(values, series.lengths, rows, variances, patterns if len(kinds) > 1 else None, shift)


def _patterns(seen: Tensor) -> tuple[Tensor, Tensor]:
    """The patterns of what is seen, `[patterns, observed]`, and which one each step has."""
    B, T, D = seen.shape
    if D > TABLE or B * T == 0:
        kinds, which = torch.unique(seen.flatten(0, 1), dim=0, return_inverse=True)
        return kinds, which.view(B, T)
    codes = (seen.long() << torch.arange(D, device=seen.device)).sum(2)
    present = torch.bincount(codes.flatten(), minlength=1 << D).nonzero().squeeze(1)
    places = torch.zeros(1 << D, dtype=torch.long, device=seen.device)
    places[present] = torch.arange(len(present), device=seen.device)
    return (present.unsqueeze(1) >> torch.arange(D, device=seen.device) & 1).bool(), places[codes]


def _decorrelate(noise: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
    """`noise = L diag(variances) L'` of the rows and columns seen in each pattern; the others are those of the identity."""
    both = kinds.unsqueeze(1) & kinds.unsqueeze(2)
    rest = torch.where(both, noise, torch.eye(len(noise), dtype=noise.dtype, device=noise.device))
    limits = torch.finfo(noise.dtype)
    least = float(noise.detach().diag().max()) * len(noise) * limits.eps + limits.tiny
    variances, columns = [], []
    for j in range(len(noise)):
        pivot = rest[:, j, j]
        column = torch.where((pivot > least).unsqueeze(1), rest[:, :, j] / pivot.clamp(min=least).unsqueeze(1), 0)
        below = (torch.arange(len(noise), device=noise.device) > j) * column
        rest = rest - pivot.view(-1, 1, 1) * column.unsqueeze(2) * column.unsqueeze(1)
        variances.append(pivot.clamp(min=0))
        columns.append(below)
    mixing = torch.stack(columns, 2) + torch.eye(len(noise), dtype=noise.dtype, device=noise.device)
    return torch.stack(variances, 1), mixing


def _solved(mixing: Tensor, values: Tensor, patterns: Tensor) -> Tensor:
    """`L^-1 y` of each step, by the pattern of that step: one number after the other, as there are few."""
    solved: list[Tensor] = []
    for i in range(values.shape[2]):
        value = values[:, :, i]
        for j, other in enumerate(solved):
            value = value - mixing[:, i, j][patterns] * other
        solved.append(value)
    return torch.stack(solved, 2)
