"""What a fit has learnt, as small tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

MOST_COLUMNS = 12
"""A wider table does not fit a terminal."""
CRITERIA = (
    ("log_likelihood", "log-likelihood", "{:,.4f}"),
    ("parameters", "parameters", "{:,}"),
    ("aic", "AIC", "{:,.4f}"),
    ("bic", "BIC", "{:,.4f}"),
)
"""Figures of a fit: their names, what they are called, and how they are written."""


def print_fit(run: Any) -> None:
    """Say how a fit ended, what it found, and what to do next.

    Args:
        run: that was just made.
    """
    facts = run.folder.facts()
    result, console = facts["result"], Console(highlight=False)
    tried = facts["tried"]
    if len(tried) > 1:
        console.print(_choice(tried, result["states"]))
        print()
    head = Table(box=None, pad_edge=False, show_header=False)
    head.add_column()
    head.add_column(justify="right")
    for name, called, form in CRITERIA:
        head.add_row(called, form.format(result[name]))
    head.add_row("iterations", f"{result['iterations']:,}")
    console.print(head)
    for part in run.learnt():
        print()
        console.print(_table(part))
    path = run.folder.path
    print(f"\nreport: {path / 'report.html'}")
    print(f"next: unrolled predict {path} < in.csv > out.csv   unrolled look {path}")


def _choice(tried: Sequence[dict[str, Any]], chosen: int) -> Table:
    table = Table("states", *(Column(called, justify="right") for _, called, _ in CRITERIA), "", box=None, pad_edge=False)
    for one in tried:
        cells = [form.format(one[name]) for name, _, form in CRITERIA]
        table.add_row(str(one["states"]), *cells, "lowest BIC" if one["states"] == chosen else "")
    return table


def _table(part: dict[str, Any]) -> Table:
    """A part of what was learnt: named rows of numbers, as many columns as there is room for."""
    names, more = part["columns"][:MOST_COLUMNS], len(part["columns"]) - MOST_COLUMNS
    left = f"(and {more} more)" if more > 0 else ""
    table = Table(escape(part["name"]), *(Column(escape(name), justify="right") for name in names), left, box=None, pad_edge=False)
    for name, values in part["rows"].items():
        table.add_row(escape(name), *(number(value) for value in values[:MOST_COLUMNS]))
    return table


def number(value: float | None) -> str:
    """A number a person reads at a glance.

    Args:
        value: `None` where there is none.

    Returns:
        Four digits, or one behind the point.
    """
    if value is None:
        return ""
    return f"{value:,.1f}" if 1e3 <= abs(value) < 1e9 else f"{value:.4g}"
