"""Texts as a model of labels reads them: words with the characters they are made of, or sub-words and characters of a tokenizer."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int

from unrolled.core.errors import DataError, RunError
from unrolled.core.files import write_json
from unrolled.data.batches import joined_lists, token_lists
from unrolled.data.characters import CharacterTokenizer
from unrolled.data.sentences import SentenceCodec, train_codec
from unrolled.data.tokenizer_files import tokenizer_from_json, tokenizer_to_json
from unrolled.data.unit_corpus import UnitCorpus

Text = str | Sequence[str]
"""A text as it is, or words that somebody has cut already."""

WORD = re.compile(r"[\w'’-]+|[^\w\s]")
"""A word of a text that nobody has cut: letters, digits, apostrophes and hyphens in a row, or one other character."""
LONGEST_SPELLING = 24
"""Characters of a word that are read; of a longer one the first and the last half of them."""
UNKNOWN, MASK = 0, 1
"""The ids of a word that is not in the vocabulary, and of one that is hidden from the model."""
SPECIAL = ("<unk>", "<mask>")


def split_words(text: str) -> list[str]:
    """The words of a text that nobody has cut.

    Args:
        text: any.

    Returns:
        Its words and punctuation marks.
    """
    return WORD.findall(text)


class Units(ABC):
    """What texts are cut into, and the id of each piece."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """How many ids there are, those for unknown and hidden units included."""

    @property
    @abstractmethod
    def mask(self) -> int:
        """The id of a unit that is hidden."""

    @property
    def unknown(self) -> int | None:
        """The id of all units outside the vocabulary; `None` where there are none."""
        return None

    @property
    def characters(self) -> int | None:
        """How many different characters units are spelled with; `None` where they are not spelled."""
        return None

    @abstractmethod
    def encode(self, texts: Sequence[Text]) -> UnitCorpus:
        """The units of texts.

        Args:
            texts: whole, or cut into words.

        Returns:
            What batches are made from.
        """

    @abstractmethod
    def cut(self, text: Text) -> list[str]:
        """The units of one text as they are shown to people.

        Args:
            text: whole, or cut into words.

        Returns:
            A string a unit.
        """

    @abstractmethod
    def names(self, ids: Sequence[int]) -> list[str]:
        """Ids as they are shown to people.

        Args:
            ids: of the vocabulary.

        Returns:
            A string an id.
        """

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """What makes the units.

        Returns:
            An object that `units_from_json` takes.
        """


class WordUnits(Units):
    """Words; those outside the vocabulary are known by their characters alone."""

    kind = "words"

    def __init__(self, words: Sequence[str], characters: str, *, lowercase: bool) -> None:
        """Read words.

        Args:
            words: the vocabulary without special words, the most frequent first.
            characters: what words are spelled with, in order.
            lowercase: whether capital letters are seen in the spelling alone.
        """
        self.words, self.lowercase = list(words), lowercase
        self._id_of = {word: i for i, word in enumerate(self.words, len(SPECIAL))}
        self._letters = CharacterTokenizer(characters, unknown=True)

    @classmethod
    def train(
        cls,
        texts: Sequence[Text],
        *,
        vocabulary_size: int | None = None,
        min_count: int = 1,
        lowercase: bool = True,
        keep: Collection[str] = (),
    ) -> WordUnits:
        """The words of texts, by falling frequency.

        Args:
            texts: whole, or cut into words.
            vocabulary_size: at most so many ids; all words when `None`.
            min_count: words seen less often are unknown ones.
            lowercase: whether capital letters are seen in the spelling alone.
            keep: words that are kept however rare they are.

        Returns:
            The units.

        Raises:
            DataError: there is no word.
        """
        counts = Counter(chain.from_iterable(_words(text) for text in texts))
        if not counts:
            raise DataError("a vocabulary must be made from words, got texts without any; try a file that holds text")
        letters = "".join(sorted(set(chain.from_iterable(counts))))
        if lowercase:
            lower: Counter[str] = Counter()
            for word, count in counts.items():
                lower[word.lower()] += count
            counts = lower
        kept = [word for word in sorted(counts, key=lambda word: (-counts[word], word)) if counts[word] >= min_count or word in keep]
        return cls(kept if vocabulary_size is None else kept[: max(vocabulary_size - len(SPECIAL), 0)], letters, lowercase=lowercase)

    @property
    def vocabulary(self) -> int:
        """All words and the two special ones."""
        return len(self.words) + len(SPECIAL)

    @property
    def mask(self) -> int:
        """The id of a hidden word."""
        return MASK

    @property
    def unknown(self) -> int:
        """The id of a word outside the vocabulary."""
        return UNKNOWN

    @property
    def characters(self) -> int:
        """The characters of the words that were seen, and one for all others."""
        return self._letters.size

    def encode(self, texts: Sequence[Text]) -> UnitCorpus:
        """One unit a word; see `Units.encode`.

        Args:
            texts: whole, or cut into words.

        Returns:
            What batches are made from.
        """
        cut = [_words(text) for text in texts]
        lengths = [len(words) for words in cut]
        different = list(dict.fromkeys(chain.from_iterable(cut)))
        place_of = dict(zip(different, range(len(different)), strict=True))
        places = np.fromiter(map(place_of.__getitem__, chain.from_iterable(cut)), dtype=np.int64, count=sum(lengths))
        steps = np.arange(len(places)) - np.repeat(np.cumsum(lengths, dtype=np.int64) - lengths, lengths)
        ids = np.array([self.id_of(word) for word in different], dtype=np.int32)
        read = [_shortened(word) for word in different]
        spelling = joined_lists(self._letters.encode("".join(read)), [len(word) for word in read], self.characters)
        units = joined_lists(places, lengths, max(len(different), 1))
        return UnitCorpus(units, joined_lists(steps, lengths, 1 << 32), ids, spelling)

    def id_of(self, word: str) -> int:
        """The id of a word.

        Args:
            word: as it is written.

        Returns:
            0 for one outside the vocabulary.
        """
        return self._id_of.get(word.lower() if self.lowercase else word, UNKNOWN)

    def spell(self, word: str) -> Int[np.ndarray, " characters"]:
        """The characters of a word.

        Args:
            word: as it is written.

        Returns:
            Their ids, at most `LONGEST_SPELLING`.
        """
        return self._letters.encode(_shortened(word))

    def cut(self, text: Text) -> list[str]:
        """The words.

        Args:
            text: whole, or cut into words.

        Returns:
            A string a word.
        """
        return list(_words(text))

    def names(self, ids: Sequence[int]) -> list[str]:
        """The words, as the vocabulary has them.

        Args:
            ids: of the vocabulary.

        Returns:
            A string an id.
        """
        return [SPECIAL[i] if i < len(SPECIAL) else self.words[i - len(SPECIAL)] for i in ids]

    def to_json(self) -> dict[str, Any]:
        """Words and characters in the order of their ids.

        Returns:
            An object that `units_from_json` takes.
        """
        return {"kind": self.kind, "words": self.words, "characters": self._letters.characters, "lowercase": self.lowercase}


class PieceUnits(Units):
    """The symbols of a tokenizer: characters or sub-words."""

    kind = "pieces"

    def __init__(self, codec: SentenceCodec) -> None:
        """Read symbols.

        Args:
            codec: its two special ids are free: the first one stands for what is hidden.
        """
        self.codec = codec

    @property
    def vocabulary(self) -> int:
        """All symbols and the hidden one."""
        return self.codec.tokenizer.size + 1

    @property
    def mask(self) -> int:
        """The id of a hidden symbol."""
        return self.codec.tokenizer.size

    @property
    def unknown(self) -> int | None:
        """The tokenizer's own, where it has one."""
        return self.codec.unknown

    def encode(self, texts: Sequence[Text]) -> UnitCorpus:
        """As many units a word as the tokenizer cuts it into; see `Units.encode`.

        Args:
            texts: whole, or cut into words.

        Returns:
            What batches are made from.
        """
        whole = [text if isinstance(text, str) else " ".join(text) for text in texts]
        sentences = self.codec.encode_all(whole)
        firsts = [self._firsts(text, joined) for text, joined in zip(texts, whole, strict=True)]
        ids = np.arange(self.vocabulary, dtype=np.int32)
        return UnitCorpus(token_lists(sentences, self.vocabulary), token_lists(firsts, 1 << 32), ids, None)

    def _firsts(self, text: Text, joined: str) -> np.ndarray:
        """The first symbol that has a character of the word itself; of a whole text, what stands between white space is a word."""
        ends = np.array([end for _, end in self.codec.spans(joined)], dtype=np.int64)
        if isinstance(text, str):
            begins = np.array([match.start() for match in re.finditer(r"\S+", text)], dtype=np.int64)
        else:
            begins = np.cumsum([0, *(len(word) + 1 for word in text[:-1])])[: len(text)]
        return np.searchsorted(ends, begins, side="right")

    def cut(self, text: Text) -> list[str]:
        """The symbols, white space made visible.

        Args:
            text: whole, or cut into words.

        Returns:
            A string a symbol.
        """
        return self.codec.pieces(self.codec.encode(text if isinstance(text, str) else " ".join(text)))

    def names(self, ids: Sequence[int]) -> list[str]:
        """The symbols, white space made visible.

        Args:
            ids: of the vocabulary.

        Returns:
            A string an id.
        """
        return [SPECIAL[MASK] if i == self.mask else self.codec.pieces([i])[0] for i in ids]

    def to_json(self) -> dict[str, Any]:
        """The tokenizer's own file.

        Returns:
            An object that `units_from_json` takes.
        """
        return {"kind": self.kind, "tokenizer": tokenizer_to_json(self.codec.tokenizer)}


