"""Files that are whole or absent: written beside their place, flushed to disk, then renamed over it."""

from __future__ import annotations

import contextlib
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
    """
    line = (json.dumps(value, ensure_ascii=False) + "\n").encode()
    with explain_disk_errors(path), open(path, "ab", buffering=0) as file:
        file.write(line)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file, none where the file is missing.

    Args:
        path: the file.

    Returns:
        One object a line.
    """
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


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
        raise RunError(f"`{path}` could not be written ({reason}); free some space or choose another place with `--out`") from error
    except Exception as error:
        if "No space left" in str(error) or "StorageFull" in str(error):
            raise RunError(
                f"`{path}` could not be written (no space left on the disk); free some space or choose another place with `--out`"
            ) from error
        raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
