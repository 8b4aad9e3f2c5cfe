"""How a language-model run is set up, trained and concluded."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from unrolled.core.errors import DataError, RunError
from unrolled.core.settings import resolve
from unrolled.data import Corpus, Streams, Tokenizer, evaluation_streams, load_tokenizer, save_tokenizer
from unrolled.models.language_model import LanguageModel
from unrolled.report import write_report
from unrolled.tasks.language_model_data import TextParts, describe, make_tokenizer, open_parts, recorded_files
from unrolled.tasks.language_model_objective import LanguageModelObjective, Scores, count_nats, scores
from unrolled.tasks.language_model_settings import LanguageModelRunSettings
from unrolled.tasks.run_folder import RunFolder, first_facts, new_run
from unrolled.tasks.sampling import SampleRequest, prompt_ids, sample_texts
from unrolled.tasks.training_log import Display, Recorder, note_failure, open_tensorboard, stop_on_interrupt, write_weights
from unrolled.train.group import Group
from unrolled.train.loop import Record, Trainer
from unrolled.train.optimizers import build_optimizer
from unrolled.train.precision import Machine
from unrolled.train.windows import TruncatedWindows


class Setup(NamedTuple):
    """What a training needs besides its settings."""

    tokenizer: Tokenizer
    parts: TextParts
    windows: TruncatedWindows
    objective: LanguageModelObjective


def create_run(
    path: Path, settings: LanguageModelRunSettings, files: list[Path], valid: list[Path], machine: Machine, group: Group, *, trust: bool
) -> None:
    """Make the run folder; everything that can go wrong before training goes wrong here, and then leaves nothing behind.

    Args:
        path: where the run shall stand.
        settings: of the run.
        files: text to train on.
        valid: text to validate on.
        machine: what computes.
        group: the processes that will share the training.
        trust: allow `model.cell` to import a class of the user's own.
    """
    with new_run(path) as folder:
        tokenizer = make_tokenizer(settings.data, files, valid)
        parts = open_parts(folder, tokenizer, settings.data, files, valid)
        setup = assemble(settings, tokenizer, parts, group, trust=trust)
        try_out(settings, setup)
        save_tokenizer(tokenizer, folder.tokenizer)
        folder.write_config(settings)
        facts = first_facts("lm", path.name)
        facts["machine"] = machine.facts() | {"processes": group.size}
        facts["data"] = describe(folder, files, valid, tokenizer, parts)
        facts["parameters"] = sum(p.numel() for p in setup.objective.parameters())
        folder.write_facts(facts)


def assemble(settings: LanguageModelRunSettings, tokenizer: Tokenizer, parts: TextParts, group: Group, *, trust: bool) -> Setup:
    """Put together what a training needs.

    Args:
        settings: of the run.
        tokenizer: of the run.
        parts: its text.
        group: the processes that share the training.
        trust: allow `model.cell` to import a class of the user's own.

    Returns:
        Windows over this process's rows, and the objective with the weights that the seed gives.
    """
    train = settings.train
    streams = Streams(parts.train, train.batch_size, rows=group.rows(train.batch_size))
    windows = TruncatedWindows(streams, train.window, train.backpropagate)
    return Setup(tokenizer, parts, windows, LanguageModelObjective(build_model(settings, tokenizer.size, trust=trust), train))


def try_out(settings: LanguageModelRunSettings, setup: Setup) -> None:
    """What training would only come to later: a run that could never be finished is refused before it is there.

    Args:
        settings: of the run.
        setup: what it would be trained with.

    Raises:
        DataError: the validation text is too short.
    """
    build_optimizer(setup.objective, settings.train.optimizer)
    prompt_ids(setup.tokenizer, settings.samples.prompt)
    if len(setup.parts.valid) < 2:
        raise DataError(
            f"{setup.parts.valid.name} must hold at least 2 symbols to validate on, got {len(setup.parts.valid)}; give a longer text"
        )
    if settings.train.tensorboard:
        open_tensorboard(None)


def build_model(settings: LanguageModelRunSettings, vocabulary: int, *, trust: bool = False) -> LanguageModel:
    """The model with the weights that the run's seed gives, whatever random numbers were drawn elsewhere.

    Args:
        settings: of the run.
        vocabulary: how many symbols.
        trust: allow `model.cell` to import a class of the user's own.

    Returns:
        The model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.train.seed)
        return LanguageModel(settings.model, vocabulary, trust=trust)


