"""Trainings by the program itself, as a person starts them, and the rows that earlier ones left."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from machine import RESULTS, describe_machine

PROGRAM = str(Path(sys.executable).with_name("unrolled"))


def unrolled(*words: str, **kwargs: Any) -> str:
    """What the program prints."""
    return subprocess.run([PROGRAM, *words], check=True, stdout=subprocess.PIPE, text=True, **kwargs).stdout


def rows_of(name: str) -> list[dict[str, Any]]:
    """The rows of earlier runs."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []


def train(task: str, files: dict[str, list[str]], run: Path, options: list[str]) -> dict[str, Any]:
    """Train a model where the folder is not there yet, and describe the run."""
    if not run.exists():
        valid = ["--valid", *files["valid"]] if "valid" in files else []
        unrolled("train", task, *files["train"], *valid, "--out", str(run), "--json", *options)
    shown = json.loads(unrolled("show", str(run), "--json"))
    return {
        "machine": describe_machine(),
        "parameters": shown["parameters"],
        "steps": shown["result"]["steps"],
        "seconds": round(shown["result"]["seconds"], 1),
        "tokens_per_second": round(shown["result"]["tokens"] / shown["result"]["seconds"]),
        "config": shown["config"],
    }


def score(run: Path, files: list[str], *options: str) -> dict[str, Any]:
    """What `unrolled eval` finds."""
    found = json.loads(unrolled("eval", str(run), *files, *options, "--json"))
    found.pop("run")
    return found
