"""A run folder as one HTML page: nothing in it is fetched from anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from unrolled.core.errors import RunError
from unrolled.core.files import write_text
from unrolled.report import labels, wording
from unrolled.report.curves import curves
from unrolled.report.reading import RunData, draws_samples, read_run

TEMPLATES = Path(__file__).parent / "templates"
SMALL_CHARTS = (
    ("bleu", "BLEU of validation sentences, greedy"),
    ("f1", "F1 of what validates, %"),
    ("accuracy", "accuracy of what validates, %"),
    ("mse", "squared error of what validates"),
    ("learning_rate", "learning rate"),
    ("gradient_norm", "gradient norm, before clipping"),
    ("tokens_per_second", "speed, a second"),
)


def write_report(run: Path) -> Path:
    """Draw a run folder into its `report.html`; a run that has just begun gives a page that says what is not there yet.

    Args:
        run: the run folder.

    Returns:
        The page.

    Raises:
        RunError: there is no such folder, or the page cannot be written.
    """
    if not run.is_dir():
        raise RunError(f"`{run}` must be a run folder, and there is none; `unrolled runs` lists the runs")
    page = run / "report.html"
    write_text(page, render(read_run(run)))
    return page


def render(run: RunData) -> str:
    """The page.

    Args:
        run: what was read.

    Returns:
        HTML.
    """
    drawn = curves(run)
    return fill(
        "report.html.j2",
        title=str(run.facts.get("name") or run.folder.resolve().name),
        status=str(run.facts.get("status") or "unknown"),
        note=str(run.facts.get("note") or ""),
        created=wording.moment(run.facts.get("created")),
        summary=wording.summary(run),
        missing=run.missing,
        figures=wording.figures(run),
        curves=drawn,
        small_charts=[(name, title) for name, title in SMALL_CHARTS if drawn[name]],
        unit=wording.unit(run),
        measures=wording.measures(run),
        evaluations=wording.evaluations(run),
        scores=labels.scores(run),
        confusion=labels.confusion(run),
        sampled=draws_samples(run.facts),
        stages=wording.stages(run.samples),
        tables=wording.tables(run),
    )


def fill(template: str, **values: Any) -> str:
    """One of the templates beside this file as a page.

    Args:
        template: its file name.
        **values: what its names stand for.

    Returns:
        HTML.
    """
    # Samples, sentences and file names come from anywhere: everything is escaped.
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(**values)
