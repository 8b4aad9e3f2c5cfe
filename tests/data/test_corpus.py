"""Corpora: the cache, parts and their counts, and memory that does not grow with the text."""

from __future__ import annotations

import gzip
import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import unrolled.data.corpus_files
from unrolled.core.errors import ConfigurationError, DataError
from unrolled.data.bpe import BPETokenizer
from unrolled.data.characters import CharacterTokenizer
from unrolled.data.corpus import Corpus, corpus_in_memory, smallest_dtype
from unrolled.data.corpus_files import build_corpus
from unrolled.data.tokenizer import Tokenizer
from unrolled.data.words import WordTokenizer

SHAKESPEARE = Path(__file__).parents[2].parent / "shared" / "data" / "tinyshakespeare" / "input.txt"
TEXT = "the cat sat\non the  mat\né€😀 the end"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text(TEXT)
    return path


def test_the_ids_lie_in_a_mapped_file_of_the_smallest_type(file: Path, tmp_path: Path) -> None:
    tokenizer = CharacterTokenizer.train([TEXT])
    seen: list[int] = []
    corpus = build_corpus([file], tokenizer, tmp_path / "cache", progress=seen.append)
    assert isinstance(corpus.stored, np.memmap)
    assert corpus.stored.dtype == np.uint8
    assert corpus.tokens.tolist() == tokenizer.encode(TEXT).tolist()
    assert (len(corpus), sum(seen)) == (len(TEXT), len(TEXT))
    assert corpus.counts()[:2] == (len(TEXT), len(TEXT.split()))
    assert [smallest_dtype(size).itemsize for size in (1, 256, 257, 65536, 65537)] == [1, 1, 2, 2, 4]


def test_the_cache_is_used_again_and_keyed_by_content_and_tokenizer(file: Path, tmp_path: Path) -> None:
    cache, tokenizer = tmp_path / "cache", CharacterTokenizer.train([TEXT, "xyz"])
    seen: list[int] = []
    build_corpus([file], tokenizer, cache, progress=seen.append)
    moved = file.rename(tmp_path / "b.txt")
    build_corpus([moved], tokenizer, cache, progress=seen.append)
    assert len(seen) == 1
    build_corpus([moved], CharacterTokenizer.train([TEXT]), cache, progress=seen.append)
    assert len(seen) == 2
    moved.write_text(TEXT + "x")
    assert build_corpus([moved], tokenizer, cache, progress=seen.append).tokens[-1] == tokenizer.encode("x")[0]
    assert len(seen) == 3


