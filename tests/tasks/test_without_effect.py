"""What was set and does nothing is told: the table held to models that are built with and without each option."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from unrolled.core.errors import ConfigurationError
from unrolled.core.noise import Noise
from unrolled.core.padded import Padded
from unrolled.core.settings import merge, parse_override, resolve
from unrolled.data.batches import PairBatch
from unrolled.models.encoder_decoder import EncoderDecoder, Sizes
from unrolled.models.language_model import LanguageModel
from unrolled.tasks.differences import gather
from unrolled.tasks.language_model_settings import LanguageModelRunSettings
from unrolled.tasks.row_windows import RowWindow
from unrolled.tasks.translation import train_translation
from unrolled.tasks.translation_objective import TranslationObjective
from unrolled.tasks.translation_settings import TranslationRunSettings
from unrolled.tasks.without_effect import LANGUAGE_MODEL_RULES, TRANSLATION_RULES, without_effect
from unrolled.train.optimizers import build_optimizer
from unrolled.train.schedule import rate_share
from unrolled.train.settings import OptimizerSettings, ScheduleSettings

SHAPE = ["model.hidden_size=12", "model.transformer.heads=2"]


def settings_of(group: Any, *options: str) -> Any:
    differences: dict[str, Any] = {}
    for option in options:
        differences = merge(differences, parse_override(option))
    return resolve(group, differences)


def told(settings: Any) -> list[str]:
    rules = TRANSLATION_RULES if isinstance(settings, TranslationRunSettings) else LANGUAGE_MODEL_RULES
    return without_effect(settings, rules)


def pair_loss(settings: TranslationRunSettings) -> float:
    """The objective of a batch under dropout: all that a model's options can change."""
    torch.manual_seed(0)
    model = EncoderDecoder(settings.model, Sizes(7, 9)).double()
    source = Padded(torch.tensor([[1, 2, 3], [4, 0, 0], [5, 6, 0]]), torch.tensor([3, 1, 2]))
    target = Padded(torch.tensor([[1, 2, 4], [3, 0, 0], [0, 0, 0]]), torch.tensor([3, 1, 0]))
    objective = TranslationObjective(model.train(), start=8, end=7)
    return objective(RowWindow(PairBatch(source, target), 0, 3), None, Noise(torch.Generator().manual_seed(0))).objective.item()


def text_loss(settings: LanguageModelRunSettings) -> float:
    torch.manual_seed(0)
    model = LanguageModel(settings.model, 9).train()
    tokens = torch.arange(24).view(2, 12) % 9
    return model(tokens, noise=Noise(torch.Generator().manual_seed(0)))[0].square().sum().item()


ENCODERS = ["recurrent", "transformer", "convolutional", "none"]
BASES = [
    *([f"encoder.kind={encoder}", "decoder.kind=recurrent"] for encoder in ENCODERS[:3]),
    *([f"encoder.kind={encoder}", "decoder.kind=transformer"] for encoder in ENCODERS),
    *([f"encoder.kind={encoder}", "decoder.kind=recurrent", "attention.kind=none"] for encoder in ENCODERS),
    ["attention.kind=multi_head", "encoder.layers=2"],
    ["attention.coverage=true", "decoder.layers=2"],
    ["encoder.kind=none", "attention.kind=none", "decoder.layers=2"],
    ["encoder.kind=transformer", "transformer.positions=learned"],
]
OPTIONS = [
    "encoder.layers=3",
    "encoder.cell=gru",
    "encoder.bidirectional=false",
    "encoder.width=5",
    "decoder.layers=3",
    "decoder.cell=gru",
    "attention.kind=dot",
    "attention.when=before",
    "attention.readout=direct",
    "attention.heads=3",
    "attention.coverage_loss=2.0",
    "transformer.heads=3",
    "transformer.inner_size=7",
    "transformer.norm=post",
    "transformer.activation=gelu",
    "transformer.positions=learned",
    "transformer.longest=50",
    "context=every",
    "embedding_size=10",
    "hidden_size=24",
    "tie_weights=false",
    "input_dropout=0.5",
    "hidden_dropout=0.5",
    "output_dropout=0.5",
    "recurrent_dropout=0.5",
]


@pytest.mark.parametrize("base", BASES, ids=" ".join)
def test_a_translation_model_is_the_same_exactly_where_that_is_told(base: list[str]) -> None:
    plain = [*SHAPE, *(f"model.{option}" for option in base)]
    before, count = settings_of(TranslationRunSettings, *plain), 0
    expected = pair_loss(before)
    for option in OPTIONS:
        try:
            after = settings_of(TranslationRunSettings, *plain, f"model.{option}")
        except ConfigurationError:
            continue  # refused, which tells as well
        if after.model == before.model:
            continue
        key = f"`model.{option.partition('=')[0]}`"
        assert any(key in said.partition(":")[0] for said in told(after)) == (pair_loss(after) == expected), option
        count += 1
    assert count > len(OPTIONS) - 4


