"""The verbs of forecasting, as a person types them."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from pathlib import Path

import pytest

from .conftest import Command
from .test_bad_input import refused

SMALL = [
    "--set=train.steps=4",
    "--set=train.evaluations=1",
    "--set=train.threads=1",
    "--set=model.hidden_size=8",
    "--set=data.lookback=8",
]


@pytest.fixture
def given(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows = [f"{of},2020-01-{day:02},{day % 7 * scale},{day % 2}" for of, scale in (("a", 1), ("b", 1000)) for day in range(1, 32)]
    (tmp_path / "shops.csv").write_text("\n".join(["shop,date,sold,open", *rows]) + "\n")
    (tmp_path / "future.csv").write_text("\n".join(["shop,date,sold,open", *rows, *[f"b,2020-02-{day:02},,1" for day in (1, 2, 3)]]) + "\n")
    done = command("train", "forecasting", "shops.csv", "--horizon", "3", "--out", "run", "--set=data.series=shop", "--json", *SMALL)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "finished"
    return tmp_path


def predicted(command: Command, folder: Path, file: str, *more: str) -> subprocess.CompletedProcess[str]:
    return command("predict", *more, given=(folder / file).read_text())


def test_train_eval_predict(command: Command, given: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (given / "run" / "report.html").exists()
    said = command("eval", "run").stdout
    assert "MSE" in said
    assert "seasonal naive" in said
    assert "inside the 80 % band" in said
    assert "structural " in said
    found = json.loads(command("eval", "run", "shops.csv", "--json").stdout)
    assert found["windows"] == 2 * (31 - 8 - 3 + 1)
    assert set(found["baselines"]) == {"naive", "seasonal naive", "drift"}
    said = "no structural forecast: they are fitted to the training part of each series, which other files have none of"
    assert said in command("eval", "run", "shops.csv").stdout
    assert command("predict", "run", "--options").returncode in (0, 2)

    done = predicted(command, given, "shops.csv", "run")
    header, *rows = csv.reader(io.StringIO(done.stdout))
    assert header == ["shop", "date", *[name + end for name in ("sold", "open") for end in ("", " 10%", " 90%")]]
    assert [row[:2] for row in rows] == [[shop, f"2020-02-0{day}"] for shop in "ab" for day in (1, 2, 3)]
    assert all(float(row[3]) < float(row[2]) < float(row[4]) for row in rows)
    assert max(float(row[2]) for row in rows[:3]) < 20 < max(float(row[2]) for row in rows[3:])

    done = predicted(command, given, "shops.csv", "run", "--json")
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["series"], second["series"]) == ("a", "b")
    assert first["times"] == ["2020-02-01", "2020-02-02", "2020-02-03"]
    assert first["targets"] == ["sold", "open"]
    assert [f"{value:.6g}" for value, _ in second["best"]] == [row[2] for row in rows[3:]]


def test_known_inputs_stand_in_the_rows_to_forecast(command: Command, given: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = ["--set=data.series=shop", "--set=data.known=open", "--set=data.targets=sold", "--set=model.output.kind=point"]
    assert command("train", "forecasting", "shops.csv", "--horizon", "3", "--out", "known", *known, *SMALL).returncode == 0
    (given / "b.csv").write_text("".join(line for line in (given / "future.csv").read_text().splitlines(True) if line[:2] != "a,"))
    done = command("look", "known", "--out", "look.html", "--trace", "look.json")
    assert done.stdout == "2 columns of shops.csv, 3 points ahead\npage: look.html\n"
    panels = json.loads((given / "look.json").read_text())["panels"]
    assert [one["series"] for one in panels] == ["a", "b"]
    assert panels[0]["chart"]["fan"]["truth"] == [1, 2, 3]  # what is known in advance ends with the file
    assert all(check["fan"]["times"][0] != "2020-01-29" for check in panels[0]["checks"])
    done = command("look", "known", "b.csv")
    assert done.stdout.startswith("1 column of b.csv")
    assert command("look", "known", "-", given=(given / "b.csv").read_text()).stdout.startswith("1 column of standard input")
    done = predicted(command, given, "b.csv", "known")
    rows = list(csv.reader(io.StringIO(done.stdout)))
    assert rows[0] == ["shop", "date", "sold"]
    assert [row[:2] for row in rows[1:]] == [["b", f"2020-02-0{day}"] for day in (1, 2, 3)]
    refused(predicted(command, given, "shops.csv", "known"), "`open` of `a` must be known for all 3 points")
    refused(predicted(command, given, "shops.csv", "known", "--json"), "`open` of `a` must be known")


def test_what_cannot_be_is_one_sentence(command: Command, given: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (given / "bad.csv").write_text("date,x\n2020-01-01,1\n2020-01-02,one\n")
    before = {path for path in given.rglob("*") if path.name != ".lock"}
    for words, said in (
        (("train", "forecasting"), "try `unrolled train forecasting DATA.csv --horizon 24`"),
        (("train", "forecasting", "bad.csv"), "got `one` in `bad.csv`, line 3, column `x`"),
        (("train", "forecasting", "shops.csv"), "there"),
        (("train", "forecasting", "shops.csv", "--set=data.series=shop", "--horizon=500"), "to train on"),
        (("train", "forecasting", "shops.csv", "--set=model.output.quantiles=[0.9,0.1,0.5]"), "rising"),
        (("eval", "run", "--split", "test"), "the run left no test part"),
        (("eval", "run", "bad.csv"), "`data.series` must name columns of `bad.csv`"),
        (("sample", "run"), "`run`"),
    ):
        done = command(*words)
        assert done.returncode == 2, (words, done.stderr)
        refused(done) if said == "there" else refused(done, said)
    refused(predicted(command, given, "bad.csv", "run"), "standard input")
    refused(predicted(command, given, "shops.csv", "run", "--set=beam=3"), "`beam` is no option of forecasting")
    assert {path for path in given.rglob("*") if path.name != ".lock"} == before


def test_a_horizon_is_for_forecasting_alone(command: Command, given: Path) -> None:
    assert command("train", "lm", "shops.csv", "--horizon", "3").returncode == 2
    assert command("train", "forecasting", "shops.csv", "--init-from", "run").returncode == 2
