"""Files that are whole or absent: written beside their place, flushed to disk, then renamed over it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from unrolled.core.errors import RunError

TEMPORARY_PREFIX = ".unfinished-"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a new file, then put it at `path` in one rename; a kill at any moment leaves the old file or the new one.

    Args:
        path: where the file shall stand.
        write: fills the file at the path it is given.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=path.parent)
        os.close(handle)
        try:
            write(Path(name))
            with open(name, "rb") as written:
                os.fsync(written.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all.

    Args:
        path: where the file shall stand.
        text: what it shall hold.
    """
    write_atomically(path, lambda new: new.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all.

    Args:
        path: where the file shall stand.
        value: what `json` can write.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def append_line(path: Path, value: Any) -> None:
    """Add one JSON line in a single write, so that a reader never sees half of it.

    Args:
        path: a JSON-lines file, made where it is missing.
        value: what `json` can write.

    Raises:
        OSError: the disk is full; it reaches the caller as a `RunError`.
    """
    line = (json.dumps(value, ensure_ascii=False) + "\n").encode()
    with explain_disk_errors(path), open(path, "ab", buffering=0) as file:
        before = file.tell()
        if file.write(line) < len(line):  # the disk filled up in the middle of the line
            file.truncate(before)
            raise OSError(errno.ENOSPC, "no space left on the disk")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file, none where the file is missing.

    Args:
        path: the file.

    Returns:
        One object a line.

    Raises:
        RunError: a line is not JSON.
    """
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        try:
            if line:
                found.append(json.loads(line))
        except ValueError as error:
            raise RunError(f"line {number} of `{path}` must be a JSON object, but it is damaged ({error}); remove that line") from None
    return found


def remove_unfinished(folder: Path) -> None:
    """Remove what a kill left half-written beside the real files.

    Args:
        folder: looked through at its top level and one below.
    """
    for pattern in (TEMPORARY_PREFIX + "*", "*/" + TEMPORARY_PREFIX + "*"):
        for left in folder.glob(pattern):
            left.unlink(missing_ok=True)


@contextlib.contextmanager
def explain_disk_errors(path: Path) -> Iterator[None]:
    """Turn the disk's own errors into one sentence that names the place.

    Args:
        path: what was being written.

    Yields:
        Nothing.

    Raises:
        RunError: the disk is full or the place cannot be written.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"`{path}` could not be written ({reason}); free some space, or choose a place that can be written") from error
    except Exception as error:
        if "No space left" in str(error) or "StorageFull" in str(error):
            raise RunError(f"`{path}` could not be written (no space left on the disk); free some space") from error
        raise


@contextlib.contextmanager
def hold(path: Path, refusal: str) -> Iterator[None]:
    """Hold a lock file for as long as the context lasts; the system lets go of it however the process ends.

    Args:
        path: the lock file, made where it is missing.
        refusal: the sentence for whoever comes second.

    Yields:
        Nothing.

    Raises:
        RunError: another process holds it.
    """
    with explain_disk_errors(path):
        file = open(path, "ab")  # noqa: SIM115 (closed below, after the body)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(refusal) from None
        yield


def is_held(path: Path) -> bool:
    """Whether some process holds a lock file.

    Args:
        path: the lock file; may be missing.

    Returns:
        True while it is held.
    """
    if not path.exists():
        return False
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
