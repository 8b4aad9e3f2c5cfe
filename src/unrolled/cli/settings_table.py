"""The table of every option, derived from the settings classes."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from unrolled.core.settings import Settings, options


def print_options(group: type[Settings]) -> None:
    """Print every option with its default and what it does.

    Args:
        group: the settings of a task.
    """
    table = Table(box=None, pad_edge=False, show_edge=False)
    table.add_column("key", style="bold", no_wrap=True)
    table.add_column("default")
    table.add_column("what it does")
    for option in options(group):
        what = option.what + (f" ({option.may_be})" if option.may_be else "")
        table.add_row(option.key, "" if option.default is None else str(option.default), what.replace("[", r"\["))
    Console().print(table)
