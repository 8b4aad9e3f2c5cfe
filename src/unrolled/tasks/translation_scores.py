"""How good translations are, by the measures of the field."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from unrolled.core.errors import DataError


class TextScores(NamedTuple):
    """Figures of outputs against references, all from 0 to 100."""

    bleu: float
    """Corpus BLEU of sacreBLEU: cased, detokenised, tokenised by it as `13a`."""
    chrf: float
    """chrF2 of sacreBLEU."""
    exact_match: float
    """Share of sources of which the output is one of the references."""
    wer: float
    """Word error rate as the pronunciation literature has it: share of sources of which the output is none of the references."""
    symbol_error_rate: float
    """Edits by which outputs differ from their nearest reference, for each symbol (word, phone) between spaces of the references."""
    bleu_signature: str
    chrf_signature: str


class TranslationScores(NamedTuple):
    """How well a model translates a set of pairs."""

    sentences: int
    """Sources that were translated; one that comes with several targets is one."""
    loss: float | None = None
    """Nats per target symbol under teacher forcing."""
    perplexity: float | None = None
    """`exp(loss)`."""
    token_accuracy: float | None = None
    """Share of target symbols that are the likeliest under teacher forcing, from 0 to 100."""
    symbols: int | None = None
    """Target symbols, end symbols included."""
    bleu: float | None = None
    chrf: float | None = None
    exact_match: float | None = None
    wer: float | None = None
    symbol_error_rate: float | None = None
    bleu_signature: str | None = None
    chrf_signature: str | None = None
    steps: int | None = None
    """Steps of decoding, summed over sentences."""
    steps_saved: int | None = None
    """Steps that early stopping made needless, at most."""


class Grouped(NamedTuple):
    """Sources, each once, with all of their references."""

    sources: list[str]
    references: list[list[str]]


def group_references(sources: Sequence[str], targets: Sequence[str]) -> Grouped:
    """Give a source that comes several times with different targets (a word with several pronunciations) all of them.

    Args:
        sources: one a pair.
        targets: one a pair.

    Returns:
        Different sources in the order of their first coming; all pairs as they are where none of them repeats with another target.
    """
    found: dict[str, list[str]] = {}
    for source, target in zip(sources, targets, strict=True):
        found.setdefault(source, [])
        if target not in found[source]:
            found[source].append(target)
    if all(len(references) == 1 for references in found.values()):
        return Grouped(list(sources), [[target] for target in targets])
    return Grouped(list(found), list(found.values()))


def score_texts(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> TextScores:
    """Compare outputs with references.

    Args:
        outputs: one a source.
        references: one or more a source.

    Returns:
        The figures.

    Raises:
        DataError: there is nothing to compare.
    """
    if not outputs:
        raise DataError("there must be at least one sentence to score, got none")
    import jiwer
    from sacrebleu.metrics import BLEU, CHRF

    most = max(len(those) for those in references)
    # sacreBLEU takes one list for each place among the references; a source with fewer has none there.
    columns: list[Any] = [[those[place] if place < len(those) else None for those in references] for place in range(most)]
    bleu, chrf = BLEU(), CHRF()
    right = sum(output in those for output, those in zip(outputs, references, strict=True))
    edits = symbols = 0
    for output, those in zip(outputs, references, strict=True):
        each = [jiwer.process_words(reference or " ", output) for reference in those]
        nearest = min(each, key=lambda one: one.substitutions + one.deletions + one.insertions)
        edits += nearest.substitutions + nearest.deletions + nearest.insertions
        symbols += nearest.hits + nearest.substitutions + nearest.deletions
    share = 100 * right / len(outputs)
    rate = 100 * edits / symbols if symbols else math.nan
    bleu_score, chrf_score = bleu.corpus_score(list(outputs), columns), chrf.corpus_score(list(outputs), columns)
    return TextScores(bleu_score.score, chrf_score.score, share, 100 - share, rate, str(bleu.get_signature()), str(chrf.get_signature()))
