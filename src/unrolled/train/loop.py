"""The training loop: it fits any objective to windows of anything, and knows no model."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unrolled.core.errors import RunError, UserError
from unrolled.core.noise import Noise
from unrolled.core.state import State, detach_state, map_state, named_leaves, restore_state
from unrolled.train.checkpoint import load_weights, optimizer_tensors, read_checkpoint, restore_optimizer, weights_of, write_checkpoint
from unrolled.train.group import Group
from unrolled.train.optimizers import Average, Thawing, build_optimizer, clip
from unrolled.train.precision import Machine
from unrolled.train.schedule import count_plateaus, rate_share
from unrolled.train.settings import TrainSettings

Record = dict[str, Any]


class Loss(NamedTuple):
    """What an objective says of one window."""

    objective: Tensor
    """What is minimised: a mean over the scored symbols of this window, with any penalty."""
    nats: Tensor
    """The negative log-likelihood, summed over the scored symbols."""
    state: State
    """The state at the window's `carry_at`, for the next window."""


@runtime_checkable
class Objective(Protocol):
    """A module that turns a window into a `Loss`."""

    def scored(self, window: Any) -> int:
        """How many symbols of the window are scored.

        Args:
            window: what the source of windows gave.

        Returns:
            The weight of this window among others.
        """

    def initial_state(self, batch_size: int) -> State:
        """The state before the first window.

        Args:
            batch_size: rows.

        Returns:
            A state tree.
        """

    def restart(self, state: State, rows: Tensor) -> State:
        """The initial state for some rows of a state.

        Args:
            state: carried from window to window.
            rows: true where a row starts afresh.

        Returns:
            A state tree of the same form.
        """


