"""What computes when a run is used: the options that every such verb has, and how a run is opened by them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Device = Annotated[
    str, typer.Option("--device", metavar="NAME", help="What computes: cpu, cuda, cuda:1; auto takes a GPU where there is one.")
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Processor threads; all cores when not given.", show_default=False)]


def open_run(path: Path, *, trust: bool, device: str, threads: int | None, task: str | None = None) -> Any:
    """Open a run where it shall compute.

    Args:
        path: the run folder.
        trust: allow the run to import a class of the user's own.
        device: of this machine, or `auto`.
        threads: of the processor; torch's own number when `None`.
        task: the one that the run must be of; any when `None`.

    Returns:
        The run, in the form its task gives it.
    """
    import torch

    from unrolled.tasks.loading import load

    if threads is not None:
        torch.set_num_threads(threads)
    return load(path, trust=trust, device=device, task=task)
