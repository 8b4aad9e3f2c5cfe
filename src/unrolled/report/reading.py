"""Reads what a run folder holds so far; whatever is missing or broken is left out and said, never an error."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Record = dict[str, Any]
Value = TypeVar("Value")


@dataclass(frozen=True)
class RunData:
    """The files of a run folder, as far as they can be read."""

    folder: Path
    facts: Record
    """`run.json`."""
    configuration: Record
    """`config.toml`."""
    train: list[Record]
    valid: list[Record]
    """The two kinds of lines of `metrics.jsonl`, in the order of the file."""
    samples: list[Record]
    """`samples.jsonl`."""
    missing: list[str]
    """One sentence for each thing that is not there."""


def read_run(folder: Path) -> RunData:
    """Read a run folder.

    Args:
        folder: holds some of `run.json`, `config.toml`, `metrics.jsonl`, `samples.jsonl`.

    Returns:
        What could be read.
    """
    missing: list[str] = []
    nothing: Record = {}
    no_lines: list[Record] = []
    facts = _read(folder / "run.json", _json_object, nothing, missing)
    configuration = _read(folder / "config.toml", tomllib.loads, nothing, missing)
    metrics = _read(folder / "metrics.jsonl", _json_lines, no_lines, missing)
    samples = _read(folder / "samples.jsonl", _json_lines, no_lines, missing) if draws_samples(facts) else no_lines
    train = [line for line in metrics if line.get("kind") == "train"]
    valid = [line for line in metrics if line.get("kind") == "valid"]
    return RunData(folder, facts, configuration, train, valid, samples, missing)


def draws_samples(facts: Record) -> bool:
    """Whether a run draws samples at every stage.

    Args:
        facts: of `run.json`.

    Returns:
        True where the run does not say.
    """
    return facts.get("samples") is not False


def number(record: Record, key: str) -> float | None:
    """A finite number of a record.

    Args:
        record: a line of metrics, for instance.
        key: what is asked for.

    Returns:
        The number, or `None` where there is none or it is NaN or infinite.
    """
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def table(record: Record, key: str) -> Record:
    """A table inside a record.

    Args:
        record: `run.json`, for instance.
        key: what is asked for.

    Returns:
        The table, empty where there is none.
    """
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _read(path: Path, parse: Callable[[str], Value], otherwise: Value, missing: list[str]) -> Value:
    try:
        return parse(path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        missing.append(f"`{path.name}` is not there yet.")
    except (OSError, ValueError, RecursionError) as error:
        missing.append(f"`{path.name}` cannot be read ({error}).")
    return otherwise


def _json_object(text: str) -> Record:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")
    return value


def _json_lines(text: str) -> list[Record]:
    """The lines that are whole: a report may be drawn while the last one is being written."""
    records = []
    for line in text.split("\n"):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            records.append(value)
    return records
