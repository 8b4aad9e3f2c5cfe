"""The traces of the three tasks that read a text as a whole; `label_look` says what is explained and how."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrolled.core.padded import Padded
from unrolled.data.batches import token_lists
from unrolled.data.label_schemes import Scheme, Span, converted, lenient_spans
from unrolled.data.masking import Masking
from unrolled.data.unit_corpus import UnitBatch, UnitCorpus
from unrolled.data.units import MASK as MASK_ID
from unrolled.data.units import SPECIAL, UNKNOWN
from unrolled.lens.attribution import AT_ONCE
from unrolled.tasks.classification import ClassificationRun
from unrolled.tasks.label_look import (
    CERTAIN,
    ClassificationLook,
    MaskedLook,
    Question,
    TaggingLook,
    check_length,
    explain,
    frame,
    how_many,
    likeliest,
    log_odds,
    look_settings,
    marginal_log_odds,
    read_units,
    repeated,
)
from unrolled.tasks.masked_language_model import MaskedRun
from unrolled.tasks.tagging import TaggingRun

MASK = SPECIAL[MASK_ID]
SHOWN_LABELS = 8
"""Labels of a word that are shown with their probabilities."""


@torch.no_grad()
def trace_classification(run: ClassificationRun, text: str, **changes: Any) -> dict[str, Any]:
    """Label a text and say which of its units the labels came from.

    Args:
        run: a trained classifier.
        text: whole.
        changes: fields of `ClassificationLook` that differ from their defaults.

    Returns:
        A trace for `report.write_look`.
    """
    settings = look_settings(ClassificationLook, run.task.name, changes)
    labels, model = run.held.labels, run.model
    assert labels is not None
    corpus = read_units(run, text)
    vectors = model.text.embed(_only(corpus).to(model.text.device))
    time = vectors.data.shape[1]
    (found,) = run.classify([text])
    chosen = list(found.probabilities)[: how_many(settings, time, len(labels.names))]
    ids = torch.tensor([labels.id_of[name] for name in chosen], device=model.text.device)

    def score(rows: Tensor, targets: Tensor) -> Tensor:
        logits = model.score(repeated(rows, len(rows)))
        return logits.gather(1, ids[targets].unsqueeze(1)).squeeze(1) if labels.several else log_odds(logits, ids[targets])

    question = Question(score, vectors.data.expand(len(chosen), -1, -1), torch.arange(time))
    explained = [{"label": name, "place": None, **one} for name, one in zip(chosen, explain(run, settings, question), strict=True)]
    weights = model.pool(vectors).weights
    return frame(run, text, settings, time, explained) | {
        "words": [_word(name) for name in run.held.units.cut(text)],
        "labels": [{"name": name, "probability": value} for name, value in found.probabilities.items()],
        "found": list(found.labels),
        "attention": None if weights is None else weights[0].tolist(),
    }


@torch.no_grad()
def trace_tagging(run: TaggingRun, text: str, **changes: Any) -> dict[str, Any]:
    """Label the words of a sentence and say which words each label came from.

    Args:
        run: a trained tagger.
        text: cut at white space.
        changes: fields of `TaggingLook` that differ from their defaults.

    Returns:
        A trace for `report.write_look`.
    """
    settings = look_settings(TaggingLook, run.task.name, changes)
    labels, model = run.held.labels, run.model
    assert labels is not None
    words = text.split()
    batch = _only(read_units(run, words)).to(model.text.device)
    vectors = model.text.embed(batch)
    taggings = run.tag([words], n_best=(1 if model.crf is None else 5) if settings.n_best is None else settings.n_best)[0]
    emissions = model.score(vectors, batch.firsts)
    chances = (emissions.data.softmax(-1) if model.crf is None else model.crf.marginals(emissions))[0]
    ids = torch.tensor([labels.id_of[name] for name in taggings[0].labels], device=model.text.device)
    spans = _spans(taggings[0].labels, Scheme(labels.scheme))

    def judged(found: Padded, places: Tensor) -> Tensor:
        if model.crf is not None:
            return marginal_log_odds(model.crf, found, places, ids[places])
        return log_odds(found.data[torch.arange(len(places), device=places.device), places], ids[places])

    def score_at(places: Tensor, rows: Tensor) -> Tensor:
        firsts = Padded(batch.firsts.data.expand(len(rows), -1), batch.firsts.lengths.expand(len(rows)))
        return judged(model.score(repeated(rows, len(rows)), firsts), places)

    time, everywhere = vectors.data.shape[1], torch.arange(len(words), device=ids.device)
    odds = [
        judged(Padded(emissions.data.expand(len(some), -1, -1), emissions.lengths.expand(len(some))), some)
        for some in everywhere.split(max(1, AT_ONCE // max(len(words), 1)))
    ]
    uncertain = [place for place, found in enumerate(torch.cat(odds).tolist() if odds else []) if found < CERTAIN]
    inside = {place for start, stop, _ in spans for place in range(start, stop)}
    uncertain.sort(key=lambda place: (place not in inside, taggings[0].probabilities[place]))
    places = sorted(uncertain[: how_many(settings, time, len(uncertain))])
    asked = torch.tensor(places, device=ids.device, dtype=torch.long)
    question = Question(
        lambda rows, targets: score_at(asked[targets], rows), vectors.data.expand(len(places), -1, -1), _owners(batch.firsts.data[0], time)
    )
    explained = [
        {"label": taggings[0].labels[place], "place": place, **one}
        for place, one in zip(places, explain(run, settings, question) if places else [], strict=True)
    ]
    given = zip(words, taggings[0].labels, taggings[0].probabilities, chances, strict=True)
    return frame(run, text, settings, time, explained) | {
        "words": [_word(word, label, value, likeliest(row, labels.names, SHOWN_LABELS)) for word, label, value, row in given],
        "found": taggings[0].labels,
        "sequences": [{"labels": one.labels, "probability": one.probability} for one in taggings],
        "spans": [{"start": start, "stop": stop, "type": kind} for start, stop, kind in spans],
    }


class Hidden(NamedTuple):
    """A text of which units are hidden, once for each place that is asked for."""

    shown: UnitCorpus
    """A row a place."""
    places: list[int]
    names: list[str]
    """Of the text's units, hidden ones as `<mask>` where the person wrote that."""
    stood: list[int | None]
    """The id that stands at each place in truth; `None` where the person hid it."""


