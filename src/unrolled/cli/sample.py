"""`unrolled sample RUN --prompt …`: text, symbol by symbol, as it is made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.machine import Device, Threads, open_run
from unrolled.cli.output import print_json


def sample(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    prompt: Annotated[str, typer.Option("--prompt", help="What the text begins with.")] = "",
    length: Annotated[int, typer.Option("--length", help="The most new symbols.")] = 300,
    temperature: Annotated[float, typer.Option("--temperature", help="Below 1 safer, above 1 bolder, 0 greedy.")] = 1.0,
    top_k: Annotated[int | None, typer.Option("--top-k", help="Only the k likeliest symbols.")] = None,
    top_p: Annotated[float | None, typer.Option("--top-p", help="Only the likeliest symbols that together have this probability.")] = None,
    min_p: Annotated[float | None, typer.Option("--min-p", help="Only symbols at least this share as likely as the likeliest.")] = None,
    repetition_penalty: Annotated[
        float, typer.Option("--repetition-penalty", help="Above 1, symbols already in the text become rarer.")
    ] = 1.0,
    stop: Annotated[list[str] | None, typer.Option("--stop", help="End before this text appears; may be given several times.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="The same seed gives the same text.")] = None,
    samples: Annotated[int, typer.Option("--n", min=1, help="How many samples.")] = 1,
    device: Device = "auto",
    threads: Threads = None,
    trust: Annotated[bool, typer.Option("--trust", help="Allow the run to import a class of your own.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Continue a prompt, streaming; the prompt itself is printed first."""
    from unrolled.core.settings import resolve
    from unrolled.tasks.sampling import SampleRequest

    wishes = {
        "prompt": prompt,
        "length": length,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "stop": tuple(stop or ()),
        "seed": seed,
        "samples": samples,
    }
    request = resolve(SampleRequest, wishes)
    model = open_run(run, trust=trust, device=device, threads=threads, task="lm")
    if json:
        print_json({"run": str(run), "seed": seed, "samples": model.sample_texts(request)})
    elif samples > 1:
        for number, text in enumerate(model.sample_texts(request), 1):
            print(f"--- {number} ---\n{text}")
    else:
        for piece in model.stream(request):
            sys.stdout.write(piece)
            sys.stdout.flush()
        print()
