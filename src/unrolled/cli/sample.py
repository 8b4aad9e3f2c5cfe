"""`unrolled sample RUN --prompt …`: text, symbol by symbol, as it is made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from unrolled.cli.machine import Device, Threads, open_run
from unrolled.cli.options import command
from unrolled.cli.output import print_json


class Sampling(NamedTuple):
    """What is written, and how."""

    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
    prompt: Annotated[str, typer.Option("--prompt", help="What the text begins with.")] = ""
    length: Annotated[int, typer.Option("--length", help="The most new symbols.")] = 300
    temperature: Annotated[float, typer.Option("--temperature", help="Below 1 safer, above 1 bolder, 0 greedy.")] = 1.0
    top_k: Annotated[int | None, typer.Option("--top-k", help="Only the k likeliest symbols.")] = None
    top_p: Annotated[float | None, typer.Option("--top-p", help="Only the likeliest symbols that together have this probability.")] = None
    min_p: Annotated[float | None, typer.Option("--min-p", help="Only symbols at least this share as likely as the likeliest.")] = None
    repetition_penalty: Annotated[
        float, typer.Option("--repetition-penalty", help="Above 1, symbols already in the text become rarer.")
    ] = 1.0
    stop: Annotated[list[str] | None, typer.Option("--stop", help="End before this text appears; may be given several times.")] = None
    seed: Annotated[int | None, typer.Option("--seed", help="The same seed gives the same text.")] = None
    samples: Annotated[int, typer.Option("--n", min=1, help="How many samples.")] = 1
    device: Device = "auto"
    threads: Threads = None
    trust: Annotated[bool, typer.Option("--trust", help="Allow the run to import a class of your own.")] = False
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False


def sample(given: Sampling) -> None:
    """Continue a prompt.

    Args:
        given: what was said.
    """
    from unrolled.core.settings import resolve
    from unrolled.tasks.sampling import SampleRequest

    options = ("prompt", "length", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "samples")
    wishes = {name: getattr(given, name) for name in options} | {"stop": tuple(given.stop or ())}
    request = resolve(SampleRequest, wishes)
    model = open_run(given.run, trust=given.trust, device=given.device, threads=given.threads, task="lm")
    if given.json:
        print_json({"run": str(given.run), "seed": given.seed, "samples": model.sample_texts(request)})
    elif given.samples > 1:
        for number, text in enumerate(model.sample_texts(request), 1):
            print(f"--- {number} ---\n{text}")
    else:
        for piece in model.stream(request):
            sys.stdout.write(piece)
            sys.stdout.flush()
        print()


VERB = command(sample, Sampling, "Continue a prompt, streaming; the prompt itself is printed first.")
