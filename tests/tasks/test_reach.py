"""Learned positions end somewhere: what lies beyond is refused line by line, and nothing else is lost."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.core.settings import merge, resolve
from unrolled.tasks.translation import TranslationRun, train_translation
from unrolled.tasks.translation_look import trace_translation
from unrolled.tasks.translation_request import TranslationRequest

LONGEST = 6
TINY: dict[str, Any] = {
    "data": {"tokens": "words"},
    "model": {
        "hidden_size": 8,
        "encoder": {"kind": "transformer"},
        "decoder": {"kind": "transformer"},
        "transformer": {"positions": "learned", "longest": LONGEST},
    },
    "train": {"steps": 3, "evaluations": 1, "batch_tokens": 64, "precision": "fp32"},
}
SEPARATE = merge(TINY, {"model": {"encoder": {"kind": "none"}}})
RECURRENT = merge(TINY, {"model": {"decoder": {"kind": "recurrent"}}})


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chance = random.Random(0)
    lines = [chance.choices("abc", k=chance.randint(1, 2)) for _ in range(40)]
    path = tmp_path_factory.mktemp("pairs") / "p.tsv"
    path.write_text("".join(f"{' '.join(line)}\t{' '.join(line).upper()}\n" for line in lines))
    return path


@pytest.fixture(scope="module", params=[TINY, SEPARATE, RECURRENT], ids=["both", "separate", "recurrent decoder"])
def run(request: pytest.FixtureRequest, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> TranslationRun:
    return train_translation(pairs, out=tmp_path_factory.mktemp("runs") / "r", differences=request.param)


def reads_of(run: TranslationRun) -> int:
    """The longest source that the model itself can read before its first target symbol."""
    for length in range(1, 2 * LONGEST):
        try:
            translator = run.translator()
            state = translator.start([[run.codecs.source.encode(" ".join("a" * length))]])
            with torch.inference_mode():
                translator.stepper.step(torch.tensor([run.codecs.target.start]), state)
        except ValueError:
            return length - 1
    raise AssertionError("nothing limits the source")


def test_a_line_beyond_is_left_out_and_told(run: TranslationRun) -> None:
    reads = reads_of(run)
    assert run.model.reads == reads < LONGEST + 1
    lines = ["a b", " ".join("a" * (reads + 1)), "", " ".join("c" * reads), "b"]
    request = resolve(TranslationRequest, {"beam": 2})
    for at_once in (1, 1024):
        found = list(run.stream(lines, request, at_once=at_once))
        reasons = [one[0].refused for one in found]
        assert reasons == [
            None,
            f"it has {reads + 1} symbols, and the model reads at most {reads} (`model.transformer.longest`)",
            *[None] * 3,
        ]
        assert found[1][0].text == "" and not found[1][0].ended
        others = [0, 2, 3, 4]
        alone = run.translations([lines[i] for i in others], request)
        assert [[one.text for one in found[i]] for i in others] == [[one.text for one in those] for those in alone]


def test_a_sentence_of_its_own_is_refused(run: TranslationRun) -> None:
    reads = run.model.reads
    assert reads is not None
    sentence = " ".join("a" * 60)
    said = rf"^`{sentence[:40]}…` cannot be translated: it has 60 symbols, and the model reads at most {reads} "
    for use in (lambda: run.translate(sentence), lambda: trace_translation(run, sentence), lambda: run.translate(sentence, sampling=True)):
        with pytest.raises(DataError, match=said):
            use()


def test_no_translation_runs_beyond_the_positions(run: TranslationRun) -> None:
    """However long it may get, and whatever is asked of it."""
    for length in range(1, (run.model.reads or 0) + 1):
        sentence = " ".join("b" * length)
        for wishes in ({"beam": 3}, {"sampling": True, "seed": 1}):
            found = run.translations([sentence], min_length=40, max_extra=20, **wishes)[0][0]
            assert len(found.symbols) == (run.model.room(length) or int(3.0 * length) + 20)
        assert len(trace_translation(run, sentence, beam=2, min_length=40, max_extra=20)["hypotheses"][0]["symbols"]) == len(found.symbols)


def test_what_is_asked_must_have_room(run: TranslationRun) -> None:
    wishes: dict[str, Any] = {"require": "A B C A B C"}  # with the end one more than there is room for
    if run.model.decoder.reach is None:
        assert run.translations(["a"], **wishes)[0][0].met
        return
    said = f"takes 7 symbols, and there is room for {run.model.room(1)} "
    with pytest.raises(DataError, match=said):
        run.translations(["a"], **wishes)
    assert said in str(next(run.stream(["a"], resolve(TranslationRequest, wishes)))[0].refused)


def test_together_source_and_target_must_fit(pairs: Path, tmp_path: Path) -> None:
    short = merge(SEPARATE, {"model": {"transformer": {"longest": 4}}})
    with pytest.raises(ConfigurationError, match="must reach the longest source and target together, 5 symbols with its end"):
        train_translation(pairs, out=tmp_path / "r", differences=short)
    assert train_translation(pairs, out=tmp_path / "s", differences=merge(short, {"model": {"transformer": {"longest": 5}}}))
