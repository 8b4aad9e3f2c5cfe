"""`unrolled predict RUN < in > out`: a line in, a line out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from unrolled.cli.fit import VERBS as FITS
from unrolled.cli.machine import Device, Threads, open_run
from unrolled.cli.options import command
from unrolled.cli.output import finite
from unrolled.cli.series_rows import write_forecasts, write_states


class Prediction(NamedTuple):
    """What is predicted with, and how."""

    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
    beam: Annotated[int | None, typer.Option("--beam", min=1, help="Hypotheses kept for each line (5); 1 is greedy.")] = None
    n_best: Annotated[int | None, typer.Option("--n-best", min=1, help="Outputs for each line, one a row: line, score, output.")] = None
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="One option. Translation: of decoding, such as alpha=0.6; --options lists them. Fitted models: horizon=12, level=0.8 of the band.",
        ),
    ] = None
    alignments: Annotated[
        bool, typer.Option("--alignments", help="Add a column of links source-output between words, counted from 0: 0-0 1-2.")
    ] = False
    ensemble: Annotated[list[Path] | None, typer.Option("--ensemble", metavar="RUN", help="A further run to decode together with.")] = None
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="Labels: how standard input is written, as in training (conllu, columns, csv, tsv, jsonl); a text a line when not given.",
        ),
    ] = None
    device: Device = "auto"
    threads: Threads = None
    trust: Annotated[bool, typer.Option("--trust", help="Allow the run to import a class of your own.")] = False
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line, with symbols, scores and alignment.")] = False
    options: Annotated[bool, typer.Option("--options", help="List every option for --set with its default, and end.")] = False


def predict(given: Prediction) -> None:
    """Write an output for every line, sentence, text or series of standard input.

    Args:
        given: what was said.

    Raises:
        ConfigurationError: the run gives no outputs line by line.
    """
    from unrolled.cli.settings_table import print_options
    from unrolled.core.errors import ConfigurationError
    from unrolled.core.settings import combine
    from unrolled.tasks.fit_settings import FitRequest
    from unrolled.tasks.run_folder import RunFolder
    from unrolled.tasks.translation_request import TranslationRequest

    if given.options:
        print_options(FitRequest if RunFolder(given.run).fact("task") in FITS else TranslationRequest)
        return
    opened = open_run(given.run, trust=given.trust, device=given.device, threads=given.threads)
    task = opened.folder.fact("task")
    if task not in PREDICTORS:
        raise ConfigurationError(
            f"`unrolled predict` needs a run that gives an output for each line, and `{given.run}` is of the task `{task}`"
            + (f"; try `{INSTEAD[task].format(run=given.run)}`" if task in INSTEAD else "")
        )
    said = {
        "n_best": given.n_best,
        "format": given.format_,
        "beam": given.beam,
        "alignments": given.alignments or None,
        "ensemble": given.ensemble,
    }
    wishes: dict[str, Any] = {name: value for name, value in said.items() if value is not None} | combine([], given.set_ or [])
    # A person at a terminal wants an answer to every line; a file goes faster by the thousand.
    at_once = {"at_once": 1} if sys.stdin.isatty() else {}
    PREDICTORS[task](opened, wishes, given.json, at_once)


def _translate(opened: Any, wishes: dict[str, Any], json: bool, at_once: dict[str, int]) -> None:
    from unrolled.core.settings import resolve
    from unrolled.tasks.translation_request import TranslationRequest

    if "n_best" in wishes and "beam" not in wishes:
        wishes["beam"] = max(wishes["n_best"], 5)
    ensemble = wishes.pop("ensemble", [])
    request = resolve(TranslationRequest, wishes)
    tally = Tally()
    for number, found in enumerate(opened.stream(input_lines(), request, ensemble=ensemble, **at_once), 1):
        tally.take(number, found[0])
        if json:
            _print_json(number, [one._asdict() for one in found])
        else:
            _print_rows(number, found, request)
        sys.stdout.flush()
    tally.conclude()


def _tag(opened: Any, wishes: dict[str, Any], json: bool, at_once: dict[str, int]) -> None:
    """A word and its label a row, and an empty row behind every sentence; several taggings as rows of line, probability, labels."""
    from unrolled.data.tagged import TaggedForm, tokens_of_lines

    form, n_best = wishes.pop("format", None), _only_n_best(wishes, "tagging")
    lines = input_lines() if form is None else tokens_of_lines(input_lines(), TaggedForm(form, tokens=opened.settings.data.words)).tokens
    for number, (words, found) in enumerate(
        opened.stream(lines, n_best=n_best or 1, probabilities=json or n_best is not None, **at_once), 1
    ):
        if json:
            _print_json(number, [one._asdict() for one in found], words=words)
        elif n_best is None:
            print("".join(f"{word}\t{label}\n" for word, label in zip(words, found[0].labels, strict=True)))
        else:
            for one in found:
                print(f"{number}\t{one.probability:.4g}\t{' '.join(one.labels)}")
        sys.stdout.flush()


def _classify(opened: Any, wishes: dict[str, Any], json: bool, at_once: dict[str, int]) -> None:
    """A row a text: its label, or its labels with what stood between them in training, else a tab; the likeliest labels as rows of line,
    probability, label.
    """
    from unrolled.data.labelled_texts import texts_of_lines
    from unrolled.tasks.classification import form_of

    form, n_best = wishes.pop("format", None), _only_n_best(wishes, "classification")
    texts = (
        input_lines()
        if form is None
        else texts_of_lines(input_lines(), replace(form_of(opened.settings.data), format=form, phrases=False)).texts
    )
    between = opened.settings.data.separator or "\t"
    for number, found in enumerate(opened.stream(texts, **at_once), 1):
        ranked = list(found.probabilities.items())
        if json:
            _print_json(number, [{"label": label, "probability": value} for label, value in ranked[:n_best]], labels=found.labels)
        elif n_best is None:
            print(between.join(found.labels))
        else:
            for label, value in ranked[:n_best]:
                print(f"{number}\t{value:.4g}\t{label}")
        sys.stdout.flush()


def _forecast(opened: Any, wishes: dict[str, Any], json: bool, at_once: dict[str, int]) -> None:
    """CSV in, CSV out: a row a point of the future, with the 80 % band of each target; an object a series as JSON."""
    from unrolled.core.errors import ConfigurationError
    from unrolled.data.series import series_of_lines
    from unrolled.tasks.forecasting_data import form_of
    from unrolled.tasks.series_settings import LEVEL

    if wishes:
        raise ConfigurationError(f"`{next(iter(wishes))}` is no option of forecasting; leave it out")
    form = form_of(opened.settings.data, opened.learnt.targets)
    found = series_of_lines(input_lines(), form, name="standard input")
    write_forecasts(list(opened.forecasts(found)), form, found.time, json=json, level=LEVEL)


def _fitted(opened: Any, wishes: dict[str, Any], json: bool, at_once: dict[str, int]) -> None:
    """CSV in, CSV out: what comes behind series; of a hidden Markov model without a horizon, the states that they were in."""
    from unrolled.core.errors import ConfigurationError
    from unrolled.tasks.fit_data import read_data_lines
    from unrolled.tasks.fit_settings import fit_request

    request = fit_request(opened.folder.fact("task"), wishes)
    found = read_data_lines(opened.settings.data, input_lines(), opened.reading, name="standard input")
    if request.horizon is None and hasattr(opened, "states"):
        if "level" in wishes:
            raise ConfigurationError("`level` is of the bands of a forecast, and these are states; give a `horizon` as well")
        write_states([(one, opened.states(one)) for one in found.series], opened.settings.data, found.time, json=json)
        return
    forecasts = list(opened.forecasts(found, request.horizon, level=request.level))
    write_forecasts(forecasts, opened.settings.data, found.time, json=json, level=request.level)


def _only_n_best(wishes: dict[str, Any], task: str) -> int | None:
    from unrolled.core.errors import ConfigurationError

    n_best: int | None = wishes.pop("n_best", None)
    if wishes:
        raise ConfigurationError(f"`{next(iter(wishes))}` is no option of predicting with a run of the task `{task}`; leave it out")
    return n_best


PREDICTORS: dict[str, Callable[[Any, dict[str, Any], bool, dict[str, int]], None]] = {
    "translation": _translate,
    "tagging": _tag,
    "classification": _classify,
    "forecasting": _forecast,
    **dict.fromkeys(FITS, _fitted),
}
"""What gives the outputs of each task."""
INSTEAD = {"lm": "unrolled sample {run}", "masked-lm": "unrolled look {run} TEXT"}
"""What shows the outputs of the others."""


class Tally:
    """What is said besides the outputs, on standard error."""

    def __init__(self) -> None:
        self.cut = self.unmet = self.refused = 0

    def take(self, number: int, best: Any) -> None:
        """Count a line; one that was not translated is told at once.

        Args:
            number: of the line.
            best: its first translation.
        """
        if best.refused is not None:
            self.refused += 1
            print(f"unrolled: line {number} is not translated, its output is empty: {best.refused}", file=sys.stderr)
        else:
            self.cut, self.unmet = self.cut + (not best.ended), self.unmet + (not best.met)

    def conclude(self) -> None:
        """Say what was counted, and end with exit code 2 where a line was not translated."""
        cut, unmet = "cut at the greatest length (`max_ratio`, `max_extra`)", "without some of what is required"
        for count, what in ((self.cut, cut), (self.unmet, unmet)):
            if count:
                print(f"unrolled: the output of {count} line{'s' * (count > 1)} is {what}", file=sys.stderr)
        if self.refused:
            sys.exit(2)


def _print_rows(number: int, found: list[Any], request: Any) -> None:
    for one in found:
        columns = [] if request.n_best == 1 else [str(number), f"{one.score:.4f}"]
        links = [" ".join(f"{a}-{b}" for a, b in one.words or [])] if request.alignments else []
        print("\t".join([*columns, one.text, *links]))


def _print_json(number: int, outputs: list[dict[str, Any]], **more: Any) -> None:
    print(dumps(finite({"line": number, **more, "outputs": outputs}), ensure_ascii=False))


def input_lines() -> Any:
    """Standard input as UTF-8, whatever the surroundings say."""
    from unrolled.core.errors import DataError

    try:
        with open(sys.stdin.fileno(), encoding="utf-8", closefd=False, newline="\n") as lines:
            yield from (line.rstrip("\r\n") for line in lines)
    except UnicodeDecodeError as error:
        raise DataError(f"standard input must be UTF-8, got a byte that is not ({error.reason}); try `iconv -f LATIN1 -t UTF-8`") from None


VERB = command(
    predict,
    Prediction,
    "Translate the lines of standard input, tag their words, classify them, forecast what comes behind series, or find their states.",
)
