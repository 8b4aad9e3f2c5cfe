"""`unrolled look RUN INPUT`: the inside of a model, as one HTML page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from unrolled.cli.fit import VERBS as FITS
from unrolled.cli.machine import Device, Threads, open_run


def look(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="INPUT",
            help="A sentence to translate, a text to label or to guess words of, or a file of series (`-`: standard input; else the run's own).",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the page shall stand.")] = Path("look.html"),
    beam: Annotated[int | None, typer.Option("--beam", min=1, help="Translation: hypotheses kept, all of them drawn (5).")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="One option. Translation: of decoding, as for predict. Labels: steps=64 of the path of integrated gradients, "
            "baseline=unknown, explained=20 labels at most, n_best=10 sequences. Forecasts: past=100 points, checks=5, panels=20. "
            "Fitted models: past, panels, columns, horizon=12, level=0.95 of the bands.",
        ),
    ] = None,
    trace_file: Annotated[Path | None, typer.Option("--trace", metavar="FILE", help="Also write all numbers of the page, as JSON.")] = None,
    device: Device = "auto",
    threads: Threads = None,
    trust: Annotated[bool, typer.Option("--trust", help="Allow the run to import a class of your own.")] = False,
) -> None:
    """Draw what a model does with one text or series: attention and hypotheses; words that labels came from; what comes next, and hidden states."""
    import json

    from unrolled.core.errors import ConfigurationError
    from unrolled.core.files import write_text
    from unrolled.core.settings import combine
    from unrolled.report import write_look

    opened = open_run(run, trust=trust, device=device, threads=threads)
    task = opened.folder.fact("task")
    if task not in LOOKERS:
        known = ", ".join(f"`{name}`" for name in LOOKERS)
        raise ConfigurationError(f"`unrolled look` draws runs of the tasks {known}, and `{run}` is of the task `{task}`")
    if text is None and task not in WITHOUT_INPUT:
        raise ConfigurationError(f'`{run}` needs a text to look at, got none; try `unrolled look {run} "some words"`')
    wishes = ({} if beam is None else {"beam": beam}) | combine([], set_ or [])
    trace, found = LOOKERS[task](opened, text, wishes)
    if trace_file is not None:
        write_text(trace_file, json.dumps(trace, ensure_ascii=False))
    print(f"{found}\npage: {write_look(trace, out)}")


def _translation(opened: Any, text: str, wishes: dict[str, Any]) -> tuple[dict[str, Any], str]:
    from unrolled.tasks.translation_look import trace_translation

    trace = trace_translation(opened, text, **wishes)
    return trace, trace["hypotheses"][0]["text"]


def _tagging(opened: Any, text: str, wishes: dict[str, Any]) -> tuple[dict[str, Any], str]:
    from unrolled.tasks.label_traces import trace_tagging

    trace = trace_tagging(opened, text, **wishes)
    return trace, " ".join(f"{word['text']}/{word['label']}" for word in trace["words"])


def _classification(opened: Any, text: str, wishes: dict[str, Any]) -> tuple[dict[str, Any], str]:
    from unrolled.tasks.label_traces import trace_classification

    trace = trace_classification(opened, text, **wishes)
    return trace, " ".join(trace["found"]) or "no label"


def _masked(opened: Any, text: str, wishes: dict[str, Any]) -> tuple[dict[str, Any], str]:
    from unrolled.tasks.label_traces import trace_masked

    trace = trace_masked(opened, text, **wishes)
    return trace, " ".join(trace["found"])


def _forecasting(opened: Any, text: str | None, wishes: dict[str, Any]) -> tuple[dict[str, Any], str]:
    from unrolled.cli.predict import input_lines
    from unrolled.data.series import series_of_lines
    from unrolled.tasks.forecast_look import read_for_look, trace_forecasting
    from unrolled.tasks.forecasting_data import form_of

    if text is None:
        found, source = None, ""
    elif text == "-":
        found, source = (
            series_of_lines(input_lines(), form_of(opened.settings.data, opened.learnt.targets), name="standard input"),
            "standard input",
        )
    else:
        found, source = read_for_look(opened, Path(text)), Path(text).name
    trace = trace_forecasting(opened, found, source, **wishes)
    drawn = len(trace["panels"])
    return trace, f"{drawn} column{'s' * (drawn > 1)} of {trace['source']}, {opened.learnt.sizes.horizon} points ahead"


def _fitted(opened: Any, text: str | None, wishes: dict[str, Any]) -> tuple[dict[str, Any], str]:
    from unrolled.cli.predict import input_lines
    from unrolled.tasks.fit_data import read_data_lines
    from unrolled.tasks.fit_look import trace_fit

    if text is None:
        found, source = None, ""
    elif text == "-":
        source = "standard input"
        found = read_data_lines(opened.settings.data, input_lines(), opened.reading, name=source)
    else:
        found, source = opened.open(text), Path(text).name
    trace = trace_fit(opened, found, source, **wishes)
    drawn = len(trace["panels"])
    return trace, f"{drawn} series of {trace['source']}"


LOOKERS: dict[str, Callable[[Any, Any, dict[str, Any]], tuple[dict[str, Any], str]]] = {
    "translation": _translation,
    "tagging": _tagging,
    "classification": _classification,
    "masked-lm": _masked,
    "forecasting": _forecasting,
    **dict.fromkeys(FITS, _fitted),
}
"""What traces a run of each task, and says what it found in one line."""
WITHOUT_INPUT = frozenset({"forecasting", *FITS})
"""Tasks whose runs have something to look at by themselves."""
