"""Kalman filter and smoother beside statsmodels and pykalman: many series, missing numbers that differ from series to series.

    .venv/bin/python benchmarks/state_space_kalman.py [--series 500] [--steps 500] [--rounds 3] [--threads 2]

All in one process, taken in turn; the least time of each, as it passes and of the processor. What is slow runs on some of the series
(`timed_series`), and its time is scaled to all. pykalman knows only rows that are missing as a whole: where a number is missing it skips the row,
which is less work. Writes benchmarks/results/state_space_kalman.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from machine import describe_machine, write_result
from pykalman import KalmanFilter as PyKalman
from statsmodels.tsa.statespace.kalman_smoother import SMOOTHER_STATE, SMOOTHER_STATE_COV, KalmanSmoother
from torch import Tensor

from unrolled.ssm.kalman import LinearGaussian, kalman_filter_and_smoother, kalman_log_likelihood

STATES, OBSERVED, MISSING, SEED = 4, 2, 0.1, 0
SHARE = {"statsmodels, set-up counted": 20, "statsmodels, core alone": 40, "pykalman": 1}

arguments = argparse.ArgumentParser()
arguments.add_argument("--series", type=int, default=500)
arguments.add_argument("--steps", type=int, default=500)
arguments.add_argument("--rounds", type=int, default=3)
arguments.add_argument("--threads", type=int, default=2)


def random_case(series: int, steps: int) -> tuple[LinearGaussian, Tensor]:
    """A stable system with full covariances, and noise to filter."""
    generator = torch.Generator().manual_seed(SEED)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def covariance(size: int) -> Tensor:
        root = numbers(size, size)
        return root @ root.T / size + 0.1 * torch.eye(size, dtype=torch.float64)

    turning = torch.linalg.qr(numbers(STATES, STATES))[0] * 0.95
    system = LinearGaussian(
        turning, covariance(STATES), numbers(OBSERVED, STATES), covariance(OBSERVED), numbers(STATES), covariance(STATES)
    )
    data = numbers(series, steps, OBSERVED)
    return system, torch.where(torch.rand(data.shape, generator=generator) < MISSING, torch.nan, data)


def prepared(system: LinearGaussian, row: np.ndarray, output: int | None = None) -> KalmanSmoother:
    """The smoother of statsmodels for one series, as its users set it up."""
    peer = KalmanSmoother(k_endog=OBSERVED, k_states=STATES, k_posdef=STATES, **({} if output is None else {"smoother_output": output}))
    peer.bind(row)
    peer["design"], peer["obs_cov"] = system.emission.numpy(), system.emission_covariance.numpy()
    peer["transition"], peer["selection"], peer["state_cov"] = (
        system.transition.numpy(),
        np.eye(STATES),
        system.transition_covariance.numpy(),
    )
    peer.initialize_known(system.initial_mean.numpy(), system.initial_covariance.numpy())
    return peer


class Clock:
    """Time that passes, and time of the processor in all threads: the latter hardly depends on what else runs."""

    def __init__(self) -> None:
        self.start = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self.start[0], time.process_time() - self.start[1]


Timed = tuple[tuple[float, float], np.ndarray]


def by_statsmodels(system: LinearGaussian, rows: list[np.ndarray]) -> Timed:
    clock = Clock()
    for row in rows:
        found = prepared(system, row).smooth()
    return clock.read(), found.smoothed_state.T


def by_statsmodels_core(system: LinearGaussian, rows: list[np.ndarray]) -> Timed:
    """Only its compiled filter and smoother, for the states and their covariances; all else is done before."""
    peers = [prepared(system, row, SMOOTHER_STATE | SMOOTHER_STATE_COV) for row in rows]
    for peer in peers:
        peer._filter()
        peer._smooth()
    pairs = [(next(iter(peer._kalman_filters.values())), next(iter(peer._kalman_smoothers.values()))) for peer in peers]
    clock = Clock()
    for kalman, smoother in pairs:
        kalman()
        smoother()
    return clock.read(), np.asarray(pairs[-1][1].smoothed_state).T


def by_pykalman(system: LinearGaussian, rows: list[np.ndarray]) -> Timed:
    clock = Clock()
    for row in rows:
        given = [one.numpy() for one in (system.transition, system.emission, system.transition_covariance, system.emission_covariance)]
        peer = PyKalman(*given, initial_state_mean=system.initial_mean.numpy(), initial_state_covariance=system.initial_covariance.numpy())
        means = peer.smooth(np.ma.masked_invalid(row))[0]  # filters first
    return clock.read(), means


def ours(system: LinearGaussian, data: Tensor) -> Timed:
    clock = Clock()
    _, found = kalman_filter_and_smoother(system, data)
    return clock.read(), found.means[-1].numpy()


def gradient(system: LinearGaussian, data: Tensor) -> tuple[float, float]:
    leaves = [one.clone().requires_grad_() for one in system[:6]]
    clock = Clock()
    kalman_log_likelihood(LinearGaussian(*leaves), data).sum().backward()
    return clock.read()


def main() -> None:
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    system, data = random_case(options.series, options.steps)
    rows = [np.ascontiguousarray(row) for row in data.numpy()]
    peers: dict[str, Callable[[LinearGaussian, list[np.ndarray]], Timed]] = {
        "statsmodels, set-up counted": by_statsmodels,
        "statsmodels, core alone": by_statsmodels_core,
        "pykalman": by_pykalman,
    }
    contestants: dict[str, Callable[[], Timed]] = {"unrolled": lambda: ours(system, data)}
    for name, peer in peers.items():
        contestants[name] = lambda peer=peer, name=name: peer(system, rows[-SHARE[name] :])  # type: ignore[misc]
    ours(system, data)  # builds the kernel
    count = {name: min(SHARE.get(name, options.series), options.series) for name in contestants}
    passed: dict[str, list[float]] = {name: [] for name in contestants}
    processor: dict[str, list[float]] = {name: [] for name in contestants}
    means = {}
    for _ in range(options.rounds):
        for name, run in contestants.items():
            times, means[name] = run()
            passed[name].append(times[0] * options.series / count[name])
            processor[name].append(times[1] * options.series / count[name])
    slopes = [gradient(system, data) for _ in range(options.rounds)]
    result: dict[str, Any] = {
        "machine": describe_machine(),
        "case": {"series": options.series, "steps": options.steps, "states": STATES, "outputs": OBSERVED, "missing": MISSING},
        "timed_series": count,
        "largest_difference": {name: float(np.abs(means[name] - means["unrolled"]).max()) for name in list(peers)[:2]},
        "seconds_of_a_likelihood_with_gradient": min(one for one, _ in slopes),
    }
    for kind, taken in (("seconds", passed), ("processor_seconds", processor)):
        least = {name: min(times) for name, times in taken.items()}
        result[kind] = least
        result[f"times_as_fast_by_{kind}"] = {name: one / least["unrolled"] for name, one in least.items() if name != "unrolled"}
    write_result("state_space_kalman", result)
    for key, value in list(result.items())[3:]:
        print(key, value)


if __name__ == "__main__":
    main()
