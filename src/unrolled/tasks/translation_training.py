"""How a translation run is set up and what its training is made of."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.data.batches import PairCorpus, evaluation_batches
from unrolled.data.pairs import Pairs, suspected_swap
from unrolled.models.encoder_decoder import EncoderDecoder, Sizes
from unrolled.tasks.recorded_data import recorded_files
from unrolled.tasks.run_folder import RunFolder, new_run
from unrolled.tasks.task import DataFiles
from unrolled.tasks.training import facts_of, seeded
from unrolled.tasks.training_log import Display, Prepared, open_tensorboard
from unrolled.tasks.translating import Translator, Voice
from unrolled.tasks.translation_data import Codecs, PairWindows, build_corpora, describe, load_codecs, make_codecs, open_pairs, save_codecs
from unrolled.tasks.translation_objective import TranslationObjective, score_pairs
from unrolled.tasks.translation_request import Translation, TranslationRequest
from unrolled.tasks.translation_scores import TranslationScores, group_references, score_texts
from unrolled.tasks.translation_settings import TranslationRunSettings
from unrolled.train.group import Group
from unrolled.train.loop import Record
from unrolled.train.optimizers import build_optimizer
from unrolled.train.precision import Machine

GREEDY = TranslationRequest(beam=1, normalisation="none")


def create_run(
    path: Path,
    settings: TranslationRunSettings,
    files: DataFiles,
    machine: Machine,
    group: Group,
    display: Display | None,
    *,
    trust: bool,
) -> None:
    """Make the run folder; everything that can go wrong before training goes wrong here, and then leaves nothing behind.

    Args:
        path: where the run shall stand.
        settings: of the run.
        files: pairs to train on and to validate on.
        machine: what computes.
        group: the processes that will share the training.
        display: is told what a person should know.
        trust: allow the settings to import a class of the user's own.
    """
    with new_run(path) as folder:
        parts = open_pairs(settings.data, files.train, files.valid)
        codecs = make_codecs(settings.data, parts.train)
        corpora = build_corpora(folder, parts, codecs, settings.data.longest)
        model = build_model(settings, codecs, trust=trust)
        check_reach(settings, corpora)
        build_optimizer(model, settings.train.optimizer)
        if settings.train.tensorboard:
            open_tensorboard(None)
        save_codecs(folder, codecs)
        folder.write_config(settings)
        data = describe(folder, files.train, files.valid, codecs, corpora)
        folder.write_facts(facts_of("translation", path, machine, group, model, data, samples=True))
    for said in (suspected_swap(*parts), left_out(corpora[0], settings)):
        if said and display is not None:
            display.noted(said)


def check_reach(settings: TranslationRunSettings, corpora: tuple[PairCorpus, PairCorpus]) -> None:
    """Refuse sentences that learned positions do not reach, before anything is trained.

    Args:
        settings: of the run.
        corpora: what trains and what validates.

    Raises:
        ConfigurationError: a sentence is too long.
    """
    model = settings.model
    if model.transformer.positions != "learned":
        return
    both = model.encoder.kind == "none"
    lengths = [
        (int(sources.max()), int(targets.max()), int((sources + targets).max())) for sources, targets in (c.lengths for c in corpora)
    ]
    source, target, together = (max(column) for column in zip(*lengths, strict=True))
    read = [("source", source)] if model.encoder.kind == "transformer" else []
    if model.decoder.kind == "transformer":
        read.append(("source and target together", together + 1) if both else ("target", target + 1))
    for name, longest in read:
        if longest > model.transformer.longest:
            raise ConfigurationError(
                f"learned positions must reach the longest {name}, {longest} symbols with its end, got `model.transformer.longest={model.transformer.longest}`; "
                "raise it, or use sinusoidal ones"
            )


def left_out(corpus: PairCorpus, settings: TranslationRunSettings) -> str | None:
    """What is said of pairs that are too long to train on.

    Args:
        corpus: what trains.
        settings: of the run.

    Returns:
        A sentence, or nothing where all are there.
    """
    if not corpus.left_out:
        return None
    total = corpus.left_out + len(corpus)
    return (
        f"{corpus.left_out:,} of {total:,} pairs have more than {settings.data.longest} symbols on a side (`data.longest`) and are left out"
    )


def build_model(settings: TranslationRunSettings, codecs: Codecs, *, trust: bool = False) -> EncoderDecoder:
    """The model with the weights that the run's seed gives.

    Args:
        settings: of the run.
        codecs: its vocabularies.
        trust: allow the settings to import a class of the user's own.

    Returns:
        The model.
    """
    sizes = Sizes(codecs.source.vocabulary, codecs.target.vocabulary, codecs.joint)
    copy_ids = codecs.copy_ids() if settings.model.attention.copies else None
    model: EncoderDecoder = seeded(settings.train.seed, lambda: EncoderDecoder(settings.model, sizes, copy_ids=copy_ids, trust=trust))
    return model


def objective_of(settings: TranslationRunSettings, model: EncoderDecoder, codecs: Codecs) -> TranslationObjective:
    """What a run minimises.

    Args:
        settings: of the run.
        model: to be trained.
        codecs: its vocabularies.

    Returns:
        The objective.
    """
    train, target = settings.train, codecs.target
    return TranslationObjective(
        model, start=target.start, end=target.end, label_smoothing=train.label_smoothing, scheduled_sampling=train.scheduled_sampling
    )


def prepare(folder: RunFolder, settings: TranslationRunSettings, group: Group, trust: bool) -> Prepared:
    """Open what a run folder describes.

    Args:
        folder: the run.
        settings: of the run.
        group: the processes that share the training.
        trust: allow the settings to import a class of the user's own.

    Returns:
        What is trained, on what, and how it is scored.
    """
    train, codecs = settings.train, load_codecs(folder)
    parts = open_pairs(settings.data, *recorded_files(folder))
    corpus, check = build_corpora(folder, parts, codecs, settings.data.longest)
    windows = PairWindows(
        parts.train, corpus, codecs, batch_tokens=train.batch_tokens, seed=train.seed, group=group, dropout=settings.data.bpe_dropout
    )
    decoded = parts.valid.select(range(min(train.evaluation_decodes, len(parts.valid))))

    def evaluate(module: Any, group: Group) -> Record:
        found = score_corpus(module, check, train.evaluation_tokens, group)
        # Only the leader's figures are written; the others need not translate.
        if len(decoded) and group.leads:
            translator = Translator([Voice(module.model, codecs)])
            found = found._replace(bleu=translated(translator, decoded, GREEDY)[0].bleu)
        return {key: value for key, value in found._asdict().items() if value is not None}

    def sample(module: Any, record: Record) -> Record | None:
        return stage_sample(Translator([Voice(module.model, codecs)]), parts.valid.select(range(few)), record) if few else None

    few = min(settings.samples.sentences, len(parts.valid))
    return Prepared(objective_of(settings, build_model(settings, codecs, trust=trust), codecs), windows, evaluate, sample)


def stage_sample(translator: Translator, pairs: Pairs, record: Record) -> Record:
    """Some translations at a stage of training.

    Args:
        translator: as it is now.
        pairs: sentences to translate.
        record: the evaluation that goes with them.

    Returns:
        A line of the samples file.
    """
    found = translator.translate(pairs.sources, GREEDY)
    lines = [f"{source}\n→ {best[0].text}" for source, best in zip(pairs.sources, found, strict=True)]
    return {key: record[key] for key in ("step", "share", "seconds", "loss")} | {"prompt": "", "text": "\n".join(lines)}


def score_corpus(objective: TranslationObjective, corpus: PairCorpus, batch_tokens: int, group: Group | None = None) -> TranslationScores:
    """Loss and accuracy of a model under teacher forcing.

    Args:
        objective: in evaluation mode.
        corpus: the pairs.
        batch_tokens: symbols of a batch.
        group: the processes that share the pairs.

    Returns:
        The figures; those of translations are `None`.

    Raises:
        DataError: there is no pair.
    """
    group = group or Group()
    if not len(corpus):
        raise DataError("there must be at least one pair to score, got none")
    batches = evaluation_batches(corpus.lengths, batch_tokens).batches[group.rank :: group.size]
    sums = score_pairs(objective, (corpus.collate(rows) for rows in batches), group)
    loss, symbols = sums.nats / sums.symbols, int(sums.symbols)
    return TranslationScores(len(corpus), loss, math.exp(min(loss, 700.0)), 100 * sums.right / sums.symbols, symbols)


def translated(translator: Translator, pairs: Pairs, request: TranslationRequest) -> tuple[TranslationScores, dict[str, Translation]]:
    """Translate the sources of pairs and compare with their targets.

    Args:
        translator: one model or several.
        pairs: sentences with references.
        request: how they are translated.

    Returns:
        The figures of translations (loss and accuracy are not measured here), and the best translation of each source.
    """
    grouped = group_references(pairs.sources, pairs.targets)
    search = translator.search(grouped.sources, request)
    best = [found[0] for found in search.translations]
    texts = score_texts([one.text for one in best], grouped.references)
    counted = TranslationScores(len(grouped.sources), steps=search.steps, steps_saved=search.steps_saved)
    return counted._replace(**texts._asdict()), dict(zip(grouped.sources, best, strict=True))
