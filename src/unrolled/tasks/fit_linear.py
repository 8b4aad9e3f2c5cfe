"""How linear-Gaussian models are fitted to series: structural models of one column, and linear dynamical systems of several."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.core.settings import resolve
from unrolled.data.series import SeriesFile
from unrolled.ssm.kalman import (
    ARMA,
    Component,
    LinearDynamicalSystem,
    LinearGaussian,
    LocalLevel,
    LocalTrend,
    Regression,
    Seasonal,
    StructuralModel,
    Structure,
    TrigonometricSeasonal,
)
from unrolled.ssm.kalman.dynamical import start_system
from unrolled.ssm.kalman.structural import checked_fixed
from unrolled.ssm.watch import Watch
from unrolled.tasks.fit_data import FitData, reading_of
from unrolled.tasks.fit_learnt import Part, linear_system, structural
from unrolled.tasks.fit_settings import LinearSystemRunSettings, LinearSystemSettings, StructuralRunSettings, StructuralSettings
from unrolled.tasks.fit_start import read_start
from unrolled.tasks.fitting import FitTask, Fitted
from unrolled.tasks.linear_run import LinearRun
from unrolled.tasks.run_folder import RunFolder

LONGEST_SEASON = 60
"""States of a season that nobody asked for in numbers; with more of them a fit takes minutes."""
WAVES = 4
"""Advised where a season has more states."""


class StructuralTask(FitTask):
    """How a structural model is fitted."""

    name = "structural"
    settings = StructuralRunSettings

    def check(self, settings: Any, found: SeriesFile, source: str) -> None:
        """Refuse several columns, and what the model cannot be.

        Args:
            settings: of the run.
            found: the series.
            source: where they came from.

        Raises:
            DataError: several columns.
        """
        if len(found.targets) > 1:
            names = ", ".join(f"`{name}`" for name in found.targets)
            raise DataError(
                f"a structural model explains one column, got {names} in `{source}`; name one of them (`data.targets`), or try `unrolled fit lds`"
            )
        components = components_of(settings.model, reading_of(found, text=False).season, len(found.known))
        kinds = StructuralModel(components, irregular=settings.model.irregular).kinds()
        checked_fixed(settings.model.fixed, kinds, "model.fixed")

    def fit_one(self, settings: Any, size: int | None, data: FitData, watch: Watch) -> Fitted:
        """Maximum likelihood from three beginnings.

        Args:
            settings: of the run.
            size: `None`.
            data: what it is fitted to.
            watch: is told of each evaluation.

        Returns:
            The model, and whether its search ended by itself.
        """
        components = components_of(settings.model, data.reading.season, len(data.reading.known))
        model = StructuralModel(components, irregular=settings.model.irregular, fixed=settings.model.fixed)
        model.fit(data.outputs, data.inputs, iterations=settings.model.iterations, watch=watch)
        return Fitted(model, bool(model.converged))

    def learnt(self, model: Any, data: FitData) -> list[Part]:
        """The parameters.

        Args:
            model: fitted.
            data: what it was fitted to.

        Returns:
            Tables.
        """
        return structural(model)

    def open_run(self, folder: RunFolder, *, trust: bool) -> LinearRun:
        """Open a run.

        Args:
            folder: the run.
            trust: not needed: such a run imports nothing.

        Returns:
            The run.
        """
        return LinearRun(folder, resolve(self.settings, folder.read_config()), StructuralModel.load(folder.model))


def components_of(settings: StructuralSettings, season: int, known: int) -> list[Component]:
    """What a structural model is made of.

    Args:
        settings: of the model.
        season: points of the usual season of the times, 1 where none is known.
        known: how many inputs are known in advance.

    Returns:
        The components.

    Raises:
        ConfigurationError: a season without a period, or a usual one that is too long to be fitted in time.
    """
    period = settings.period or season
    wanted = {"seasonal", "trigonometric"} & set(settings.components)
    if period < 2 and wanted:
        raise ConfigurationError(
            "a season needs its number of points, and the times tell none; give it as `model.period`, such as 12 for months"
        )
    many = "seasonal" in wanted or settings.harmonics is None
    if settings.period is None and period > LONGEST_SEASON and wanted and many:
        raise ConfigurationError(
            f"the usual season of these times is {period} points, and a state for each takes too long to fit; "
            f"try `trigonometric` in `model.components` with `model.harmonics={WAVES}`, or give `model.period={period}` and wait"
        )
    made = {
        "level": LocalLevel,
        "trend": lambda: LocalTrend(damped=settings.damped, smooth=settings.smooth),
        "seasonal": lambda: Seasonal(period),
        "trigonometric": lambda: TrigonometricSeasonal(period, settings.harmonics),
        "arma": lambda: ARMA(settings.autoregressive, settings.moving_average),
    }
    return [made[name]() for name in settings.components] + ([Regression(known)] if known else [])


class LinearSystemTask(FitTask):
    """How a linear dynamical system is fitted."""

    name = "lds"
    settings = LinearSystemRunSettings

    def sizes(self, settings: Any) -> tuple[int | None, ...]:
        """Sizes of the hidden state.

        Args:
            settings: of the run.

        Returns:
            At least one.
        """
        return tuple(settings.model.state_size)

    def fit_one(self, settings: Any, size: int | None, data: FitData, watch: Watch) -> Fitted:
        """EM, or L-BFGS.

        Args:
            settings: of the run.
            size: of the state.
            data: what it is fitted to.
            watch: is told of each iteration.

        Returns:
            The model, and whether its search ended by itself.
        """
        assert size is not None
        choice: LinearSystemSettings = settings.model
        generator = torch.Generator().manual_seed(choice.seed)
        begin = None if choice.start is None else _given_system(choice, size, data, generator)
        structure = Structure(choice.frozen, None, choice.covariances)
        model = LinearDynamicalSystem(size, offset=choice.offset, structure=structure, system=begin)
        if choice.method == "gradient":
            model.fit_by_gradient(data.outputs, data.inputs, iterations=choice.iterations, generator=generator, watch=watch)
        else:
            iterations, tolerance = choice.iterations, choice.tolerance
            model.fit(data.outputs, data.inputs, iterations=iterations, tolerance=tolerance, generator=generator, watch=watch)
        return Fitted(model, bool(model.converged))

    def learnt(self, model: Any, data: FitData) -> list[Part]:
        """The matrices.

        Args:
            model: fitted.
            data: what it was fitted to.

        Returns:
            Tables.
        """
        return linear_system(model, data.reading.targets)

    def open_run(self, folder: RunFolder, *, trust: bool) -> LinearRun:
        """Open a run.

        Args:
            folder: the run.
            trust: not needed: such a run imports nothing.

        Returns:
            The run.
        """
        return LinearRun(folder, resolve(self.settings, folder.read_config()), LinearDynamicalSystem.load(folder.model))


def _given_system(choice: LinearSystemSettings, size: int, data: FitData, generator: torch.Generator) -> LinearGaussian:
    """Where to begin: what a person gave, and for the rest what the data say."""
    assert choice.start is not None
    found: dict[str, Tensor] = read_start(choice.start, LinearGaussian._fields[:-1])
    inputs = 0 if data.inputs is None else data.inputs.shape[2]
    usual = start_system(size, data.outputs, inputs, offset=choice.offset, generator=generator)
    wrong = next((name for name, one in found.items() if one.dim() != (1 if name == "initial_mean" else 2)), None)
    if wrong is not None:
        raise DataError(
            f"`{wrong}` in `{choice.start}` must be {'a list of numbers' if wrong == 'initial_mean' else 'a matrix, a list of rows'}"
        )
    return usual._replace(**found)


STRUCTURAL = StructuralTask()
fit_structural_model = STRUCTURAL.fit
"""Fit a structural model to a series; see `FitTask.fit`."""
LINEAR_SYSTEM = LinearSystemTask()
fit_linear_dynamical_system = LINEAR_SYSTEM.fit
"""Fit a linear dynamical system to series; see `FitTask.fit`."""
