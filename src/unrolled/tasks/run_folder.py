"""The run folder: configuration, tokenizer, weights, metrics, samples and report of one training, and nothing that runs code."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from unrolled.core.errors import RunError
from unrolled.core.files import TEMPORARY_PREFIX, explain_disk_errors, hold, is_held, read_lines, remove_unfinished, write_json, write_text
from unrolled.core.settings import Settings, read_toml, write_toml

FORMAT = 1
"""The format number of run folders that this version writes."""

FITTED = ("hmm", "lds", "structural")
"""Tasks of `unrolled fit`; all others are of `unrolled train`."""

MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""How `run.json` of an older format becomes the next one, by the older number."""


class RunFolder:
    """The files of a run by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.facts_file = path / "run.json"
        self.config = path / "config.toml"
        self.tokenizer = path / "tokenizer.json"
        self.side_tokenizers = path / "source.tokenizer.json", path / "target.tokenizer.json"
        self.units = path / "units.json"
        self.labels = path / "labels.json"
        self.series = path / "series.json"
        self.start = path / "start.safetensors"
        self.weights = path / "weights.safetensors"
        self.checkpoint = path / "checkpoint.safetensors"
        self.kept = path / "kept"
        self.model = path / "model"
        self.learnt = path / "learnt.json"
        self.metrics = path / "metrics.jsonl"
        self.samples = path / "samples.jsonl"
        self.report = path / "report.html"
        self.tensorboard = path / "tensorboard"
        self.lock = path / ".lock"

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @property
    def cache(self) -> Path:
        """Where what can be made again is kept: in the run, or in the user's own cache where the run can only be read."""
        own = self.path / "cache"
        if os.access(own if own.exists() else self.path, os.W_OK) or not self.path.exists():
            return own
        return user_cache()

    def facts(self) -> dict[str, Any]:
        """What `run.json` says, brought to the present format.

        Returns:
            The facts of the run.

        Raises:
            RunError: there is no run, it is damaged, or it comes from a newer version.
        """
        if not self.path.is_dir():
            raise RunError(f"there is no run folder `{self.path}`; `unrolled runs` lists what is there")
        try:
            facts: dict[str, Any] = json.loads(self.facts_file.read_text(encoding="utf-8"))
            number = int(facts["format"])
        except FileNotFoundError:
            raise RunError(
                f"`{self.path}` must be a run folder with a `run.json`, and it has none; `unrolled runs` lists the runs"
            ) from None
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise RunError(
                f"`{self.facts_file}` must be the JSON object that unrolled wrote, but it is damaged ({error}); restore it or train again"
            ) from None
        if number > FORMAT:
            raise RunError(
                f"the run `{self.path}` has format {number}, and this version reads up to format {FORMAT}; update with `pip install -U unrolled`"
            )
        if number < FORMAT and number not in MIGRATIONS:
            raise RunError(f"the run `{self.path}` has format {number}, which no version of unrolled wrote; restore its `run.json`")
        while number < FORMAT:
            facts, number = MIGRATIONS[number](facts), number + 1
        return facts

    def fact(self, key: str) -> Any:
        """One of the facts that every run has.

        Args:
            key: such as `data`.

        Returns:
            What `run.json` says.

        Raises:
            RunError: it says nothing of this.
        """
        facts = self.facts()
        if key not in facts:
            raise RunError(f"`{self.facts_file}` must have `{key}`, but it is missing; restore the file or train again")
        return facts[key]

    def check_task(self, task: str) -> None:
        """Refuse a run of another task.

        Args:
            task: the one that is wanted.

        Raises:
            RunError: there is no run, or it is of another task.
        """
        found = self.facts().get("task")
        if found != task:
            verb = "fit" if task in FITTED else "train"
            raise RunError(f"`{self.path}` must be a run of `unrolled {verb} {task}`, and it is of the task `{found}`")

    def status(self) -> str:
        """How the run stands: `running`, `finished`, `stopped`, `failed`, or `interrupted` when it was killed.

        Returns:
            One word.
        """
        status = str(self.facts().get("status"))
        return "interrupted" if status == "running" and not is_held(self.lock) else status

    def sweep(self) -> None:
        """Remove what a kill left half-written."""
        remove_unfinished(self.path)

    def remove(self) -> None:
        """Remove the run with all that it holds."""
        shutil.rmtree(self.path, ignore_errors=True)

    def in_use(self) -> contextlib.AbstractContextManager[None]:
        """Keep every other training away from this folder.

        Returns:
            A context that holds the folder's lock.
        """
        return hold(self.lock, f"the run `{self.path}` is being trained by another process; wait for it, or stop it")

    def write_facts(self, facts: dict[str, Any]) -> None:
        """Write `run.json`.

        Args:
            facts: what it shall say.
        """
        write_json(self.facts_file, facts)

    def update_facts(self, **changes: Any) -> None:
        """Change some of `run.json`.

        Args:
            changes: new values by key.
        """
        self.write_facts({**self.facts(), **changes})

    def write_config(self, settings: Settings) -> None:
        """Write the resolved configuration.

        Args:
            settings: of the run.
        """
        write_text(self.config, write_toml(settings))

    def read_config(self) -> dict[str, Any]:
        """The resolved configuration as it was written.

        Returns:
            Nested values.
        """
        return read_toml(self.config)

    def metric_lines(self) -> list[dict[str, Any]]:
        """The lines of the metrics file.

        Returns:
            One object a line.
        """
        return read_lines(self.metrics)

    def relative(self, file: Path) -> str:
        """A path as it is kept in the run: seen from the run folder.

        Args:
            file: any.

        Returns:
            A relative path with `/`.
        """
        return Path(os.path.relpath(file.resolve(), self.path.resolve())).as_posix()

    def resolve(self, relative: str) -> Path:
        """The inverse of `relative`.

        Args:
            relative: as kept in the run.

        Returns:
            A path that can be opened from here.
        """
        return (self.path.resolve() / relative).resolve()


