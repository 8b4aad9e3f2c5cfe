"""What a training leaves in its run folder as it goes, and what it shows."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import nn

from unrolled.core.errors import ConfigurationError
from unrolled.core.files import append_line
from unrolled.nn.ways import ways_in_words
from unrolled.report import write_report
from unrolled.tasks.run_folder import RunFolder, truncate_lines
from unrolled.train.checkpoint import weights_of, write_checkpoint
from unrolled.train.group import Group
from unrolled.train.loop import Observer, Record, Source


@runtime_checkable
class Display(Protocol):
    """Shows a training to a person; does nothing unless a front end gives it hands."""

    def begun(self, facts: Record) -> None:
        """What is about to be trained.

        Args:
            facts: as in `run.json`.
        """

    def advanced(self, done: float, record: Record) -> None:
        """Progress after an update.

        Args:
            done: share of the training, 0 to 1.
            record: step, seconds, tokens.
        """

    def evaluated(self, record: Record) -> None:
        """Figures of an evaluation.

        Args:
            record: as in the metrics file.
        """

    def sampled(self, record: Record) -> None:
        """A sample at a stage of training.

        Args:
            record: as in the samples file.
        """

    def noted(self, text: str) -> None:
        """Something a person should know.

        Args:
            text: a sentence.
        """


class Silence:
    """A display that shows nothing."""

    def begun(self, facts: Record) -> None:
        """Nothing.

        Args:
            facts: ignored.
        """

    def advanced(self, done: float, record: Record) -> None:
        """Nothing.

        Args:
            done: ignored.
            record: ignored.
        """

    def evaluated(self, record: Record) -> None:
        """Nothing.

        Args:
            record: ignored.
        """

    def sampled(self, record: Record) -> None:
        """Nothing.

        Args:
            record: ignored.
        """

    def noted(self, text: str) -> None:
        """Nothing.

        Args:
            text: ignored.
        """


class Prepared(NamedTuple):
    """What a training needs besides its settings."""

    objective: nn.Module
    """Turns a window of the source into a `Loss`; has the model as `model`."""
    source: Source
    evaluate: Callable[[Any, Group], Record | None]
    """Scores the objective it is given on the validation part."""
    sample: Callable[[Any, Record], Record | None]
    """What is kept of the model at a stage of training, or `None`."""


class Recorder(Observer):
    """Writes metrics, samples and the best weights into the run folder; only the leading process writes."""

    def __init__(
        self,
        folder: RunFolder,
        group: Group,
        prepared: Prepared,
        *,
        display: Display | None = None,
        tensorboard: bool = False,
        first_step: int = 0,
        keep: int = 0,
    ) -> None:
        """Record a training.

        Args:
            folder: where to.
            group: the processes that share the training.
            prepared: what is trained; it is scored on every process and sampled on the leading one.
            display: shows what happens.
            tensorboard: also write TensorBoard files.
            first_step: updates before this training went on; what TensorBoard has of later ones is void.
            keep: evaluations whose weights stay besides the best ones.
        """
        self.folder, self.group, self.prepared = folder, group, prepared
        self.display: Display = display or Silence()
        self.stop, self.keep = False, keep
        self._advanced = False
        self.board = open_tensorboard(folder.tensorboard, first_step) if tensorboard and group.leads else None

    def evaluate(self, module: nn.Module) -> Record | None:
        """Score the validation part.

        Args:
            module: the objective with the weights to score.

        Returns:
            Figures, or `None` when there is nothing to score.
        """
        return self.prepared.evaluate(module, self.group)

    def log(self, record: Record) -> None:
        """Write a line of metrics.

        Args:
            record: the line.
        """
        if self.group.leads:
            append_line(self.folder.metrics, record)
            self._to_board(record)

    def evaluated(self, module: nn.Module, record: Record, best: bool) -> None:
        """Write the figures, the weights when they are the best so far, and a sample.

        Args:
            module: the objective that was scored.
            record: its figures.
            best: whether no earlier loss was as low.
        """
        if not self.group.leads:
            return
        if best:
            write_weights(self.folder.weights, module, record)
        if self.keep:
            self._keep(module, record)
        self.log(record)
        self.display.evaluated(record)
        sample = self.prepared.sample(module, record)
        if sample is not None:
            append_line(self.folder.samples, sample)
            self.display.sampled(sample)
        write_report(self.folder.path)

    def advanced(self, done: float, record: Record) -> None:
        """Pass progress on to the display.

        Args:
            done: share of the training.
            record: step, seconds, tokens.
        """
        if self.group.leads:
            if not self._advanced:
                self._tell_ways()
            self.display.advanced(done, record)

    def counters(self) -> Record:
        """How long the line files are now, so that resuming can cut them back.

        Returns:
            Bytes by file.
        """
        return {name: _size(getattr(self.folder, name)) for name in ("metrics", "samples")}

    def rewind(self, counters: Record | None) -> None:
        """Cut the line files back to a checkpoint.

        Args:
            counters: from `counters`; `None` where nothing had been saved yet.
        """
        if self.group.leads:
            for name, size in (counters or dict.fromkeys(self.counters(), 0)).items():
                truncate_lines(getattr(self.folder, name), size)

    def stop_requested(self) -> bool:
        """Whether Ctrl-C was pressed.

        Returns:
            True once it was.
        """
        return self.stop

    def _keep(self, module: nn.Module, record: Record) -> None:
        """Write the weights of this evaluation and remove those that are too old by now, or of a training that was cut back."""
        self.folder.kept.mkdir(exist_ok=True)
        write_weights(self.folder.kept / f"{record['step']:09}.safetensors", module, record)
        steps = {int(path.stem): path for path in self.folder.kept.glob("*.safetensors")}
        past = sorted(step for step in steps if step <= record["step"])
        for step in steps.keys() - set(past[-self.keep :]):
            steps[step].unlink()

    def _tell_ways(self) -> None:
        """After the first update it is known how the cells are unrolled."""
        self._advanced, ways = True, ways_in_words(self.prepared.objective)
        if ways != self.folder.facts().get("cells", ""):
            self.folder.update_facts(cells=ways)  # a run may go on where it is another way
        if ways:
            self.display.noted(ways)

    def _to_board(self, record: Record) -> None:
        if self.board is None:
            return
        for key, value in record.items():
            if isinstance(value, float | int) and key not in ("step", "tokens"):
                self.board.add_scalar(f"{record['kind']}/{key}", value, record["step"])
        self.board.flush()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def write_weights(path: Path, objective: nn.Module, record: Record) -> None:
    """Write the weights of a trained model with what is known of them.

    Args:
        path: where to.
        objective: has the model as `model`.
        record: step and loss, kept in the file's header.
    """
    model: Any = objective.model
    write_checkpoint(path, weights_of(model), {key: record[key] for key in ("step", "loss") if key in record})


def open_tensorboard(path: Path | None, first_step: int = 0) -> Any:
    """A TensorBoard writer.

    Args:
        path: its folder; with `None` only whether TensorBoard is there is found out.
        first_step: what the folder has of later steps is void.

    Returns:
        torch's `SummaryWriter`, or `None` without a folder.

    Raises:
        ConfigurationError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigurationError(
            "`train.tensorboard` needs TensorBoard, which is not installed; run `pip install 'unrolled[track]'`"
        ) from None
    return None if path is None else SummaryWriter(str(path), purge_step=first_step + 1)