@torch.no_grad()
def trace_masked(run: MaskedRun, text: str, **changes: Any) -> dict[str, Any]:
    """Guess the hidden units of a text, each of all in turn where none is written `<mask>`, and say which units the guesses came from.

    Args:
        run: a trained masked language model.
        text: whole.
        changes: fields of `MaskedLook` that differ from their defaults.

    Returns:
        A trace for `report.write_look`.
    """
    settings = look_settings(MaskedLook, run.task.name, changes)
    model, units = run.model, run.held.units
    hidden = _hide(run, text)
    time = len(hidden.names)
    chances = _guesses(run, hidden)
    best = chances.argmax(1)
    sure = chances.max(1).values
    order = sorted(range(len(hidden.places)), key=lambda i: float(sure[i]))
    chosen = sorted(order[: how_many(settings, time, len(order))])
    places = torch.tensor([hidden.places[i] for i in chosen], device=model.text.device)

    def score(rows: Tensor, targets: Tensor) -> Tensor:
        asked = torch.nn.functional.one_hot(places[targets], rows.shape[1]).bool()
        return log_odds(model.score(repeated(rows, len(rows)), asked), best[chosen].to(rows.device)[targets])

    vectors = model.text.embed(hidden.shown.collate(np.array(chosen)).to(model.text.device)).data
    found = explain(run, settings, Question(score, vectors, torch.arange(time)))
    names = units.names(best.tolist())
    explained = [{"label": names[i], "place": hidden.places[i], **one} for i, one in zip(chosen, found, strict=True)]
    everything = units.names(range(units.vocabulary))
    words = [_word(name) for name in hidden.names]
    for i, place in enumerate(hidden.places):
        choices = likeliest(chances[i], everything, settings.guesses)
        stood = hidden.stood[i]
        if stood not in (None, UNKNOWN) and all(one["name"] != everything[stood] for one in choices):
            choices.append({"name": everything[stood], "probability": float(chances[i, stood])})
        words[place] = _word(hidden.names[place], names[i], float(sure[i]), choices)
    return frame(run, text, settings, time, explained) | {"words": words, "found": names}


def _hide(run: MaskedRun, text: str) -> Hidden:
    """Rows of the text with hidden units: the written ones in all of them, else in each the word that one unit is part of (as in training)."""
    units, parts = run.held.units, text.split(MASK)
    corpus = units.encode(parts)
    hiding = Masking(corpus, units, 0.0, 0).hiding
    behind = len(corpus.ids)  # what stands for a hidden unit
    pieces = [corpus.units[part].astype(np.int64) for part in range(len(parts))]
    row = np.concatenate([pieces[0], *(np.concatenate([[behind], piece]) for piece in pieces[1:])])
    names = [*units.cut(parts[0]), *chain.from_iterable([MASK, *units.cut(part)] for part in parts[1:])]
    check_length(len(row))
    stood: list[int | None] = hiding.ids[row].tolist()
    written = np.flatnonzero(row == behind)
    if len(written):
        rows, places, stood = [row] * len(written), written.tolist(), [None] * len(written)
    else:
        word = np.searchsorted(corpus.firsts[0].astype(np.int64), np.arange(len(row)), side="right")
        rows, places = [np.where(word == word[place], behind, row) for place in range(len(row))], list(range(len(row)))
    nowhere = token_lists([np.zeros(0, dtype=np.int64)] * len(rows), 1)
    return Hidden(UnitCorpus(token_lists(rows, len(hiding.ids)), nowhere, hiding.ids, hiding.spelling), places, names, stood)


def _guesses(run: MaskedRun, hidden: Hidden) -> Tensor:
    """What may stand at each place, `[places, vocabulary]`."""
    found, device = [], run.model.text.device
    rows, time = np.arange(len(hidden.places)), len(hidden.names)
    for some in np.array_split(rows, -(-len(rows) * time // AT_ONCE)):
        asked = torch.nn.functional.one_hot(torch.tensor([hidden.places[i] for i in some]), time).bool()
        found.append(run.model(hidden.shown.collate(some).to(device), asked.to(device)).float().softmax(-1).cpu())
    return torch.cat(found)


def _only(corpus: UnitCorpus) -> UnitBatch:
    return corpus.collate(np.arange(1))


def _owners(firsts: Tensor, time: int) -> Tensor:
    """The word of each unit: the last one that begins with it or before it."""
    return (torch.searchsorted(firsts.contiguous(), torch.arange(time, device=firsts.device), right=True) - 1).clamp(min=0)


def _spans(labels: Sequence[str], scheme: Scheme) -> list[Span]:
    return [] if scheme is Scheme.NONE else lenient_spans(converted([labels], scheme, Scheme.BIO)[0])


def _word(text: str, label: str | None = None, probability: float | None = None, choices: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    return {"text": text, "label": label, "probability": probability, "choices": list(choices)}
