"""What every training has in common: a place for the run, the training itself, its end, and going on with it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from unrolled.core.errors import RunError
from unrolled.core.settings import merge, resolve
from unrolled.report import write_report
from unrolled.tasks.differences import refuse_other_changes
from unrolled.tasks.run_folder import RunFolder, first_facts, free_name, no_parents_left
from unrolled.tasks.training_log import Display, Prepared, Recorder, change_of_surroundings, note_failure, stop_on_interrupt, write_weights
from unrolled.tasks.without_effect import Rule, without_effect
from unrolled.train.checkpoint import read_checkpoint
from unrolled.train.group import Group, joined
from unrolled.train.loop import Record, Trainer
from unrolled.train.precision import Machine, prepare_machine

RUNS = Path("runs")
"""Where runs go that were given no place of their own."""
PLACE = ("kind", "step", "epoch", "tokens", "seconds", "share", "criterion")
"""What a line of metrics says besides its figures."""


class Kind(NamedTuple):
    """What a task gives for its training."""

    task: str
    """Its name in `run.json`."""
    settings: type[Any]
    """The settings of its runs; `train` is among them."""
    prepare: Callable[[RunFolder, Any, Group, bool], Prepared]
    """Opens what a run folder describes: folder, settings, group, whether a person's own class may be imported."""
    check_data: Callable[[RunFolder], object]
    """Refuses a run whose data have gone or changed."""
    rules: tuple[Rule, ...]
    """Which of its options do nothing, and when."""


def train_new(
    kind: Kind,
    settings: Any,
    create: Callable[[Path, Machine, Group], None],
    *,
    out: Path | str | None,
    stem: str,
    display: Display | None = None,
    trust: bool = False,
) -> Path:
    """Make a run and train it to its end; options that do nothing are told first, as warnings of Python where nothing is shown.

    Args:
        kind: of the task.
        settings: of the run.
        create: makes the run folder at a path.
        out: where the run shall stand; a new place below `runs/` when `None`.
        stem: how the name begins where none is asked for.
        display: shows the training as it goes.
        trust: allow the settings to import a class of the user's own.

    Returns:
        Where the run stands.
    """
    machine, place = prepare_machine(settings.train), None if out is None else Path(out)
    with no_parents_left(place or RUNS / stem), joined(machine.device) as group:
        path = Path(group.lead(lambda: str(place_run(place, stem, lambda at: create(at, machine, group)))))
        if group.leads:
            for said in without_effect(settings, kind.rules):
                if display is None:
                    warnings.warn(said, stacklevel=3)
                else:
                    display.noted(said)
        train_run(kind, RunFolder(path), machine, group, display, trust=trust)
    return path


def train_on(kind: Kind, path: Path | str, changes: Mapping[str, Any], *, display: Display | None = None, trust: bool = False) -> Path:
    """Go on with a training where its last checkpoint stands.

    Args:
        kind: of the task.
        path: the run folder.
        changes: nested options; only the end of the training, its surroundings, and what saves one that diverges may change.
        display: shows the training as it goes.
        trust: allow the settings to import a class of the user's own.

    Returns:
        The run folder.

    Raises:
        RunError: the run is of another task, or a mean of others.
    """
    folder = RunFolder(Path(path))
    folder.check_task(kind.task)
    if folder.facts().get("averaged"):
        raise RunError(
            f"`{path}` holds the mean of several stages of a training and cannot be trained on; go on with the run it was made from"
        )
    refuse_other_changes(changes)
    settings = resolve(kind.settings, merge(folder.read_config(), changes))
    machine = prepare_machine(settings.train)
    with joined(machine.device) as group:

        def prepare() -> str:
            with folder.in_use():
                # All that can be refused is refused before anything of the run is changed.
                kind.check_data(folder)
                if folder.checkpoint.exists():
                    read_checkpoint(folder.checkpoint)
                if settings.train.carrying is not None:
                    group.rows(settings.train.carrying.rows)
                now = machine.facts() | {"processes": group.size}
                said = change_of_surroundings(folder.fact("machine"), now)
                folder.write_config(settings)
                folder.update_facts(status="running", machine=now)
            return said

        said = group.lead(prepare)
        if said and display is not None and group.leads:
            display.noted(said)
        train_run(kind, folder, machine, group, display, trust=trust, resume=True)
    return folder.path


