"""Open any run, whatever its task."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from unrolled.core.errors import ConfigurationError, RunError, nearest
from unrolled.tasks.classification import load_classification
from unrolled.tasks.forecasting import load_forecasting
from unrolled.tasks.language_model import load_language_model
from unrolled.tasks.masked_language_model import load_masked_language_model
from unrolled.tasks.run_folder import RunFolder
from unrolled.tasks.tagging import load_tagging
from unrolled.tasks.translation import load_translation
from unrolled.train.precision import choose_device

LOADERS: dict[str, Callable[..., Any]] = {
    "lm": load_language_model,
    "translation": load_translation,
    "tagging": load_tagging,
    "classification": load_classification,
    "masked-lm": load_masked_language_model,
    "forecasting": load_forecasting,
}
"""How a run of each task is opened."""


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
    if found not in LOADERS:
        raise RunError(f"the run `{path}` is of the task `{found}`, which this version does not know; {nearest(str(found), LOADERS)}")
    place = choose_device(device)
    run = LOADERS[found](path, trust=trust)
    run.model.to(place)
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
            task = run.folder.fact("task")
            raise ConfigurationError(f"`{name}` is no option of evaluating a run of the task `{task}`; its options are {known}")
