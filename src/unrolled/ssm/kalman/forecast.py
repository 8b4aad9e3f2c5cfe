"""What comes after the last output, with bands."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.core.padded import Padded, length_mask
from unrolled.ssm.kalman.entries import as_padded, check_inputs
from unrolled.ssm.kalman.inference import kalman_filter
from unrolled.ssm.kalman.results import Filtered
from unrolled.ssm.kalman.system import LinearGaussian, check_system


class Forecast(NamedTuple):
    """The next outputs of each series, given all before."""

    means: Float[Tensor, "batch horizon observed"]
    covariances: Float[Tensor, "batch horizon observed observed"]
    """Of the outputs, their own noise included; infinite on the diagonal where the series has not fixed the state."""
    lower: Float[Tensor, "batch horizon observed"]
    """The lower end of the band, for each number by itself."""
    upper: Float[Tensor, "batch horizon observed"]
    """The upper end."""


def forecast(
    system: LinearGaussian,
    series: Tensor | Padded,
    horizon: int,
    inputs: Tensor | None = None,
    *,
    future_inputs: Tensor | None = None,
    level: float = 0.95,
) -> Forecast:
    """The distribution of the next outputs: they are missing, and the filter runs on.

    Args:
        system: the model.
        series: outputs `[batch, time, observed]`; NaN is missing.
        horizon: how many steps ahead.
        inputs: known inputs `[batch, time, input]` of the series.
        future_inputs: `[batch, horizon, input]`, those of the steps to come.
        level: the probability that a number falls into its band.

    Returns:
        Means, covariances and bands.

    Raises:
        DataError: inputs of the future that are missing or of another shape.
        ConfigurationError: a horizon below 1, or a level that is no probability.
    """
    if horizon < 1 or not 0 < level < 1:
        raise ConfigurationError(f"`horizon` must be at least 1 and `level` between 0 and 1, got {horizon} and {level}")
    padded = as_padded(check_system(system), series)
    known = check_inputs(system, padded, inputs)
    B = len(padded.data)
    wanted = (B, horizon, system.inputs)
    if (future_inputs is None) != (known is None) or (future_inputs is not None and future_inputs.shape != wanted):
        found = "none" if future_inputs is None else f"the shape {tuple(future_inputs.shape)}"
        raise DataError(f"`future_inputs` must be {wanted} (batch, horizon, the {system.inputs} inputs of the system), got {found}")
    longer = Padded(_longer(padded.data, padded, horizon, None), padded.lengths + horizon)
    ahead = None if known is None else _longer(known, padded, horizon, future_inputs)
    return _outputs(system, kalman_filter(system, longer, ahead), padded.lengths, horizon, future_inputs, level)


def predicted_outputs(system: LinearGaussian, filtered: Filtered, inputs: Tensor | None) -> tuple[Tensor, Tensor]:
    """Means and covariances of each output given those before.

    Args:
        system: the model.
        filtered: by the filter.
        inputs: what was known.

    Returns:
        `[batch, time, observed]` and `[batch, time, observed, observed]`, infinite on the diagonal where nothing is known.
    """
    C = system.emission
    means = filtered.predicted_means @ C.T
    if inputs is not None and system.emission_input is not None:
        means = means + inputs.to(means) @ system.emission_input.T
    covariances = C @ filtered.predicted_covariances @ C.T + system.emission_covariance
    if filtered.predicted_diffuse is not None:
        unknown = (C @ filtered.predicted_diffuse @ C.T).diagonal(dim1=2, dim2=3) > torch.finfo(means.dtype).eps ** 0.5
        covariances = covariances.where(~torch.diag_embed(unknown), torch.inf)
    return means, covariances


def band(means: Tensor, variances: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """Where a normal variable falls with a given probability, symmetric about its mean.

    Args:
        means: of the variables.
        variances: of the variables.
        level: the probability.

    Returns:
        Lower and upper end.
    """
    width = math.sqrt(2) * float(torch.erfinv(torch.tensor(level, dtype=torch.float64))) * variances.sqrt()
    return means - width, means + width


def _longer(data: Tensor, series: Padded, horizon: int, values: Tensor | None) -> Tensor:
    """Each row with `horizon` steps more right behind its last one: NaN, or `values`."""
    B, T, D = data.shape
    longer = torch.cat([data, data.new_zeros(B, horizon, D)], 1)
    longer = longer.where(length_mask(series.lengths, T + horizon).unsqueeze(2), torch.nan)
    if values is None:
        return longer
    places = (series.lengths.unsqueeze(1) + torch.arange(horizon, device=data.device)).unsqueeze(2).expand(-1, -1, D)
    return longer.scatter(1, places, values.to(longer))


def _outputs(system: LinearGaussian, filtered: Filtered, lengths: Tensor, horizon: int, inputs: Tensor | None, level: float) -> Forecast:
    places = lengths.unsqueeze(1) + torch.arange(horizon, device=lengths.device)
    rows = torch.arange(len(lengths), device=lengths.device).unsqueeze(1)
    chosen = Filtered(*(None if one is None else one[rows, places] for one in filtered))  # type: ignore[arg-type]
    means, covariances = predicted_outputs(system, chosen, inputs)
    lower, upper = band(means, covariances.diagonal(dim1=2, dim2=3), level)
    return Forecast(means, covariances, lower, upper)
