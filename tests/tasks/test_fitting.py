"""Fitted models from files to runs, held to what can be computed by hand: enumeration, closed forms, the same by the model object alone."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unrolled
from unrolled.cli.fit import VERBS
from unrolled.core.errors import ConfigurationError, DataError, RunError
from unrolled.core.padded import pad
from unrolled.data.series import Series
from unrolled.data.time_axis import counted
from unrolled.report import state_look, write_look
from unrolled.ssm.hmm import HiddenMarkovModel
from unrolled.tasks import fitting, loading, run_folder
from unrolled.tasks.fit_hmm import fit_hidden_markov_model
from unrolled.tasks.fit_linear import fit_linear_dynamical_system, fit_structural_model
from unrolled.tasks.fit_look import trace_fit
from unrolled.tasks.hidden_markov_run import HiddenMarkovRun

START: dict[str, Any] = {
    "initial": [0.6, 0.4],
    "transition": [[0.7, 0.3], [0.2, 0.8]],
    "probabilities": [[0.5, 0.4, 0.1], [0.1, 0.2, 0.7]],
}
SYMBOLS = "acbcc"


def unfitted(folder: Path) -> HiddenMarkovRun:
    """A run whose model is what was given: no iteration."""
    (folder / "text.txt").write_text(f"{SYMBOLS}\nab\n")
    (folder / "start.json").write_text(json.dumps(START))
    model = {"start": str(folder / "start.json"), "iterations": 0}
    run = fit_hidden_markov_model(folder / "text.txt", out=folder / "run", differences={"model": model})
    assert isinstance(run, HiddenMarkovRun)
    return run


def enumerated() -> tuple[np.ndarray, tuple[int, ...], float]:
    """Posterior, likeliest path and log-likelihood of `SYMBOLS`, over all paths."""
    codes = ["abc".index(symbol) for symbol in SYMBOLS]
    joint = {}
    for path in product(range(2), repeat=len(codes)):
        chance = START["initial"][path[0]]
        for t, state in enumerate(path):
            chance *= START["probabilities"][state][codes[t]] * (START["transition"][path[t - 1]][state] if t else 1)
        joint[path] = chance
    total = sum(joint.values())
    posterior = np.array(
        [[sum(p for path, p in joint.items() if path[t] == state) / total for state in range(2)] for t in range(len(codes))]
    )
    return posterior, max(joint, key=joint.__getitem__), math.log(total)


def test_states_of_symbols_are_those_of_enumeration(tmp_path: Path) -> None:
    run = unfitted(tmp_path)
    first = run.open().series[0]
    posterior, path, log_likelihood = enumerated()
    states = run.states(first)
    assert states.probabilities == pytest.approx(posterior, abs=1e-12)
    assert tuple(states.path - 1) == path
    assert run.model.score(torch.from_numpy(first.values)) == pytest.approx(log_likelihood)
    ahead = posterior[-1] @ np.array(START["transition"])
    assert run.coming_states(first, 2)[0] == pytest.approx(ahead)
    forecast = run.forecast(first, 1)
    assert forecast.targets == ("a", "b", "c")
    assert forecast.best[0] == pytest.approx(ahead @ np.array(START["probabilities"]))


def test_a_run_keeps_what_was_fitted(tmp_path: Path) -> None:
    run = unfitted(tmp_path)
    again = unrolled.load(tmp_path / "run")
    assert again.evaluate() == run.evaluate()
    assert again.evaluate().perplexity == pytest.approx(math.exp(again.evaluate().loss))
    assert again.model.aic() == again.summary()["aic"] == run.model.aic()
    assert {part["name"] for part in again.learnt()} == {"states", "symbols", "from ↓ to →"}
    assert next(part for part in again.learnt() if part["name"] == "symbols")["columns"] == ["a", "b", "c"]
    assert [line["iteration"] for line in again.history()] == [0]
    with pytest.raises(RunError, match="exists already"):
        fit_hidden_markov_model(tmp_path / "text.txt", out=tmp_path / "run")


def test_the_rooms_agree_on_what_is_fitted() -> None:
    """Each keeps names of its own: the command line is light, reports import no tasks, and a run folder is below them all."""
    assert {task.name for task in loading.FITTED} == set(run_folder.FITTED) == VERBS.keys() == state_look.KINDS.keys()


def test_a_fitted_run_is_opened_on_the_processor_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unfitted(tmp_path)
    monkeypatch.setattr(loading, "choose_device", lambda device: torch.device("cuda"))
    with pytest.raises(ConfigurationError, match="computes on the processor alone, got `--device cuda`"):
        unrolled.load(tmp_path / "run", device="cuda")


def csv_of(path: Path, **columns: Any) -> Path:
    rows = zip(*columns.values(), strict=True)
    path.write_text("\n".join([",".join(columns), *(",".join("" if cell is None else str(cell) for cell in row) for row in rows)]) + "\n")
    return path


def two_levels(time: int = 60) -> list[float]:
    noise = torch.randn(time, generator=torch.Generator().manual_seed(1)).tolist()
    return [round(noise[t] + 6 * (t // 10 % 2), 3) for t in range(time)]


def test_several_series_are_fitted_together(tmp_path: Path) -> None:
    values, names = two_levels(), ["x"] * 25 + ["y"] * 35
    path = csv_of(tmp_path / "two.csv", shop=names, sold=[None if t == 7 else value for t, value in enumerate(values)])
    run = fit_hidden_markov_model(path, out=tmp_path / "run", differences={"data": {"series": "shop"}, "model": {"restarts": 1}})
    parts = [torch.tensor(values[:25]).double().unsqueeze(1), torch.tensor(values[25:]).double().unsqueeze(1)]
    parts[0][7] = torch.nan
    alone = HiddenMarkovModel(states=2, restarts=1)
    alone.fit(parts)
    assert run.model.score(pad(parts)) == pytest.approx(alone.score(pad(parts)))
    assert run.folder.fact("data")["values"] == 59
    assert [one.series for one in run.forecasts(run.open(), 1)] == ["x", "y"]
    assert run.summary()["bic"] == pytest.approx(alone.bic(pad(parts)))


def test_the_band_of_a_mixture_holds_its_share(tmp_path: Path) -> None:
    run = fit_hidden_markov_model(csv_of(tmp_path / "a.csv", x=two_levels()), out=tmp_path / "run", differences={"model": {"restarts": 1}})
    assert isinstance(run, HiddenMarkovRun)
    series = run.open().series[0]
    forecast = run.forecast(series, 8, level=0.9)
    shares = torch.from_numpy(run.coming_states(series, 8))
    normal = torch.distributions.Normal(run.model.emission.mean()[:, 0], run.model.emission.variance()[:, 0].sqrt())
    assert forecast.low is not None
    assert forecast.high is not None
    for step in range(8):
        for end, wanted in ((forecast.low, 0.05), (forecast.high, 0.95)):
            below = float((shares[step] * normal.cdf(torch.tensor(float(end[step, 0])))).sum())
            assert below == pytest.approx(wanted, abs=0.015)
    assert forecast.best[:, 0] == pytest.approx((shares @ run.model.emission.mean())[:, 0].numpy())
    with pytest.raises(ConfigurationError, match="`level` must be above 0"):
        run.forecast(series, 1, level=1.0)


@pytest.mark.parametrize("emission", ["poisson", "bernoulli", "mixture", "autoregressive", "gaussian"])
def test_every_emission_is_fitted_told_and_drawn(emission: str, tmp_path: Path) -> None:
    values = [float(value > 3) if emission == "bernoulli" else round(abs(value)) for value in two_levels(40)]
    more: dict[str, Any] = {"emission": emission, "iterations": 3, "restarts": 1, "structure": "banded", "covariance": "full"}
    still = [1] * 40 if emission in ("poisson", "bernoulli") else values[::-1]
    path = csv_of(tmp_path / "a.csv", x=values, y=still)
    run = fit_hidden_markov_model(path, out=tmp_path / "run", differences={"model": more})
    trace = trace_fit(run, None, "")
    assert trace["panels"][0]["columns"][0]["ahead"]["low"][0] <= trace["panels"][0]["columns"][0]["ahead"]["high"][0]
    assert ("standard deviations" in {table["name"] for table in trace["tables"]}) == (emission not in ("poisson", "bernoulli"))
    assert write_look(trace, tmp_path / "look.html").exists()


def test_explicit_durations_and_known_inputs_of_states(tmp_path: Path) -> None:
    values = two_levels(40)
    path = csv_of(tmp_path / "a.csv", x=values, hot=[t // 10 % 2 for t in range(40)])
    few = {"iterations": 1, "restarts": 1}
    run = fit_hidden_markov_model(path, out=tmp_path / "long", differences={"data": {"targets": "x"}, "model": few | {"longest": 12}})
    assert all(1 <= stay <= 12 for _, stay in run.learnt()[0]["rows"].values())
    run = fit_hidden_markov_model(path, out=tmp_path / "hot", differences={"data": {"known": "hot"}, "model": few})
    series = run.open().series[0]
    with pytest.raises(DataError, match="`hot` must be known for all 2 points"):
        run.forecast(series, 2)
    known = Series("", counted(42), np.concatenate([series.values, [[np.nan]] * 2]), np.concatenate([series.known, [[0.0], [1.0]]]))
    assert len(run.forecast(known, 2).best) == 2
    assert trace_fit(run, run.open()._replace(series=(known,)), "", horizon=2)["panels"][0]["times"][-1] == "41"


def test_components_add_up_to_what_is_drawn(tmp_path: Path) -> None:
    values = [t + 3 * (t % 4 == 0) + noise for t, noise in enumerate(two_levels(32))]
    values[9] = None  # type: ignore[call-overload]
    path = csv_of(
        tmp_path / "a.csv",
        month=[f"2020-{1 + 3 * (t % 4):02}" if t < 4 else f"{2020 + t // 4}-{1 + 3 * (t % 4):02}" for t in range(32)],
        x=values,
    )
    model = {"components": "trend+seasonal", "iterations": 5, "fixed": {"irregular": 1.0}}
    run = fit_structural_model(path, out=tmp_path / "run", differences={"model": model})
    assert run.reading.season == run.reading.horizon == 4
    assert run.model.parameters["irregular"] == 1
    panel = trace_fit(run, None, "", level=0.5)["panels"][0]
    assert [part["name"] for part in panel["components"]] == ["level", "seasonal"]
    together = np.sum([part["best"] for part in panel["components"]], 0)
    assert together == pytest.approx(np.array(panel["columns"][0]["fit"]["best"]))
    assert panel["columns"][0]["values"][9] is None
    width = np.array(panel["components"][0]["high"]) - np.array(panel["components"][0]["low"])
    assert (width > 0).all()
    assert width[9] > width[16]  # what is missing is known less well
    system, smoothed = run.model.system, run.model.smooth(torch.tensor([[[math.nan if v is None else v] for v in values]]))
    row = system.emission[0] * torch.tensor([1.0] * 2 + [0.0] * (system.states - 2), dtype=torch.float64)
    variance = float(row @ smoothed.covariances[0, 9] @ row)
    assert width[9] == pytest.approx(2 * 0.6744898 * math.sqrt(variance))


def test_a_known_input_is_a_regression_and_its_future_is_wanted(tmp_path: Path) -> None:
    noise = two_levels(30)
    price = [t % 3 for t in range(30)]
    path = csv_of(tmp_path / "a.csv", x=[0.01 * n + 5 * p for n, p in zip(noise, price, strict=True)], price=price)
    differences = {"data": {"known": "price"}, "model": {"iterations": 15}}
    run = fit_structural_model(path, out=tmp_path / "run", differences=differences)
    found = next(part for part in run.learnt() if part["name"] == "coefficients")["rows"]["coefficient"]
    assert found == pytest.approx([5], abs=0.05)
    series = run.open().series[0]
    longer = Series("", counted(32), np.concatenate([series.values, [[np.nan]] * 2]), np.concatenate([series.known, [[0.0], [2.0]]]))
    low, high = run.forecast(longer, 2).best[:, 0]
    assert high - low == pytest.approx(10, abs=0.1)
    panel = trace_fit(run, run.open()._replace(series=(longer,)), "", horizon=2)["panels"][0]
    assert [part["name"] for part in panel["components"]] == ["level", "coefficient"]


def test_a_linear_system_begins_where_it_is_told(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "a.csv", x=two_levels(), y=two_levels()[::-1])
    (tmp_path / "start.json").write_text(json.dumps({"transition": [[0.5]], "transition_covariance": [[1.0]]}))
    model = {"state_size": 1, "start": str(tmp_path / "start.json"), "frozen": "transition,transition_covariance", "iterations": 3}
    covariances = {"covariances": {"emission_covariance": "spherical"}}
    run = fit_linear_dynamical_system(path, out=tmp_path / "run", differences={"model": model | covariances})
    assert float(run.model.system.transition) == 0.5
    noise = run.model.system.emission_covariance
    assert noise[0, 0] == noise[1, 1]
    assert noise[0, 1] == 0
    likelihoods = [line["log_likelihood"] for line in run.history()]
    assert len(likelihoods) == 3
    assert likelihoods == sorted(likelihoods)
    forecast = run.forecast(run.open().series[0], 3)
    assert forecast.low is not None
    again = unrolled.load(tmp_path / "run").forecast(run.open().series[0], 3)
    assert (again.best == forecast.best).all()


def test_the_gradient_reaches_at_least_what_em_does(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "a.csv", x=two_levels(30), y=two_levels(30)[::-1])
    likelihoods = [
        fit_linear_dynamical_system(
            path, out=tmp_path / name, differences={"model": {"state_size": 1, "iterations": 15, "method": name}}
        ).summary()["log_likelihood"]
        for name in ("em", "gradient")
    ]
    assert likelihoods[1] > likelihoods[0] - 0.5


def fail(*_: Any) -> None:
    raise OSError("disk")


class Said:
    """A display that remembers."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.iterations: list[int] = []

    def noted(self, text: str) -> None:
        self.sentences.append(text)

    def iterated(self, size: int | None, start: int, iteration: int, log_likelihood: float) -> None:
        self.iterations.append(iteration)


