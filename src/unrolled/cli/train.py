"""`unrolled train TASK DATA…`: one command from a file to a trained model."""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from unrolled.cli.options import command
from unrolled.cli.output import TrainingDisplay, duration, figures, print_json, speaks
from unrolled.cli.plain import PlainCommand, PlainGroup

app = typer.Typer(cls=PlainGroup, no_args_is_help=True, help="Train a model on your own file.")

Texts = Annotated[list[Path] | None, typer.Argument(metavar="FILE…", help="Text files (UTF-8; .gz is read as is).", show_default=False)]
Pairs = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FILE…",
        help="Source and target, a sentence a line (UTF-8; .gz is read as is); or one .tsv or .jsonl file of pairs.",
        show_default=False,
    ),
]
Valid = Annotated[list[Path] | None, typer.Option("--valid", metavar="FILE", help="What to validate on; else a tenth of FILE….")]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The run folder; else a new one below runs/.")]
Config = Annotated[list[Path] | None, typer.Option("--config", metavar="TOML", help="A file of what differs from the defaults.")]
Preset = Annotated[list[str] | None, typer.Option("--preset", metavar="NAME", help="A recipe that ships, such as tied-lstm.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One option, such as train.minutes=3.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run at --out.")]
Trust = Annotated[bool, typer.Option("--trust", help="Allow the settings to import a class of your own.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors (and --json).")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Options = Annotated[bool, typer.Option("--options", help="List every option for --set with its default, and end.")]


AFTER_LABELS = "unrolled predict {run} < in > out   unrolled eval {run} FILE   unrolled look {run} TEXT"
"""What a person does with a tagger or a classifier next."""


Labelled = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FILE…",
        help="Sentences with a label for each word: .conllu, .conll, .tsv or .jsonl (UTF-8; .gz is read as is).",
        show_default=False,
    ),
]
Classes = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FILE…",
        help="Texts with labels: .csv, .tsv, .jsonl, .txt (a label, then the text) or .trees (.gz is read as is).",
        show_default=False,
    ),
]
SeriesFiles = Annotated[
    list[Path] | None,
    typer.Argument(metavar="FILE…", help="Series: CSV files with a header (UTF-8; .gz is read as is).", show_default=False),
]
Horizon = Annotated[int | None, typer.Option("--horizon", min=1, help="Points of the future that are forecast at once (`data.horizon`).")]
InitFrom = Annotated[
    Path | None,
    typer.Option("--init-from", metavar="RUN", help="Begin with the vocabulary and the encoder of this run, such as one of masked-lm."),
]


class Given(NamedTuple):
    """What was said on the command line; the options of every verb of training."""

    files: list[Path] | None = None
    valid: Valid = None
    out: Out = None
    config: Config = None
    preset: Preset = None
    set_: Set = None
    init_from: InitFrom = None
    horizon: Horizon = None
    resume: Resume = False
    trust: Trust = False
    quiet: Quiet = False
    json: Json = False
    options: Options = False


OWN = frozenset({"init_from", "horizon"})
"""Fields of `Given` that only the tasks have that name them."""


class Verb(NamedTuple):
    """A task on the command line."""

    what: str
    """Its help."""
    files: Any
    """What it is trained on, as an argument."""
    needs: str
    """What files it wants, in words."""
    following: str
    """What a person does next, with `{run}` for the run."""
    task: str
    """Where it is: `module:name`, imported when it is asked for."""
    own: tuple[str, ...] = ()
    """Options that only some tasks have."""


VERBS: dict[str, Verb] = {
    "lm": Verb(
        "Train a language model of characters, words or sub-words on text files.",
        Texts,
        "needs at least one text file; try `unrolled train lm FILE`",
        "unrolled sample {run} --prompt …   unrolled eval {run}",
        "unrolled.tasks.language_model:LANGUAGE_MODEL",
    ),
    "translation": Verb(
        "Train a model that turns sequences into sequences: translation, pronunciation, commands into actions, … (--valid takes one or two files).",
        Pairs,
        "needs two files of equally many lines, or one .tsv or .jsonl file; try `unrolled train translation train.de train.en`",
        "unrolled predict {run} < in > out   unrolled eval {run} FILE FILE   unrolled look {run} SENTENCE",
        "unrolled.tasks.translation:TRANSLATION",
    ),
    "tagging": Verb(
        "Train a tagger: a label for every word, such as its part of speech, or names and what they name.",
        Labelled,
        "needs a file of sentences with a label for each word; try `unrolled train tagging train.conllu`",
        AFTER_LABELS,
        "unrolled.tasks.tagging:TAGGING",
        own=("init_from",),
    ),
    "classification": Verb(
        "Train a classifier: a label for a text, such as its sentiment or its topic, or several.",
        Classes,
        "needs a file of texts with labels; try `unrolled train classification train.csv`",
        AFTER_LABELS,
        "unrolled.tasks.classification:CLASSIFICATION",
        own=("init_from",),
    ),
    "masked-lm": Verb(
        "Train a masked language model on plain text: an encoder that tagging and classification can begin from (--init-from).",
        Texts,
        "needs at least one text file; try `unrolled train masked-lm FILE`",
        "unrolled train tagging FILE --init-from {run}   unrolled train classification FILE --init-from {run}",
        "unrolled.tasks.masked_language_model:MASKED",
        own=("init_from",),
    ),
    "forecasting": Verb(
        "Train a forecaster: what comes next in one time series, or in many.",
        SeriesFiles,
        "needs a CSV file of one or several series; try `unrolled train forecasting DATA.csv --horizon 24`",
        "unrolled predict {run} < history.csv   unrolled eval {run}",
        "unrolled.tasks.forecasting:FORECASTING",
        own=("horizon",),
    ),
}
"""All tasks that are trained."""


