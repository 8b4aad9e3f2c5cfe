"""How verbs speak: figures on standard output, everything else on standard error."""

from __future__ import annotations

import json
import math
import os
import time
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Column, Table

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
    ("log_likelihood", "log-likelihood {:,.4f}"),
    ("loss", "loss {:.4f}"),
    ("perplexity", "perplexity {:.2f}"),
    ("bits_per_character", "bits/character {:.3f}"),
    ("word_perplexity", "word perplexity {:.4g}"),
    ("bleu", "BLEU {:.1f}"),
    ("chrf", "chrF {:.1f}"),
    ("token_accuracy", "token accuracy {:.1f} %"),
    ("exact_match", "exact match {:.1f} %"),
    ("wer", "WER {:.1f} %"),
    ("accuracy", "accuracy {:.2f} %"),
    ("f1", "F1 {:.2f} %"),
    ("precision", "precision {:.2f} %"),
    ("recall", "recall {:.2f} %"),
    ("macro_f1", "macro F1 {:.2f} %"),
    ("micro_f1", "micro F1 {:.2f} %"),
    ("mse", "MSE {:.4f}"),
    ("mae", "MAE {:.4f}"),
    ("coverage", "inside the 80 % band {:.1f} %"),
)
"""Figures in the order in which they are said; a task has some of them."""
IN_PASSING = ("word_perplexity", "chrf", "exact_match", "wer", "precision", "recall", "micro_f1")
"""Said at the end, not at every evaluation of a training."""


def figures(record: dict[str, Any], *, whole: bool = False) -> str:
    """An evaluation in one line.

    Args:
        record: as in the metrics file.
        whole: say all of it.

    Returns:
        Loss, perplexity and what else the task measures.
    """
    forms = dict(FIGURES)
    # Where there are labels, their scores choose the weights: they come before the loss.
    names = [name for name in forms if name != "loss"] + ["loss"] if record.get("accuracy") is not None else list(forms)
    said = (name for name in names if record.get(name) is not None and (whole or name not in IN_PASSING))
    return "  ".join(forms[name].format(record[name]) for name in said)


MOST_SCORED = 60
"""Rows of a table of scores on a terminal."""


def print_scores(kind: str, scores: dict[str, list[float]]) -> None:
    """Precision, recall and F1 of each label as a table.

    Args:
        kind: what the rows are.
        scores: precision, recall, F1 in percent, and how many there are.
    """
    table = Table(kind, *(Column(name, justify="right") for name in ("precision", "recall", "F1", "number")), box=None, pad_edge=False)
    kept = sorted(scores, key=lambda name: -scores[name][3])[:MOST_SCORED]
    for name, (precision, recall, f1, count) in scores.items():
        if name in kept:
            table.add_row(escape(name), f"{precision:.1f}", f"{recall:.1f}", f"{f1:.1f}", f"{count:,}")
    console = Console(highlight=False)
    console.print(table)
    if len(scores) > len(kept):
        console.print(f"and {len(scores) - len(kept):,} rarer ones, which --json has")


def print_errors(errors: dict[str, list[float]]) -> None:
    """Squared and absolute errors of several forecasts as a table, the lowest first.

    Args:
        errors: by the name of what forecast.
    """
    table = Table("forecast", Column("MSE", justify="right"), Column("MAE", justify="right"), box=None, pad_edge=False)
    for name, (squared, absolute) in sorted(errors.items(), key=lambda one: one[1][0]):
        table.add_row(escape(name), f"{squared:.4f}", f"{absolute:.4f}")
    Console(highlight=False).print(table)


MOST_CONFUSED = 12
"""A larger table than this does not fit a terminal: then only the commonest mistakes are said."""


def print_confusion(names: list[str], confusion: list[list[int]]) -> None:
    """Which label was taken for which.

    Args:
        names: of the labels.
        confusion: counts, a row for the right label, a column for the one given.
    """
    console = Console(highlight=False)
    if len(names) <= MOST_CONFUSED:
        table = Table("is ↓  taken for →", *(Column(escape(name), justify="right") for name in names), box=None, pad_edge=False)
        for name, row in zip(names, confusion, strict=True):
            table.add_row(escape(name), *(f"{count:,}" if count else "·" for count in row))
        console.print(table)
        return
    wrong = [(count, names[i], names[j]) for i, row in enumerate(confusion) for j, count in enumerate(row) if i != j and count]
    for count, right, given in sorted(wrong, reverse=True)[:MOST_CONFUSED]:
        console.print(f"{right} taken for {given}: {count:,}", markup=False)


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
        self.task = self.bar.add_task("training", total=1.0, note="reading")

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
        self.bar.update(self.task, note="")
        if "vocabulary" in data:
            read = (
                f"{data['train_tokens']:,} symbols to train on ({data['vocabulary']:,} different), {data['valid_tokens']:,} to validate on"
            )
        else:
            read = (
                f"{data['train_windows']:,} windows to train on, {data['valid_windows']:,} to validate on: "
                f"{data['lookback']:,} points of the past, {data['horizon']:,} of the future"
            )
        self.console.print(
            f"{facts['parameters']:,} parameters, {read}",
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