@contextlib.contextmanager
def note_failure(folder: RunFolder, worthless: Callable[[], bool]) -> Iterator[None]:
    """When a training ends with an error, leave word in the run folder, or remove a folder that holds nothing worth keeping.

    Args:
        folder: of the run.
        worthless: whether there is nothing to go on from.

    Yields:
        Nothing.

    Raises:
        BaseException: the error, as it came.
    """
    try:
        yield
    except BaseException as error:
        if worthless():
            folder.remove()
        elif isinstance(error, Exception):
            with contextlib.suppress(Exception):  # the disk may be what failed; the first error is the one to see
                folder.update_facts(status="failed")
        raise


def change_of_surroundings(before: Record, now: Record) -> str:
    """What of the machine is another than when the run began or last went on.

    Args:
        before: as `run.json` remembers it.
        now: as it is.

    Returns:
        A sentence, or nothing when all is as it was.
    """
    other = [f"{key} {now[key]} (was {before[key]})" for key in now if key in before and now[key] != before[key]]
    return f"going on with {', '.join(other)}: the weights will not be those of an uninterrupted run to the last bit" if other else ""


@contextlib.contextmanager
def stop_on_interrupt(recorder: Recorder) -> Iterator[None]:
    """Turn the first Ctrl-C (or a polite kill) into a request to save and stop; the second one ends at once.

    Args:
        recorder: is told to stop.

    Yields:
        Nothing.
    """

    def ask(number: int, frame: object) -> None:
        if recorder.stop:
            raise KeyboardInterrupt
        recorder.stop = True
        recorder.display.noted("stopping: what is trained is saved after this step; Ctrl-C again ends at once")

    before: dict[int, Any] = {}
    with contextlib.suppress(ValueError):  # only the main thread may set handlers
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
