"""Forecasts of ETTh1 (Zhou et al. 2021) by a small model, beside DLinear (Zeng et al. 2023): seven hourly columns of a transformer station.

    .venv/bin/python benchmarks/forecasting_quality.py FOLDER [--horizons 96 192 336 720] [--lookbacks 336 512 720] [--steps 500] [--keep DIR] [--set KEY=VALUE …]

FOLDER holds ETTh1.csv.gz. The usual parts: of the first 14,400 rows 8,640 train, 2,880 validate, 2,880 test; errors are in standard deviations of the
training part, over all windows of a part. The look-back is chosen on the part that validates. Adds a row a horizon to benchmarks/results/forecasting_etth1.json.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

from machine import write_result
from trainings import rows_of, score, train

arguments = argparse.ArgumentParser()
arguments.add_argument("folder", type=Path)
arguments.add_argument("--horizons", nargs="*", type=int, default=[96, 192, 336, 720])
arguments.add_argument("--lookbacks", nargs="*", type=int, default=[336, 512, 720])
arguments.add_argument("--steps", type=int, default=500)
arguments.add_argument("--keep", type=Path, help="keep the runs here, and do not train again what is there")
arguments.add_argument("--set", action="append", default=[], dest="sets")

NAME = "forecasting_etth1"
ROWS = 14_400
DLINEAR = {96: 0.375, 192: 0.405, 336: 0.439, 720: 0.472}
"""Mean squared error, as published."""
MODEL = (
    "data.valid=2880",
    "data.test=2880",
    "model.output.kind=point",
    "model.patch=48",
    "model.hidden_size=128",
    "model.output_dropout=0.5",
    "model.calendar=false",
    "model.shortcut=true",
    "train.optimizer.learning_rate=1e-3",
    "train.evaluations=10",
    "train.evaluation_windows=500",
    "train.threads=1",
)
"""One GRU that reads and writes patches of two days, as Lin et al. 2023 (SegRNN) do, and a linear map beside it."""


def first_rows(packed: Path, path: Path) -> Path:
    """The rows that are usual."""
    with gzip.open(packed, "rt", encoding="utf-8") as lines:
        path.write_text("".join(islice(lines, ROWS + 1)), encoding="utf-8")
    return path


def trained(file: Path, keep: Path, horizon: int, lookback: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train a model and score it on both parts."""
    run = keep / f"etth1-{horizon}-{lookback}"
    given = (*MODEL, f"data.horizon={horizon}", f"data.lookback={lookback}", f"train.steps={options.steps}", *options.sets)
    row = {"lookback": lookback} | train("forecasting", {"train": [str(file)]}, run, [f"--set={one}" for one in given])
    for part in ("valid", "test"):
        row[part] = score(run, [], "--split", part)
    print(f"horizon {horizon}, look-back {lookback}: valid {row['valid']['mse']:.4f}, test {row['test']['mse']:.4f}", flush=True)
    return row


def main() -> None:
    """All horizons."""
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        keep = options.keep or Path(scratch)
        keep.mkdir(exist_ok=True, parents=True)
        file = first_rows(options.folder / "ETTh1.csv.gz", keep / "ETTh1.csv")
        for horizon in options.horizons:
            runs = [trained(file, keep, horizon, lookback, options) for lookback in options.lookbacks]
            best = min(runs, key=lambda one: one["valid"]["mse"])
            row: dict[str, Any] = {"horizon": horizon, "lookback": best["lookback"], "mse": best["test"]["mse"], "mae": best["test"]["mae"]}
            row |= {"dlinear_mse": DLINEAR.get(horizon)} | {key: best[key] for key in ("machine", "parameters", "config")}
            row["runs"] = [{key: value for key, value in one.items() if key not in ("machine", "config")} for one in runs]
            print(f"horizon {horizon}: MSE {row['mse']:.4f} (DLinear {row['dlinear_mse']})", flush=True)
            others = [old for old in rows_of(NAME) if old["horizon"] != horizon]
            write_result(NAME, {"rows": sorted([*others, row], key=lambda one: one["horizon"])})


if __name__ == "__main__":
    main()
