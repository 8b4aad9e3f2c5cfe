"""A run folder as a training leaves it, with figures that look like tiny Shakespeare."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

AT_FIRST = "aN;rCkPmT\nw!qd zKJ3 uo-Vf,hx'iB?Ye tl\n\nRgWs&. Mn eLcjA$b QyZpX F:HoSvDa UtIEGO"
HALF_WAY = """
And the be the so mand thou the fare hard to the serves,
Whan your the lord, and be with the sount of hear.

GLOUCER:
I shall thee the part of stand?"""
LATE = """
Whose honour to the grave I would have been:
The king hath sent to thee, and bid thee come.

KING RICHARD II:
Good cousin, let me speak: what says the duke?

BUCKINGHAM:
My gracious lord, the people are not pleased,
And in the streets they talk of nothing else."""
CONFIGURATION = """
[data]
tokens = "characters"
valid_share = 0.1

[model]
cell = "lstm"
hidden_size = 512
layers = 1
embedding_size = 64
tied = false

[train]
minutes = 3.0
batch_size = 32
window = 128
learning_rate = 0.002
betas = [0.9, 0.99]
optimizer = "adamw"
schedule = "cosine"
clip_norm = 1.0
seed = 0

[samples]
prompt = "From fairest"
length = 240
"""


def facts(**changes: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "format": 1,
        "task": "lm",
        "name": "tiny-shakespeare",
        "created": "2026-11-21T07:13:00+00:00",
        "versions": {"unrolled": "0.1.0", "python": "3.11.7", "torch": "2.13.0+cpu"},
        "machine": {"threads": 2, "device": "cpu", "precision": "fp32", "processor": "AMD EPYC 9B14"},
        "parameters": 1_216_577,
        "data": {
            "files": ["../../data/input.txt"],
            "tokens": 1_115_394,
            "train_tokens": 1_003_855,
            "valid_tokens": 111_539,
            "vocabulary": 65,
        },
        "status": "finished",
    }
    return known | changes


def metric_lines(steps: int = 2000, every: int = 4, evaluations: int = 12) -> list[dict[str, Any]]:
    chance, lines = random.Random(0), []
    for step in range(every, steps + 1, every):
        share = step / steps
        true = 1.28 + 2.9 * math.exp(-step / 60) + 0.65 * math.exp(-step / 500)
        where = {"step": step, "epoch": step * 4096 / 1e6, "tokens": step * 4096, "seconds": 0.09 * step}
        lines.append(
            {
                "kind": "train",
                **where,
                "loss": true + chance.gauss(0, 0.035),
                "gradient_norm": abs(chance.gauss(0.55, 0.12)) + 2 * math.exp(-step / 40),
                "clipped": 0.02,
                "learning_rate": 0.002 * min(1, share / 0.05) * (0.5 + 0.5 * math.cos(math.pi * share)),
                "tokens_per_second": chance.gauss(45_000, 900),
            }
        )
        if (step // every) % (steps // every // evaluations) == 0:
            loss = true + 0.13 + 0.05 * share
            lines.append({"kind": "valid", **where, "loss": loss, "perplexity": math.exp(loss), "bits_per_character": loss / math.log(2)})
    return lines


def sample_lines(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    valid = [line for line in lines if line["kind"] == "valid"]
    found = []
    for n, line in enumerate(valid):
        text = AT_FIRST if n == 0 else HALF_WAY if n < len(valid) // 2 else LATE
        found.append(
            {
                "step": line["step"],
                "share": line["step"] / lines[-1]["step"],
                "seconds": line["seconds"],
                "loss": line["loss"],
                "prompt": "From fairest",
                "text": "From fairest" + text,
            }
        )
    return found


def make_run(folder: Path, **changes: Any) -> Path:
    """Write a whole run folder; `changes` go into `run.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = metric_lines()
    (folder / "run.json").write_text(json.dumps(facts(**changes)))
    (folder / "config.toml").write_text(CONFIGURATION)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in sample_lines(lines)))
    return folder
