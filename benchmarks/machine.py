"""What every result says about where it was measured."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from unrolled.train.precision import has_native_bf16, processor_name

RESULTS = Path(__file__).parent / "results"


def describe_machine(device: str = "cpu") -> dict[str, Any]:
    """Processor, threads and versions."""
    place = torch.device(device)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor_name(place),
        "native_bf16": has_native_bf16(place),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "unrolled": version("unrolled"),
    }


def write_result(name: str, result: dict[str, Any]) -> None:
    """Keep a result beside the others."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
