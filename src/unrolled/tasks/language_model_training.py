"""How a language-model run is set up and what its training is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.data import Corpus, Streams, Tokenizer, evaluation_streams, load_tokenizer, save_tokenizer
from unrolled.models.language_model import LanguageModel
from unrolled.tasks.language_model_data import TextParts, describe, make_tokenizer, open_parts
from unrolled.tasks.language_model_objective import LanguageModelObjective, Scores, count_nats, scores
from unrolled.tasks.language_model_settings import LanguageModelRunSettings
from unrolled.tasks.recorded_data import recorded_files
from unrolled.tasks.run_folder import RunFolder, new_run
from unrolled.tasks.sampling import SampleRequest, prompt_ids, sample_texts
from unrolled.tasks.training import facts_of, seeded
from unrolled.tasks.training_log import Prepared, open_tensorboard
from unrolled.train.group import Group
from unrolled.train.loop import Record
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
        data = describe(folder, files, valid, tokenizer, parts)
        folder.write_facts(facts_of("lm", path, machine, group, setup.objective, data, samples=True))


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

    Raises:
        ConfigurationError: sparse gradients in several processes.
    """
    train = settings.train
    if train.sparse_gradients and group.size > 1:
        raise ConfigurationError("`train.sparse_gradients` is for a single process; leave it out under torchrun")
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
    """The model with the weights that the run's seed gives.

    Args:
        settings: of the run.
        vocabulary: how many symbols.
        trust: allow `model.cell` to import a class of the user's own.

    Returns:
        The model.
    """
    model: LanguageModel = seeded(settings.train.seed, lambda: LanguageModel(settings.model, vocabulary, trust=trust))
    return model


def prepare(folder: RunFolder, settings: LanguageModelRunSettings, group: Group, trust: bool) -> Prepared:
    """Open what a run folder describes.

    Args:
        folder: the run.
        settings: of the run.
        group: the processes that share the training.
        trust: allow `model.cell` to import a class of the user's own.

    Returns:
        What is trained, on what, and how it is scored.
    """
    train, tokenizer = settings.train, load_tokenizer(folder.tokenizer)
    files, valid = recorded_files(folder)
    parts = open_parts(folder, tokenizer, settings.data, files, valid)
    setup = assemble(settings, tokenizer, parts, group, trust=trust)
    scored = parts.valid.part(0, min(len(parts.valid), train.evaluation_symbols + 1))

    def evaluate(module: Any, group: Group) -> Record:
        return dict(evaluate_part(module.model, scored, train.evaluation_batch_size, group)._asdict())

    def sample(module: Any, record: Record) -> Record | None:
        return stage_sample(settings, tokenizer, module.model, record)

    return Prepared(setup.objective, setup.windows, evaluate, sample)


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
