"""What tagging, classification and masked language models have in common: texts are read as units by one kind of encoder."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.core.settings import Settings, resolve
from unrolled.data.labels import LabelSet, save_labels
from unrolled.data.units import Units, save_units, train_units
from unrolled.models.text_encoder import depths
from unrolled.tasks.recorded_data import record_files, recorded_files
from unrolled.tasks.row_windows import RowObjective, RowWindows
from unrolled.tasks.run_folder import RunFolder, new_run
from unrolled.tasks.task import DataFiles, Run, Task
from unrolled.tasks.text_samples import Held, Judged, Parts, RowCorpus, Samples, batches_of, load_held, standing_twice, unseen
from unrolled.tasks.text_start import Pretrained, Start, apply_start, from_start, keep_pretrained, keep_start, open_pretrained, read_start
from unrolled.tasks.training import as_paths, facts_of, seeded
from unrolled.tasks.training_log import Display, Prepared, open_tensorboard
from unrolled.tasks.without_effect import TEXT_RULES
from unrolled.train.group import Group
from unrolled.train.loop import Record
from unrolled.train.optimizers import Thawing, build_optimizer
from unrolled.train.precision import Machine

SHUFFLE = 20_150_804
"""The seed by which validation texts are drawn: the same for every run on the same files."""


EQUAL = 1e-3
"""Of evaluations with equal scores the one of the lower loss is the better."""


class TextTask(Task[Run]):
    """A task on texts: how its files are read, what its model is, and how it is scored."""

    run: Callable[..., Run]
    """What its trained model is to a person: made of the task and a run folder."""
    rules = TEXT_RULES
    unit = "token"
    """What a loss is the mean over."""

    @abstractmethod
    def read(self, settings: Any, files: Sequence[Path], labels: LabelSet | None = None) -> tuple[Samples, tuple[str, ...]]:
        """Read files.

        Args:
            settings: `data` of the run.
            files: of one part.
            labels: of the run, whose form those of the files are brought into; `None` for what is trained on, which gives the form.

        Returns:
            The samples, and what a person should know of them.
        """

    @abstractmethod
    def learn_labels(self, settings: Any, samples: Samples) -> LabelSet | None:
        """The labels there are.

        Args:
            settings: `data` of the run.
            samples: what trains.

        Returns:
            The labels of what trains; `None` for a task without any.
        """

    @abstractmethod
    def make_model(self, settings: Any, held: Held, *, trust: bool) -> Any:
        """An untrained model.

        Args:
            settings: of the run.
            held: its vocabulary and labels.
            trust: allow the settings to import a class of the user's own.

        Returns:
            The model; its `text` is a `TextEncoder`.
        """

    @abstractmethod
    def make_objective(self, settings: Any, model: Any, samples: Samples, held: Held) -> RowObjective:
        """What a run minimises.

        Args:
            settings: of the run.
            model: to be trained.
            samples: what it is trained on, possibly none.
            held: its vocabulary and labels.

        Returns:
            The objective.
        """

    @abstractmethod
    def make_rows(self, settings: Any, samples: Samples, held: Held, *, train: bool) -> RowCorpus:
        """Samples as batches are made from them.

        Args:
            settings: of the run.
            samples: of one part.
            held: its vocabulary and labels.
            train: whether they are trained on: texts that are too long are cut then.

        Returns:
            The rows.
        """

    @abstractmethod
    def judge(self, objective: Any, batch: Any, counts: bool) -> Judged:
        """Let a model answer a batch.

        Args:
            objective: in evaluation mode.
            batch: of rows.
            counts: whether its labels are all known, so that there is a loss.

        Returns:
            The loss and the answers.
        """

    @abstractmethod
    def figures(self, samples: Samples, answers: Sequence[Any], settings: Any, held: Held) -> Record:
        """The figures of answers, but for the loss.

        Args:
            samples: with their labels.
            answers: from `judge`, one a sample.
            settings: of the run.
            held: its vocabulary and labels.

        Returns:
            Figures; `criterion` is the lower the better where the loss is not what counts.
        """

    def open_parts(self, settings: Any, files: Sequence[Path], valid: Sequence[Path]) -> Parts:
        """Read the samples of a run.

        Args:
            settings: `data` of the run.
            files: to train on.
            valid: to validate on; drawn from `files` when empty.

        Returns:
            What trains and what validates.

        Raises:
            DataError: too few samples to share.
        """
        samples, notes = self.read(settings, files)
        if valid:
            check, more = self.read(settings, valid, self.learn_labels(settings, samples))
            return Parts(samples, check, (*notes, *more, *standing_twice(samples, check)))
        groups = np.arange(len(samples.texts)) if samples.groups is None else np.asarray(samples.groups)
        whole = np.ones(len(groups), dtype=bool) if samples.whole is None else np.asarray(samples.whole)
        names = np.unique(groups[whole])
        if len(names) < 2:
            found = len(names)
            raise DataError(f"`{files[0]}` must hold at least 2 texts, so that one can validate, got {found}; give `--valid` as well")
        order = np.random.default_rng(SHUFFLE).permutation(names)
        cut = min(max(1, round(len(order) * settings.valid_share)), len(order) - 1)
        held = np.isin(groups, order[:cut])
        return Parts(samples.select(np.flatnonzero(~held).tolist()), samples.select(np.flatnonzero(held & whole).tolist()), notes)

    def create_run(
        self,
        path: Path,
        settings: Any,
        files: DataFiles,
        machine: Machine,
        group: Group,
        display: Display | None,
        *,
        trust: bool,
        start: Start | None = None,
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
            start: what the run begins from.
        """
        with new_run(path) as folder:
            parts = self.open_parts(settings.data, *files)
            pretrained = None if start is not None else open_pretrained(settings, parts.train.texts)
            held = Held(self._units(settings.data, parts.train, start, pretrained), self.learn_labels(settings.data, parts.train))
            model = seeded(settings.train.seed, lambda: self.make_model(settings, held, trust=trust))
            rows = self.make_rows(settings, parts.train, held, train=True)
            check = self.make_rows(settings, parts.valid, held, train=False)
            build_optimizer(model, settings.train.optimizer)
            if settings.train.tensorboard:
                open_tensorboard(None)
            save_units(held.units, folder.units)
            if held.labels is not None:
                save_labels(held.labels, folder.labels)
            keep_start(folder, start)
            said = keep_pretrained(folder, pretrained, held.units, model)
            apply_start(folder, model)
            folder.write_config(settings)
            data = record_files(folder, *files) | {
                "train_texts": len(rows.lengths),
                "valid_texts": len(check.lengths),
                "train_tokens": int(rows.lengths.sum()),
                "valid_tokens": int(check.lengths.sum()),
                "vocabulary": held.units.vocabulary,
                "labels": 0 if held.labels is None else len(held.labels.names),
            }
            folder.write_facts(facts_of(self.name, path, machine, group, model, data, unit=self.unit))
        for note in (*parts.notes, *unseen(held, check), *([said] if said else [])):
            if display is not None:
                display.noted(note)

    def _units(self, data: Any, samples: Samples, start: Start | None, pretrained: Pretrained | None) -> Units:
        if start is not None:
            return start.units
        return train_units(
            data.tokens,
            samples.texts,
            vocabulary_size=data.vocabulary_size,
            min_count=data.min_count,
            lowercase=data.lowercase,
            keep=() if pretrained is None else pretrained.words,
        )

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
        train, held = settings.train, load_held(folder)
        parts = self.open_parts(settings.data, *recorded_files(folder))
        model = seeded(train.seed, lambda: self.make_model(settings, held, trust=trust))
        apply_start(folder, model)
        objective = self.make_objective(settings, model, parts.train, held)
        if train.layer_rate != 1 or train.unfreeze:
            own = {f"model.{name}": depth for name, depth in depths(model).items()}
            objective.thawing = Thawing(own, train.layer_rate, train.unfreeze)
        rows = self.make_rows(settings, parts.train, held, train=True)
        check = self.make_rows(settings, parts.valid, held, train=False)
        windows = RowWindows((rows.lengths,), rows.collate, batch_tokens=train.batch_tokens, seed=train.seed, group=group)

        def evaluate(module: Any, group: Group) -> Record:
            # Only the leader's figures are written; each process scores all.
            return self.evaluate(module, parts.valid, check, settings, held)

        return Prepared(objective, windows, evaluate, lambda module, record: None)

    def evaluate(self, objective: Any, samples: Samples, rows: RowCorpus, settings: Any, held: Held) -> Record:
        """Loss and figures.

        Args:
            objective: in evaluation mode.
            samples: with their labels.
            rows: made of them.
            settings: of the run.
            held: vocabulary and labels.

        Returns:
            `sentences`, `loss` (`None` where nothing has a label that training saw), `symbols` and the figures of the task.

        Raises:
            DataError: there is nothing to score.
        """
        if not len(rows.lengths):
            raise DataError("there must be at least one text to score, got none")
        nats, count, answers = 0.0, 0, [None] * len(rows.lengths)
        others = np.setdiff1d(np.arange(len(rows.lengths)), rows.known)
        for places, counts in ((rows.known, True), (others, False)):
            for batch in batches_of(rows, places, settings.train.evaluation_tokens):
                judged = self.judge(objective, rows.collate(batch, 0, None), counts)
                nats, count = nats + judged.nats, count + judged.scored
                for place, answer in zip(batch, judged.answers, strict=True):
                    answers[place] = answer
        loss = nats / count if count else None
        figures = self.figures(samples, answers, settings, held)
        if loss is None:  # nothing that could be judged by its loss
            figures.setdefault("criterion", 100 - figures["accuracy"])
        if "criterion" in figures and loss is not None and math.isfinite(loss):
            figures["criterion"] += EQUAL * loss
        return {"sentences": len(rows.lengths), "loss": loss, "symbols": count} | figures

    def train(
        self,
        files: Sequence[Path | str] | Path | str,
        *,
        valid: Sequence[Path | str] | Path | str = (),
        out: Path | str | None = None,
        differences: Mapping[str, Any] | None = None,
        init_from: Path | str | None = None,
        display: Display | None = None,
        trust: bool = False,
    ) -> Run:
        """Train a new run.

        Args:
            files: in a form that the task reads; plain or `.gz`.
            valid: to validate on; a tenth of `files`, drawn at random, when empty.
            out: the run folder; a new one below `runs/` when `None`.
            differences: nested options that differ from the defaults.
            init_from: a run whose vocabulary and encoder this one begins from.
            display: shows the training as it goes.
            trust: allow the settings to import a class of the user's own.

        Returns:
            The run, with the best weights loaded.

        Raises:
            ConfigurationError: pretrained vectors for a run that begins from another one.
        """
        paths = DataFiles(as_paths(files), as_paths(valid))
        start = None if init_from is None else read_start(init_from)
        if start is not None and (differences or {}).get("data", {}).get("vectors"):
            raise ConfigurationError("`--init-from` brings vectors of its own; leave `data.vectors` out, or begin from nothing")
        settings: Settings = resolve(self.settings, from_start(start, differences or {}))

        def create(path: Path, machine: Machine, group: Group) -> None:
            self.create_run(path, settings, paths, machine, group, display, trust=trust, start=start)

        return self.trained(settings, paths, create, out=out, display=display, trust=trust)

    def open_run(self, folder: RunFolder, *, trust: bool) -> Run:
        """Open a run with its best weights.

        Args:
            folder: the run.
            trust: allow the run to import a class of its own.

        Returns:
            The run.
        """
        return self.run(self, folder, trust=trust)
