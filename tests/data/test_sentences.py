"""Sentences to ids and back for every kind of symbol, and BPE dropout against the paper's algorithm."""

from __future__ import annotations

import re
import time
from collections import Counter
from functools import cache
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unrolled.core.errors import ConfigurationError, DataError, RunError
from unrolled.data import bpe as bpe_module
from unrolled.data.bpe import BPETokenizer
from unrolled.data.characters import CharacterTokenizer
from unrolled.data.pairs import read_pairs
from unrolled.data.sentences import SentenceCodec, sample_keys, train_codec
from unrolled.data.tokenizer import UnknownSymbolError
from unrolled.data.tokenizer_files import TOKENIZERS, load_tokenizer, save_tokenizer
from unrolled.data.words import WordTokenizer

MULTI30K = Path(__file__).parents[2].parent / "shared" / "data" / "multi30k"
DECK = ["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3
TEXTS = [*DECK, "the lowest newest café  is lower than the widest", "the new café, the low one", "aaaaaaa aaaa"] * 3
sentence = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"))
near = st.text("lowernstidé a☃", max_size=24)
every_kind = pytest.mark.parametrize("kind", sorted(TOKENIZERS))


@cache
def codec(kind: str) -> SentenceCodec:
    return train_codec(kind, TEXTS, vocabulary_size=300 if kind in ("bpe", "unigram") else None)


def test_byte_pairs_of_the_lecture() -> None:
    tokenizer = BPETokenizer.train(DECK, vocabulary_size=259)
    assert ["".join(pair) for pair in tokenizer.merges] == ["es", "est", "lo"]
    assert [tokenizer.symbol(int(i)) for i in tokenizer.encode("lowest")] == ["lo", "w", "est"]


@every_kind
def test_special_ids_stand_behind_the_tokenizers_own(kind: str) -> None:
    own = codec(kind)
    size = own.tokenizer.size
    assert (own.end, own.start, own.vocabulary) == (size, size + 1, size + 2)
    ids = own.encode("the low café")
    assert ids.dtype == np.int32
    assert ids.max() < size
    framed = [own.start, *ids.tolist(), own.end, -100, own.end]
    assert own.decode(framed) == own.decode(ids) == "the low café"
    assert own.pieces(framed[:-2]) == ["<start>", *own.pieces(ids), "<end>"]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@given(text=sentence)
@example(text="\r\u2028\x0b \x85x\0")
@settings(max_examples=80)
def test_any_sentence_comes_back_from_sub_words(kind: str, text: str) -> None:
    assert codec(kind).decode(codec(kind).encode(text)) == text


@given(text=sentence)
@settings(max_examples=50)
def test_known_characters_come_back_and_words_with_single_spaces(text: str) -> None:
    characters, words = (train_codec(kind, [text + " x"]) for kind in ("characters", "words"))
    assert characters.decode(characters.encode(text)) == text
    assert words.decode(words.encode(text)) == " ".join(text.split())


@every_kind
@given(texts=st.lists(sentence | near, max_size=5))
@settings(max_examples=30)
def test_many_sentences_equal_one_by_one(kind: str, texts: list[str]) -> None:
    together = codec(kind).encode_all(texts)
    assert [ids.tolist() for ids in together] == [codec(kind).encode(text).tolist() for text in texts]
    assert all(ids.dtype == np.int32 for ids in together)


@every_kind
@given(text=near | sentence | st.text("a\n b\x1c\x85é"))
@settings(max_examples=60)
def test_spans_say_where_each_id_comes_from(kind: str, text: str) -> None:
    own = codec(kind)
    ids, spans = own.encode(text).tolist(), own.spans(text)
    assert len(spans) == len(ids)
    assert spans == sorted(spans)
    for i, (start, end) in zip(ids, spans, strict=True):
        piece = own.tokenizer.decode([i])
        if i != own.unknown and "\ufffd" not in piece:
            assert text[start:end] == piece


def test_spans_of_what_was_never_seen() -> None:
    words, characters = codec("words"), codec("characters")
    text = "the Zebra  is ☃"
    assert [text[a:b] for i, (a, b) in zip(words.encode(text), words.spans(text), strict=True) if i == words.unknown] == ["Zebra", "☃"]
    assert words.decode(words.encode(text)) == "the <unk> is <unk>"
    ids = characters.encode(text)
    assert [text[a:b] for i, (a, b) in zip(ids, characters.spans(text), strict=True) if i == characters.unknown] == [*"Zb", "☃"]
    assert characters.decode(ids) == "the \ufffde\ufffdra  is \ufffd"
    assert characters.pieces(ids)[4] == "<unk>"
    assert codec("bpe").unknown is codec("unigram").unknown is None


def test_unknown_symbols_are_errors_where_that_is_wished() -> None:
    for kind in ("words", "characters"):
        with pytest.raises(UnknownSymbolError):
            train_codec(kind, TEXTS, unknown=False).encode("☃")
    old, new = CharacterTokenizer("ab"), CharacterTokenizer("ab", unknown=True)
    assert (old.size, new.size, old.unknown, new.unknown) == (2, 3, None, 2)
    assert old.to_json() == {"characters": "ab"}
    assert old.digest() != new.digest()
    assert new.encode("a\udce9b").tolist() == [0, 2, 1]
    assert [CharacterTokenizer.from_json(t.to_json()).size for t in (old, new)] == [2, 3]
    with pytest.raises(RunError, match="`unknown` must be true or false"):
        CharacterTokenizer.from_json({"characters": "a", "unknown": 1})


def test_words_with_and_without_limits() -> None:
    assert WordTokenizer.train(["b a b"], unknown=True).words == ["b", "a", "<eos>", "<unk>"]
    assert train_codec("words", ["b a b"], min_count=2).encode("a b c").tolist() == [1, 0, 1]
    assert train_codec("words", ["b a b c"], vocabulary_size=3, unknown=False).unknown is not None


@every_kind
def test_a_line_break_that_a_model_wrote_becomes_a_space(kind: str) -> None:
    own = train_codec(kind, ["a\nb c"], vocabulary_size=256 if kind in ("bpe", "unigram") else None)
    assert own.decode(own.encode("a\nb")).split(" ") == ["a", "b"]


@every_kind
def test_save_and_load(kind: str, tmp_path: Path) -> None:
    save_tokenizer(codec(kind).tokenizer, tmp_path / "tokenizer.json")
    for loaded in (SentenceCodec(load_tokenizer(tmp_path / "tokenizer.json")), SentenceCodec.from_json(codec(kind).to_json())):
        assert (loaded.digest(), loaded.vocabulary, loaded.unknown) == (codec(kind).digest(), codec(kind).vocabulary, codec(kind).unknown)
        assert loaded.encode("the ☃").tolist() == codec(kind).encode("the ☃").tolist()


def test_what_cannot_be_asked_for() -> None:
    for kind, options, said in (
        ("word", {}, "got `word`; did you mean `words`?"),
        ("characters", {"vocabulary_size": 10}, "characters are all kept"),
        ("bpe", {"min_count": 2}, "`min_count` is for words, and the symbols are `bpe`"),
        ("unigram", {"vocabulary_size": 9}, "must be at least 256"),
    ):
        with pytest.raises(ConfigurationError, match=re.escape(said)):
            train_codec(kind, TEXTS, **options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="must be made from"):
        train_codec("bpe", [])


# --- BPE dropout ----------------------------------------------------------------------------------------------------


def plain_merges(symbols: list[str], merges: list[tuple[str, str]], skipped: list[int]) -> list[str]:
    """The paper's Algorithm 1, with the number of candidates left out before the first that is kept given for every step."""
    for skip in skipped:
        possible = sorted((merges.index(pair), i) for i, pair in enumerate(pairwise(symbols)) if pair in merges)
        if skip >= len(possible):
            break
        at = possible[skip][1]
        symbols = [*symbols[:at], symbols[at] + symbols[at + 1], *symbols[at + 2 :]]
    return symbols


@given(word=st.text("lowernstida", min_size=1, max_size=12), data=st.data())
@example(word="aaaaaaa", data=None)
def test_merges_against_the_plain_algorithm(word: str, data: st.DataObject | None) -> None:
    tokenizer = codec("bpe").tokenizer
    assert isinstance(tokenizer, BPETokenizer)
    numbers = st.lists(st.integers(0, 4), min_size=len(word) - 1, max_size=len(word) - 1)
    skipped = [0] * (len(word) - 1) if data is None else data.draw(numbers)
    letters = [tokenizer.symbols.index(letter) for letter in word]
    found = bpe_module._merged(letters, tokenizer._merge_of, skipped)
    assert [tokenizer.symbols[i] for i in found] == plain_merges(list(word), tokenizer.merges, skipped)


@given(texts=st.lists(near | sentence | st.text("a\n low"), max_size=4))
@example(texts=["", "low", "", "\n"])
def test_dropout_of_nothing_is_the_plain_encoding_and_of_all_is_bytes(texts: list[str]) -> None:
    tokenizer = codec("bpe").tokenizer
    assert isinstance(tokenizer, BPETokenizer)
    keys = np.arange(len(texts), dtype=np.uint64)
    plain, none, some = ([ids.tolist() for ids in tokenizer.encode_with_dropout(texts, p, keys)] for p in (0.0, 1.0, 0.5))
    assert plain == [ids.tolist() for ids in tokenizer.encode_all(texts)]
    assert [len(ids) for ids in none] == [len(text.encode()) for text in texts]
    assert [tokenizer.decode(ids) for ids in some] == texts


def test_dropout_of_a_sentence_depends_on_its_key_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    own, keys = codec("bpe"), sample_keys(3, 1, np.arange(len(TEXTS)))
    together = [ids.tolist() for ids in own.encode_with_dropout(TEXTS, 0.3, keys)]
    alone = [own.encode_with_dropout([text], 0.3, keys[i : i + 1])[0].tolist() for i, text in enumerate(TEXTS)]
    monkeypatch.setattr(bpe_module, "LINES_AT_ONCE", 5)
    assert together == alone == [ids.tolist() for ids in own.encode_with_dropout(TEXTS, 0.3, keys)]
    assert together != [ids.tolist() for ids in own.encode_with_dropout(TEXTS, 0.3, sample_keys(3, 2, np.arange(len(TEXTS))))]
    assert len({tuple(ids) for ids, text in zip(together, TEXTS, strict=True) if text == "newest"}) > 3


def test_keys_are_those_of_the_sample() -> None:
    keys = sample_keys(1, 0, np.arange(1000))
    assert len(set(keys.tolist())) == 1000
    assert np.array_equal(sample_keys(1, 0, np.array([7, 3])), keys[[7, 3]])
    assert not set(keys.tolist()) & set(sample_keys(1, 1, np.arange(1000)).tolist())
    assert abs((keys >> np.uint64(63)).mean() - 0.5) < 0.07


def probabilities(symbols: tuple[str, ...], merges: list[tuple[str, str]], p: float) -> Counter[tuple[str, ...]]:
    """How likely each cut of a word is, by adding up every choice of candidates."""
    possible = sorted((merges.index(pair), i) for i, pair in enumerate(pairwise(symbols)) if pair in merges)
    found: Counter[tuple[str, ...]] = Counter({symbols: p ** len(possible)})  # type: ignore[dict-item]
    for place, (_, at) in enumerate(possible):
        merged = (*symbols[:at], symbols[at] + symbols[at + 1], *symbols[at + 2 :])
        for cut, likely in probabilities(merged, merges, p).items():
            found[cut] += p**place * (1 - p) * likely  # type: ignore[assignment]
    return found


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_cuts_are_as_frequent_as_their_probability(p: float) -> None:
    tokenizer, n = codec("bpe").tokenizer, 6000
    assert isinstance(tokenizer, BPETokenizer)
    expected = probabilities(tuple("lowest"), tokenizer.merges, p)
    assert sum(expected.values()) == pytest.approx(1)
    keys = np.random.default_rng(0).integers(2**64, size=n, dtype=np.uint64)
    drawn = Counter(tuple(tokenizer.symbols[i] for i in ids) for ids in tokenizer.encode_with_dropout(["lowest"] * n, p, keys))
    assert set(drawn) <= set(expected)
    for cut, likely in expected.items():
        assert abs(drawn[cut] / n - likely) < 5 * (likely * (1 - likely) / n) ** 0.5 + 1e-9, cut


def test_dropout_is_for_byte_pairs_and_probabilities() -> None:
    keys = np.zeros(1, dtype=np.uint64)
    with pytest.raises(ConfigurationError, match="BPE dropout needs the symbols `bpe`, got `words`"):
        codec("words").encode_with_dropout(["a"], 0.1, keys)
    for probability in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigurationError, match="must lie between 0 and 1"):
            codec("bpe").encode_with_dropout(["a"], probability, keys)


def test_a_very_long_word_takes_no_time() -> None:
    begin = time.perf_counter()
    text = "newest" * 5000
    assert codec("bpe").decode(codec("bpe").encode_with_dropout([text], 0.1, np.zeros(1, dtype=np.uint64))[0]) == text
    assert time.perf_counter() - begin < 5


@pytest.mark.skipif(not MULTI30K.exists(), reason="Multi30k is not here")
def test_multi30k_comes_back() -> None:
    pairs = read_pairs([MULTI30K / "val.en.gz", MULTI30K / "val.de.gz"])
    own = train_codec("bpe", chain(pairs.sources, pairs.targets), vocabulary_size=2000)
    for texts in (pairs.sources[:300], pairs.targets[:300]):
        assert [own.decode(ids) for ids in own.encode_all(texts)] == texts
        cut = own.encode_with_dropout(texts, 0.1, sample_keys(0, 0, np.arange(len(texts))))
        assert [own.decode(ids) for ids in cut] == texts
