"""Traces as a translation model leaves them: a short sentence, a long one of sub-words, and beam searches over both."""

from __future__ import annotations

import math
import random
from typing import Any

SHORT = ("Ein Hund rennt im Schnee .", "A dog runs in the snow . </s>")
LONG = (
    "Die ␣Wissen schaft ler ␣der ␣Univers ität ␣haben ␣in ␣einer ␣lang jäh rigen ␣Unter suchung ␣heraus ge funden , ␣dass ␣die "
    "␣Gletsch er ␣der ␣West al pen ␣schnell er ␣schmel zen ␣als ␣bis lang ␣an ge nommen .",
    "Researchers ␣at ␣the ␣univers ity ␣have ␣found ␣in ␣a ␣long - term ␣study ␣that ␣the ␣gla ciers ␣of ␣the ␣western ␣Alps ␣are "
    "␣mel ting ␣faster ␣than ␣previously ␣assumed . </s>",
)
OTHERS = (
    "the",
    "a",
    "an",
    "of",
    "to",
    "was",
    "is",
    "it",
    "that",
    "one",
    "which",
    "some",
    "snow",
    "cold",
    "white",
    "running",
    "study",
    "found",
)


def plain(symbols: list[str]) -> str:
    """Words, or sub-words of which those that begin a word say so."""
    return "".join(symbols).replace("␣", " ") if any("␣" in symbol for symbol in symbols) else " ".join(symbols)


def attention(name: str, rows: list[str], columns: list[str], heads: int = 1, causal: bool = False) -> dict[str, Any]:
    """A map whose heads look along the diagonal, each a little beside it and with a sharpness of its own."""
    chance = random.Random(f"{name} {len(rows)} {len(columns)}")
    weights = []
    for _ in range(heads):
        shift, sharpness = chance.uniform(-3, 3), chance.choice((0.15, 0.6, 2.0, 6.0))
        lines: list[list[float | None]] = []
        for i in range(len(rows)):
            center = i * len(columns) / len(rows) + shift
            raw = [-sharpness * abs(j - center) + chance.gauss(0, 1) for j in range(len(columns))]
            known = [math.exp(x) if not causal or j <= i else 0.0 for j, x in enumerate(raw)]
            lines.append([x / sum(known) if not causal or j <= i else None for j, x in enumerate(known)])
        weights.append(lines)
    return {"name": name, "rows": rows, "columns": columns, "weights": weights}


def tree(best: list[str], beam: int, seed: int = 0) -> tuple[list[list[dict[str, Any]]], list[dict[str, Any]]]:
    """A search that keeps the best path, and the n-best list that it ends with."""
    chance = random.Random(seed)
    steps: list[list[dict[str, Any]]] = []
    finished: list[tuple[dict[str, Any], list[str], list[float]]] = []
    alive: list[tuple[dict[str, Any] | None, list[str], list[float]]] = [(None, [], [])]
    number = 0
    mark = "␣" if any("␣" in symbol for symbol in best) else ""
    for t, symbol in enumerate(best):
        found = []
        for place, (parent, symbols, values) in enumerate(alive):
            words = [mark + word for word in chance.sample(OTHERS, 3)]
            if place == 0:
                words = [symbol, *words]
            elif t > 3 and chance.random() < 0.25:
                words[0] = "</s>"
            for k, word in enumerate(words):
                value = math.log(chance.uniform(0.5, 0.98)) if place == 0 and k == 0 else math.log(chance.uniform(0.02, 0.4))
                total = sum(values) + value
                node = {
                    "id": number,
                    "parent": parent["id"] if parent else None,
                    "symbol": word,
                    "log_probability": total,
                    "score": total / (t + 1),
                    "kept": False,
                    "finished": word == "</s>",
                }
                found.append((node, [*symbols, word], [*values, value]))
                number += 1
        found.sort(key=lambda entry: -entry[0]["score"])
        for node, _, _ in found[:beam]:
            node["kept"] = True
        steps.append([node for node, _, _ in found[: 2 * beam]])
        finished += [entry for entry in found[:beam] if entry[0]["finished"]]
        alive = [entry for entry in found[:beam] if not entry[0]["finished"]]
        alive.sort(key=lambda entry: entry[1] != best[: t + 1])
    finished.sort(key=lambda entry: -entry[0]["score"])
    hypotheses = [
        {
            "text": plain(symbols[:-1]),
            "symbols": symbols,
            "score": node["score"],
            "log_probability": node["log_probability"],
            "token_log_probabilities": values,
        }
        for node, symbols, values in finished[:beam]
    ]
    return steps, hypotheses


def trace(pair: tuple[str, str] = SHORT, layers: int = 1, heads: int = 1, beam: int = 5, **changes: Any) -> dict[str, Any]:
    """A recurrent model with one layer, a Transformer with several; `changes` replace whole keys."""
    source, target = pair[0].split(), pair[1].split()
    steps, hypotheses = tree(target, beam)
    symbols = hypotheses[0]["symbols"]
    maps = [attention("decoder, source", symbols, source, heads)]
    if layers > 1:
        kinds = [("encoder", source, source, False), ("decoder", symbols, symbols, True), ("decoder, source", symbols, source, False)]
        maps = [
            attention(f"{kind}, layer {layer + 1}", rows, columns, heads, causal)
            for kind, rows, columns, causal in kinds
            for layer in range(layers)
        ]
    return {
        "format": 1,
        "task": "translation",
        "run": "runs/deen",
        "source_text": plain(source),
        "source": source,
        "hypotheses": hypotheses,
        "attention": maps,
        "tree": {"steps": steps},
        "figures": {"beam": beam, "steps": len(steps), "steps_saved": 3},
    } | changes
