"""Parts of a model as JSON and named tensors, and back: no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from unrolled.core.errors import RunError
from unrolled.ssm.hmm.durations import ExplicitDurations
from unrolled.ssm.hmm.dynamics import Homogeneous, InputDriven
from unrolled.ssm.hmm.emissions import (
    COVARIANCES,
    Autoregressive,
    Bernoulli,
    Categorical,
    Covariance,
    Gaussian,
    GaussianMixture,
    NormalInverseWishart,
    Poisson,
)

KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        Homogeneous,
        InputDriven,
        ExplicitDurations,
        Gaussian,
        GaussianMixture,
        Autoregressive,
        Categorical,
        Poisson,
        Bernoulli,
        NormalInverseWishart,
    )
}
"""All that can be saved."""


def take_apart(part: Any, prefix: str, tensors: dict[str, Tensor]) -> Any:
    """What JSON can hold of a part; its tensors go into `tensors`.

    Args:
        part: a value of a field, or one of `KINDS`.
        prefix: the name of its place.
        tensors: filled.

    Returns:
        What `put_together` takes.

    Raises:
        RunError: a part that is of none of the kinds.
    """
    if isinstance(part, Tensor):
        tensors[prefix] = part.detach().cpu().contiguous()
        return {"tensor": prefix}
    if isinstance(part, Covariance):
        return {"covariance": part.name}
    if isinstance(part, Mapping):
        return {"entries": {name: take_apart(value, f"{prefix}.{name}", tensors) for name, value in part.items()}}
    if is_dataclass(part):
        kind = type(part).__name__
        if KINDS.get(kind) is not type(part):
            raise RunError(f"a model can be saved whose parts are {', '.join(KINDS)}, got {kind}; save its tensors by yourself")
        return {
            "kind": kind,
            "fields": {field.name: take_apart(getattr(part, field.name), f"{prefix}.{field.name}", tensors) for field in fields(part)},
        }
    return part


def put_together(told: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `take_apart`.

    Args:
        told: what it gave.
        tensors: what it filled.

    Returns:
        The part.
    """
    if not isinstance(told, Mapping):
        return told
    if "tensor" in told:
        return tensors[told["tensor"]]
    if "covariance" in told:
        return COVARIANCES[told["covariance"]]
    if "entries" in told:
        return {name: put_together(value, tensors) for name, value in told["entries"].items()}
    return KINDS[told["kind"]](**{name: put_together(value, tensors) for name, value in told["fields"].items()})
