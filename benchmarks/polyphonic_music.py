"""The next frame of Bach's chorales: hidden Markov models of 1 to 256 states, and the tanh, GRU and LSTM cells of Chung et al. 2014.

    .venv/bin/python benchmarks/polyphonic_music.py FOLDER [--states 1 2 … 256] [--models elman gru lstm] [--seeds 0 1 2] [--threads 1]
        [--priors P …] [--dropouts P …]

FOLDER holds JSB_Chorales.mat (Boulanger-Lewandowski et al. 2012: 229 sequences train, 76 validate, 77 test), which SciPy reads. A frame is 88 notes, on
or off. Scored is -log P(frame | frames before it of the sequence) in nats, the mean over all frames of a part; the first frame of a sequence counts, and
is forecast from nothing. Rows also have the mean over sequences of each one's mean (`by_sequence`), and that without first frames (`later`).

`apart` is the form of the paper: a chance for each note, and the sum of 88 Bernoulli terms. A recurrent network says no more than that. A hidden Markov
model forecasts a mixture over its states, in which notes depend on each other: `joint` is the likelihood of the frame as a whole, `apart` that of
the chances which the mixture gives to each note. Both use the filter, and nothing that comes later.

Recurrent: sizes of the paper (some 20,000 parameters), AdamW without decay, dropout of `DROPOUTS` on what is read and on outputs, stopped on the validation
part (`PATIENCE` passes without a better one). Hidden Markov: `Baum–Welch`, stopped in the same way, with priors of `PRIORS`. Dropout and prior are chosen
on the part that validates, over the mean of the seeds; all runs are kept. Above `MOST_SEEDED` states there is one seed.

`bits`, of the hidden Markov models: how much the state of the filter says about the next frame, as the gain in likelihood over the same mixture whose states
are weighed by how often they occur (`occupied`, the mean of the filter over the same frames). It can exceed neither the entropy of these weights
(`entropy`) nor, therefore, log2 of the number of states: for weights w of a frame and r after it, log Σ w p / Σ v p ≤ Σ r log (w / v) ≤ -Σ r log v.

Runs that are there are not repeated. Writes benchmarks/results/polyphonic_music.json and docs/_static/chorales.svg.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from machine import RESULTS, describe_machine
from polyphonic_picture import draw
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits

from unrolled.core.padded import Padded, pad
from unrolled.nn.cells import CELLS
from unrolled.nn.dropout import LockedDropout
from unrolled.nn.recurrence import Recurrence
from unrolled.ssm.hmm import BaumWelchSettings, HiddenMarkovSettings, baum_welch, filter
from unrolled.ssm.hmm.start import STARTS, start_dynamics
from unrolled.train.optimizers import build_optimizer
from unrolled.train.settings import OptimizerSettings

NOTES, PARTS = 88, ("train", "valid", "test")
SIZES = {"elman": 100, "gru": 46, "lstm": 36}
"""Units, as in the paper."""
PUBLISHED = {"elman": 9.10, "gru": 8.54, "lstm": 8.67}
"""Test figures of Chung et al. 2014 as others quote them, the first of them as 9.19 as well."""
DROPOUTS, RATE, BATCH, CLIP = [0.0, 0.2], 2e-3, 8, 1.0
PATIENCE, LONGEST = 20, 600
"""Passes without a better validation, and at most."""
PRIORS, ROUND, WAITS = [1.02, 1.1, 1.5], 4, 3
"""Concentrations of Dirichlet and Beta priors; iterations of Baum–Welch between validations, and how many of these may bring nothing."""
MOST_ROUNDS, MOST_SEEDED = 40, 32

arguments = argparse.ArgumentParser()
arguments.add_argument("folder", type=Path)
arguments.add_argument("--states", nargs="*", type=int, default=[2**power for power in range(9)])
arguments.add_argument("--models", nargs="*", choices=list(SIZES), default=list(SIZES))
arguments.add_argument("--dropouts", nargs="+", type=float, default=DROPOUTS)
arguments.add_argument("--priors", nargs="+", type=float, default=PRIORS)
arguments.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
arguments.add_argument("--threads", type=int, default=1)
arguments.add_argument("--out", type=Path, default=RESULTS / "polyphonic_music.json")


class Spread(NamedTuple):
    """A loss a frame in three means."""

    frames: float
    by_sequence: float
    later: float


def read(path: Path) -> dict[str, Padded]:
    """Frames of each part, `[sequences, time, notes]`."""
    from scipy.io import loadmat

    found = loadmat(path)
    return {part: pad([torch.from_numpy(one.astype("float64")) for one in found[f"{part}data"][0]]) for part in PARTS}


def means(losses: Tensor, lengths: Tensor) -> Spread:
    """Of losses `[sequences, time]`, zero past a length."""
    sums = losses.sum(1)
    later = (sums - losses[:, 0]).sum() / (lengths - 1).sum()
    return Spread(float(sums.sum() / lengths.sum()), float((sums / lengths).mean()), float(later))


class Player(nn.Module):
    """Reads the frame before, and gives the chances of the next one's notes as logits; before the first frame it reads silence."""

    def __init__(self, model: str, dropout: float) -> None:
        super().__init__()
        self.layer = Recurrence(CELLS[model](NOTES, SIZES[model]))
        self.dropout = LockedDropout(dropout)
        self.readout = nn.Linear(SIZES[model], NOTES)

    def forward(self, frames: Tensor) -> Tensor:
        before = torch.cat([torch.zeros_like(frames[:, :1]), frames[:, :-1]], 1)
        outputs, _ = self.layer(self.dropout(before)[0])
        return self.readout(self.dropout(outputs)[0])


