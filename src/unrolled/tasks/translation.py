"""The translation task: train on pairs of sequences, translate, score, resume."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unrolled.core.errors import ConfigurationError
from unrolled.core.files import write_text
from unrolled.core.settings import resolve
from unrolled.data.batches import build_pair_corpus, evaluation_batches
from unrolled.data.pairs import Pairs, read_pairs
from unrolled.models.encoder_decoder import EncoderDecoder
from unrolled.tasks.recorded_data import recorded_files
from unrolled.tasks.run_folder import RunFolder
from unrolled.tasks.task import DataFiles, Task
from unrolled.tasks.training import as_paths, summary_of
from unrolled.tasks.training_log import Display
from unrolled.tasks.translating import LINES_AT_ONCE, Translator, Voice
from unrolled.tasks.translation_data import Codecs, PairParts, load_codecs, open_pairs
from unrolled.tasks.translation_objective import nats_by_row
from unrolled.tasks.translation_request import Translation, TranslationRequest
from unrolled.tasks.translation_scores import TranslationScores
from unrolled.tasks.translation_settings import TranslationRunSettings
from unrolled.tasks.translation_training import build_model, create_run, objective_of, prepare, score_corpus, translated
from unrolled.tasks.without_effect import TRANSLATION_RULES
from unrolled.train.checkpoint import load_weights, read_checkpoint
from unrolled.train.group import Group
from unrolled.train.precision import Machine


class TranslationRun:
    """A trained encoder–decoder with its vocabularies and its run folder."""

    evaluation_options = frozenset({"split", "ensemble", "lines", *TranslationRequest.model_fields})
    """What `evaluate` takes besides files."""

    def __init__(
        self, folder: RunFolder, settings: TranslationRunSettings, codecs: Codecs, model: EncoderDecoder, *, trust: bool = False
    ) -> None:
        self.folder, self.settings, self.codecs, self.model, self.trust = folder, settings, codecs, model.eval(), trust

    def translator(self, ensemble: Sequence[Path | str | TranslationRun] = ()) -> Translator:
        """What translates: this model, or this one together with others.

        Args:
            ensemble: further runs, or their folders; their source vocabularies may differ, the target's must not.

        Returns:
            The translator.
        """
        runs = [self, *(one if isinstance(one, TranslationRun) else load_translation(one, trust=self.trust) for one in ensemble)]
        return Translator([Voice(run.model.to(self.model.device), run.codecs) for run in runs])

    def translate(self, sentence: str, **wishes: Any) -> str:
        """Translate one sentence.

        Args:
            sentence: one line of text.
            wishes: fields of `TranslationRequest`, such as `beam=5`.

        Returns:
            Its best translation.
        """
        return self.translations([sentence], **wishes)[0][0].text

    def translations(
        self, sentences: Sequence[str], request: TranslationRequest | None = None, *, ensemble: Sequence[Path | str] = (), **wishes: Any
    ) -> list[list[Translation]]:
        """Translate sentences.

        Args:
            sentences: one line of text each.
            request: how.
            ensemble: folders of further runs to translate together with.
            wishes: or its fields by keyword, `beam=5, n_best=3`.

        Returns:
            Translations by sentence, best first.
        """
        return self.translator(ensemble).translate(sentences, request or resolve(TranslationRequest, wishes))

    def stream(
        self, lines: Iterable[str], request: TranslationRequest, *, ensemble: Sequence[Path | str] = (), at_once: int = LINES_AT_ONCE
    ) -> Iterator[list[Translation]]:
        """Translate as many lines as come.

        Args:
            lines: sentences.
            request: how.
            ensemble: folders of further runs to translate together with.
            at_once: lines that are read before the first is put out.

        Yields:
            The translations of each line; `refused` says why there is none where a line is longer than the model reads.
        """
        yield from self.translator(ensemble).stream(lines, request, at_once)

    def score(self, sources: Sequence[str], targets: Sequence[str]) -> list[float]:
        """The log-probability of given translations, without any search.

        Args:
            sources: one line of text each, none of them empty.
            targets: what each is translated by.

        Returns:
            Nats, `Σ log P` of the target's symbols and its end, a number a pair.
        """
        pairs = Pairs(list(sources), list(targets), ("sources", "targets"), range(1, len(sources) + 1))
        corpus = build_pair_corpus(pairs, *self.codecs)
        objective = objective_of(self.settings, self.model, self.codecs).eval()
        sorted_rows = evaluation_batches(corpus.lengths, self.settings.train.evaluation_tokens)
        found = [-value for rows in sorted_rows.batches for value in nats_by_row(objective, corpus.collate(rows)).tolist()]
        return [found[i] for i in sorted_rows.restore]

    def evaluate(
        self,
        files: Sequence[Path | str] | Path | str | None = None,
        *,
        split: str = "valid",
        ensemble: Sequence[Path | str] = (),
        lines: Path | str | None = None,
        **wishes: Any,
    ) -> TranslationScores:
        """Score the model on pairs: under teacher forcing, and what it translates.

        Args:
            files: pairs in one of the forms that training takes; a part of the run's own when `None`.
            split: `valid` or `train`.
            ensemble: folders of further runs to translate together with.
            lines: a file for one JSON object a source: references with their log-probabilities, and what was translated.
            wishes: fields of `TranslationRequest`, such as `beam=5`.

        Returns:
            Loss, accuracy, BLEU, chrF, exact match and error rates; for several runs together what they translate only.

        Raises:
            ConfigurationError: no such split, or lines of several runs.
        """
        if split not in PairParts._fields:
            raise ConfigurationError(f"`--split` must be one of {', '.join(PairParts._fields)}, got `{split}`")
        request = resolve(TranslationRequest, wishes)
        data = self.settings.data
        pairs: Pairs = read_pairs(as_paths(files), keys=(data.source_key, data.target_key)) if files else getattr(self.parts(), split)
        if ensemble and lines is not None:
            raise ConfigurationError("`lines` holds log-probabilities of a single model; leave it out, or the ensemble")
        found, outputs = translated(self.translator(ensemble), pairs, request)
        if lines is not None:
            self._write_lines(Path(lines), pairs, outputs)
        if ensemble:
            return found
        objective = objective_of(self.settings, self.model, self.codecs).eval()
        taught = score_corpus(objective, build_pair_corpus(pairs, *self.codecs), self.settings.train.evaluation_tokens)
        return found._replace(loss=taught.loss, perplexity=taught.perplexity, token_accuracy=taught.token_accuracy, symbols=taught.symbols)

    def _write_lines(self, path: Path, pairs: Pairs, outputs: Mapping[str, Translation]) -> None:
        known = self.score(pairs.sources, pairs.targets)
        written = [
            {
                "source": source,
                "target": target,
                "log_probability": value,
                "output": outputs[source].text,
                "output_score": outputs[source].score,
            }
            for source, target, value in zip(pairs.sources, pairs.targets, known, strict=True)
        ]
        write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in written))

    def parts(self) -> PairParts:
        """The run's own pairs.

        Returns:
            Those that train and those that validate.
        """
        return open_pairs(self.settings.data, *recorded_files(self.folder))

    def summary(self) -> dict[str, Any]:
        """How the training ended.

        Returns:
            Run, status and the best figures.
        """
        return summary_of(self.folder)


class TranslationTask(Task[TranslationRun]):
    """How an encoder–decoder is trained."""

    name = "translation"
    settings = TranslationRunSettings
    rules = TRANSLATION_RULES
    prepare = staticmethod(prepare)

    def create_run(
        self, path: Path, settings: Any, files: DataFiles, machine: Machine, group: Group, display: Display | None, *, trust: bool
    ) -> None:
        """Make the run folder; see `Task.create_run`.

        Args:
            path: where the run shall stand.
            settings: of the run.
            files: pairs to train on and to validate on.
            machine: what computes.
            group: the processes that will share the training.
            display: is told what a person should know.
            trust: allow the settings to import a class of the user's own.
        """
        create_run(path, settings, files, machine, group, display, trust=trust)

    def open_run(self, folder: RunFolder, *, trust: bool) -> TranslationRun:
        """Open a run with its best weights.

        Args:
            folder: the run.
            trust: allow the run to import a class of its own.

        Returns:
            The run.
        """
        settings = resolve(self.settings, folder.read_config())
        codecs = load_codecs(folder)
        model = build_model(settings, codecs, trust=trust)
        tensors, _ = read_checkpoint(folder.weights)
        load_weights(model, tensors, folder.weights)
        return TranslationRun(folder, settings, codecs, model, trust=trust)


TRANSLATION = TranslationTask()
train_translation = TRANSLATION.train
"""Train an encoder–decoder on two files of equally many lines, or one `.tsv` or `.jsonl` file; see `Task.train`."""
resume_translation = TRANSLATION.resume
"""Go on with a training where its last checkpoint stands; see `Task.resume`."""
load_translation = TRANSLATION.load
"""Open a run with its best weights; see `Task.load`."""
