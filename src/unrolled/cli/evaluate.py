"""`unrolled eval RUN [FILE…]`: the field's standard figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from unrolled.cli.machine import Device, Threads, open_run
from unrolled.cli.options import command
from unrolled.cli.output import figures, print_confusion, print_errors, print_json, print_scores


class Evaluation(NamedTuple):
    """What is scored, and how."""

    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE…", help="What to score, in the form it was trained on; else a part of the run's own data."),
    ] = None
    split: Annotated[
        str | None,
        typer.Option(
            "--split", help="Which part of the run's own data: valid (as if not given), train, or test where forecasting left one."
        ),
    ] = None
    streams: Annotated[
        int | None,
        typer.Option("--streams", min=1, help="Language model: rows read side by side; 1 is slowest and reads no text from a cold state."),
    ] = None
    beam: Annotated[int | None, typer.Option("--beam", min=1, help="Translation: hypotheses kept; 1 is greedy.")] = None
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Translation: one option of decoding.")] = None
    ensemble: Annotated[
        list[Path] | None, typer.Option("--ensemble", metavar="RUN", help="Translation: a further run to decode together with.")
    ] = None
    lines: Annotated[
        Path | None,
        typer.Option("--lines", metavar="FILE", help="Translation: write one JSON object a pair, with log-probabilities and outputs."),
    ] = None
    device: Device = "auto"
    threads: Threads = None
    trust: Annotated[bool, typer.Option("--trust", help="Allow the run to import a class of your own.")] = False
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False


def evaluate(given: Evaluation) -> None:
    """Score a run by the standard figures of its task.

    Args:
        given: what was said.
    """
    from unrolled.core.settings import combine
    from unrolled.tasks.loading import refuse_foreign_options

    options = ("split", "streams", "beam", "ensemble", "lines")
    wishes: dict[str, Any] = {name: value for name in options if (value := getattr(given, name)) is not None} | combine(
        [], given.set_ or []
    )
    opened = open_run(given.run, trust=given.trust, device=given.device, threads=given.threads)
    refuse_foreign_options(opened, wishes)
    result = opened.evaluate(given.files or None, **wishes)._asdict()
    if given.json:
        print_json({"run": str(given.run), **result})
        return
    counted = next(f"{result[of]:,} {of}" for of in ("windows", "sentences", "symbols", "values") if result.get(of) is not None)
    print(f"{figures(result, whole=True)}  ({counted})")
    _print_parts(result)
    for name in ("bleu_signature", "chrf_signature"):
        if result.get(name):
            print(f"{name.partition('_')[0]}: {result[name]}")


def _print_parts(result: dict[str, Any]) -> None:
    """What some tasks say besides their figures."""
    for name, kinds in (("types", "type"), ("classes", "label")):
        if result.get(name):
            print_scores(kinds, result[name])
    if result.get("confusion"):
        print_confusion(list(result["classes"]), result["confusion"])
    if result.get("baselines"):
        print_errors({"this run": [result["mse"], result["mae"]], **result["baselines"]})
    if result.get("left_out"):
        print(f"no structural forecast: {result['left_out']}")
    if result.get("unseen") and result["unseen"] == result["sentences"]:
        print("every one of them has a label that training never saw, so that there is no loss; was another column meant, or another file?")
    elif result.get("unseen"):
        print(f"{result['unseen']:,} of them have labels that training never saw: they count as wrong, and not for the loss")


VERB = command(evaluate, Evaluation, "Score a run by its task's standard figures: perplexity and bits per character, BLEU and chrF, …")
