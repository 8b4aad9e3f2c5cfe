"""Numbers and settings as a person reads them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from unrolled.report.reading import Record, RunData, number, table

NOTHING = "–"
SHOWN_SAMPLES = 5
"""Stages shown at first sight; all others are folded away."""


MEASURES = (
    ("loss", "loss", 4),
    ("perplexity", "perplexity", 3),
    ("bits_per_character", "bits/char.", 4),
    ("token_accuracy", "token accuracy %", 1),
    ("bleu", "BLEU", 1),
    ("accuracy", "accuracy %", 2),
    ("f1", "F1 %", 2),
    ("macro_f1", "macro F1 %", 2),
    ("micro_f1", "micro F1 %", 2),
    ("mse", "MSE", 4),
    ("mae", "MAE", 4),
)
"""What an evaluation may have measured: its key, what it is called, and its decimals."""


class Figure(NamedTuple):
    """A number at the head of the page."""

    name: str
    value: str
    note: str


class Stage(NamedTuple):
    """A sample at a stage of training."""

    heading: str
    facts: tuple[str, ...]
    prompt: str
    text: str
    shown: bool


def decimal(value: float | None, digits: int = 3) -> str:
    """A number with a fixed number of decimals.

    Args:
        value: `None` where there is none.
        digits: after the point.

    Returns:
        `1,234.500`; very large numbers in powers of ten.
    """
    if value is None:
        return NOTHING
    return f"{value:,.{digits}f}" if abs(value) < 1e6 else f"{value:.{digits}e}"


def chance(value: float | None, digits: int = 4) -> str:
    """A probability, of which also a small one shall be seen.

    Args:
        value: `None` where there is none.
        digits: after the point.

    Returns:
        `0.1234`, or `1.7e-07`.
    """
    return f"{value:.1e}" if value and value < 0.5 * 10**-digits else decimal(value, digits)


def count(value: float | None) -> str:
    """A whole number, shortened from a million on.

    Args:
        value: `None` where there is none.

    Returns:
        `12,300` or `4.56 M`.
    """
    if value is None:
        return NOTHING
    for size, name in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:.3g} {name}" if abs(value) < 1e12 else f"{value:.3g}"
    return f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """A time in the two largest units that matter.

    Args:
        seconds: `None` where there is none.

    Returns:
        `12.3 s`, `3 min 5 s`, `2 h 4 min`.
    """
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def moment(text: Any) -> str:
    """A time of day from its ISO form.

    Args:
        text: of `run.json`.

    Returns:
        `21 November 2026, 07:13`, or the text as it was.
    """
    try:
        return f"{datetime.fromisoformat(text):%-d %B %Y, %H:%M}"
    except (TypeError, ValueError):
        return "" if text is None else str(text)


def unit(run: RunData) -> str:
    """What a loss is the mean over.

    Args:
        run: what was read.

    Returns:
        Such as `token`.
    """
    return str(run.facts.get("unit") or "token")


def best(valid: list[Record]) -> Record | None:
    """The evaluation of the lowest criterion, or loss where there is none.

    Args:
        valid: evaluations.

    Returns:
        The line, or `None` where no loss is a number.
    """
    scored = [line for line in valid if number(line, "loss") is not None]
    return min(scored, key=_judged, default=None)


def _judged(line: Record) -> float:
    found = number(line, "criterion")
    found = number(line, "loss") if found is None else found
    return 0.0 if found is None else found


def figures(run: RunData) -> list[Figure]:
    """The numbers at the head of the page.

    Args:
        run: what was read.

    Returns:
        Only those that are known.
    """
    lowest = best(run.valid) or {}
    final = next((line for line in reversed(run.valid) if number(line, "loss") is not None), {})
    last = progress(run)
    tokens, seconds = number(last, "tokens"), number(last, "seconds")
    score = judged_by(lowest)
    where = f"at step {count(number(lowest, 'step'))}"
    loss = f"{where if score else f'best, {where}'}; last {decimal(number(final, 'loss'))}"
    found = [
        *([Figure(f"validation {score[1]}", f"{decimal(number(lowest, score[0]), 1)} %", f"best, {where}")] if score else []),
        Figure("validation loss", decimal(number(lowest, "loss")), loss),
        Figure("perplexity", decimal(number(lowest, "perplexity"), 2), "per token"),
        Figure("bits per character", decimal(number(lowest, "bits_per_character")), "validation text"),
        Figure("BLEU", decimal(number(lowest, "bleu"), 1), "validation sentences, greedy"),
        Figure("token accuracy", decimal(number(lowest, "token_accuracy"), 1), "%, given the true symbols before"),
        Figure(f"{unit(run)}s seen", count(tokens), f"in {count(number(last, 'step'))} steps"),
        Figure("training time", duration(seconds), "evaluation left out"),
        Figure("speed", count(speed(run)), f"{unit(run)}s a second"),
        Figure("parameters", count(number(run.facts, "parameters")), ""),
    ]
    return [figure for figure in found if figure.value != NOTHING]


PERCENT = ("accuracy", "f1", "macro_f1")


def judged_by(line: Record) -> tuple[str, str] | None:
    """The score by which an evaluation is the best, where it is not the loss.

    Args:
        line: an evaluation.

    Returns:
        Its key and its name.
    """
    if number(line, "criterion") is None:
        return None
    return next(((key, name) for key, name in (("f1", "F1"), ("accuracy", "accuracy")) if number(line, key) is not None), None)


def progress(run: RunData) -> Record:
    """The line that lies furthest in training.

    Args:
        run: what was read.

    Returns:
        A line of metrics, empty where there is none.
    """
    lines = [*run.train, *run.valid]
    return max(lines, key=lambda line: number(line, "step") or 0.0, default={})


def speed(run: RunData) -> float | None:
    """Tokens a second over the whole training.

    Args:
        run: what was read.

    Returns:
        The average, `None` where it is not known.
    """
    last = progress(run)
    tokens, seconds = number(last, "tokens"), number(last, "seconds")
    return tokens / seconds if tokens and seconds else None


def summary(run: RunData) -> str:
    """The run in one sentence.

    Args:
        run: what was read.

    Returns:
        A sentence, whatever is known.
    """
    lowest, last = best(run.valid), progress(run)
    seen = f"{count(number(last, 'tokens'))} {unit(run)}s in {duration(number(last, 'seconds'))}"
    average = speed(run)
    if average is not None:
        seen += f", {count(average)} a second"
    if lowest is None:
        return f"Trained on {seen}; not yet evaluated." if last else "Training has just begun: nothing is measured yet."
    score = judged_by(lowest)
    told = [f"Best validation loss {decimal(number(lowest, 'loss'))}"]
    if score:
        told = [f"Best validation {score[1]} {decimal(number(lowest, score[0]), 1)} %", f"loss {decimal(number(lowest, 'loss'))}"]
    if number(lowest, "perplexity") is not None:
        told.append(f"perplexity {decimal(number(lowest, 'perplexity'), 2)}")
    if number(lowest, "bits_per_character") is not None:
        told.append(f"{decimal(number(lowest, 'bits_per_character'))} bits per character")
    for key, name in (("bleu", "BLEU"), ("accuracy", "accuracy"), ("f1", "F1"), ("macro_f1", "macro F1"), ("mse", "MSE")):
        if number(lowest, key) is not None and not (score and key == score[0]):
            percent = " %" if key in PERCENT else ""
            told.append(f"{name} {decimal(number(lowest, key), 3 if key == 'mse' else 1)}{percent}")
    return f"{', '.join(told)}, after {seen}."


def measures(run: RunData) -> list[str]:
    """The heads of the columns of `evaluations`.

    Args:
        run: what was read.

    Returns:
        What was measured at all.
    """
    return ["step", "time", f"{unit(run)}s", *(name for key, name, _ in MEASURES if _measured(run, key))]


def evaluations(run: RunData) -> list[tuple[str, ...]]:
    """The evaluations as rows of a table.

    Args:
        run: what was read.

    Returns:
        Step, time, tokens, and what was measured.
    """
    kept = [(key, digits) for key, _, digits in MEASURES if _measured(run, key)]
    return [
        (
            count(number(line, "step")),
            duration(number(line, "seconds")),
            count(number(line, "tokens")),
            *(decimal(number(line, key), digits) for key, digits in kept),
        )
        for line in run.valid
    ]


def _measured(run: RunData, key: str) -> bool:
    return any(number(line, key) is not None for line in run.valid)


def stages(samples: list[Record]) -> list[Stage]:
    """Samples under their headings; an even choice of them, the first and last included, is shown at first sight.

    Args:
        samples: lines of the samples file.

    Returns:
        One stage a line.
    """
    last = len(samples) - 1
    shown = {round(i * last / (SHOWN_SAMPLES - 1)) for i in range(SHOWN_SAMPLES)}
    return [_stage(i, line, i in shown) for i, line in enumerate(samples)]


def _stage(place: int, line: Record, shown: bool) -> Stage:
    prompt, text = str(line.get("prompt") or ""), str(line.get("text") or "")
    share = number(line, "share")
    facts = [
        f"step {count(number(line, 'step'))}",
        "" if share is None else f"{share:.0%} of training",
        duration(number(line, "seconds")),
        f"validation loss {decimal(number(line, 'loss'))}",
    ]
    told = tuple(fact for fact in facts if fact and not fact.endswith(NOTHING))
    return Stage("after more training …" if place else "at first …", told, prompt, text.removeprefix(prompt), shown)


def settings(record: Record, prefix: str = "") -> Iterator[tuple[str, str]]:
    """A nested table as rows.

    Args:
        record: tables in tables.
        prefix: put before every key.

    Yields:
        Dotted key and value.
    """
    for key, value in record.items():
        if isinstance(value, dict):
            yield from settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", setting(value)


def setting(value: Any) -> str:
    """A value of a table.

    Args:
        value: what TOML and JSON know.

    Returns:
        As a person writes it.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(setting, value)) or "none"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 100_000 else str(value)
    return NOTHING if value is None or value == "" else str(value)


def tables(run: RunData) -> list[tuple[str, list[tuple[str, str]]]]:
    """The tables at the foot of the page.

    Args:
        run: what was read.

    Returns:
        Heading and rows; empty tables are left out.
    """
    flat = {key: value for key, value in run.configuration.items() if not isinstance(value, dict)}
    groups = {key: value for key, value in run.configuration.items() if isinstance(value, dict)}
    found = [("general", flat), *groups.items()]
    rows = [(f"configuration: {name}", list(settings(group))) for name, group in found]
    rows += [(name, list(settings(table(run.facts, name)))) for name in ("data", "machine", "versions")]
    return [(heading, lines) for heading, lines in rows if lines]
