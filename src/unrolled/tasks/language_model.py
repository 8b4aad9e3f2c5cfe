"""The language-model task: train on text files, score, sample, resume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unrolled.core.errors import ConfigurationError
from unrolled.core.settings import resolve
from unrolled.data import Tokenizer, build_corpus, load_tokenizer
from unrolled.models.language_model import LanguageModel
from unrolled.tasks.language_model_data import TextParts, open_parts
from unrolled.tasks.language_model_objective import Scores
from unrolled.tasks.language_model_settings import LanguageModelRunSettings
from unrolled.tasks.language_model_training import build_model, create_run, evaluate_part, prepare
from unrolled.tasks.recorded_data import recorded_files
from unrolled.tasks.run_folder import RunFolder
from unrolled.tasks.sampling import SampleRequest, sample_texts, stream_text
from unrolled.tasks.task import DataFiles, Task
from unrolled.tasks.training import as_paths, summary_of
from unrolled.tasks.training_log import Display
from unrolled.tasks.without_effect import LANGUAGE_MODEL_RULES
from unrolled.train.checkpoint import load_weights, read_checkpoint
from unrolled.train.group import Group
from unrolled.train.precision import Machine

LARGE_TEXT = 30_000_000
"""Bytes above which making symbols takes long enough to say so."""


class LanguageModelRun:
    """A trained language model with its tokenizer and its run folder."""

    evaluation_options = frozenset({"split", "streams"})
    """What `evaluate` takes besides files."""

    def __init__(self, folder: RunFolder, settings: LanguageModelRunSettings, tokenizer: Tokenizer, model: LanguageModel) -> None:
        self.folder, self.settings, self.tokenizer, self.model = folder, settings, tokenizer, model.eval()

    def evaluate(
        self, files: Sequence[Path | str] | Path | str | None = None, *, split: str = "valid", streams: int | None = None
    ) -> Scores:
        """Score the model on a text.

        Args:
            files: text files; a split of the run's own data when `None`.
            split: `valid` or `train`.
            streams: rows read side by side, each from a cold state; the run's own number when `None`.

        Returns:
            Loss in nats per symbol, perplexity, bits per character.

        Raises:
            ConfigurationError: no such split, or no stream at all.
        """
        if split not in TextParts._fields:
            raise ConfigurationError(f"`--split` must be one of {', '.join(TextParts._fields)}, got `{split}`")
        if streams is not None and streams < 1:
            raise ConfigurationError(f"`streams` must be at least 1, got {streams}")
        part = build_corpus(as_paths(files), self.tokenizer, self.folder.cache) if files else getattr(self.parts(), split)
        return evaluate_part(self.model, part, streams or self.settings.train.evaluation_batch_size)

    def parts(self) -> TextParts:
        """The run's own text, cut in two.

        Returns:
            The part that trains and the part that validates.
        """
        files, valid = recorded_files(self.folder)
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
        return summary_of(self.folder)


class LanguageModelTask(Task[LanguageModelRun]):
    """How a language model is trained."""

    name = "lm"
    settings = LanguageModelRunSettings
    rules = LANGUAGE_MODEL_RULES
    prepare = staticmethod(prepare)

    def create_run(
        self, path: Path, settings: Any, files: DataFiles, machine: Machine, group: Group, display: Display | None, *, trust: bool
    ) -> None:
        """Make the run folder; see `Task.create_run`.

        Args:
            path: where the run shall stand.
            settings: of the run.
            files: text to train on and to validate on.
            machine: what computes.
            group: the processes that will share the training.
            display: is told what a person should know.
            trust: allow `model.cell` to import a class of the user's own.
        """
        if display is not None and sum(text.stat().st_size for text in files.train if text.is_file()) > LARGE_TEXT:
            display.noted("reading the text and making symbols of it; about a minute for a gigabyte of characters, longer for byte pairs")
        create_run(path, settings, files.train, files.valid, machine, group, trust=trust)

    def open_run(self, folder: RunFolder, *, trust: bool) -> LanguageModelRun:
        """Open a run with its best weights.

        Args:
            folder: the run.
            trust: allow the run to import a class of its own.

        Returns:
            The run.
        """
        settings = resolve(self.settings, folder.read_config())
        tokenizer = load_tokenizer(folder.tokenizer)
        model = build_model(settings, tokenizer.size, trust=trust)
        tensors, _ = read_checkpoint(folder.weights)
        load_weights(model, tensors, folder.weights)
        return LanguageModelRun(folder, settings, tokenizer, model)


LANGUAGE_MODEL = LanguageModelTask()
train_language_model = LANGUAGE_MODEL.train
"""Train a language model on UTF-8 text files; the last tenth of the text validates where no files do; see `Task.train`."""
resume_language_model = LANGUAGE_MODEL.resume
"""Go on with a training where its last checkpoint stands; see `Task.resume`."""
load_language_model = LANGUAGE_MODEL.load
"""Open a run with its best weights; see `Task.load`."""
