"""Sentences in, sentences out: how a trained encoder–decoder, or several together, translate."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrolled.core.errors import ConfigurationError
from unrolled.core.padded import Padded
from unrolled.core.state import State
from unrolled.data.batches import evaluation_batches, padded_ids
from unrolled.data.sentences import SentenceCodec
from unrolled.decode.beam import BeamOptions, beam_search
from unrolled.decode.ensemble import Ensemble
from unrolled.decode.hypotheses import Hypothesis
from unrolled.decode.processors import ForbidPhrases, MinimumLength, NoRepeatNgram, Processor
from unrolled.decode.sampling import SamplingOptions, sample
from unrolled.decode.stepper import Aligns, Stepper
from unrolled.models.encoder_decoder import EncoderDecoder
from unrolled.models.stepper import stepper_of
from unrolled.tasks.alignment import Link, word_alignment, words_of_source, words_of_target
from unrolled.tasks.translation_data import Codecs
from unrolled.tasks.translation_request import Found, Translation, TranslationRequest, empty, read_terms

LINES_AT_ONCE = 1024
"""Sentences that are read before the first of them is put out: sorted by length they go faster than one by one."""

Term = tuple[re.Pattern[str], str]
"""What finds a term in a source, and what it must become."""


class Voice(NamedTuple):
    """One model with its vocabularies."""

    model: EncoderDecoder
    codecs: Codecs


class Translator:
    """Translates with one model or with several together, whose source vocabularies may differ."""

    def __init__(self, voices: Sequence[Voice]) -> None:
        """Put models together.

        Args:
            voices: at least one.

        Raises:
            ConfigurationError: their target vocabularies differ.
        """
        self.voices = list(voices)
        first = self.voices[0].codecs.target
        for voice in self.voices[1:]:
            if voice.codecs.target.digest() != first.digest():
                raise ConfigurationError(
                    "models that translate together must have the same target vocabulary; train them from the same one"
                )
        self.target: SentenceCodec = first
        steppers: list[Stepper] = [stepper_of(voice.model) for voice in self.voices]
        self.stepper: Stepper = steppers[0] if len(steppers) == 1 else Ensemble(steppers)
        self.device = self.voices[0].model.device

    def translate(self, sentences: Sequence[str], request: TranslationRequest) -> list[list[Translation]]:
        """Translate sentences, those of a length together; the order is kept.

        Args:
            sentences: one line of text each; an empty one has an empty translation.
            request: how.

        Returns:
            Translations by sentence, best first.
        """
        return self.search(sentences, request).translations

    def search(self, sentences: Sequence[str], request: TranslationRequest) -> Found:
        """The same, with what it took.

        Args:
            sentences: one line of text each.
            request: how.

        Returns:
            Translations and steps.
        """
        encoded = [voice.codecs.source.encode_all(sentences) for voice in self.voices]
        counted = [[len(ids) for ids in member] for member in encoded]
        lengths = np.array(counted, dtype=np.int64).reshape(len(encoded), len(sentences))
        found: list[list[Translation]] = [[empty()] for _ in sentences]
        steps = saved = 0
        real = np.flatnonzero(lengths.min(0) > 0) if len(sentences) else np.array([], dtype=np.int64)
        terms = [(_whole_words(source), target) for source, target in read_terms(request.terminology)]
        per_batch = max(1, request.batch_tokens)
        for rows in evaluation_batches([lengths.max(0)[real]], per_batch).batches:
            chosen = real[rows]
            batch = [sentences[i] for i in chosen]
            sources = [[member[i] for i in chosen] for member in encoded]
            done = self._sample(batch, sources, request) if request.sampling else self._batch(batch, sources, request, terms)
            for place, translations in zip(chosen, done.translations, strict=True):
                found[place] = translations
            steps, saved = steps + done.steps, saved + done.steps_saved
        return Found(found, steps, saved)

    def stream(self, lines: Iterable[str], request: TranslationRequest, at_once: int = LINES_AT_ONCE) -> Iterator[list[Translation]]:
        """Translate as many lines as come, some at a time.

        Args:
            lines: sentences, with or without their line breaks.
            request: how.
            at_once: lines that are read before the first is put out; more go faster, 1 answers every line.

        Yields:
            The translations of each line, in order.
        """
        held: list[str] = []
        for line in lines:
            held.append(line.rstrip("\r\n"))
            if len(held) == at_once:
                yield from self.translate(held, request)
                held = []
        yield from self.translate(held, request)

    def start(self, sources: Sequence[Sequence[np.ndarray]]) -> State:
        """The state before the first target symbol.

        Args:
            sources: ids of each sentence, by model.

        Returns:
            The state of the stepper.
        """
        padded = [padded_ids(member) for member in sources]
        moved = [Padded(one.data.to(self.device), one.lengths.to(self.device)) for one in padded]
        with torch.inference_mode():
            return self.stepper.start(moved[0] if len(moved) == 1 else moved)

    def options(self, request: TranslationRequest) -> BeamOptions:
        """What beam search is asked for.

        Args:
            request: how sentences are translated.

        Returns:
            The numbers of the search.

        Raises:
            ConfigurationError: alignments of models that read other symbols.
        """
        shared = ("beam", "n_best", "normalisation", "alpha", "coverage", "min_length", "no_repeat_ngram", "early_stopping")
        numbers = {name: getattr(request, name) for name in shared}
        looks = (request.alignments or request.replace_unknowns) and isinstance(self.stepper, Aligns)
        if (looks or request.coverage) and len({voice.codecs.source.digest() for voice in self.voices}) > 1:
            raise ConfigurationError(
                "models with different source vocabularies have no alignment together; leave alignments and coverage out"
            )
        return BeamOptions(start=self.target.start, end=self.target.end, alignments=looks, **numbers)

    def processors(self, request: TranslationRequest) -> list[Processor]:
        """What is never written.

        Args:
            request: how sentences are translated.

        Returns:
            Processors of the logits.
        """
        forbidden: list[tuple[int, ...]] = []
        for phrase in request.forbid:
            plain, inside = self.forms(phrase, "forbid")
            # Behind the start symbol stands the beginning of a sentence, where no space comes before a word.
            forbidden += [inside] if plain == inside else [inside, (self.target.start, *plain)]
        return [ForbidPhrases(tuple(forbidden))] if forbidden else []

    def forms(self, phrase: str, option: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids of a phrase at the beginning of a sentence and inside one, where a space comes before it.

        Args:
            phrase: some words.
            option: what they were given as.

        Returns:
            Both; the same twice for words.

        Raises:
            ConfigurationError: nothing, or a symbol that the target vocabulary does not have.
        """
        plain, inside = (tuple(int(i) for i in self.target.encode(text)) for text in (phrase, " " + phrase))
        if not plain or self.target.unknown in (*plain, *inside):
            raise ConfigurationError(f"`{option}` must be made of symbols of the target vocabulary, got `{phrase}`; try other words")
        return plain, inside

    def _batch(
        self, sentences: Sequence[str], sources: Sequence[Sequence[np.ndarray]], request: TranslationRequest, terms: Sequence[Term]
    ) -> Found:
        prefix = list(self.forms(request.prefix, "prefix")[0]) if request.prefix else []
        wanted = [self._required(sentence, request, terms) for sentence in sentences]
        # A short sentence has room for all that is asked of it, and an end.
        asked = [len(prefix) + sum(map(len, phrases)) + 1 for phrases in wanted]
        limits = [max(limit, least) for limit, least in zip(self._limits(sources, request), asked, strict=True)]
        result = beam_search(
            self.stepper,
            self.start(sources),
            len(sentences),
            self.options(request),
            processors=self.processors(request),
            prefix=[prefix] * len(sentences) if prefix else None,
            constraints=wanted if any(wanted) else None,
            max_lengths=torch.tensor(limits),
        )
        rows = zip(sentences, result.hypotheses, strict=True)
        found = [[self.render(one, sentence, request) for one in hypotheses] or [empty()] for sentence, hypotheses in rows]
        return Found(found, sum(result.steps), sum(result.steps_saved))

    def _limits(self, sources: Sequence[Sequence[np.ndarray]], request: TranslationRequest) -> list[int]:
        reach = min((voice.model.decoder.reach for voice in self.voices if voice.model.decoder.reach is not None), default=None)
        lengths = [max(len(ids) for ids in one) for one in zip(*sources, strict=True)]
        limits = [int(length * request.max_ratio) + request.max_extra for length in lengths]
        return limits if reach is None else [min(limit, reach) for limit in limits]

    def _required(self, sentence: str, request: TranslationRequest, terms: Sequence[Term]) -> list[list[int]]:
        required = [list(self.forms(phrase, "require")[1]) for phrase in request.require]
        return required + [list(self.forms(target, "terminology")[1]) for source, target in terms if source.search(sentence)]

    def _sample(self, sentences: Sequence[str], sources: Sequence[Sequence[np.ndarray]], request: TranslationRequest) -> Found:
        """One sentence at a time, each from the seed: what is drawn for it does not depend on its neighbours."""
        n, end = request.n_best, self.target.end
        processors = self.processors(request)
        if request.no_repeat_ngram is not None:
            processors.append(NoRepeatNgram(request.no_repeat_ngram))
        if request.min_length:
            processors.append(MinimumLength(request.min_length, (end,)))
        found, steps = [], 0
        for place, limit in enumerate(self._limits(sources, request)):
            state = self.start([[member[place]] for member in sources])
            with torch.inference_mode():
                state = self.stepper.select(state, torch.zeros(n, dtype=torch.long, device=self.device))
            wishes = {name: getattr(request, name) for name in ("temperature", "top_k", "top_p")}
            options = SamplingOptions(length=limit, stop_ids=(end,), **wishes)
            prompt = torch.full((n, 1), self.target.start, device=self.device)
            generator = torch.Generator(self.device).manual_seed(request.seed)
            columns = list(sample(self.stepper, prompt, options, generator, state=state, processors=processors))
            rows = torch.stack(columns, 1).tolist()
            found.append([self._drawn(row[: row.index(end)] if end in row else row, end in row) for row in rows])
            steps += len(columns)
        return Found(found, steps, 0)

    def _drawn(self, tokens: list[int], ended: bool) -> Translation:
        ids = [*tokens, *([self.target.end] if ended else [])]
        nothing = float("nan")
        return Translation(self.target.decode(tokens), nothing, nothing, self.target.pieces(ids), [], None, ended, True, None)

    def render(self, hypothesis: Hypothesis, sentence: str, request: TranslationRequest) -> Translation:
        """A hypothesis as text.

        Args:
            hypothesis: of beam search.
            sentence: what it translates.
            request: whether unknown symbols are replaced.

        Returns:
            The translation.
        """
        alignment = self.alignment_of(hypothesis, sentence, request)
        ids = [*hypothesis.tokens, *([self.target.end] if hypothesis.ended else [])]
        text = self.target.decode(hypothesis.tokens)
        if request.replace_unknowns and self.target.unknown in hypothesis.tokens:
            text = self._replace(hypothesis.tokens, sentence, alignment)
        return Translation(
            text,
            hypothesis.score,
            hypothesis.log_probability,
            self.target.pieces(ids),
            hypothesis.token_log_probabilities,
            None if alignment is None else alignment.tolist(),
            hypothesis.ended,
            hypothesis.met,
            None if alignment is None or not request.alignments else self._link(hypothesis.tokens, sentence, alignment),
        )

    def alignment_of(self, hypothesis: Hypothesis, sentence: str, request: TranslationRequest) -> Tensor | None:
        """What each symbol attended to: as the search saw it, or read again for a Transformer, where it was asked for.

        Args:
            hypothesis: of beam search.
            sentence: what it translates.
            request: whether alignments are wanted.

        Returns:
            Weights `[length, source]`, the mean over heads; `None` where there are none or nobody asked.

        Raises:
            ConfigurationError: asked for of models that have none.
        """
        missing = request.replace_unknowns and self.target.unknown in hypothesis.tokens
        if hypothesis.alignment is not None or not (request.alignments or missing):
            return hypothesis.alignment
        model, codecs = self.voices[0]
        ids = [*hypothesis.tokens, *([self.target.end] if hypothesis.ended else [])]
        source = padded_ids([codecs.source.encode(sentence)])
        read = torch.tensor([[self.target.start, *ids[:-1]]], device=self.device)
        _, looks = model.looks(Padded(source.data.to(self.device), source.lengths.to(self.device)), read)
        memory = [one.memory for one in looks.values() if one.memory is not None]
        if len(self.voices) > 1 or not memory:
            raise ConfigurationError("alignments need a single model whose decoder attends to its source; leave them out")
        weights: Tensor = memory[-1][0].mean(0)
        return weights

    def _link(self, tokens: Sequence[int], sentence: str, alignment: Tensor) -> list[Link]:
        source = words_of_source(self.voices[0].codecs.source, sentence)
        return word_alignment(alignment.tolist(), source, words_of_target(self.target, tokens))

    def _replace(self, tokens: Sequence[int], sentence: str, alignment: Tensor | None) -> str:
        if alignment is None:
            raise ConfigurationError("`replace_unknowns` needs a decoder that attends to its source, and this one does not; leave it out")
        spans = self.voices[0].codecs.source.spans(sentence)
        parts, known = [], []
        for row, token in zip(alignment, tokens, strict=False):
            if token != self.target.unknown:
                known.append(token)
                continue
            begin, end = spans[int(row[: len(spans)].argmax())]
            parts += [self.target.decode(known), sentence[begin:end].strip()]
            known = []
        parts.append(self.target.decode(known))
        return (" " if self.target.tokenizer.kind == "words" else "").join(part for part in parts if part)


def _whole_words(term: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(term)}(?!\w)")
