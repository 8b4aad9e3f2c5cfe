"""Where in a person's own code an operation was called."""

from __future__ import annotations

import sys
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any

import jaxtyping
import torch
from torch import fx
from torch.overrides import TorchFunctionMode

NOT_THEIRS = (*(str(Path(str(module.__file__)).parent) for module in (torch, jaxtyping)), str(Path(__file__).parent), "<")
"""How the files begin that nobody means who asks for a place: torch, what checks types, this compiler, what is generated."""

OUTERMOST = str(Path(__file__).with_name("trace.py"))
"""Who calls the step."""


class Watching(TorchFunctionMode):
    """While a step is traced: notes the line that calls each operation."""

    def __init__(self) -> None:
        """Nothing is noted yet."""
        super().__init__()
        self.lines: dict[str, str] = {}
        """By the name that a node of the trace has."""
        self._last: fx.Node | None = None

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Note what a call adds to the trace.

        Args:
            func: of torch.
            types: unused.
            args: positional arguments.
            kwargs: arguments by name.

        Returns:
            Its result.
        """
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self._note()

    def _note(self) -> None:
        from torch.fx.experimental.proxy_tensor import get_proxy_mode

        mode = get_proxy_mode()
        if mode is None:
            return
        # Calls are nested, and what is inside is noted first.
        line = _line_of_frame(sys._getframe(2))
        node = last = next(iter(reversed(mode.tracer.graph.nodes)), None)
        while node is not None and node is not self._last and node.op != "root" and line:
            self.lines.setdefault(node.name, line)
            node = node.prev
        self._last = last


def line_of(error: BaseException) -> str:
    """Where an error comes from.

    Args:
        error: as it was caught.

    Returns:
        The innermost place in a person's own code, ` (file, line)`; nothing where there is none.
    """
    found = ""
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None:
        if _is_theirs(traceback.tb_frame.f_code):
            found = _line(traceback.tb_frame.f_code, traceback.tb_lineno)
        traceback = traceback.tb_next
    return found


def _line_of_frame(frame: FrameType | None) -> str:
    while frame is not None and frame.f_code.co_filename != OUTERMOST:
        if _is_theirs(frame.f_code):
            return _line(frame.f_code, frame.f_lineno)
        frame = frame.f_back
    return ""


def _is_theirs(code: CodeType) -> bool:
    return not code.co_filename.startswith(NOT_THEIRS)


def _line(code: CodeType, line: int) -> str:
    return f" ({Path(code.co_filename).name}, line {line})"
