"""`unrolled bench kernels`: how fast cells run on this machine."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from unrolled.cli.output import print_json
from unrolled.cli.plain import PlainCommand, PlainGroup
from unrolled.core.errors import ConfigurationError, nearest

app = typer.Typer(cls=PlainGroup, help="Measure speed on this machine.", no_args_is_help=True)


@app.callback()
def _door() -> None:
    """Measure speed on this machine."""


@app.command(cls=PlainCommand)
def kernels(
    cells: Annotated[list[str] | None, typer.Option("--cell", metavar="NAME", help="Only this cell; may be given again.")] = None,
    modes: Annotated[list[str] | None, typer.Option("--mode", metavar="NAME", help="Only training, inference or streaming.")] = None,
    shapes: Annotated[list[str] | None, typer.Option("--shape", metavar="BATCHxHIDDEN", help="Only this shape, such as 16x256.")] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Turns of each; the median counts.")] = 5,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Processor threads; all cores when not given.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time compiled cells beside the plain loop and torch's own layers, 100 steps, fp32."""
    import torch

    from unrolled.nn.cells import CELLS
    from unrolled.tasks.kernel_bench import BENCHED, MODES, SHAPES, STEPS, bench_kernels, geometric_means

    _check("cell", cells or [], CELLS)
    _check("mode", modes or [], MODES)
    if threads is not None:
        torch.set_num_threads(threads)
    asked = [_shape(text) for text in shapes or []] or SHAPES
    lines = []
    for line in bench_kernels(cells=cells or BENCHED, modes=modes or MODES, shapes=asked, rounds=rounds):
        lines.append(line)
        if not json:
            others = "  ".join(f"{name} {ms:.2f} ms ({ms / line.milliseconds:.2f} ×)" for name, ms in line.others.items())
            print(f"{line.mode:9} {line.cell:15} {line.batch:3} × {line.hidden:3}  {line.milliseconds:8.2f} ms  {others}", flush=True)
    means = geometric_means(lines)
    if json:
        ratios = [{"cell": cell, "mode": mode, "against": name, "ratio": ratio} for (cell, mode, name), ratio in means.items()]
        setting = {"steps": STEPS, "threads": torch.get_num_threads(), "torch": torch.__version__}
        print_json({**setting, "lines": [line._asdict() for line in lines], "ratios": ratios})
        return
    print()
    Console().print(_table(means))


def _check(what: str, given: list[str], known: Any) -> None:
    for name in given:
        if name not in known:
            raise ConfigurationError(f"`--{what}` must name one there is, got `{name}`; {nearest(name, known)}")


def _shape(text: str) -> tuple[int, int]:
    batch, _, hidden = text.partition("x")
    if not (batch.isdecimal() and hidden.isdecimal() and int(batch) and int(hidden)):
        raise ConfigurationError(f"`--shape` must be batch and hidden size, both at least 1, such as 16x256, got `{text}`")
    return int(batch), int(hidden)


def _table(means: dict[tuple[str, str, str], float]) -> Table:
    """How many times as fast, geometric means over the shapes."""
    table = Table(box=None, pad_edge=False, title="times as fast, over all shapes", title_justify="left")
    modes = list(dict.fromkeys(mode for _, mode, _ in means))
    table.add_column("cell")
    table.add_column("than")
    for mode in modes:
        table.add_column(mode, justify="right")
    for cell, other in dict.fromkeys((cell, other) for cell, _, other in means):
        ratios = (means.get((cell, mode, other)) for mode in modes)
        table.add_row(cell, other, *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios))
    return table
