"""Open any run, whatever its task."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from unrolled.core.errors import ConfigurationError, RunError, nearest
from unrolled.tasks.language_model import load_language_model
from unrolled.tasks.run_folder import RunFolder
from unrolled.tasks.translation import load_translation

LOADERS: dict[str, Callable[..., Any]] = {"lm": load_language_model, "translation": load_translation}
"""How a run of each task is opened."""


def load(path: Path | str, *, trust: bool = False) -> Any:
    """Open a run: `unrolled.load("runs/r1").sample("From fairest")`.

    Args:
        path: the run folder.
        trust: consent to importing a class of the user's own that the run names.

    Returns:
        The run, in the form its task gives it.

    Raises:
        RunError: no run, or one of a task that this version does not know.
    """
    task = RunFolder(Path(path)).facts().get("task")
    if task not in LOADERS:
        raise RunError(f"the run `{path}` is of the task `{task}`, which this version does not know; {nearest(str(task), LOADERS)}")
    return LOADERS[task](path, trust=trust)


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
