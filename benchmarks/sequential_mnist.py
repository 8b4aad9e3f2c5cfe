"""Digits read as sequences: what the gap is that vanishing gradients leave between the plain recurrent network and gated ones.

    .venv/bin/python benchmarks/sequential_mnist.py FOLDER [--readings rows pixels] [--models gru lstm elman] [--minutes M] [--threads 2] [--again]

FOLDER holds the four `.gz` files of MNIST. A digit is read by rows (28 steps of 28 inputs) or by pixels (784 steps of one input) by a cell of the
package under `Recurrence`; the last state chooses one of 10 classes. All cells have 128 units and, for each reading, the same minutes of training
(3 for rows, 12 for pixels; scoring not counted), batch, optimiser and clipping; rates are in `READINGS`. The last 5,000 digits of the training part
validate; the test part is read once, with the weights that validated best. The gates of GRU and LSTM begin with biases for spans up to the length of
a digit: without them an LSTM had learnt nothing from pixels after 250 updates, with them 0.2 nats.

`gradient`: how much the state at each of some steps can still change the loss: the norm of d loss / d h_t of one digit, the mean over some hundred
of them, in double precision by the plain loop, before the first update (`start`) and with the weights that are tested (`end`).
An LSTM has two: `h`, and `c`, which carries on; that of `c` counts what goes through `h` of the same step as well.

A row that was measured with the same minutes and threads is not measured again unless `--again` says so; `--minutes 0.3 --out FILE` is a
trial. Writes benchmarks/results/sequential_mnist.json and, from all rows that are there, docs/_static/vanishing.svg.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from machine import RESULTS, describe_machine
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unrolled.nn.cells import CELLS, GRU, LSTM
from unrolled.nn.recurrence import Recurrence
from unrolled.train.optimizers import build_optimizer
from unrolled.train.schedule import rate_share
from unrolled.train.settings import OptimizerSettings, ScheduleSettings


class Reading(NamedTuple):
    """How a digit becomes a sequence, and how long it is learnt."""

    steps: int
    inputs: int
    minutes: float
    batch: int
    rates: dict[str, float]
    """Learning rates of the cells."""


READINGS = {
    "rows": Reading(28, 28, 3.0, 64, {"gru": 2e-3, "lstm": 2e-3, "elman": 2e-3}),
    # At 2e-3 the plain network's loss rose all through a pilot of 150 updates.
    "pixels": Reading(784, 1, 12.0, 32, {"gru": 2e-3, "lstm": 2e-3, "elman": 5e-4}),
}
MODELS = {"gru": "published GRU", "lstm": "LSTM", "elman": "Elman (tanh)"}
HIDDEN, CLASSES, HELD_OUT = 128, 10, 5000
CLIP = 1.0
EVALUATIONS = 10
AT_ONCE = 500
"""Digits that are scored together."""
WATCHED, POINTS = 200, 20
"""Digits over which the norms of gradients are averaged, and at how many steps."""

arguments = argparse.ArgumentParser()
arguments.add_argument("folder", type=Path)
arguments.add_argument("--readings", nargs="+", choices=list(READINGS), default=list(READINGS))
arguments.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
arguments.add_argument("--minutes", type=float, help="of training; else 3 by rows and 12 by pixels")
arguments.add_argument("--threads", type=int, default=2)
arguments.add_argument("--batch", type=int)
arguments.add_argument("--learning-rate", type=float)
arguments.add_argument("--seed", type=int, default=0)
arguments.add_argument("--again", action="store_true", help="measure what is there already, too")
arguments.add_argument("--out", type=Path, default=RESULTS / "sequential_mnist.json")


class Digits(NamedTuple):
    """Some digits as sequences, with what they are."""

    images: Tensor
    labels: Tensor


def read_idx(path: Path) -> np.ndarray:
    """An array of bytes in the format of MNIST: two zeros, the type, the number of axes, their sizes, the data."""
    with gzip.open(path) as file:
        content = file.read()
    axes = content[3]
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(np.frombuffer(content, ">u4", axes, offset=4))


def read_digits(folder: Path, reading: Reading) -> dict[str, Digits]:
    """The three parts, grey values from 0 to 1."""
    found = {}
    for part, name in (("train", "train"), ("test", "t10k")):
        images = torch.from_numpy(read_idx(folder / f"{name}-images-idx3-ubyte.gz").copy()).float() / 255
        labels = torch.from_numpy(read_idx(folder / f"{name}-labels-idx1-ubyte.gz").astype(np.int64))
        found[part] = Digits(images.reshape(len(images), reading.steps, reading.inputs), labels)
    train = found["train"]
    return found | {"train": Digits(*(x[:-HELD_OUT] for x in train)), "valid": Digits(*(x[-HELD_OUT:] for x in train))}


@torch.no_grad()
def start_gates(cell: Any, steps: int) -> None:
    """Biases with which units keep what they hold for 1 to `steps` steps (Tallec & Ollivier 2018, section 3); a plain network has no such gate."""
    spans = torch.log(torch.empty(HIDDEN).uniform_(1, steps - 1))
    if isinstance(cell, LSTM):
        shift_gate(cell, 1, spans)  # forget
        shift_gate(cell, 0, -spans)  # input
    elif isinstance(cell, GRU):
        shift_gate(cell, 1, -spans)  # update


def shift_gate(cell: Any, gate: int, value: Tensor) -> None:
    cell.from_input.bias[gate * HIDDEN : (gate + 1) * HIDDEN] = value


class Reader(nn.Module):
    """A cell over a digit; its last output chooses."""

    def __init__(self, model: str, reading: Reading) -> None:
        super().__init__()
        self.layer = Recurrence(CELLS[model](reading.inputs, HIDDEN))
        self.readout = nn.Linear(HIDDEN, CLASSES)
        start_gates(self.layer.cell, reading.steps)

    def forward(self, images: Tensor) -> Tensor:
        outputs, _ = self.layer(images)
        return self.readout(outputs[:, -1])


@torch.no_grad()
def score(reader: Reader, digits: Digits) -> tuple[float, float]:
    """Nats a digit, and the percentage that is right."""
    logits = torch.cat([reader(images) for images in digits.images.split(AT_ONCE)])
    return float(cross_entropy(logits, digits.labels)), 100 * float((logits.argmax(1) == digits.labels).double().mean())


def gradient_norms(reader: Reader, digits: Digits) -> dict[str, list[float]]:
    """The mean norm of d loss / d state at some steps, by the part of the state; the loss is that of each digit alone."""
    reader = copy.deepcopy(reader).double()
    images, cell = digits.images[:WATCHED].double(), reader.layer.cell
    state, states = cell.initial_state(len(images)), []
    for x in images.unbind(1):
        _, state = cell.step(x, state)
        for part in state:
            part.retain_grad()
        states.append(state)
    cross_entropy(reader.readout(state.h), digits.labels[:WATCHED], reduction="sum").backward()
    last = len(states) - 1
    watched = sorted({round(last * place / (POINTS - 1)) for place in range(POINTS)})
    norms: dict[str, list[float]] = {"t": [(t + 1) / len(states) for t in watched]}
    for name in state._fields:
        norms[name] = [float(getattr(states[t], name).grad.norm(dim=1).mean()) for t in watched]
    return norms


def train(reader: Reader, parts: dict[str, Digits], minutes: float, rate: float, options: argparse.Namespace) -> dict[str, Any]:
    """Learn until the minutes are over; the weights that validated best are in `reader` then."""
    optimizer, schedule = build_optimizer(reader, OptimizerSettings(learning_rate=rate)), ScheduleSettings()
    generator, digits = torch.Generator().manual_seed(options.seed), parts["train"]
    seconds, steps, order, curve = 0.0, 0, torch.empty(0, dtype=torch.long), []
    best, kept = math.inf, reader.state_dict()
    while True:
        done = min(seconds / (60 * minutes), 1.0)
        if done * EVALUATIONS >= len(curve) + 1:
            loss, accuracy = score(reader, parts["valid"])
            curve.append({"step": steps, "seconds": round(seconds, 1), "loss": loss, "accuracy": accuracy})
            print(f"  {seconds:6.1f} s, step {steps}: validation {loss:.3f} nats, {accuracy:.2f} %", flush=True)
            if loss < best:
                best, kept = loss, copy.deepcopy(reader.state_dict())
        if done == 1:
            break
        begin = time.perf_counter()
        if len(order) < options.batch:
            order = torch.randperm(len(digits.labels), generator=generator)
        some, order = order[: options.batch], order[options.batch :]
        for group in optimizer.param_groups:
            group["lr"] = rate * rate_share(schedule, steps, done, 0)
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(reader(digits.images[some]), digits.labels[some]).backward()
        nn.utils.clip_grad_norm_(reader.parameters(), CLIP)
        optimizer.step()
        steps, seconds = steps + 1, seconds + time.perf_counter() - begin
    reader.load_state_dict(kept)
    return {"steps": steps, "epochs": round(steps * options.batch / len(digits.labels), 2), "seconds": round(seconds, 1), "curve": curve}


def measure(name: str, model: str, parts: dict[str, Digits], minutes: float, given: argparse.Namespace) -> dict[str, Any]:
    """Train one cell on one reading, and test it."""
    reading = READINGS[name]
    options = argparse.Namespace(**vars(given) | {"batch": given.batch or reading.batch})
    rate = given.learning_rate or reading.rates[model]
    torch.manual_seed(options.seed)
    reader = Reader(model, reading)
    reader(parts["valid"].images[:2]).sum().backward()  # what is compiled is compiled before the clock runs
    reader.zero_grad()
    gradient = {"start": gradient_norms(reader, parts["valid"])}
    learnt = train(reader, parts, minutes, rate, options)
    gradient["end"] = gradient_norms(reader, parts["valid"])
    loss, accuracy = score(reader, parts["test"])
    print(f"{name}, {MODELS[model]}: {accuracy:.2f} % of the test part after {learnt['steps']} updates", flush=True)
    return {
        "reading": name,
        "model": model,
        "machine": describe_machine(),
        "minutes": minutes,
        "parameters": sum(parameter.numel() for parameter in reader.parameters()),
        "hidden": HIDDEN,
        "batch": options.batch,
        "learning_rate": rate,
        "seed": options.seed,
        "test_accuracy": accuracy,
        "test_loss": loss,
        **learnt,
        "gradient": gradient,
    }


COLOURS = {"gru": "#1f6feb", "lstm": "#c2410c", "elman": "#15803d"}
LEAST = -16
"""The power of ten below which nothing is drawn."""


WIDTH, HEIGHT, TOP, BOTTOM, LEFT, GAP = 640, 330, 60, 44, 52, 34
PANEL = (WIDTH - LEFT - 16 - GAP) / 2


class Powers(NamedTuple):
    """Powers of ten at the lower and the upper edge."""

    least: int
    most: int

    def place(self, panel: int, x: float, y: float) -> tuple[float, float]:
        """Where a point of a panel is drawn."""
        return LEFT + panel * (PANEL + GAP) + PANEL * x, TOP + (HEIGHT - BOTTOM - TOP) * (self.most - y) / (self.most - self.least)


def relative(row: dict[str, Any], when: str) -> list[tuple[float, float]]:
    """Share of the sequence and power of ten of the norm, that of the last step being 0; of the state that is carried on, for an LSTM `c`."""
    norms = row["gradient"][when]
    carried = norms.get("c", norms["h"])
    return [(t, math.log10(max(norm / carried[-1], 1e-300))) for t, norm in zip(norms["t"], carried, strict=True)]


def axes(panel: int, name: str, powers: Powers) -> Iterator[str]:
    place = powers.place
    for y in range(powers.least, powers.most + 1, 2):
        (x1, at), (x2, _) = place(panel, 0, y), place(panel, 1, y)
        yield f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="{at:.1f}" y2="{at:.1f}" stroke="#8884"/>'
        if panel == 0:
            yield f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">10<tspan dy="-5" font-size="9">{y}</tspan></text>'
    for x in (0, 0.5, 1):
        step = round(x * READINGS[name].steps) or 1
        yield f'<text x="{place(panel, x, 0)[0]:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{step}</text>'
    yield f'<text x="{place(panel, 0.5, 0)[0]:.1f}" y="{HEIGHT - 4}" text-anchor="middle">step, by {name}</text>'


def curves(panel: int, row: dict[str, Any], powers: Powers) -> Iterator[str]:
    for when, dashes in (("start", ' stroke-dasharray="5 4"'), ("end", "")):
        # A curve that leaves the picture ends there.
        points = [powers.place(panel, x, y) for x, y in relative(row, when) if y >= powers.least]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        yield f'<polyline points="{line}" fill="none" stroke="{COLOURS[row["model"]]}" stroke-width="2.2"{dashes}/>'


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Norms of gradients by time, relative to the last step: a panel a reading, a line a cell, as one SVG."""
    found = [y for row in rows for when in ("start", "end") for _, y in relative(row, when)]
    powers = Powers(max(LEAST, 2 * math.floor(min(found) / 2)), 2 * math.ceil(max(*found, 1.0) / 2))
    lines = ['<text x="8" y="16">norm of d loss / d state at a step, as a share of that at the last step (dashed: before training)</text>']
    for number, (model, label) in enumerate(MODELS.items()):
        x = LEFT + 150 * number
        lines.append(f'<rect x="{x}" y="32" width="12" height="4" fill="{COLOURS[model]}"/><text x="{x + 18}" y="38">{label}</text>')
    for panel, name in enumerate(READINGS):
        lines += axes(panel, name, powers)
        lines += [line for row in rows if row["reading"] == name for line in curves(panel, row, powers)]
    body = "\n".join(lines)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Norms of gradients by step"'
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'{head} font-family="sans-serif" font-size="12" fill="#888">\n{body}\n</svg>\n', encoding="utf-8")


def main() -> None:
    """Row by row, each kept as soon as it is there."""
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    for name in options.readings:
        minutes, parts = options.minutes or READINGS[name].minutes, None
        for model in options.models:
            mine = [row for row in rows if (row["reading"], row["model"]) == (name, model)]
            if not options.again and any((row["minutes"], row["machine"]["threads"]) == (minutes, options.threads) for row in mine):
                print(f"{name}, {MODELS[model]}: measured before, {mine[0]['test_accuracy']:.2f} %")
                continue
            parts = parts or read_digits(options.folder, READINGS[name])
            rows = [row for row in rows if row not in mine] + [measure(name, model, parts, minutes, options)]
            rows.sort(key=lambda row: (list(READINGS).index(row["reading"]), list(MODELS).index(row["model"])))
            options.out.parent.mkdir(exist_ok=True)
            options.out.write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    drawing = Path(__file__).parents[1] / "docs" / "_static" / "vanishing.svg"
    draw(rows, drawing if options.out.parent == RESULTS else options.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