def train_run(folder: RunFolder, machine: Machine, group: Group, display: Display | None, *, trust: bool, resume: bool = False) -> None:
    """Train a run that is set up, from its start or from its last checkpoint, and keep every other training away from it.

    Args:
        folder: the run.
        machine: what computes.
        group: the processes that share the training.
        display: shows the training as it goes.
        trust: allow `model.cell` to import a class of the user's own.
        resume: go on where the last checkpoint stands.
    """
    with contextlib.ExitStack() as stack:
        if group.leads:
            stack.enter_context(folder.in_use())
            stack.enter_context(note_failure(folder))
            folder.sweep()
        _train(folder, machine, group, display, trust=trust, resume=resume)


def _train(folder: RunFolder, machine: Machine, group: Group, display: Display | None, *, trust: bool, resume: bool) -> None:
    settings = resolve(LanguageModelRunSettings, folder.read_config())
    tokenizer = load_tokenizer(folder.tokenizer)
    files, valid = recorded_files(folder, folder.fact("data"))
    setup = assemble(settings, tokenizer, open_parts(folder, tokenizer, settings.data, files, valid), group, trust=trust)
    trainer = Trainer(setup.objective, setup.windows, settings.train, machine, group=group)
    saved = trainer.restore(folder.checkpoint) if resume and folder.checkpoint.exists() else None
    recorder = make_recorder(folder, settings, setup, trainer, display)
    if resume:
        recorder.rewind(saved)
    if group.leads:
        recorder.display.begun(folder.facts())
    with stop_on_interrupt(recorder):
        status = trainer.run(recorder, folder.checkpoint)
    if group.leads:
        conclude(folder, trainer, status)


def make_recorder(
    folder: RunFolder, settings: LanguageModelRunSettings, setup: Setup, trainer: Trainer, display: Display | None
) -> Recorder:
    """What watches the training and writes it down.

    Args:
        folder: the run.
        settings: of the run.
        setup: what it is trained with.
        trainer: what will be watched.
        display: shows the training as it goes.

    Returns:
        The recorder.
    """
    train, group = settings.train, trainer.group
    valid = setup.parts.valid.part(0, min(len(setup.parts.valid), train.evaluation_symbols + 1))

    def evaluate(module: Any) -> Record:
        return dict(evaluate_part(module.model, valid, train.evaluation_batch_size, group)._asdict())

    def sample(module: Any, record: Record) -> Record | None:
        return stage_sample(settings, setup.tokenizer, module.model, record)

    step = trainer.counters.step
    return Recorder(folder, group, evaluate=evaluate, sample=sample, display=display, tensorboard=train.tensorboard, first_step=step)


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
        best = min(scored, key=lambda line: line["loss"])
        result |= {key: best[key] for key in Scores._fields if key in best} | {"best_step": best["step"]}
    folder.update_facts(status=status, result=result)
    write_report(folder.path)


def stage_sample(settings: LanguageModelRunSettings, tokenizer: Tokenizer, model: LanguageModel, record: Record) -> Record | None:
    """A sample at a stage of training, always from the same seed.

    Args:
        settings: prompt, length, temperature.
        tokenizer: of the run.
        model: in evaluation mode.
        record: the evaluation that goes with it.

    Returns:
        A line of the samples file, or `None` where none is wanted.
    """
    wish = settings.samples
    if wish.length == 0:
        return None
    request = SampleRequest(prompt=wish.prompt, length=wish.length, temperature=wish.temperature, seed=settings.train.seed)
    text = sample_texts(model, tokenizer, request)[0]
    return {key: record[key] for key in ("step", "share", "seconds", "loss")} | {"prompt": wish.prompt, "text": text}


def evaluate_part(model: LanguageModel, part: Corpus, streams: int, group: Group | None = None) -> Scores:
    """Score a model on a part of a corpus.

    Args:
        model: in evaluation mode.
        part: the text.
        streams: rows read side by side; fewer where the text is short.
        group: the processes that share the rows.

    Returns:
        The figures.
    """
    group = group or Group()
    streams = max(group.size, min(streams, (len(part) - 1) // 2))
    begin, end = (streams * rank // group.size for rank in (group.rank, group.rank + 1))
    nats, symbols = count_nats(model, evaluation_streams(part, streams, rows=slice(begin, end)), group)
    text = part.part(1, len(part)).counts()  # the first symbol is read, never predicted
    return scores(nats, symbols, text.characters, text.words)


def place_run(out: Path | None, stem: str, create: Any, choose: Any) -> Path:
    """Make a run at the place asked for, or at the first free one, though another process may take it meanwhile.

    Args:
        out: the place asked for.
        stem: how the name begins where none is asked for.
        create: makes the run at a path.
        choose: gives a free path for a stem.

    Returns:
        Where the run stands.

    Raises:
        RunError: the place asked for is taken.
    """
    if out is not None:
        create(out)
        return out
    while True:
        path: Path = choose(Path("runs"), stem)
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