@pytest.mark.parametrize("place", [(HiddenMarkovModel, "save"), (fitting, "write_look"), (fitting, "trace_fit")])
def test_a_fit_that_fails_leaves_nothing(place: tuple[Any, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = csv_of(tmp_path / "a.csv", x=two_levels(20))
    monkeypatch.setattr(*place, fail)
    with pytest.raises(OSError, match="disk"):
        fit_hidden_markov_model(path, out=tmp_path / "deep" / "run", differences={"model": {"iterations": 2}})
    assert [one.name for one in tmp_path.rglob("*")] == ["a.csv"]


def test_a_report_names_the_place_of_its_run(tmp_path: Path) -> None:
    unfitted(tmp_path)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert str(tmp_path / "run") in page
    assert ".unfinished" not in page


def test_a_place_that_cannot_be_written_is_told_before_the_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = csv_of(tmp_path / "a.csv", x=two_levels(20))
    monkeypatch.setattr(HiddenMarkovModel, "fit", lambda *_, **__: pytest.fail("it was fitted"))
    with pytest.raises(RunError, match="could not be written"):
        fit_hidden_markov_model(path, out=path / "run")


def test_data_that_change_during_a_fit_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, whole = csv_of(tmp_path / "a.csv", x=two_levels(20)), HiddenMarkovModel.fit

    def fit(*given: Any, **more: Any) -> Any:
        csv_of(path, x=two_levels(19))
        return whole(*given, **more)

    monkeypatch.setattr(HiddenMarkovModel, "fit", fit)
    run = fit_hidden_markov_model(path, out=tmp_path / "run", differences={"model": {"iterations": 1, "restarts": 1}})
    with pytest.raises(RunError, match="has changed since"):
        run.open()


def test_a_place_taken_meanwhile_costs_no_second_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, whole, fits = csv_of(tmp_path / "a.csv", x=two_levels(20)), HiddenMarkovModel.fit, []
    monkeypatch.chdir(tmp_path)

    def fit(*given: Any, **more: Any) -> Any:
        fits.append(1)
        (tmp_path / "runs" / "hmm-a-1").mkdir()
        return whole(*given, **more)

    monkeypatch.setattr(HiddenMarkovModel, "fit", fit)
    run = fit_hidden_markov_model(path, differences={"model": {"iterations": 1, "restarts": 1}})
    assert run.folder.path == Path("runs/hmm-a-2")
    assert run.folder.fact("name") == "hmm-a-2"
    assert len(fits) == 1


def test_a_fit_needs_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one file of series, got none"):
        fit_hidden_markov_model([], out=tmp_path / "run")


@pytest.mark.parametrize("symbols", [2, 5])
def test_symbols_are_as_many_as_the_file_holds(symbols: int, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("abcab\ncba\n")
    with pytest.raises(ConfigurationError, match=f"`model.symbols` must be 3, .* `text.txt` holds, got {symbols}"):
        fit_hidden_markov_model(tmp_path / "text.txt", out=tmp_path / "run", differences={"model": {"symbols": symbols}})
    few = {"symbols": 3, "iterations": 1, "restarts": 1}
    run = fit_hidden_markov_model(tmp_path / "text.txt", out=tmp_path / "run", differences={"model": few})
    assert run.model.emission.mean().shape == (2, 3)


def test_sizes_that_cannot_be_fitted_are_left_out(tmp_path: Path) -> None:
    path, said = csv_of(tmp_path / "a.csv", x=two_levels(20)), Said()
    model: dict[str, Any] = {"states": "1,2,11", "iterations": 30, "restarts": 1}
    run = fit_hidden_markov_model(path, out=tmp_path / "run", differences={"model": model}, display=said)
    assert [one["states"] for one in run.folder.fact("tried")] == [1, 2]
    assert [one["states"] for one in run.folder.fact("failed")] == [11]
    assert said.sentences[0].startswith("11 states could not be fitted: fitting 11 states needs at least 22 outputs, got 20")
    with pytest.raises(DataError, match="fitting 11 states"):
        fit_hidden_markov_model(path, out=tmp_path / "none", differences={"model": model | {"states": "11,12"}})
    assert not (tmp_path / "none").exists()


def test_iterations_are_counted_without_the_beginning(tmp_path: Path) -> None:
    path, said = csv_of(tmp_path / "a.csv", x=two_levels(20)), Said()
    model: dict[str, Any] = {"iterations": 3, "restarts": 1, "tolerance": 0}
    run = fit_hidden_markov_model(path, out=tmp_path / "run", differences={"model": model}, display=said)
    assert run.summary()["iterations"] == 3
    assert said.iterations == [line["iteration"] for line in run.history()] == [0, 1, 2, 3]
    assert [search["first"] for search in trace_fit(run, None, "")["searches"]] == [0]
    assert "iteration 0" in run.folder.report.read_text(encoding="utf-8")
    assert said.sentences == ["the fit ended at `model.iterations=3` and might go on; try more of them"]


@pytest.mark.parametrize("fit", [fit_hidden_markov_model, fit_linear_dynamical_system])
def test_a_tolerance_met_in_the_last_iteration_is_an_end(fit: Any, tmp_path: Path) -> None:
    path, said = csv_of(tmp_path / "a.csv", x=two_levels(20)), Said()
    model: dict[str, Any] = {"iterations": 40, "tolerance": 1e-3}
    needed = fit(path, out=tmp_path / "long", differences={"model": model}).summary()["iterations"]
    assert needed < 40
    again = fit(path, out=tmp_path / "run", differences={"model": model | {"iterations": needed}}, display=said)
    assert again.summary()["iterations"] == needed
    assert said.sentences == []
    fit(path, out=tmp_path / "short", differences={"model": model | {"iterations": needed - 1}}, display=said)
    assert "might go on" in said.sentences[0]


@pytest.mark.parametrize(
    ("fit", "model"),
    [(fit_structural_model, {"components": "level"}), (fit_linear_dynamical_system, {"method": "gradient", "state_size": "1"})],
)
def test_a_search_by_gradient_that_had_to_end_is_told(fit: Any, model: dict[str, Any], tmp_path: Path) -> None:
    steps, noise = torch.randn(2, 60, generator=torch.Generator().manual_seed(0))
    path, said = csv_of(tmp_path / "a.csv", x=(steps.cumsum(0) + noise).tolist()), Said()
    fit(path, out=tmp_path / "long", differences={"model": {**model, "iterations": 500}}, display=said)
    assert said.sentences == []
    fit(path, out=tmp_path / "short", differences={"model": {**model, "iterations": 2}}, display=said)
    assert said.sentences == ["the fit ended at `model.iterations=2` and might go on; try more of them"]


def test_a_past_too_short_for_a_forecast_is_refused(tmp_path: Path) -> None:
    rows = {"shop": ["x"] * 20 + ["y"], "x": [*two_levels(20), 3.0]}
    differences = {"data": {"series": "shop"}, "model": {"components": "trend", "iterations": 2}}
    run = fit_structural_model(csv_of(tmp_path / "a.csv", **rows), out=tmp_path / "run", differences=differences)
    long, short = run.open().series
    assert np.isfinite(run.forecast(long, 2).low).all()
    with pytest.raises(DataError, match="needs at least 2 values of the past to fix the state, got 1 of `y`"):
        run.forecast(short, 2)
    panels = trace_fit(run, None, "")["panels"]
    assert [panel["columns"][0]["ahead"] is None for panel in panels] == [False, True]


def test_a_single_date_is_followed_by_the_step_of_the_run(tmp_path: Path) -> None:
    months = [f"{2020 + t // 12}-{t % 12 + 1:02}" for t in range(20)]
    path = csv_of(tmp_path / "a.csv", month=months, x=two_levels(20))
    run = fit_structural_model(path, out=tmp_path / "run", differences={"model": {"iterations": 2}})
    one = run.open().series[0].select(3, 4)
    assert unrolled.load(tmp_path / "run").forecast(one, 2).axis.texts == ("2020-05", "2020-06")
    told = json.loads(run.folder.series.read_text())
    del told["step"]  # as older versions wrote it
    run.folder.series.write_text(json.dumps(told))
    with pytest.raises(DataError, match="needs at least 2 of them, got `2020-04` alone"):
        unrolled.load(tmp_path / "run").forecast(one, 2)


def test_files_together_share_their_symbols(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("s\nx\ny\nx\ny\n")
    (tmp_path / "b.csv").write_text("s\ny\nz\nz\ny\n")
    model = {"emission": "categorical", "iterations": 2, "restarts": 1}
    run = fit_hidden_markov_model([tmp_path / "a.csv", tmp_path / "b.csv"], out=tmp_path / "run", differences={"model": model})
    assert run.reading.symbols == ("x", "y", "z")
    assert [one.values[:, 0].tolist() for one in run.open().series] == [[0, 1, 0, 1], [1, 2, 2, 1]]
    (tmp_path / "c.csv").write_text("s\nx\nq\n")
    with pytest.raises(DataError, match="got `q` in `c.csv`, line 3"):
        run.open(tmp_path / "c.csv")


def test_rows_behind_the_last_value_are_the_future_and_count_nowhere(tmp_path: Path) -> None:
    values, few = two_levels(30), {"model": {"iterations": 2, "restarts": 1}}
    path = csv_of(tmp_path / "a.csv", x=values, y=values[::-1])
    longer = csv_of(tmp_path / "b.csv", x=[*values, None, None], y=[*values[::-1], None, None])
    runs = [fit_hidden_markov_model(one, out=tmp_path / one.stem, differences=few) for one in (path, longer)]
    assert runs[0].summary()["bic"] == runs[1].summary()["bic"]
    assert runs[1].forecast(runs[1].open().series[0], 2).axis.texts == ("30", "31")


def test_what_is_known_of_an_autoregression_is_a_list(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "a.csv", x=two_levels(30))
    model = {"components": "trend,arma", "damped": True, "autoregressive": 2, "iterations": 2}
    fixed = {"ar": [0.5, 0.2], "level": 0, "damping": 0.9}
    run = fit_structural_model(path, out=tmp_path / "run", differences={"model": model | {"fixed": fixed}})
    assert {name: run.model.parameters[name].tolist() for name in fixed} == {"ar": [0.5, 0.2], "level": [0.0], "damping": [0.9]}
    assert unrolled.load(tmp_path / "run").model.free_parameters == run.model.free_parameters
    for wrong, said in (
        ({"ar": 0.5}, "`model.fixed.ar` must be 2 numbers, got 1"),
        ({"ar": [0.5, 0.6]}, "`model.fixed.ar` must be a stationary autoregression"),
        ({"damping": 3.0}, "`model.fixed.damping` must be from 0 to 1, got 3"),
        ({"ar": ["a", 1]}, r"`model.fixed` must be numbers by name, got `\['a', 1\]` at `model.fixed.ar`;"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            fit_structural_model(path, out=tmp_path / "wrong", differences={"model": model | {"fixed": wrong}})


@pytest.mark.parametrize("kind", ["seasonal", "trigonometric"])
def test_a_usual_season_that_takes_minutes_is_refused(kind: str, tmp_path: Path) -> None:
    times = [f"2024-01-{1 + t // 144:02} {t % 144 // 6:02}:{t % 6}0" for t in range(300)]
    path = csv_of(tmp_path / "a.csv", time=times, x=two_levels(300))
    model = {"components": f"level,{kind}", "iterations": 1}
    with pytest.raises(ConfigurationError, match="usual season of these times is 144 points.*with `model.harmonics=4`"):
        fit_structural_model(path, out=tmp_path / "run", differences={"model": model})
    shorter = {"harmonics": 4} if kind == "trigonometric" else {"period": 6}
    assert fit_structural_model(path, out=tmp_path / "run", differences={"model": model | shorter}).model.system.states in (6, 9)
