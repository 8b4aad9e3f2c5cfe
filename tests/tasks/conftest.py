"""A small text and a small model that train in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

TINY: dict[str, Any] = {
    "model": {"hidden_size": 16, "embedding_size": 8, "output_dropout": 0.1, "input_dropout": 0.1},
    "train": {
        "steps": 12,
        "batch_size": 4,
        "window": 8,
        "evaluations": 3,
        "evaluation_batch_size": 4,
        "log_every": 2,
        "precision": "fp32",
        "threads": 1,
    },
    "samples": {"length": 20},
}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog\nand runs away from it\n" * 30)
    return path


@pytest.fixture
def tiny() -> dict[str, Any]:
    return {group: dict(options) for group, options in TINY.items()}
