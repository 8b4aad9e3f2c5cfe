"""Everything that shapes a language-model run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from unrolled.core.settings import Settings
from unrolled.models.language_model import LanguageModelSettings
from unrolled.tasks.language_model_data import TextSettings
from unrolled.train.settings import StreamTrainSettings


class StageSettings(Settings):
    """The samples that are kept at stages of training."""

    prompt: str = ""
    """What each sample begins with; a line break when empty."""
    length: int = Field(300, ge=0, le=1_000_000)
    """Symbols of each sample; 0 keeps none."""
    temperature: float = Field(0.8, ge=0)
    """How bold they are."""


class LanguageModelRunSettings(Settings):
    """Everything that shapes a language-model run."""

    task: Literal["lm"] = "lm"
    """What kind of run this is."""
    data: TextSettings = TextSettings()
    model: LanguageModelSettings = LanguageModelSettings()
    train: StreamTrainSettings = StreamTrainSettings()
    samples: StageSettings = StageSettings()
