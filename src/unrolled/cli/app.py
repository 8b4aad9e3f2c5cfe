"""The door of the command line: verbs, and what becomes of errors."""

from __future__ import annotations

import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import typer

from unrolled.cli import average, bench, demo, evaluate, fit, look, predict, runs, sample, train
from unrolled.cli.output import speaks
from unrolled.cli.plain import PlainCommand, PlainGroup, complaint
from unrolled.core.errors import UserError

USAGE_ERROR: Any = typer.BadParameter.__bases__[0]
"""What a wrong word on the command line raises; typer gives it no public name."""

app = typer.Typer(
    name="unrolled",
    cls=PlainGroup,
    help="Sequence models: train on your own file with one command, look inside, decode.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(train.app, name="train")
app.add_typer(fit.app, name="fit")
app.add_typer(bench.app, name="bench")
app.command("eval", cls=PlainCommand)(evaluate.VERB)
app.command("predict", cls=PlainCommand)(predict.VERB)
app.command("sample", cls=PlainCommand)(sample.VERB)
app.command("look", cls=PlainCommand)(look.look)
app.command("average", cls=PlainCommand)(average.average)
app.command("runs", cls=PlainCommand)(runs.runs)
app.command("show", cls=PlainCommand)(runs.show)
app.command("demo", cls=PlainCommand)(demo.demo)


@app.callback(invoke_without_command=True)
def _door(version: bool = typer.Option(False, "--version", help="Print the version and end.")) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"unrolled {installed('unrolled')}")
        raise typer.Exit


def _said(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    """A warning of ours as one sentence; those of others as Python has them."""
    own = str(Path(__file__).parents[1])
    return f"unrolled: {message}\n" if filename.startswith(own) else PYTHONS_OWN(message, category, filename, lineno, line)


PYTHONS_OWN = warnings.formatwarning


def main() -> None:
    """Run the command line. What a user can mend is one sentence and exit code 2; a fault of ours keeps its traceback, exit code 1."""
    warnings.formatwarning = _said
    try:
        sys.exit(app(train.spread_valid(sys.argv[1:]), standalone_mode=False) or 0)
    except UserError as error:
        if speaks():
            print(f"unrolled: {error}", file=sys.stderr)
        sys.exit(2)
    except USAGE_ERROR as error:
        said = complaint(error)
        if said:  # without words, the whole help has been printed already
            print(f"unrolled: {said}; try `{error.ctx.command_path if error.ctx else 'unrolled'} --help`", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        print("unrolled: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # Whoever reads our output has had enough (`unrolled sample … | head`).
        sys.stderr.close()
        sys.exit(0)
    except Exception:
        traceback.print_exc()
        print(
            "unrolled: this is a fault of unrolled, not yours; please report it with the lines above and the command you gave",
            file=sys.stderr,
        )
        sys.exit(1)
