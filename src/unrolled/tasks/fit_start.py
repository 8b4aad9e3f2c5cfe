"""Parameters to begin a fit from, out of a JSON file of a person's own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from unrolled.core.errors import ConfigurationError, DataError, nearest


def read_start(path: str, known: Iterable[str]) -> dict[str, Tensor]:
    """The parameters of a file.

    Args:
        path: a JSON object of numbers, lists of them, and lists of lists.
        known: the names that may stand there.

    Returns:
        Tensors in double precision by name.

    Raises:
        ConfigurationError: the file cannot be read.
        DataError: no object, an unknown name, or what is no matrix of numbers.
    """
    try:
        told = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"`model.start` must be a JSON file, but `{path}` cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise DataError(f"`{path}` must be a JSON object of parameters, but it is not ({error})") from None
    if not isinstance(told, dict):
        raise DataError(f'`{path}` must be a JSON object of parameters by name, got another value; try {{"transition": [[…], …]}}')
    known, found = tuple(known), dict[str, Tensor]()
    for name, value in told.items():
        if name not in known:
            raise DataError(f"`{name}` in `{path}` is no parameter of this model; {nearest(name, known)}")
        try:
            found[name] = torch.tensor(value, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError):
            raise DataError(f"`{name}` in `{path}` must be numbers in rows of equal length, and it is not; try `[[…], […]]`") from None
    return found
