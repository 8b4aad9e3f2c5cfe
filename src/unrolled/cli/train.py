"""`unrolled train TASK DATA…`: one command from a file to a trained model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.output import TrainingDisplay, duration, figures, print_json, speaks

app = typer.Typer(no_args_is_help=True, help="Train a model on your own file.")

Files = Annotated[list[Path] | None, typer.Argument(metavar="FILE…", help="Text files (UTF-8; .gz is read as is).", show_default=False)]
Valid = Annotated[list[Path] | None, typer.Option("--valid", metavar="FILE", help="Text to validate on; else the last tenth of FILE…")]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The run folder; else a new one below runs/.")]
Config = Annotated[list[Path] | None, typer.Option("--config", metavar="TOML", help="A file of what differs from the defaults.")]
Preset = Annotated[list[str] | None, typer.Option("--preset", metavar="NAME", help="A recipe that ships: awd-lstm, tied-lstm.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One option, such as train.minutes=3.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run at --out.")]
Trust = Annotated[bool, typer.Option("--trust", help="Allow model.cell to import a class of your own.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors (and --json).")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Options = Annotated[bool, typer.Option("--options", help="List every option for --set with its default, and end.")]


@app.command("lm")
def language_model(
    files: Files = None,
    valid: Valid = None,
    out: Out = None,
    config: Config = None,
    preset: Preset = None,
    set_: Set = None,
    resume: Resume = False,
    trust: Trust = False,
    quiet: Quiet = False,
    json: Json = False,
    options: Options = False,
) -> None:
    """Train a language model of characters, words or sub-words on text files."""
    from unrolled.cli.settings_table import print_options
    from unrolled.core.errors import ConfigurationError
    from unrolled.tasks.differences import gather
    from unrolled.tasks.language_model import resume_language_model, train_language_model
    from unrolled.tasks.language_model_settings import LanguageModelRunSettings

    quiet = quiet or not speaks()
    if options:
        print_options(LanguageModelRunSettings)
        return
    with TrainingDisplay(quiet=quiet) as display:
        differences = gather(preset or [], config or [], set_ or [])
        if resume:
            if out is None:
                raise ConfigurationError("`--resume` needs the run to go on with; give it as `--out DIR`")
            if files or valid:
                raise ConfigurationError("`--resume` goes on with the run's own text; leave the files out, or train a new run on them")
            run = resume_language_model(out, changes=differences, display=display, trust=trust)
        elif not files:
            raise ConfigurationError("`unrolled train lm` needs at least one text file; try `unrolled train lm FILE`")
        else:
            run = train_language_model(files, valid=valid or [], out=out, differences=differences, display=display, trust=trust)
    if speaks():
        report(run.summary(), json=json, quiet=quiet)


def report(summary: dict[str, object], *, json: bool, quiet: bool) -> None:
    """Say how a training ended and what to do next.

    Args:
        summary: of the run.
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
        print(f"{summary['steps']:,} steps, {summary['tokens']:,} symbols in {duration(float(str(summary['seconds'])))} of training")
        print(f"report: {path}/report.html")
        if stopped:
            print(f"stopped and saved; go on with: unrolled train lm --resume --out {path}")
        else:
            print(f"next: unrolled sample {path} --prompt …   unrolled eval {path}")
    if stopped:
        sys.exit(130)
