"""What every task does for a person in the same way: train a run, go on with one, open one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from unrolled.core.settings import resolve
from unrolled.tasks.recorded_data import recorded_files
from unrolled.tasks.run_folder import RunFolder
from unrolled.tasks.training import Kind, as_paths, train_new, train_on
from unrolled.tasks.training_log import Display, Prepared
from unrolled.tasks.without_effect import Rule
from unrolled.train.group import Group
from unrolled.train.precision import Machine

Run = TypeVar("Run")


class DataFiles(NamedTuple):
    """The files of a run."""

    train: list[Path]
    valid: list[Path]
    """None where a part of the others validates."""


class RunTask(ABC, Generic[Run]):
    """A task whose runs can be opened."""

    name: ClassVar[str]
    """On the command line and in `run.json`."""
    settings: ClassVar[type[Any]]
    """Of its runs."""

    @abstractmethod
    def open_run(self, folder: RunFolder, *, trust: bool) -> Run:
        """Open a run of this task with its best weights.

        Args:
            folder: the run.
            trust: allow the run to import a class of its own.

        Returns:
            The run.
        """

    def load(self, path: Path | str, *, trust: bool = False) -> Run:
        """Open a run with its best weights.

        Args:
            path: the run folder.
            trust: allow the run to import a class of its own.

        Returns:
            The run.
        """
        folder = RunFolder(Path(path))
        folder.check_task(self.name)
        return self.open_run(folder, trust=trust)


class Task(RunTask[Run]):
    """A task whose runs are trained."""

    rules: ClassVar[tuple[Rule, ...]]
    """Which of its options do nothing, and when."""

    @abstractmethod
    def prepare(self, folder: RunFolder, settings: Any, group: Group, trust: bool) -> Prepared:
        """Open what a run folder describes.

        Args:
            folder: the run.
            settings: of the run.
            group: the processes that share the training.
            trust: allow the settings to import a class of the user's own.

        Returns:
            What is trained, on what, and how it is scored.
        """

    def kind(self) -> Kind:
        """What every training wants to know of its task.

        Returns:
            The hands of this task.
        """
        return Kind(self.name, self.settings, self.prepare, recorded_files, self.rules)

    @abstractmethod
    def create_run(
        self, path: Path, settings: Any, files: DataFiles, machine: Machine, group: Group, display: Display | None, *, trust: bool
    ) -> None:
        """Make the run folder; everything that can go wrong before training goes wrong here, and then leaves nothing behind.

        Args:
            path: where the run shall stand.
            settings: of the run.
            files: to train on and to validate on.
            machine: what computes.
            group: the processes that will share the training.
            display: is told what a person should know.
            trust: allow the settings to import a class of the user's own.
        """

    def train(
        self,
        files: Sequence[Path | str] | Path | str,
        *,
        valid: Sequence[Path | str] | Path | str = (),
        out: Path | str | None = None,
        differences: Mapping[str, Any] | None = None,
        display: Display | None = None,
        trust: bool = False,
    ) -> Run:
        """Train a new run.

        Args:
            files: one path or several, in a form that the task reads; plain or `.gz`.
            valid: to validate on; a part of `files` when empty.
            out: the run folder; a new one below `runs/` when `None`.
            differences: nested options that differ from the defaults, such as `{"train": {"minutes": 3}}`.
            display: shows the training as it goes.
            trust: allow the settings to import a class of the user's own.

        Returns:
            The run, with the best weights loaded.
        """
        paths, settings = DataFiles(as_paths(files), as_paths(valid)), resolve(self.settings, differences or {})

        def create(path: Path, machine: Machine, group: Group) -> None:
            self.create_run(path, settings, paths, machine, group, display, trust=trust)

        return self.trained(settings, paths, create, out=out, display=display, trust=trust)

    def trained(
        self,
        settings: Any,
        files: DataFiles,
        create: Callable[[Path, Machine, Group], None],
        *,
        out: Path | str | None,
        display: Display | None,
        trust: bool,
    ) -> Run:
        """Make a run and train it to its end.

        Args:
            settings: of the run.
            files: one of them gives a run without a name its own.
            create: makes the run folder at a path.
            out: where the run shall stand; a new place below `runs/` when `None`.
            display: shows the training as it goes.
            trust: allow the settings to import a class of the user's own.

        Returns:
            The run, with the best weights loaded.
        """
        stem = f"{self.name}-{files.train[0].name.split('.')[0]}" if files.train else self.name
        return self.load(train_new(self.kind(), settings, create, out=out, stem=stem, display=display, trust=trust), trust=trust)

    def resume(
        self, path: Path | str, *, changes: Mapping[str, Any] | None = None, display: Display | None = None, trust: bool = False
    ) -> Run:
        """Go on with a training where its last checkpoint stands.

        Args:
            path: the run folder.
            changes: nested options; only the end of the training, its surroundings, and what saves one that diverges may change.
            display: shows the training as it goes.
            trust: allow the settings to import a class of the user's own.

        Returns:
            The run, with the best weights loaded.
        """
        return self.load(train_on(self.kind(), path, changes or {}, display=display, trust=trust), trust=trust)
