"""Everything that shapes a run of tagging, of classification, or of a masked language model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from unrolled.core.settings import Settings
from unrolled.models.text_encoder_settings import ClassifierSettings, TaggerSettings, TextEncoderSettings
from unrolled.train.settings import OptimizerSettings, TrainSettings


class UnitSettings(Settings):
    """What texts are cut into, and which of them validate."""

    tokens: Literal["words", "characters", "bpe", "unigram"] = "words"
    """Words with their spelling, characters, byte-pair encoding or a unigram model, trained on the texts."""
    vocabulary_size: int | None = Field(None, ge=4)
    """At most so many units; when not given, all words, or 8,000 sub-words."""
    min_count: int = Field(2, ge=1)
    """Words seen less often are known by their spelling alone."""
    lowercase: bool = True
    """Whether capital letters of words are seen in their spelling alone."""
    vectors: str | None = None
    """A text file of pretrained word vectors (word2vec, GloVe; `.gz` is read as is) that the words' own vectors begin from."""
    longest: int = Field(2000, ge=1)
    """Texts to train on are cut behind so many units."""
    valid_share: float = Field(0.1, gt=0, lt=1)
    """The share of the texts, drawn at random, that validates where no files of its own do."""


class LabelOptimizerSettings(OptimizerSettings):
    """How weights follow their gradient."""

    learning_rate: float = Field(2e-3, gt=0)
    """The peak of the schedule."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Memory of Adam's two moments."""


class LabelTrainSettings(TrainSettings):
    """Training on batches of texts."""

    average: float | None = Field(0.998, gt=0, lt=1)
    """Keep an exponential moving average of the weights with this decay and evaluate that."""
    batch_tokens: int = Field(1024, ge=1)
    """Units of a batch, padding included; every text comes once an epoch, with others of its length."""
    evaluation_tokens: int = Field(4096, ge=1)
    """Units of a batch in evaluation."""
    best: Literal["score", "loss"] = "score"
    """Whether the weights that are kept are those of the best figure of the task, or of the lowest loss, on what validates."""
    layer_rate: float = Field(1.0, gt=0, le=1)
    """The learning rate of each layer as a share of that of the layer above it (discriminative rates; Howard & Ruder 2018)."""
    unfreeze: float = Field(0.0, ge=0, lt=1)
    """Layers are left as they are at first, and are trained one after the other from above until this share of the training is done."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the probability that the objective spreads over all labels; not for a CRF, nor for several labels a text."""
    optimizer: LabelOptimizerSettings = LabelOptimizerSettings()


class MaskedDataSettings(UnitSettings):
    """How texts are read, and what of them is hidden."""

    masked: float = Field(0.15, gt=0, lt=1)
    """Share of the words that are asked for: of ten, eight are hidden, one is another word, one is as it was (Devlin et al. 2019)."""
    min_count: int = Field(3, ge=1)
    """Words seen less often are known by their spelling alone, and not asked for."""


class MaskedTrainSettings(LabelTrainSettings):
    """Training on batches of texts with hidden words."""

    best: Literal["score", "loss"] = "loss"
    """Whether the weights that are kept are those of the best accuracy, or of the lowest loss, on what validates."""


class MaskedRunSettings(Settings):
    """Everything that shapes the training of a masked language model."""

    task: Literal["masked-lm"] = "masked-lm"
    """What kind of run this is."""
    data: MaskedDataSettings = MaskedDataSettings()
    model: TextEncoderSettings = TextEncoderSettings()
    train: MaskedTrainSettings = MaskedTrainSettings()


class TaggingDataSettings(UnitSettings):
    """How sentences and their labels are read."""

    format: str | None = None
    """How files are read: `conllu`, `columns`, `tsv` or `jsonl`; by their names when not given."""
    column: str | None = None
    """The column of the label: a name of CoNLL-U (`upos`), a number, or a key; the usual one of the format when not given."""
    words: str = "tokens"
    """JSON lines: the key of the words."""
    encoding: str = "utf-8"
    """How the bytes of files stand for characters."""
    scheme: Literal["auto", "bio", "iob1", "bioes", "bilou", "none"] = "auto"
    """How labels stand for spans; `auto` finds out, `none` takes every label by itself."""


class TaggingRunSettings(Settings):
    """Everything that shapes a tagging run."""

    task: Literal["tagging"] = "tagging"
    """What kind of run this is."""
    data: TaggingDataSettings = TaggingDataSettings()
    model: TaggerSettings = TaggerSettings()
    train: LabelTrainSettings = LabelTrainSettings()


class ClassificationDataSettings(UnitSettings):
    """How texts and their labels are read."""

    format: str | None = None
    """How files are read: `csv`, `tsv`, `jsonl`, `plain` (a label, then the text) or `trees`; by their names when not given."""
    text: str = "text"
    """The column or key of the text."""
    label: str = "label"
    """The column or key of the label."""
    id: str = "id"
    """The column or key of an id, which may be missing; ids that stand twice are told."""
    delimiter: str = Field(",", min_length=1, max_length=1)
    """CSV: what stands between the cells of a row."""
    separator: str | None = None
    """What stands between the labels of a text that may have several; a list in JSON lines needs none."""
    several: bool | None = None
    """Whether a text may have several labels, or none; found out when not given."""
    encoding: str = "utf-8"
    """How the bytes of files stand for characters."""
    phrases: bool = True
    """With `trees`: train on every phrase of a sentence; whole sentences validate."""
    binary: bool = True
    """With `trees`: positive and negative alone; else all five degrees."""


class ClassificationTrainSettings(LabelTrainSettings):
    """Training on batches of texts."""

    class_weights: Literal["none", "balanced"] = "none"
    """Whether rare labels count more, so that all count alike together."""


class ClassificationRunSettings(Settings):
    """Everything that shapes a classification run."""

    task: Literal["classification"] = "classification"
    """What kind of run this is."""
    data: ClassificationDataSettings = ClassificationDataSettings()
    model: ClassifierSettings = ClassifierSettings()
    train: ClassificationTrainSettings = ClassificationTrainSettings()
