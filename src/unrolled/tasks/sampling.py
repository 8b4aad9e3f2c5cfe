"""Text from a language model: requests, streams with stop strings, several samples at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from pydantic import Field

from unrolled.core.settings import Settings, resolve
from unrolled.data import Tokenizer
from unrolled.decode.sampling import SamplingOptions, sample
from unrolled.decode.stops import StopStrings
from unrolled.models.language_model import LanguageModel
from unrolled.models.stepper import LanguageModelStepper, device_of
from unrolled.tasks.language_model_data import start_id


class SampleRequest(Settings):
    """What is asked of a language model."""

    prompt: str = ""
    """What the text begins with; a line break (or the vocabulary's first symbol) when empty."""
    length: int = Field(300, ge=0)
    """The most new symbols."""
    temperature: float = Field(1.0, ge=0)
    """Below 1 safer, above 1 bolder; 0 always takes the likeliest symbol."""
    top_k: int | None = Field(None, ge=1)
    """Draw among this many of the likeliest symbols only."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Draw among the likeliest symbols that together have this probability."""
    min_p: float | None = Field(None, ge=0, le=1)
    """Draw among symbols at least this share as likely as the likeliest."""
    repetition_penalty: float = Field(1.0, gt=0)
    """Above 1, symbols that already occur in the text become less likely."""
    stop: tuple[str, ...] = ()
    """The text ends before any of these."""
    seed: int | None = Field(None, ge=0)
    """The same seed gives the same text; another text every time when `None`."""
    samples: int = Field(1, ge=1)
    """How many texts."""

    def options(self) -> SamplingOptions:
        """The part that decoding needs.

        Returns:
            Sampling options.
        """
        shared = SamplingOptions.model_fields.keys() & type(self).model_fields.keys()
        return SamplingOptions(**self.model_dump(include=set(shared)))


def ask(kind: type[SampleRequest], **wishes: Any) -> SampleRequest:
    """A request from keywords, with one clear sentence for what cannot be.

    Args:
        kind: the class of the request.
        wishes: its fields.

    Returns:
        The request.
    """
    return resolve(kind, wishes)


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The symbols that are read first; a model must read something before it can write.

    Args:
        tokenizer: of the model.
        prompt: a text, may be empty.

    Returns:
        At least one id.
    """
    return [int(i) for i in tokenizer.encode(prompt)] if prompt else [start_id(tokenizer)]


def stream_text(model: LanguageModel, tokenizer: Tokenizer, request: SampleRequest) -> Iterator[str]:
    """One text in pieces as they are made, the prompt first.

    Args:
        model: in evaluation mode.
        tokenizer: of the model.
        request: what is asked.

    Yields:
        Pieces of text.
    """
    ids = prompt_ids(tokenizer, request.prompt)
    decoder, stops = tokenizer.decoder(), StopStrings(request.stop)
    said = "".join(decoder.push(i) for i in ids) if request.prompt else ""
    yield said
    for tokens in _draw(model, ids, request, 1):
        piece = stops.push(decoder.push(int(tokens[0])))
        if piece:
            yield piece
        if stops.finished:
            return
    yield stops.push(decoder.finish()) + stops.flush()


def sample_texts(model: LanguageModel, tokenizer: Tokenizer, request: SampleRequest) -> list[str]:
    """Several texts of the same prompt, drawn side by side.

    Args:
        model: in evaluation mode.
        tokenizer: of the model.
        request: what is asked.

    Returns:
        As many texts as were asked for, each with the prompt.
    """
    ids = prompt_ids(tokenizer, request.prompt)
    rows = list(_draw(model, ids, request, request.samples))
    drawn = torch.stack(rows, 1).tolist() if rows else [[] for _ in range(request.samples)]
    return ["".join(_cut(tokenizer, ids, row, request)) for row in drawn]


def _cut(tokenizer: Tokenizer, ids: list[int], drawn: list[int], request: SampleRequest) -> Iterator[str]:
    decoder, stops = tokenizer.decoder(), StopStrings(request.stop)
    said = "".join(decoder.push(i) for i in ids)
    yield said if request.prompt else ""
    for token in drawn:
        yield stops.push(decoder.push(token))
        if stops.finished:
            return
    yield stops.push(decoder.finish()) + stops.flush()


def _draw(model: LanguageModel, ids: list[int], request: SampleRequest, rows: int) -> Iterator[torch.Tensor]:
    device = device_of(model)
    generator = torch.Generator(device)
    if request.seed is None:
        generator.seed()
    else:
        generator.manual_seed(request.seed)
    prompt = torch.tensor([ids] * rows, device=device)
    return sample(LanguageModelStepper(model), prompt, request.options(), generator)
