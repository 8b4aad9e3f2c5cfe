"""Sequence models, from the Kalman filter to the Transformer: an `initial_state` and a `step`, and everything that follows from them."""

from __future__ import annotations

import importlib
from typing import Any

_PLACES = {
    "load": "unrolled.tasks.loading",
    "train_language_model": "unrolled.tasks.language_model",
    "resume_language_model": "unrolled.tasks.language_model",
    "train_translation": "unrolled.tasks.translation",
    "resume_translation": "unrolled.tasks.translation",
    "train_tagging": "unrolled.tasks.tagging",
    "resume_tagging": "unrolled.tasks.tagging",
    "train_classification": "unrolled.tasks.classification",
    "resume_classification": "unrolled.tasks.classification",
    "train_masked_language_model": "unrolled.tasks.masked_language_model",
    "resume_masked_language_model": "unrolled.tasks.masked_language_model",
    "train_forecasting": "unrolled.tasks.forecasting",
    "resume_forecasting": "unrolled.tasks.forecasting",
    "fit_hidden_markov_model": "unrolled.tasks.fit_hmm",
    "fit_linear_dynamical_system": "unrolled.tasks.fit_linear",
    "fit_structural_model": "unrolled.tasks.fit_linear",
    "UserError": "unrolled.core.errors",
    "Padded": "unrolled.core.padded",
}
"""Where each public name lives; it is imported when first asked for, so that `unrolled --help` need not wait for torch."""

__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module `unrolled` has no attribute `{name}`")
    return getattr(importlib.import_module(_PLACES[name]), name)