@runtime_checkable
class Source(Protocol):
    """Gives windows for ever and can be put back to where it stood."""

    def take(self) -> Any:
        """The next window."""

    @property
    def epochs_done(self) -> float:
        """Passes over the data so far."""

    def state_dict(self) -> dict[str, int]:
        """Where the reading stands."""

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there.

        Args:
            state: from `state_dict`.
        """


class Observer:
    """What a training tells its surroundings; every method may be left as it is."""

    def evaluate(self, module: nn.Module) -> Record | None:
        """Score the validation part.

        Args:
            module: the objective with the weights to score.

        Returns:
            Figures with at least `loss`, or `None` when there is nothing to score; the lowest `criterion` is the best, else the lowest loss.
        """
        return None

    def log(self, record: Record) -> None:
        """Take a line of figures.

        Args:
            record: what happened since the last line.
        """

    def evaluated(self, module: nn.Module, record: Record, best: bool) -> None:
        """Take the figures of an evaluation.

        Args:
            module: the objective that was scored.
            record: its figures.
            best: whether no earlier criterion, or loss, was as low.
        """

    def advanced(self, done: float, record: Record) -> None:
        """Show progress.

        Args:
            done: share of the training, 0 to 1.
            record: step, rate, seconds.
        """

    def counters(self) -> Record:
        """What a checkpoint shall remember for the surroundings.

        Returns:
            What JSON can hold.
        """
        return {}

    def stop_requested(self) -> bool:
        """Whether someone wants the training to end now.

        Returns:
            True after Ctrl-C.
        """
        return False


class Counters:
    """Everything that counts up during a training; saved and restored with it."""

    def __init__(self) -> None:
        self.step = 0
        self.tokens = 0
        self.seconds = 0.0
        self.evaluated = 0
        self.losses: list[float] = []
        self.since_log: Record = {
            "nats": 0.0,
            "count": 0,
            "updates": 0,
            "norm": 0.0,
            "largest": 0.0,
            "by_norm": 0,
            "by_value": 0,
            "seconds": 0.0,
        }


class Trainer:
    """Fits an objective: updates, evaluations and checkpoints, from the start or from where a checkpoint stood."""

    def __init__(
        self, objective: nn.Module, source: Source, settings: TrainSettings, machine: Machine, *, group: Group | None = None
    ) -> None:
        """Prepare a training.

        Args:
            objective: a module with `forward(window, state, noise) -> Loss`, `scored` and `initial_state`.
            source: gives the windows.
            settings: how to train.
            machine: device and precision.
            group: the processes that share the work; this one alone when `None`.
        """
        self.objective: Any = objective.to(machine.device)
        self.source, self.settings, self.machine, self.group = source, settings, machine, group or Group()
        self.thawing: Thawing | None = getattr(objective, "thawing", None)
        self.optimizer = build_optimizer(objective, settings.optimizer, self.thawing)
        self.average = Average(objective, settings)
        self.generator = torch.Generator(machine.device).manual_seed(settings.seed)
        self.carrying = settings.carrying
        rows = slice(0, 0) if self.carrying is None else self.group.rows(self.carrying.rows)
        self.rows = rows.stop - rows.start
        self.noise = Noise(self.generator) if self.carrying is None else Noise(self.generator, rows.start, self.carrying.rows)
        self.counters = Counters()
        self.state: State = None
        self.call: Any = objective if self.group.size == 1 else DistributedDataParallel(objective)

    def run(self, observer: Observer, checkpoint: Path | None = None) -> str:
        """Train to the end, or until someone asks to stop.

        Args:
            observer: is told what happens, and evaluates.
            checkpoint: where the whole state is saved as training goes on.

        Returns:
            `finished`, or `stopped`.
        """
        self.objective.train()
        saved = time.monotonic()
        while True:
            seconds, stop, save = self._agree(observer.stop_requested(), time.monotonic() - saved > self.settings.save_seconds)
            done = self.done(seconds)
            evaluated = self._evaluate_if_due(observer, done)
            ended = done >= 1 or self._out_of_patience()
            if checkpoint is not None and (save or stop or ended or evaluated):
                self.save(checkpoint, observer)
                saved = time.monotonic()
            if stop or ended:
                return "finished" if ended else "stopped"
            self._timed_update(done)
            # The first line shows where a run begins; in a short one it may be the only one before the end.
            if self.counters.step == 1 or self.counters.step % self.settings.log_every == 0:
                self._log(observer)
            observer.advanced(done, {"step": self.counters.step, "seconds": self.counters.seconds, "tokens": self.counters.tokens})

    def done(self, seconds: float) -> float:
        """The share of the training that is done, by whichever bound comes first.

        Args:
            seconds: of training so far.

        Returns:
            0 at the start, 1 and above at the end.
        """
        s = self.settings
        shares = [0.0]
        if s.minutes is not None:
            shares.append(seconds / (60 * s.minutes))
        if s.epochs is not None:
            shares.append(self.source.epochs_done / s.epochs)
        if s.steps is not None:
            shares.append(self.counters.step / s.steps)
        return max(shares)

    def _agree(self, stop: bool, save: bool) -> tuple[float, bool, bool]:
        """The leader's clock and anyone's wishes, so that all processes decide alike."""
        clock = self.counters.seconds if self.group.leads else 0.0
        if self.group.size == 1:
            return clock, stop, save
        shared = self.group.sum(torch.tensor([clock, float(stop), float(save)], dtype=torch.float64, device=self.machine.device)).tolist()
        return shared[0], shared[1] > 0, shared[2] > 0

    def _timed_update(self, done: float) -> None:
        begin = time.perf_counter()
        self._update(done)
        if self.machine.device.type == "cuda":
            torch.cuda.synchronize(self.machine.device)
        used = time.perf_counter() - begin
        self.counters.seconds += used
        self.counters.since_log["seconds"] += used

    def _update(self, done: float) -> None:
        """One update: `accumulate` windows, each weighted by its share of all scored symbols, then clip and step."""
        self.objective.train()
        windows = [self.source.take() for _ in range(self.settings.accumulate)]
        counts = [self.objective.scored(window) for window in windows]
        total = self.group.sum(torch.tensor(float(sum(counts)), device=self.machine.device)).item()
        self.optimizer.zero_grad(set_to_none=True)
        nats = torch.zeros((), dtype=torch.float64, device=self.machine.device)
        for place, (window, count) in enumerate(zip(windows, counts, strict=True), 1):
            state = self._start_of(window)
            with self._exchange_gradients(place == len(windows)):
                with self.machine.autocast():
                    loss = self.call(window, state, self.noise)
                # DistributedDataParallel averages gradients over processes; the factor turns that into a mean over symbols.
                (loss.objective * (count * self.group.size / max(total, 1.0))).backward()
            self.state = detach_state(loss.state)
            nats += loss.nats.detach().double()
        norm, largest = clip(self.objective.parameters(), self.settings)
        self._set_rate(done)
        self.optimizer.step()
        self.average.update()
        self._count(nats, int(total), float(norm), float(largest))

    def _start_of(self, window: Any) -> State:
        """The state before a window: the one carried on, or that of the beginning for rows that start afresh."""
        if self.carrying is None or window.fresh or not self.carrying.keeps or self.state is None:
            return None
        if self.carrying.restart == 0:
            return self.state
        afresh = self.noise.rows((self.rows,), self.carrying.restart, torch.empty(0, device=self.machine.device)).bool()
        return self.objective.restart(self.state, afresh)

    def _exchange_gradients(self, last: bool) -> contextlib.AbstractContextManager[object]:
        """Between processes gradients are exchanged once an update, with the last of its windows."""
        return contextlib.nullcontext() if last or self.group.size == 1 else self.call.no_sync()

    def _set_rate(self, done: float) -> None:
        s = self.settings
        plateaus = count_plateaus(self.counters.losses, s.schedule.patience)
        share = rate_share(s.schedule, self.counters.step, done, plateaus)
        for parameters in self.optimizer.param_groups:
            thawed = 1.0 if self.thawing is None else self.thawing.share(parameters["depth"], done)
            parameters["lr"] = s.optimizer.learning_rate * share * thawed

    def _count(self, nats: Tensor, count: int, norm: float, largest: float) -> None:
        c, s = self.counters, self.settings
        c.step += 1
        c.tokens += count
        since = c.since_log
        since["nats"] += float(self.group.sum(nats))
        since["count"] += count
        since["updates"] += 1
        since["norm"], since["largest"] = max(since["norm"], norm), max(since["largest"], largest)
        since["by_norm"] += s.clip_norm is not None and norm > s.clip_norm
        since["by_value"] += s.clip_value is not None and largest > s.clip_value
        if not math.isfinite(norm):
            raise UserError(
                f"the gradient stopped being finite at step {c.step}: the training diverged; go on from its last checkpoint with a lower rate, "
                f"`--resume --set train.optimizer.learning_rate={s.optimizer.learning_rate / 4:g}`, or a lower `train.clip_norm`"
            )

    def _log(self, observer: Observer) -> None:
        c = self.counters
        since, c.since_log = c.since_log, Counters().since_log
        observer.log(
            {
                "kind": "train",
                "step": c.step,
                "epoch": round(self.source.epochs_done, 4),
                "tokens": c.tokens,
                "seconds": round(c.seconds, 3),
                "loss": since["nats"] / max(since["count"], 1),
                "gradient_norm": since["norm"],
                "gradient_max": since["largest"],
                "clipped": since["by_norm"] / since["updates"],
                "clipped_value": since["by_value"] / since["updates"],
                "learning_rate": self.optimizer.param_groups[0]["lr"],
                "tokens_per_second": round(since["count"] / max(since["seconds"], 1e-9), 1),
            }
        )

    def _evaluate_if_due(self, observer: Observer, done: float) -> bool:
        c, wanted = self.counters, self.settings.evaluations
        due = min(int(done * wanted + 1e-9), wanted)
        if due <= c.evaluated:
            return False
        c.evaluated = due
        module = self.average.module
        module.eval()
        with torch.no_grad():
            figures = observer.evaluate(module)
        if figures is None:
            return False
        measured: float = figures["criterion"] if "criterion" in figures else figures["loss"]
        loss = measured if math.isfinite(measured) else sys.float_info.max
        best = not c.losses or loss < min(c.losses)
        c.losses.append(loss)
        self.average.after_evaluation(c.losses)
        record = {
            "kind": "valid",
            "step": c.step,
            "epoch": round(self.source.epochs_done, 4),
            "tokens": c.tokens,
            "seconds": round(c.seconds, 3),
            "share": round(min(done, 1.0), 4) if self.settings.minutes is None else due / wanted,
            **figures,
        }
        observer.evaluated(module, record, best)
        return True

    def _out_of_patience(self) -> bool:
        losses, patience = self.counters.losses, self.settings.patience
        return patience is not None and len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])

    def save(self, path: Path, observer: Observer) -> None:
        """Save everything that resuming needs.

        Args:
            path: the checkpoint file.
            observer: has counters of its own.
        """
        leaves = dict(named_leaves(self.state, "carried."))
        # A state that grows may have another width in every process; then the streams start afresh when the run goes on.
        alike = self.group.agree([size for leaf in leaves.values() for size in leaf.shape[1:]], self.machine.device)
        carried = {name: self.group.gather(leaf) for name, leaf in leaves.items()} if alike else {}
        if not self.group.leads:
            return
        parts = {
            "model": weights_of(self.objective),
            "optimizer": optimizer_tensors(self.optimizer),
            "average": {} if self.average.model is None else weights_of(self.average.model),
        }
        tensors = {f"{part}.{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
        tensors |= carried | {"generator": self.generator.get_state()}
        counters = {"trainer": vars(self.counters), "source": self.source.state_dict(), "observer": observer.counters()}
        write_checkpoint(path, tensors, {**counters, "processes": self.group.size})

    def restore(self, path: Path) -> Record:
        """Go on from a checkpoint.

        Args:
            path: the checkpoint file.

        Returns:
            The counters that the observer had saved.

        Raises:
            RunError: the checkpoint is damaged, or was made on another kind of device.
        """
        tensors, counters = read_checkpoint(path)

        def part(name: str) -> dict[str, Tensor]:
            return {key[len(name) + 1 :]: tensor for key, tensor in tensors.items() if key.startswith(name + ".")}

        load_weights(self.objective, part("model"), path)
        restore_optimizer(self.optimizer, part("optimizer"))
        if part("average"):
            self.average.begin()
            assert self.average.model is not None
            load_weights(self.average.model, part("average"), path)
        try:
            self.generator.set_state(tensors["generator"])
        except RuntimeError as error:
            raise RunError(
                f"the random numbers of `{path}` come from another kind of device than `{self.machine.device.type}`; go on with the one it began on"
            ) from error
        vars(self.counters).update(counters["trainer"])
        self.source.load_state_dict(counters["source"])
        # The end may have been moved: what is due is counted anew, by the share that is done now.
        c = self.counters
        c.evaluated = min(c.evaluated, int(self.done(c.seconds) * self.settings.evaluations + 1e-9))
        if part("carried"):
            like = self.objective.initial_state(1)
            mine = slice(self.noise.first_row, self.noise.first_row + self.rows)
            whole = restore_state(like, part("carried"))
            self.state = map_state(lambda leaf: leaf[mine].to(self.machine.device), whole)
        return dict(counters["observer"])
