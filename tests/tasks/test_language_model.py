"""The language-model task from file to text: learn, save, load, score, sample, stop, go on."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from unrolled import load, resume_language_model, train_language_model
from unrolled.core.errors import ConfigurationError, DataError, RunError
from unrolled.core.files import read_lines
from unrolled.nn.cells import CELLS
from unrolled.tasks.run_folder import RunFolder
from unrolled.train.loop import Trainer


@pytest.mark.parametrize("cell", CELLS)
def test_hello_is_learnt_exactly(cell: str, tmp_path: Path) -> None:
    """ "hello" over {h, e, l, o}: the two l's need a memory."""
    text = tmp_path / "hello.txt"
    text.write_text("hello" * 40)
    differences = {
        "model": {"cell": cell, "hidden_size": 16, "embedding_size": 8},
        "train": {
            "steps": 150,
            "batch_size": 4,
            "window": 20,
            "evaluations": 1,
            "optimizer": {"learning_rate": 0.02},
            "schedule": {"warmup_steps": 5},
        },
        "samples": {"length": 0},
    }
    run = train_language_model([text], out=tmp_path / "run", differences=differences)
    assert run.sample("h", length=4, temperature=0) == "hello"
    assert run.evaluate(streams=1).loss < 0.05


@pytest.fixture
def trained(text: Path, tiny: dict[str, Any], tmp_path: Path) -> Any:
    return train_language_model([text], out=tmp_path / "run", differences=tiny)


def test_the_run_folder_is_whole(trained: Any) -> None:
    names = {path.name for path in trained.folder.path.iterdir()}
    expected = {
        "run.json",
        "config.toml",
        "tokenizer.json",
        "weights.safetensors",
        "checkpoint.safetensors",
        "metrics.jsonl",
        "samples.jsonl",
        "report.html",
        "cache",
        ".lock",
    }
    assert names == expected
    facts = trained.folder.facts()
    assert facts["status"] == "finished" and facts["result"]["steps"] == 12
    assert facts["data"]["files"] == ["../text.txt"]
    assert [line["kind"] for line in read_lines(trained.folder.metrics)].count("valid") == 3
    assert len(read_lines(trained.folder.samples)) == 3


def test_loading_gives_the_same_model(trained: Any) -> None:
    again = load(trained.folder.path)
    ours, theirs = dict(trained.model.named_parameters()), dict(again.model.named_parameters())
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert again.sample("the", length=30, seed=1) == trained.sample("the", length=30, seed=1)
    assert again.evaluate() == trained.evaluate()


def test_the_best_weights_score_as_recorded(trained: Any) -> None:
    best = min(line["loss"] for line in read_lines(trained.folder.metrics) if line["kind"] == "valid")
    assert trained.evaluate().loss == pytest.approx(best, abs=1e-6)


def test_scores_hardly_depend_on_the_number_of_streams(trained: Any) -> None:
    one, four = trained.evaluate(streams=1), trained.evaluate(streams=4)
    assert one.symbols >= four.symbols > 0
    assert one.loss == pytest.approx(four.loss, rel=0.05)


def test_the_cache_may_be_deleted(trained: Any) -> None:
    before = trained.evaluate()
    shutil.rmtree(trained.folder.cache)
    assert load(trained.folder.path).evaluate() == before


def test_a_run_that_can_only_be_read_is_scored(trained: Any, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, path = trained.evaluate(files=[text]), trained.folder.path
    shutil.rmtree(trained.folder.cache)
    found = sorted(path.rglob("*"))
    monkeypatch.setattr(os, "access", lambda place, _: path not in (place, *place.parents))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "of-the-user"))
    assert load(path).evaluate(files=[text]) == before
    assert sorted(path.rglob("*")) == found and any((tmp_path / "of-the-user" / "unrolled").iterdir())


