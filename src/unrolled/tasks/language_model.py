"""The language-model task: train on text files, score, sample, resume."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from unrolled.core.errors import ConfigurationError, nearest
from unrolled.core.settings import Differences, Settings, combine, merge, read_toml, resolve
from unrolled.data import Corpus, Streams, Tokenizer, build_corpus, evaluation_streams, load_tokenizer, save_tokenizer
from unrolled.models.language_model import LanguageModel, LanguageModelSettings
from unrolled.report import write_report
from unrolled.tasks.language_model_data import TextParts, TextSettings, describe, make_tokenizer, open_parts, recorded_files
from unrolled.tasks.language_model_objective import LanguageModelObjective, Scores, count_nats, scores
from unrolled.tasks.run_folder import RunFolder, first_facts, free_name, new_run, open_run
from unrolled.tasks.sampling import SampleRequest, sample_texts, stream_text
from unrolled.tasks.training_log import Display, Recorder, note_failure, stop_on_interrupt, write_weights
from unrolled.train.checkpoint import load_weights, read_checkpoint
from unrolled.train.group import Group, join_group, leave_group
from unrolled.train.loop import Record, Trainer
from unrolled.train.precision import Machine, prepare_machine
from unrolled.train.settings import TrainSettings
from unrolled.train.windows import TruncatedWindows


class StageSettings(Settings):
    """The samples that are kept at stages of training."""

    prompt: str = ""
    """What each sample begins with; a line break when empty."""
    length: int = Field(300, ge=0)
    """Symbols of each sample; 0 keeps none."""
    temperature: float = Field(0.8, ge=0)
    """How bold they are."""


class LanguageModelRunSettings(Settings):
    """Everything that shapes a language-model run."""

    task: Literal["lm"] = "lm"
    """What kind of run this is."""
    data: TextSettings = TextSettings()
    model: LanguageModelSettings = LanguageModelSettings()
    train: TrainSettings = TrainSettings()
    samples: StageSettings = StageSettings()


RESUMABLE = {"train": {"minutes", "epochs", "steps", "threads", "save_seconds", "patience", "tensorboard"}}
"""What may change when a run goes on: its end and its surroundings, not what it computes."""


class LanguageModelRun:
    """A trained language model with its tokenizer and its run folder."""

    def __init__(self, folder: RunFolder, settings: LanguageModelRunSettings, tokenizer: Tokenizer, model: LanguageModel) -> None:
        self.folder, self.settings, self.tokenizer, self.model = folder, settings, tokenizer, model.eval()

    def evaluate(self, files: Sequence[Path | str] | None = None, *, split: str = "valid", streams: int | None = None) -> Scores:
        """Score the model on a text.

        Args:
            files: text files; a split of the run's own data when `None`.
            split: `valid` or `train`.
            streams: rows read side by side, each from a cold state; the run's own number when `None`.

        Returns:
            Loss in nats per symbol, perplexity, bits per character.

        Raises:
            ConfigurationError: no such split.
        """
        if split not in TextParts._fields:
            raise ConfigurationError(f"`--split` must be one of {', '.join(TextParts._fields)}, got `{split}`")
        if files:
            part = build_corpus([Path(file) for file in files], self.tokenizer, self.folder.cache)
        else:
            part = getattr(self.parts(), split)
        return evaluate_part(self.model, part, streams or self.settings.train.evaluation_batch_size)

    def parts(self) -> TextParts:
        """The run's own text, cut in two.

        Returns:
            The part that trains and the part that validates.
        """
        files, valid = recorded_files(self.folder, self.folder.facts()["data"])
        return open_parts(self.folder, self.tokenizer, self.settings.data, files, valid)

    def stream(self, request: SampleRequest | None = None, **wishes: Any) -> Iterator[str]:
        """Write a text, in pieces as they are made.

        Args:
            request: what is asked.
            wishes: or its fields by keyword, `prompt="From"`.

        Returns:
            Pieces of text, the prompt first.
        """
        return stream_text(self.model, self.tokenizer, request or resolve(SampleRequest, wishes))

    def sample(self, prompt: str = "", **wishes: Any) -> str:
        """Write one text.

        Args:
            prompt: what it begins with.
            wishes: fields of `SampleRequest`, such as `length=300`, `temperature=0.8`, `seed=1`.

        Returns:
            The text with its prompt.
        """
        return "".join(self.stream(prompt=prompt, **wishes))

    def sample_texts(self, request: SampleRequest) -> list[str]:
        """Write several texts side by side.

        Args:
            request: what is asked.

        Returns:
            The texts, each with its prompt.
        """
        return sample_texts(self.model, self.tokenizer, request)

    def summary(self) -> dict[str, Any]:
        """How the training ended.

        Returns:
            Run, status and the best figures.
        """
        facts = self.folder.facts()
        return {"run": str(self.folder.path), "status": facts["status"], **facts.get("result", {})}


def gather(presets: Iterable[str], files: Iterable[Path], overrides: Iterable[str]) -> Differences:
    """What a person wants different from the defaults: presets, then files, then single options.

    Args:
        presets: names of recipes that ship.
        files: TOML files.
        overrides: `key=value` texts.

    Returns:
        All differences.

    Raises:
        ConfigurationError: no such preset.
    """
    found: Differences = {}
    folder = package_files("unrolled") / "presets"
    known = {path.name.removesuffix(".toml"): path for path in folder.iterdir() if path.name.endswith(".toml")}
    for name in presets:
        if name not in known:
            raise ConfigurationError(f"`{name}` is not a preset; {nearest(name, known)}")
        found = merge(found, read_toml(Path(str(known[name]))))
    return merge(found, combine(files, overrides))


def train_language_model(
    files: Sequence[Path | str],
    *,
    valid: Sequence[Path | str] = (),
    out: Path | str | None = None,
    differences: Mapping[str, Any] | None = None,
    display: Display | None = None,
    trust: bool = False,
) -> LanguageModelRun:
    """Train a language model on text files.

    Args:
        files: UTF-8 text, plain or `.gz`.
        valid: text to validate on; the last tenth of `files` when empty.
        out: the run folder; a new one below `runs/` when `None`.
        differences: nested options that differ from the defaults, such as `{"train": {"minutes": 3}}`.
        display: shows the training as it goes.
        trust: allow `model.cell` to import a class of your own.

    Returns:
        The run, with the best weights loaded.
    """
    texts, valid_texts = [Path(file) for file in files], [Path(file) for file in valid]
    settings = resolve(LanguageModelRunSettings, differences or {})
    machine = prepare_machine(settings.train)
    group = join_group(machine.device)
    path = Path(group.share(str(out or free_name(Path("runs"), f"lm-{texts[0].name.split('.')[0]}"))))
    try:
        if group.leads:
            _create(path, settings, texts, valid_texts, machine, trust=trust)
        group.wait()
        _train(RunFolder(path), machine, group, display, trust=trust)
    finally:
        leave_group(group)
    return load_language_model(path, trust=trust)


def resume_language_model(
    path: Path | str, *, changes: Mapping[str, Any] | None = None, display: Display | None = None, trust: bool = False
) -> LanguageModelRun:
    """Go on with a training where its last checkpoint stands.

    Args:
        path: the run folder.
        changes: nested options; only the end of the training and its surroundings may change.
        display: shows the training as it goes.
        trust: allow `model.cell` to import a class of your own.

    Returns:
        The run, with the best weights loaded.
    """
    folder = open_run(Path(path))
    _refuse_other_changes(changes or {})
    settings = resolve(LanguageModelRunSettings, merge(folder.read_config(), changes or {}))
    machine = prepare_machine(settings.train)
    group = join_group(machine.device)
    try:
        if group.leads:
            folder.write_config(settings)
            folder.update_facts(status="running")
        group.wait()
        _train(folder, machine, group, display, trust=trust, resume=True)
    finally:
        leave_group(group)
    return load_language_model(folder.path, trust=trust)


def _refuse_other_changes(changes: Mapping[str, Any]) -> None:
    for group, options in changes.items():
        allowed = RESUMABLE.get(group, set())
        for key in options if isinstance(options, Mapping) else [""]:
            if key not in allowed:
                can = ", ".join(f"`train.{name}`" for name in sorted(RESUMABLE["train"]))
                raise ConfigurationError(
                    f"`{group}.{key}` cannot change when a run goes on; what can: {can}; train a new run for anything else"
                )


def _create(path: Path, settings: LanguageModelRunSettings, files: list[Path], valid: list[Path], machine: Machine, *, trust: bool) -> None:
    """Everything that can go wrong before training goes wrong here, and then leaves nothing behind."""
    with new_run(path) as folder:
        tokenizer = make_tokenizer(settings.data, files, valid)
        parts = open_parts(folder, tokenizer, settings.data, files, valid)
        TruncatedWindows(Streams(parts.train, settings.train.batch_size), settings.train.window, settings.train.backpropagate)
        model = build_model(settings, tokenizer.size, trust=trust)
        save_tokenizer(tokenizer, folder.tokenizer)
        folder.write_config(settings)
        facts = first_facts("lm", path.name)
        facts["machine"] = {
            "device": str(machine.device),
            "precision": machine.precision,
            "threads": machine.threads,
            "processor": machine.processor,
        }
        facts["data"] = describe(folder, files, valid, tokenizer, parts)
        facts["parameters"] = sum(p.numel() for p in model.parameters())
        folder.write_facts(facts)


def build_model(settings: LanguageModelRunSettings, vocabulary: int, *, trust: bool = False) -> LanguageModel:
    """The model with the weights that the run's seed gives, whatever random numbers were drawn elsewhere.

    Args:
        settings: of the run.
        vocabulary: how many symbols.
        trust: allow `model.cell` to import a class of your own.

    Returns:
        The model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.train.seed)
        return LanguageModel(settings.model, vocabulary, trust=trust)


