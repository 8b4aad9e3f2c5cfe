"""`unrolled demo`: the language model on the text that ships, in about two minutes."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.output import TrainingDisplay
from unrolled.cli.train import VERBS, report

DEMO = {"train": {"minutes": 1.75, "evaluations": 4}, "samples": {"prompt": "ROMEO:\n", "length": 240}}
"""What the demo changes: short, with four stages."""


def demo(
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The run folder; else a new one below runs/.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One option, such as train.minutes=3.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors (and --json).")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Train a character LSTM on tiny Shakespeare (public domain, ships with the package) and watch it learn to write."""
    from unrolled.core.settings import combine, merge
    from unrolled.tasks.language_model import train_language_model
    from unrolled.tasks.run_folder import free_name

    out = out or free_name(Path("runs"), "demo")
    with as_file(files("unrolled") / "demo" / "tinyshakespeare.txt.gz") as text, TrainingDisplay(quiet=quiet, samples=True) as display:
        display.console.print(f"A character LSTM reads tiny Shakespeare for two minutes; its run folder is {out}\n", soft_wrap=True)
        run = train_language_model([text], out=out, differences=merge(DEMO, combine([], set_ or [])), display=display)
    report("lm", run.summary(), VERBS["lm"].following, json=json, quiet=quiet)
