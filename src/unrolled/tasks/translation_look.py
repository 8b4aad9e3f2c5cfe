"""What a translation model did with one sentence, as a trace that `report` can draw."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.core.padded import Padded
from unrolled.core.settings import resolve
from unrolled.decode.beam import record_beam
from unrolled.decode.hypotheses import BeamTree, Fate
from unrolled.tasks.phrases import Wishes
from unrolled.tasks.translation import TranslationRun
from unrolled.tasks.translation_request import Translation, TranslationRequest

FORMAT = 1


def trace_translation(run: TranslationRun, sentence: str, *, beam: int = 5, **changes: Any) -> dict[str, Any]:
    """Translate a sentence and keep all that was weighed.

    Args:
        run: a trained model.
        sentence: one line of text.
        beam: hypotheses kept.
        changes: further fields of `TranslationRequest` that shape the search of one sentence.

    Returns:
        A trace for `report.write_look`.

    Raises:
        DataError: an empty sentence, or one that is too long.
    """
    translator = run.translator()
    request = resolve(TranslationRequest, {"beam": beam, "n_best": beam, **changes})
    wishes = Wishes(translator.target, request)
    asked = translator.ask([sentence], wishes)
    if not asked:
        raise DataError("there must be a sentence to look at, got an empty one; try some words in quotes")
    translator.refuse(asked[0])
    ids = asked[0].sources[0]
    tree = record_beam(
        translator.stepper,
        translator.start([[source] for source in asked[0].sources]),
        translator.options(request).model_copy(update={"max_length": translator.limit(asked[0], request)}),
        processors=wishes.processors(),
        prefix=asked[0].prefix,
        constraints=asked[0].required,
    )
    result = tree.result
    (found,) = translator.render_all(asked, result.hypotheses, request)
    source = run.codecs.source.pieces(ids)
    best = result.hypotheses[0][0]
    tokens = [*best.tokens, *([run.codecs.target.end] if best.ended else [])]
    return {
        "format": FORMAT,
        "task": "translation",
        "run": str(run.folder.path),
        "source_text": sentence,
        "source": source,
        "hypotheses": [_hypothesis(one) for one in found],
        "attention": attention_maps(run, torch.from_numpy(ids).long(), tokens),
        "tree": _tree(tree, run),
        "figures": {"beam": beam, "steps": result.steps[0], "steps_saved": result.steps_saved[0]},
    }


def _hypothesis(one: Translation) -> dict[str, Any]:
    kept = ("text", "symbols", "score", "log_probability", "token_log_probabilities")
    return {name: getattr(one, name) for name in kept}


def attention_maps(run: TranslationRun, source: Tensor, tokens: list[int]) -> list[dict[str, Any]]:
    """All attention of the model over a sentence and its translation.

    Args:
        run: a trained model.
        source: ids of the sentence.
        tokens: ids of the translation, the end symbol included.

    Returns:
        A map for each attention: name, symbols of its rows and columns, weights by head.
    """
    model, codecs = run.model, run.codecs
    batch = Padded(source.unsqueeze(0).to(model.device), torch.tensor([len(source)], device=model.device))
    read = [codecs.target.start, *tokens[:-1]]
    of_encoder, of_decoder = model.looks(batch, torch.tensor([read], device=model.device))
    sources, targets = codecs.source.pieces(source.tolist()), codecs.target.pieces(tokens)
    # Without an encoder the decoder's own columns begin with the source.
    columns = [*(sources if model.encoder is None else []), *codecs.target.pieces(read)]
    maps = [_map(f"encoder, layer {name}", sources, sources, look.own) for name, look in of_encoder.items()]
    for name, look in of_decoder.items():
        maps.append(_map(f"decoder, layer {name}, source", targets, sources, look.memory))
        maps.append(_map(f"decoder, layer {name}, target", targets, columns, look.own))
    return [one for one in maps if one is not None]


def _map(name: str, rows: list[str], columns: list[str], weights: Tensor | None) -> dict[str, Any] | None:
    if weights is None:
        return None
    return {"name": name, "rows": rows, "columns": columns, "weights": weights[0].float().tolist()}


def _tree(tree: BeamTree, run: TranslationRun) -> dict[str, Any]:
    """The tree by steps; what a node goes on from is named by its place among all nodes."""
    steps: dict[int, list[dict[str, Any]]] = {}
    for place, node in enumerate(tree.nodes):
        steps.setdefault(node.step, []).append(
            {
                "id": place,
                "parent": None if node.parent < 0 else node.parent,
                "symbol": run.codecs.target.pieces([node.token])[0],
                "log_probability": node.total,
                "score": node.score,
                "kept": node.fate is not Fate.DROPPED,
                "finished": node.fate is Fate.FINISHED,
            }
        )
    return {"steps": [steps[step] for step in sorted(steps)]}
