"""How hidden Markov models are fitted to series of numbers or symbols."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.core.settings import resolve
from unrolled.data.series import SeriesFile
from unrolled.ssm.hmm import Dynamics, Emission, HiddenMarkovModel, HiddenMarkovSettings
from unrolled.ssm.hmm.model import as_padded
from unrolled.ssm.hmm.start import STARTS, start_dynamics
from unrolled.ssm.watch import Watch
from unrolled.tasks.fit_data import FitData
from unrolled.tasks.fit_learnt import Part, hidden_markov
from unrolled.tasks.fit_settings import HiddenMarkovChoice, HiddenMarkovRunSettings
from unrolled.tasks.fit_start import read_start
from unrolled.tasks.fitting import FitTask, Fitted
from unrolled.tasks.hidden_markov_run import HiddenMarkovRun
from unrolled.tasks.run_folder import RunFolder

MAY_STAY = ("poisson", "bernoulli")
"""Emissions of which a column may stay as it is, if others change."""


class HiddenMarkovTask(FitTask):
    """How a hidden Markov model is fitted."""

    name = "hmm"
    settings = HiddenMarkovRunSettings
    told_before = 1

    def emission(self, settings: Any, *, text: bool) -> str:
        """What each state's outputs are.

        Args:
            settings: of the run.
            text: whether files are a text of symbols.

        Returns:
            What was said, or what the files tell.

        Raises:
            ConfigurationError: a text of what is no symbol.
        """
        said = settings.model.emission
        if text and said not in (None, "categorical"):
            raise ConfigurationError(
                f"a text of symbols needs `model.emission=categorical`, got `{said}`; give a CSV file (`data.format=csv`) for numbers"
            )
        return said or ("categorical" if text else "gaussian")

    def symbolic(self, settings: Any, *, text: bool) -> bool:
        """Cells are symbols where outputs are categorical.

        Args:
            settings: of the run.
            text: whether files are a text of symbols.

        Returns:
            The answer.
        """
        return self.emission(settings, text=text) == "categorical"

    def one_column_is_enough(self, settings: Any) -> bool:
        """Counts and switches may have columns that stay as they are.

        Args:
            settings: of the run.

        Returns:
            Whether they may.
        """
        return settings.model.emission in MAY_STAY

    def sizes(self, settings: Any) -> tuple[int | None, ...]:
        """Numbers of states.

        Args:
            settings: of the run.

        Returns:
            At least one.
        """
        return tuple(settings.model.states)

    def check(self, settings: Any, found: SeriesFile, source: str) -> None:
        """Refuse several columns of symbols, another number of them than there are, and numbers that the emission does not know.

        Args:
            settings: of the run.
            found: the series.
            source: where they came from.

        Raises:
            ConfigurationError: another number of symbols.
            DataError: such columns or numbers.
        """
        said = settings.model.symbols
        if found.symbols and said not in (None, len(found.symbols)):
            raise ConfigurationError(
                f"`model.symbols` must be {len(found.symbols)}, as many different symbols as `{source}` holds, got {said}; leave it out"
            )
        if found.symbols and len(found.targets) > 1:
            names = ", ".join(f"`{name}`" for name in found.targets)
            raise DataError(f"categorical outputs are one column of symbols, got {names} in `{source}`; name one of them (`data.targets`)")
        wrong = REFUSED.get(settings.model.emission or "")
        if wrong is None:
            return
        for one in found.series:
            bad = np.argwhere(wrong.refused(np.nan_to_num(one.values)))
            if len(bad):
                point, column = bad[0]
                at = f"`{found.targets[column]}` at `{one.axis.texts[point]}`{f' of `{one.name}`' if one.name else ''} in `{source}`"
                raise DataError(f"{wrong.must}, got {one.values[point, column]:g} in {at}; try another `model.emission`")

    def fit_one(self, settings: Any, size: int | None, data: FitData, watch: Watch) -> Fitted:
        """Baum–Welch, from several beginnings.

        Args:
            settings: of the run.
            size: states.
            data: what it is fitted to.
            watch: is told of each iteration.

        Returns:
            The model, and whether it met its tolerance.
        """
        choice: HiddenMarkovChoice = settings.model
        symbols = len(data.reading.symbols) or None
        changes = {"states": size, "emission": self.emission(settings, text=data.reading.text), "symbols": symbols}
        told = {name: value for name, value in choice.model_dump().items() if name != "start"} | changes
        if choice.start is None:
            model = HiddenMarkovModel(**told)
        else:
            dynamics, emission = _given_parts(choice.start, HiddenMarkovModel(**told).settings, data)
            model = HiddenMarkovModel(dynamics=dynamics, emission=emission)
            model.settings = resolve(HiddenMarkovSettings, told)
        return Fitted(model, model.fit(data.outputs, data.inputs, watch=watch).converged)

    def notes(self, model: HiddenMarkovModel, data: FitData) -> Sequence[str]:
        """Variances that ended at their floor; see `FitTask.notes`.

        Args:
            model: the best one.
            data: that it was fitted to.

        Returns:
            Sentences.
        """
        return model.notes(data.outputs)

    def learnt(self, model: Any, data: FitData) -> list[Part]:
        """States and transitions.

        Args:
            model: fitted.
            data: what it was fitted to.

        Returns:
            Tables.
        """
        posterior = model.posterior(data.outputs, data.inputs)
        shares = posterior.data[posterior.mask].mean(0)
        return hidden_markov(model, data.reading.targets, data.reading.symbols, shares)

    def open_run(self, folder: RunFolder, *, trust: bool) -> HiddenMarkovRun:
        """Open a run.

        Args:
            folder: the run.
            trust: not needed: such a run imports nothing.

        Returns:
            The run.
        """
        return HiddenMarkovRun(folder, resolve(self.settings, folder.read_config()), HiddenMarkovModel.load(folder.model))


class Refused(NamedTuple):
    """Numbers that an emission does not know."""

    refused: Callable[[np.ndarray], np.ndarray]
    must: str


REFUSED: dict[str, Refused] = {
    "poisson": Refused(lambda values: (values < 0) | (values != np.round(values)), "counts must be whole numbers from 0 on"),
    "bernoulli": Refused(lambda values: (values != 0) & (values != 1), "Bernoulli outputs must be 0 or 1"),
}
"""By emission."""


def _given_parts(path: str, settings: HiddenMarkovSettings, data: FitData) -> tuple[Dynamics, Emission]:
    """Where to begin: what a person gave, and for the rest what the data say."""
    generator = torch.Generator().manual_seed(settings.seed)
    dynamics = start_dynamics(settings, data.inputs, generator)
    emission = STARTS[settings.emission](as_padded(data.outputs), settings, generator)
    parts: dict[str, Any] = {"dynamics": dynamics, "emission": emission}
    usual = {name: (part, tensor) for part in parts for name, tensor in parts[part].parameters().items()}
    found = read_start(path, usual)
    for name, given in found.items():
        tensor = usual[name][1]
        if given.shape != tensor.shape:
            raise DataError(
                f"`{name}` in `{path}` must have the shape {tuple(tensor.shape)} for {settings.states} states, got {tuple(given.shape)}"
            )
    chosen = {part: {name: given for name, given in found.items() if usual[name][0] == part} for part in parts}
    return replace(parts["dynamics"], **chosen["dynamics"]), emission.with_parameters(chosen["emission"])


HIDDEN_MARKOV = HiddenMarkovTask()
fit_hidden_markov_model = HIDDEN_MARKOV.fit
"""Fit a hidden Markov model to series of numbers or symbols; see `FitTask.fit`."""