TEXT_BASES = [
    [],
    ["layers=2"],
    ["tie_weights=true", "embedding_size=10"],
    ["tie_weights=true", "embedding_size=10", "layers=2"],
    ["kind=transformer", "context=4"],
    ["kind=transformer", "transformer.positions=learned"],
]
TEXT_OPTIONS = [
    "cell=gru",
    "hidden_size=24",
    "layers=3",
    "tie_weights=true",
    "word_dropout=0.5",
    "input_dropout=0.5",
    "hidden_dropout=0.5",
    "output_dropout=0.5",
    "recurrent_dropout=0.5",
    "weight_drop=0.5",
    "context=6",
    "transformer.heads=3",
    "transformer.norm=post",
    "transformer.longest=50",
]


@pytest.mark.parametrize("base", TEXT_BASES, ids=" ".join)
def test_a_language_model_is_the_same_exactly_where_that_is_told(base: list[str]) -> None:
    plain = [*SHAPE, *(f"model.{option}" for option in base)]
    before, count = settings_of(LanguageModelRunSettings, *plain), 0
    expected = text_loss(before)
    for option in TEXT_OPTIONS:
        try:
            after = settings_of(LanguageModelRunSettings, *plain, f"model.{option}")
        except ConfigurationError:
            continue
        if after.model == before.model:
            continue
        key = f"`model.{option.partition('=')[0]}`"
        assert any(key in said.partition(":")[0] for said in told(after)) == (text_loss(after) == expected), option
        count += 1
    assert count > len(TEXT_OPTIONS) - 5


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "asgd"])
@pytest.mark.parametrize(("key", "value"), [("momentum", 0.5), ("betas", (0.5, 0.6))])
def test_an_optimiser_steps_as_before_exactly_where_that_is_told(name: str, key: str, value: Any) -> None:
    def trained(**wishes: Any) -> torch.Tensor:
        layer = torch.nn.Linear(2, 1, bias=False)
        torch.nn.init.ones_(layer.weight)
        optimizer = build_optimizer(layer, resolve(OptimizerSettings, {"name": name, "learning_rate": 0.1, **wishes}))
        for x in ([[1.0, 2.0]], [[-3.0, 0.5]], [[0.1, 4.0]]):
            optimizer.zero_grad()
            layer(torch.tensor(x)).sum().backward()
            optimizer.step()
        return layer.weight.detach()

    run = resolve(TranslationRunSettings, {"train": {"optimizer": {"name": name, key: value}}})
    assert bool(told(run)) == torch.equal(trained(), trained(**{key: value}))


@pytest.mark.parametrize("name", ["constant", "cosine", "linear", "plateau"])
@pytest.mark.parametrize(("key", "value"), [("factor", 0.5), ("final_share", 0.5), ("warmup_steps", 7)])
def test_a_schedule_is_the_same_exactly_where_that_is_told(name: str, key: str, value: Any) -> None:
    def rates(**wishes: Any) -> list[float]:
        schedule = resolve(ScheduleSettings, {"name": name, **wishes})
        return [rate_share(schedule, step, step / 20, step // 5) for step in range(20)]

    run = resolve(LanguageModelRunSettings, {"train": {"schedule": {"name": name, key: value}}})
    assert bool(told(run)) == (rates() == rates(**{key: value}))


def test_one_sentence_for_options_of_one_kind() -> None:
    preset = gather(["transformer"], [], ["model.encoder.kind=recurrent", "model.decoder.kind=recurrent"])
    assert told(resolve(TranslationRunSettings, preset)) == [
        "`model.transformer.heads` and `model.transformer.inner_size` have no effect here: neither encoder nor decoder is a Transformer"
    ]
    assert told(settings_of(TranslationRunSettings, "model.encoder.width=5")) == [
        "`model.encoder.width` has no effect here: it is for a convolutional encoder, and `model.encoder.kind` is `recurrent`"
    ]


@pytest.mark.parametrize("preset", ["transformer", "tied-lstm", "awd-lstm"])
def test_presets_have_nothing_to_be_told(preset: str) -> None:
    group = TranslationRunSettings if preset == "transformer" else LanguageModelRunSettings
    assert told(resolve(group, gather([preset], [], []))) == []
    assert told(resolve(group, {})) == []


def test_what_asks_for_nothing_is_not_told() -> None:
    for option in ("model.recurrent_dropout=0", "model.attention.coverage_loss=0", "model.attention.coverage=false"):
        assert told(settings_of(TranslationRunSettings, "model.encoder.kind=transformer", "model.decoder.kind=transformer", option)) == []
    assert told(settings_of(TranslationRunSettings, "model.encoder.kind=transformer", "model.encoder.bidirectional=false")) != []


def test_python_is_warned(tmp_path: Path) -> None:
    (tmp_path / "p.tsv").write_text("a\tb\nb\tc\n" * 5)
    wanted = {"data": {"tokens": "words"}, "model": {"hidden_size": 4, "encoder": {"width": 5}}, "train": {"steps": 1, "evaluations": 1}}
    with pytest.warns(UserWarning, match=r"`model.encoder.width` has no effect here"):
        train_translation(tmp_path / "p.tsv", out=tmp_path / "r", differences=wanted)
