"""Traces as a tagger, a classifier and a masked language model leave them."""

from __future__ import annotations

from typing import Any


def choice(name: str, probability: float | None) -> dict[str, Any]:
    return {"name": name, "probability": probability}


def word(text: str, label: str | None = None, probability: float | None = None) -> dict[str, Any]:
    return {"text": text, "label": label, "probability": probability, "choices": [] if label is None else [choice(label, probability)]}


def explained(label: str, place: int | None, values: list[float | None]) -> dict[str, Any]:
    return {
        "label": label,
        "place": place,
        "score": sum(value or 0.0 for value in values) - 1.25,
        "baseline_score": -1.25,
        "gap": 0.0,
        "integrated_gradients": values,
        "gradient_times_input": [None if value is None else value / 2 for value in values],
    }


def classified(**changes: Any) -> dict[str, Any]:
    texts = ["too", "slow", "to", "love"]
    return {
        "format": 1,
        "task": "classification",
        "run": "runs/sst",
        "text": " ".join(texts),
        "words": [word(text) for text in texts],
        "labels": [choice("negative", 0.875), choice("positive", 0.125)],
        "found": ["negative"],
        "sequences": [],
        "spans": [],
        "attention": [0.1, 0.6, 0.1, 0.2],
        "explained": [explained("negative", None, [0.5, 2.0, 0.0, -1.0]), explained("positive", None, [-0.5, -2.0, 0.0, 1.0])],
        "figures": {"units": 4, "steps": 32, "baseline": "zero", "largest_gap": 0.000123},
    } | changes


def tagged(**changes: Any) -> dict[str, Any]:
    texts, labels = ["Lady", "Gaga", "sings", "."], ["B-person", "I-person", "O", "O"]
    return (
        classified()
        | {
            "task": "tagging",
            "run": "runs/wnut",
            "text": " ".join(texts),
            "words": [word(text, label, 0.75 + 0.1 * (place % 3)) for place, (text, label) in enumerate(zip(texts, labels, strict=True))],
            "labels": [],
            "found": labels,
            "sequences": [{"labels": labels, "probability": 0.5}, {"labels": ["O", *labels[1:]], "probability": 0.25}],
            "spans": [{"start": 0, "stop": 2, "type": "person"}],
            "attention": None,
            "explained": [explained(labels[place], place, [1.0, 0.5, place - 2.0, 0.0]) for place in (0, 1, 2)],
        }
        | changes
    )
