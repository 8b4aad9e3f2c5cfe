"""Text from a language model: requests, streams with stop strings, several samples at once."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import Field

from unrolled.data import Tokenizer
from unrolled.decode.sampling import SamplingOptions, sample
from unrolled.decode.stops import StopStrings
from unrolled.models.language_model import LanguageModel
from unrolled.models.stepper import LanguageModelStepper
from unrolled.tasks.language_model_data import start_id


class SampleRequest(SamplingOptions):
    """What is asked of a language model: how symbols are drawn, and the text around them."""

    prompt: str = ""
    """What the text begins with; a line break (or the vocabulary's first symbol) is read when empty."""
    stop: tuple[str, ...] = ()
    """The text ends before any of these."""
    seed: int | None = Field(None, ge=0, lt=2**63)
    """The same seed gives the same text; another text every time when `None`."""
    samples: int = Field(1, ge=1, le=10_000)
    """How many texts."""


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
    writer = Writer(tokenizer, ids, request)
    yield request.prompt
    for tokens in _draw(model, ids, request, 1):
        piece = writer.push(int(tokens[0]))
        if piece:
            yield piece
        if writer.stopped:
            return
    yield writer.finish()


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
    writers = [Writer(tokenizer, ids, request) for _ in range(request.samples)]
    texts = [request.prompt] * request.samples
    for tokens in _draw(model, ids, request, request.samples):
        for row, token in enumerate(tokens.tolist()):
            if not writers[row].stopped:
                texts[row] += writers[row].push(token)
        if all(writer.stopped for writer in writers):
            break
    return [text + writer.finish() for text, writer in zip(texts, writers, strict=True)]


class Writer:
    """Turns the symbols of one text into text that may be printed, and knows when it has ended."""

    def __init__(self, tokenizer: Tokenizer, prompt: list[int], request: SampleRequest) -> None:
        self.decoder, self.stops = tokenizer.decoder(), StopStrings(request.stop)
        if request.prompt:
            for token in prompt:  # so that the first new word knows whether a space comes before it
                self.decoder.push(token)

    @property
    def stopped(self) -> bool:
        """Whether a stop string has come."""
        return self.stops.finished

    def push(self, token: int) -> str:
        """One more symbol.

        Args:
            token: its id.

        Returns:
            What may be printed now.
        """
        return self.stops.push(self.decoder.push(token))

    def finish(self) -> str:
        """The end of the text.

        Returns:
            What was held back.
        """
        return "" if self.stopped else self.stops.push(self.decoder.finish()) + self.stops.flush()


def _draw(model: LanguageModel, ids: list[int], request: SampleRequest, rows: int) -> Iterator[torch.Tensor]:
    generator = torch.Generator()  # of the processor, so that a seed draws the same wherever the model computes
    if request.seed is None:
        generator.seed()
    else:
        generator.manual_seed(request.seed)
    prompt = torch.tensor([ids] * rows, device=model.device)
    return sample(LanguageModelStepper(model), prompt, request, generator)
