"""The table of every option, derived from the settings classes."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from unrolled.core.settings import Settings, options
from unrolled.core.wording import written


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
        cells = ("" if option.default is None else written(option.default), f"{option.what} ({option.may_be})")
        table.add_row(option.key, *(cell.replace("[", r"\[") for cell in cells))
    Console().print(table)
