"""Units of texts: what stands where, how words are spelled, and what is hidden of them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from unrolled.core.errors import DataError, RunError
from unrolled.data.masking import HIDDEN, REPLACED, Masking
from unrolled.data.unit_corpus import UnitCorpus
from unrolled.data.units import (
    LONGEST_SPELLING,
    MASK,
    UNKNOWN,
    PieceUnits,
    Units,
    WordUnits,
    load_units,
    save_units,
    split_words,
    train_units,
    units_from_json,
)

TEXTS = ["The dog doesn't see the U.S. bird.", "the bird sees a dog", "Vögel sehen den Hund!", "dog", "the the the dog"]
KINDS = ["words", "characters", "bpe", "unigram"]


def units_of(kind: str) -> Units:
    return train_units(kind, TEXTS, vocabulary_size=270 if kind in ("bpe", "unigram") else None)


def ids_one_by_one(corpus: UnitCorpus) -> list[list[int]]:
    return [corpus.ids[corpus.units[i]].tolist() for i in range(len(corpus))]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_holds_what_the_texts_hold(kind: str) -> None:
    corpus = units_of(kind).encode([*TEXTS, ""])
    rows = np.array([4, 5, 0])
    batch = corpus.collate(rows)
    ids = batch.ids[batch.places.data]
    expected = ids_one_by_one(corpus)
    for row, place in enumerate(rows):
        length = int(batch.places.lengths[row])
        assert ids[row, :length].tolist() == expected[place]
    assert batch.places.lengths.tolist() == [len(expected[place]) for place in rows]
    if batch.spelling is not None:
        assert len(batch.spelling.data) == len(batch.ids) == len(set(batch.places.data.flatten().tolist()))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_cuts_as_before(kind: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    units = units_of(kind)
    save_units(units, tmp_path / "units.json")
    again = load_units(tmp_path / "units.json")
    assert (again.vocabulary, again.mask, again.characters) == (units.vocabulary, units.mask, units.characters)
    for one, other in zip(ids_one_by_one(units.encode(TEXTS)), ids_one_by_one(again.encode(TEXTS)), strict=True):
        assert one == other
    assert units.mask < units.vocabulary
    assert max(max(ids, default=0) for ids in ids_one_by_one(units.encode(TEXTS))) < units.vocabulary


def test_damaged_files_are_refused_by_name(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "units.json"
    for content in ("{", "[]", "{}", '{"kind": "words"}', '{"kind": "stars"}'):
        path.write_text(content)
        with pytest.raises(RunError, match=r"units\.json` must be the vocabulary that unrolled wrote"):
            load_units(path)
    with pytest.raises(RunError, match="`stars`"):
        units_from_json({"kind": "stars"})


@pytest.mark.parametrize("kind", ["characters", "bpe", "unigram"])
@pytest.mark.parametrize("cut", [False, True])
def test_the_first_piece_of_a_word_has_its_first_character(kind: str, cut: bool) -> None:
    units = units_of(kind)
    assert isinstance(units, PieceUnits)
    text = TEXTS[0]
    words = text.split()
    corpus = units.encode([words if cut else text])
    spans = units.codec.spans(text)
    begins = [text.index(words[0])]
    for before, word in pairwise(words):
        begins.append(text.index(word, begins[-1] + len(before)))
    firsts = corpus.firsts[0].tolist()
    assert len(firsts) == len(words)
    for first, begin in zip(firsts, begins, strict=True):
        assert spans[first][0] <= begin < spans[first][1]


def test_words_know_capital_letters_by_their_spelling_alone() -> None:
    units = WordUnits.train(TEXTS)
    assert units.id_of("The") == units.id_of("the") > MASK
    assert units.spell("The").tolist() != units.spell("the").tolist()
    apart = WordUnits.train(TEXTS, lowercase=False)
    assert apart.id_of("The") != apart.id_of("the")


def test_rare_words_are_unknown_and_still_spelled() -> None:
    units = WordUnits.train(TEXTS, min_count=2)
    assert units.words == ["the", "dog", ".", "bird"]
    assert units.id_of("sees") == UNKNOWN
    assert units.spell("sees").tolist() != units.spell("Hund").tolist()
    assert len(units.spell("x" * 100)) == LONGEST_SPELLING
    assert WordUnits.train(TEXTS, vocabulary_size=4).words == ["the", "dog"]


def test_texts_without_words_teach_nothing() -> None:
    with pytest.raises(DataError, match="texts without any"):
        WordUnits.train(["", " \n"])


def test_words_of_a_text_that_nobody_has_cut() -> None:
    assert split_words("Don't panic, it's well-known: 3.5!") == ["Don't", "panic", ",", "it's", "well-known", ":", "3", ".", "5", "!"]


def test_texts_that_are_cut_off_keep_their_beginning() -> None:
    corpus = units_of("bpe").encode(TEXTS)
    cut = corpus.cut(5)
    assert cut.lengths.max() == 5
    for row in range(len(corpus)):
        assert cut.units[row].tolist() == corpus.units[row][:5].tolist()
        assert cut.firsts[row].tolist() == [place for place in corpus.firsts[row].tolist() if place < 5]
    assert corpus.cut(1000) is corpus


# --- What is hidden -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_asked_for_is_what_stood_there(kind: str) -> None:
    units = units_of(kind)
    masking = Masking(units.encode(TEXTS), units, 0.5, seed=3)
    rows = np.arange(len(TEXTS))
    shown, asked, wanted = masking.collate(rows, 1)
    whole = masking.corpus.ids_of(rows)
    assert torch.equal(whole.data[asked], wanted)
    assert len(wanted) > 0
    ids = shown.ids[shown.places.data]
    kept = whole.mask & ~asked
    assert torch.equal(ids[kept], whole.data[kept])
    assert not asked[~whole.mask].any()
    again = masking.collate(rows[2:3], 1)
    assert torch.equal(again.wanted, wanted[asked[:2].sum() :][: len(again.wanted)])  # whatever else is in the batch


def test_shares_of_a_batch_are_as_wide_as_it_is() -> None:
    units = WordUnits.train(TEXTS)
    corpus = units.encode(TEXTS)
    all_rows, few = np.arange(5), np.array([3, 4])
    masking = Masking(corpus, units, 0.5, seed=3)
    whole, share = masking.collate(all_rows, 0), masking.collate(few, 0, all_rows)
    assert share.asked.shape[1] == share.units.places.data.shape[1] == whole.asked.shape[1] > masking.collate(few, 0).asked.shape[1]
    assert torch.equal(share.asked, whole.asked[3:])
    assert corpus.collate(few, all_rows).places.data.shape[1] == corpus.collate(all_rows).places.data.shape[1]


def test_hidden_words_have_no_characters() -> None:
    units = WordUnits.train(TEXTS)
    shown, asked, _ = Masking(units.encode(TEXTS), units, 0.9, seed=0).collate(np.arange(5), 0)
    assert shown.spelling is not None
    hidden = shown.ids == units.mask
    assert hidden.any()
    assert (shown.spelling.lengths[hidden] == 0).all()
    assert (shown.spelling.lengths[~hidden] > 0).all()
    assert hidden[shown.places.data][~asked].sum() == 0


def test_shares_are_those_of_the_paper() -> None:
    words = [f"w{i}" for i in range(50)]
    texts = [" ".join(words[(i * 7 + j) % 50] for j in range(20)) for i in range(400)]
    units = WordUnits.train(texts)
    masking = Masking(units.encode(texts), units, 0.15, seed=1)
    shown, asked, wanted = masking.collate(np.arange(400), 0)
    ids = shown.ids[shown.places.data][asked]
    hidden, same = (ids == units.mask).float().mean(), (ids == wanted).float().mean()
    assert abs(float(asked.float().mean()) - 0.15) < 0.015
    assert abs(float(hidden) - HIDDEN) < 0.04
    assert abs(float(same) - (1 - HIDDEN - REPLACED) - REPLACED / 50) < 0.03
    assert not torch.equal(masking.collate(np.arange(400), 1).asked, asked)  # others in another epoch


def test_words_are_hidden_whole() -> None:
    units = units_of("bpe")
    corpus = units.encode(TEXTS)
    asked = Masking(corpus, units, 0.4, seed=5).collate(np.arange(len(TEXTS)), 0).asked
    for row in range(len(TEXTS)):
        borders = [*corpus.firsts[row].tolist(), len(corpus.units[row])]
        for begin, end in pairwise(borders):
            assert len(set(asked[row, begin:end].tolist())) == 1


def test_unknown_words_are_not_asked_for() -> None:
    units = WordUnits.train(TEXTS, min_count=2)
    for epoch in range(20):
        assert (Masking(units.encode(TEXTS), units, 0.5, seed=5).collate(np.arange(5), epoch).wanted != UNKNOWN).all()
