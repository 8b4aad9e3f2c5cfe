"""Fitting a classical model to series: the same way for all of them, from files to a run folder."""

from __future__ import annotations

import functools
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch

from unrolled.core.errors import DataError, RunError, UserError
from unrolled.core.files import write_json, write_text
from unrolled.core.settings import resolve
from unrolled.data.series import SeriesFile
from unrolled.report import write_look
from unrolled.ssm.watch import Watch
from unrolled.tasks.fit_data import FitData, check_fit, open_data, reading_of, reads_text, save_reading, tensors_of
from unrolled.tasks.fit_history import History, history_lines
from unrolled.tasks.fit_learnt import Part
from unrolled.tasks.fit_look import trace_fit
from unrolled.tasks.fitted_run import FittedRun
from unrolled.tasks.recorded_data import record_files
from unrolled.tasks.run_folder import RunFolder, first_facts, new_run
from unrolled.tasks.task import RunTask
from unrolled.tasks.training import as_paths, place_run


@runtime_checkable
class FitDisplay(Protocol):
    """Shows a fit to a person."""

    def noted(self, text: str) -> None:
        """A sentence that a person should know.

        Args:
            text: it.
        """

    def iterated(self, size: int | None, start: int, iteration: int, log_likelihood: float) -> None:
        """How far a search has come.

        Args:
            size: which of several sizes is tried; `None` where a model has none.
            start: which beginning, counted from 1.
            iteration: of it, counted from 1; 0 for the beginning itself, where a model tells of it.
            log_likelihood: reached.
        """


class Fitted(NamedTuple):
    """A model, and how its search ended."""

    model: Any
    converged: bool
    """Whether it ended by itself."""


class Tried(NamedTuple):
    """A model that was fitted."""

    size: int | None
    """Its states; `None` where its kind has no size."""
    model: Any
    log_likelihood: float
    parameters: int
    aic: float
    bic: float
    history: History
    converged: bool
    """Whether its search ended by itself."""

    @property
    def figures(self) -> dict[str, Any]:
        """What is said of it."""
        sized = {} if self.size is None else {"states": self.size}
        told = {name: getattr(self, name) for name in ("log_likelihood", "parameters", "aic", "bic")}
        return sized | told | {"iterations": self.history.iterations}


class Found(NamedTuple):
    """What came of all sizes."""

    tried: list[Tried]
    """At least one."""
    failed: list[dict[str, Any]]
    """Those that could not be fitted: `states`, and the `error`."""
    seconds: float

    @property
    def best(self) -> Tried:
        """The one that the Bayesian criterion chooses."""
        return min(self.tried, key=lambda one: one.bic)


