"""`unrolled fit`, and what becomes of its runs, as a person types it."""

from __future__ import annotations

import csv
import io
import json
from itertools import pairwise
from pathlib import Path

import pytest

from .conftest import Command
from .test_bad_input import nothing_new, refused

NILE = [
    "1120",
    "1160",
    "963",
    "1210",
    "1160",
    "1160",
    "813",
    "1230",
    "1370",
    "1140",
    "995",
    "935",
    "1110",
    "994",
    "1020",
    "960",
    "1180",
    "799",
    "958",
    "1140",
    "1100",
    "1210",
    "1150",
    "1250",
    "1260",
    "1220",
    "1030",
    "1100",
    "774",
    "840",
    "874",
    "694",
    "940",
    "833",
    "701",
    "916",
    "692",
    "1020",
    "1050",
    "969",
    "831",
    "726",
    "456",
    "824",
    "702",
    "1120",
    "1100",
    "832",
    "764",
    "821",
    "768",
    "845",
    "864",
    "862",
    "698",
    "845",
    "744",
    "796",
    "1040",
    "759",
    "781",
    "865",
    "845",
    "944",
    "984",
    "897",
    "822",
    "1010",
    "771",
    "676",
    "649",
    "846",
    "812",
    "742",
    "801",
    "1040",
    "860",
    "874",
    "848",
    "890",
    "744",
    "749",
    "838",
    "1050",
    "918",
    "986",
    "797",
    "923",
    "975",
    "815",
    "1020",
    "906",
    "901",
    "1170",
    "912",
    "746",
    "919",
    "718",
    "714",
    "740",
]
LEVELS = [0.1, 0.3, -0.2, 0.0, 5.1, 4.9, 5.2, 4.8, 0.2, -0.1, 0.1, 0.0, 5.0, 5.3, 4.9, 5.1, 0.0, 0.2, -0.3, 0.1]
"""Two levels, and four points in a row of each."""
FEW = ("--set=model.floor=0.01", "--set=model.iterations=20", "--set=model.restarts=2")
"""Options that make a fit short."""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "nile.csv").write_text("\n".join(["year,volume", *(f"{1871 + year},{flow}" for year, flow in enumerate(NILE))]) + "\n")
    rows = (f"{step},{value},{2 * value + step % 2}" for step, value in enumerate(LEVELS))
    (tmp_path / "levels.csv").write_text("\n".join(["time,a,b", *rows]) + "\n")
    return tmp_path


