"""Which files a run was trained on, and whether they are still as they were."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unrolled.core.errors import RunError
from unrolled.data import digest
from unrolled.tasks.run_folder import RunFolder


def record_files(folder: RunFolder, files: Sequence[Path], valid: Sequence[Path]) -> dict[str, Any]:
    """What `run.json` says of the files of a run.

    Args:
        folder: paths are relative to it.
        files: to train on.
        valid: to validate on.

    Returns:
        Files and their hash.
    """
    return {
        "files": [folder.relative(path) for path in files],
        "valid_files": [folder.relative(path) for path in valid],
        "digest": digest([*files, *valid]),
    }


def recorded_files(folder: RunFolder) -> tuple[list[Path], list[Path]]:
    """The data files of an existing run, still as they were.

    Args:
        folder: the run.

    Returns:
        Files to train on and files to validate on.

    Raises:
        RunError: a file has gone or has changed.
    """
    data = folder.fact("data")
    files = [folder.resolve(path) for path in data["files"]]
    valid = [folder.resolve(path) for path in data["valid_files"]]
    for path in (*files, *valid):
        if not path.exists():
            raise RunError(
                f"the run `{folder.path}` was trained on `{path}`, which is no longer there; put it back, or give a file of your own"
            )
    if digest([*files, *valid]) != data["digest"]:
        raise RunError(
            f"the text of the run `{folder.path}` (`{files[0]}`) has changed since it was trained; put the old text back, or train a new run"
        )
    return files, valid
