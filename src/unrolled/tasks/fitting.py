"""Fitting a classical model to series: the same way for all of them, from files to a run folder."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from unrolled.core.errors import RunError
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
from unrolled.tasks.run_folder import first_facts, new_run
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
            iteration: of it, counted from 1.
            log_likelihood: reached.
        """


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

    @property
    def figures(self) -> dict[str, Any]:
        """What is said of it."""
        sized = {} if self.size is None else {"states": self.size}
        told = {name: getattr(self, name) for name in ("log_likelihood", "parameters", "aic", "bic")}
        return sized | told | {"iterations": self.history.iterations}


class FitTask(RunTask[FittedRun]):
    """A task of `unrolled fit`: how its models are made, fitted and opened."""

    @abstractmethod
    def symbolic(self, settings: Any, *, text: bool) -> bool:
        """Whether cells are symbols.

        Args:
            settings: of the run.
            text: whether files are a text of symbols.

        Returns:
            The answer.
        """

    def one_column_is_enough(self, settings: Any) -> bool:
        """Whether a fit is possible where only one of several columns changes.

        Args:
            settings: of the run.

        Returns:
            False, where a task does not say more.
        """
        return False

    def most(self, settings: Any) -> int | None:
        """After how many iterations a fit ends though it might go on.

        Args:
            settings: of the run.

        Returns:
            `None` where a task does not count them.
        """
        return None

    @abstractmethod
    def sizes(self, settings: Any) -> tuple[int | None, ...]:
        """What is tried.

        Args:
            settings: of the run.

        Returns:
            Numbers of states; a single `None` where the kind has no size.
        """

    @abstractmethod
    def fit_one(self, settings: Any, size: int | None, data: FitData, watch: Watch) -> Any:
        """Fit a model.

        Args:
            settings: of the run.
            size: one of `sizes`.
            data: what it is fitted to.
            watch: is told of each iteration.

        Returns:
            The model.
        """

    @abstractmethod
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
            RunError: something stands at `out` already.
        """
        paths, settings, place = as_paths(files), resolve(self.settings, differences or {}), None if out is None else Path(out)
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
        begin = time.monotonic()
        data = FitData(outputs, inputs, reading_of(found, text=text))
        tried = [self._try(settings, size, data, display) for size in self.sizes(settings)]
        seconds, most = time.monotonic() - begin, self.most(settings)
        if display is not None and most is not None and min(tried, key=lambda one: one.bic).history.iterations >= most:
            display.noted(f"the fit ended at `model.iterations={settings.model.iterations}` and might go on; try more of them")
        stem = f"{self.name}-{paths[0].name.split('.')[0]}"
        path = place_run(place, stem, lambda at: self._keep(at, settings, paths, data, tried, seconds))
        run = self.load(path)
        write_look(trace_fit(run, found, source), run.folder.report)
        return run

    def _try(self, settings: Any, size: int | None, data: FitData, display: FitDisplay | None) -> Tried:
        history = History()

        def watch(start: int, iteration: int, log_likelihood: float) -> None:
            history.take(start, iteration, log_likelihood)
            if display is not None:
                display.iterated(size, start, iteration, log_likelihood)

        model = self.fit_one(settings, size, data, watch)
        likelihood = model.score(data.outputs, data.inputs)
        return Tried(size, model, likelihood, model.free_parameters, model.aic(), model.bic(), history)

    def _keep(self, path: Path, settings: Any, files: list[Path], data: FitData, tried: list[Tried], seconds: float) -> None:
        best = min(tried, key=lambda one: one.bic)
        seen = int((~data.outputs.data[data.outputs.mask].isnan()).sum())
        with new_run(path) as folder:
            best.model.save(folder.model)
            save_reading(data.reading, folder.series)
            write_json(folder.learnt, self.learnt(best.model, data))
            folder.write_config(settings)
            write_text(folder.metrics, history_lines({one.size: one.history for one in tried}))
            result = best.figures | {
                "loss": -best.log_likelihood / max(seen, 1),
                "steps": best.history.iterations,
                "seconds": round(seconds, 2),
            }
            read = {"series": len(data.outputs.data), "targets": list(data.reading.targets), "values": seen}
            facts = first_facts(self.name, path.name) | {
                "unit": "value",
                "samples": False,
                "data": record_files(folder, files, []) | read,
                "parameters": best.parameters,
            }
            folder.write_facts(facts | {"status": "finished", "result": result, "tried": [one.figures for one in tried]})
