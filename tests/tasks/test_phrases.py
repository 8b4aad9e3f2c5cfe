"""Required and forbidden words in the symbols of a vocabulary, held to a regular expression on the text itself."""

from __future__ import annotations

import itertools
import random
import re
from typing import Any

import pytest
import torch

from unrolled.core.errors import ConfigurationError
from unrolled.core.settings import resolve
from unrolled.data.sentences import SentenceCodec, train_codec
from unrolled.decode.phrases import Wording, advance, compile_phrases, is_met
from unrolled.tasks.phrases import Wishes, whole_words
from unrolled.tasks.translation_request import TranslationRequest

LETTERS = "ab ."
TEXTS = ["".join(text) for length in range(7) for text in itertools.product(LETTERS, repeat=length)]
PHRASES = ["a", "ab", "aba", "a b", "b a b", ".", "a.", ". a", " a "]


@pytest.fixture(scope="module")
def characters() -> SentenceCodec:
    return train_codec("characters", [LETTERS])


def wishes_of(codec: SentenceCodec, **request: Any) -> Wishes:
    return Wishes(codec, resolve(TranslationRequest, request))


def met(codec: SentenceCodec, wording: Wording, texts: list[list[int]]) -> list[bool]:
    """Whether each text, of one length, has the phrase."""
    tables = compile_phrases([[wording]], codec.vocabulary, codec.end)
    states = torch.zeros((1, len(texts), 1), dtype=torch.long)
    for column in zip(*texts, strict=True):
        states = advance(tables, states, torch.tensor([column]))
    found: list[bool] = is_met(tables, states)[0].tolist()
    return found


def written(phrase: str, *, behind: str = r"(?!\w)") -> re.Pattern[str]:
    """The definition: nothing of a word stands right before or behind, where the phrase itself has a letter there."""
    phrase = phrase.strip()
    first, last = (r"(?<!\w)" if phrase[0].isalpha() else ""), (behind if phrase[-1].isalpha() else "")
    return re.compile(first + re.escape(phrase) + last)


@pytest.mark.parametrize("phrase", PHRASES)
def test_every_text_of_characters_has_a_phrase_where_it_stands_as_words(characters: SentenceCodec, phrase: str) -> None:
    (wording,) = wishes_of(characters, require=(phrase,)).of("")
    for length in range(7):
        texts = [text for text in TEXTS if len(text) == length]
        found = met(characters, wording, [characters.encode(text).tolist() for text in texts])
        assert found == [written(phrase).search(text) is not None for text in texts]


@pytest.mark.parametrize("phrase", PHRASES)
@pytest.mark.parametrize(("early", "behind"), [({"beam": 5}, r"(?!\w)"), ({"beam": 1}, ""), ({"sampling": True}, "")])
def test_what_can_be_written_is_what_has_no_forbidden_word(
    characters: SentenceCodec, phrase: str, early: dict[str, Any], behind: str
) -> None:
    (processor,) = wishes_of(characters, forbid=(phrase,), **early).processors()
    for length in range(6):
        texts = [text for text in TEXTS if len(text) == length]
        ids = torch.tensor([[characters.start, *characters.encode(text).tolist(), characters.end] for text in texts])
        allowed = torch.ones(len(texts), dtype=torch.bool)
        for read in range(1, length + 2):
            left = processor(torch.zeros(len(texts), characters.vocabulary), ids[:, :read])
            allowed &= left.gather(1, ids[:, read : read + 1]).squeeze(1) == 0
        assert allowed.tolist() == [written(phrase, behind=behind).search(text) is None for text in texts]


PIECES = ["dog", "dogs", "do", "g", "hot", "hotdog", "a", "(", ")", " ", " ", ".", "'s", "2", "_", "é"]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sub_words(kind: str) -> None:
    texts = ["a hot dog", "dogs do (a hotdog)", "do a dog's dogs. dog", "hot é do", "dog"] * 3
    codec = train_codec(kind, texts, vocabulary_size=300)
    chance, counts = random.Random(0), {True: 0, False: 0}
    for phrase in ("dog", "hot dog", "dogs", "a (", "do"):
        (wording,) = wishes_of(codec, require=(phrase,)).of("")
        for _ in range(300):
            text = "".join(chance.choices([phrase, *PIECES], [6, *[1] * len(PIECES)], k=chance.randint(0, 6)))
            expected = written(phrase).search(text) is not None
            assert met(codec, wording, [codec.encode(text).tolist()]) == [expected], text
            counts[expected] += 1
    assert min(counts.values()) > 300


def test_words_are_whole_words_anyway() -> None:
    codec = train_codec("words", ["a dog ran", "dogs ran"])
    wishes = wishes_of(codec, require="dog ran", forbid="dogs")
    assert wishes.of("") == [Wording((tuple(codec.encode("dog ran").tolist()),))]
    (processor,) = wishes.processors()
    left = processor(torch.zeros(1, codec.vocabulary), torch.tensor([[codec.start]]))
    assert left.isinf().nonzero().tolist() == [[0, int(codec.encode("dogs")[0])]]


def test_a_vocabulary_without_a_space_has_words_all_the_same() -> None:
    codec = train_codec("characters", ["word", "sword"])
    assert wishes_of(codec, prefix="sw").prefix == codec.encode("sw").tolist()
    (wording,) = wishes_of(codec, require="word").of("")
    assert met(codec, wording, [codec.encode("word").tolist()]) == [True]
    assert met(codec, wording, [codec.encode("sword").tolist()]) == [False]
    for wish in ("require", "forbid", "prefix"):
        with pytest.raises(ConfigurationError, match=f"`{wish}` must be made of symbols of the target vocabulary, got `xyz`"):
            wishes_of(codec, **{wish: "xyz"})


def test_a_term_is_found_as_whole_words() -> None:
    for phrase in PHRASES:
        if phrase == phrase.strip():
            assert [bool(whole_words(phrase).search(text)) for text in TEXTS] == [bool(written(phrase).search(text)) for text in TEXTS]
