"""Open any run, whatever its task."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unrolled.core.errors import ConfigurationError, RunError, nearest
from unrolled.tasks.classification import CLASSIFICATION
from unrolled.tasks.fit_hmm import HIDDEN_MARKOV
from unrolled.tasks.fit_linear import LINEAR_SYSTEM, STRUCTURAL
from unrolled.tasks.forecasting import FORECASTING
from unrolled.tasks.language_model import LANGUAGE_MODEL
from unrolled.tasks.masked_language_model import MASKED
from unrolled.tasks.run_folder import RunFolder
from unrolled.tasks.tagging import TAGGING
from unrolled.tasks.task import RunTask
from unrolled.tasks.translation import TRANSLATION
from unrolled.train.precision import choose_device

TRAINED: tuple[RunTask[Any], ...] = (LANGUAGE_MODEL, TRANSLATION, TAGGING, CLASSIFICATION, MASKED, FORECASTING)
"""Tasks of `unrolled train`."""
FITTED: tuple[RunTask[Any], ...] = (HIDDEN_MARKOV, LINEAR_SYSTEM, STRUCTURAL)
"""Tasks of `unrolled fit`."""
TASKS: dict[str, RunTask[Any]] = {task.name: task for task in (*TRAINED, *FITTED)}
"""All tasks by name."""


def load(path: Path | str, *, trust: bool = False, device: str = "cpu", task: str | None = None) -> Any:
    """Open a run: `unrolled.load("runs/r1").sample("From fairest")`.

    Args:
        path: the run folder.
        trust: consent to importing a class of the user's own that the run names.
        device: what computes: `cpu`, `cuda`, `cuda:1`; `auto` takes a GPU where there is one.
        task: the one that the run must be of; any when `None`.

    Returns:
        The run, in the form its task gives it.

    Raises:
        RunError: no run, one of another task, or one of a task that this version does not know.
    """
    folder = RunFolder(Path(path))
    if task is not None:
        folder.check_task(task)
    found = folder.facts().get("task")
    if found not in TASKS:
        raise RunError(f"the run `{path}` is of the task `{found}`, which this version does not know; {nearest(str(found), TASKS)}")
    place = choose_device(device)
    run = TASKS[found].load(path, trust=trust)
    if TASKS[found] not in FITTED:
        run.model.to(place)
    elif place.type != "cpu" and device != "auto":
        raise ConfigurationError(
            f"`{path}` is of the task `{found}`, which computes on the processor alone, got `--device {device}`; leave it out"
        )
    return run


def refuse_foreign_options(run: Any, names: Iterable[str]) -> None:
    """Refuse options of evaluation that belong to another task.

    Args:
        run: an opened run; `evaluation_options` lists what its `evaluate` takes.
        names: of the options that were given.

    Raises:
        ConfigurationError: one of them is not the task's.
    """
    for name in names:
        if name not in run.evaluation_options:
            known = ", ".join(f"`{option}`" for option in sorted(run.evaluation_options))
            advice = f"its options are {known}" if known else "it has none"
            task = run.folder.fact("task")
            raise ConfigurationError(f"`{name}` is no option of evaluating a run of the task `{task}`; {advice}")
