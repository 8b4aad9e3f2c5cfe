"""Help and complaints of the command line in plain words: what an option takes, not the type it has in the code."""

from __future__ import annotations

from typing import Any, get_args, get_origin

from typer.core import TyperCommand, TyperGroup

PLACEHOLDERS: dict[Any, str] = {int: "N", float: "NUMBER"}
"""What stands for a value that has no name of its own in the help; all others are texts."""


class PlainCommand(TyperCommand):
    """A verb whose help speaks plainly."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Options and arguments, `--help` with them.

        Args:
            ctx: of the command line.

        Returns:
            All of them.
        """
        return [plainly(parameter) for parameter in super().get_params(ctx)]


class PlainGroup(TyperGroup):
    """A group of verbs whose help speaks plainly."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Options, `--help` with them.

        Args:
            ctx: of the command line.

        Returns:
            All of them.
        """
        return [plainly(parameter) for parameter in super().get_params(ctx)]


def plainly(parameter: Any) -> Any:
    """Let the help show what an option takes: nothing for a switch, a word for a value. (Versions of typer that ask otherwise show types.)

    Args:
        parameter: of typer.

    Returns:
        The same.
    """
    named = parameter.param_type_name == "argument" or getattr(parameter, "is_flag", False)
    shown = "" if named else parameter.metavar or PLACEHOLDERS.get(_element(parameter), "TEXT")
    parameter.display_type_rich = lambda ctx: shown
    parameter._get_number_range_help_str = lambda: None if named else _range(parameter)
    return parameter


def complaint(error: Any) -> str:
    """What is said of a wrong word on the command line.

    Args:
        error: of typer; its cause is pydantic's where a value could not be read.

    Returns:
        The beginning of a sentence; nothing where the help has been printed already.
    """
    parameter, details = getattr(error, "param", None), getattr(error.__cause__, "errors", None)
    if parameter is None or details is None:
        return str(error.format_message()).rstrip(".")
    from unrolled.core.wording import kind

    name = max(parameter.opts, key=len) if parameter.param_type_name == "option" else parameter.metavar
    limits = [limit for limit in [_range(parameter)] if limit]
    return f"`{name}` must be {', '.join([kind(_element(parameter)), *limits])}, got `{details()[0]['input']}`"


def _element(parameter: Any) -> Any:
    """The type of one value."""
    annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", str)
    return get_args(annotation)[0] if get_origin(annotation) is list else annotation


def _range(parameter: Any) -> str | None:
    least, most = getattr(parameter, "min", None), getattr(parameter, "max", None)
    said = [f"{words} {bound}" for words, bound in (("at least", least), ("at most", most)) if bound is not None]
    return " and ".join(said) or None