def frame_losses(player: Player, padded: Padded) -> Tensor:
    """Nats of each frame, zero past a length."""
    frames = padded.data.float()
    losses = binary_cross_entropy_with_logits(player(frames), frames, reduction="none").sum(2)
    return losses * padded.mask


@torch.no_grad()
def score_player(player: Player, parts: dict[str, Padded]) -> dict[str, dict[str, float]]:
    player.eval()
    found = {part: means(frame_losses(player, padded).double(), padded.lengths)._asdict() for part, padded in parts.items()}
    player.train()
    return found


def train_player(model: str, dropout: float, seed: int, parts: dict[str, Padded]) -> dict[str, Any]:
    """Learn until the validation part says stop; scored are the weights that validated best."""
    torch.manual_seed(seed)
    player = Player(model, dropout)
    optimizer = build_optimizer(player, OptimizerSettings(learning_rate=RATE, weight_decay=0.0))
    best, kept, waited, train, begun = math.inf, player.state_dict(), 0, parts["train"], time.perf_counter()
    epochs = 0
    while waited < PATIENCE and epochs < LONGEST:
        for rows in torch.randperm(len(train.data)).split(BATCH):
            lengths = train.lengths[rows]
            some = Padded(train.data[rows, : int(lengths.max())], lengths)
            optimizer.zero_grad(set_to_none=True)
            (frame_losses(player, some).sum() / lengths.sum()).backward()
            nn.utils.clip_grad_norm_(player.parameters(), CLIP)
            optimizer.step()
        loss = score_player(player, {"valid": parts["valid"]})["valid"]["frames"]
        waited = 0 if loss < best else waited + 1
        epochs += 1
        if loss < best:
            best, kept = loss, copy.deepcopy(player.state_dict())
    player.load_state_dict(kept)
    sizes = {"parameters": sum(one.numel() for one in player.parameters()), "hidden": SIZES[model]}
    return sizes | {"epochs": epochs, "seconds": round(time.perf_counter() - begun, 1), "apart": score_player(player, parts)}


def score_states(dynamics: Any, emission: Any, padded: Padded) -> dict[str, Any]:
    """Losses of one-step forecasts by the filter, and what its state says of the next frame."""
    scores = emission.log_likelihood(padded)
    found = filter(dynamics.chain(None), scores)
    frames = padded.lengths.sum()
    chances = (found.predicted @ emission.chances).clamp(0, 1)
    apart = binary_cross_entropy(chances, padded.data, reduction="none").sum(2) * padded.mask
    occupied = found.probabilities.sum((0, 1)) / frames
    alone = (occupied.clamp(min=1e-300).log() + scores.data).logsumexp(2)
    gain = torch.where(padded.mask, found.evidence - alone, 0).sum() / frames / math.log(2)
    entropy = -torch.special.xlogy(occupied, occupied).sum() / math.log(2)
    assert gain <= entropy + 1e-9, "the bound is a theorem"
    return {
        "joint": means(-found.evidence, padded.lengths)._asdict(),
        "apart": means(apart, padded.lengths)._asdict(),
        "without_past": -float(torch.where(padded.mask, alone, 0).sum() / frames),
        "bits": float(gain),
        "entropy": float(entropy),
    }