def _train(folder: RunFolder, machine: Machine, group: Group, display: Display | None, *, trust: bool, resume: bool = False) -> None:
    settings = resolve(LanguageModelRunSettings, folder.read_config())
    tokenizer = load_tokenizer(folder.tokenizer)
    files, valid = recorded_files(folder, folder.facts()["data"])
    parts = open_parts(folder, tokenizer, settings.data, files, valid)
    train = settings.train
    streams = Streams(parts.train, train.batch_size, rows=group.rows(train.batch_size))
    windows = TruncatedWindows(streams, train.window, train.backpropagate)
    objective = LanguageModelObjective(build_model(settings, tokenizer.size, trust=trust), train)
    trainer = Trainer(objective, windows, train, machine, group=group)

    def evaluate(module: Any) -> Record:
        return dict(evaluate_part(module.model, parts.valid, train.evaluation_batch_size, group)._asdict())

    def sample(module: Any, record: Record) -> Record | None:
        return stage_sample(settings, tokenizer, module.model, record)

    recorder = Recorder(folder, group, evaluate=evaluate, sample=sample, display=display, tensorboard=train.tensorboard)
    if resume and folder.checkpoint.exists():
        recorder.rewind(trainer.restore(folder.checkpoint))
    if group.leads:
        recorder.display.begun(folder.facts())
    with stop_on_interrupt(recorder), note_failure(folder, group):
        status = trainer.run(recorder, folder.checkpoint)
    if group.leads:
        _conclude(folder, trainer, status)


def _conclude(folder: RunFolder, trainer: Trainer, status: str) -> None:
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
    streams = max(1, min(streams, (len(part) - 1) // 2))
    begin, end = (streams * rank // group.size for rank in (group.rank, group.rank + 1))
    nats, symbols = count_nats(model, evaluation_streams(part, streams, rows=slice(begin, end)), group)
    text = part.part(1, len(part)).counts()  # the first symbol is read, never predicted
    return scores(nats, symbols, text.characters, text.words)


def load_language_model(path: Path | str, *, trust: bool = False) -> LanguageModelRun:
    """Open a run with its best weights.

    Args:
        path: the run folder.
        trust: allow the run to import a class of its own.

    Returns:
        The run.

    Raises:
        RunError: nothing has been saved yet, or a file is damaged.
    """
    folder = RunFolder(Path(path))
    folder.facts()
    settings = resolve(LanguageModelRunSettings, folder.read_config())
    tokenizer = load_tokenizer(folder.tokenizer)
    model = build_model(settings, tokenizer.size, trust=trust)
    tensors, _ = read_checkpoint(folder.weights)
    load_weights(model, tensors, folder.weights)
    return LanguageModelRun(folder, settings, tokenizer, model)
