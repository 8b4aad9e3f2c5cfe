"""Where in a person's own code an operation was called."""

from __future__ import annotations

import sys
from pathlib import Path
from types import CodeType, FrameType, TracebackType

import jaxtyping
import torch

NOT_THEIRS = (*(str(Path(str(module.__file__)).parent) for module in (torch, jaxtyping)), str(Path(__file__).parent), "<")
"""How the files begin that nobody means who asks for a place: torch, what checks types, this compiler, what is generated."""

OUTERMOST = str(Path(__file__).with_name("trace.py"))
"""Who calls the step."""


def line_here() -> str:
    """Where the operation is called that is traced just now.

    Returns:
        The innermost place in a person's own code, ` (file, line)`; nothing where there is none, as in the gradients of torch's operations.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != OUTERMOST:
        if _is_theirs(frame.f_code):
            return _line(frame.f_code, frame.f_lineno)
        frame = frame.f_back
    return ""


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


def _is_theirs(code: CodeType) -> bool:
    return not code.co_filename.startswith(NOT_THEIRS)


def _line(code: CodeType, line: int) -> str:
    return f" ({Path(code.co_filename).name}, line {line})"
