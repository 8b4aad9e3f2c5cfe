"""`unrolled eval RUN [FILE…]`: the field's standard figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.output import figures, print_json


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    files: Annotated[list[Path] | None, typer.Argument(metavar="FILE…", help="Text to score; else a split of the run's own data.")] = None,
    split: Annotated[str, typer.Option("--split", help="Which part of the run's data: valid or train.")] = "valid",
    streams: Annotated[
        int | None, typer.Option("--streams", min=1, help="Rows read side by side; 1 is slowest and reads no text from a cold state.")
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Allow the run to import a class of your own.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score a run: loss in nats per symbol, perplexity, bits per character."""
    from unrolled.tasks.loading import load

    result = load(run, trust=trust).evaluate(files or None, split=split, streams=streams)._asdict()
    if json:
        print_json({"run": str(run), **result})
    else:
        words = "" if result["word_perplexity"] is None else f"  word perplexity {result['word_perplexity']:.4g}"
        print(f"{figures(result)}{words}  ({result['symbols']:,} symbols)")