def fit_states(states: int, prior: float, seed: int, parts: dict[str, Padded]) -> dict[str, Any]:
    """Baum–Welch until the validation part says stop; scored is what validated best."""
    settings = HiddenMarkovSettings(states=states, emission="bernoulli", concentration=prior)
    generator, begun = torch.Generator().manual_seed(seed), time.perf_counter()
    now = start_dynamics(settings, None, generator), STARTS["bernoulli"](parts["train"], settings, generator)
    best, kept, waited, iterations = math.inf, now, 0, 0
    for _ in range(MOST_ROUNDS):
        fit = baum_welch(*now, parts["train"], settings=BaumWelchSettings(ROUND, tolerance=1e-5))
        now, iterations = (fit.dynamics, fit.emission), iterations + len(fit.objectives) - 1
        loss = score_states(*now, parts["valid"])["joint"]["frames"]
        waited = 0 if loss < best else waited + 1
        if loss < best:
            best, kept = loss, now
        if waited == WAITS or fit.converged:
            break
    sizes = {"parameters": kept[0].free_parameters + kept[1].free_parameters, "iterations": iterations}
    found = {part: score_states(*kept, padded) for part, padded in parts.items()}
    by_score = {name: {part: found[part][name] for part in PARTS} for name in found["test"]}
    return sizes | {"seconds": round(time.perf_counter() - begun, 1)} | by_score


def summary(runs: list[dict[str, Any]], key: str, score: str) -> dict[str, Any]:
    """The option that validates best over the mean of its seeds, and what its runs say."""

    def valid(option: float) -> float:
        return statistics.mean(run[score]["valid"]["frames"] for run in runs if run[key] == option)

    chosen = min({run[key] for run in runs}, key=valid)
    mine = [run for run in runs if run[key] == chosen]
    found: dict[str, Any] = {key: chosen, "seeds": len(mine), "parameters": mine[0]["parameters"]}
    for name in ("apart", "joint"):
        if name in mine[0]:
            for mean in Spread._fields:
                tests = [run[name]["test"][mean] for run in mine]
                found[f"{name}_{mean}"] = statistics.mean(tests)
            found[f"{name}_deviation"] = statistics.stdev([run[name]["test"]["frames"] for run in mine]) if len(mine) > 1 else None
    return found | {
        name: statistics.mean(run[name]["test"] for run in mine) for name in ("bits", "entropy", "without_past") if name in mine[0]
    }


def rows_of(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the runs come to, a row a cell and a number of states."""
    rows: list[dict[str, Any]] = []
    for model, published in PUBLISHED.items():
        mine = [run for run in runs if run["model"] == model]
        if mine:
            rows.append({"model": model, "published": published} | summary(mine, "dropout", "apart"))
    for states in sorted({run["states"] for run in runs if run["model"] == "hmm"}):
        mine = [run for run in runs if run["model"] == "hmm" and run["states"] == states]
        rows.append({"model": "hmm", "states": states} | summary(mine, "prior", "joint"))
    return rows


def wanted(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What is to be run."""
    hidden = [
        {"model": "hmm", "states": states, "prior": prior, "seed": seed}
        for states in options.states
        for prior in options.priors
        for seed in (options.seeds if states <= MOST_SEEDED else options.seeds[:1])
    ]
    return hidden + [
        {"model": model, "dropout": dropout, "seed": seed}
        for model in options.models
        for dropout in options.dropouts
        for seed in options.seeds
    ]


def main() -> None:
    """Run by run, each kept as soon as it is there."""
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    parts = read(options.folder / "JSB_Chorales.mat")
    runs = json.loads(options.out.read_text())["runs"] if options.out.exists() else []
    for one in wanted(options):
        if any(one.items() <= run.items() for run in runs):
            continue
        found = (
            fit_states(one["states"], one["prior"], one["seed"], parts)
            if one["model"] == "hmm"
            else train_player(one["model"], one["dropout"], one["seed"], parts)
        )
        runs.append(one | found)
        shown = {name: round(found[name]["test"]["frames"], 3) for name in ("apart", "joint") if name in found}
        print(one, shown, f"{found['seconds']} s", flush=True)
        options.out.parent.mkdir(exist_ok=True)
        options.out.write_text(json.dumps({"machine": describe_machine(), "rows": rows_of(runs), "runs": runs}, indent=2) + "\n")
    drawing = Path(__file__).parents[1] / "docs" / "_static" / "chorales.svg"
    draw(rows_of(runs), drawing if options.out.parent == RESULTS else options.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