def train_run(
    kind: Kind, folder: RunFolder, machine: Machine, group: Group, display: Display | None, *, trust: bool, resume: bool = False
) -> None:
    """Train a run that is set up, from its start or from its last checkpoint, and keep every other training away from it.

    A new run that fails before its first update is removed.

    Args:
        kind: of the task.
        folder: the run.
        machine: what computes.
        group: the processes that share the training.
        display: shows the training as it goes.
        trust: allow the settings to import a class of the user's own.
        resume: go on where the last checkpoint stands.
    """
    trainer: Trainer | None = None
    with contextlib.ExitStack() as stack:
        if group.leads:
            stack.enter_context(folder.in_use())
            stack.enter_context(note_failure(folder, lambda: not resume and (trainer is None or trainer.counters.step == 0)))
            folder.sweep()
        settings = resolve(kind.settings, folder.read_config())
        prepared = kind.prepare(folder, settings, group, trust)
        trainer = Trainer(prepared.objective, prepared.source, settings.train, machine, group=group)
        saved = trainer.restore(folder.checkpoint) if resume and folder.checkpoint.exists() else None
        recorder = Recorder(
            folder,
            group,
            prepared,
            display=display,
            tensorboard=settings.train.tensorboard,
            first_step=trainer.counters.step,
            keep=settings.train.keep,
        )
        if resume:
            recorder.rewind(saved)
        if group.leads:
            recorder.display.begun(folder.facts())
        before = trainer.counters.step
        with stop_on_interrupt(recorder):
            status = trainer.run(recorder, folder.checkpoint)
        if group.leads:
            if resume and status == "finished" and trainer.counters.step == before:
                recorder.display.noted(nothing_done(trainer))
            conclude(folder, trainer, status)


def nothing_done(trainer: Trainer) -> str:
    """What is said of a run that was to go on and had reached its end before.

    Args:
        trainer: as it stands.

    Returns:
        A sentence that names the end and how to move it.
    """
    settings, counters = trainer.settings, trainer.counters
    reached = {"minutes": counters.seconds / 60, "epochs": trainer.source.epochs_done, "steps": counters.step}
    bounds: dict[str, Any] = {name: getattr(settings, name) for name in reached}
    passed = {name: bound for name, bound in bounds.items() if bound is not None and reached[name] >= bound}
    name, bound = next(iter(passed.items()), ("patience", settings.patience or 0))
    return f"nothing was trained: the run had reached its end, `train.{name}={bound}`; to go on, give a later one, such as `--set train.{name}={2 * bound}`"


def conclude(folder: RunFolder, trainer: Trainer, status: str) -> None:
    """Write how a training ended.

    Args:
        folder: the run.
        trainer: after training.
        status: `finished` or `stopped`.
    """
    counters = trainer.counters
    if not counters.losses:
        write_weights(folder.weights, trainer.average.module, {"step": counters.step})
    result: dict[str, Any] = {"steps": counters.step, "tokens": counters.tokens, "seconds": round(counters.seconds, 2)}
    scored = [line for line in folder.metric_lines() if line["kind"] == "valid"]
    if scored:
        best = min(scored, key=lambda line: line.get("criterion", line["loss"]))
        result |= {key: value for key, value in best.items() if key not in PLACE} | {"best_step": best["step"]}
    folder.update_facts(status=status, result=result)
    write_report(folder.path)


def facts_of(
    task: str, path: Path, machine: Machine, group: Group, model: nn.Module, data: Record, *, unit: str = "token", samples: bool = False
) -> Record:
    """What `run.json` says of a run that is about to be trained.

    Args:
        task: its name.
        path: where the run shall stand.
        machine: what computes.
        group: the processes that will share the training.
        model: its parameters are counted.
        data: what the task says of its data.
        unit: what a loss is the mean over.
        samples: whether the run draws samples at every stage.

    Returns:
        The facts.
    """
    facts = first_facts(task, path.name) | {"unit": unit, "samples": samples}
    facts["machine"] = machine.facts() | {"processes": group.size}
    facts["data"] = data
    facts["parameters"] = sum(p.numel() for p in model.parameters())
    return facts


def summary_of(folder: RunFolder) -> Record:
    """How a training ended.

    Args:
        folder: the run.

    Returns:
        Run, status and the best figures.
    """
    facts = folder.facts()
    return {"run": str(folder.path), "status": facts["status"], "unit": facts.get("unit", "token"), **facts.get("result", {})}


def seeded(seed: int, make: Callable[[], nn.Module]) -> Any:
    """A model with the weights that a seed gives, whatever random numbers were drawn elsewhere.

    Args:
        seed: of the run.
        make: builds the model.

    Returns:
        The model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def place_run(out: Path | None, stem: str, create: Callable[[Path], None]) -> Path:
    """Make a run at the place asked for, or at the first free one, though another process may take it meanwhile.

    Args:
        out: the place asked for.
        stem: how the name begins where none is asked for.
        create: makes the run at a path.

    Returns:
        Where the run stands.

    Raises:
        RunError: the place asked for is taken.
    """
    if out is not None:
        create(out)
        return out
    while True:
        path = free_name(RUNS, stem)
        try:
            create(path)
        except RunError:
            if not path.exists():
                raise
        else:
            return path


def as_paths(files: Sequence[Path | str] | Path | str) -> list[Path]:
    """Paths, from one or several.

    Args:
        files: paths or a single one.

    Returns:
        A list of paths.
    """
    return [Path(files)] if isinstance(files, str | Path) else [Path(file) for file in files]
