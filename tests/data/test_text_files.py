"""Reading text files: what comes out, and the sentence for every file that cannot be used."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unrolled.core.errors import DataError
from unrolled.data import text as text_module
from unrolled.data.counts import TextCounts, characters_and_words
from unrolled.data.text import digest, open_text


def read(path: Path) -> str:
    return "".join(open_text(path))


def error_of(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    return str(caught.value)


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize("compressed", [False, True])
def test_blocks_cut_anywhere_give_the_text_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, compressed: bool
) -> None:
    monkeypatch.setattr(text_module, "CHUNK_BYTES", block)
    content = "\ufeffé\r\n€uro\r😀\r\n\r\r\nend\r"
    path = tmp_path / "a.txt"
    path.write_bytes(gzip.compress(content.encode()) if compressed else content.encode())
    chunks = list(open_text(path))
    assert "".join(chunks) == "é\n€uro\r😀\n\r\nend\r"
    assert all(chunks)


def test_large_file_comes_in_chunks(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("line of text\n" * 300_000)
    sizes = [len(chunk) for chunk in open_text(path)]
    assert len(sizes) == 4
    assert max(sizes) <= 1 << 20


def test_missing_file_suggests_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "input.txt").write_text("x")
    path = tmp_path / "inptu.txt"
    assert error_of(path) == f"`{path}` must be a text file, but there is none of that name; did you mean `{tmp_path / 'input.txt'}`?"
    assert error_of(tmp_path / "zzz").endswith("none of that name; try the full path")
    assert f"there is no folder `{tmp_path / 'no'}` either" in error_of(tmp_path / "no" / "a.txt")


def test_errors_come_at_the_call_where_they_can(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got a directory"):
        open_text(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(DataError, match="must hold text, got an empty file"):
        open_text(tmp_path / "empty")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="got a device or pipe"):
        open_text(tmp_path / "pipe")


@pytest.mark.parametrize("content", ["\ufeff".encode(), gzip.compress(b"", mtime=0)])
def test_file_without_a_character(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    assert "got a file without a character" in error_of(path)


@pytest.mark.parametrize("block", [1, 4, 1 << 20])
def test_not_utf8_names_byte_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(text_module, "CHUNK_BYTES", block)
    path = tmp_path / "latin.txt"
    path.write_bytes("one\ntwo\nthré\nfour".encode("latin1"))
    assert "must be UTF-8, got byte 0xe9 at byte 11, line 3; try `iconv -f LATIN1" in error_of(path)
    path.write_bytes("one\n€".encode()[:-1])
    assert "got byte 0xe2 at byte 4, line 2" in error_of(path)


@pytest.mark.parametrize("block", [1, 4, 1 << 20])
def test_binary_names_byte_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(text_module, "CHUNK_BYTES", block)
    path = tmp_path / "a.bin"
    path.write_bytes(b"abc\nde\x00f")
    assert "got a NUL byte (a binary file) at byte 6, line 2" in error_of(path)


def test_other_encodings_and_binary_formats(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes("héllo".encode("utf-16"))
    assert "got UTF-16" in error_of(path)
    path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR")
    assert "a binary file" in error_of(path)


def test_broken_gzip(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    whole = gzip.compress(os.urandom(4000).hex().encode())
    path.write_bytes(whole[:-100])
    assert "must be a whole gzip file, but it is broken or cut short" in error_of(path)
    path.write_bytes(whole[:500] + bytes([whole[500] ^ 255]) + whole[501:])
    assert "must be a whole gzip file" in error_of(path)
    path.write_text("plain")
    assert "try renaming it without `.gz`" in error_of(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    path.chmod(0)
    assert "try checking its permissions" in error_of(path)


def test_disk_error_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_text("x")

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(text_module, "_open_bytes", refuse)
    assert error_of(path) == f"`{path}` must be readable, but reading it failed (Permission denied); try checking its permissions"


def test_digest_is_of_content_and_order_not_of_names(tmp_path: Path) -> None:
    for name, content in {"a": "one", "b": "two", "c": "one", "d": "onetwo"}.items():
        (tmp_path / name).write_text(content)
    of = {names: digest([tmp_path / name for name in names]) for names in ("a", "c", "ab", "ba", "d", "cb")}
    assert of["a"] == of["c"]
    assert of["ab"] == of["cb"]
    assert len({of["a"], of["ab"], of["ba"], of["d"]}) == 4
    with pytest.raises(DataError, match="there is none of that name"):
        digest([tmp_path / "nowhere"])


@given(st.lists(st.text(alphabet="ab \n\u2028é", max_size=8)))
def test_counts_do_not_depend_on_the_cuts(chunks: list[str]) -> None:
    whole = "".join(chunks)
    counts = characters_and_words(chunks)
    assert (counts.characters, counts.words) == (len(whole), len(whole.split()))
    half = characters_and_words(chunks[: len(chunks) // 2])
    assert counts.minus(half).characters + half.characters == len(whole)
    assert TextCounts().plus("") == TextCounts(0, 0, False)
