"""The unigram model against all ways of cutting a word, and against itself in another process."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from functools import cache
from importlib.resources import files
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.core.errors import ConfigurationError, DataError, RunError
from unrolled.data import unigram as unigram_module
from unrolled.data.bpe import BPETokenizer
from unrolled.data.tokenizer_files import load_tokenizer, save_tokenizer
from unrolled.data.unigram import UnigramTokenizer

TEXTS = ["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3 + ["the lowest newest café is lower than the widest"] * 4
any_text = st.text(st.characters(exclude_categories=["Cs"]))


@cache
def trained(size: int = 280) -> UnigramTokenizer:
    return UnigramTokenizer.train(TEXTS, vocabulary_size=size)


@given(text=any_text)
def test_any_text_comes_back(text: str) -> None:
    tokenizer = trained()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert [found.tolist() for found in tokenizer.encode_all([text, "", text])] == [ids.tolist(), [], ids.tolist()]


@given(word=st.text("lowernstid", min_size=1, max_size=8))
@settings(max_examples=60)
def test_a_word_is_cut_where_the_product_is_largest(word: str) -> None:
    tokenizer = trained()
    score_of = dict(zip(tokenizer.symbols, tokenizer.scores, strict=True))
    cuts = [pairwise((0, *places, len(word))) for n in range(len(word)) for places in combinations(range(1, len(word)), n)]
    ways = [[word[a:b] for a, b in cut] for cut in cuts]
    best = max(sum(score_of[piece] for piece in way) for way in ways if all(piece in score_of for piece in way))
    ids = tokenizer.encode(word)
    assert "".join(tokenizer.symbols[i] for i in ids) == word
    assert sum(tokenizer.scores[i] for i in ids) == pytest.approx(best)


def test_frequent_pieces_are_learnt_and_the_vocabulary_keeps_to_its_size() -> None:
    tokenizer = trained(262)
    assert 256 < tokenizer.size <= 262
    assert sorted(tokenizer.scores, reverse=True) == tokenizer.scores
    assert [tokenizer.symbols[i] for i in trained().encode("low")] == ["low"]
    assert UnigramTokenizer.train(["abc"], vocabulary_size=256).size == 256
    with pytest.raises(ConfigurationError, match="must be at least 256 for a unigram model"):
        UnigramTokenizer.train(["abc"], vocabulary_size=255)
    with pytest.raises(DataError, match="must be made from text"):
        UnigramTokenizer.train([])


def test_a_frequent_word_that_begins_no_other_is_one_piece() -> None:
    tokenizer = UnigramTokenizer.train(["xylophone"] * 20 + TEXTS, vocabulary_size=280)
    assert [tokenizer.symbols[i] for i in tokenizer.encode("xylophone")] == ["xylophone"]
    assert not any(symbol[-1] >= "\U000f0000" for symbol in tokenizer.symbols)


def test_it_needs_about_as_many_symbols_as_byte_pairs() -> None:
    text = gzip.decompress((files("unrolled") / "demo" / "tinyshakespeare.txt.gz").read_bytes()).decode()[:100_000]
    counts = [len(kind.train([text], vocabulary_size=1000).encode(text)) for kind in (UnigramTokenizer, BPETokenizer)]
    assert counts[0] < 1.05 * counts[1]


def test_training_is_the_same_in_every_process() -> None:
    script = (
        "from unrolled.data.unigram import UnigramTokenizer\n"
        f"print(*[UnigramTokenizer.train({TEXTS!r}, vocabulary_size=n).digest() for n in (262, 280)])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(unigram_module.__file__).parents[2]), "PYTHONHASHSEED": "1"}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (ran.stdout.split(), ran.stderr) == ([trained(262).digest(), trained().digest()], "")


def test_save_and_load(tmp_path: Path) -> None:
    save_tokenizer(trained(), tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert isinstance(loaded, UnigramTokenizer)
    assert (loaded.digest(), loaded.scores) == (trained().digest(), trained().scores)
    assert loaded.encode("the widest é").tolist() == trained().encode("the widest é").tolist()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"symbols": ["a"]}, "must be different strings and hold every byte"),
        ({"symbols": 3}, "must be different strings"),
        ({"scores": [0.0]}, "must be finite numbers, one a symbol"),
        ({"scores": None}, "must be finite numbers"),
        ({"scores": [float("nan")] * trained().size}, "must be finite numbers"),
    ],
)
def test_damaged_files_end_in_a_sentence(tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"format": 1, "kind": "unigram", **trained().to_json(), **changes}))
    with pytest.raises(RunError, match=sentence):
        load_tokenizer(path)


@given(text=any_text)
@settings(max_examples=50)
def test_spans_cover_the_text(text: str) -> None:
    spans = trained().spans(text)
    assert len(spans) == len(trained().encode(text))
    covered = np.zeros(len(text), dtype=int)
    for start, end in spans:
        assert 0 <= start < end <= len(text)
        covered[start:end] += 1
    assert (covered > 0).all()
