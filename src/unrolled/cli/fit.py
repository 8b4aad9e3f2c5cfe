"""`unrolled fit hmm|lds|structural DATA`: one command from a file to a fitted state-space model."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console

from unrolled.cli.fit_tables import print_fit
from unrolled.cli.options import command
from unrolled.cli.output import print_json
from unrolled.cli.plain import PlainCommand, PlainGroup
from unrolled.cli.train import Config, Json, Options, Out, Quiet, load_task

app = typer.Typer(cls=PlainGroup, no_args_is_help=True, help="Fit a state-space model to your own series.")

SeriesFiles = Annotated[
    list[Path] | None,
    typer.Argument(metavar="FILE…", help="Series: CSV files with a header (UTF-8; .gz is read as is).", show_default=False),
]
SymbolFiles = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FILE…",
        help="Series: CSV files with a header; or a text, in which every line is a sequence of symbols (UTF-8; .gz is read as is).",
        show_default=False,
    ),
]


Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One option, such as model.iterations=500.")]


class Given(NamedTuple):
    """What was said on the command line."""

    files: Any = None
    out: Out = None
    config: Config = None
    set_: Set = None
    quiet: Quiet = False
    json: Json = False
    options: Options = False


class Verb(NamedTuple):
    """A kind of model on the command line."""

    what: str
    """Its help."""
    files: Any
    """What it is fitted to, as an argument."""
    example: str
    """What a person may type."""
    task: str
    """Where it is: `module:name`, imported when it is asked for."""


VERBS: dict[str, Verb] = {
    "hmm": Verb(
        "Fit a hidden Markov model: which of a few states a series was in, and what each state is like.",
        SymbolFiles,
        "unrolled fit hmm DATA.csv --set model.states=3",
        "unrolled.tasks.fit_hmm:HIDDEN_MARKOV",
    ),
    "lds": Verb(
        "Fit a linear dynamical system: several columns that follow a few hidden numbers.",
        SeriesFiles,
        "unrolled fit lds DATA.csv --set model.state_size=2",
        "unrolled.tasks.fit_linear:LINEAR_SYSTEM",
    ),
    "structural": Verb(
        "Fit a structural model: a series as the sum of level, trend, season and noise.",
        SeriesFiles,
        "unrolled fit structural DATA.csv --set model.components=trend,seasonal",
        "unrolled.tasks.fit_linear:STRUCTURAL",
    ),
}
"""All models that are fitted."""

SECONDS = 5.0
"""Between two lines of progress where there is no terminal."""


class FitProgress:
    """A line that changes on a terminal; elsewhere a plain line now and then, and one for every beginning."""

    def __init__(self, *, quiet: bool) -> None:
        """Of a fit that begins.

        Args:
            quiet: say nothing.
        """
        self.console = Console(stderr=True, highlight=False, quiet=quiet)
        self.line = self.console.status("")
        self.last, self.told = "", time.monotonic()
        self.search: tuple[int | None, int] | None = None

    def __enter__(self) -> FitProgress:
        if self.console.is_terminal:
            self.line.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.line.stop()
        self._tell()

    def noted(self, text: str) -> None:
        """Print a sentence.

        Args:
            text: something a person should know.
        """
        self.console.print(text, markup=False, soft_wrap=True)

    def iterated(self, size: int | None, start: int, iteration: int, log_likelihood: float) -> None:
        """Show an iteration.

        Args:
            size: number of states; `None` for a model without.
            start: which beginning.
            iteration: of it.
            log_likelihood: reached.
        """
        if self.search != (size, start):
            self._tell()
            self.search = size, start
        of = "" if size is None else f"{size} state{'s' * (size != 1)}, "
        self.last = f"{of}beginning {start}, iteration {iteration:>3}: log-likelihood {log_likelihood:,.4f}"
        if self.console.is_terminal:
            self.line.update(self.last)
        elif time.monotonic() - self.told > SECONDS:
            self._tell()

    def _tell(self) -> None:
        if self.last:
            self.noted(self.last)
        self.last, self.told = "", time.monotonic()


def run_verb(name: str, verb: Verb, given: Given) -> None:
    """Fit a model and say what was learnt.

    Args:
        name: of the verb.
        verb: what is fitted.
        given: what was said.

    Raises:
        ConfigurationError: no file.
    """
    from unrolled.cli.settings_table import print_options
    from unrolled.core.errors import ConfigurationError
    from unrolled.core.settings import combine

    task = load_task(verb.task)
    if given.options:
        print_options(task.settings)
        return
    if not given.files:
        raise ConfigurationError(f"`unrolled fit {name}` needs a file of series; try `{verb.example}`")
    with FitProgress(quiet=given.quiet) as progress:
        run = task.fit(given.files, out=given.out, differences=combine(given.config or [], given.set_ or []), display=progress)
    if given.json:
        print_json(run.summary() | {"learnt": run.learnt(), "tried": run.folder.fact("tried")})
    elif not given.quiet:
        print_fit(run)


for _name, _verb in VERBS.items():
    app.command(_name, cls=PlainCommand)(command(partial(run_verb, _name, _verb), Given, _verb.what, files=_verb.files))
