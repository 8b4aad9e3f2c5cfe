"""Structural time-series models: level, trend, season, regression and ARMA as parts that add up, fitted by maximum likelihood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unrolled.core.errors import ConfigurationError, nearest
from unrolled.core.padded import Padded
from unrolled.ssm.kalman.components import COMPONENTS, Block, Component, Regression
from unrolled.ssm.kalman.entries import as_padded
from unrolled.ssm.kalman.model import LinearModel, check_fittable, read_model, save_model
from unrolled.ssm.kalman.optimise import fit_by_gradient
from unrolled.ssm.kalman.parametrise import POSITIVE, Kind
from unrolled.ssm.kalman.system import LinearGaussian
from unrolled.ssm.watch import Watch, unwatched

STARTS = (0.3, 0.03, 0.001)
"""Variances begin at these shares of the variance of the data, one search each."""
KIND = "structural"


class Contribution(NamedTuple):
    """What a component contributes to the output, given all of the series."""

    means: Float[Tensor, "batch time"]
    variances: Float[Tensor, "batch time"]
    """Zero for a regression, whose coefficients are taken as known."""


class StructuralModel(LinearModel):
    """One output that is a sum of components and noise.

    Example:
        >>> from unrolled.ssm.kalman import LocalLevel, Seasonal
        >>> model = StructuralModel(LocalLevel() + Seasonal(4))
        >>> list(model.kinds())
        ['irregular', 'level', 'seasonal']
    """

    def __init__(
        self,
        components: Component | Sequence[Component],
        *,
        irregular: bool = True,
        fixed: Mapping[str, float | Sequence[float]] | None = None,
    ) -> None:
        """Put components together.

        Args:
            components: one, or several joined by `+`.
            irregular: whether the output has noise of its own.
            fixed: parameters that are known, by name; they are not fitted.

        Raises:
            ConfigurationError: no component, or a fixed parameter that there is not or that cannot be so.
        """
        super().__init__()
        self.components = (components,) if isinstance(components, Component) else tuple(components)
        self.irregular = irregular
        if not self.components:
            raise ConfigurationError("a structural model must have at least one component, got none")
        known = self.kinds()
        self.fixed = checked_fixed(fixed or {}, known)
        self.parameters: dict[str, Tensor] | None = dict(self.fixed) if len(self.fixed) == len(known) else None
        """By name, once fitted."""

    def kinds(self) -> dict[str, tuple[Kind, int]]:
        """The parameters by name.

        Returns:
            How each is bound, and how many numbers it is.
        """
        found = {"irregular": (POSITIVE, 1)} if self.irregular else {}
        for _, names, kinds in self._named():
            found |= {name: kinds[own] for own, name in names.items()}
        return found

    @property
    def inputs(self) -> int:
        """How many known inputs there are."""
        return sum(one.inputs for one in self.components if isinstance(one, Regression))

    @property
    def system(self) -> LinearGaussian:
        """The parameters as matrices; a `ConfigurationError` where there are none yet."""
        if self.parameters is None:
            raise ConfigurationError("the model must be fitted first, got one that is not; call `fit`, or give all parameters as `fixed`")
        return self.build(self.parameters)

    @property
    def free_parameters(self) -> int:
        """How many numbers are estimated from the data, diffuse states among them."""
        return sum(count for name, (_, count) in self.kinds().items() if name not in self.fixed) + self.system.rank

    def build(self, values: Mapping[str, Tensor]) -> LinearGaussian:
        """The system of given parameters.

        Args:
            values: by name.

        Returns:
            Matrices; differentiable.
        """
        blocks: list[Block] = []
        coefficients = []
        for component, names, _ in self._named():
            own = {name: values[outer] for name, outer in names.items()}
            blocks.append(component.block(own))
            if isinstance(component, Regression):
                coefficients.append(own["coefficient"])
        like = next(iter(values.values()))
        blocks = [block for block in blocks if len(block.emission)] or [_still(like)]
        noise = values["irregular"] if self.irregular else like.new_zeros(1)
        diffuse = torch.cat([block.diffuse for block in blocks])
        return LinearGaussian(
            torch.block_diag(*[block.transition for block in blocks]),
            torch.block_diag(*[block.covariance for block in blocks]),
            torch.cat([block.emission for block in blocks]).unsqueeze(0),
            noise.view(1, 1),
            like.new_zeros(len(diffuse)),
            torch.block_diag(*[block.initial_covariance for block in blocks]),
            emission_input=torch.cat(coefficients).unsqueeze(0) if coefficients else None,
            diffuse=diffuse,
        )

    def fit(
        self,
        series: Tensor | Padded,
        inputs: Tensor | None = None,
        *,
        iterations: int = 500,
        starts: Sequence[float] = STARTS,
        watch: Watch = unwatched,
    ) -> StructuralModel:
        """Maximum likelihood by L-BFGS, from several starts.

        Args:
            series: `[batch, time, 1]`, all with the same parameters; NaN is missing.
            inputs: `[batch, time, input]` for `Regression`.
            iterations: at most so many a start.
            starts: one search each, from variances at this share of that of the data.
            watch: is told each log-likelihood that was evaluated.

        Returns:
            The model itself, fitted.
        """
        kinds = {name: kind for name, kind in self.kinds().items() if name not in self.fixed}
        first = {name: kind.bind(torch.zeros(count, dtype=torch.float64)) for name, (kind, count) in self.kinds().items()} | self.fixed
        padded = as_padded(self.build(first), series)
        check_fittable(padded, self.build(first).rank + sum(count for _, count in kinds.values()))
        seen = padded.data[~padded.data.isnan()]

        def values_of(free: Tensor) -> dict[str, Tensor]:
            parts = free.split([count for _, count in kinds.values()])
            return self.fixed | {name: kind.bind(part) for (name, (kind, _)), part in zip(kinds.items(), parts, strict=True)}

        begins = [torch.cat([torch.zeros(0).double(), *_begin(kinds, float(seen.var()) * share)]) for share in starts]
        found = fit_by_gradient(lambda free: self.build(values_of(free)), begins, padded, inputs, iterations=iterations, watch=watch)
        self.parameters = {name: value.detach() for name, value in values_of(found.parameters).items()}
        self._keep(found.log_likelihood, padded, found.history, converged=found.converged)
        return self

    def decompose(self, series: Tensor | Padded, inputs: Tensor | None = None) -> dict[str, Float[Tensor, "batch time"]]:
        """What each component contributes to the output, given all of the series.

        Args:
            series: `[batch, time, 1]`; NaN is missing.
            inputs: `[batch, time, input]` for `Regression`.

        Returns:
            By the name of the component; all together are the output less its noise.
        """
        return {name: part.means for name, part in self.decompose_with_variances(series, inputs).items()}

    def decompose_with_variances(self, series: Tensor | Padded, inputs: Tensor | None = None) -> dict[str, Contribution]:
        """The same, with how sure each contribution is.

        Args:
            series: `[batch, time, 1]`; NaN is missing.
            inputs: `[batch, time, input]` for `Regression`.

        Returns:
            By the name of the component.
        """
        assert self.parameters is not None or self.system
        padded, system = as_padded(self.system, series), self.system
        smoothed = self.smooth(padded, inputs)
        found, place, column = {}, 0, 0
        for component, names, _ in self._named():
            own = {name: self.parameters[outer] for name, outer in names.items()}  # type: ignore[index]
            if isinstance(component, Regression):
                assert inputs is not None
                part = inputs[:, :, column : column + component.inputs].to(smoothed.means) @ own["coefficient"]
                variance = torch.zeros_like(part)
                column += component.inputs
            else:
                size = len(component.block(own).emission)
                here = slice(place, place + size)
                row = system.emission[0, here]
                part = smoothed.means[:, :, here] @ row
                variance = (smoothed.covariances[:, :, here, here] @ row @ row).clamp(min=0)
                place += size
            found[next(iter(names.values()))] = Contribution(part.where(padded.mask, 0), variance.where(padded.mask, 0))
        return found

    def save(self, folder: str | Path) -> None:
        """Write the model as safetensors and JSON.

        Args:
            folder: made where it is missing.
        """
        assert self.parameters is not None or self.system
        places = {kind: name for name, kind in COMPONENTS.items()}
        described = [{"component": places[type(one)], **asdict(one)} for one in self.components]
        known = {"model": KIND, "components": described, "irregular": self.irregular, "fixed": sorted(self.fixed)}
        fit = {"log_likelihood": self.log_likelihood, "seen": self.seen, "history": self.history}
        save_model(Path(folder), known | fit, self.parameters or {})

    @classmethod
    def load(cls, folder: str | Path) -> StructuralModel:
        """Read what `save` wrote.

        Args:
            folder: where.

        Returns:
            The model, fitted.
        """
        described, parameters = read_model(Path(folder), KIND)
        components = [COMPONENTS[one.pop("component")](**one) for one in described["components"]]
        fixed = {name: parameters[name].tolist() for name in described["fixed"]}
        model = cls(components, irregular=described["irregular"], fixed=fixed)
        model.parameters = parameters
        model.log_likelihood, model.seen, model.history = described["log_likelihood"], described["seen"], described["history"]
        return model

    def _named(self) -> Iterator[tuple[Component, dict[str, str], dict[str, tuple[Kind, int]]]]:
        """Each component with the names of its parameters in the model: a name that is taken gets a number."""
        taken = {"irregular"}
        for component in self.components:
            kinds, names = component.parameters(), {}
            for own in kinds:
                name, count = own, 1
                while name in taken:
                    count += 1
                    name = f"{own}.{count}"
                taken.add(name)
                names[own] = name
            yield component, names, kinds


def checked_fixed(
    fixed: Mapping[str, float | Sequence[float]], known: Mapping[str, tuple[Kind, int]], place: str = "fixed"
) -> dict[str, Tensor]:
    """Parameters that a person gives.

    Args:
        fixed: by name.
        known: from `StructuralModel.kinds`.
        place: where they were given, for messages.

    Returns:
        Each as a row of numbers.

    Raises:
        ConfigurationError: one that there is not, of another count, or that cannot be so.
    """
    found = {name: torch.tensor(value, dtype=torch.float64).reshape(-1) for name, value in fixed.items()}
    for name, value in found.items():
        if name not in known:
            raise ConfigurationError(f"`{place}` must name parameters of the model, got `{name}`; {nearest(name, known)}")
        kind, count = known[name]
        if len(value) != count:
            raise ConfigurationError(f"`{place}.{name}` must be {'one number' if count == 1 else f'{count} numbers'}, got {len(value)}")
        if not kind.allows(value):
            raise ConfigurationError(f"`{place}.{name}` must be {kind.must}, got {', '.join(f'{one:g}' for one in value.tolist())}")
    return found


def _begin(kinds: Mapping[str, tuple[Kind, int]], variance: float) -> list[Tensor]:
    """Free numbers to begin from: variances as said, all else at zero."""
    variances = {name for name, (kind, _) in kinds.items() if kind is POSITIVE}
    level = torch.tensor(variance, dtype=torch.float64).log()
    return [(level if name in variances else torch.zeros(()).double()).expand(count) for name, (_, count) in kinds.items()]


def _still(like: Tensor) -> Block:
    """A state that does nothing, for a model of regression alone."""
    one = like.new_ones(1, 1)
    return Block(0 * one, 0 * one, 0 * one[0], 0 * one, torch.zeros(1, dtype=torch.bool))