@pytest.mark.parametrize("part", ["tokens", "documents.npy", "marks.npy", "json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "remove", "empty"])
def test_a_damaged_cache_is_made_anew(file: Path, tmp_path: Path, part: str, damage: str) -> None:
    cache, tokenizer = tmp_path / "cache", CharacterTokenizer.train([TEXT])
    build_corpus([file], tokenizer, cache)
    (victim,) = cache.glob(f"*.{part}")
    content = victim.read_bytes()
    {
        "cut": lambda: victim.write_bytes(content[:-3]),
        "flip": lambda: victim.write_bytes(content[:10] + bytes([content[10] ^ 1]) + content[11:]),
        "remove": victim.unlink,
        "empty": lambda: victim.write_bytes(b""),
    }[damage]()
    assert build_corpus([file], tokenizer, cache).tokens.tolist() == tokenizer.encode(TEXT).tolist()
    assert victim.read_bytes() == content
    assert len(list(cache.iterdir())) == 4


def _build(path: Path, cache: Path) -> list[int]:
    return build_corpus([path], CharacterTokenizer.train([TEXT]), cache).tokens.tolist()


def test_two_processes_may_build_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(TEXT * 20_000)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        first, second = pool.starmap(_build, [(path, tmp_path / "cache")] * 2, chunksize=1)
    assert first == second == CharacterTokenizer.train([TEXT]).encode(TEXT * 20_000).tolist()
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_documents_begin_at_files_in_order(tmp_path: Path) -> None:
    texts = ["one two", "three\n", "  \t ", "four"]
    paths = [tmp_path / f"{i}.txt" for i in range(4)]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    tokenizer = WordTokenizer.train(texts)
    corpus = build_corpus(paths, tokenizer, tmp_path / "cache")
    assert tokenizer.decode(np.asarray(corpus.tokens)) == "one two three\nfour"
    assert corpus.documents.tolist() == [0, 2, 4]
    assert corpus.part(1, 5).documents.tolist() == [1, 3]
    assert corpus.part(1, 2).documents.tolist() == []
    assert corpus.part(2, 4).documents.tolist() == [0]
    assert corpus.counts()[:2] == (sum(map(len, texts)), 4)
    assert corpus.part(2, 4).counts().words == 1
    assert corpus.name == f"`{paths[0]}` and 3 more"


def test_gzip_gives_the_same_tokens(file: Path, tmp_path: Path) -> None:
    packed = tmp_path / "b.txt.gz"
    packed.write_bytes(gzip.compress(TEXT.encode()))
    tokenizer = BPETokenizer.train([TEXT], vocabulary_size=260)
    plain, unpacked = (build_corpus([path], tokenizer, tmp_path / "cache") for path in (file, packed))
    assert plain.tokens.tolist() == unpacked.tokens.tolist()
    assert plain.stored.dtype == np.uint16


def test_unknown_symbols_are_told_with_file_and_line(file: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(DataError, match=r"the character 'é' \(U\+00E9\) in `.*a.txt`, line 3, is not in the vocabulary; try `e` instead"):
        build_corpus([file], CharacterTokenizer.train(["the cat sat on mat\nde€😀"]), cache)
    with pytest.raises(DataError, match=r"the word `mat` in `.*a.txt`, line 2, is not in the vocabulary"):
        build_corpus([file], WordTokenizer.train(["the cat sat on"]), cache)
    assert list(cache.iterdir()) == []


def test_bad_files_leave_nothing_behind(file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"the cat\n\xff\xfe")
    with pytest.raises(DataError, match="must be UTF-8, got byte 0xff at byte 8, line 2"):
        build_corpus([file, bad], CharacterTokenizer.train([TEXT]), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    with pytest.raises(DataError, match="at least one text file"):
        build_corpus([], CharacterTokenizer.train([TEXT]), tmp_path / "cache")
    bad.write_text(" \t ")
    with pytest.raises(DataError, match="at least one token, got none"):
        build_corpus([bad], WordTokenizer.train([TEXT]), tmp_path / "cache")


def test_one_character_cannot_be_split() -> None:
    corpus = corpus_in_memory(["x"], CharacterTokenizer.train(["x"]))
    with pytest.raises(DataError, match=r"at least 2 tokens for training and 2 for validation, got 1 in all \(0 and 1 after the cut\)"):
        corpus.split(0.1)
    with pytest.raises(ConfigurationError, match="between 0 and 1, got 1.5"):
        corpus.split(1.5)
    train, valid = corpus_in_memory(["x" * 20], CharacterTokenizer.train(["x"])).split(0.1)
    assert (len(train), len(valid)) == (18, 2)


TOKENIZERS: dict[str, Tokenizer] = {
    "characters": CharacterTokenizer.train(["ab \né"]),
    "words": WordTokenizer.train(["a b\né"], min_count=2),
    "bpe": BPETokenizer.train(["ab ab é\n" * 5], vocabulary_size=262),
}


@pytest.mark.parametrize("kind", ["characters", "bpe"])
@given(texts=st.lists(st.text(alphabet="ab \né", max_size=12), min_size=1, max_size=4), data=st.data())
@settings(max_examples=60)
def test_counts_of_parts_add_up(kind: str, texts: list[str], data: st.DataObject) -> None:
    texts = [*texts, "ab"]
    tokenizer = TOKENIZERS[kind]
    corpus = corpus_in_memory(texts, tokenizer)
    cut = data.draw(st.integers(0, len(corpus)))
    first, second = corpus.part(0, cut).counts(), corpus.part(cut, len(corpus)).counts()
    assert first.characters + second.characters == sum(map(len, texts))
    assert first.words + second.words == sum(len(text.split()) for text in texts)
    if kind == "characters":
        assert first.characters == cut
    if len(texts) == 2 and not texts[0]:
        assert first.words == len(tokenizer.decode(np.asarray(corpus.tokens[:cut])).split())


def test_counts_of_words_keep_the_white_space_of_the_text() -> None:
    corpus = corpus_in_memory([" = a  b = \n", "c"], WordTokenizer.train(["a b c = \n"]))
    assert corpus.counts()[:2] == (12, 5)
    assert corpus.part(0, 5).counts()[:2] == (11, 4)
    assert corpus.part(0, 3).counts()[:2] == (5, 3)


def test_rare_words_hardly_spoil_the_count_of_characters() -> None:
    common, generator = ["a", "of", "it"], np.random.default_rng(0)
    words = [f"seldom-seen-{i}" if i % 5 == 0 else common[generator.integers(3)] for i in range(60_000)]
    text = "".join(word + ("\n" if i % 9 == 0 else " ") for i, word in enumerate(words))
    train, valid = corpus_in_memory([text], WordTokenizer.train([text], min_count=2)).split(0.1)
    assert train.counts().characters + valid.counts().characters == len(text)
    behind = sum(len(word) + 1 for word in words[-valid.counts().words :])
    assert valid.counts().characters == pytest.approx(behind, rel=0.02), "within a piece, words count as <unk>"


@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="tiny Shakespeare is not here")
def test_shakespeare_splits_as_everywhere(tmp_path: Path) -> None:
    text = SHAKESPEARE.read_text()
    corpus = build_corpus([SHAKESPEARE], CharacterTokenizer.train([text]), tmp_path)
    train, valid = corpus.split(0.1)
    assert (len(train), len(valid)) == (1_003_854, 111_540)
    assert valid.counts()[:2] == (111_540, len(text.split()) - len(text[:1_003_854].split()) + 0)
    pairs = build_corpus([SHAKESPEARE], BPETokenizer.train([text], vocabulary_size=512), tmp_path)
    parts = pairs.split(0.1)
    assert [part.counts().characters for part in parts] == [len(part.tokenizer.decode(np.asarray(part.tokens))) for part in parts]


MEMORY = """
import sys, threading, time
from pathlib import Path
from unrolled.data import TOKENIZERS, Streams, build_corpus, open_text

def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))

kind, path, cache = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
peak, done = [0], threading.Event()

def watch():
    while not done.wait(0.005):
        peak[0] = max(peak[0], anonymous())

threading.Thread(target=watch).start()
try:
    tokenizer = TOKENIZERS[kind].train([open_text(path)])
    train, valid = build_corpus([path], tokenizer, cache).split(0.1)
    for part in (train, valid):
        part.counts()
        streams = Streams(part, 32)
        for start in range(0, streams.steps, max(streams.steps // 200, 1)):
            streams.window(start, 128)
finally:
    done.set()
print(peak[0] // 1024)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("kind", "mebibytes"), [("characters", 200), ("words", 200), ("bpe", 30)])
def test_anonymous_memory_does_not_grow_with_the_text(tmp_path: Path, kind: str, mebibytes: int) -> None:
    words = [f"w{i * 7919 % 20011}" for i in range(16_000)]
    block = "".join(word + ("\n" if i % 12 == 11 else " ") for i, word in enumerate(words))
    source = str(Path(unrolled.data.corpus_files.__file__).parents[2])
    peaks = []
    for size in (1, mebibytes):
        path = tmp_path / f"{size}.txt"
        with open(path, "w") as file:
            for _ in range((size << 20) // len(block)):
                file.write(block)
        run = subprocess.run(
            [sys.executable, "-c", MEMORY, kind, path, tmp_path / f"cache{size}"],
            env={"PYTHONPATH": source},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        peaks.append(int(run.stdout))
    print(f"{kind}: {peaks} MiB")
    assert peaks[1] - peaks[0] < 50, peaks


def test_a_part_is_a_view() -> None:
    corpus = corpus_in_memory(["abcdef"], CharacterTokenizer.train(["abcdef"]))
    assert isinstance(corpus, Corpus)
    assert np.shares_memory(corpus.part(1, 5).part(1, 3).tokens, corpus.stored)
    assert corpus.part(1, 5).part(1, 3).tokens.tolist() == [2, 3]
