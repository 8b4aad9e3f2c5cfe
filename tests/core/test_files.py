"""Files are whole or absent."""

import errno
import subprocess
import sys
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


def test_a_line_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    """A file-size limit stands for a full disk: the write of the second line stops in its middle."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from unrolled.core.files import append_line\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (30, 30))\n"
        "append_line(Path(sys.argv[1]), {'a': 'first line'})\n"
        "append_line(Path(sys.argv[1]), {'a': 'second line'})\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.jsonl")], capture_output=True, text=True, check=False)
    assert "RunError" in done.stderr and "no space left" in done.stderr
    assert read_lines(tmp_path / "a.jsonl") == [{"a": "first line"}]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"b":\n')
    with pytest.raises(RunError, match=r"line 2 of `.*a\.jsonl` must be a JSON object"):
        read_lines(tmp_path / "a.jsonl")


def test_what_a_kill_left_is_removed(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {})
    (tmp_path / ".unfinished-x").write_text("half")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / ".unfinished-y").write_text("half")
    remove_unfinished(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.json", "cache"]
