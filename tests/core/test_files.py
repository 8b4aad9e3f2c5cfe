"""Files are whole or absent."""

import errno
from pathlib import Path

import pytest

from unrolled.core.errors import RunError
from unrolled.core.files import append_line, read_lines, remove_unfinished, write_atomically, write_json, write_text


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a"
    write_text(file, "old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write_atomically(file, fail)
    assert file.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunError, match=r"could not be written \(No space left on device\); free some space"):
        write_atomically(tmp_path / "a", full)
    assert list(tmp_path.iterdir()) == []


def test_lines_round_trip(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    assert read_lines(file) == []
    append_line(file, {"a": 0.1})
    append_line(file, {"b": "ü\n"})
    assert read_lines(file) == [{"a": 0.1}, {"b": "ü\n"}]


def test_what_a_kill_left_is_removed(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {})
    (tmp_path / ".unfinished-x").write_text("half")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / ".unfinished-y").write_text("half")
    remove_unfinished(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.json", "cache"]
