"""Files of pairs of a translation run: vocabularies, parts, batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.data import load_tokenizer, save_tokenizer
from unrolled.data.batches import PairCorpus, build_pair_corpus, token_lists
from unrolled.data.pairs import Pairs, read_pairs
from unrolled.data.sentences import SentenceCodec, sample_keys, train_codec
from unrolled.tasks.recorded_data import record_files
from unrolled.tasks.row_windows import RowWindows
from unrolled.tasks.run_folder import RunFolder
from unrolled.tasks.translation_settings import SUBWORDS, PairSettings
from unrolled.train.group import Group

FEW_SENTENCES, FEW_SUBWORDS = 100_000, 4_000
"""Below so many sentences, so many sub-words: rarer ones are seen too seldom to be learnt (Sennrich & Zhang 2019)."""
SHUFFLE = 20_140_910
"""The seed by which validation pairs are drawn: the same for every run on the same files."""


class PairParts(NamedTuple):
    """The pairs of a run."""

    train: Pairs
    valid: Pairs


class Codecs(NamedTuple):
    """The vocabularies of both sides; the same object twice where they share one."""

    source: SentenceCodec
    target: SentenceCodec

    @property
    def joint(self) -> bool:
        """Whether both sides share one vocabulary."""
        return self.source is self.target

    def copy_ids(self) -> torch.Tensor:
        """The target symbol of each source symbol, -1 where the target does not have it.

        Returns:
            int64 `[source vocabulary]`.
        """
        target = self.target.tokenizer
        place = {target.symbol(i): i for i in range(target.size)}
        own = [place.get(self.source.tokenizer.symbol(i), -1) for i in range(self.source.tokenizer.size)]
        return torch.tensor([*own, -1, -1])


def open_pairs(settings: PairSettings, files: Sequence[Path], valid: Sequence[Path]) -> PairParts:
    """Read the pairs of a run.

    Args:
        settings: keys of JSON lines, and the share that validates.
        files: pairs to train on.
        valid: pairs to validate on; drawn from `files` when empty.

    Returns:
        The pairs that train and those that validate.

    Raises:
        DataError: too few pairs to share.
    """
    keys = (settings.source_key, settings.target_key)
    pairs = read_pairs(files, keys=keys)
    if valid:
        return PairParts(pairs, read_pairs(valid, keys=keys))
    if len(pairs) < 2:
        raise DataError(f"`{files[0]}` must hold at least 2 pairs, so that one can validate, got {len(pairs)}; give `--valid` as well")
    order = np.random.default_rng(SHUFFLE).permutation(len(pairs))
    cut = min(max(1, round(len(pairs) * settings.valid_share)), len(pairs) - 1)
    return PairParts(pairs.select(np.sort(order[cut:])), pairs.select(np.sort(order[:cut])))


def make_codecs(settings: PairSettings, train: Pairs) -> Codecs:
    """Learn the vocabularies from the pairs to train on.

    Args:
        settings: which kinds, and how large.
        train: the pairs.

    Returns:
        A codec for each side.

    Raises:
        ConfigurationError: one vocabulary for two kinds of symbols, or BPE dropout without BPE.
    """
    kinds = settings.kinds
    if settings.is_joint and kinds[0] != kinds[1]:
        raise ConfigurationError(f"`data.joint` needs the same symbols on both sides, got `{kinds[0]}` and `{kinds[1]}`")
    if settings.bpe_dropout and kinds != ("bpe", "bpe"):
        raise ConfigurationError(f"`data.bpe_dropout` needs BPE on both sides, got `{kinds[0]}` and `{kinds[1]}`")
    if settings.is_joint:
        codec = _learn(settings, kinds[0], list(chain(train.sources, train.targets)))
        return Codecs(codec, codec)
    return Codecs(_learn(settings, kinds[0], train.sources), _learn(settings, kinds[1], train.targets))


def _learn(settings: PairSettings, kind: str, sentences: list[str]) -> SentenceCodec:
    """Options that a kind does not have are left out where the other side may have meant them."""
    size = None if kind == "characters" and len(set(settings.kinds)) > 1 else settings.vocabulary_size
    if size is None and kind in SUBWORDS and len(sentences) < FEW_SENTENCES * (2 if settings.is_joint else 1):
        size = FEW_SUBWORDS
    count = 1 if kind != "words" and "words" in settings.kinds else settings.min_count
    return train_codec(kind, sentences, vocabulary_size=size, min_count=count)


def save_codecs(folder: RunFolder, codecs: Codecs) -> None:
    """Write the vocabularies into a run folder: one file, or one a side.

    Args:
        folder: the run.
        codecs: its vocabularies.
    """
    if codecs.joint:
        save_tokenizer(codecs.source.tokenizer, folder.tokenizer)
        return
    for codec, path in zip(codecs, folder.side_tokenizers, strict=True):
        save_tokenizer(codec.tokenizer, path)


def load_codecs(folder: RunFolder) -> Codecs:
    """Read what `save_codecs` wrote.

    Args:
        folder: the run.

    Returns:
        The vocabularies.
    """
    source, target = folder.side_tokenizers
    if source.exists() or not folder.tokenizer.exists():
        return Codecs(SentenceCodec(load_tokenizer(source)), SentenceCodec(load_tokenizer(target)))
    codec = SentenceCodec(load_tokenizer(folder.tokenizer))
    return Codecs(codec, codec)


class PairWindows(RowWindows):
    """Batches of pairs as a training reads them."""

    def __init__(
        self, train: Pairs, corpus: PairCorpus, codecs: Codecs, *, batch_tokens: int, seed: int, group: Group, dropout: float = 0.0
    ) -> None:
        self.train, self.corpus, self.codecs, self.seed, self.dropout = train, corpus, codecs, seed, dropout
        self._drawn = -1
        super().__init__(
            self._lengths,
            lambda rows, epoch, among: self._cut(epoch).collate(rows, among),
            batch_tokens=batch_tokens,
            seed=seed,
            group=group,
        )

    def _lengths(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        source, target = self._cut(epoch).lengths
        return source, target + 1

    def _cut(self, epoch: int) -> PairCorpus:
        """The pairs as an epoch reads them: with dropout every one is cut anew, source and target independently."""
        if self.dropout and epoch != self._drawn:
            kept = self.corpus.kept
            keys = sample_keys(self.seed, epoch, np.arange(len(kept)))
            sides = (self.codecs.source, self.train.sources, keys), (self.codecs.target, self.train.targets, ~keys)
            source, target = (
                token_lists(codec.encode_with_dropout([texts[i] for i in kept], self.dropout, of), codec.tokenizer.size)
                for codec, texts, of in sides
            )
            self.corpus, self._drawn = replace(self.corpus, sources=source, targets=target), epoch
        return self.corpus


def build_corpora(folder: RunFolder, parts: PairParts, codecs: Codecs, longest: int) -> tuple[PairCorpus, PairCorpus]:
    """The ids of a run's pairs, from its cache where they are there already.

    Args:
        folder: whose cache is used.
        parts: the pairs.
        codecs: of the run.
        longest: training pairs with more symbols on a side are left out.

    Returns:
        What trains and what validates.
    """
    train = build_pair_corpus(parts.train, *codecs, max_length=longest, cache_dir=folder.cache)
    return train, build_pair_corpus(parts.valid, *codecs, cache_dir=folder.cache)


def describe(
    folder: RunFolder, files: Sequence[Path], valid: Sequence[Path], codecs: Codecs, corpora: tuple[PairCorpus, PairCorpus]
) -> dict[str, Any]:
    """What `run.json` says of the data.

    Args:
        folder: paths are relative to it.
        files: pairs to train on.
        valid: pairs to validate on.
        codecs: of the run.
        corpora: what trains and what validates.

    Returns:
        Files, hash and sizes.
    """
    train, check = corpora
    return {
        **record_files(folder, files, valid),
        "train_pairs": len(train),
        "left_out": train.left_out,
        "valid_pairs": len(check),
        "train_tokens": int(train.targets.lengths.sum()) + len(train),
        "valid_tokens": int(check.targets.lengths.sum()) + len(check),
        "vocabulary": codecs.target.vocabulary,
        "source_vocabulary": codecs.source.vocabulary,
    }
