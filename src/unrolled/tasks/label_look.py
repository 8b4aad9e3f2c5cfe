"""What a tagger, a classifier or a masked language model made of one text, and which words that came from, as a trace that `report` can draw.

What is explained is always a log-odds, `log P / (1 - P)` in nats: it does not saturate as a probability does, and, unlike a logit, it means
the same whatever the other labels score. Under a CRF `P` is the marginal of the word's label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.core.padded import Padded
from unrolled.core.settings import Group, Settings, resolve
from unrolled.data.unit_corpus import UnitBatch, UnitCorpus
from unrolled.data.units import UNKNOWN, Units, WordUnits
from unrolled.lens.attribution import Score, gradient_times_input, integrated_gradients, sum_type
from unrolled.models.text_encoder import TextEncoder
from unrolled.nn.crf import CRF
from unrolled.tasks.text_run import TextRun

FORMAT = 1
LONGEST = 1000
"""Units of the longest text that is drawn: what nobody could look over is not worth its minutes."""
WORK = 400_000
"""Units that are read for one page where nothing is said; it bounds how many labels are explained, not how well."""
CERTAIN = 1e20
"""The log-odds of a label are beyond it where no other label is allowed."""
FORBIDDEN = -1e30


class LookSettings(Settings):
    """How labels are explained."""

    steps: int = Field(32, ge=1, le=1000)
    """Points on the path of integrated gradients; more make the gap smaller."""
    baseline: Literal["zero", "unknown"] = "zero"
    """What stands for no word: the zero vector, or the vector of an unknown word without any character."""
    explained: int | None = Field(None, ge=1)
    """At most so many labels are explained, those of spans and the least certain ones first; when `none`, as many as take less than about a minute."""


class ClassificationLook(LookSettings):
    """How the labels of a text are explained."""


class TaggingLook(LookSettings):
    """How the labels of words are explained."""

    n_best: int | None = Field(None, ge=1, le=100)
    """Sequences of labels that are shown; 5 with a CRF when `none`."""


class MaskedLook(LookSettings):
    """How guesses of hidden words are explained."""

    guesses: int = Field(8, ge=1, le=100)
    """Guesses that are shown for each place."""


class Question(NamedTuple):
    """What is to be explained."""

    score: Score
    """Of one target a row, from the vectors of units."""
    vectors: Float[Tensor, "targets time features"]
    words: Int[Tensor, " time"]
    """The word on the page that each unit is part of."""


def look_settings(group: type[Group], task: str, changes: dict[str, Any]) -> Group:
    """Check the wishes for a page.

    Args:
        group: of the task.
        task: its name.
        changes: what differs from the defaults.

    Returns:
        The full settings.

    Raises:
        ConfigurationError: an option that the task has not, or a value that cannot be.
    """
    for name in changes:
        if name not in group.model_fields:
            known = ", ".join(f"`{option}`" for option in sorted(group.model_fields))
            raise ConfigurationError(f"`{name}` is no option of looking into a run of the task `{task}`; its options are {known}")
    return resolve(group, changes)


def read_units(run: TextRun, text: str | Sequence[str]) -> UnitCorpus:
    """The units of one text.

    Args:
        run: a trained model.
        text: whole, or words.

    Returns:
        A corpus of one text.
    """
    corpus = run.held.units.encode([text])
    check_length(int(corpus.lengths[0]))
    return corpus


def check_length(units: int) -> None:
    """Refuse what cannot be drawn.

    Args:
        units: of the text.

    Raises:
        DataError: none, or too many.
    """
    if not units:
        raise DataError("there must be a text to look at, got one without any word; try some words in quotes")
    if units > LONGEST:
        raise DataError(f"a text to look at must have at most {LONGEST:,} units, got {units:,}; try a part of it")


def how_many(settings: LookSettings, time: int, there: int) -> int:
    """How many targets are explained.

    Args:
        settings: of the page.
        time: units of the text.
        there: targets that could be.

    Returns:
        At least one, where there is one.
    """
    wanted = max(1, WORK // (settings.steps * max(time, 1))) if settings.explained is None else settings.explained
    return min(wanted, there)


def explain(run: TextRun, settings: LookSettings, question: Question) -> list[dict[str, Any]]:
    """Share the scores of targets out among words.

    Args:
        run: a trained model.
        settings: of the page.
        question: what is to be explained.

    Returns:
        For each target its score, the baseline's, the gap, and the contributions of words by either method.
    """
    vectors = question.vectors
    baseline = no_words(run.model.text, run.held.units, settings.baseline).expand_as(vectors)
    whole = integrated_gradients(question.score, vectors, baseline, steps=settings.steps)
    first = gradient_times_input(question.score, vectors, baseline)
    count = int(question.words.max()) + 1

    def by_word(contributions: Tensor) -> list[list[float]]:
        found = contributions.new_zeros(len(contributions), count).index_add(1, question.words.to(contributions.device), contributions)
        rows: list[list[float]] = found.tolist()
        return rows

    parts = zip(
        whole.scores.tolist(),
        whole.baselines.tolist(),
        whole.gaps.tolist(),
        by_word(whole.contributions),
        by_word(first.contributions),
        strict=True,
    )
    names = ("score", "baseline_score", "gap", "integrated_gradients", "gradient_times_input")
    return [dict(zip(names, values, strict=True)) for values in parts]


def no_words(text: TextEncoder, units: Units, kind: str) -> Float[Tensor, " features"]:
    """What stands for no word.

    Args:
        text: makes the vectors.
        units: of the run.
        kind: `zero` or `unknown`.

    Returns:
        A vector.

    Raises:
        ConfigurationError: there is no unknown word where units are not words.
    """
    one = torch.ones(1, dtype=torch.long)
    nothing = Padded(torch.zeros(1, 0, dtype=torch.long), one - 1)
    spelling = None if units.characters is None else Padded(torch.zeros(1, 1, dtype=torch.long), one - 1)
    batch = UnitBatch(Padded(torch.zeros(1, 1, dtype=torch.long), one), torch.full((1,), UNKNOWN), spelling, nothing)
    with torch.no_grad():
        vector: Tensor = text.embed(batch.to(text.device)).data[0, 0]
    if kind == "zero":
        return torch.zeros_like(vector)
    if not isinstance(units, WordUnits):
        raise ConfigurationError("`baseline=unknown` needs units that are words, and those of this run are pieces of them; try `zero`")
    return vector


def log_odds(logits: Float[Tensor, "rows labels"], targets: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """`log P / (1 - P)` of one label a row under a soft-max.

    Args:
        logits: of all labels.
        targets: the label of each row.

    Returns:
        In nats.
    """
    chosen = torch.nn.functional.one_hot(targets, logits.shape[1]).bool()
    logits = logits.to(sum_type(logits))
    return logits[chosen] - logits.masked_fill(chosen, FORBIDDEN).logsumexp(1)


def marginal_log_odds(crf: CRF, emissions: Padded, places: Int[Tensor, " rows"], labels: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """`log P / (1 - P)` of the marginal of one label at one place a row: the sum over the paths through it, against that over all others.

    Args:
        crf: of the tagger.
        emissions: logits `[rows, words, labels]`.
        places: of each row.
        labels: of each row.

    Returns:
        In nats.
    """
    chosen = torch.nn.functional.one_hot(labels, emissions.data.shape[2]).bool()
    here = torch.nn.functional.one_hot(places, emissions.data.shape[1]).bool().unsqueeze(2)
    scores = emissions.data.to(sum_type(emissions.data))
    through = crf.log_partition(Padded(scores.masked_fill(here & ~chosen.unsqueeze(1), FORBIDDEN), emissions.lengths))
    beside = crf.log_partition(Padded(scores.masked_fill(here & chosen.unsqueeze(1), FORBIDDEN), emissions.lengths))
    return through - beside


def repeated(vectors: Tensor, rows: int) -> Padded:
    """One text as several rows.

    Args:
        vectors: `[rows, time, features]`, without padding.
        rows: how many.

    Returns:
        The same with lengths.
    """
    return Padded(vectors, torch.full((rows,), vectors.shape[1], device=vectors.device))


def frame(run: TextRun, text: str, settings: LookSettings, time: int, explained: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the traces of all tasks have.

    Args:
        run: a trained model.
        text: as it was given.
        settings: of the page.
        time: units of the text.
        explained: what was explained.

    Returns:
        The frame of a trace, all of whose other keys are empty.
    """
    gap = max((abs(one["gap"]) for one in explained), default=0.0)
    return {
        "format": FORMAT,
        "task": run.task.name,
        "run": str(run.folder.path),
        "text": text,
        "words": [],
        "labels": [],
        "found": [],
        "sequences": [],
        "spans": [],
        "attention": None,
        "explained": list(explained),
        "figures": {"units": time, "steps": settings.steps, "baseline": settings.baseline, "largest_gap": gap},
    }


def likeliest(probabilities: Float[Tensor, " labels"], names: Sequence[str], most: int) -> list[dict[str, Any]]:
    """The likeliest labels.

    Args:
        probabilities: of all.
        names: of all.
        most: how many.

    Returns:
        Names and probabilities, falling.
    """
    values, places = probabilities.float().topk(min(most, len(probabilities)))
    return [{"name": names[i], "probability": value} for value, i in zip(values.tolist(), places.tolist(), strict=True)]
