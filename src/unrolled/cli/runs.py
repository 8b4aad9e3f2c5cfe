"""`unrolled runs` and `unrolled show RUN`: what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from unrolled.cli.output import duration, print_json
from unrolled.core.errors import RunError


def runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where runs are kept.")] = Path("runs"),
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the runs of a folder."""
    from unrolled.tasks.run_folder import list_runs

    facts: list[dict[str, Any]] = []
    for run in list_runs(folder):
        try:
            facts.append({"run": str(run.path), **run.facts(), "status": run.status()})
        except RunError as error:
            facts.append({"run": str(run.path), "status": "unreadable", "problem": str(error)})
    if json:
        print_json({"runs": facts})
    elif not facts:
        print(f"no runs in `{folder}`; `unrolled demo` makes one in two minutes")
    else:
        Console().print(_table(facts))


def _table(facts: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("run", "task", "status", "loss", "steps", "time", "created"):
        table.add_column(column, justify="right" if column in ("loss", "steps", "time") else "left")
    for one in facts:
        result = one.get("result") or {}
        loss, steps, seconds = result.get("loss"), result.get("steps"), result.get("seconds")
        table.add_row(
            one["run"],
            str(one.get("task", "")),
            str(one.get("status", "")),
            "" if loss is None else f"{loss:.4f}",
            "" if steps is None else f"{steps:,}",
            "" if seconds is None else duration(seconds),
            str(one.get("created", "")).replace("T", " ")[:16],
        )
    return table


def show(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what a run is made of and how it went."""
    from unrolled.tasks.run_folder import RunFolder

    folder = RunFolder(run)
    facts = {**folder.facts(), "status": folder.status()}
    if json:
        print_json({"run": str(run), **facts, "config": folder.read_config()})
        return
    console = Console(highlight=False)
    for title, part in (("run", facts), ("configuration", folder.read_config())):
        console.print(f"[bold]{title}[/bold]")
        table = Table(box=None, pad_edge=False, show_header=False)
        for key, value in _flat(part):
            table.add_row(key, value.replace("[", r"\["))
        console.print(table)
        console.print()
    if folder.report.exists():
        console.print(f"report: {folder.report}", soft_wrap=True)


def _flat(part: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in part.items():
        rows += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, _shown(value))]
    return rows


def _shown(value: Any) -> str:
    from unrolled.core.wording import written

    return f"{value:.6g}" if isinstance(value, float) else written(value)
