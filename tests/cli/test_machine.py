"""`--device` and `--threads` of every verb that uses a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from unrolled import load
from unrolled.tasks import loading
from unrolled.train.precision import choose_device

from .conftest import SMALL, Command
from .test_bad_input import refused
from .test_translation_verbs import SMALL as SMALL_PAIRS


@pytest.fixture
def runs(command: Command, text: Path, tmp_path: Path) -> Path:
    (tmp_path / "p.tsv").write_text("a b\tb a\nb\tb\n" * 20)
    assert command("train", "lm", text.name, "--out", "lm", *SMALL).returncode == 0
    assert command("train", "translation", "p.tsv", "--out", "pairs", *SMALL_PAIRS).returncode == 0
    return tmp_path


@pytest.fixture
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


VERBS = [
    ["eval", "lm"],
    ["sample", "lm", "--length", "5", "--seed", "1"],
    ["eval", "pairs"],
    ["look", "pairs", "a b"],
]


def test_every_verb_computes_where_it_is_told(command: Command, runs: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    asked: list[str] = []

    def choose(name: str, option: str = "device") -> torch.device:
        asked.append(name)
        return choose_device("cpu" if name == "auto" else name, option)

    monkeypatch.setattr(loading, "choose_device", choose)
    for verb in VERBS:
        plain = command(*verb)
        told = command(*verb, "--device", "cpu", "--threads", str(threads + 1))
        assert plain.returncode == told.returncode == 0, told.stderr
        assert told.stdout == plain.stdout
        assert torch.get_num_threads() == threads + 1
        torch.set_num_threads(threads)
    assert asked == ["auto", "cpu"] * len(VERBS)
    for verb in VERBS:
        refused(command(*verb, "--device", "gpu7"), "`device` must be a device of this machine, got `gpu7`", "try `cpu` or `auto`")
        refused(command(*verb, "--threads", "0"), "--threads")


def test_predict_computes_where_it_is_told(command: Command, runs: Path) -> None:
    plain, told = (command("predict", "pairs", *more, given="a b\n") for more in ([], ["--device", "cpu", "--threads", "2"]))
    assert plain.returncode == told.returncode == 0, told.stderr
    assert plain.stdout == told.stdout != ""
    refused(command("predict", "pairs", "--device", "gpu7", given="a b\n"), "`device` must be a device of this machine, got `gpu7`")


def test_all_of_a_run_is_moved(runs: Path) -> None:
    """The device `meta` is on every machine; nothing can be computed on it."""
    assert load(runs / "lm").model.device.type == "cpu"
    assert load(runs / "lm", device="meta").model.device.type == "meta"
    voices = load(runs / "pairs", device="meta").translator([runs / "pairs"]).voices
    assert [voice.model.device.type for voice in voices] == ["meta", "meta"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_figures(command: Command, runs: Path) -> None:
    for run in ("lm", "pairs"):
        on_cpu, on_gpu = (json.loads(command("eval", run, "--json", "--device", device).stdout) for device in ("cpu", "cuda"))
        assert on_gpu["loss"] == pytest.approx(on_cpu["loss"], rel=1e-3)
