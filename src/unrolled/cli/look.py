"""`unrolled look RUN INPUT`: the inside of a model, as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.machine import Device, Threads, open_run


def look(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    text: Annotated[str, typer.Argument(metavar="INPUT", help="A sentence to translate.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the page shall stand.")] = Path("look.html"),
    beam: Annotated[int, typer.Option("--beam", min=1, help="Hypotheses kept; all of them are drawn.")] = 5,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One option of decoding, as for predict.")] = None,
    trace_file: Annotated[Path | None, typer.Option("--trace", metavar="FILE", help="Also write all numbers of the page, as JSON.")] = None,
    device: Device = "auto",
    threads: Threads = None,
    trust: Annotated[bool, typer.Option("--trust", help="Allow the run to import a class of your own.")] = False,
) -> None:
    """Draw what a model does with one sentence: its attention, head by head, and every hypothesis of the beam."""
    import json

    from unrolled.core.errors import ConfigurationError
    from unrolled.core.files import write_text
    from unrolled.core.settings import combine
    from unrolled.report import write_look
    from unrolled.tasks.translation import TranslationRun
    from unrolled.tasks.translation_look import trace_translation

    opened = open_run(run, trust=trust, device=device, threads=threads)
    if not isinstance(opened, TranslationRun):
        task = opened.folder.fact("task")
        raise ConfigurationError(
            f"`unrolled look` draws translations, and `{run}` is of the task `{task}`; give it a run of `train translation`"
        )
    trace = trace_translation(opened, text, beam=beam, **combine([], set_ or []))
    if trace_file is not None:
        write_text(trace_file, json.dumps(trace, ensure_ascii=False))
    print(f"{trace['hypotheses'][0]['text']}\npage: {write_look(trace, out)}")
