"""Options that were set and do nothing, because of what else was set: one table a task, told before a training begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from unrolled.core.settings import Settings


class Rule(NamedTuple):
    """Options, and when they do nothing."""

    options: tuple[str, ...]
    """Keys of a run's settings; a group stands for all that is in it."""
    idle: Callable[[Any], bool]
    """Whether they do nothing under these settings of a run."""
    because: str
    """Why, with `{group.key}` for what was found."""
    off_counts: bool = False
    """Whether even 0 or `false` asks for something; else it is what happens anyway, and nothing is said."""


def _one_layer(part: Any) -> bool:
    return part.kind == "none" or (part.kind == "recurrent" and part.layers == 1)


TRAINING_RULES: tuple[Rule, ...] = (
    Rule(
        ("train.optimizer.momentum",),
        lambda run: run.train.optimizer.name not in ("sgd", "asgd"),
        "it is for SGD, and `train.optimizer.name` is `{train.optimizer.name}`",
    ),
    Rule(
        ("train.optimizer.betas",),
        lambda run: run.train.optimizer.name not in ("adam", "adamw"),
        "Adam has them, and `train.optimizer.name` is `{train.optimizer.name}`",
    ),
    Rule(
        ("train.schedule.factor", "train.schedule.patience"),
        lambda run: run.train.schedule.name != "plateau",
        "`train.schedule.name=plateau` needs that, and the schedule is `{train.schedule.name}`",
    ),
    Rule(
        ("train.schedule.final_share",),
        lambda run: run.train.schedule.name in ("constant", "plateau"),
        "the schedule `{train.schedule.name}` has no floor",
        off_counts=True,
    ),
    Rule(("train.average",), lambda run: run.train.optimizer.name == "asgd", "averaged SGD has a mean of its own"),
)
"""For every task."""

LANGUAGE_MODEL_RULES: tuple[Rule, ...] = (
    *TRAINING_RULES,
    Rule(("train.restart",), lambda run: not run.train.carry_state, "without `train.carry_state` every window starts afresh"),
    Rule(
        ("model.context", "model.transformer"),
        lambda run: run.model.kind != "transformer",
        "it is for a Transformer, and `model.kind` is `{model.kind}`",
    ),
    Rule(("model.transformer.longest",), lambda run: True, "positions reach as far as `model.context`, {model.context}"),
    Rule(("model.cell",), lambda run: run.model.kind != "recurrent", "it is for recurrent layers, and `model.kind` is `{model.kind}`"),
    Rule(
        ("model.hidden_size",),
        lambda run: run.model.kind == "recurrent" and run.model.tie_weights and run.model.layers == 1,
        "with `model.tie_weights` the last layer, here the only one, has the size of the embedding; set `model.embedding_size`",
    ),
    Rule(
        ("model.hidden_dropout",),
        lambda run: _one_layer(run.model),
        "it lies between recurrent layers, and there is one",
    ),
)
"""For `train lm`."""

TRANSLATION_RULES: tuple[Rule, ...] = (
    *TRAINING_RULES,
    Rule(("model.encoder.layers",), lambda run: run.model.encoder.kind == "none", "there is no encoder (`model.encoder.kind=none`)"),
    Rule(
        ("model.encoder.cell", "model.encoder.bidirectional"),
        lambda run: run.model.encoder.kind != "recurrent",
        "it is for a recurrent encoder, and `model.encoder.kind` is `{model.encoder.kind}`",
        off_counts=True,
    ),
    Rule(
        ("model.encoder.width",),
        lambda run: run.model.encoder.kind != "convolutional",
        "it is for a convolutional encoder, and `model.encoder.kind` is `{model.encoder.kind}`",
    ),
    Rule(
        ("model.decoder.cell", "model.context"),
        lambda run: run.model.decoder.kind != "recurrent",
        "it is for a recurrent decoder, and `model.decoder.kind` is `{model.decoder.kind}`",
    ),
    Rule(("model.context",), lambda run: run.model.encoder.kind == "none", "without an encoder there is no summary of the source"),
    Rule(
        ("model.attention",),
        lambda run: run.model.decoder.kind == "transformer",
        "a Transformer decoder attends in every layer, by `model.transformer.heads`",
    ),
    Rule(
        ("model.attention.when", "model.attention.readout"),
        lambda run: run.model.attention.kind == "none",
        "there is no attention (`model.attention.kind=none`)",
    ),
    Rule(
        ("model.attention.heads",),
        lambda run: run.model.attention.kind != "multi_head",
        "it is for `model.attention.kind=multi_head`, and that is `{model.attention.kind}`",
    ),
    Rule(
        ("model.attention.coverage_loss",),
        lambda run: not run.model.attention.coverage,
        "it needs `model.attention.coverage=true`",
    ),
    Rule(
        ("model.transformer",),
        lambda run: "transformer" not in (run.model.encoder.kind, run.model.decoder.kind),
        "neither encoder nor decoder is a Transformer",
    ),
    Rule(
        ("model.transformer.longest",),
        lambda run: run.model.transformer.positions != "learned",
        "it is for `model.transformer.positions=learned`, and that is `{model.transformer.positions}`",
    ),
    Rule(
        ("model.recurrent_dropout",),
        lambda run: "recurrent" not in (run.model.encoder.kind, run.model.decoder.kind),
        "neither encoder nor decoder is recurrent",
    ),
    Rule(
        ("model.hidden_dropout",),
        lambda run: _one_layer(run.model.encoder) and _one_layer(run.model.decoder),
        "it lies between recurrent layers, and each side has at most one",
    ),
)
"""For `train translation`."""