def user_cache() -> Path:
    """Where what can be made again is kept for all runs of a person.

    Returns:
        A folder that may not be there yet.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unrolled"


@contextlib.contextmanager
def new_run(out: Path) -> Iterator[RunFolder]:
    """A folder that appears at `out` only once all of its set-up has worked; nothing is left behind when it has not.

    Args:
        out: where the run shall stand.

    Yields:
        A run folder under a temporary name beside it.

    Raises:
        RunError: something stands there already.
    """
    refuse_existing(out)
    sweep(out)
    hidden = out.parent / f"{TEMPORARY_PREFIX}{out.name}-{secrets.token_hex(4)}"
    with no_parents_left(out):
        try:
            with explain_disk_errors(out):
                hidden.mkdir(parents=True)
            folder = RunFolder(hidden)
            with folder.in_use():
                yield folder
            refuse_existing(out)
            with explain_disk_errors(out):
                os.rename(hidden, out)
        except BaseException:
            shutil.rmtree(hidden, ignore_errors=True)
            raise


@contextlib.contextmanager
def no_parents_left(out: Path) -> Iterator[None]:
    """Folders above a place that were not there before go again after an error, where they are empty.

    Args:
        out: where a run shall stand.

    Yields:
        Nothing.

    Raises:
        BaseException: the error, as it came.
    """
    made = [parent for parent in (out.parent, *out.parent.parents) if not parent.exists()]
    try:
        yield
    except BaseException:
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise


def sweep(out: Path) -> None:
    """Remove what a kill during an earlier set-up left beside `out`; what another process is still at is locked, and stays.

    Args:
        out: where a run shall stand.
    """
    for left in out.parent.glob(f"{TEMPORARY_PREFIX}*"):
        lock = RunFolder(left).lock
        if lock.exists() and not is_held(lock):
            shutil.rmtree(left, ignore_errors=True)


def refuse_existing(out: Path) -> None:
    """Refuse a place that is taken.

    Args:
        out: where a run shall stand.

    Raises:
        RunError: something stands there already.
    """
    if not out.exists():
        return
    if (out / "run.json").exists():
        raise RunError(f"the run `{out}` exists already; continue it with `--resume --out {out}` or choose another folder with `--out`")
    raise RunError(f"`{out}` exists already and is not a run; choose another folder with `--out`")


def free_name(parent: Path, stem: str) -> Path:
    """The first place `STEM-1`, `STEM-2`, … that is free.

    Args:
        parent: the folder of runs.
        stem: how names begin.

    Returns:
        A path where nothing stands.
    """
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "run"
    number = 1
    while (parent / f"{stem}-{number}").exists():
        number += 1
    return parent / f"{stem}-{number}"


def list_runs(parent: Path) -> list[RunFolder]:
    """The runs below a folder, by name.

    Args:
        parent: usually `runs`.

    Returns:
        Folders that hold a `run.json`.
    """
    if not parent.is_dir():
        return []
    return [RunFolder(path.parent) for path in sorted(parent.glob("*/run.json")) if not path.parent.name.startswith(TEMPORARY_PREFIX)]


def truncate_lines(path: Path, size: int) -> None:
    """Cut a JSON-lines file back to what it held at a checkpoint.

    Args:
        path: the file; may be missing when `size` is 0.
        size: bytes to keep.

    Raises:
        RunError: the file is shorter than it was.
    """
    if not path.exists() and size == 0:
        return
    if not path.exists() or path.stat().st_size < size:
        raise RunError(
            f"`{path}` must still hold the {size} bytes it had at the checkpoint, but lines are missing; restore the file to resume"
        )
    os.truncate(path, size)


def first_facts(task: str, name: str) -> dict[str, Any]:
    """What every `run.json` begins with.

    Args:
        task: `lm`, …
        name: of the run.

    Returns:
        Format, task, name, time and versions.
    """
    versions = {package: version(package) for package in ("unrolled", "torch", "numpy", "tokenizers", "safetensors")}
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"format": FORMAT, "task": task, "name": name, "created": created, "status": "running", "versions": versions}
