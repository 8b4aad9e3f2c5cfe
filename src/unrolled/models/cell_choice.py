"""A cell by its name in the package, or a person's own class by its import path."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from unrolled.core.errors import ConfigurationError, UserError, nearest
from unrolled.core.state import State, map_state
from unrolled.nn.cell import Cell
from unrolled.nn.cells import CELLS
from unrolled.nn.linear_cell import LinearCell

CellFactory = Callable[[int, int], Cell]
"""Makes a cell from its input size and hidden size."""


def find_cell(name: str, *, trust: bool = False) -> CellFactory:
    """The maker of cells of this name.

    Args:
        name: a name of the package, or `module:Class` where `Class(input_size, hidden_size)` makes a `Cell`.
        trust: consent to importing (and so running) the module.

    Returns:
        What makes a cell from input and hidden size.

    Raises:
        ConfigurationError: an unknown name, no consent, or something that is no cell.
    """
    if name in CELLS:
        return CELLS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigurationError(f"`model.cell` must name a cell, got `{name}`; {nearest(name, CELLS)} (or `module:Class` for your own)")
    if not trust:
        raise ConfigurationError(
            f"the cell `{name}` is a class of its own and loading it would run {_origin(module)}; give `--trust` (`trust=True`) if you trust that file"
        )
    with _current_folder_on_path():
        try:
            own = importlib.import_module(module)
        except Exception as error:  # whatever the person's own module does wrong
            advice = ""
            if isinstance(error, ModuleNotFoundError):
                advice = "; leave off `.py`" if module.endswith(".py") else "; run from the folder of its file or install it"
            raise ConfigurationError(f"the cell `{name}` cannot be imported ({type(error).__name__}: {error}){advice}") from error
    found = getattr(own, attribute, None)
    if found is None:
        cells = [key for key, value in vars(own).items() if isinstance(value, type) and issubclass(value, Cell) and value is not Cell]
        advice = nearest(attribute, cells) if cells else "no class in it is derived from `unrolled.nn.Cell`"
        raise ConfigurationError(f"the cell `{name}` must be a class in `{module}`, which has no `{attribute}`; {advice}")
    if not (isinstance(found, type) and issubclass(found, Cell)):
        raise ConfigurationError(f"`{name}` must be a class derived from `unrolled.nn.Cell`, got {found!r}")
    return in_full_precision(found)


def in_full_precision(cell: type[Cell]) -> type[Cell]:
    """A person's cell as it was written: autocast would mix dtypes within a step, which `torch.lerp` and others refuse.

    Args:
        cell: the class.

    Returns:
        The same, but that a step computes in the dtype of its parameters whatever surrounds it.
    """

    class Own(cell):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            with _told_apart(cell, "__init__"):
                super().__init__(*args, **kwargs)

        def initial_state(self, batch_size: int) -> State:
            with _told_apart(cell, "initial_state"):
                return super().initial_state(batch_size)

    # Of a linear cell `Recurrence` may call the others in the place of `step`.
    for method in ("step", "coefficients", "read") if issubclass(cell, LinearCell) else ("step",):
        setattr(Own, method, _as_written(cell, method))
    Own.__name__ = Own.__qualname__ = cell.__name__
    return Own


def _as_written(cell: type[Cell], method: str) -> Callable[..., Any]:
    written = getattr(cell, method)

    def call(self: Cell, *given: State) -> Any:
        like = self.zeros()

        def cast(leaf: Tensor) -> Tensor:
            return leaf.to(like.dtype) if leaf.is_floating_point() else leaf

        with torch.autocast(like.device.type, enabled=False), _told_apart(cell, method):
            return written(self, *(map_state(cast, part) for part in given))

    call.__wrapped__ = written  # type: ignore[attr-defined]
    return call


@contextlib.contextmanager
def _told_apart(cell: type[Cell], method: str) -> Iterator[None]:
    """What goes wrong inside a person's own cell is told as that: where in their file, and in Python's words."""
    try:
        yield
    except (UserError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        if _get_current_dispatch_mode() is not None:
            raise  # torch or our compiler traces the cell, and knows what to do where that cannot be done
        what = " ".join(str(error).split())
        raise ConfigurationError(
            f"`{method}` of your cell `{cell.__name__}` must end without an error: {type(error).__name__}: {what}{_place_of(cell, error)}"
        ) from error


def _place_of(cell: type[Cell], error: Exception) -> str:
    """Where in the cell's file an error arose; nothing for a class that was typed into an interpreter."""
    try:
        file = inspect.getfile(cell)
    except (TypeError, OSError):
        return ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" (`{file}`, line {lines[-1]})" if lines else f" (`{file}`)"


@contextlib.contextmanager
def _current_folder_on_path() -> Iterator[None]:
    # As `python -m` has it; the `unrolled` command would only see what is installed.
    folder = os.getcwd()
    sys.path.insert(0, folder)
    importlib.invalidate_caches()  # the file may have been written a moment ago
    try:
        yield
    finally:
        sys.path.remove(folder)


def _origin(module: str) -> str:
    try:
        with _current_folder_on_path():
            # Only the top-level name is looked up: finding a submodule would import (run) its parents.
            spec = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        spec = None
    return f"`{spec.origin}`" if spec and spec.origin else f"a module `{module}` that is not found on this machine"
