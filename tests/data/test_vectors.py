"""Pretrained vectors: every kind of file gives the same rows, the cache is used and mended, and defects are named."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.data import vectors as vectors_module
from unrolled.data.text import text_lines
from unrolled.data.vectors import open_vectors

LINES = ["The 1 2 3", "cat -0.5 1e-3 .25", "the 4 5 6", "\u00a0 7 8 9", "cat 0 0 0", "Ünder 1 1 1"]
ROWS = {"The": [1, 2, 3], "cat": [-0.5, 1e-3, 0.25], "the": [4, 5, 6], "\u00a0": [7, 8, 9], "Ünder": [1, 1, 1]}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def refusal(path: Path, folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        open_vectors(path, folder / "cache")
    assert str(path) in str(caught.value)
    assert not list((folder / "cache").glob("*"))  # nothing half-written
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.txt", "a.vec.gz"])
@pytest.mark.parametrize(
    "text",
    [
        "\n".join(LINES),
        "6 3\n" + "\n".join(LINES) + "\n",
        "6 3\n" + " \n".join(LINES) + " \n",  # word2vec ends each line with a blank
        "\r\n".join(line.replace(" ", "\t") for line in LINES),
        "6 3\n\n" + "\n".join(LINES).replace("cat -0.5", "cat  -0.5"),
    ],
)
@pytest.mark.parametrize("block", [1, 4, 1024])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, block: int) -> None:
    monkeypatch.setattr(vectors_module, "BLOCK_ROWS", block)
    told: list[int] = []
    vectors = open_vectors(write(tmp_path, name, text), tmp_path / "cache", progress=told.append)
    assert (len(vectors), vectors.dim, vectors.duplicates, sum(told)) == (5, 3, 1, 6)
    assert isinstance(vectors.matrix, np.memmap)
    taken = vectors.rows(list(ROWS))
    np.testing.assert_array_equal(taken.matrix, np.array(list(ROWS.values()), dtype=np.float32))
    assert taken.found.all()
    assert taken.lowered == 0


def test_words_fall_back_to_their_lower_case_and_others_are_zero(tmp_path: Path) -> None:
    vectors = open_vectors(write(tmp_path, "a.txt", "\n".join(LINES)), tmp_path / "cache")
    taken = vectors.rows(["CAT", "The", "THE", "dog", "under", "cat"])
    assert taken.found.tolist() == [True, True, True, False, False, True]
    assert (
        taken.matrix.tolist() == np.array([ROWS["cat"], ROWS["The"], ROWS["the"], [0] * 3, [0] * 3, ROWS["cat"]], dtype=np.float32).tolist()
    )
    assert taken.coverage() == "4 of 6 words have a pretrained vector (2 by their lower-cased form)"
    assert vectors.rows([]).matrix.shape == (0, 3)
    assert vectors.rows([]).coverage() == "0 of 0 words have a pretrained vector"


def test_the_cache_is_used_and_a_damaged_one_made_anew(tmp_path: Path) -> None:
    path, told = write(tmp_path, "a.txt", "\n".join(LINES)), []
    for damage in (None, "npy", "words", "json"):
        open_vectors(path, tmp_path / "cache", progress=told.append)
        told.clear()
        if damage:
            next((tmp_path / "cache").glob(f"*.{damage}")).write_bytes(b"{}")
        vectors = open_vectors(path, tmp_path / "cache", progress=told.append)
        assert bool(told) == bool(damage)
        assert vectors.rows(["cat"]).found.all()
    write(tmp_path, "a.txt", "cat 5 5 5\n")
    assert open_vectors(path, tmp_path / "cache").rows(["cat"]).matrix.tolist() == [[5, 5, 5]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a 1 2\nb 1\n", "every vector must have 2 numbers, as the first has, got 1 in `{}`, line 2"),
        ("a 1 2\nb 1 2 3\n", "every vector must have 2 numbers, as the first has, got 3 in `{}`, line 2"),
        ("2 2\na 1 2\nb\n", "got 0 in `{}`, line 3"),
        ("a 1 2\nb 1 x\n", "a vector must be made of finite numbers, got `x` for `b` in `{}`, line 2"),
        ("a 1 2\nb nan 2\n", "got `nan` for `b` in `{}`, line 2"),
        ("a 1 2\nb 1 1e39\n", "got `1e39` for `b` in `{}`, line 2"),
        ("a 1 2\n 1 2\n", "got a blank in `{}`, line 2"),
        ("3 2\na 1 2\nb 1 2\n", "must hold as many vectors as its first line says, 3, got 2"),
        ("2 0\na\n", "must have at least one number, got 0 in `{}`, line 1"),
        ("word\n", "must be a word and its numbers, got `word` in `{}`, line 1"),
        ("\n\n", "must hold vectors, got only empty lines"),
    ],
)
def test_every_defect_is_one_sentence_with_its_place(tmp_path: Path, text: str, found: str) -> None:
    path = write(tmp_path, "a.txt", text)
    assert found.format(path).replace("``", "`") in refusal(path, tmp_path)


def test_a_word_may_have_blanks_where_its_numbers_are_enough(tmp_path: Path) -> None:
    vectors = open_vectors(write(tmp_path, "a.txt", "a 1 2\n. . . 3 4\nat x@y.z 5 6\n"), tmp_path / "cache")
    assert vectors.rows([". . .", "at x@y.z"]).matrix.tolist() == [[3, 4], [5, 6]]


def test_the_encoding_can_be_said(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("é 1 2\n".encode("latin-1"))
    assert "must be UTF-8, got byte 0xe9 at byte 0, line 1" in refusal(path, tmp_path)
    assert open_vectors(path, tmp_path / "cache", encoding="latin-1").rows(["é"]).found.all()
    with pytest.raises(ConfigurationError, match="must be the name of a text encoding"):
        open_vectors(path, tmp_path / "cache", encoding="no")


word = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs"], exclude_characters="\ufeff"), min_size=1)
number = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.dictionaries(word, st.tuples(number, number, number), min_size=1, max_size=20), st.booleans())
def test_any_vectors_come_back_bit_for_bit(tmp_path: Path, content: dict[str, tuple[float, ...]], header: bool) -> None:
    first = f"{len(content)} 3\n" if header else ""
    text = first + "\n".join(" ".join([one, *map(repr, row)]) for one, row in content.items())
    vectors = open_vectors(write(tmp_path, "a.txt", text), tmp_path / "cache")
    np.testing.assert_array_equal(vectors.rows(list(content)).matrix, np.array(list(content.values()), dtype=np.float32))
    assert list(text_lines(vectors.words_file)) == list(content)


def test_many_rows(tmp_path: Path) -> None:
    numbers = random.Random(0)
    rows = {f"w{n}": [numbers.gauss(0, 1) for _ in range(20)] for n in range(3000)}
    text = "\n".join(f"{one} {' '.join(f'{x:.5f}' for x in row)}" for one, row in rows.items())
    vectors = open_vectors(write(tmp_path, "a.txt.gz", text), tmp_path / "cache")
    np.testing.assert_allclose(vectors.rows(["w2999", "w0", "w1024"]).matrix, [rows["w2999"], rows["w0"], rows["w1024"]], atol=1e-5)
    loaded = np.load(next((tmp_path / "cache").glob("*.npy")))
    assert loaded.shape == (3000, 20)