def test_the_run_may_move_with_its_data(trained: Any, text: Path, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    shutil.move(trained.folder.path, place / "run")
    shutil.move(text, place / "text.txt")
    assert load(place / "run").evaluate().symbols > 0


def test_changed_data_is_noticed(trained: Any, text: Path) -> None:
    text.write_text("something else " * 50)
    with pytest.raises(RunError, match="has changed since it was trained"):
        load(trained.folder.path).evaluate()


@pytest.mark.parametrize("tokens", ["characters", "words", "bpe"])
def test_every_kind_of_token(tokens: str, text: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["data"] = {"tokens": tokens, "vocabulary_size": 300 if tokens == "bpe" else None}
    tiny["train"]["batch_size"] = 2
    run = train_language_model([text], out=tmp_path / "run", differences=tiny)
    found = run.evaluate()
    assert 0 < found.bits_per_character < 10 and found.word_perplexity > 1
    assert run.sample("the quick", length=5, seed=0).startswith("the quick")


def test_bits_per_character_compare_across_tokens(text: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    """An untrained model of V symbols costs about log2 V bits a symbol, whatever a symbol is; per character this is comparable."""
    tiny["train"] |= {"steps": 1, "optimizer": {"learning_rate": 1e-9}, "evaluations": 1, "batch_size": 2}
    for tokens in ("characters", "words"):
        run = train_language_model([text], out=tmp_path / tokens, differences={**tiny, "data": {"tokens": tokens}})
        found = run.evaluate(streams=1)
        assert found.bits_per_character == pytest.approx(found.loss / 0.6931 * found.symbols / (len(text.read_text()) * 0.1), rel=0.05)


WRAPPED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gru": ({"cell": "gru", "layers": 2, "hidden_dropout": 0.2}, {"average": 0.9, "accumulate": 2}),
    "awd": (
        {"layers": 2, "tie_weights": True, "weight_drop": 0.3, "word_dropout": 0.1, "hidden_dropout": 0.1},
        {"optimizer": {"name": "asgd", "learning_rate": 1e-9}, "evaluations": 14, "activation_penalty": 2.0, "smoothness_penalty": 1.0},
    ),
    "zoneout": ({"zoneout": {"h": 0.1, "c": 0.3}, "recurrent_dropout": 0.2}, {"average": 0.9, "clip_value": 0.01}),
    "k2 and samples": ({}, {"backpropagate": 13, "sampled_softmax": 5, "schedule": {"name": "plateau"}, "evaluations": 7}),
}


@pytest.mark.parametrize("model", WRAPPED)
def test_stopped_and_resumed_equals_uninterrupted(model: str, text: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    """Bit for bit, with every source of randomness in play and the average of the weights carried along."""
    tiny["model"] |= WRAPPED[model][0]
    tiny["train"] |= {"steps": 14, **WRAPPED[model][1]}

    whole = train_language_model([text], out=tmp_path / "whole", differences=tiny)

    stop_at = 9 if model == "awd" else 5  # after averaged SGD has begun to average

    class Stop:
        """Presses Ctrl-C after some updates."""

        def advanced(self, done: float, record: dict[str, Any]) -> None:
            if record["step"] == stop_at:
                import signal

                signal.raise_signal(signal.SIGINT)

        def begun(self, facts: dict[str, Any]) -> None: ...

        def evaluated(self, record: dict[str, Any]) -> None: ...

        def sampled(self, record: dict[str, Any]) -> None: ...

        def noted(self, text: str) -> None: ...

    stopped = train_language_model([text], out=tmp_path / "parts", differences=tiny, display=Stop())
    assert stopped.folder.facts()["status"] == "stopped" and stopped.folder.facts()["result"]["steps"] == stop_at
    resumed = resume_language_model(tmp_path / "parts")
    assert_same_run(whole.folder, resumed.folder)


TIMINGS = {"seconds", "tokens_per_second"}


def assert_same_run(one: Any, other: Any) -> None:
    """Weights, state of training, metrics and samples agree to the last bit, timings aside."""
    for name in ("weights", "checkpoint"):
        a, b = load_file(getattr(one, name)), load_file(getattr(other, name))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), name
    for name in ("metrics", "samples"):
        a, b = ([{k: v for k, v in line.items() if k not in TIMINGS} for line in read_lines(getattr(run, name))] for run in (one, other))
        assert json.dumps(a) == json.dumps(b)


def test_the_same_seed_trains_the_same_model(text: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    one, other = (train_language_model([text], out=tmp_path / name, differences=tiny) for name in "ab")
    assert_same_run(one.folder, other.folder)
    tiny["train"]["seed"] = 1
    third = train_language_model([text], out=tmp_path / "c", differences=tiny)
    assert third.evaluate().loss != one.evaluate().loss


def test_only_the_end_may_change_on_resume(trained: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"`model.hidden_size` cannot change when a run goes on"):
        resume_language_model(trained.folder.path, changes={"model": {"hidden_size": 3}})
    longer = resume_language_model(trained.folder.path, changes={"train": {"steps": 16}})
    assert longer.folder.facts()["result"]["steps"] == 16
    assert [line["step"] for line in read_lines(longer.folder.metrics) if line["kind"] == "valid"] == [4, 8, 12, 16]


def test_documents_do_not_see_each_other(tiny: dict[str, Any], tmp_path: Path) -> None:
    """With several files, the state starts afresh where one begins."""
    for name, content in (("a", "abababab" * 40), ("b", "cdcdcdcd" * 40)):
        (tmp_path / f"{name}.txt").write_text(content)
    run = train_language_model([tmp_path / "a.txt", tmp_path / "b.txt"], valid=[tmp_path / "a.txt"], out=tmp_path / "run", differences=tiny)
    assert run.folder.facts()["data"]["train_tokens"] == 640


def test_early_stopping(text: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["train"] |= {
        "steps": 500,
        "evaluations": 100,
        "patience": 2,
        "optimizer": {"learning_rate": 1e-9},
        "schedule": {"name": "constant"},
    }
    run = train_language_model([text], out=tmp_path / "run", differences=tiny)
    assert run.folder.facts()["result"]["steps"] < 500


def test_divergence_is_one_sentence(text: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["train"] |= {"clip_norm": None, "steps": 400, "optimizer": {"name": "sgd", "learning_rate": 1e30}}
    with pytest.raises(ValueError, match=r"stopped being finite at step \d+.*--resume --set train.optimizer.learning_rate="):
        train_language_model([text], out=tmp_path / "run", differences=tiny)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


def test_tensorboard_files_hold_the_metrics(text: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tiny["train"]["tensorboard"] = True
    run = train_language_model([text], out=tmp_path / "run", differences=tiny)
    events = EventAccumulator(str(run.folder.tensorboard))
    events.Reload()
    written = [(event.step, event.value) for event in events.Scalars("valid/loss")]
    recorded = [(line["step"], line["loss"]) for line in read_lines(run.folder.metrics) if line["kind"] == "valid"]
    assert [step for step, _ in written] == [step for step, _ in recorded]
    assert [value for _, value in written] == pytest.approx([value for _, value in recorded], rel=1e-6)


def test_a_text_too_short_leaves_nothing(tmp_path: Path, tiny: dict[str, Any]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("ab")
    with pytest.raises(DataError):
        train_language_model([text], out=tmp_path / "new" / "run", differences=tiny)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.txt"]


class Listen:
    """A display that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def begun(self, facts: dict[str, Any]) -> None: ...

    def advanced(self, done: float, record: dict[str, Any]) -> None: ...

    def evaluated(self, record: dict[str, Any]) -> None: ...

    def sampled(self, record: dict[str, Any]) -> None: ...

    def noted(self, text: str) -> None:
        self.said.append(text)


def test_an_own_cell_asks_for_trust(text: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_cells.py").write_text(
        "import torch\nfrom unrolled.nn.cell import Cell, HiddenState\n\n"
        "class Leaky(Cell):\n"
        "    def __init__(self, input_size, hidden_size):\n"
        "        super().__init__()\n"
        "        self.input_size, self.hidden_size = input_size, hidden_size\n"
        "        self.mix = torch.nn.Linear(input_size + hidden_size, hidden_size)\n\n"
        "    def step(self, x, state):\n"
        "        h = torch.lerp(state.h, torch.tanh(self.mix(torch.cat([x, state.h], -1))), 0.5)\n"  # refuses mixed dtypes
        "        return h, HiddenState(h)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    tiny["model"]["cell"] = "my_cells:Leaky"
    tiny["train"]["precision"] = "bf16"
    with pytest.raises(ConfigurationError, match=r"would run .*my_cells\.py`; give `--trust`"):
        train_language_model([text], out=tmp_path / "run", differences=tiny)
    heard = Listen()
    run = train_language_model([text], out=tmp_path / "run", differences=tiny, trust=True, display=heard)
    with pytest.raises(ConfigurationError, match="give `--trust`"):
        load(run.folder.path)
    assert load(run.folder.path, trust=True).evaluate() == run.evaluate()
    assert run.folder.fact("cells") == "Leaky: one step after the other"  # too small to be compiled
    assert heard.said == ["Leaky: one step after the other"]


@pytest.mark.parametrize(
    ("size", "step", "words"),
    [
        ("self.hidden_size = 3", "return state.h", r"of the cell `Owing` must give back a pair, .* got a tensor \[\d+, 3\]"),
        ("self.hidden_size = 4", "return state.h[:, :3], state", r"an output \[batch, 4\], as its `hidden_size` says, got \[\d+, 3\]"),
        ("pass", "return state.h, state", "`Owing` must say how wide it is, found no size; set `self.hidden_size`"),
    ],
)
def test_what_an_own_cell_owes_is_told(
    size: str, step: str, words: str, text: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "owing.py").write_text(
        "import torch\nfrom unrolled.nn.cell import Cell, HiddenState\n\nclass Owing(Cell):\n"
        f"    def __init__(self, input_size, hidden_size):\n        super().__init__(); self.input_size = input_size; {size}\n\n"
        f"    def step(self, x, state):\n        {step}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "owing", raising=False)
    tiny["model"]["cell"] = "owing:Owing"
    with pytest.raises(ConfigurationError, match=words):
        train_language_model([text], out=tmp_path / "runs" / "run", differences=tiny, trust=True)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("method", "line"), [("__init__", 6), ("initial_state", 9), ("step", 12)])
def test_an_error_inside_an_own_cell_is_told_as_that(
    method: str, line: int, text: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / f"broken_{method.strip('_')}.py"
    wrong = {name: "raise ValueError('a b')" if name == method else "pass" for name in ("__init__", "initial_state", "step")}
    file.write_text(
        "from unrolled.nn.cell import Cell, HiddenState\n\nclass Broken(Cell):\n"
        "    def __init__(self, input_size, hidden_size):\n"
        f"        super().__init__(); self.input_size, self.hidden_size = input_size, hidden_size\n        {wrong['__init__']}\n\n"
        f"    def initial_state(self, batch_size):\n        {wrong['initial_state']}; return super().initial_state(batch_size)\n\n"
        f"    def step(self, x, state):\n        {wrong['step']}; return state.h, state\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    tiny["model"]["cell"] = f"{file.stem}:Broken"
    with pytest.raises(ConfigurationError, match=rf"`{method}` of your cell `Broken` .* ValueError: a b \(`.*{file.name}`, line {line}\)"):
        train_language_model([text], out=tmp_path / "runs" / "run", differences=tiny, trust=True)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("updates", [0, 2])
def test_a_failed_training_stays_where_something_was_trained(
    updates: int, text: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also an interrupted one, and never what stood there before."""
    update = Trainer._update

    def fail(trainer: Trainer, done: float) -> None:
        if trainer.counters.step == updates:
            raise KeyboardInterrupt
        update(trainer, done)

    (tmp_path / "mine").mkdir()
    monkeypatch.setattr(Trainer, "_update", fail)
    with pytest.raises(KeyboardInterrupt):
        train_language_model([text], out=tmp_path / "mine" / "run", differences=tiny)
    assert (tmp_path / "mine").exists() and (tmp_path / "mine" / "run").exists() == (updates > 0)
    if updates:
        assert RunFolder(tmp_path / "mine" / "run").status() == "interrupted"


def test_a_kill_before_the_first_checkpoint(text: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    """What was logged before anything was saved is not there twice after resuming."""
    tiny["train"]["evaluations"] = 1
    whole = train_language_model([text], out=tmp_path / "whole", differences=tiny)
    killed = train_language_model([text], out=tmp_path / "killed", differences=tiny)
    for file in (killed.folder.checkpoint, killed.folder.weights):
        file.unlink()
    killed.folder.update_facts(status="running")
    assert killed.folder.status() == "interrupted"
    assert_same_run(whole.folder, resume_language_model(tmp_path / "killed").folder)


def test_a_time_bounded_run_goes_on(text: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    del tiny["train"]["steps"]
    tiny["train"] |= {"minutes": 0.01, "log_every": 1}
    first = train_language_model([text], out=tmp_path / "run", differences=tiny).folder.facts()["result"]
    more = resume_language_model(tmp_path / "run", changes={"train": {"minutes": 0.02}}).folder.facts()["result"]
    assert first["seconds"] < more["seconds"] and first["steps"] < more["steps"]


def test_a_folder_of_runs_may_be_a_link(text: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "runs").symlink_to(tmp_path / "far" / "away")
    run = train_language_model("text.txt", differences=tiny)
    assert run.folder.path == Path("runs/lm-text-1") and run.evaluate().symbols > 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"samples": {"prompt": "Ω"}}, "Ω"),
        ({"train": {"optimizer": {"betas": [0.9, 1.5]}}}, "below 1, got `1.5`"),
        ({"train": {"seed": 2**64}}, "below 9,223"),
        ({"model": {"cell": "feed-forward", "weight_drop": 0.5}}, "weight drop needs recurrent weights"),
        ({"data": {"vocabulary_size": 20}}, "characters are all kept"),
        ({"data": {"min_count": 2}}, "`data.min_count` is for words"),
    ],
)
def test_what_could_never_be_finished_is_never_begun(
    change: dict[str, Any], sentence: str, text: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    from unrolled.core.settings import merge

    with pytest.raises(ValueError, match=sentence):
        train_language_model([text], out=tmp_path / "run", differences=merge(tiny, change))
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_a_validation_text_too_short(text: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("a")
    with pytest.raises(DataError, match="at least 2 symbols to validate on, got 1"):
        train_language_model([text], valid=[tmp_path / "short.txt"], out=tmp_path / "run", differences=tiny)
    assert not (tmp_path / "run").exists()


def test_a_refused_resume_changes_nothing(trained: Any, text: Path) -> None:
    text.write_text("something else " * 50)
    before = (trained.folder.facts_file.read_text(), trained.folder.config.read_text())
    with pytest.raises(RunError, match="has changed"):
        resume_language_model(trained.folder.path, changes={"train": {"steps": 99}})
    assert before == (trained.folder.facts_file.read_text(), trained.folder.config.read_text())


def test_one_training_at_a_time(trained: Any) -> None:
    with trained.folder.in_use(), pytest.raises(RunError, match="is being trained by another process"):
        resume_language_model(trained.folder.path)


def test_what_a_kill_during_set_up_left_is_swept(text: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    left, busy = tmp_path / ".unfinished-old-1", tmp_path / ".unfinished-other-2"
    for folder in (left, busy):
        folder.mkdir()
        (folder / ".lock").touch()
    from unrolled.tasks.run_folder import RunFolder

    with RunFolder(busy).in_use():
        train_language_model([text], out=tmp_path / "run", differences=tiny)
    assert not left.exists() and busy.exists()


def test_tampered_numbers_are_noticed(trained: Any) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    tensors = load_file(trained.folder.weights)
    with safe_open(trained.folder.weights, "pt") as file:
        header = file.metadata()
    name = "readout.weight"
    for changed in (tensors[name] * torch.nan, tensors[name].to(torch.int8), tensors[name] + 1e-3):
        save_file({**tensors, name: changed}, trained.folder.weights, header)
        with pytest.raises(RunError, match="some have been changed since"):
            load(trained.folder.path)


def test_going_on_elsewhere_is_said(trained: Any) -> None:
    facts = trained.folder.facts()
    trained.folder.update_facts(machine={**facts["machine"], "processor": "another", "processes": 3}, cells="LSTM: a compiled loop")
    resume_language_model(trained.folder.path, changes={"train": {"steps": 14}}, display=(heard := Listen()))
    assert len(heard.said) == 1 and "processes 1 (was 3)" in heard.said[0] and "(was another)" in heard.said[0]
    assert trained.folder.fact("machine")["processes"] == 1
    assert trained.folder.fact("cells") == "", "here it is torch's kernel"


def test_a_prompt_is_repeated_as_it_was_given(text: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    run = train_language_model([text], out=tmp_path / "run", differences={**tiny, "data": {"tokens": "words"}})
    assert run.sample("the   quick", length=2, seed=0).startswith("the   quick")


def test_the_averaged_weights_are_what_is_kept(text: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["train"] |= {"average": 0.9, "evaluations": 1}
    run = train_language_model([text], out=tmp_path / "run", differences=tiny)
    kept, saved = load_file(run.folder.weights), load_file(run.folder.checkpoint)
    assert torch.equal(kept["readout.weight"], saved["average.module.model.readout.weight"])
    assert not torch.equal(kept["readout.weight"], saved["model.model.readout.weight"])
