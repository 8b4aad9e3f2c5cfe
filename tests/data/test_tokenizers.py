"""Every tokenizer by one contract, and each against a plain way of doing the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unrolled.core.errors import ConfigurationError, DataError, RunError
from unrolled.data import byte_level as byte_module
from unrolled.data import words as words_module
from unrolled.data.bpe import BPETokenizer
from unrolled.data.characters import CharacterTokenizer
from unrolled.data.text import open_text
from unrolled.data.tokenizer import Tokenizer
from unrolled.data.tokenizer_files import TOKENIZERS, load_tokenizer, save_tokenizer
from unrolled.data.unigram import UnigramTokenizer
from unrolled.data.words import WordTokenizer

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
SHAKESPEARE = SHARED / "tinyshakespeare" / "input.txt"
WIKITEXT = SHARED / "wikitext2"
ALPHABET = "abe \n\t\r'1é€😀\u2028."
TRAINING = ALPHABET * 3 + "the cat sat on the mat . the dog , the cat\n  and é€😀 café\n" * 20

TRAINED: dict[str, Tokenizer] = {
    "characters": CharacterTokenizer.train([TRAINING]),
    "words": WordTokenizer.train([TRAINING], min_count=2),
    "bpe": BPETokenizer.train([TRAINING], vocabulary_size=300),
    "unigram": UnigramTokenizer.train([TRAINING], vocabulary_size=300),
}
every_kind = pytest.mark.parametrize("kind", sorted(TOKENIZERS))


def cut(text: str, places: list[int]) -> list[str]:
    borders = sorted({0, len(text), *(min(place, len(text)) for place in places)})
    return [text[a:b] for a, b in pairwise(borders)]


def joined(parts: list[np.ndarray]) -> list[int]:
    return [int(i) for part in parts for i in part]


def test_the_table_lists_every_kind_by_its_name() -> None:
    assert {kind: tokenizer.kind for kind, tokenizer in TOKENIZERS.items()} == {kind: kind for kind in TRAINED}


@every_kind
@given(text=st.text(alphabet=ALPHABET, max_size=60), places=st.lists(st.integers(0, 60), max_size=6))
@example(text="a\n\n  b \n", places=[1, 2, 3, 4, 5, 6, 7])
def test_a_stream_gives_the_ids_of_the_whole(kind: str, text: str, places: list[int]) -> None:
    tokenizer = TRAINED[kind]
    whole = tokenizer.encode(text)
    assert whole.dtype == np.int64
    assert joined(list(tokenizer.encode_chunks(cut(text, places)))) == whole.tolist()
    assert "".join(tokenizer.pieces(cut(text, places))) == text


@pytest.mark.parametrize("kind", ["characters", "bpe", "unigram"])
@given(text=st.text(alphabet=ALPHABET, max_size=60))
def test_text_comes_back_unchanged(kind: str, text: str) -> None:
    tokenizer = TRAINED[kind]
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_bpe_brings_any_text_back(text: str) -> None:
    assert TRAINED["bpe"].decode(TRAINED["bpe"].encode(text)) == text


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=50)
def test_words_come_back_with_single_spaces(text: str) -> None:
    tokenizer = WordTokenizer.train([text + " x"])
    lines = [" ".join(line.split()) for line in text.split("\n")]
    assert tokenizer.decode(tokenizer.encode(text)) == "\n".join(lines)


@every_kind
@given(text=st.text(alphabet=ALPHABET, max_size=40))
def test_step_by_step_decoding_equals_the_whole(kind: str, text: str) -> None:
    tokenizer = TRAINED[kind]
    ids = tokenizer.encode(text)
    decoder = tokenizer.decoder()
    printed = [decoder.push(int(i)) for i in ids]
    assert "".join(printed) + decoder.finish() == tokenizer.decode(ids) == tokenizer.decode(ids.tolist())
    assert "\ufffd" not in "".join(printed)


@every_kind
def test_save_and_load(kind: str, tmp_path: Path) -> None:
    tokenizer = TRAINED[kind]
    save_tokenizer(tokenizer, tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert type(loaded) is type(tokenizer)
    assert loaded.encode(TRAINING).tolist() == tokenizer.encode(TRAINING).tolist()
    assert loaded.digest() == tokenizer.digest()
    assert [loaded.symbol(i) for i in range(loaded.size)] == [tokenizer.symbol(i) for i in range(tokenizer.size)]


@every_kind
def test_training_does_not_depend_on_the_cuts(kind: str) -> None:
    one = TOKENIZERS[kind].train([TRAINING])  # type: ignore[attr-defined]
    cuts = TOKENIZERS[kind].train([cut(TRAINING, list(range(0, len(TRAINING), 7)))])  # type: ignore[attr-defined]
    assert one.to_json() == cuts.to_json()
    assert one.digest() != TOKENIZERS[kind].train([TRAINING + " zzz zzz"]).digest()  # type: ignore[attr-defined]


@every_kind
def test_training_needs_text(kind: str) -> None:
    with pytest.raises(DataError, match="a vocabulary must be made from"):
        TOKENIZERS[kind].train([""])  # type: ignore[attr-defined]


@every_kind
def test_empty_text(kind: str) -> None:
    assert TRAINED[kind].encode("").tolist() == []
    assert list(TRAINED[kind].encode_chunks([])) == []
    assert TRAINED[kind].decode([]) == ""


def test_characters_against_a_dictionary() -> None:
    text = "hello wörld 😀\n"
    tokenizer = CharacterTokenizer.train([text[:5], text[5:]])
    ids = {character: i for i, character in enumerate(sorted(set(text)))}
    assert tokenizer.characters == "".join(sorted(set(text)))
    assert tokenizer.encode(text).tolist() == [ids[character] for character in text]
    assert tokenizer.size == len(ids)


def test_unknown_character_is_named_with_place_and_suggestion() -> None:
    tokenizer = CharacterTokenizer.train(["hello"])
    sentence = r"the character 'L' \(U\+004C\) at character 3 is not in the vocabulary; try `l` instead"
    with pytest.raises(DataError, match=sentence):
        tokenizer.encode("heLp")
    with pytest.raises(DataError, match=sentence):
        list(tokenizer.encode_chunks(["h", "eLp"]))
    with pytest.raises(DataError, match="try `e` instead"):
        tokenizer.encode("é")
    with pytest.raises(DataError, match=r"U\+1F600.*try leaving it out"):
        tokenizer.encode("😀")
    with pytest.raises(DataError, match=r"'\\udce9' \(U\+DCE9\)"):  # an undecodable byte of a command line
        tokenizer.encode("\udce9")


def test_words_against_a_dictionary() -> None:
    text = "b a b\n c  <unk> c b\n\n"
    tokens = text.replace("\n", " <eos> ").split()
    counts = Counter(tokens)
    words = sorted(counts, key=lambda w: (-counts[w], w))
    tokenizer = WordTokenizer.train([text])
    assert tokenizer.words == words == ["<eos>", "b", "c", "<unk>", "a"]
    assert tokenizer.encode(text).tolist() == [words.index(w) for w in tokens]
    assert tokenizer.decode(tokenizer.encode(text + "zebra")) == "b a b\nc <unk> c b\n\n<unk>"


def test_limited_vocabularies() -> None:
    text = "d d d d c c c b b a\n"
    assert WordTokenizer.train([text], min_count=2).words == ["d", "c", "b", "<eos>", "<unk>"]
    assert WordTokenizer.train([text], vocabulary_size=4).words == ["d", "<unk>", "c", "<eos>"]
    assert WordTokenizer.train([text], vocabulary_size=100).words == ["d", "c", "b", "<eos>", "a", "<unk>"]
    assert WordTokenizer.train(["x <unk> <unk>"], vocabulary_size=3).words == ["<unk>", "x", "<eos>"]
    for options in ({"vocabulary_size": 2}, {"min_count": 0}):
        with pytest.raises(ConfigurationError, match="must be at least"):
            WordTokenizer.train([text], **options)


def test_all_unknown_symbols_of_a_text_are_named() -> None:
    with pytest.raises(DataError) as caught:
        CharacterTokenizer.train(["hello"]).encode("hLpLeqp")
    assert str(caught.value).endswith("`l` instead; not in it either: 'p' (U+0070), 'q' (U+0071)")
    with pytest.raises(DataError, match=r"instead; not in it either: 'A' .* 'E' \(U\+0045\) and 2 more$"):
        CharacterTokenizer.train(["hello"]).encode("HABCDEFG")
    with pytest.raises(DataError, match=r"the word `a` at character 1 .*; not in it either: `b`, `c`$"):
        WordTokenizer.train(["the cat\n"]).encode("a b the a c b")


def test_words_of_two_files_do_not_grow_together() -> None:
    assert sorted(WordTokenizer.train(["one", "two"]).words) == ["<eos>", "one", "two"]


def test_unknown_word_is_named() -> None:
    tokenizer = WordTokenizer.train(["the cat\n"])
    with pytest.raises(DataError, match=r"the word `cart` at character 6 is not in the vocabulary; did you mean `cat`\?"):
        list(tokenizer.encode_chunks(["the\n", " ca", "rt"]))
    with pytest.raises(DataError, match="a vocabulary with `<unk>`"):
        tokenizer.encode("xyzzy")


def test_text_without_white_space_is_not_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words_module, "LONGEST_WORD", 10)
    with pytest.raises(DataError, match="must have white space between them, got 12 characters"):
        list(WordTokenizer.train(["a"]).pieces(["abcdef", "abcdef"]))


@given(text=st.text(alphabet="ab \n", max_size=80), places=st.lists(st.integers(0, 80), max_size=8))
@example(text="a" * 40 + "\n", places=[10, 11])
def test_very_long_lines_are_cut_where_the_chunks_do_not_matter(text: str, places: list[int]) -> None:
    before, byte_module.LONGEST_LINE = byte_module.LONGEST_LINE, 10
    try:
        tokenizer = TRAINED["bpe"]
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert joined(list(tokenizer.encode_chunks(cut(text, places)))) == ids.tolist()
        assert all(len(line) <= 10 or line == "a" * 10 + "\n" for line in byte_module._lines([text]))
    finally:
        byte_module.LONGEST_LINE = before


def test_many_lines_on_several_threads_equal_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, lines = TRAINED["bpe"], TRAINING.splitlines(keepends=True)
    monkeypatch.setattr(byte_module, "LINES_AT_ONCE", 3)
    text = "".join(line for line in lines if "\r" not in line and "\u2028" not in line)
    assert tokenizer.encode(text).tolist() == list(
        chain.from_iterable(tokenizer.encode(line + "\n").tolist() for line in text.split("\n")[:-1])
    )


def test_bpe_holds_incomplete_characters_back_and_shows_bytes() -> None:
    tokenizer = BPETokenizer.train(["abc"], vocabulary_size=256)
    decoder = tokenizer.decoder()
    ids = tokenizer.encode("é \n")
    assert [decoder.push(int(i)) for i in ids] == ["", "é", " ", "\n"]
    assert [tokenizer.symbol(int(i)) for i in ids] == ["<C3>", "<A9>", "␣", "↵"]
    assert decoder.push(int(ids[0])) + decoder.finish() == "\ufffd"


def test_bpe_sizes() -> None:
    assert TRAINED["bpe"].size <= 300
    with pytest.raises(ConfigurationError, match="must be at least 256 for BPE"):
        BPETokenizer.train(["abc"], vocabulary_size=255)


def test_bpe_training_is_the_same_in_every_process_and_warns_of_no_fork() -> None:
    script = (
        "import os; from unrolled.data.bpe import BPETokenizer\n"
        f"t = BPETokenizer.train([{TRAINING!r}], vocabulary_size=300); t.encode({TRAINING!r} * 300)\n"
        "pid = os.fork()\n"
        "if pid == 0: t.encode('in the child\\n' * 5000); os._exit(0)\n"
        "os.waitpid(pid, 0); print(t.digest())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    source = str(Path(byte_module.__file__).parents[2])
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={**environment, "PYTHONPATH": source, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.stdout.strip(), ran.stderr) == (TRAINED["bpe"].digest(), "")
    assert "TOKENIZERS_PARALLELISM" not in os.environ or "TOKENIZERS_PARALLELISM" in environment


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "it is damaged"),
        ("[]", "it has no `format` number"),
        ('{"format": 2}', "a newer one wrote it"),
        ('{"format": 1, "kind": "word"}', "the unknown kind `word`, did you mean `words`"),
        ('{"format": 1, "kind": "characters", "characters": "ba"}', "different characters in order"),
        ('{"format": 1, "kind": "characters"}', "different characters in order"),
        ('{"format": 1, "kind": "words", "words": ["a", 1]}', "must be a list of words"),
        ('{"format": 1, "kind": "words", "words": ["a", "a", "<eos>"]}', "must be different words"),
        ('{"format": 1, "kind": "bpe", "symbols": ["a"], "merges": []}', "hold every byte"),
        ('{"format": 1, "kind": "bpe", "symbols": 3}', "must be lists of strings"),
    ],
)
def test_damaged_files_end_in_a_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(RunError, match=sentence) as caught:
        load_tokenizer(path)
    assert str(caught.value).startswith(f"`{path}` must be a tokenizer file, but ")


def test_tampered_merges_and_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(RunError, match="reading it failed"):
        load_tokenizer(path)
    save_tokenizer(TRAINED["bpe"], path)
    content = json.loads(path.read_text())
    content["merges"][0] = "q z"
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match="both sides and the result of every merge"):
        load_tokenizer(path)


@pytest.mark.skipif(not WIKITEXT.exists(), reason="WikiText-2 is not here")
def test_wikitext2_has_its_published_counts() -> None:
    files = [WIKITEXT / f"{name}.txt.gz" for name in ("train", "valid", "test")]
    tokenizer = WordTokenizer.train(open_text(path) for path in files)
    assert tokenizer.size == 33_278
    assert [sum(map(len, tokenizer.encode_chunks(open_text(path)))) for path in files] == [2_088_628, 217_646, 245_569]
    assert tokenizer.words[0] == "the"


@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="tiny Shakespeare is not here")
def test_shakespeare_comes_back() -> None:
    text = "".join(open_text(SHAKESPEARE))
    characters = CharacterTokenizer.train([text])
    assert (characters.size, characters.decode(characters.encode(text)) == text) == (65, True)
    pairs = BPETokenizer.train([text], vocabulary_size=1024)
    assert (pairs.size, pairs.decode(pairs.encode(text)) == text) == (1024, True)
