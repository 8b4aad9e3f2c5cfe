"""The linear dynamical system as a model object: `fit`, `score`, `predict`, `sample`, `forecast`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.core.padded import Padded
from unrolled.ssm.kalman.em import FALL, Structure, check_structure, expect, maximise
from unrolled.ssm.kalman.entries import as_padded, check_inputs
from unrolled.ssm.kalman.inference import kalman_smoother
from unrolled.ssm.kalman.model import LinearModel, check_fittable, read_model, save_model
from unrolled.ssm.kalman.optimise import fit_by_gradient
from unrolled.ssm.kalman.parametrise import covariance_of, free_of_covariance
from unrolled.ssm.kalman.system import LinearGaussian, check_system
from unrolled.ssm.watch import Watch, unwatched

KIND = "lds"
TOLERANCE = 1e-6
"""EM ends where a round adds less than this to the log-likelihood of a number that was seen."""
SINGULAR = "a covariance has become singular; try fewer states, `diagonal` covariances, or without a column that follows from others"
"""What a person can do where EM cannot go on."""
NEVER = 1e-10
"""Covariances that were frozen at zero are searched as if they were this."""


class LinearDynamicalSystem(LinearModel):
    """A linear-Gaussian state-space model whose parameters are learnt, by EM or by the gradient."""

    def __init__(
        self, states: int, *, offset: bool = True, structure: Structure | None = None, system: LinearGaussian | None = None
    ) -> None:
        """Describe a model.

        Args:
            states: numbers in the hidden state.
            offset: whether outputs have a mean of their own: a further input that is always one.
            structure: what a fit may change; all, if not given.
            system: where to begin; with `offset` its last input is the one that is always one. Found from the data, if not given.

        Raises:
            ConfigurationError: no state, or a system of another size.
        """
        super().__init__()
        if states < 1:
            raise ConfigurationError(f"`states` must be at least 1, got {states}")
        if system is not None and check_system(system).states != states:
            raise ConfigurationError(f"`system` must have {states} states, got {system.states}")
        if system is not None and offset and not system.inputs:
            raise ConfigurationError("`system` must have an input that is always one where `offset` is wanted, got none; try offset=False")
        check_structure(structure or Structure())
        self.states, self.offset, self.structure = states, offset, structure or Structure()
        self._system = system

    @property
    def system(self) -> LinearGaussian:
        """The parameters; a `ConfigurationError` where there are none yet."""
        if self._system is None:
            raise ConfigurationError("the model must be fitted first, got one that is not; call `fit`, or give `system`")
        return self._system

    @property
    def free_parameters(self) -> int:
        """How many numbers a fit changes; a rotation of the states that changes nothing else is counted too, as is usual."""
        system, structure = self.system, self.structure
        count = system.rank
        for name in LinearGaussian._fields[:-1]:
            matrix = getattr(system, name)
            if matrix is None or name in structure.frozen or (system.rank and name.startswith("initial")):
                continue
            if name.endswith("covariance"):
                size = len(matrix)
                forms = {"full": size * (size + 1) // 2, "diagonal": size, "spherical": 1}
                count += forms[(structure.covariances or {}).get(name, "full")]
            else:
                mask = (structure.free or {}).get(name)
                count += matrix.numel() if mask is None else int(mask.sum())
        return count

    def known_inputs(self, series: Padded, inputs: Tensor | None) -> Tensor | None:
        """Inputs with the one that is always one behind them.

        Args:
            series: what they belong to.
            inputs: as given.

        Returns:
            `[batch, time, input]`.
        """
        if not self.offset:
            return inputs
        always = series.data.new_ones(*series.data.shape[:2], 1)
        return always if inputs is None else torch.cat([inputs.to(always), always], 2)

    def fit(
        self,
        series: Tensor | Padded,
        inputs: Tensor | None = None,
        *,
        iterations: int = 200,
        tolerance: float = TOLERANCE,
        generator: torch.Generator | None = None,
        watch: Watch = unwatched,
    ) -> LinearDynamicalSystem:
        """Maximum likelihood by EM.

        Args:
            series: outputs `[batch, time, observed]`, all with the same parameters; NaN is missing.
            inputs: known inputs `[batch, time, input]`.
            iterations: at most so many rounds.
            tolerance: it ends where a round adds less than this a seen number.
            generator: where the start is drawn from.
            watch: is told the log-likelihood of each round.

        Returns:
            The model itself, fitted.

        Raises:
            DataError: a covariance has become singular: the likelihood fell beyond rounding, or nothing could be computed.
        """
        system, padded, known = self._begin(series, inputs, generator)
        history: list[float] = []
        try:
            system = self._rounds(system, padded, known, (iterations, tolerance), history, watch)
            log_likelihood = float(kalman_smoother(system, padded, known).log_likelihood.sum())
        except torch.linalg.LinAlgError:
            raise DataError(f"{SINGULAR} (in round {len(history)} of EM)") from None
        self._system = system
        gain = history[-1] - history[-2] if len(history) > 1 else math.inf
        self._keep(log_likelihood, padded, history, converged=gain < tolerance * int((~padded.data.isnan()).sum()))
        return self

    def _rounds(
        self,
        system: LinearGaussian,
        padded: Padded,
        known: Tensor | None,
        end: tuple[int, float],
        history: list[float],
        watch: Watch,
    ) -> LinearGaussian:
        """Rounds of EM, of which `history` is told; `end` is after how many, and at which gain."""
        (iterations, tolerance), seen = end, int((~padded.data.isnan()).sum())
        for _ in range(iterations):
            smoothed = kalman_smoother(system, padded, known)
            history.append(float(smoothed.log_likelihood.sum()))
            watch(1, len(history), history[-1])
            if len(history) > 1 and history[-1] < history[-2] - FALL * (abs(history[-2]) + seen):
                raise DataError(
                    f"the likelihood must not fall in EM, got {history[-2]:.6g}, then {history[-1]:.6g} in round {len(history)}: {SINGULAR}"
                )
            if len(history) > 1 and history[-1] - history[-2] < tolerance * seen:
                break
            system = maximise(system, expect(system, padded, known, smoothed), self.structure)
            try:
                check_system(system)
            except DataError:  # rounding has made a variance negative that should be zero
                raise DataError(f"{SINGULAR} (in round {len(history)} of EM)") from None
        return system

    def fit_by_gradient(
        self,
        series: Tensor | Padded,
        inputs: Tensor | None = None,
        *,
        iterations: int = 500,
        generator: torch.Generator | None = None,
        watch: Watch = unwatched,
    ) -> LinearDynamicalSystem:
        """Maximum likelihood by L-BFGS: fewer rounds than EM where the noise is small.

        Args:
            series: outputs `[batch, time, observed]`, all with the same parameters; NaN is missing.
            inputs: known inputs `[batch, time, input]`.
            iterations: at most so many.
            generator: where the start is drawn from.
            watch: is told each log-likelihood that was evaluated.

        Returns:
            The model itself, fitted.
        """
        system, padded, known = self._begin(series, inputs, generator)
        pieces = _Pieces(system, self.structure)
        found = fit_by_gradient(pieces.build, [pieces.start()], padded, known, iterations=iterations, watch=watch)
        held: dict[str, Any] = pieces.build(found.parameters)._asdict()
        held = {name: None if one is None else one.detach() for name, one in held.items()}
        self._system = LinearGaussian(**held)
        self._keep(found.log_likelihood, padded, found.history, converged=found.converged)
        return self

    def save(self, folder: str | Path) -> None:
        """Write the model as safetensors and JSON.

        Args:
            folder: made where it is missing.
        """
        structure = self.structure
        masks = {f"free.{name}": mask for name, mask in (structure.free or {}).items()}
        known = {"model": KIND, "states": self.states, "offset": self.offset}
        known |= {"frozen": sorted(structure.frozen), "covariances": dict(structure.covariances or {})}
        fit = {"log_likelihood": self.log_likelihood, "seen": self.seen, "history": self.history}
        held = {name: one for name, one in self.system._asdict().items() if one is not None}
        save_model(Path(folder), known | fit, held | masks)

    @classmethod
    def load(cls, folder: str | Path) -> LinearDynamicalSystem:
        """Read what `save` wrote.

        Args:
            folder: where.

        Returns:
            The model, fitted.
        """
        described, held = read_model(Path(folder), KIND)
        masks = {name.removeprefix("free."): held.pop(name) for name in list(held) if name.startswith("free.")}
        structure = Structure(described["frozen"], masks, described["covariances"])
        model = cls(described["states"], offset=described["offset"], structure=structure, system=LinearGaussian(**held))
        model.log_likelihood, model.seen, model.history = described["log_likelihood"], described["seen"], described["history"]
        return model

    def _begin(
        self, series: Tensor | Padded, inputs: Tensor | None, generator: torch.Generator | None
    ) -> tuple[LinearGaussian, Padded, Tensor | None]:
        data = series.data if isinstance(series, Padded) else series
        if data.dim() != 3:
            raise DataError(f"a series must be [batch, time, observed], got {tuple(data.shape)}")
        system = self._system or start_system(
            self.states, series, 0 if inputs is None else inputs.shape[2], offset=self.offset, generator=generator
        )
        padded = as_padded(system, series)
        check_fittable(padded, self.states)
        return system, padded, check_inputs(system, padded, self.known_inputs(padded, inputs))


def start_system(
    states: int, series: Tensor | Padded, inputs: int, *, offset: bool, generator: torch.Generator | None = None
) -> LinearGaussian:
    """Parameters to begin from: states that remember, seen along the directions in which the outputs vary most.

    Args:
        states: how many.
        series: outputs `[batch, time, observed]`.
        inputs: how many known inputs.
        offset: whether one more is always one.
        generator: where small numbers are drawn from.

    Returns:
        A system in double precision.
    """
    data, lengths = series if isinstance(series, Padded) else (series, torch.full((len(series),), series.shape[1]))
    rows = data.double()[torch.arange(data.shape[1], device=data.device) < lengths.to(data.device).unsqueeze(1)]
    D = data.shape[2]
    like: dict[str, Any] = {"dtype": torch.float64, "device": data.device}
    mean = rows.nanmean(0).nan_to_num()
    centred = (rows - mean).nan_to_num()
    spread = centred.T @ centred / max(len(rows), 1)
    values, vectors = torch.linalg.eigh(spread)
    emission = 0.01 * values[-1].clamp(min=0).sqrt() * torch.randn(D, states, generator=generator, **like)
    strongest = min(D, states)
    emission[:, :strongest] += (vectors * values.clamp(min=0).sqrt()).flip(1)[:, :strongest]
    one = torch.eye(states, **like)
    count = inputs + offset
    adds = torch.zeros(D, count, **like)
    if offset:
        adds[:, -1] = mean
    noise = spread.diag().clamp(min=float(spread.diag().max()) * 1e-6) * 0.5
    remember = 0.9
    return LinearGaussian(
        one * remember,
        one * (1 - remember**2),
        emission,
        noise.diag(),
        torch.zeros(states, **like),
        one,
        torch.zeros(states, count, **like) if inputs else None,
        adds if count else None,
    )


class _Pieces:
    """The free numbers of a system under a structure, in a row."""

    def __init__(self, system: LinearGaussian, structure: Structure) -> None:
        self.system, self.structure = system, structure
        skipped = {"diffuse", *structure.frozen} | ({"initial_mean", "initial_covariance"} if system.rank else set())
        self.names = [name for name in LinearGaussian._fields if name not in skipped and getattr(system, name) is not None]

    def start(self) -> Tensor:
        """The numbers of the system itself."""
        return torch.cat([self._free(name) for name in self.names]) if self.names else self.system.transition.new_zeros(0)

    def build(self, numbers: Tensor) -> LinearGaussian:
        """The system of such numbers."""
        changed = {}
        for name, part in zip(self.names, numbers.split([len(self._free(name)) for name in self.names]), strict=True):
            changed[name] = self._bound(name, part)
        return self.system._replace(**changed)

    def _form(self, name: str) -> str:
        return (self.structure.covariances or {}).get(name, "full")

    def _free(self, name: str) -> Tensor:
        matrix = getattr(self.system, name)
        if not name.endswith("covariance"):
            mask = (self.structure.free or {}).get(name)
            return matrix.flatten() if mask is None else matrix[mask]
        variances = matrix.diag().clamp(min=NEVER).log()
        safe = matrix + NEVER * torch.eye(len(matrix)).to(matrix)
        return {"full": lambda: free_of_covariance(safe), "diagonal": lambda: variances, "spherical": lambda: variances[:1]}[
            self._form(name)
        ]()

    def _bound(self, name: str, part: Tensor) -> Tensor:
        matrix = getattr(self.system, name)
        if name.endswith("covariance"):
            size = len(matrix)
            return covariance_of(part, size) if self._form(name) == "full" else part.exp().expand(size).diag()
        mask = (self.structure.free or {}).get(name)
        if mask is None:
            return part.view_as(matrix)
        return matrix.masked_scatter(mask, part)
