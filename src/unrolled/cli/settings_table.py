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
    for key, default, text in options(group):
        table.add_row(key, "" if default is None else str(default), text.replace("[", r"\["))
    Console().print(table)
