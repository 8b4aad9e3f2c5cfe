"""The systems that `benchmarks/kernels.py` measures beside ours compute the same as ours; those that are installed here."""

from __future__ import annotations

import importlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

PEERS = Path(__file__).parents[1] / "benchmarks" / "peers"
pytestmark = pytest.mark.skipif(not PEERS.is_dir(), reason="the measurements are not shipped")


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a file of the peers, and forgets all of them afterwards: their names are plain."""
    monkeypatch.syspath_prepend(str(PEERS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == PEERS:
            del sys.modules[name]


def asked(cell: str, mode: str, file: Path) -> dict[str, Any]:
    return {"cell": cell, "mode": mode, "batch": 1 if mode == "streaming" else 3, "hidden": 5, "steps": 7, "arrays": str(file)}


def run_ours(peer: Any, job: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return peer("run_cells").make(job)


@pytest.mark.parametrize("cell", ["gru", "peephole-lstm"])
@pytest.mark.parametrize("mode", ["inference", "streaming"])
def test_onnx_runtime_finds_our_outputs(cell: str, mode: str, peer: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    job = asked(cell, mode, tmp_path / "arrays.npz")
    works, told = run_ours(peer, job)
    assert next(iter(works)) == "compiled" and told["difference"] < 1e-5
    theirs, found = peer("run_onnxruntime").make(job, threads=1)
    assert found["difference"] < 1e-5 and list(theirs) == ["ONNX Runtime"]


@pytest.mark.parametrize("cell", ["gru", "peephole-lstm"])
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_jax_finds_our_outputs_and_gradients(cell: str, mode: str, peer: Any, tmp_path: Path) -> None:
    pytest.importorskip("jax")
    job = asked(cell, mode, tmp_path / "arrays.npz")
    run_ours(peer, job)
    assert peer("run_jax").make(job)[1]["difference"] < 1e-5


def test_other_weights_are_noticed(peer: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    job = asked("peephole-lstm", "inference", tmp_path / "arrays.npz")
    run_ours(peer, job)
    with np.load(job["arrays"]) as stored:
        arrays = dict(stored)
    assert np.abs(arrays["output_peephole"]).max() > 0.01, "peepholes of zero would show no fault"
    arrays["output_peephole"] = np.zeros_like(arrays["output_peephole"])
    np.savez(job["arrays"], **arrays)
    assert peer("run_onnxruntime").make(job, threads=1)[1]["difference"] > 1e-4


def test_differences_are_relative_to_large_numbers(peer: Any) -> None:
    parity: ModuleType = peer("parity")
    assert parity.difference({"a": np.array([1000.0, 0.5]), "b": np.array([9.0])}, {"a": np.array([1001.0, 0.5])}) == pytest.approx(1e-3)
    assert parity.difference({"a": np.array([0.5])}, {"a": np.array([0.25])}) == pytest.approx(0.25)


def test_a_cell_never_seen_is_compiled(peer: Any) -> None:
    from unrolled.nn.recurrence import Recurrence

    cell = peer("two_clocks").TwoClocks(40, 40)
    xs = torch.randn(3, 6, 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unrolled.nn.recurrence.run_steps", None)
        ours = Recurrence(cell)(xs)[0]
    assert torch.allclose(ours, Recurrence(cell, plain=True)(xs)[0], atol=1e-5)


def test_a_worker_answers_line_by_line(peer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = peer("turns")
    runs: list[str] = []
    out = io.StringIO()

    def make(given: dict[str, Any]) -> Any:
        print("words of others")
        return {"one": lambda: runs.append(given["cell"])}, {"difference": 0.5}

    questions = [{"make": {"cell": "mine"}}, {"turn": "one", "least": 0, "warm": True}, {"turn": "one", "least": 0, "warm": False}]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(json.dumps(one) + "\n" for one in questions)))
    monkeypatch.setattr(sys, "stdout", out)
    turns.serve(make)
    answers = [json.loads(one) for one in out.getvalue().splitlines()]
    assert answers[0] == {"names": ["one"], "difference": 0.5} and answers[1]["milliseconds"] > 0 and len(answers) == 3
    assert runs == ["mine"] * 3