ENCODER_RULES: tuple[Rule, ...] = (
    Rule(
        ("model.encoder.cell", "model.encoder.bidirectional", "model.recurrent_dropout"),
        lambda run: run.model.encoder.kind != "recurrent",
        "it is for a recurrent encoder, and `model.encoder.kind` is `{model.encoder.kind}`",
        off_counts=True,
    ),
    Rule(
        ("model.encoder.width",),
        lambda run: run.model.encoder.kind != "convolutional",
        "it is for a convolutional encoder, and `model.encoder.kind` is `{model.encoder.kind}`",
    ),
    Rule(
        ("model.transformer",),
        lambda run: run.model.encoder.kind != "transformer",
        "it is for a Transformer, and `model.encoder.kind` is `{model.encoder.kind}`",
    ),
    Rule(
        ("model.hidden_dropout",),
        lambda run: _one_layer(run.model.encoder),
        "it lies between recurrent layers, and there is one",
    ),
)
"""For every task whose model reads with one encoder."""

TEXT_RULES: tuple[Rule, ...] = (
    *TRAINING_RULES,
    Rule(
        ("data.min_count", "data.lowercase", "model.spelling"),
        lambda run: run.data.tokens != "words",
        "it is for words, and `data.tokens` is `{data.tokens}`",
        off_counts=True,
    ),
    *ENCODER_RULES,
    Rule(
        ("data.phrases", "data.binary"),
        lambda run: run.data.format not in (None, "trees"),
        "it is for trees, and `data.format` is `{data.format}`",
        off_counts=True,
    ),
    Rule(
        ("train.label_smoothing",),
        lambda run: getattr(run.model, "crf", False) or getattr(run.data, "several", False),
        "it is for one label at a time, without a CRF",
    ),
    Rule(
        ("model.constrain",),
        lambda run: not run.model.crf,
        "it needs `model.crf=true`",
        off_counts=True,
    ),
)
"""For tasks that read texts as a whole."""


def without_effect(settings: Settings, rules: Sequence[Rule]) -> list[str]:
    """Find what was set and does nothing.

    Args:
        settings: of a run, as resolved from what differs from the defaults.
        rules: of its task; the first that speaks of an option gives the reason.

    Returns:
        A sentence a rule.
    """
    left, said = dict(set_options(settings)), []
    for rule in rules:
        named = [
            key
            for key, value in left.items()
            if any(key == option or key.startswith(option + ".") for option in rule.options) and (value or rule.off_counts)
        ]
        if named and rule.idle(settings):
            left = {key: value for key, value in left.items() if key not in named}
            listed = " and ".join(f"`{key}`" for key in named)
            reason = rule.because.format_map({name: getattr(settings, name) for name in type(settings).model_fields})
            said.append(f"{listed} {'has' if len(named) == 1 else 'have'} no effect here: {reason}")
    return said


def set_options(settings: Settings, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The options that were set, be it to their default.

    Args:
        settings: as resolved from what differs from the defaults.
        prefix: put before every key.

    Yields:
        Keys such as `model.encoder.kind` with their values, in the order of the settings.
    """
    for name in type(settings).model_fields:
        if name in settings.model_fields_set:
            value = getattr(settings, name)
            if isinstance(value, Settings):
                yield from set_options(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value


FORECASTING_RULES: tuple[Rule, ...] = (
    *TRAINING_RULES,
    *ENCODER_RULES,
    Rule(
        ("model.output.quantiles",),
        lambda run: run.model.output.kind != "quantiles",
        "it is for quantiles, and `model.output.kind` is `{model.output.kind}`",
    ),
)
