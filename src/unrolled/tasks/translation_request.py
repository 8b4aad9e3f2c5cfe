"""How sentences shall be translated, and what comes of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from unrolled.core.errors import DataError
from unrolled.core.settings import Settings
from unrolled.data.pairs import read_pairs
from unrolled.tasks.alignment import Link


class TranslationRequest(Settings):
    """How sentences are translated."""

    beam: int = Field(5, ge=1)
    """Hypotheses kept for each sentence; 1 is greedy."""
    n_best: int = Field(1, ge=1)
    """Translations handed out for each sentence, at most `beam`."""
    normalisation: Literal["none", "average", "gnmt"] = "gnmt"
    """What the sum of log-probabilities is divided by: 1, `length^alpha`, or `((5 + length) / 6)^alpha` (Wu et al. 2016, eq. 14)."""
    alpha: float = 1.0
    """Exponent of the length normalisation."""
    coverage: float = Field(0.0, ge=0)
    """Weight of the coverage penalty (Wu et al. 2016, eq. 14), for decoders that attend step by step."""
    min_length: int = Field(0, ge=0)
    """The fewest symbols of a translation."""
    max_ratio: float = Field(3.0, ge=0)
    """The most symbols of a translation for each symbol of its source, plus `max_extra`; what reaches the limit is cut there, and that is said."""
    max_extra: int = Field(50, ge=1)
    """Symbols that a translation may have besides."""
    no_repeat_ngram: int | None = Field(None, ge=1)
    """No run of this many symbols comes twice."""
    early_stopping: bool = True
    """Stop a sentence as soon as nothing can change its best translations; loses nothing."""
    sampling: bool = False
    """Draw `n_best` translations by chance instead of searching."""
    temperature: float = Field(1.0, ge=0)
    """How bold sampling is."""
    top_k: int | None = Field(None, ge=1)
    """Sample among so many likeliest symbols."""
    top_p: float | None = Field(None, ge=0, le=1)
    """Sample among the likeliest symbols that have this probability together."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Of sampling."""
    prefix: str = ""
    """What every translation begins with."""
    require: tuple[str, ...] = ()
    """Phrases that every translation must contain, as whole words, as the vocabulary cuts them."""
    forbid: tuple[str, ...] = ()
    """Phrases that no translation may contain, as whole words, as the vocabulary cuts them; with a beam of 1 and in sampling also words that begin so."""
    terminology: Path | None = None
    """A TSV file of terms: where a sentence has the first column as whole words, its translation must have the second."""
    alignments: bool = False
    """Say which word came from which, by attention (a Transformer's is that of its last layer)."""
    replace_unknowns: bool = False
    """Put the source word that was attended to most in the place of an unknown symbol."""
    batch_tokens: int = Field(4096, ge=1)
    """Source symbols of a batch, padding included; `beam` times as many rows are decoded side by side."""

    @field_validator("require", "forbid", mode="before")
    @classmethod
    def _one_is_enough(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

    @field_validator("prefix", mode="before")
    @classmethod
    def _numbers_are_text(cls, given: Any) -> Any:
        return str(given) if isinstance(given, int | float) else given

    @model_validator(mode="after")
    def _fits(self) -> TranslationRequest:
        if self.n_best > self.beam and not self.sampling:
            raise ValueError(f"`n_best` must be at most `beam`, {self.beam}, got {self.n_best}; raise `beam`")
        searched = [
            name for name in ("prefix", "require", "terminology", "coverage", "alignments", "replace_unknowns") if getattr(self, name)
        ]
        if self.sampling and searched:
            raise ValueError(f"`{searched[0]}` is for searching; leave `sampling` out")
        return self


class Translation(NamedTuple):
    """One translation of a sentence."""

    text: str
    score: float
    """What translations are ranked by."""
    log_probability: float
    """Nats of all symbols."""
    symbols: list[str]
    """The symbols as they are shown, the end symbol last where there is one."""
    token_log_probabilities: list[float]
    """Nats of each symbol."""
    alignment: list[list[float]] | None
    """Attention, a row a symbol; `None` where the decoder does not attend step by step."""
    ended: bool
    """False where the greatest length cut it."""
    met: bool
    """Whether all required phrases are in it."""
    words: list[Link] | None
    """Each word of the translation with the source word it looked at most, as (source, translation), where there is an alignment."""
    refused: str | None = None
    """Why the sentence was not translated, and the text is empty; `None` where it was."""


class Found(NamedTuple):
    """What a search gave."""

    translations: list[list[Translation]]
    """By sentence, best first."""
    steps: int
    """Steps of decoding, summed over sentences."""
    steps_saved: int
    """Steps that early stopping made needless, at most."""


def empty() -> Translation:
    """The translation of an empty sentence.

    Returns:
        Nothing, with certainty.
    """
    return Translation("", 0.0, 0.0, [], [], None, True, True, None)


def refusal(reason: str) -> Translation:
    """What stands for the translation of a sentence that a model cannot translate.

    Args:
        reason: why.

    Returns:
        Nothing, without any score.
    """
    return Translation("", math.nan, math.nan, [], [], None, False, False, None, reason)


def read_terms(path: Path | None) -> list[tuple[str, str]]:
    """The terms of a terminology file.

    Args:
        path: UTF-8, a term and its translation a line, a tab between them; `None` for none.

    Returns:
        Pairs of terms.

    Raises:
        DataError: the file cannot be read, or a line has not two columns.
    """
    if path is None:
        return []
    if not path.name.endswith((".tsv", ".tsv.gz")):
        raise DataError(f"a terminology must be a `.tsv` file, a term and its translation a line, got `{path}`; try renaming it")
    pairs = read_pairs([path])
    return list(zip(pairs.sources, pairs.targets, strict=True))
