"""Greedy decoding and sampling: one token a row and step, from any stepper, reproducible from a generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from unrolled.core.errors import UserError
from unrolled.core.settings import Settings
from unrolled.core.state import State
from unrolled.decode.processors import MinP, Processor, RepetitionPenalty, Temperature, TopK, TopP
from unrolled.decode.stepper import Stepper, check_prompt, feed

Choose = Callable[[Tensor], Tensor]
"""Chooses tokens `[batch]` by their logits `[batch, vocab]`."""
LARGEST_SHARE = 1 - 1e-10
"""Below the rounded sum of any distribution, so that a uniform number always falls on a token."""


class SamplingOptions(Settings):
    """How the next token is drawn. The order: repetition penalty, temperature, top-k, top-p, min-p."""

    temperature: float = Field(1.0, ge=0)
    """Below 1 safer, above 1 bolder; 0 always takes the likeliest token."""
    top_k: int | None = Field(None, ge=1)
    """Draw among this many of the likeliest tokens only."""
    top_p: float | None = Field(None, ge=0, le=1)
    """Draw among the likeliest tokens that together have this probability (nucleus sampling)."""
    min_p: float | None = Field(None, ge=0, le=1)
    """Draw among tokens at least this many times as likely as the likeliest."""
    repetition_penalty: float = Field(1.0, gt=0)
    """Above 1, tokens that already occur in the text, the prompt included, become less likely."""
    length: int = Field(300, ge=0, le=10_000_000)
    """The most new tokens."""
    stop_ids: tuple[int, ...] = ()
    """Tokens after which a row ends."""

    def processors(self) -> tuple[Processor, ...]:
        """The processors these options ask for, in order; none for what would change nothing.

        Returns:
            Processors of logits.
        """
        chosen: list[Processor] = []
        if self.repetition_penalty != 1:
            chosen.append(RepetitionPenalty(self.repetition_penalty))
        if self.temperature == 0:  # What is left to ask for never rules the likeliest token out.
            return tuple(chosen)
        if self.temperature != 1:
            chosen.append(Temperature(self.temperature))
        if self.top_k is not None:
            chosen.append(TopK(self.top_k))
        if self.top_p is not None:
            chosen.append(TopP(self.top_p))
        if self.min_p is not None:
            chosen.append(MinP(self.min_p))
        return tuple(chosen)


def likeliest(logits: Float[Tensor, "batch vocab"]) -> Int[Tensor, " batch"]:
    """The token of the greatest logit; ties go to the lowest id.

    Args:
        logits: natural-log weights.

    Returns:
        One token a row.

    Raises:
        UserError: a row holds NaN, or rules every token out.
    """
    greatest, tokens = logits.max(-1)
    if not greatest.amin().item() > -torch.inf:
        raise UserError(why_nothing(logits))
    return tokens


def draw(logits: Float[Tensor, "batch vocab"], generator: torch.Generator) -> Int[Tensor, " batch"]:
    """One token a row with probability `softmax(logits)`.

    The inverse of the cumulated probabilities at one uniform number a row, in double precision: at 50,000 tokens five times as
    fast as `torch.multinomial` or the Gumbel trick, which need a random number for every token.

    Args:
        logits: natural-log weights.
        generator: gives one number a row.

    Returns:
        One token a row.

    Raises:
        UserError: a row holds NaN or +inf, or rules every token out.
    """
    batch, vocabulary_size = logits.shape
    cumulated = torch.softmax(logits, -1, dtype=torch.float64).cumsum(-1)
    shares = torch.empty((batch, 1), dtype=torch.float64, device=generator.device).uniform_(0, LARGEST_SHARE, generator=generator)
    # The first token whose cumulated probability is above the share: never one of probability 0. With a NaN there is none.
    tokens = torch.searchsorted(cumulated, shares.to(logits.device), right=True).squeeze(-1)
    if not (tokens if batch == 1 else tokens.max()).item() < vocabulary_size:
        raise UserError(why_nothing(logits))
    return tokens


def why_nothing(logits: Float[Tensor, "batch vocab"]) -> str:
    """The sentence for logits that no token can be chosen by.

    Args:
        logits: what was to be chosen by; at least one row cannot be.

    Returns:
        What must hold, what was found, what to try.
    """
    broken = "; the training of this model may have diverged, try an earlier checkpoint"
    if logits.isnan().any():
        return "the logits of a next token must be numbers, got NaN" + broken
    if logits.isposinf().any():
        return "the logits of a next token must be finite or -inf, got +inf" + broken
    return "the logits of a next token must leave at least one token, got -inf for all of them; forbid fewer tokens"


class SampleStream(Iterator[Tensor]):
    """Yields tokens `[batch]`, one a row, until every row has ended or `length` tokens were drawn.

    A row that drew a stop token has ended: it repeats that token, and `lengths` says how many of its tokens count.
    The model is run only when a token is asked for, under inference mode that ends before the token is handed over.
    """

    def __init__(  # Built by `sample` and `greedy`.
        self,
        stepper: Stepper,
        prompt: Int[Tensor, "batch time"],
        state: State,
        options: SamplingOptions,
        choose: Choose,
        processors: Sequence[Processor],
    ) -> None:
        """Begin a stream; nothing is run yet.

        Args:
            stepper: the model.
            prompt: what is read first.
            state: the state before the prompt; `None` starts a language model afresh.
            options: how many tokens and which ones end a row.
            choose: from logits to tokens.
            processors: applied to the logits in turn.
        """
        check_prompt(prompt, stepper.vocabulary_size)
        batch, self._prompt_time = prompt.shape
        self._stepper, self._state, self._choose, self._processors = stepper, state, choose, tuple(processors)
        self._time, self._end = self._prompt_time, self._prompt_time + options.length
        self._history = torch.cat([prompt.long(), prompt.new_zeros((batch, options.length), dtype=torch.long)], 1)
        self._last = self._history[:, -1]
        self._stop_ids, self._ended = frozenset(options.stop_ids), 0
        self._lengths = torch.zeros(batch, dtype=torch.long, device=prompt.device)
        self._finished = torch.zeros(batch, dtype=torch.bool, device=prompt.device)
        self._over = batch == 0

    @property
    def finished(self) -> Bool[Tensor, " batch"]:
        """True for rows that drew a stop token."""
        return self._finished.clone()

    @property
    def lengths(self) -> Int[Tensor, " batch"]:
        """How many tokens each row has drawn so far, its stop token included."""
        return torch.where(self._finished, self._lengths, self._time - self._prompt_time)

    def __next__(self) -> Int[Tensor, " batch"]:
        """Draw the next token of every row.

        Returns:
            One token a row, an ordinary tensor of its own.

        Raises:
            StopIteration: every row has ended, or the length is reached.
        """
        if self._over or self._time == self._end:
            raise StopIteration
        with torch.inference_mode():
            logits = self._read_on()
            for process in self._processors:
                logits = process(logits, self._history.narrow(1, 0, self._time))
            self._record(self._choose(logits))
        return self._last.clone()

    def _read_on(self) -> Tensor:
        """Let the model read what it has not read: the prompt, then the token drawn last."""
        if self._time == self._prompt_time:
            prompt = self._history[:, : self._time]
            start = self._stepper.start(len(prompt)) if self._state is None else self._state
            logits, self._state = feed(self._stepper, prompt, start)
        else:
            logits, self._state = self._stepper.step(self._last, self._state)
        return logits

    def _record(self, tokens: Tensor) -> None:
        self._last = self._end_rows(tokens) if self._stop_ids else tokens
        self._history[:, self._time] = self._last
        self._time += 1

    def _end_rows(self, tokens: Tensor) -> Tensor:
        """Let ended rows repeat their stop token, and see which rows end now."""
        if self._ended:
            tokens = torch.where(self._finished, self._last, tokens)
        stopped = [token in self._stop_ids for token in tokens.tolist()]
        if sum(stopped) > self._ended:
            self._ended = sum(stopped)
            self._lengths = torch.where(self._finished, self._lengths, self._time + 1 - self._prompt_time)
            self._finished = torch.tensor(stopped, device=tokens.device)
            self._over = all(stopped)
        return tokens


def sample(
    stepper: Stepper,
    prompt: Int[Tensor, "batch time"],
    options: SamplingOptions,
    generator: torch.Generator,
    *,
    state: State = None,
    processors: Sequence[Processor] = (),
) -> SampleStream:
    """Continue every row of `prompt`; n samples of one prompt are n equal rows.

    Args:
        stepper: the model.
        prompt: ids, at least one column.
        options: how to draw, how many, what ends a row.
        generator: the only source of chance: the same seed gives the same tokens, read at once or one by one.
        state: the state before the prompt, where it is not the start of a language model.
        processors: your own, applied before those of `options`.

    Returns:
        An iterator of tokens `[batch]`, with `finished` and `lengths` by row.
    """
    choose = likeliest if options.temperature == 0 else partial(draw, generator=generator)
    return SampleStream(stepper, prompt, state, options, choose, (*processors, *options.processors()))


def greedy(
    stepper: Stepper,
    prompt: Int[Tensor, "batch time"],
    options: SamplingOptions,
    *,
    state: State = None,
    processors: Sequence[Processor] = (),
) -> SampleStream:
    """Continue every row with the likeliest token at each step: `sample` at temperature 0, without a generator.

    Args:
        stepper: the model.
        prompt: ids, at least one column.
        options: repetition penalty, length and stop ids count; temperature and filters do not.
        state: the state before the prompt, where it is not the start of a language model.
        processors: your own, applied first.

    Returns:
        An iterator of tokens `[batch]`, with `finished` and `lengths` by row.
    """
    cold = options.model_copy(update={"temperature": 0.0})
    return SampleStream(stepper, prompt, state, cold, likeliest, (*processors, *cold.processors()))
