"""The causal Transformer keeps the contract of the recurrent language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from unrolled.core.errors import ConfigurationError
from unrolled.core.settings import resolve
from unrolled.core.state import detach_state
from unrolled.models.language_model import LanguageModel, LanguageModelSettings
from unrolled.tasks.language_model import resume_language_model, train_language_model

VOCABULARY = 9


def build(**differences: Any) -> LanguageModel:
    torch.manual_seed(0)
    small = {"kind": "transformer", "hidden_size": 8, "layers": 2, "context": 6, "transformer": {"heads": 2}}
    return LanguageModel(resolve(LanguageModelSettings, {**small, **differences}), VOCABULARY).double().eval()


def ids() -> torch.Tensor:
    return torch.randint(VOCABULARY, (3, 17), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize(
    "differences", [{}, {"tie_weights": True}, {"context": 32}, {"transformer": {"heads": 2, "norm": "post", "positions": "learned"}}]
)
def test_step_by_step_equals_the_whole(differences: dict[str, Any]) -> None:
    """Also past the end of the context, where the last half is read again."""
    model = build(**differences)
    whole, _ = model(ids())
    state = model.initial_state(3)
    for t in range(ids().shape[1]):
        logits, state = model.step(ids()[:, t], state)
        torch.testing.assert_close(logits, whole[:, t])


@torch.no_grad()
def test_windows_with_a_carried_state_equal_one_reading() -> None:
    model, state, parts = build(), None, []
    for start in range(0, 17, 5):
        logits, state = model(ids()[:, start : start + 5], state)
        state = detach_state(state)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, 1), model(ids())[0])


@torch.no_grad()
def test_a_restarted_row_has_forgotten() -> None:
    model = build()
    _, state = model(ids()[:, :4])
    state = model.restart(state, torch.tensor([False, True, False]))
    after, _ = model(ids()[:, 4:8], state)
    fresh, _ = model(ids()[1:2, 4:8])
    carried, _ = model(ids()[:1, :8])
    torch.testing.assert_close(after[1], fresh[0])
    torch.testing.assert_close(after[0], carried[0, 4:])


def test_it_trains_samples_and_resumes(text: Path, tmp_path: Path) -> None:
    differences = {
        "model": {"kind": "transformer", "hidden_size": 16, "layers": 2, "context": 24, "hidden_dropout": 0.1, "transformer": {"heads": 2}},
        "train": {
            "steps": 150,
            "schedule": {"warmup_steps": 10},
            "batch_size": 4,
            "window": 8,
            "evaluations": 2,
            "evaluation_batch_size": 4,
            "precision": "fp32",
            "threads": 1,
        },
        "samples": {"length": 20},
    }
    run = train_language_model(text, out=tmp_path / "r", differences=differences)
    assert run.evaluate().loss < 2.2
    assert run.sample("the", length=60, seed=1) == run.sample("the", length=60, seed=1)
    assert resume_language_model(run.folder.path, changes={"train": {"steps": 154}}).summary()["steps"] == 154


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog\nand runs away from it\n" * 30)
    return path


@pytest.mark.parametrize(
    ("differences", "message"),
    [
        ({"weight_drop": 0.1}, "`weight_drop` is for recurrent layers"),
        ({"embedding_size": 4}, "must be its `hidden_size`, 8, got 4"),
        ({"transformer": {"heads": 3}}, "multiple of `transformer.heads`"),
    ],
)
def test_what_does_not_fit_is_refused(differences: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build(**differences)
