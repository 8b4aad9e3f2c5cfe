"""`unrolled average RUN --out DIR`: several stages of a training as one model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def average(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run trained with train.keep.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the new run shall stand.")],
    last: Annotated[int | None, typer.Option("--last", metavar="N", help="Of the last N evaluations; else all that were kept.")] = None,
) -> None:
    """Make a run of the mean of the weights that a training kept at its last evaluations."""
    from unrolled.tasks.averaging import average_run

    print(f"run: {average_run(run, out, last=last)}")
