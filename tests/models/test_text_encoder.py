"""Encoders of texts, taggers and classifiers: a batch equals one by one, longer padding changes nothing, long texts in pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from unrolled.core.errors import ConfigurationError
from unrolled.core.noise import Noise
from unrolled.core.padded import Padded
from unrolled.core.settings import resolve
from unrolled.data.unit_corpus import UnitBatch
from unrolled.data.units import train_units
from unrolled.models.classifier import Classifier
from unrolled.models.encoders import Encoded
from unrolled.models.masked_language_model import MaskedLanguageModel
from unrolled.models.pooling import POOLING
from unrolled.models.tagger import Tagger
from unrolled.models.text_encoder import TextEncoder, depths, in_pieces
from unrolled.models.text_encoder_settings import ClassifierSettings, TaggerSettings, TextEncoderSettings

TEXTS = ["a dog sees the bird", "birds", "the dog and the bird and the cat see a bird that sees them", "Hund"]
SMALL: dict[str, Any] = {"hidden_size": 12, "embedding_size": 8, "spelling": {"size": 6, "embedding_size": 5}, "transformer": {"heads": 3}}
ENCODERS: list[dict[str, Any]] = [
    {"encoder": {"kind": "recurrent", "layers": 2}},
    {"encoder": {"kind": "recurrent", "cell": "gru", "bidirectional": False}},
    {"encoder": {"kind": "transformer", "layers": 2}},
    {"encoder": {"kind": "convolutional"}},
    {"spelling": {"kind": "recurrent", "size": 6}},
    {"spelling": {"kind": "none"}},
    {"chunk": 3},
]


def batch_of(texts: list[str], kind: str = "words") -> tuple[UnitBatch, Any]:
    units = train_units(kind, TEXTS)
    return units.encode([text.split() for text in texts]).collate(np.arange(len(texts))), units


def longer(batch: UnitBatch) -> UnitBatch:
    """The same with more padding, which holds something."""
    places = torch.cat([batch.places.data, torch.ones(len(batch.places.data), 4, dtype=torch.int64)], 1)
    firsts = torch.cat([batch.firsts.data, torch.ones(len(places), 3, dtype=torch.int64)], 1)
    return batch._replace(places=Padded(places, batch.places.lengths), firsts=Padded(firsts, batch.firsts.lengths))


@pytest.mark.parametrize("different", ENCODERS, ids=str)
@pytest.mark.parametrize("kind", ["words", "characters"])
def test_a_batch_equals_one_by_one(different: dict[str, Any], kind: str) -> None:
    _, units = batch_of(TEXTS, kind)
    tagger = Tagger(resolve(TaggerSettings, SMALL | different), units.vocabulary, units.characters, 4).double().eval()
    classifier = Classifier(resolve(ClassifierSettings, SMALL | different), units.vocabulary, units.characters, 3).double().eval()
    batch, _ = batch_of(TEXTS, kind)
    together, more = tagger(batch), tagger(longer(batch))
    labels, labels_more = classifier(batch), classifier(longer(batch))
    torch.testing.assert_close(labels, labels_more)
    for row, text in enumerate(TEXTS):
        alone, _ = batch_of([text], kind)
        words = len(text.split())
        torch.testing.assert_close(tagger(alone).data[0], together.data[row, :words])
        torch.testing.assert_close(more.data[row, :words], together.data[row, :words])
        torch.testing.assert_close(classifier(alone)[0], labels[row])


@pytest.mark.parametrize("pooling", list(POOLING))
def test_pooling_does_not_see_the_padding(pooling: str) -> None:
    data = torch.randn(3, 5, 6, dtype=torch.float64)
    lengths = torch.tensor([5, 2, 0])
    inside = (torch.arange(5) < lengths.unsqueeze(1)).unsqueeze(-1)
    pool = POOLING[pooling](6).double()
    first = pool(Encoded(Padded(data * inside, lengths), data[:, 0])).vector
    if pooling in ("attention", "max"):
        torch.testing.assert_close(pool(Encoded(Padded(data, lengths), data[:, 0])).vector, first)
    expected = {
        "mean": lambda row: row.mean(0),
        "max": lambda row: row.amax(0),
        "attention": lambda row: (pool.query(torch.tanh(pool.key(row))).softmax(0) * row).sum(0),
    }
    if pooling in expected:
        for row, length in enumerate([5, 2]):
            torch.testing.assert_close(first[row], expected[pooling](data[row, :length]))
        assert (first[2] == 0).all()


def test_long_texts_are_read_in_pieces_each_by_itself() -> None:
    layer = nn.GRU(3, 4, batch_first=True, dtype=torch.float64)
    lengths = torch.tensor([10, 3, 4, 0, 8])
    inside = (torch.arange(10) < lengths.unsqueeze(1)).unsqueeze(-1)
    data = torch.randn(5, 10, 3, dtype=torch.float64) * inside

    def read(pieces: Padded) -> Encoded:
        assert (pieces.lengths > 0).all()
        outputs = layer(pieces.data)[0] * pieces.mask.unsqueeze(-1)
        last = outputs[torch.arange(len(outputs)), pieces.lengths - 1]
        return Encoded(Padded(outputs, pieces.lengths), last)

    found = in_pieces(Padded(data, lengths), 4, read)
    for row, length in enumerate(lengths.tolist()):
        pieces = [data[row, begin : min(begin + 4, length)] for begin in range(0, length, 4)]
        outputs = [layer(piece.unsqueeze(0))[0][0] for piece in pieces]
        if outputs:
            torch.testing.assert_close(found.memory.data[row, :length], torch.cat(outputs))
            shares = torch.tensor([len(piece) / length for piece in pieces], dtype=torch.float64)
            torch.testing.assert_close(found.summary[row], (shares.unsqueeze(1) * torch.stack([one[-1] for one in outputs])).sum(0))
    assert found.memory.data.shape == (5, 10, 4)


def test_a_text_of_100000_units_is_classified_in_little_memory() -> None:
    units = train_units("words", TEXTS)
    model = Classifier(resolve(ClassifierSettings, SMALL), units.vocabulary, units.characters, 2).eval()
    with torch.no_grad():
        assert torch.isfinite(model(units.encode([" ".join(["dog"] * 100_000)]).collate(np.arange(1)))).all()


@pytest.mark.parametrize("kind", ["recurrent", "transformer", "convolutional"])
def test_depths_count_from_the_read_out(kind: str) -> None:
    settings = resolve(TaggerSettings, SMALL | {"encoder": {"kind": kind, "layers": 3}})
    found = depths(Tagger(settings, 9, 5, 4))
    assert set(found.values()) == {0, 1, 2, 3, 4}
    assert {name for name, depth in found.items() if depth == 0} >= {"readout.weight", "crf.transitions"}
    assert found["text.embedding.weight"] == found["text.spelling.filters.weight"] == 4
    first, last = {
        "recurrent": ("layers.layers.0.", "layers.layers.4."),
        "transformer": ("stack.blocks.0.", "stack.blocks.2."),
        "convolutional": ("layers.0.", "layers.2."),
    }[kind]
    assert {depth for name, depth in found.items() if name.startswith(f"text.encoder.{first}")} == {3}
    assert {depth for name, depth in found.items() if name.startswith(f"text.encoder.{last}")} == {1}
    assert {depth for name, depth in found.items() if name.startswith("text.encoder.stack.norm")} == (
        {1} if kind == "transformer" else set()
    )


def test_masks_do_not_depend_on_how_many_processes_share_a_batch() -> None:
    batch, units = batch_of([text for text in TEXTS for _ in range(2)])
    encoder = (
        TextEncoder(resolve(TextEncoderSettings, SMALL | {"encoder": {"layers": 2}}), units.vocabulary, units.characters).double().train()
    )
    vectors = encoder.embed(batch)

    def read(rows: slice) -> torch.Tensor:
        noise = Noise(torch.Generator().manual_seed(1), rows.start, 8)
        return encoder(Padded(vectors.data[rows], vectors.lengths[rows]), noise).memory.data

    torch.testing.assert_close(torch.cat([read(slice(0, 3)), read(slice(3, 8))]), read(slice(0, 8)))


def test_a_masked_language_model_reads_out_what_is_asked_for() -> None:
    batch, units = batch_of(TEXTS)
    model = MaskedLanguageModel(resolve(TextEncoderSettings, SMALL), units.vocabulary, units.characters).double().eval()
    asked = torch.zeros_like(batch.places.data, dtype=torch.bool)
    asked[0, 2] = asked[2, 5] = True
    both = model(batch, asked)
    assert both.shape == (2, units.vocabulary)
    one = torch.zeros_like(asked)
    one[2, 5] = True
    torch.testing.assert_close(model(batch, one)[0], both[1])
    assert model.readout.weight is model.text.embedding.weight


@pytest.mark.parametrize(
    ("different", "words"),
    [
        ({"hidden_size": 13}, "`hidden_size` must be even"),
        ({"encoder": {"kind": "transformer"}, "transformer": {"heads": 5}}, "multiple of `transformer.heads`"),
        ({"encoder": {"kind": "convolutional", "width": 4}}, "`encoder.width` must be odd"),
        ({"spelling": {"width": 2}}, "`spelling.width` must be odd"),
        ({"spelling": {"kind": "recurrent", "size": 7}}, "`spelling.size` must be even"),
        (
            {"encoder": {"kind": "transformer"}, "transformer": {"heads": 3, "positions": "learned", "longest": 10}},
            "reach as far as `chunk`",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(different: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        resolve(TaggerSettings, SMALL | different)
