"""Everything that shapes a translation run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from unrolled.core.settings import Settings
from unrolled.models.encoder_decoder_settings import EncoderDecoderSettings
from unrolled.train.settings import OptimizerSettings, ScheduleSettings, Share, TrainSettings

Symbols = Literal["characters", "words", "bpe", "unigram"]
SUBWORDS = ("bpe", "unigram")


class PairSettings(Settings):
    """How sentences become symbols, and which pairs validate."""

    tokens: Symbols = "bpe"
    """The symbols of both sides: characters, words between white space, byte-pair encoding or a unigram model, trained on the pairs."""
    source_tokens: Symbols | None = None
    """The symbols of the source, where they are others."""
    target_tokens: Symbols | None = None
    """The symbols of the target, where they are others."""
    joint: bool | None = None
    """One vocabulary for both sides; when not given, sub-words are joint where both sides have the same kind, and all others apart."""
    vocabulary_size: int | None = Field(None, ge=2)
    """At most so many symbols in each vocabulary; when not given, all words, or 8,000 sub-words (4,000 below 100,000 pairs)."""
    min_count: int = Field(1, ge=1)
    """Words seen less often become `<unk>`."""
    bpe_dropout: float = Field(0.0, ge=0, lt=1)
    """Probability of leaving a merge out, drawn anew at every reading of a training sentence (Provilkov et al. 2020)."""
    longest: int = Field(256, ge=1)
    """Training pairs with more symbols on a side are left out."""
    valid_share: float = Field(0.1, gt=0, lt=1)
    """The share of the pairs, drawn at random, that validates where no files of its own do."""
    source_key: str = "source"
    """What the source is called in JSON lines."""
    target_key: str = "target"
    """What the target is called in JSON lines."""

    @property
    def kinds(self) -> tuple[Symbols, Symbols]:
        """The symbols of the source and of the target."""
        return self.source_tokens or self.tokens, self.target_tokens or self.tokens

    @property
    def is_joint(self) -> bool:
        """Whether both sides have one vocabulary."""
        source, target = self.kinds
        return (source == target and source in SUBWORDS) if self.joint is None else self.joint


class TranslationOptimizerSettings(OptimizerSettings):
    """How weights follow their gradient."""

    learning_rate: float = Field(2e-3, gt=0)
    """The peak of the schedule."""
    betas: tuple[Share, Share] = (0.9, 0.98)
    """Memory of Adam's two moments."""


class TranslationScheduleSettings(ScheduleSettings):
    """How the learning rate moves from its peak."""

    warmup_steps: int = Field(400, ge=0)
    """Updates over which the rate rises linearly to its peak; with `cosine` and `linear`, a tenth of the training at most."""


class TranslationTrainSettings(TrainSettings):
    """Training on batches of pairs."""

    average: float | None = Field(0.998, gt=0, lt=1)
    """Keep an exponential moving average of the weights with this decay and evaluate that."""
    batch_tokens: int = Field(1024, ge=1)
    """Symbols of a batch, padding included, on the side that has more; every pair comes once an epoch, with others of its length."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Share of the probability that the objective spreads over the whole vocabulary (Szegedy et al. 2016)."""
    scheduled_sampling: float = Field(0.0, ge=0, le=1)
    """Probability that an input symbol is what the model itself would have written there (Bengio et al. 2015)."""
    evaluation_tokens: int = Field(8192, ge=1)
    """Symbols of a batch in evaluation."""
    evaluation_decodes: int = Field(200, ge=0)
    """So many validation sentences are translated greedily at every evaluation, for BLEU."""
    optimizer: TranslationOptimizerSettings = TranslationOptimizerSettings()
    schedule: TranslationScheduleSettings = TranslationScheduleSettings()


class TranslationSampleSettings(Settings):
    """The translations that are kept at stages of training."""

    sentences: int = Field(3, ge=0, le=1000)
    """Of the first validation sentences."""


class TranslationRunSettings(Settings):
    """Everything that shapes a translation run."""

    task: Literal["translation"] = "translation"
    """What kind of run this is."""
    data: PairSettings = PairSettings()
    model: EncoderDecoderSettings = EncoderDecoderSettings()
    train: TranslationTrainSettings = TranslationTrainSettings()
    samples: TranslationSampleSettings = TranslationSampleSettings()
