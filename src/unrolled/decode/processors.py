"""Logits processors: each maps the logits of the next token, given what was read so far, to logits that are sampled from.

What is ruled out becomes -inf; what is left stays as it was, up to a scale. At least one token of a row is always left
(save by `Forbid`, which does what it is told). A NaN is never ruled out, so that the sampler that follows sees and reports it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrolled.core.errors import ConfigurationError

NEVER = -math.inf
"""The logit of a token that has no probability."""
SAFE_TEMPERATURE = 1e-3
"""Above it no logit that a model can have overflows when divided."""


@runtime_checkable
class Processor(Protocol):
    """Any callable of this form is a processor."""

    def __call__(self, logits: Float[Tensor, "batch vocab"], history: Int[Tensor, "batch time"]) -> Float[Tensor, "batch vocab"]:
        """Change the distribution of the next token.

        Args:
            logits: natural-log weights of the next token; not changed in place.
            history: every token so far, the prompt included.

        Returns:
            New logits.
        """


@dataclass(frozen=True)
class Temperature:
    """`logits / value` (Ackley, Hinton & Sejnowski 1985): below 1 sharper, above 1 flatter; 0 is the limit, all on the greatest logit.

    Where a quotient could overflow, the greatest logit of the row is taken off first. Ties at 0 go to the lowest id.
    """

    value: float

    def __post_init__(self) -> None:
        """Refuse what is no temperature.

        Raises:
            ConfigurationError: negative, infinite or NaN.
        """
        if not 0 <= self.value < math.inf:
            raise ConfigurationError(f"`temperature` must be 0 or more and finite, got {self.value}; 0 always takes the likeliest token")

    def __call__(self, logits: Float[Tensor, "batch vocab"], history: Int[Tensor, "batch time"]) -> Float[Tensor, "batch vocab"]:
        """Scale.

        Args:
            logits: natural-log weights.
            history: not used.

        Returns:
            New logits; at temperature 0 the greatest of a row is as it was and all others are -inf.
        """
        if self.value == 0:
            greatest, at = logits.max(-1, keepdim=True)
            return torch.full_like(logits, NEVER).scatter_(-1, at, greatest)
        if self.value > SAFE_TEMPERATURE:
            return logits / self.value
        limits = torch.finfo(logits.dtype)
        greatest = logits.amax(-1, keepdim=True).clamp_(limits.min, limits.max)  # inf - inf would be NaN
        return (logits - greatest).div_(max(self.value, limits.tiny))  # so would 0/0


@dataclass(frozen=True)
class TopK:
    """Only the `k` greatest logits (Fan, Lewis & Dauphin 2018, section 5.1); more than there are is all; ties go to the lowest ids."""

    k: int

    def __post_init__(self) -> None:
        """Refuse to keep nothing.

        Raises:
            ConfigurationError: below 1.
        """
        if self.k < 1:
            raise ConfigurationError(f"`top_k` must be 1 or more, got {self.k}; leave it out to keep every token")

    def __call__(self, logits: Float[Tensor, "batch vocab"], history: Int[Tensor, "batch time"]) -> Float[Tensor, "batch vocab"]:
        """Rule out all but `k`.

        Args:
            logits: natural-log weights.
            history: not used.

        Returns:
            New logits, exactly `min(k, vocab)` of a row kept.
        """
        if self.k >= logits.shape[-1]:
            return logits
        kth = logits.topk(self.k, -1, sorted=False).values.amin(-1, keepdim=True)
        tied = logits == kth
        room = self.k - (logits > kth).sum(-1, keepdim=True)
        return logits.masked_fill((logits < kth) | (tied & (tied.cumsum(-1) > room)), NEVER)


@dataclass(frozen=True)
class TopP:
    """Nucleus sampling (Holtzman et al. 2020, eq. 2–3): the fewest likeliest tokens whose probabilities sum to `p` or more.

    A token is kept while the tokens likelier than it sum to less than `p`: the first always is. Ties go to the lowest ids.
    """

    p: float

    def __post_init__(self) -> None:
        """Refuse what is no share.

        Raises:
            ConfigurationError: outside 0..1, or NaN.
        """
        if not 0 <= self.p <= 1:
            raise ConfigurationError(f"`top_p` must lie in 0..1, got {self.p}; 1 keeps every token")

    def __call__(self, logits: Float[Tensor, "batch vocab"], history: Int[Tensor, "batch time"]) -> Float[Tensor, "batch vocab"]:
        """Rule out the tail.

        Args:
            logits: natural-log weights.
            history: not used.

        Returns:
            New logits.
        """
        if self.p == 1:  # Rounded sums may reach 1 before the last token.
            return logits
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        probability = torch.softmax(ordered, -1, dtype=torch.float64)
        likelier = probability.cumsum(-1).sub_(probability)
        beyond = likelier >= self.p
        beyond[:, :1] = False  # p = 0
        return logits.masked_fill(beyond.scatter(-1, order, beyond), NEVER)


@dataclass(frozen=True)
class MinP:
    """Min-p sampling (Nguyen et al. 2024, eq. 1–2): tokens at least `p` times as likely as the likeliest, `logit ≥ greatest + ln p`."""

    p: float

    def __post_init__(self) -> None:
        """Refuse what is no share.

        Raises:
            ConfigurationError: outside 0..1, or NaN.
        """
        if not 0 <= self.p <= 1:
            raise ConfigurationError(f"`min_p` must lie in 0..1, got {self.p}; 0 keeps every token")

    def __call__(self, logits: Float[Tensor, "batch vocab"], history: Int[Tensor, "batch time"]) -> Float[Tensor, "batch vocab"]:
        """Rule out what is far below the likeliest.

        Args:
            logits: natural-log weights.
            history: not used.

        Returns:
            New logits.
        """
        if self.p == 0:
            return logits
        least = logits.amax(-1, keepdim=True) + math.log(self.p)
        return logits.masked_fill(logits < least, NEVER)


@dataclass(frozen=True)
class RepetitionPenalty:
    """Penalised sampling (Keskar et al. 2019, CTRL, section 4.1): tokens seen before become less likely, once however often seen.

    The variant in general use: positive logits are divided by the penalty and negative ones multiplied, so that both fall.
    The whole history counts, the prompt included. Below 1 repetition is encouraged.
    """

    penalty: float

    def __post_init__(self) -> None:
        """Refuse what is no factor.

        Raises:
            ConfigurationError: not positive and finite.
        """
        if not 0 < self.penalty < math.inf:
            raise ConfigurationError(f"`repetition_penalty` must be above 0 and finite, got {self.penalty}; 1 changes nothing")

    def __call__(self, logits: Float[Tensor, "batch vocab"], history: Int[Tensor, "batch time"]) -> Float[Tensor, "batch vocab"]:
        """Lower what was seen.

        Args:
            logits: natural-log weights.
            history: every token so far.

        Returns:
            New logits.
        """
        seen = logits.gather(-1, history)
        return logits.scatter(-1, history, torch.where(seen > 0, seen / self.penalty, seen * self.penalty))


@dataclass(frozen=True)
class Forbid:
    """Tokens that never come (an unknown-symbol token, an end symbol that shall not end)."""

    ids: tuple[int, ...]

    def __call__(self, logits: Float[Tensor, "batch vocab"], history: Int[Tensor, "batch time"]) -> Float[Tensor, "batch vocab"]:
        """Rule out.

        Args:
            logits: natural-log weights.
            history: not used.

        Returns:
            New logits.

        Raises:
            ConfigurationError: an id outside the vocabulary.
        """
        vocabulary_size = logits.shape[-1]
        outside = [token for token in self.ids if not 0 <= token < vocabulary_size]
        if outside:
            raise ConfigurationError(f"forbidden ids must lie in 0..{vocabulary_size - 1} (the vocabulary), got {outside[0]}")
        return logits.index_fill(-1, torch.tensor(self.ids, dtype=torch.long, device=logits.device), NEVER)


@dataclass(frozen=True)
class NoRepeatNgram:
    """No run of `size` tokens comes twice (Paulus, Xiong & Socher 2018, section 2.5, for trigrams): a token that would complete one is ruled out.

    The whole history counts, the prompt or start symbol included.
    """

    size: int

    def __post_init__(self) -> None:
        """Refuse runs of nothing.

        Raises:
            ConfigurationError: below 1.
        """
        if self.size < 1:
            raise ConfigurationError(f"`no_repeat_ngram` must be 1 or more, got {self.size}; leave it out to allow repetition")

    def __call__(self, logits: Float[Tensor, "batch vocab"], history: Int[Tensor, "batch time"]) -> Float[Tensor, "batch vocab"]:
        """Rule out what would repeat.

        Args:
            logits: natural-log weights.
            history: every token so far.

        Returns:
            New logits.
        """
        context = self.size - 1
        time = history.shape[1]
        if time <= context:
            return logits
        # Windows of `context` tokens and the token that followed each; the last window is what is being continued.
        following = history[:, context:]
        if context == 0:
            return logits.scatter(-1, following, NEVER)
        windows = history.unfold(1, context, 1)
        repeats = (windows[:, :-1] == windows[:, -1:]).all(-1)
        return rule_out(logits, following, repeats)


@dataclass(frozen=True)
class MinimumLength:
    """The tokens `ids` (end symbols) do not come before `length` others have followed the prompt."""

    length: int
    ids: tuple[int, ...]
    prompt_length: int = 1
    """Columns of the history that are not counted: a start symbol is one."""

    def __post_init__(self) -> None:
        """Refuse what is no length.

        Raises:
            ConfigurationError: below 0.
        """
        if self.length < 0 or self.prompt_length < 0:
            found = min(self.length, self.prompt_length)
            raise ConfigurationError(f"a minimum length and the length of its prompt must be 0 or more, got {found}")

    def __call__(self, logits: Float[Tensor, "batch vocab"], history: Int[Tensor, "batch time"]) -> Float[Tensor, "batch vocab"]:
        """Rule the ids out while the text is too short.

        Args:
            logits: natural-log weights.
            history: every token so far.

        Returns:
            New logits.
        """
        if history.shape[1] - self.prompt_length >= self.length:
            return logits
        return Forbid(self.ids)(logits, history)


@dataclass(frozen=True)
class ForbidPhrases:
    """Runs of tokens that never come: the last token of a phrase is ruled out where the history ends with all before it."""

    phrases: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        """Refuse a phrase of nothing.

        Raises:
            ConfigurationError: an empty phrase.
        """
        if () in self.phrases:
            raise ConfigurationError("a forbidden phrase must have at least one token, got an empty one")

    def __call__(self, logits: Float[Tensor, "batch vocab"], history: Int[Tensor, "batch time"]) -> Float[Tensor, "batch vocab"]:
        """Rule out what would complete a phrase.

        Args:
            logits: natural-log weights.
            history: every token so far.

        Returns:
            New logits.

        Raises:
            ConfigurationError: an id outside the vocabulary.
        """
        vocabulary_size = logits.shape[-1]
        outside = [token for phrase in self.phrases for token in phrase if not 0 <= token < vocabulary_size]
        if outside:
            raise ConfigurationError(f"forbidden phrases must hold ids in 0..{vocabulary_size - 1} (the vocabulary), got {outside[0]}")
        for length in sorted({len(phrase) for phrase in self.phrases}):
            last = tuple(phrase[-1] for phrase in self.phrases if len(phrase) == length)
            if length == 1:
                logits = Forbid(last)(logits, history)
            elif length <= history.shape[1] + 1:
                before = torch.tensor([p[:-1] for p in self.phrases if len(p) == length], device=history.device)
                completes = (history[:, None, 1 - length :] == before).all(-1)
                logits = rule_out(logits, torch.tensor(last, device=history.device).expand(len(history), -1), completes)
        return logits


def rule_out(
    logits: Float[Tensor, "batch vocab"], tokens: Int[Tensor, "batch some"], where: Bool[Tensor, "batch some"]
) -> Float[Tensor, "batch vocab"]:
    """-inf for some tokens.

    Args:
        logits: natural-log weights.
        tokens: of each row; one may stand there several times.
        where: which of them are ruled out.

    Returns:
        New logits.
    """
    return logits.scatter_reduce(-1, tokens, torch.where(where, NEVER, math.inf).to(logits.dtype), "amin")
