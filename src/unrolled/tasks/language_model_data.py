"""Text files of a language-model run: tokenizer, corpus, parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.core.settings import Settings
from unrolled.data import (
    BPETokenizer,
    CharacterTokenizer,
    Corpus,
    Tokenizer,
    UnknownSymbolError,
    WordTokenizer,
    build_corpus,
    open_text,
)
from unrolled.tasks.recorded_data import record_files
from unrolled.tasks.run_folder import RunFolder


class TextSettings(Settings):
    """How text becomes symbols, and which part of it validates."""

    tokens: Literal["characters", "words", "bpe"] = "characters"
    """The symbols: characters; words between white space, with every line end a word of its own; or byte-pair encoding trained on the text."""
    vocabulary_size: int | None = Field(None, ge=2)
    """At most so many words (rarer ones become `<unk>`), or so many byte-pair symbols (4096 when not given)."""
    min_count: int = Field(1, ge=1)
    """Words seen less often become `<unk>`."""
    valid_share: float = Field(0.1, gt=0, lt=1)
    """The last share of the text that validates, where no file of its own does."""


class TextParts(NamedTuple):
    """A text cut in two."""

    train: Corpus
    valid: Corpus


Texts = Iterable[Iterable[str]]

TRAINERS: dict[str, Callable[[Texts, TextSettings], Tokenizer]] = {
    "characters": lambda texts, settings: CharacterTokenizer.train(texts),
    "words": lambda texts, settings: WordTokenizer.train(texts, vocabulary_size=settings.vocabulary_size, min_count=settings.min_count),
    "bpe": lambda texts, settings: BPETokenizer.train(texts, vocabulary_size=settings.vocabulary_size or 4096),
}
"""How each kind of tokenizer learns its vocabulary."""


def make_tokenizer(settings: TextSettings, files: Sequence[Path], valid: Sequence[Path]) -> Tokenizer:
    """Train a tokenizer on text files.

    Args:
        settings: which kind, and how large.
        files: text to train on.
        valid: text to validate on; byte pairs are not learnt from it, characters and words that only it has belong to the vocabulary.

    Returns:
        The tokenizer.

    Raises:
        DataError: the text has a single symbol, so that nothing can be predicted.
        ConfigurationError: an option that this kind of symbol does not have.
    """
    if settings.tokens == "characters" and settings.vocabulary_size is not None:
        raise ConfigurationError("`data.vocabulary_size` limits words and byte pairs; characters are all kept, so leave it out")
    if settings.tokens != "words" and settings.min_count != 1:
        raise ConfigurationError(f"`data.min_count` is for words, and the symbols are {settings.tokens}; leave it out")
    read = [*files, *valid] if settings.tokens != "bpe" else files
    tokenizer = TRAINERS[settings.tokens]([open_text(path) for path in read], settings)
    if tokenizer.size < 2:
        raise DataError(
            f"a language model needs at least two different symbols, and `{files[0]}` has only {tokenizer.symbol(0)!r}; give a longer text"
        )
    return tokenizer


def start_id(tokenizer: Tokenizer) -> int:
    """The symbol that is read before a text without a prompt: a line break where the vocabulary has one.

    Args:
        tokenizer: of a model, which must read something before it can write.

    Returns:
        An id.
    """
    try:
        return int(tokenizer.encode("\n")[-1])
    except UnknownSymbolError:
        return 0


def open_parts(folder: RunFolder, tokenizer: Tokenizer, settings: TextSettings, files: Sequence[Path], valid: Sequence[Path]) -> TextParts:
    """The token ids of a run's text, from its cache where they are there already.

    Args:
        folder: whose cache is used.
        tokenizer: of the run.
        settings: how large the validation part is.
        files: text to train on.
        valid: text to validate on; the end of `files` when empty.

    Returns:
        The two parts.
    """
    corpus = build_corpus(files, tokenizer, folder.cache)
    if valid:
        return TextParts(corpus, build_corpus(valid, tokenizer, folder.cache))
    return TextParts(*corpus.split(settings.valid_share))


def describe(folder: RunFolder, files: Sequence[Path], valid: Sequence[Path], tokenizer: Tokenizer, parts: TextParts) -> dict[str, Any]:
    """What `run.json` says of the data.

    Args:
        folder: paths are relative to it.
        files: text to train on.
        valid: text to validate on.
        tokenizer: of the run.
        parts: the text cut in two.

    Returns:
        Files, hash and sizes.
    """
    return {
        **record_files(folder, files, valid),
        "train_tokens": len(parts.train),
        "valid_tokens": len(parts.valid),
        "vocabulary": tokenizer.size,
    }
