"""How verbs speak: figures on standard output, everything else on standard error."""

from __future__ import annotations

import json
import math
import os
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

STAGES = ("at first", "after more training")
"""What is said above the samples of a training."""


def speaks() -> bool:
    """Whether this process talks to the person: under torchrun only the first one does.

    Returns:
        True for a process alone.
    """
    return os.environ.get("RANK", "0") == "0"


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on standard output; what is not a finite number is null there.

    Args:
        value: the object.
    """
    print(json.dumps(finite(value), ensure_ascii=False))


def finite(value: Any) -> Any:
    """The same with `null` for NaN and infinities, which JSON does not have.

    Args:
        value: what `json` can write.

    Returns:
        A value that every JSON reader takes.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return value


def duration(seconds: float) -> str:
    """A time a person reads at a glance.

    Args:
        seconds: a length of time.

    Returns:
        Such as `2:05` or `1:00:00`.
    """
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


FIGURES = (
    ("loss", "loss {:.4f}"),
    ("perplexity", "perplexity {:.2f}"),
    ("bits_per_character", "bits/character {:.3f}"),
    ("word_perplexity", "word perplexity {:.4g}"),
    ("bleu", "BLEU {:.1f}"),
    ("chrf", "chrF {:.1f}"),
    ("token_accuracy", "token accuracy {:.1f} %"),
    ("exact_match", "exact match {:.1f} %"),
    ("wer", "WER {:.1f} %"),
)
"""Figures in the order in which they are said; a task has some of them."""
IN_PASSING = ("word_perplexity", "chrf", "exact_match", "wer")
"""Said at the end, not at every evaluation of a training."""


def figures(record: dict[str, Any], *, whole: bool = False) -> str:
    """An evaluation in one line.

    Args:
        record: as in the metrics file.
        whole: say all of it.

    Returns:
        Loss, perplexity and what else the task measures.
    """
    said = (name for name, _ in FIGURES if record.get(name) is not None and (whole or name not in IN_PASSING))
    forms = dict(FIGURES)
    return "  ".join(forms[name].format(record[name]) for name in said)


class TrainingDisplay:
    """A progress bar with rate and time left on a terminal, plain lines elsewhere."""

    def __init__(self, *, quiet: bool = False, samples: bool = False) -> None:
        self.quiet, self.samples = quiet, samples
        self.console = Console(stderr=True, highlight=False, quiet=quiet)
        self.first_time = time.monotonic()
        self.first_done: float | None = None
        self.first_tokens = 0
        self.shown_samples = 0
        self.bar = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
        )
        self.task = self.bar.add_task("training", total=1.0, note="")

    def __enter__(self) -> TrainingDisplay:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def begun(self, facts: dict[str, Any]) -> None:
        """Say what is trained, on what, and how it computes.

        Args:
            facts: as in `run.json`.
        """
        machine, data = facts["machine"], facts["data"]
        self.console.print(
            f"{facts['parameters']:,} parameters, {data['train_tokens']:,} symbols to train on ({data['vocabulary']:,} different), "
            f"{data['valid_tokens']:,} to validate on",
            markup=False,
            soft_wrap=True,
        )
        self.console.print(
            f"{machine['processor']}, {machine['threads']} thread{'s' * (machine['threads'] != 1)}, {machine['precision']}",
            markup=False,
            soft_wrap=True,
        )

    def advanced(self, done: float, record: dict[str, Any]) -> None:
        """Move the bar.

        Args:
            done: share of the training, 0 to 1.
            record: step, seconds, tokens.
        """
        if self.bar.disable:
            return
        now = time.monotonic()
        if self.first_done is None:
            self.first_done, self.first_time, self.first_tokens = done, now, int(record["tokens"])
            return
        passed, progress = now - self.first_time, done - self.first_done
        left = duration(passed / progress * (1 - done)) if progress > 0 else "?"
        rate = (record["tokens"] - self.first_tokens) / passed
        self.bar.update(self.task, completed=min(done, 1.0), note=f"step {record['step']:,}  {rate:,.0f} symbols/s  {left} left")

    def evaluated(self, record: dict[str, Any]) -> None:
        """Print a line of figures.

        Args:
            record: as in the metrics file.
        """
        self.console.print(
            f"step {record['step']:>6,}  {duration(record['seconds']):>7}  valid {figures(record)}", markup=False, soft_wrap=True
        )

    def noted(self, text: str) -> None:
        """Print a sentence.

        Args:
            text: something a person should know.
        """
        self.console.print(text, markup=False, soft_wrap=True)

    def sampled(self, record: dict[str, Any]) -> None:
        """Print a sample under the stage it belongs to.

        Args:
            record: as in the samples file.
        """
        if not self.samples:
            return
        stage = STAGES[min(self.shown_samples, len(STAGES) - 1)]
        self.shown_samples += 1
        self.console.rule(f"{stage} … (step {record['step']:,}, {record['share']:.0%} of the training)", align="left")
        self.console.print(record["text"].strip("\n"), markup=False, soft_wrap=True)
        self.console.print()
