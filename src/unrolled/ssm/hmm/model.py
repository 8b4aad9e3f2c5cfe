"""A hidden Markov model as one object: fit, score, decode, predict, sample, save."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unrolled.core.errors import ConfigurationError, DataError, RunError
from unrolled.core.files import write_atomically, write_json
from unrolled.core.padded import Padded, pad
from unrolled.core.settings import resolve
from unrolled.ssm.hmm.baum_welch import BaumWelchSettings, Fit, baum_welch
from unrolled.ssm.hmm.dynamics import Dynamics
from unrolled.ssm.hmm.emissions.base import Emission
from unrolled.ssm.hmm.inference import log_likelihood, smooth, viterbi
from unrolled.ssm.hmm.prediction import HiddenMarkovStep, Prediction, by_kind, chain_scores, draw_ahead, predict
from unrolled.ssm.hmm.results import Paths
from unrolled.ssm.hmm.sampling import Sampled, sample
from unrolled.ssm.hmm.saving import put_together, take_apart
from unrolled.ssm.hmm.settings import HiddenMarkovSettings
from unrolled.ssm.hmm.start import STARTS, start_dynamics
from unrolled.ssm.watch import Watch, unwatched

Outputs = Padded | Tensor | Sequence[Tensor]
"""Sequences: padded, one by one `[time, features]`, or one alone."""
FORMAT = 1
"""Of saved models."""


def as_padded(outputs: Outputs) -> Padded:
    """Sequences in one padded tensor, whole numbers as they are, all else in float64.

    Args:
        outputs: padded sequences, a list of them, or one of `[time, features]` or `[time]`.

    Returns:
        The padded batch.
    """
    if isinstance(outputs, Tensor):
        outputs = [outputs]
    padded = outputs if isinstance(outputs, Padded) else pad(list(outputs))
    return Padded(padded.data.to(torch.float64), padded.lengths) if padded.data.is_floating_point() else padded


class HiddenMarkovModel:
    """Fitted to sequences by Baum–Welch from several beginnings, or made of parts of one's own.

    Example:
        >>> model = HiddenMarkovModel(states=2, emission="categorical")
        >>> fit = model.fit(torch.tensor([0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1]))
        >>> model.decode(torch.tensor([0, 0, 1, 1])).states.shape
        torch.Size([1, 4])
    """

    def __init__(self, *, dynamics: Dynamics | None = None, emission: Emission | str | None = None, **settings: Any) -> None:
        """A model to be fitted, or one that is.

        Args:
            dynamics: of the states; what `fit` makes where it is left out.
            emission: of the outputs; or the name of a kind, which `fit` makes.
            settings: the other fields of `HiddenMarkovSettings`.

        Raises:
            ConfigurationError: one of dynamics and emission without the other, or of different numbers of states.
        """
        if isinstance(emission, str):
            settings["emission"], emission = emission, None
        if (dynamics is None) != (emission is None):
            raise ConfigurationError(
                "a model must have both `dynamics` and `emission`, or none of them to be fitted from data alone, got one"
            )
        if dynamics is not None and emission is not None:
            dynamics.check()
            emission.check()
            if dynamics.states != emission.states:
                raise ConfigurationError(f"`dynamics` and `emission` must have as many states, got {dynamics.states} and {emission.states}")
            settings.setdefault("states", dynamics.states)
        self.settings = resolve(HiddenMarkovSettings, settings)
        self._dynamics, self._emission = dynamics, emission
        self._last: tuple[float, int, int] | None = None
        """Of the last fit: the log-likelihood, how many steps the sequences had, and how many numbers were free when the first began."""

    @property
    def dynamics(self) -> Dynamics:
        """How states follow each other."""
        if self._dynamics is None:
            raise DataError("a model must be fitted first; call `fit`")
        return self._dynamics

    @property
    def emission(self) -> Emission:
        """What each state's outputs are."""
        if self._emission is None:
            raise DataError("a model must be fitted first; call `fit`")
        return self._emission

    @property
    def free_parameters(self) -> int:
        """How many numbers are fitted: those that were free when the first fit began, for one that has become zero was fitted as well."""
        return _free(self.dynamics, self.emission) if self._last is None else self._last[2]

    def fit(self, outputs: Outputs, inputs: Tensor | None = None, *, watch: Watch = unwatched) -> Fit:
        """Fit to sequences: from several beginnings, or, where the model has parts already, from these.

        Args:
            outputs: sequences; NaN is missing.
            inputs: `[batch, time, inputs]` that drive the transitions.
            watch: is told of each iteration.

        Returns:
            The best fit and its history; the model has its parts from now on.
        """
        padded, settings = as_padded(outputs), self.settings
        when = BaumWelchSettings(settings.iterations, settings.tolerance)
        fits: list[tuple[Fit, int]] = []
        for beginning in range(1 if self._dynamics is not None else settings.restarts):
            generator = torch.Generator().manual_seed(settings.seed + beginning)
            dynamics = self._dynamics or start_dynamics(settings, inputs, generator)
            emission = self._emission or STARTS[settings.emission](padded, settings, generator)
            # What an earlier fit has made zero was fitted then, and counts on.
            free = _free(dynamics, emission) if self._last is None else self.free_parameters
            fits.append((baum_welch(dynamics, emission, padded, inputs=inputs, settings=when, watch=_from(beginning, watch)), free))
        best, free = max(fits, key=lambda one: one[0].objectives[-1])
        self._dynamics, self._emission = best.dynamics, best.emission
        self._last = best.log_likelihoods[-1], int(padded.lengths.sum()), free
        return best

    def log_likelihood(self, outputs: Outputs, inputs: Tensor | None = None) -> Tensor:
        """`log P(y)` of each sequence.

        Args:
            outputs: sequences.
            inputs: those that drive the transitions.

        Returns:
            `[batch]`.
        """
        return log_likelihood(self.dynamics.chain(inputs), chain_scores(self.dynamics, self.emission, as_padded(outputs)))

    def score(self, outputs: Outputs, inputs: Tensor | None = None) -> float:
        """`log P(y)` of all sequences together.

        Args:
            outputs: sequences.
            inputs: those that drive the transitions.

        Returns:
            A number, in nats.
        """
        return float(self.log_likelihood(outputs, inputs).sum())

    def posterior(self, outputs: Outputs, inputs: Tensor | None = None) -> Padded:
        """`P(z_t | y)`.

        Args:
            outputs: sequences.
            inputs: those that drive the transitions.

        Returns:
            `[batch, time, states]`, zero past a length.
        """
        padded = as_padded(outputs)
        smoothed = smooth(self.dynamics.chain(inputs), chain_scores(self.dynamics, self.emission, padded))
        return Padded(by_kind(self.dynamics, smoothed.probabilities), padded.lengths)

    def decode(self, outputs: Outputs, inputs: Tensor | None = None) -> Paths:
        """The likeliest sequences of states (Viterbi).

        Args:
            outputs: sequences.
            inputs: those that drive the transitions.

        Returns:
            States, -1 past a length, and `log P(y, z)`.
        """
        padded, owner = as_padded(outputs), self.dynamics.owner
        paths = viterbi(self.dynamics.chain(inputs), chain_scores(self.dynamics, self.emission, padded))
        return paths if owner is None else Paths(torch.where(paths.states < 0, -1, owner[paths.states]), paths.scores)

    def predict(self, outputs: Outputs, steps: int = 1, *, inputs: tuple[Tensor, Tensor] | None = None, seed: int = 0) -> Prediction:
        """The next outputs.

        Args:
            outputs: sequences so far.
            steps: how many to look ahead.
            inputs: those so far, and those of the next steps.
            seed: for outputs that look back, whose next ones are drawn.

        Returns:
            Distributions of states, means and variances of outputs.
        """
        generator = torch.Generator().manual_seed(seed)
        return predict(self.dynamics, self.emission, as_padded(outputs), steps, inputs=inputs, generator=generator)

    def draw_ahead(
        self, outputs: Outputs, steps: int, *, draws: int = 1000, inputs: tuple[Tensor, Tensor] | None = None, seed: int = 0
    ) -> Tensor:
        """Continuations of sequences, drawn: what bands are made of.

        Args:
            outputs: sequences so far.
            steps: how many to look ahead.
            draws: of each sequence.
            inputs: those so far, and those of the next steps.
            seed: the same gives the same.

        Returns:
            `[batch, draws, steps, features]`; without features for categorical outputs.
        """
        generator = torch.Generator().manual_seed(seed)
        return draw_ahead(self.dynamics, self.emission, as_padded(outputs), steps, inputs=inputs, draws=draws, generator=generator)

    def sample(self, time: int, batch: int = 1, *, inputs: Tensor | None = None, seed: int = 0) -> Sampled:
        """Sequences drawn from the model.

        Args:
            time: steps of each.
            batch: how many.
            inputs: those that drive the transitions.
            seed: the same gives the same.

        Returns:
            States and outputs.
        """
        return sample(self.dynamics, self.emission, time, batch=batch, inputs=inputs, generator=torch.Generator().manual_seed(seed))

    def stepper(self) -> HiddenMarkovStep:
        """The filter as `initial_state` and `step`, for streams."""
        return HiddenMarkovStep(self.dynamics, self.emission)

    def aic(self, outputs: Outputs | None = None, inputs: Tensor | None = None) -> float:
        """Akaike's criterion, `2 parameters - 2 log P(y)`: lower is better.

        Args:
            outputs: sequences; those of the last fit when not given.
            inputs: those that drive the transitions.

        Returns:
            A number.
        """
        return 2 * self.free_parameters - 2 * self._scored(outputs, inputs)[0]

    def bic(self, outputs: Outputs | None = None, inputs: Tensor | None = None) -> float:
        """Schwarz's criterion, `parameters log(steps) - 2 log P(y)`: lower is better.

        Args:
            outputs: sequences; those of the last fit when not given.
            inputs: those that drive the transitions.

        Returns:
            A number.
        """
        log_likelihood, steps = self._scored(outputs, inputs)
        return self.free_parameters * math.log(max(steps, 1)) - 2 * log_likelihood

    def notes(self, outputs: Outputs) -> list[str]:
        """What a person should know about the fit: variances that ended at the floor, of which the criteria would choose ever more.

        Args:
            outputs: those that it was fitted to.

        Returns:
            Sentences; none where all is well.
        """
        small = int(self.emission.at_floor().sum())
        if not small:
            return []
        seen = as_padded(outputs)
        values = seen.data[seen.mask]
        values = values[~values.isnan()]
        counts = bool(((values >= 0) & (values == values.round())).all())
        advice = "try `emission=poisson` for these counts" if counts else "try fewer states, or a larger `floor`"
        few = f"a variance of {small} of {self.emission.states} states ended at its floor"
        return [f"{few}, which alone makes the likelihood large, so that AIC and BIC mean little; {advice}"]

    def _scored(self, outputs: Outputs | None, inputs: Tensor | None) -> tuple[float, int]:
        """The log-likelihood and the number of steps."""
        if outputs is not None:
            padded = as_padded(outputs)
            return self.score(padded, inputs), int(padded.lengths.sum())
        if self._last is None:
            raise ConfigurationError("a model that was not fitted has no criterion of its own; call `fit`, or give sequences")
        return self._last[:2]

    def save(self, folder: Path | str) -> None:
        """Write `model.json` and `model.safetensors`.

        Args:
            folder: made where it is missing.
        """
        folder, tensors = Path(folder), dict[str, Tensor]()
        parts = {name: take_apart(part, name, tensors) for name, part in (("dynamics", self.dynamics), ("emission", self.emission))}
        write_atomically(folder / "model.safetensors", lambda path: save_file(tensors, path))
        told = {"model": "hmm", "format": FORMAT, "settings": self.settings.model_dump(), "fit": self._last}
        write_json(folder / "model.json", told | parts)

    @classmethod
    def load(cls, folder: Path | str) -> HiddenMarkovModel:
        """Read what `save` has written.

        Args:
            folder: with both files.

        Returns:
            The model.

        Raises:
            RunError: a file is missing, damaged, or of another kind.
        """
        folder = Path(folder)
        try:
            told = json.loads((folder / "model.json").read_text(encoding="utf-8"))
            tensors = load_file(folder / "model.safetensors")
        except (OSError, ValueError, SafetensorError) as error:
            raise RunError(
                f"`{folder}` must hold a saved model (model.json and model.safetensors), but it cannot be read: {error}"
            ) from None
        if told.get("model") != "hmm" or told.get("format") != FORMAT:
            raise RunError(
                f"`{folder}` must hold a hidden Markov model of format {FORMAT}, got {told.get('model')!r} of format {told.get('format')!r}"
            )
        model = cls(dynamics=put_together(told["dynamics"], tensors), emission=put_together(told["emission"], tensors))
        model.settings = resolve(HiddenMarkovSettings, told["settings"])
        if told.get("fit") is not None:
            model._last = float(told["fit"][0]), int(told["fit"][1]), int(told["fit"][2])
        return model


def _free(dynamics: Dynamics, emission: Emission) -> int:
    """How many numbers may change."""
    return dynamics.free_parameters + emission.free_parameters


def _from(beginning: int, watch: Watch) -> Watch:
    """Tells of the iterations of one of several beginnings."""
    return lambda _, iteration, log_likelihood: watch(beginning + 1, iteration, log_likelihood)
