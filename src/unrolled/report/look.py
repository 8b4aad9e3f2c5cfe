"""What a model did with one sentence, as one HTML page: hypotheses, attention maps, the beam search as a tree, the probability of each symbol.

The input is a trace, a dictionary of what JSON knows; `Trace` and the classes above it are its format.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from unrolled.core.errors import DataError
from unrolled.core.files import write_text
from unrolled.report import forecast_look, label_look, state_look
from unrolled.report.page import fill
from unrolled.report.trace import Part, checked, clean, finite, visible
from unrolled.report.wording import NOTHING, decimal, setting

MASKED = -1
"""Stands on the page for a weight that is not a number."""
SLACK = 0.01
"""How far a weight may leave [0, 1]: half precision rounds."""
TOLD = 12
"""Most rows of an attention map that are told in words."""


class Hypothesis(Part):
    """One line of the n-best list."""

    text: str
    symbols: list[str]
    """What the text was joined from, the end symbol included."""
    score: float | None
    """What hypotheses are ranked by."""
    log_probability: float | None
    """Σ log P of its symbols, in nats."""
    token_log_probabilities: list[float | None]
    """One for each symbol."""


class AttentionMap(Part):
    """The weights of one attention layer over the best hypothesis."""

    name: str
    """Such as `decoder, layer 1, source`; no two layers share one."""
    rows: list[str]
    """Symbols that attend."""
    columns: list[str]
    """Symbols that are attended to."""
    weights: list[list[list[float | None]]] | None
    """`[head][row][column]`, from 0 to 1; `None` and NaN for what is masked; `None` as a whole if it was not recorded."""


class Node(Part):
    """One hypothesis of the search after one step."""

    id: int
    parent: int | None
    """The hypothesis of an earlier step that it extends, `None` at the root."""
    symbol: str
    """What was added."""
    log_probability: float | None
    """Σ log P so far, in nats."""
    score: float | None
    kept: bool
    """Whether it stayed in the beam."""
    finished: bool


class Tree(Part):
    """All hypotheses of a beam search."""

    steps: list[list[Node]]


class Trace(Part):
    """What a model did with one sentence."""

    format: Literal[1]
    task: str
    run: str
    source_text: str
    source: list[str]
    hypotheses: list[Hypothesis]
    """The n-best list, best first."""
    attention: list[AttentionMap]
    tree: Tree | None
    figures: dict[str, Any]
    """Plain numbers and words by their names."""


class Row(NamedTuple):
    """A hypothesis as the page shows it."""

    text: str
    score: str
    log_probability: str
    length: int


class Token(NamedTuple):
    """A symbol of the best hypothesis as the page shows it."""

    symbol: str
    probability: str
    log_probability: str
    percent: float


def write_look(trace: dict[str, Any], page: Path) -> Path:
    """Draw a trace into one page that fetches nothing.

    Args:
        trace: in the form of `Trace`, or of `label_look.LabelTrace`, `forecast_look.ForecastTrace` or `state_look.StateTrace` where its task is one of those.
        page: where the page shall stand.

    Returns:
        The page.

    Raises:
        DataError: a key of the trace is missing or unknown, or its value cannot be.
        RunError: the page cannot be written.
    """
    task = trace.get("task")
    if task in label_look.TASKS:
        html = label_look.render(label_look.read_trace(trace))
    elif task == forecast_look.TASK:
        html = forecast_look.render(forecast_look.read_trace(trace))
    elif task in state_look.KINDS:
        html = state_look.render(state_look.read_trace(trace))
    else:
        html = render(read_trace(trace))
    write_text(page, html)
    return page


def read_trace(trace: dict[str, Any]) -> Trace:
    """Check a trace.

    Args:
        trace: what JSON knows.

    Returns:
        The same with names.

    Raises:
        DataError: a key is missing or unknown, or its value cannot be.
    """
    found = checked(Trace, trace, (Tree, Node, AttentionMap, Hypothesis))
    for wrong in _contradictions(found):
        raise DataError(wrong)
    return found


def render(trace: Trace) -> str:
    """The page.

    Args:
        trace: checked.

    Returns:
        HTML.
    """
    best = trace.hypotheses[0]
    maps = [_map(layer) for layer in trace.attention]
    return fill(
        "look.html.j2",
        title=clean(trace.source_text) or "an empty sentence",
        task=clean(trace.task),
        run=clean(trace.run),
        summary=_summary(trace),
        source=[visible(symbol) for symbol in trace.source],
        best=clean(best.text),
        rows=[Row(clean(h.text), decimal(finite(h.score)), decimal(finite(h.log_probability)), len(h.symbols)) for h in trace.hypotheses],
        tokens=[_token(*pair) for pair in zip(best.symbols, best.token_log_probabilities, strict=True)],
        figures=[(clean(name).replace("_", " "), _figure(value)) for name, value in trace.figures.items()],
        layers=[(clean(layer.name), _told(layer)) for layer in trace.attention],
        chosen=_chosen(trace),
        several_heads=any(len(layer["heads"]) > 1 for layer in maps),
        nodes=sum(map(len, trace.tree.steps)) if trace.tree else 0,
        drawn={"attention": maps, "tree": _tree(trace)},
    )


def _contradictions(trace: Trace) -> Iterator[str]:
    """One sentence for each place where two parts of the trace do not fit together."""
    if not trace.hypotheses:
        yield "`hypotheses` of the trace must hold at least one, got none; a search that found nothing has nothing to show"
    for place, hypothesis in enumerate(trace.hypotheses):
        symbols, values = len(hypothesis.symbols), len(hypothesis.token_log_probabilities)
        if symbols != values:
            yield f"`hypotheses.{place}.token_log_probabilities` must hold one value for each of the {symbols} symbols, got {values}"
    for place, layer in enumerate(trace.attention):
        yield from _wrong_weights(f"attention.{place}.weights", layer)
    yield from _wrong_nodes(trace.tree.steps if trace.tree else ())
    for name, value in trace.figures.items():
        if not isinstance(value, str | int | float | None):
            yield f"`figures.{name}` must be a number or a word, got {value!r:.80}"


def _wrong_weights(key: str, layer: AttentionMap) -> Iterator[str]:
    if layer.weights is None:
        return
    rows, columns = len(layer.rows), len(layer.columns)
    if not layer.weights:
        yield f"`{key}` must hold at least one head, got none; give None where nothing was recorded"
    for place, head in enumerate(layer.weights):
        if len(head) != rows:
            yield f"`{key}.{place}` must hold one line for each of the {rows} rows, got {len(head)}"
        wrong = next((len(line) for line in head if len(line) != columns), None)
        if wrong is not None:
            yield f"`{key}.{place}` must hold one weight for each of the {columns} columns in every line, got {wrong}"
        low, high = min(_numbers(head), default=0.0), max(_numbers(head), default=0.0)
        if low < -SLACK or high > 1 + SLACK:
            yield f"`{key}.{place}` must hold weights from 0 to 1, got {low if low < -SLACK else high:g}; give them after the softmax"


def _wrong_nodes(steps: Sequence[Sequence[Node]]) -> Iterator[str]:
    seen: set[int] = set()
    for step, nodes in enumerate(steps):
        for node in nodes:
            if node.parent is not None and node.parent not in seen:
                yield f"`parent` of a node in `tree.steps.{step}` must be the id of a node of an earlier step, got {node.parent}"
        ids = {node.id for node in nodes}
        if len(ids) < len(nodes) or ids & seen:
            yield f"`id` of each node in `tree.steps.{step}` must be its own, and one is there twice"
        seen |= ids


def _numbers(head: Sequence[Sequence[float | None]]) -> Iterator[float]:
    return (weight for line in head for weight in line if weight is not None and not math.isnan(weight))


def _weights(layer: AttentionMap) -> Float[np.ndarray, "head row column"] | None:
    """NaN where masked; `None` where there is nothing to draw."""
    if layer.weights is None or not layer.rows or not layer.columns:
        return None
    return np.array(layer.weights, dtype=np.float64)


def _map(layer: AttentionMap) -> dict[str, Any]:
    """A layer as the script draws it: weights in thousandths, one flat list a head; their mean comes first where there are several."""
    weights = _weights(layer)
    heads = [] if weights is None else [_thousandths(head) for head in weights]
    if weights is not None and len(heads) > 1:
        heads.insert(0, _thousandths(weights.mean(axis=0)))
    return {"rows": [visible(s) for s in layer.rows], "columns": [visible(s) for s in layer.columns], "heads": heads}


def _chosen(trace: Trace) -> int:
    """The layer shown first: the last one from target to source, else the first of all."""
    ends = (trace.hypotheses[0].symbols, trace.source)
    found = [place for place, layer in enumerate(trace.attention) if (layer.rows, layer.columns) == ends and layer.weights]
    return found[-1] if found else 0


def _thousandths(weights: Float[np.ndarray, "row column"]) -> list[int]:
    scaled = np.where(np.isnan(weights), MASKED, np.rint(np.clip(weights, 0, 1) * 1000))
    return scaled.astype(int).ravel().tolist()


def _told(layer: AttentionMap) -> str:
    """A layer in one line, for those who do not see it."""
    weights = _weights(layer)
    if weights is None:
        return f"{clean(layer.name)}: there are no weights."
    mean, told = weights.mean(axis=0), []
    for row, line in zip(layer.rows, mean, strict=True):
        if not np.isnan(line).all():
            most = int(np.nanargmax(line))
            told.append(f"{visible(row)} to {visible(layer.columns[most])} ({line[most]:.2f})")
    heads = "1 head" if len(weights) == 1 else f"the mean of {len(weights)} heads"
    more = f" and {len(told) - TOLD} more" if len(told) > TOLD else ""
    most_goes = f"most attention goes from {', '.join(told[:TOLD])}{more}" if told else "all of it is masked"
    return f"{clean(layer.name)}, {heads}; {most_goes}."


def _tree(trace: Trace) -> list[list[dict[str, Any]]]:
    if trace.tree is None:
        return []
    nodes = {node.id: node for step in trace.tree.steps for node in step}
    ranks = _ranks(nodes, trace.hypotheses)
    best = set(_path(nodes, _best_end(trace.tree, ranks)))
    return [
        [
            node.model_dump(exclude={"symbol", "score", "log_probability"})
            | {"symbol": visible(node.symbol), "score": _short(node.score), "log": _short(node.log_probability)}
            | {"best": node.id in best, "rank": ranks.get(node.id)}
            for node in step
        ]
        for step in trace.tree.steps
    ]


def _ranks(nodes: dict[int, Node], hypotheses: Sequence[Hypothesis]) -> dict[int, int]:
    """Places in the n-best list, from 1, by the id of the node where that hypothesis ends."""
    parents = {node.parent for node in nodes.values()}
    ends = [node.id for node in nodes.values() if node.kept and (node.finished or node.id not in parents)]
    paths = {end: tuple(nodes[i].symbol for i in _path(nodes, end)) for end in ends}
    places: dict[tuple[str, ...], int] = {}
    # A tree may begin with a start symbol that hypotheses leave out, and hypotheses may leave out the end symbol.
    for cut in (slice(None), slice(1, None), slice(None, -1), slice(1, -1)):
        for end, symbols in paths.items():
            if cut.stop is None or nodes[end].finished:
                places.setdefault(symbols[cut], end)
    found: dict[int, int] = {}
    for rank, hypothesis in enumerate(hypotheses, 1):
        place = places.get(tuple(hypothesis.symbols))
        if place is not None:
            found.setdefault(place, rank)
    return found


def _best_end(tree: Tree, ranks: dict[int, int]) -> int | None:
    """Where the best hypothesis ends: as the n-best list has it, else the finished one (else the last one) of the highest score."""
    if 1 in ranks.values():
        return next(end for end, rank in ranks.items() if rank == 1)
    kept = [[node for node in step if node.kept] for step in tree.steps]
    finished = [node for step in kept for node in step if node.finished]
    last = next((step for step in reversed(kept) if step), [])
    scored = [(finite(node.score), node.id) for node in finished or last]
    return max(scored, key=lambda pair: -math.inf if pair[0] is None else pair[0], default=(None, None))[1]


def _path(nodes: dict[int, Node], end: int | None) -> list[int]:
    """Ids from the root to `end`."""
    found: list[int] = []
    while end is not None:
        found.append(end)
        end = nodes[end].parent
    return found[::-1]


def _summary(trace: Trace) -> str:
    best, others = trace.hypotheses[0], len(trace.hypotheses) - 1
    found = f"The best of {others + 1} hypotheses" if others else "The only hypothesis"
    score, log_probability = decimal(finite(best.score)), decimal(finite(best.log_probability))
    made = f"{len(best.symbols)} symbols made from {len(trace.source)}"
    return f"{found} has score {score} and log-probability {log_probability}: {made}."


def _token(symbol: str, log_probability: float | None) -> Token:
    value = finite(log_probability)
    if value is None:
        return Token(visible(symbol), NOTHING, NOTHING, 0.0)
    probability = math.exp(min(value, 0.0))
    return Token(visible(symbol), decimal(probability), decimal(value), round(100 * probability, 1))


def _figure(value: str | int | float | None) -> str:
    return decimal(finite(value)) if isinstance(value, float) else clean(setting(value))


def _short(value: float | None) -> float | None:
    value = finite(value)
    return None if value is None else round(value, 4)