def run_verb(task: str, verb: Verb, given: Given) -> None:
    """Train or go on, as was said.

    Args:
        task: its name on the command line.
        verb: the task.
        given: what was said.

    Raises:
        ConfigurationError: what was said does not fit together.
    """
    from unrolled.cli.settings_table import print_options
    from unrolled.core.errors import ConfigurationError
    from unrolled.core.settings import merge
    from unrolled.tasks.differences import gather

    quiet, trained = given.quiet or not speaks(), load_task(verb.task)
    if given.options:
        print_options(trained.settings)
        return
    with TrainingDisplay(quiet=quiet) as display:
        differences = gather(given.preset or [], given.config or [], given.set_ or [])
        if given.horizon is not None:
            differences = merge(differences, {"data": {"horizon": given.horizon}})
        further = {} if given.init_from is None else {"init_from": given.init_from}
        if given.resume:
            if given.init_from is not None:
                raise ConfigurationError("`--init-from` is for a new run; leave it out, or `--resume`")
            if given.out is None:
                raise ConfigurationError("`--resume` needs the run to go on with; give it as `--out DIR`")
            refuse_other_files(given)
            run = trained.resume(given.out, changes=differences, display=display, trust=given.trust)
        elif not given.files:
            raise ConfigurationError(f"`unrolled train {task}` {verb.needs}")
        else:
            run = trained.train(
                given.files, valid=given.valid or [], out=given.out, differences=differences, display=display, trust=given.trust, **further
            )
    if speaks():
        report(task, run.summary(), verb.following, json=given.json, quiet=quiet)


def refuse_other_files(given: Given) -> None:
    """Refuse to go on with other files than the run's own; the same command with `--resume` added goes on.

    Args:
        given: what was said.

    Raises:
        ConfigurationError: another file.
    """
    from unrolled.core.errors import ConfigurationError
    from unrolled.tasks.recorded_data import recorded_files
    from unrolled.tasks.run_folder import RunFolder

    if given.files or given.valid:
        own = recorded_files(RunFolder(given.out or Path()))
        said = (given.files or [], given.valid or [])
        if [[path.resolve() for path in paths] for paths in said] != [[path.resolve() for path in paths] for paths in own]:
            raise ConfigurationError("`--resume` goes on with the run's own data; leave the files out, or train a new run on them")


def load_task(place: str) -> Any:
    """A task.

    Args:
        place: `module:name`.

    Returns:
        It.
    """
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def report(task: str, summary: dict[str, object], following: str, *, json: bool, quiet: bool) -> None:
    """Say how a training ended and what to do next.

    Args:
        task: its name on the command line.
        summary: of the run.
        following: what a person does next.
        json: print it as JSON.
        quiet: say nothing.
    """
    stopped = summary["status"] == "stopped"
    if json:
        print_json(summary)
    elif not quiet:
        path = summary["run"]
        if summary.get("loss") is not None:
            print(f"best: {figures(summary)}")
        read = f"{summary['tokens']:,} {summary['unit']}s"
        print(f"{summary['steps']:,} steps, {read} in {duration(float(str(summary['seconds'])))} of training")
        print(f"report: {path}/report.html")
        if stopped:
            print(f"stopped and saved; go on with: unrolled train {task} --resume --out {path}")
        else:
            print(f"next: {following.format(run=path)}")
    if stopped:
        sys.exit(130)


SINGLE_FILES = (".tsv", ".jsonl", ".tsv.gz", ".jsonl.gz")
"""A file of pairs, where others come as two."""


def spread_valid(words: list[str]) -> list[str]:
    """`--valid SOURCE TARGET` or `--valid=SOURCE TARGET` of a translation as the option given twice: an option takes one value.

    Args:
        words: the command line after the program's name.

    Returns:
        The same, with `--valid` before each of its files.
    """
    places = [place for place, word in enumerate(words) if word == "--valid" or word.startswith("--valid=")]
    if words[:2] != ["train", "translation"] or len(places) != 1:
        return words
    (at,) = places
    joined = words[at].removeprefix("--valid=") if "=" in words[at] else None
    behind = at + 1 if joined is not None else at + 2
    two = [*([] if joined is None else [joined]), *words[at + 1 :]][:2]
    if len(two) < 2 or any(word.startswith("-") for word in two) or two[0].endswith(SINGLE_FILES):
        return words
    return [*words[:behind], "--valid", *words[behind:]]


for _name, _verb in VERBS.items():
    app.command(_name, cls=PlainCommand)(
        command(partial(run_verb, _name, _verb), Given, _verb.what, leave_out=OWN - set(_verb.own), files=_verb.files)
    )
