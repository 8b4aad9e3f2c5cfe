"""The mean of several stages of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from unrolled.core.errors import RunError
from unrolled.tasks.averaging import average_run
from unrolled.tasks.language_model import load_language_model, resume_language_model, train_language_model
from unrolled.train.checkpoint import read_checkpoint


def test_the_mean_of_what_was_kept(text: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["train"] |= {"keep": 2, "evaluations": 3}
    run = train_language_model(text, out=tmp_path / "r", differences=tiny)
    kept = sorted(run.folder.kept.iterdir())
    assert [int(path.stem) for path in kept] == [8, 12]
    average_run(run.folder.path, tmp_path / "other" / "mean")
    mean = load_language_model(tmp_path / "other" / "mean")
    parts = [read_checkpoint(path)[0] for path in kept]
    for name, weight in mean.model.named_parameters():
        torch.testing.assert_close(weight.detach(), (parts[0][name] + parts[1][name]) / 2)
    assert mean.evaluate().loss == pytest.approx(mean.evaluate(text, streams=4).loss, abs=2)
    assert "steps 8, 12 of `r`" in mean.folder.facts()["note"]
    with pytest.raises(RunError, match="mean of several stages"):
        resume_language_model(tmp_path / "other" / "mean", changes={"train": {"steps": 20}})
    average_run(run.folder.path, tmp_path / "one", last=1)
    assert torch.equal(load_language_model(tmp_path / "one").model.embedding.weight, parts[1]["embedding.weight"])


def test_a_resumed_training_keeps_the_last_ones_of_its_own(text: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["train"] |= {"keep": 2, "steps": 12, "evaluations": 3}
    run = train_language_model(text, out=tmp_path / "r", differences=tiny)
    resume_language_model(run.folder.path, changes={"train": {"steps": 24}})
    assert [int(path.stem) for path in sorted(run.folder.kept.iterdir())] == [16, 24]


def test_too_few_are_said(text: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    run = train_language_model(text, out=tmp_path / "r", differences=tiny)
    with pytest.raises(RunError, match=r"keeps the weights of 0 evaluations, 3 are asked for; train with `train.keep=3`"):
        average_run(run.folder.path, tmp_path / "mean", last=3)
    assert not (tmp_path / "mean").exists()
