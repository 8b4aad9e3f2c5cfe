"""Beginning from what another run learnt: its vocabulary, the form of its encoder, and its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from unrolled.core.errors import ConfigurationError, RunError
from unrolled.core.settings import Differences, merge, resolve
from unrolled.data.units import SPECIAL, Text, Units, WordUnits, load_units
from unrolled.data.vectors import WordVectors, open_vectors
from unrolled.models.text_encoder_settings import TextEncoderSettings
from unrolled.tasks.labelling_settings import UnitSettings
from unrolled.tasks.run_folder import RunFolder, user_cache
from unrolled.train.checkpoint import read_checkpoint, write_checkpoint

TASKS = ("masked-lm", "tagging", "classification")
"""Whose encoders fit each other."""
SHAPE = ("hidden_size", "embedding_size", "spelling", "encoder", "transformer", "chunk")
"""Options of a model that its weights depend on."""
CUT = ("tokens", "vocabulary_size", "min_count", "lowercase")
"""Options that a vocabulary was made by."""
PREFIX = "text."
"""How the names of the shared weights begin."""


class Start(NamedTuple):
    """What a run begins from."""

    run: Path
    known: Differences
    """The options that must be as they were there."""
    differences: Differences
    """Those of them that are not what they are anyway."""
    units: Units
    weights: dict[str, Tensor]
    """Of the encoder, by their names in the model."""


def read_start(path: Path | str) -> Start:
    """Open a run to begin another one from.

    Args:
        path: its folder.

    Returns:
        Vocabulary, form and weights of its encoder.

    Raises:
        RunError: no run, or one without such an encoder.
    """
    folder = RunFolder(Path(path))
    task = folder.facts().get("task")
    if task not in TASKS:
        raise RunError(f"`--init-from` needs a run of {', '.join(f'`{name}`' for name in TASKS)}, and `{path}` is of the task `{task}`")
    config = folder.read_config()
    model, data = config.get("model", {}), config.get("data", {})
    known = {
        "model": {name: model[name] for name in SHAPE if name in model},
        "data": {name: data[name] for name in CUT if name in data},
    }
    differences = {
        "model": resolve(TextEncoderSettings, known["model"]).model_dump(exclude_defaults=True),
        "data": resolve(UnitSettings, known["data"]).model_dump(exclude_defaults=True),
    }
    tensors, _ = read_checkpoint(folder.weights)
    weights = {name: tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
    return Start(folder.path, known, differences, load_units(folder.units), weights)


def from_start(start: Start | None, given: Mapping[str, Any]) -> Differences:
    """What differs from the defaults, where a run begins from another one.

    Args:
        start: what it begins from.
        given: by the person.

    Returns:
        Both together.

    Raises:
        ConfigurationError: the person wants another form than the weights have.
    """
    if start is None:
        return dict(given)
    for group, values in start.known.items():
        for name, value in given.get(group, {}).items():
            known = SHAPE if group == "model" else CUT
            if name in known and not _agrees(values.get(name), value):
                raise ConfigurationError(
                    f"`{group}.{name}` comes from the run `{start.run}` that this one begins from, and is {values.get(name)!r} there, "
                    f"got {value!r}; leave it out, or `--init-from`"
                )
    return merge(given, start.differences)


def _agrees(there: Any, given: Any) -> bool:
    if isinstance(there, Mapping) and isinstance(given, Mapping):
        return all(_agrees(there.get(name), value) for name, value in given.items())
    return bool(there == given)


def keep_start(folder: RunFolder, start: Start | None) -> None:
    """Write the weights into the run that begins from them, so that it needs no other folder.

    Args:
        folder: the new run.
        start: what it begins from.
    """
    if start is not None:
        write_checkpoint(folder.start, start.weights, {"whole": True})


class Pretrained(NamedTuple):
    """Vectors of words that a run begins from."""

    vectors: WordVectors
    words: frozenset[str]
    """Words of the training texts that have one."""


def open_pretrained(settings: Any, texts: Sequence[Text]) -> Pretrained | None:
    """The vectors that a run begins from.

    Args:
        settings: of the run.
        texts: it is trained on.

    Returns:
        Them, or nothing where none are asked for.

    Raises:
        ConfigurationError: units that are no words, or another size than the model's.
    """
    data = settings.data
    if data.vectors is None:
        return None
    if data.tokens != "words":
        raise ConfigurationError(f"`data.vectors` are of words, and `data.tokens` is `{data.tokens}`; leave one of them out")
    vectors = open_vectors(data.vectors, user_cache())
    if vectors.dim != settings.model.embedding_size:
        raise ConfigurationError(
            f"`model.embedding_size` must be that of the vectors in `{data.vectors}`, {vectors.dim}, got {settings.model.embedding_size}; "
            f"try `--set model.embedding_size={vectors.dim}`"
        )
    words = WordUnits.train(texts, lowercase=data.lowercase).words
    found = vectors.rows(words).found
    return Pretrained(vectors, frozenset(word for word, there in zip(words, found, strict=True) if there))


def keep_pretrained(folder: RunFolder, pretrained: Pretrained | None, units: Units, model: Any) -> str | None:
    """Write the vectors into the run that begins from them; words without one keep what the seed gave them.

    Args:
        folder: the new run.
        pretrained: vectors of words.
        units: of the run.
        model: as its seed made it.

    Returns:
        What a person should know of them.
    """
    if pretrained is None or not isinstance(units, WordUnits):
        return None
    rows = pretrained.vectors.rows(units.words)
    table = model.text.embedding.weight.detach().clone()
    found = torch.from_numpy(np.flatnonzero(rows.found)) + len(SPECIAL)
    table[found] = torch.from_numpy(rows.matrix[rows.found])
    write_checkpoint(folder.start, {PREFIX + "embedding.weight": table}, {"whole": False})
    return rows.coverage()


def apply_start(folder: RunFolder, model: nn.Module) -> None:
    """Give a model that is about to be trained the weights that its run begins from.

    Args:
        folder: the run.
        model: as its seed made it.

    Raises:
        RunError: weights and model do not fit.
    """
    if not folder.start.exists():
        return
    tensors, facts = read_checkpoint(folder.start)
    try:
        missing = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise RunError(f"`{folder.start}` must fit the model of its run, but it does not ({error}); train again") from None
    own = [name for name in missing.missing_keys if name.startswith(PREFIX) and facts["whole"]]
    if own or missing.unexpected_keys:
        raise RunError(
            f"`{folder.start}` must have the weights of the encoder, but `{(own or missing.unexpected_keys)[0]}` differs; train again"
        )