class FitTask(RunTask[FittedRun]):
    """A task of `unrolled fit`: how its models are made, fitted and opened."""

    told_before: ClassVar[int] = 0
    """How many log-likelihoods a search tells before its first iteration."""

    def symbolic(self, settings: Any, *, text: bool) -> bool:
        """Whether cells are symbols.

        Args:
            settings: of the run.
            text: whether files are a text of symbols.

        Returns:
            False, where a task does not say more: cells are numbers.
        """
        return False

    def one_column_is_enough(self, settings: Any) -> bool:
        """Whether a fit is possible where only one of several columns changes.

        Args:
            settings: of the run.

        Returns:
            False, where a task does not say more.
        """
        return False

    def sizes(self, settings: Any) -> tuple[int | None, ...]:
        """What is tried.

        Args:
            settings: of the run.

        Returns:
            Numbers of states; a single `None` where the kind has no size.
        """
        return (None,)

    @abstractmethod
    def fit_one(self, settings: Any, size: int | None, data: FitData, watch: Watch) -> Fitted:
        """Fit a model.

        Args:
            settings: of the run.
            size: one of `sizes`.
            data: what it is fitted to.
            watch: is told of each iteration.

        Returns:
            The model, and whether its search ended by itself.
        """

    def check(self, settings: Any, found: SeriesFile, source: str) -> None:
        """Refuse what cannot be before anything is computed.

        Args:
            settings: of the run.
            found: the series.
            source: where they came from.
        """

    @abstractmethod
    def learnt(self, model: Any, data: FitData) -> list[Part]:
        """What a model has learnt.

        Args:
            model: fitted.
            data: what it was fitted to.

        Returns:
            Tables.
        """

    def fit(
        self,
        files: Sequence[Path | str] | Path | str,
        *,
        out: Path | str | None = None,
        differences: Mapping[str, Any] | None = None,
        display: FitDisplay | None = None,
    ) -> FittedRun:
        """Fit a model to series and keep it in a new run; one that fails leaves nothing behind.

        Args:
            files: one path or several: CSV files, or for symbols a text as well; plain or `.gz`.
            out: the run folder; a new one below `runs/` when `None`.
            differences: nested options that differ from the defaults, such as `{"model": {"states": 3}}`.
            display: shows the fit as it goes.

        Returns:
            The run.

        Raises:
            DataError: no file.
            RunError: something stands at `out` already.
        """
        paths, settings, place = as_paths(files), resolve(self.settings, differences or {}), None if out is None else Path(out)
        if not paths:
            raise DataError(f"fitting a model of the task `{self.name}` needs at least one file of series, got none; give a path")
        if place is not None and place.exists():
            raise RunError(f"`{place}` exists already; choose another folder with `--out`, or remove it")
        text = reads_text(settings.data, paths)
        found = open_data(settings.data, paths, symbols=self.symbolic(settings, text=text))
        source = ", ".join(path.name for path in paths)
        check_fit(found, source, any_column=self.one_column_is_enough(settings))
        self.check(settings, found, source)
        if display is not None:
            for said in found.findings:
                display.noted(said)
        outputs, inputs = tensors_of(found.series)
        data = FitData(outputs, inputs, reading_of(found, text=text))
        # Computed once, though another process may take the first free place meanwhile.
        search = functools.cache(lambda: self._search(settings, data, display))

        def create(at: Path) -> None:
            # What cannot be written is told before the fit, and files are noted as they were when they were read.
            with new_run(at) as folder:
                recorded = record_files(folder, paths, [])
                self._keep(folder, first_facts(self.name, at.name) | {"data": recorded}, settings, data, search())
                trace = trace_fit(self.open_run(folder, trust=False), found, source)
                write_look(trace | {"run": str(at)}, folder.report)

        return self.load(place_run(place, f"{self.name}-{paths[0].name.split('.')[0]}", create))

    def notes(self, model: Any, data: FitData) -> Sequence[str]:
        """What a person should know about a fitted model.

        Args:
            model: the best one.
            data: that it was fitted to.

        Returns:
            Sentences.
        """
        return ()

    def _search(self, settings: Any, data: FitData, display: FitDisplay | None) -> Found:
        """Fit every size; of several, those that cannot be fitted are left out."""
        begin, tried, errors = time.monotonic(), [], {}
        sizes = self.sizes(settings)
        for size in sizes:
            try:
                tried.append(self._try(settings, size, data, display))
            except (UserError, torch.linalg.LinAlgError) as error:
                if len(sizes) == 1:
                    raise
                errors[size] = error
        if not tried:
            raise next(iter(errors.values()))
        failed = [{"states": size, "error": str(error)} for size, error in errors.items()]
        found = Found(tried, failed, time.monotonic() - begin)
        if display is not None:
            for one in failed:
                display.noted(f"{one['states']} state{'s' * (one['states'] != 1)} could not be fitted: {one['error']}")
            for said in self.notes(found.best.model, data):
                display.noted(said)
            if not found.best.converged:
                display.noted(f"the fit ended at `model.iterations={settings.model.iterations}` and might go on; try more of them")
        return found

    def _try(self, settings: Any, size: int | None, data: FitData, display: FitDisplay | None) -> Tried:
        history = History(self.told_before)

        def watch(start: int, iteration: int, log_likelihood: float) -> None:
            history.take(start, iteration, log_likelihood)
            if display is not None:
                display.iterated(size, start, iteration - self.told_before, log_likelihood)

        model, converged = self.fit_one(settings, size, data, watch)
        likelihood = model.score(data.outputs, data.inputs)
        return Tried(size, model, likelihood, model.free_parameters, model.aic(), model.bic(), history, converged)

    def _keep(self, folder: RunFolder, facts: dict[str, Any], settings: Any, data: FitData, found: Found) -> None:
        best, seen = found.best, values_seen(data)
        best.model.save(folder.model)
        save_reading(data.reading, folder.series)
        write_json(folder.learnt, self.learnt(best.model, data))
        folder.write_config(settings)
        write_text(folder.metrics, history_lines({one.size: one.history for one in found.tried}))
        result = best.figures | {
            "loss": -best.log_likelihood / max(seen, 1),
            "steps": best.history.iterations,
            "seconds": round(found.seconds, 2),
        }
        read = {"series": len(data.outputs.data), "targets": list(data.reading.targets), "values": seen}
        more = {"unit": "value", "samples": False, "data": facts["data"] | read, "parameters": best.parameters}
        told = {"status": "finished", "result": result, "tried": [one.figures for one in found.tried]}
        folder.write_facts(facts | more | told | ({"failed": found.failed} if found.failed else {}))


def values_seen(data: FitData) -> int:
    """How many values a model is fitted to.

    Args:
        data: what it is fitted to.

    Returns:
        Those that are not missing.
    """
    return int((~data.outputs.data[data.outputs.mask].isnan()).sum())
