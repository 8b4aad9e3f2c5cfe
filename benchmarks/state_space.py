"""State-space models beside their peers on this machine, alternating, medians.

    .venv/bin/python benchmarks/state_space.py hmm [--forms diagonal full] [--iterations 5] [--rounds 3] [--threads 2] [--peers scaling log]

`hmm`: Baum–Welch on 200 sequences of 200 to 1,000 steps, 8 Gaussian states in 4 dimensions, from the same parameters for the same number of iterations
as hmmlearn, in both of its implementations: `log` is its default, `scaling` the faster one. The log-likelihoods must agree.

The machine must have nothing else to do. Parts are merged into benchmarks/results/state_space_NAME.json, and what is there is printed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from machine import RESULTS, describe_machine, write_result

STATES, FEATURES, SEQUENCES, SHORTEST, LONGEST = 8, 4, 200, 200, 1000


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    found = function()
    return time.perf_counter() - begun, found


def sequences() -> tuple[list[np.ndarray], np.ndarray]:
    """Sequences of states that stay for ten steps on average, and the means that they were drawn around."""
    random = np.random.default_rng(0)
    means = 2 * random.normal(size=(STATES, FEATURES))
    found = []
    for length in random.integers(SHORTEST, LONGEST + 1, SEQUENCES):
        changes = random.random(length) < 0.1
        states = random.integers(0, STATES, length)[np.maximum.accumulate(np.where(changes, np.arange(length), 0))]
        found.append(means[states] + random.normal(size=(length, FEATURES)))
    return found, means


def start(form: str, means: np.ndarray) -> dict[str, np.ndarray]:
    """Parameters near the truth, but not there."""
    one = np.eye(FEATURES)
    covariances = {"spherical": np.ones(STATES), "diagonal": np.ones((STATES, FEATURES)), "tied": one, "full": np.tile(one, (STATES, 1, 1))}
    transition = np.full((STATES, STATES), 0.2 / STATES) + 0.8 * np.eye(STATES)
    return {"initial": np.full(STATES, 1 / STATES), "transition": transition, "means": means + 0.3, "covariances": covariances[form]}


def ours(form: str, parts: dict[str, np.ndarray], outputs: Any, iterations: int) -> float:
    from unrolled.ssm.hmm import COVARIANCES, BaumWelchSettings, Gaussian, Homogeneous, baum_welch

    begin = {name: torch.from_numpy(part) for name, part in parts.items()}
    emission = Gaussian(begin["means"], begin["covariances"], COVARIANCES[form])
    settings = BaumWelchSettings(iterations, tolerance=0.0, repairs=0)
    return baum_welch(Homogeneous(begin["initial"], begin["transition"]), emission, outputs, settings=settings).log_likelihoods[-2]


def theirs(form: str, parts: dict[str, np.ndarray], values: np.ndarray, lengths: list[int], iterations: int, implementation: str) -> float:
    from hmmlearn.hmm import GaussianHMM

    name = "diag" if form == "diagonal" else form
    model = GaussianHMM(
        STATES,
        name,
        covars_prior=0,
        covars_weight=0,
        min_covar=0,
        init_params="",
        n_iter=iterations,
        tol=-np.inf,
        implementation=implementation,
    )
    model.startprob_, model.transmat_ = parts["initial"].copy(), parts["transition"].copy()
    model.means_, model.covars_ = parts["means"].copy(), parts["covariances"].copy()
    model.fit(values, lengths)
    return model.monitor_.history[-1]


def hmm(given: argparse.Namespace) -> dict[str, Any]:
    from unrolled.core.padded import pad

    data, means = sequences()
    values, lengths = np.concatenate(data), [len(part) for part in data]
    outputs = pad([torch.from_numpy(part) for part in data])
    rows: dict[str, Any] = {}
    for form in given.forms:
        parts = start(form, means)
        ours(form, parts, outputs, 1)  # kernels are built once, or found built
        taken: dict[str, list[float]] = {"unrolled": [], **{f"hmmlearn {name}": [] for name in given.peers}}
        for _ in range(given.rounds):
            seconds, likelihood = timed(partial(ours, form, parts, outputs, given.iterations))
            taken["unrolled"].append(seconds / given.iterations)
            for name in given.peers:
                seconds, other = timed(partial(theirs, form, parts, values, lengths, given.iterations, name))
                taken[f"hmmlearn {name}"].append(seconds / given.iterations)
                assert abs(other - likelihood) < 1e-8 * abs(other), (other, likelihood)
        rows[form] = {name: {"seconds_an_iteration": median(found), "least": min(found)} for name, found in taken.items()}
        for name in given.peers:
            rows[form][f"times hmmlearn {name}"] = median(taken[f"hmmlearn {name}"]) / median(taken["unrolled"])
    about = {"sequences": SEQUENCES, "steps": int(sum(lengths)), "states": STATES, "features": FEATURES}
    return {**about, "iterations": given.iterations, "rounds": given.rounds, "forms": rows}


PARTS = {"hmm": hmm}
"""What can be measured."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("part", choices=PARTS)
    arguments.add_argument("--forms", nargs="+", default=["diagonal", "full"])
    arguments.add_argument("--peers", nargs="*", default=["scaling", "log"])
    arguments.add_argument("--iterations", type=int, default=5)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=2)
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    place = RESULTS / f"state_space_{given.part}.json"
    before = json.loads(place.read_text()) if place.exists() else {}
    found = PARTS[given.part](given)
    kept = before.get("forms", {}) if before.get("machine", {}).get("processor") == describe_machine()["processor"] else {}
    found["forms"] = {**kept, **found["forms"]}
    write_result(place.stem, {"machine": describe_machine(), **found})
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