def test_the_nile_end_to_end(command: Command, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = command("fit", "structural", "nile.csv", "--set=model.components=level", "--out", "run", "--json", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["log_likelihood"] == pytest.approx(-632.5456, abs=5e-5)
    assert told["parameters"] == 3
    assert told["aic"] == pytest.approx(2 * 3 + 2 * 632.5456, abs=1e-3)
    variances = told["learnt"][0]["rows"]
    assert variances["irregular"][0] == pytest.approx(15098.5, abs=0.1)
    assert variances["level"][0] == pytest.approx(1469.2, abs=0.1)
    listed = json.loads(command("runs", ".", "--json").stdout)["runs"]
    assert [(one["run"], one["task"], one["status"]) for one in listed] == [("run", "structural", "finished")]
    assert "log-likelihood -632.5456" in command("eval", "run").stdout
    assert (files / "run" / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")

    header, *rows = csv.reader(
        io.StringIO(command("predict", "run", "--set=horizon=3", "--set=level=0.95", given=(files / "nile.csv").read_text()).stdout)
    )
    assert header == ["year", "volume", "volume 2.5%", "volume 97.5%"]
    assert [row[0] for row in rows] == ["1971", "1972", "1973"]
    # A level that wanders: the mean stays, and each step adds its variance.
    assert all(float(row[1]) == pytest.approx(798.37, abs=0.01) for row in rows)
    assert all(float(row[2]) < float(row[1]) < float(row[3]) for row in rows)
    variance = [((float(row[3]) - float(row[2])) / 2 / 1.959964) ** 2 for row in rows]
    assert [after - before for before, after in pairwise(variance)] == pytest.approx([1469.2] * 2, abs=1)

    done = command("look", "run", "--out", "look.html", "--trace", "look.json", "--set=past=30")
    assert done.stdout == "1 series of nile.csv\npage: look.html\n"
    panel = json.loads((files / "look.json").read_text())["panels"][0]
    assert panel["times"][0] == "1941"
    assert len(panel["columns"][0]["ahead"]["best"]) == 12


def test_a_past_too_short_to_fix_the_state_is_refused(command: Command, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--set=model.components=trend", "--set=model.iterations=1", "--quiet", "--out", "run")
    assert command("fit", "structural", "nile.csv", *options).returncode == 0
    (files / "short.csv").write_text("year,volume\n1971,800\n")
    refused(
        command("predict", "run", given=(files / "short.csv").read_text()),
        "a forecast needs at least 2 values of the past to fix the state, got 1; give more of the past",
    )


def test_a_hidden_markov_model_end_to_end(command: Command, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = command("fit", "hmm", "levels.csv", "--set=model.states=1,2,3", "--set=data.targets=a", "--out", "run", *FEW)
    assert done.returncode == 0, done.stderr
    assert "3 states, beginning 2, iteration" in done.stderr
    chosen = next(line for line in done.stdout.splitlines() if "lowest BIC" in line)
    assert chosen.startswith("2 ")
    assert "standard deviations" in done.stdout
    header, *rows = csv.reader(io.StringIO(command("predict", "run", given=(files / "levels.csv").read_text()).stdout))
    assert header == ["time", "state", "state 1", "state 2"]
    states = [row[1] for row in rows]
    assert [states[place] == states[0] for place in range(20)] == [value < 2 for value in LEVELS]
    assert all(float(row[2]) + float(row[3]) == pytest.approx(1, abs=1e-5) for row in rows)
    told = json.loads(command("predict", "run", "--json", given=(files / "levels.csv").read_text()).stdout)
    assert [str(state) for state in told["states"]] == states
    header, *rows = csv.reader(io.StringIO(command("predict", "run", "--set=horizon=2", given=(files / "levels.csv").read_text()).stdout))
    assert header == ["time", "a", "a 10%", "a 90%"]
    assert [row[0] for row in rows] == ["20", "21"]
    assert (
        command("look", "run", "-", "--out", "look.html", given=(files / "levels.csv").read_text()).stdout
        == "1 series of standard input\npage: look.html\n"
    )


def test_a_linear_system_end_to_end(command: Command, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = command("fit", "lds", "levels.csv", "--set=model.state_size=1", "--set=model.iterations=5", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "the fit ended at `model.iterations=5` and might go on" in done.stderr
    assert "outputs" in done.stdout
    header, *rows = csv.reader(io.StringIO(command("predict", "run", given=(files / "levels.csv").read_text()).stdout))
    assert header == ["time", "a", "a 10%", "a 90%", "b", "b 10%", "b 90%"]
    assert len(rows) == 12
    assert command("look", "run", "levels.csv", "--out", "look.html").returncode == 0
    assert "(40 values)" in command("eval", "run", "levels.csv").stdout


def test_symbols_in_a_text_or_a_column(command: Command, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "abababccab\nccbabacc\n"
    (files / "text.txt").write_text(text)
    rows = [f"{line},{place},{symbol}" for line, symbols in enumerate(text.split()) for place, symbol in enumerate(symbols)]
    (files / "column.csv").write_text("\n".join(["line,time,symbol", *rows]) + "\n")
    assert command("fit", "hmm", "text.txt", "--out", "text", *FEW).returncode == 0
    options = ("--set=data.series=line", "--set=model.emission=categorical", "--set=data.targets=symbol", *FEW)
    assert command("fit", "hmm", "column.csv", "--out", "column", *options).returncode == 0
    found = [json.loads(command("eval", run, "--json").stdout) for run in ("text", "column")]
    assert found[0]["log_likelihood"] == pytest.approx(found[1]["log_likelihood"])
    assert found[0]["perplexity"] < 3
    header, first, *_ = csv.reader(
        io.StringIO(command("predict", "text", "--set=horizon=1", given=(files / "text.txt").read_text()).stdout)
    )
    assert header == ["series", "step", "a", "b", "c"]
    assert first[:2] == ["line 1", "10"]
    assert sum(map(float, first[2:])) == pytest.approx(1, abs=1e-5)
    (files / "other.txt").write_text("abd\n")
    refused(command("predict", "text", given=(files / "other.txt").read_text()), "got `d` in `standard input`, line 1")
    refused(command("fit", "hmm", "text.txt", "--set=model.emission=poisson"), "needs `model.emission=categorical`, got `poisson`")


BAD = {
    "one": ("time,x\n1,5\n", "at least 2 points, got 1"),
    "missing": ("time,x\n1,\n2,NA\n3,\n", "`x` in `bad.csv` has none"),
    "constant": ("time,x\n1,5\n2,5\n3,5\n4,5\n", "`x` in `bad.csv` is 5 throughout"),
    "letters": ("time,x\n1,5\n2,six\n3,5\n4,5\n", "got `six` in `bad.csv`, line 3, column `x`"),
    "unsorted": ("time,x\n1,5\n3,6\n2,4\n4,5\n", "`2` in `bad.csv`, line 4 is before the one above it"),
    "twice": ("time,x\n1,5\n2,6\n2,4\n4,5\n", "`2` in `bad.csv`, line 4 stands twice"),
}


@pytest.mark.parametrize("verb", ["hmm", "lds", "structural"])
@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str, verb: str, command: Command, tmp_path: Path) -> None:
    content, said = BAD[name]
    (tmp_path / "bad.csv").write_text(content)
    before = set(tmp_path.rglob("*"))
    refused(command("fit", verb, "bad.csv"), said)
    nothing_new(tmp_path, before)


STARTS = {
    "rows": ("hmm", '{"transition": [[0.9, 0.3], [0.2, 0.8]]}', "every row of `transition` must sum to 1, got 1.2"),
    "covariance": ("hmm", '{"covariances": [[[1, 2], [2, 1]], [[1, 0], [0, 1]]]}', "`covariances` must be positive definite"),
    "noise": ("lds", '{"emission_covariance": [[1, 2], [2, 1]]}', "`emission_covariance` must be a covariance"),
    "name": ("lds", '{"emision": 3}', "did you mean `emission`?"),
    "shape": ("hmm", '{"initial": [1]}', "`initial` in `start.json` must have the shape (2,) for 2 states, got (1,)"),
    "ragged": ("hmm", '{"transition": [[1, 2], [3]]}', "`transition` in `start.json` must be numbers in rows of equal length"),
    "broken": ("hmm", "[1", "`start.json` must be a JSON object"),
    "list": ("lds", "[1]", "`start.json` must be a JSON object of parameters by name"),
    "flat": ("lds", '{"emission": [1, 2]}', "`emission` in `start.json` must be a matrix"),
}


@pytest.mark.parametrize("name", STARTS)
def test_bad_starts(name: str, command: Command, files: Path) -> None:
    verb, content, said = STARTS[name]
    (files / "start.json").write_text(content)
    before = set(files.rglob("*"))
    more = ["--set=model.covariance=full"] if verb == "hmm" else []
    refused(command("fit", verb, "levels.csv", "--set=model.start=start.json", *more), said)
    nothing_new(files, before)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fit", "lds"), "needs a file of series; try `unrolled fit lds DATA.csv"),
        (("fit", "hmm", "nile.csv", "--set=model.states=60"), "fitting 60 states needs at least 120 outputs, got 100"),
        (("fit", "hmm", "nile.csv", "--set=model.states=0"), "`model.states` must be"),
        (("fit", "hmm", "levels.csv", "--set=model.emission=poisson"), "counts must be whole numbers from 0 on, got 0.1 in `a` at `0`"),
        (("fit", "hmm", "levels.csv", "--set=model.emission=bernoulli"), "Bernoulli outputs must be 0 or 1"),
        (("fit", "hmm", "levels.csv", "--set=model.emission=categorical"), "one column of symbols, got `a`, `b`"),
        (("fit", "hmm", "levels.csv", "--set=model.start=no.json"), "`no.json` cannot be read"),
        (("fit", "structural", "levels.csv"), "a structural model explains one column, got `a`, `b`"),
        (("fit", "structural", "nile.csv", "--set=model.fixed.level=-3"), "`model.fixed.level` must be a variance, at least 0, got -3"),
        (
            ("fit", "structural", "nile.csv", "--set=model.fixed.level=high"),
            "`model.fixed` must be numbers by name, got `high` at `model.fixed.level`",
        ),
        (("fit", "structural", "nile.csv", "--set=model.fixed.lvel=3"), "did you mean `level`?"),
        (("fit", "structural", "nile.csv", "--set=model.components=level,trend"), "different things, got `level` and `trend`"),
        (("fit", "structural", "nile.csv", "--set=model.components=sesonal"), "did you mean `seasonal`?"),
        (("fit", "structural", "nile.csv", "--set=model.components=arma,arma"), "got `arma` twice"),
        (("fit", "structural", "nile.csv", "--set=model.components=seasonal"), "give it as `model.period`"),
        (("fit", "lds", "levels.csv", "--set=model.covariances.emission=diagonal"), "only a covariance has a form"),
        (("fit", "lds", "levels.csv", "--set=model.frozen=emission,foo"), "got `foo`"),
        (("fit", "hmm", "nile.csv", "--out", "nile.csv"), "`nile.csv` exists already"),
        (("sample", "nile.csv"), "`nile.csv`"),
    ],
)
def test_what_cannot_be_is_one_sentence(words: tuple[str, ...], said: str, command: Command, files: Path) -> None:
    before = set(files.rglob("*"))
    refused(command(*words), said)
    nothing_new(files, before)


def test_a_run_of_a_fit_is_told_from_others(command: Command, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        command("fit", "lds", "levels.csv", "--set=model.state_size=1", "--set=model.iterations=2", "--out", "run", "--quiet").stdout == ""
    )
    refused(command("sample", "run"), "must be a run of `unrolled train lm`, and it is of the task `lds`")
    refused(command("eval", "run", "--beam", "3"), "`beam` is no option of evaluating a run of the task `lds`")
    refused(
        command("predict", "run", "--set=horizn=3", given=(files / "levels.csv").read_text()),
        "`horizn` is no option",
        "`horizon` and `level`",
    )
    refused(command("predict", "run", "--set=level=1.5"), "`level` must be")
    refused(command("look", "run", "--set=depth=1"), "`depth` is no option of looking into a run of the task `lds`")
    assert "task" in command("show", "run").stdout
    (files / "run" / "learnt.json").unlink()
    refused(command("look", "run"), "learnt.json")
    assert command("fit", "hmm", "--options").stdout.count("model.states") == 1
