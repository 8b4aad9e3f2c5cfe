"""Batches of sentence pairs by token count: similar lengths together, another order in every epoch, and the ids they are made from."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, SupportsIndex

import numpy as np
import torch
from jaxtyping import Int, Int32, Integer, UInt

from unrolled.core.errors import ConfigurationError, DataError, RunError
from unrolled.core.files import write_atomically
from unrolled.core.padded import Padded
from unrolled.data.corpus import smallest_dtype
from unrolled.data.pairs import Pairs
from unrolled.data.sentences import SentenceCodec
from unrolled.data.tokenizer import UnknownSymbolError

Lengths = Sequence[Integer[np.ndarray, " pairs"]]

POOL_BATCHES = 32
"""Batches that are sorted by length together: more of them pad less, fewer mix better."""
LONGEST = (1 << 24) - 1
MOST_POOLS = 1 << 14
"""Lengths above the one and pools above the other would not fit the 64 bits that are sorted by."""


class TokenBatch(NamedTuple):
    """Which pairs one update learns from, in all processes together."""

    rows: Int[np.ndarray, " rows"]
    """Places in the corpus."""
    epoch: int
    """Passes over the data before this one."""

    @property
    def fresh(self) -> bool:
        """Every sentence begins with the initial state: nothing is carried from batch to batch."""
        return True

    def share(self, rank: int, size: int) -> slice:
        """Which of the rows one of several processes takes: neighbours, as equal in number as they can be, none where there are too few.

        Args:
            rank: of the process, from 0.
            size: how many processes there are.

        Returns:
            A slice of `rows`; its `start` is the first row in the global batch, as `Noise` wants to know it.
        """
        return slice(len(self.rows) * rank // size, len(self.rows) * (rank + 1) // size)

    def rows_of(self, rank: int, size: int) -> Int[np.ndarray, " rows"]:
        """The rows that one of several processes takes.

        Args:
            rank: of the process, from 0.
            size: how many processes there are.

        Returns:
            Places in the corpus, possibly none.
        """
        return self.rows[self.share(rank, size)]


class TokenBatches:
    """Gives batches for ever: every pair once an epoch, in an order that follows from the seed and the epoch alone.

    A batch costs its rows times its longest sentence of any side, and never more than `batch_tokens`, unless it is a single row. In
    every epoch the pairs are shuffled, sorted by length within pools of some batches each, cut, and the batches are shuffled.
    """

    def __init__(self, lengths: Lengths | Callable[[int], Lengths], batch_tokens: int, *, seed: int = 0) -> None:
        """Prepare the batches.

        Args:
            lengths: tokens of every sentence, an array a side, such as `(corpus.source.lengths, corpus.target.lengths + 1)`; or what gives
                them for an epoch, where sentences are cut anew in each.
            batch_tokens: what a batch may cost, padding counted.
            seed: of the order.

        Raises:
            ConfigurationError: `batch_tokens` is below 1.
            DataError: there is no pair.
        """
        _check_batch_tokens(batch_tokens)
        self._lengths = lengths if callable(lengths) else lambda epoch: lengths
        self.batch_tokens, self.seed = batch_tokens, seed
        self.position, self.epoch = 0, 0
        self._laid_out = -1
        self._order, self._ends, self._batches = self._lay_out(0)

    def take(self) -> TokenBatch:
        """The next batch; after the last of an epoch comes the first of the next.

        Returns:
            The global batch, the same in every process.
        """
        if self._laid_out != self.epoch:
            self._order, self._ends, self._batches = self._lay_out(self.epoch)
        batch, epoch = self._batches[self.position], self.epoch
        start = self._ends[batch - 1] if batch else 0
        rows = self._order[start : self._ends[batch]]
        self.position += 1
        if self.position == len(self._batches):
            self.position, self.epoch = 0, epoch + 1
        return TokenBatch(rows.astype(np.int64), epoch)

    @property
    def batches(self) -> int:
        """How many batches the epoch has that was last read from; another one may have some more or fewer."""
        return len(self._batches)

    @property
    def epochs_done(self) -> float:
        """Passes over the data so far, with the share of the one under way."""
        return self.epoch + self.position / len(self._batches)

    def state_dict(self) -> dict[str, int]:
        """Where the reading stands.

        Returns:
            What `load_state_dict` takes.
        """
        return {"position": self.position, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where another reading of the same data stood.

        Args:
            state: from `state_dict`.

        Raises:
            RunError: the data or `batch_tokens` were others, so that there is no such place.
        """
        self._order, self._ends, self._batches = self._lay_out(state["epoch"])
        if state["position"] >= len(self._batches):
            raise RunError(
                f"a training goes on with the data and `batch_tokens` it began with, but batch {state['position']} is behind the last of an epoch "
                f"({len(self._batches)}); try a new run"
            )
        self.position, self.epoch = state["position"], state["epoch"]

    def _lay_out(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self._laid_out = epoch
        cost, other = _extremes(self._lengths(epoch))
        if not len(cost):
            raise DataError("batches need at least one pair, got none; try other data, or a larger `max_length`")
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(len(cost)).astype(np.uint32)
        wanted = int(POOL_BATCHES * self.batch_tokens / cost.mean()) + 1
        pool = max(wanted, -(-len(order) // MOST_POOLS))
        # What is alike stays in the shuffled order: the sort is stable.
        key = (np.arange(len(order)) // pool << 48) | (cost[order].astype(np.int64) << 24) | other[order]
        order = order[np.argsort(key, kind="stable")]
        ends = _ends(cost[order], self.batch_tokens, pool)
        return order, ends, generator.permutation(len(ends))


class EvaluationBatches(NamedTuple):
    """All pairs once, similar lengths together."""

    batches: list[Int[np.ndarray, " _"]]
    """Places in the data, batch by batch."""
    restore: Int[np.ndarray, " pairs"]
    """What puts results back: `results[restore[i]]` is that of pair i, where `results` are those of all batches in a row."""


def evaluation_batches(lengths: Sequence[Integer[np.ndarray, " pairs"]], batch_tokens: int) -> EvaluationBatches:
    """Batches for scoring and decoding, sorted by length, the shortest first.

    Args:
        lengths: tokens of every sentence, an array a side; one side where only sources are known.
        batch_tokens: what a batch may cost, its rows times its longest sentence; a longer sentence is a batch alone.

    Returns:
        The batches, none where there is no sentence.

    Raises:
        ConfigurationError: `batch_tokens` is below 1.
    """
    _check_batch_tokens(batch_tokens)
    cost, other = _extremes(lengths)
    order = np.lexsort((other, cost))
    ends = _ends(cost[order], batch_tokens, max(len(order), 1))
    restore = np.empty(len(order), dtype=np.int64)
    restore[order] = np.arange(len(order))
    return EvaluationBatches(np.split(order, ends[:-1]) if len(ends) else [], restore)


@dataclass(frozen=True)
class TokenLists:
    """The ids of many sentences in one array."""

    tokens: UInt[np.ndarray, " tokens"]
    """All of them, in the smallest unsigned type."""
    offsets: Int[np.ndarray, " borders"]
    """Where each begins, and at last where the last ends."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, sentence: SupportsIndex) -> UInt[np.ndarray, " tokens"]:
        return self.tokens[slice(*self.offsets[int(sentence) : int(sentence) + 2])]

    @cached_property
    def lengths(self) -> Int32[np.ndarray, " sentences"]:
        """How many ids each sentence has."""
        return np.diff(self.offsets).astype(np.int32)

    def select(self, rows: Integer[np.ndarray, " rows"]) -> TokenLists:
        """Some of the sentences, copied.

        Args:
            rows: their places here.

        Returns:
            Those sentences.
        """
        offsets = np.concatenate([[0], np.cumsum(self.lengths[rows], dtype=np.int64)])
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], self.lengths[rows])
        return TokenLists(self.tokens[places], offsets)

    def padded(self, rows: Integer[np.ndarray, " rows"], among: Integer[np.ndarray, " all"] | None = None) -> Padded:
        """Some of the sentences as a tensor `[batch, time]`.

        Args:
            rows: their places here.
            among: the sentences whose longest gives the width, where `rows` are some of them.

        Returns:
            int64 ids on the CPU, zero where a sentence has ended.
        """
        lengths = self.lengths[rows]
        steps = np.arange(self.lengths[rows if among is None else among].max(initial=0))
        places = np.minimum(self.offsets[rows][:, None] + steps, max(len(self.tokens) - 1, 0))
        inside = steps < lengths[:, None]
        data = np.where(inside, self.tokens[places] if len(self.tokens) else 0, 0).astype(np.int64)
        return Padded(torch.from_numpy(data), torch.from_numpy(lengths.astype(np.int64)))


def token_lists(sentences: Sequence[Integer[np.ndarray, " _"]], vocabulary: int) -> TokenLists:
    """Put the ids of many sentences into one array.

    Args:
        sentences: the ids of each.
        vocabulary: ids are below it.

    Returns:
        Them in the smallest unsigned type.
    """
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in sentences], dtype=np.int64)]).astype(np.int64)
    tokens = np.empty(offsets[-1], dtype=smallest_dtype(vocabulary))
    if len(sentences):
        np.concatenate(sentences, out=tokens, casting="unsafe")
    return TokenLists(tokens, offsets)


def joined_lists(tokens: Integer[np.ndarray, " tokens"], lengths: Sequence[int], vocabulary: int) -> TokenLists:
    """The ids of many sentences that stand in one array already.

    Args:
        tokens: all of them, in order.
        lengths: how many each sentence has.
        vocabulary: ids are below it.

    Returns:
        Them in the smallest unsigned type.
    """
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    return TokenLists(tokens.astype(smallest_dtype(vocabulary)), offsets)


def padded_ids(sentences: Sequence[Integer[np.ndarray, " _"]]) -> Padded:
    """The ids of sentences that belong to no corpus, such as those to translate, as a tensor `[batch, time]`.

    Args:
        sentences: the ids of each, possibly none.

    Returns:
        int64 ids on the CPU, zero where a sentence has ended.
    """
    return token_lists(sentences, 1 << 32).padded(np.arange(len(sentences)))


class PairBatch(NamedTuple):
    """Pairs as tensors, sources and targets without `start` and `end`."""

    source: Padded
    target: Padded


@dataclass(frozen=True)
class PairCorpus:
    """The ids of sentence pairs."""

    sources: TokenLists
    targets: TokenLists
    kept: Int[np.ndarray, " pairs"]
    """Which of the pairs that were read each one is; those above `max_length` are left out."""
    left_out: int
    """How many are left out."""

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def lengths(self) -> tuple[Int32[np.ndarray, " pairs"], Int32[np.ndarray, " pairs"]]:
        """Tokens of every source and of every target, as `TokenBatches` takes them."""
        return self.sources.lengths, self.targets.lengths

    def source(self, pair: SupportsIndex) -> UInt[np.ndarray, " tokens"]:
        """The ids of a source.

        Args:
            pair: its place here.

        Returns:
            The ids, in the smallest type.
        """
        return self.sources[pair]

    def target(self, pair: SupportsIndex) -> UInt[np.ndarray, " tokens"]:
        """The ids of a target.

        Args:
            pair: its place here.

        Returns:
            The ids, in the smallest type.
        """
        return self.targets[pair]

    def collate(self, rows: Integer[np.ndarray, " rows"], among: Integer[np.ndarray, " all"] | None = None) -> PairBatch:
        """Some of the pairs as tensors.

        Args:
            rows: their places here.
            among: the batch of which they are one process's share: all shares have its width, so that their dropout is drawn alike.

        Returns:
            int64 ids `[batch, time]` of both sides, zero-padded.
        """
        return PairBatch(self.sources.padded(rows, among), self.targets.padded(rows, among))


def build_pair_corpus(
    pairs: Pairs, source: SentenceCodec, target: SentenceCodec, *, max_length: int | None = None, cache_dir: Path | None = None
) -> PairCorpus:
    """Encode pairs, or find them encoded in a cache.

    The cache is keyed by the sentences and both codecs; a damaged entry is made anew, and two processes may make the same one at once.

    Args:
        pairs: the sentences.
        source: encodes the sources.
        target: encodes the targets.
        max_length: pairs with more tokens on a side are left out; `None` keeps all.
        cache_dir: a folder that may be deleted at any time; `None` keeps nothing.

    Returns:
        The ids; `left_out` says how many pairs were too long.

    Raises:
        DataError: a sentence holds a symbol outside the vocabulary, or no pair is short enough.
    """
    path = None if cache_dir is None else cache_dir / f"{_digest(pairs)}-{source.digest()}-{target.digest()}.pairs.npz"
    sides = None if path is None else _load(path)
    if sides is None:
        sides = _encode(pairs, 0, source), _encode(pairs, 1, target)
        if path is not None:
            _save(path, *sides)
    longest = np.maximum(sides[0].lengths, sides[1].lengths)
    kept = np.flatnonzero(longest <= max_length) if max_length is not None else np.arange(len(pairs))
    if len(pairs) and not len(kept):
        found = f"the shortest of {len(pairs):,} has {longest.min()}"
        raise DataError(f"at least one pair must have at most {max_length} tokens on each side, {found}; try a larger `max_length`")
    if len(kept) < len(pairs):
        sides = sides[0].select(kept), sides[1].select(kept)
    return PairCorpus(sides[0], sides[1], kept, len(pairs) - len(kept))


def _check_batch_tokens(batch_tokens: int) -> None:
    if batch_tokens < 1:
        raise ConfigurationError(f"`batch_tokens` must be at least 1, got {batch_tokens}; try 4096")


def _extremes(lengths: Sequence[Integer[np.ndarray, " pairs"]]) -> tuple[np.ndarray, np.ndarray]:
    """The longest side of each pair, which a batch pays for, and the shortest one."""
    longest, shortest = np.asarray(lengths[0]), np.asarray(lengths[0])
    for side in lengths[1:]:
        longest, shortest = np.maximum(longest, side), np.minimum(shortest, side)
    return np.clip(longest, 1, LONGEST).astype(np.int32), np.clip(shortest, 0, LONGEST).astype(np.int32)


def _ends(cost: np.ndarray, batch_tokens: int, pool: int) -> np.ndarray:
    """Where batches end in rows that are sorted by cost within each pool: each as many rows as fit."""
    ends, start, total = [], 0, len(cost)
    while start < total:
        most = min(start + max(batch_tokens // int(cost[start]), 1), start - start % pool + pool, total)
        fit = cost[start:most].astype(np.int64) * np.arange(1, most - start + 1) <= batch_tokens
        start += max(int(np.count_nonzero(fit)), 1)
        ends.append(start)
    return np.array(ends, dtype=np.int64)


def _encode(pairs: Pairs, side: int, codec: SentenceCodec) -> TokenLists:
    sentences, place = (pairs.sources, pairs.source_place) if side == 0 else (pairs.targets, pairs.target_place)
    try:
        return token_lists(codec.encode_all(sentences), codec.tokenizer.size)
    except UnknownSymbolError:
        for i, sentence in enumerate(sentences):
            try:
                codec.encode(sentence)
            except UnknownSymbolError as error:
                raise DataError(f"{error.found} in {place(i)}, is not in the vocabulary; {error.advice}") from None
        raise


def _digest(pairs: Pairs) -> str:
    content = blake2b(digest_size=16)
    for side in (pairs.sources, pairs.targets):
        for sentence in side:
            content.update(sentence.encode("utf-8", "surrogatepass") + b"\n")
    return content.hexdigest()


def _save(path: Path, source: TokenLists, target: TokenLists) -> None:
    def write(new: Path) -> None:
        with open(new, "wb") as file:
            np.savez(file, source=source.tokens, source_offsets=source.offsets, target=target.tokens, target_offsets=target.offsets)

    write_atomically(path, write)


def _load(path: Path) -> tuple[TokenLists, TokenLists] | None:
    try:
        with open(path, "rb") as file:
            stored = np.load(file, allow_pickle=False)
            return TokenLists(stored["source"], stored["source_offsets"]), TokenLists(stored["target"], stored["target_offsets"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # missing or damaged, which the checksums of a zip file tell: to be made
