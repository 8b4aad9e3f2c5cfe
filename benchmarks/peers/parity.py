"""Whether two systems compute the same: outputs and gradients on the same weights and inputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def difference(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> float:
    """The largest difference of all arrays, each relative to its largest number where that is above one."""
    assert found.keys() <= expected.keys(), sorted(found)
    differences = []
    for name, array in found.items():
        assert array.shape == expected[name].shape, (name, array.shape, expected[name].shape)
        differences.append(np.abs(array - expected[name]).max() / max(1.0, np.abs(expected[name]).max()))
    return float(max(differences))
