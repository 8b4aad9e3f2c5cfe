"""What every linear-Gaussian model object offers once it has parameters; and how it is saved: safetensors and JSON in one folder."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from unrolled.core.errors import ConfigurationError, DataError, RunError
from unrolled.core.files import write_atomically, write_json
from unrolled.core.padded import Padded
from unrolled.ssm.kalman.entries import as_padded
from unrolled.ssm.kalman.forecast import Forecast, forecast, predicted_outputs
from unrolled.ssm.kalman.inference import kalman_filter, kalman_log_likelihood, kalman_smoother
from unrolled.ssm.kalman.results import Smoothed
from unrolled.ssm.kalman.sampling import Drawn, sample
from unrolled.ssm.kalman.system import LinearGaussian

FORMAT = 1
DESCRIPTION, PARAMETERS = "model.json", "parameters.safetensors"


class LinearModel(ABC):
    """A model with the scikit-learn verbs. It holds parameters and what its last fit found, nothing else."""

    def __init__(self) -> None:
        """A model that has not been fitted."""
        self.log_likelihood: float | None = None
        """Of the series that it was fitted to."""
        self.seen: int | None = None
        """How many numbers those were."""
        self.converged: bool | None = None
        """Whether the last search ended by itself, before its last iteration; `None` where there was none."""
        self.history: list[float] = []
        """The log-likelihood during the last fit."""

    @property
    @abstractmethod
    def system(self) -> LinearGaussian:
        """The parameters as matrices; a `ConfigurationError` where there are none yet."""

    @property
    @abstractmethod
    def free_parameters(self) -> int:
        """How many numbers are estimated from the data, diffuse states among them."""

    def known_inputs(self, series: Padded, inputs: Tensor | None) -> Tensor | None:
        """Inputs as the system takes them.

        Args:
            series: what they belong to, or rows of the same length.
            inputs: as given.

        Returns:
            The inputs.
        """
        return inputs

    def score(self, series: Tensor | Padded, inputs: Tensor | None = None) -> float:
        """The log-likelihood of all series together.

        Args:
            series: outputs `[batch, time, observed]`; NaN is missing.
            inputs: known inputs `[batch, time, input]`.

        Returns:
            In nats.
        """
        padded = as_padded(self.system, series)
        return float(kalman_log_likelihood(self.system, padded, self.known_inputs(padded, inputs)).sum())

    def predict(self, series: Tensor | Padded, inputs: Tensor | None = None) -> Float[Tensor, "batch time observed"]:
        """Each output from those before it.

        Args:
            series: outputs `[batch, time, observed]`; NaN is missing.
            inputs: known inputs `[batch, time, input]`.

        Returns:
            Means.
        """
        padded = as_padded(self.system, series)
        known = self.known_inputs(padded, inputs)
        means, _ = predicted_outputs(self.system, kalman_filter(self.system, padded, known), known)
        return means.where(padded.mask.unsqueeze(2), 0)

    def smooth(self, series: Tensor | Padded, inputs: Tensor | None = None) -> Smoothed:
        """The states given all outputs.

        Args:
            series: outputs `[batch, time, observed]`; NaN is missing.
            inputs: known inputs `[batch, time, input]`.

        Returns:
            Means and covariances.
        """
        padded = as_padded(self.system, series)
        return kalman_smoother(self.system, padded, self.known_inputs(padded, inputs))

    def forecast(
        self,
        series: Tensor | Padded,
        horizon: int,
        inputs: Tensor | None = None,
        *,
        future_inputs: Tensor | None = None,
        level: float = 0.95,
    ) -> Forecast:
        """The next outputs, with bands.

        Args:
            series: outputs `[batch, time, observed]`; NaN is missing.
            horizon: how many steps ahead.
            inputs: known inputs `[batch, time, input]`.
            future_inputs: `[batch, horizon, input]`.
            level: the probability that a number falls into its band.

        Returns:
            Means, covariances and bands.
        """
        padded = as_padded(self.system, series)
        future = Padded(padded.data.new_zeros(len(padded.data), horizon, self.system.observed), torch.full_like(padded.lengths, horizon))
        known, ahead = self.known_inputs(padded, inputs), self.known_inputs(future, future_inputs)
        return forecast(self.system, padded, horizon, known, future_inputs=ahead, level=level)

    def sample(self, time: int, batch: int = 1, *, inputs: Tensor | None = None, generator: torch.Generator | None = None) -> Drawn:
        """Series that the model makes up.

        Args:
            time: steps of each.
            batch: how many.
            inputs: known inputs `[batch, time, input]`.
            generator: where randomness comes from.

        Returns:
            States and outputs.
        """
        like = self.system.transition
        rows = Padded(like.new_zeros(batch, time, self.system.observed), torch.full((batch,), time, device=like.device))
        return sample(self.system, time, batch, inputs=self.known_inputs(rows, inputs), generator=generator)

    def aic(self, series: Tensor | Padded | None = None, inputs: Tensor | None = None) -> float:
        """Akaike's criterion: twice the parameters, less twice the log-likelihood. Lower is better.

        Args:
            series: outputs `[batch, time, observed]`; those of the last fit when not given.
            inputs: known inputs `[batch, time, input]`.

        Returns:
            A number.
        """
        return 2 * self.free_parameters - 2 * self._scored(series, inputs)[0]

    def bic(self, series: Tensor | Padded | None = None, inputs: Tensor | None = None) -> float:
        """The Bayesian criterion: each parameter costs the logarithm of how many numbers were seen. Lower is better.

        Args:
            series: outputs `[batch, time, observed]`; those of the last fit when not given.
            inputs: known inputs `[batch, time, input]`.

        Returns:
            A number.
        """
        log_likelihood, seen = self._scored(series, inputs)
        return self.free_parameters * math.log(max(seen, 1)) - 2 * log_likelihood

    def _scored(self, series: Tensor | Padded | None, inputs: Tensor | None) -> tuple[float, int]:
        """The log-likelihood, and how many numbers were seen."""
        if series is not None:
            padded = as_padded(self.system, series)
            return self.score(padded, inputs), int((~padded.data.isnan()).sum())
        if self.log_likelihood is None or self.seen is None:
            raise ConfigurationError("the model must be fitted first, got one that is not; call `fit`")
        return self.log_likelihood, self.seen

    def _keep(self, log_likelihood: float, series: Padded, history: list[float], *, converged: bool) -> None:
        self.log_likelihood, self.seen, self.history = log_likelihood, int((~series.data.isnan()).sum()), history
        self.converged = converged


def check_fittable(series: Padded, needed: int) -> None:
    """Refuse series from which nothing can be learnt.

    Args:
        series: from `as_padded`.
        needed: more numbers than this must be seen.

    Raises:
        DataError: too few numbers, or an output that never changes.
    """
    seen = ~series.data.isnan()
    if int(seen.sum()) <= needed:
        raise DataError(
            f"a fit must see more than {needed} numbers, got {int(seen.sum())}; give a longer series or a model with fewer states"
        )
    for output in range(series.data.shape[2]):
        values = series.data[:, :, output][seen[:, :, output]]
        if len(values) == 0 or bool((values == values[0]).all()):
            found = "nothing but missing values" if len(values) == 0 else f"{float(values[0]):g} everywhere"
            raise DataError(f"every output must vary, got {found} in output {output}; leave it out")


def save_model(folder: Path, description: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> None:
    """Write a model, whole or not at all.

    Args:
        folder: made where it is missing.
        description: what JSON can hold.
        parameters: by name.
    """
    write_atomically(folder / PARAMETERS, lambda path: save_file({name: one.contiguous() for name, one in parameters.items()}, path))
    write_json(folder / DESCRIPTION, {"format": FORMAT, **description})


def read_model(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `save_model` wrote.

    Args:
        folder: where.
        kind: what the description must say under `model`.

    Returns:
        Description and parameters.

    Raises:
        RunError: nothing there, damaged, or another kind of model.
    """
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        parameters = load_file(folder / PARAMETERS)
    except FileNotFoundError as error:
        raise RunError(
            f"`{folder}` must hold a saved model ({DESCRIPTION} and {PARAMETERS}), but {error.filename or 'a file'} is not there"
        ) from None
    except Exception as error:
        raise RunError(f"`{folder}` holds a model that is damaged ({error})") from None
    if description.get("format") != FORMAT or description.get("model") != kind:
        found = f"{description.get('model')!r}, format {description.get('format')}"
        raise RunError(f"`{folder}` must hold a model {kind!r} of format {FORMAT}, got {found}")
    return description, parameters
