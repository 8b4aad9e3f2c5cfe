"""What outputs must not contain: phrases in all of their spellings, as whole words where that is asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrolled.decode.phrases import Borders, Run, Wording
from unrolled.decode.processors import NEVER, rule_out


class Ban(ABC):
    """A processor that beam search applies to log-probabilities: what it rules out is not shared out among the rest.

    So that a hypothesis which a ban leaves only unlikely ways to go on pays for them, and others overtake it.
    """

    @abstractmethod
    def __call__(self, logits: Float[Tensor, "batch vocab"], history: Int[Tensor, "batch time"]) -> Float[Tensor, "batch vocab"]:
        """Rule out.

        Args:
            logits: log-probabilities of the next token; not changed in place.
            history: every token so far, the start symbol first.

        Returns:
            The same, -inf for what must not come.
        """


@final
@dataclass(frozen=True, eq=False)
class ForbidWords(Ban):
    """Phrases that never stand as whole words: behind all of their tokens the word must go on.

    That is seen one token late, which a search can make good and a draw cannot: `ForbidBeginnings` is for draws.
    """

    wordings: tuple[Wording, ...]
    """All of them `whole`, with borders."""
    end: int
    """The end symbol."""

    def __call__(self, logits: Float[Tensor, "batch vocab"], history: Int[Tensor, "batch time"]) -> Float[Tensor, "batch vocab"]:
        """Rule out the end, and all tokens before which a word has ended, where the history ends with a phrase.

        Args:
            logits: log-probabilities.
            history: every token so far.

        Returns:
            New log-probabilities.
        """
        for wording in self.wordings:
            assert wording.borders is not None
            stands = torch.cat([_ends_with(history, wording.anywhere, None), _ends_with(history, wording.opening, wording.borders)], 1)
            closing = wording.borders.closes.index_fill(0, torch.tensor(self.end), True).to(logits.device)
            logits = logits.masked_fill(stands.any(1, keepdim=True) & closing, NEVER)
        return logits


@final
@dataclass(frozen=True, eq=False)
class ForbidBeginnings:
    """Phrases that never come, nor any word that begins with one: the last token of each spelling is ruled out behind all before it."""

    wordings: tuple[Wording, ...]

    def __call__(self, logits: Float[Tensor, "batch vocab"], history: Int[Tensor, "batch time"]) -> Float[Tensor, "batch vocab"]:
        """Rule out what would complete a phrase.

        Args:
            logits: natural-log weights.
            history: every token so far, the start symbol first.

        Returns:
            New logits.
        """
        for wording in self.wordings:
            for runs, borders in ((wording.anywhere, None), (wording.opening, wording.borders)):
                if runs:
                    last = torch.tensor([run[-1] for run in runs], device=logits.device).expand(len(history), -1)
                    logits = rule_out(logits, last, _ends_with(history, [run[:-1] for run in runs], borders))
        return logits


def _ends_with(history: Int[Tensor, "batch time"], runs: Sequence[Run], borders: Borders | None) -> Bool[Tensor, "batch runs"]:
    """Which runs each row ends with; with `borders`, only behind a token that opens."""
    time, found = history.shape[1], []
    for run in runs:
        first = time - len(run)
        if first < (borders is not None):
            found.append(history.new_zeros(len(history), dtype=torch.bool))
            continue
        stands = (history[:, first:] == torch.tensor(run, dtype=history.dtype, device=history.device)).all(1)
        if borders is not None:
            stands &= borders.opens.to(history.device)[history[:, first - 1]]
        found.append(stands)
    return torch.stack(found, 1) if found else history.new_zeros((len(history), 0), dtype=torch.bool)
