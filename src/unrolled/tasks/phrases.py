"""What is asked of the words of a translation: how it begins, what it must contain, what it must not."""

from __future__ import annotations

import re

import torch

from unrolled.core.errors import ConfigurationError
from unrolled.data.sentences import SentenceCodec, is_letter
from unrolled.decode.forbidding import ForbidBeginnings, ForbidWords
from unrolled.decode.phrases import Borders, Wording
from unrolled.decode.processors import Processor
from unrolled.tasks.translation_request import TranslationRequest, read_terms


class Wishes:
    """The phrases of a request in the symbols of the target, as its vocabulary cuts them."""

    def __init__(self, target: SentenceCodec, request: TranslationRequest) -> None:
        """Read what is asked for.

        Args:
            target: the vocabulary of the translations.
            request: how sentences are translated.
        """
        self.target = target
        asks = request.prefix or request.require or request.forbid or request.terminology
        self.borders = Borders(*map(torch.from_numpy, target.borders())) if asks else None
        self.prefix = list(self._spelling(request.prefix, "prefix")) if request.prefix else []
        self.required = [self.wording(phrase, "require") for phrase in request.require]
        self.forbidden = [self.wording(phrase, "forbid") for phrase in request.forbid]
        self.terms = [(whole_words(source), phrase) for source, phrase in read_terms(request.terminology)]
        # One hypothesis, or what is drawn, cannot take a word back: there its beginning is forbidden.
        self.early = request.sampling or request.beam == 1

    def of(self, sentence: str) -> list[Wording]:
        """The phrases that the translation of a sentence must contain.

        Args:
            sentence: the source.

        Returns:
            Those that all must contain, then those of its terms.
        """
        return self.required + [self.wording(phrase, "terminology") for source, phrase in self.terms if source.search(sentence)]

    def processors(self) -> list[Processor]:
        """What keeps forbidden phrases out.

        Returns:
            Processors of the logits.
        """
        late = tuple(one for one in self.forbidden if one.whole and not self.early)
        at_once = tuple(one for one in self.forbidden if self.early or not one.whole)
        found: list[Processor] = [ForbidBeginnings(at_once)] if at_once else []
        return [*found, ForbidWords(late, self.target.end)] if late else found

    def wording(self, phrase: str, option: str) -> Wording:
        """The ways to spell a phrase: as it is, where a word may begin, and with a space before it.

        Where it begins or ends with no letter, anything may stand beside it.

        Args:
            phrase: some words.
            option: what they were given as.

        Returns:
            The spellings.
        """
        phrase = phrase.strip()
        plain, spaced = self._spelling(phrase, option), tuple(int(i) for i in self.target.encode(" " + phrase))
        if plain == spaced:  # words, which have borders on both sides anyway
            return Wording((plain,))
        known = () if self.target.unknown in spaced else (spaced,)
        opening = is_letter(phrase[0])
        return Wording(known if opening else (plain, *known), (plain,) if opening else (), is_letter(phrase[-1]), self.borders)

    def _spelling(self, phrase: str, option: str) -> tuple[int, ...]:
        ids = tuple(int(i) for i in self.target.encode(phrase))
        if not ids or self.target.unknown in ids:
            raise ConfigurationError(f"`{option}` must be made of symbols of the target vocabulary, got `{phrase}`; try other words")
        return ids


def whole_words(phrase: str) -> re.Pattern[str]:
    """What finds a phrase in a text; where it begins or ends with no letter, anything may stand beside it.

    Args:
        phrase: some words.

    Returns:
        A pattern to search with.
    """
    before, behind = (edge if is_letter(letter) else "" for edge, letter in ((r"(?<!\w)", phrase[0]), (r"(?!\w)", phrase[-1])))
    return re.compile(before + re.escape(phrase) + behind)
