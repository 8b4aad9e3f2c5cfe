"""A trained model of texts with its vocabulary and its run folder, whatever its task."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch

from unrolled.core.errors import ConfigurationError
from unrolled.core.settings import resolve
from unrolled.tasks.recorded_data import recorded_files
from unrolled.tasks.run_folder import RunFolder
from unrolled.tasks.text_samples import Parts, Samples, load_held
from unrolled.tasks.text_task import TextTask
from unrolled.tasks.training import as_paths, seeded, summary_of
from unrolled.train.checkpoint import load_weights, read_checkpoint
from unrolled.train.loop import Record

SPLITS = ("train", "valid")
Line = TypeVar("Line")


class TextRun:
    """A trained model of texts with its vocabulary and its run folder."""

    evaluation_options = frozenset({"split"})
    """What `evaluate` takes besides files."""

    def __init__(self, task: TextTask[Any], folder: RunFolder, *, trust: bool = False) -> None:
        """Open a run with its best weights.

        Args:
            task: of the run.
            folder: the run.
            trust: allow the run to import a class of its own.
        """
        self.task, self.folder = task, folder
        self.settings = resolve(task.settings, folder.read_config())
        self.held = load_held(folder)
        self.model: Any = seeded(self.settings.train.seed, lambda: task.make_model(self.settings, self.held, trust=trust)).eval()
        tensors, _ = read_checkpoint(folder.weights)
        load_weights(self.model, tensors, folder.weights)

    def parts(self) -> Parts:
        """The run's own samples.

        Returns:
            Those that train and those that validate.
        """
        return self.task.open_parts(self.settings.data, *recorded_files(self.folder))

    def samples(self, files: Sequence[Path | str] | Path | str | None, split: str) -> Samples:
        """What is to be scored.

        Args:
            files: in the form the run was trained on; a part of its own when `None`.
            split: which part, `valid` or `train`.

        Returns:
            The samples.

        Raises:
            ConfigurationError: no such part.
        """
        if files:
            found, notes = self.task.read(self.settings.data, as_paths(files), self.held.labels)
            for note in notes:
                warnings.warn(note, stacklevel=4)
            return found
        if split not in SPLITS:
            raise ConfigurationError(f"`--split` must be one of {', '.join(SPLITS)}, got `{split}`")
        samples: Samples = getattr(self.parts(), split)
        return samples

    @torch.no_grad()
    def scored(self, files: Sequence[Path | str] | Path | str | None, split: str) -> Record:
        """The figures of the model.

        Args:
            files: in the form the run was trained on; a part of its own when `None`.
            split: which part, `valid` or `train`.

        Returns:
            `sentences`, `symbols`, `loss` and the figures of the task; `unseen` where there are labels.
        """
        samples = self.samples(files, split)
        rows = self.task.make_rows(self.settings, samples, self.held, train=False)
        objective = self.task.make_objective(self.settings, self.model, samples, self.held).eval()
        record = self.task.evaluate(objective, samples, rows, self.settings, self.held)
        missed = {} if self.held.labels is None else {"unseen": len(rows.lengths) - len(rows.known)}
        return {name: value for name, value in record.items() if name != "criterion"} | missed

    def summary(self) -> dict[str, Any]:
        """How the training ended.

        Returns:
            Run, status and the best figures.
        """
        return summary_of(self.folder)


def in_blocks(lines: Iterable[Line], count: int) -> Iterator[list[Line]]:
    """As many lines as come, some at a time.

    Args:
        lines: possibly without end.
        count: lines of a block.

    Yields:
        Blocks; the last may be shorter.
    """
    rest = iter(lines)
    while block := list(islice(rest, count)):
        yield block