def _words(text: Text) -> Sequence[str]:
    return split_words(text) if isinstance(text, str) else text


def _shortened(word: str) -> str:
    return word if len(word) <= LONGEST_SPELLING else word[: LONGEST_SPELLING // 2] + word[-LONGEST_SPELLING // 2 :]


def train_units(
    kind: str,
    texts: Sequence[Text],
    *,
    vocabulary_size: int | None = None,
    min_count: int = 1,
    lowercase: bool = True,
    keep: Collection[str] = (),
) -> Units:
    """Learn what texts are cut into.

    Args:
        kind: `words`, `characters`, `bpe` or `unigram`.
        texts: to learn from.
        vocabulary_size: at most so many ids.
        min_count: words seen less often are unknown ones.
        lowercase: whether capital letters of words are seen in their spelling alone.
        keep: words that are kept however rare they are.

    Returns:
        The units.
    """
    if kind == "words":
        return WordUnits.train(texts, vocabulary_size=vocabulary_size, min_count=min_count, lowercase=lowercase, keep=keep)
    whole = [text if isinstance(text, str) else " ".join(text) for text in texts]
    return PieceUnits(train_codec(kind, whole, vocabulary_size=None if kind == "characters" else vocabulary_size))


def units_from_json(content: Any) -> Units:
    """The units that `Units.to_json` described.

    Args:
        content: the object of a file.

    Returns:
        The units.

    Raises:
        RunError: it is damaged, or of an unknown kind.
    """
    try:
        if content["kind"] == PieceUnits.kind:
            return PieceUnits(SentenceCodec(tokenizer_from_json(content["tokenizer"])))
        if content["kind"] == WordUnits.kind:
            return WordUnits([str(word) for word in content["words"]], str(content["characters"]), lowercase=bool(content["lowercase"]))
    except (KeyError, TypeError) as error:
        raise RunError(f"it has no {error}") from None
    raise RunError(f"it has the unknown kind `{content['kind']}`")


def save_units(units: Units, path: Path) -> None:
    """Write units as one JSON file.

    Args:
        units: of a run.
        path: where the file shall stand.
    """
    write_json(path, units.to_json())


def load_units(path: Path) -> Units:
    """Read what `save_units` wrote.

    Args:
        path: the file.

    Returns:
        The units.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        return units_from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RunError) as error:
        raise RunError(
            f"`{path}` must be the vocabulary that unrolled wrote, but it is damaged ({error}); try a whole copy of the run"
        ) from None
