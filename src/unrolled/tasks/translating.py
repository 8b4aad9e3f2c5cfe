"""Sentences in, sentences out: how a trained encoder–decoder, or several together, translate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.core.padded import Padded
from unrolled.core.state import State
from unrolled.data.batches import evaluation_batches, padded_ids
from unrolled.data.sentences import SentenceCodec
from unrolled.decode.beam import BeamOptions, beam_search
from unrolled.decode.ensemble import Ensemble
from unrolled.decode.hypotheses import Hypothesis
from unrolled.decode.phrases import Wording
from unrolled.decode.processors import MinimumLength, NoRepeatNgram
from unrolled.decode.sampling import SamplingOptions, sample
from unrolled.decode.stepper import Aligns, Stepper
from unrolled.models.encoder_decoder import EncoderDecoder
from unrolled.models.stepper import stepper_of
from unrolled.tasks.alignment import Link, word_alignment, words_of_source, words_of_target
from unrolled.tasks.phrases import Wishes
from unrolled.tasks.translation_data import Codecs
from unrolled.tasks.translation_request import Found, Translation, TranslationRequest, empty, refusal

LINES_AT_ONCE = 1024
"""Sentences that are read before the first of them is put out: sorted by length they go faster than one by one."""

WEIGHTS_AT_ONCE = 2**19
"""Attention weights, for each head of each layer, that are held at once where translations are read again."""
SHOWN = 40
"""Characters by which a sentence is told."""


class Voice(NamedTuple):
    """One model with its vocabularies."""

    model: EncoderDecoder
    codecs: Codecs


def shortened(sentence: str) -> str:
    """The beginning of a sentence, by which it is told from others.

    Args:
        sentence: any.

    Returns:
        At most `SHOWN` of its characters.
    """
    return sentence if len(sentence) <= SHOWN else sentence[:SHOWN] + "…"


class Asked(NamedTuple):
    """One sentence and what is asked of its translation."""

    place: int
    """Among the sentences given."""
    sentence: str
    sources: list[np.ndarray]
    """Its ids, by model."""
    prefix: list[int]
    required: list[Wording]

    @property
    def length(self) -> int:
        """Its symbols, as the model counts them that has most."""
        return max(map(len, self.sources))

    @property
    def least(self) -> int:
        """The fewest symbols of a translation that has what is asked of it, its end included."""
        return len(self.prefix) + sum(max(map(len, one.runs)) for one in self.required) + 1


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

    def search(self, sentences: Sequence[str], request: TranslationRequest, *, leave_out: bool = False) -> Found:
        """The same, with what it took.

        Args:
            sentences: one line of text each.
            request: how.
            leave_out: let sentences that a model cannot translate have a refusal for a translation.

        Returns:
            Translations and steps.
        """
        wishes = Wishes(self.target, request)
        found: list[list[Translation]] = [[empty()] for _ in sentences]
        steps = saved = 0
        asked = self.ask(sentences, wishes)
        for one in asked:
            if not leave_out:
                self.refuse(one)
            elif (reason := self.reason_against(one)) is not None:
                found[one.place] = [refusal(reason)]
        asked = [one for one in asked if found[one.place][0].refused is None]
        lengths = np.array([one.length for one in asked], dtype=np.int64)
        for rows in evaluation_batches([lengths], max(1, request.batch_tokens)).batches:
            batch = [asked[i] for i in rows]
            done = self._sample(batch, request, wishes) if request.sampling else self._batch(batch, request, wishes)
            for one, translations in zip(batch, done.translations, strict=True):
                found[one.place] = translations
            steps, saved = steps + done.steps, saved + done.steps_saved
        return Found(found, steps, saved)

    def ask(self, sentences: Sequence[str], wishes: Wishes) -> list[Asked]:
        """What is asked of each translation.

        Args:
            sentences: one line of text each.
            wishes: of the request.

        Returns:
            Those sentences that are not empty.
        """
        members = [voice.codecs.source.encode_all(sentences) for voice in self.voices]
        every = zip(sentences, *members, strict=True)
        return [
            Asked(place, sentence, sources, wishes.prefix, wishes.of(sentence))
            for place, (sentence, *sources) in enumerate(every)
            if min(map(len, sources))
        ]

    def refuse(self, asked: Asked) -> None:
        """Refuse a sentence that a model cannot translate.

        Args:
            asked: the sentence.

        Raises:
            DataError: it is too long.
        """
        reason = self.reason_against(asked)
        if reason is not None:
            raise DataError(f"`{shortened(asked.sentence)}` cannot be translated: {reason}")

    def reason_against(self, asked: Asked) -> str | None:
        """Why a sentence cannot be translated: learned positions end somewhere.

        Args:
            asked: the sentence and what its translation must have.

        Returns:
            A reason, or nothing.
        """
        for voice, source in zip(self.voices, asked.sources, strict=True):
            reads, room = voice.model.reads, voice.model.room(len(source))
            if reads is not None and len(source) > reads:
                return f"it has {len(source):,} symbols, and the model reads at most {reads:,} (`model.transformer.longest`)"
            if room is not None and room < asked.least:
                return f"what is asked of its translation takes {asked.least:,} symbols, and there is room for {room:,} (`model.transformer.longest`)"
        return None

    def stream(self, lines: Iterable[str], request: TranslationRequest, at_once: int = LINES_AT_ONCE) -> Iterator[list[Translation]]:
        """Translate as many lines as come, some at a time.

        Args:
            lines: sentences, with or without their line breaks.
            request: how.
            at_once: lines that are read before the first is put out; more go faster, 1 answers every line.

        Yields:
            The translations of each line, in order; of one that a model cannot translate a refusal, so that the others still come.
        """
        held: list[str] = []
        for line in lines:
            held.append(line.rstrip("\r\n"))
            if len(held) == at_once:
                yield from self.search(held, request, leave_out=True).translations
                held = []
        yield from self.search(held, request, leave_out=True).translations

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

    def limit(self, asked: Asked, request: TranslationRequest) -> int:
        """The most symbols of a translation, its end included.

        Args:
            asked: the sentence; a short one has room for all that is asked of it.
            request: how sentences are translated.

        Returns:
            Their number.
        """
        wanted = max(int(asked.length * request.max_ratio) + request.max_extra, asked.least)
        rooms = [voice.model.room(len(source)) for voice, source in zip(self.voices, asked.sources, strict=True)]
        return min([wanted, *(room for room in rooms if room is not None)])

    def _batch(self, batch: Sequence[Asked], request: TranslationRequest, wishes: Wishes) -> Found:
        result = beam_search(
            self.stepper,
            self.start([[one.sources[voice] for one in batch] for voice in range(len(self.voices))]),
            len(batch),
            self.options(request),
            processors=wishes.processors(),
            prefix=[wishes.prefix] * len(batch) if wishes.prefix else None,
            constraints=[one.required for one in batch] if any(one.required for one in batch) else None,
            max_lengths=torch.tensor([self.limit(one, request) for one in batch]),
        )
        return Found(self.render_all(batch, result.hypotheses, request), sum(result.steps), sum(result.steps_saved))

    def _sample(self, batch: Sequence[Asked], request: TranslationRequest, wishes: Wishes) -> Found:
        """One sentence at a time, each from the seed: what is drawn for it does not depend on its neighbours."""
        n, end = request.n_best, self.target.end
        processors = wishes.processors()
        if request.no_repeat_ngram is not None:
            processors.append(NoRepeatNgram(request.no_repeat_ngram))
        if request.min_length:
            processors.append(MinimumLength(request.min_length, (end,)))
        found, steps = [], 0
        for one in batch:
            state = self.start([[source] for source in one.sources])
            with torch.inference_mode():
                state = self.stepper.select(state, torch.zeros(n, dtype=torch.long, device=self.device))
            numbers = {name: getattr(request, name) for name in ("temperature", "top_k", "top_p")}
            options = SamplingOptions(length=self.limit(one, request), stop_ids=(end,), **numbers)
            prompt = torch.full((n, 1), self.target.start, device=self.device)
            generator = torch.Generator().manual_seed(request.seed)  # of the processor: the same wherever the model computes
            columns = list(sample(self.stepper, prompt, options, generator, state=state, processors=processors))
            rows = torch.stack(columns, 1).tolist()
            found.append([self._drawn(row[: row.index(end)] if end in row else row, end in row) for row in rows])
            steps += len(columns)
        return Found(found, steps, 0)

    def _drawn(self, tokens: list[int], ended: bool) -> Translation:
        ids = [*tokens, *([self.target.end] if ended else [])]
        nothing = float("nan")
        return Translation(self.target.decode(tokens), nothing, nothing, self.target.pieces(ids), [], None, ended, True, None)

    def render_all(
        self, batch: Sequence[Asked], found: Sequence[Sequence[Hypothesis]], request: TranslationRequest
    ) -> list[list[Translation]]:
        """Hypotheses as text.

        Args:
            batch: sentences.
            found: hypotheses of each.
            request: whether alignments are wanted, and unknown symbols replaced.

        Returns:
            Translations by sentence; an empty one where nothing was found.
        """
        wanting = [
            (place, rank)
            for place, hypotheses in enumerate(found)
            for rank, one in enumerate(hypotheses)
            if one.alignment is None and (request.alignments or (request.replace_unknowns and self.target.unknown in one.tokens))
        ]
        read = self.read_again(
            [batch[place].sources[0] for place, _ in wanting], [self.ids_of(found[place][rank]) for place, rank in wanting]
        )
        weights = dict(zip(wanting, read, strict=True))
        return [
            [
                self.render(one._replace(alignment=weights.get((place, rank), one.alignment)), batch[place].sentence, request)
                for rank, one in enumerate(hypotheses)
            ]
            or [empty()]
            for place, hypotheses in enumerate(found)
        ]

    def ids_of(self, hypothesis: Hypothesis) -> list[int]:
        """What a hypothesis put out.

        Args:
            hypothesis: of beam search.

        Returns:
            Its ids, with the end where there is one.
        """
        return [*hypothesis.tokens, *([self.target.end] if hypothesis.ended else [])]

    def read_again(self, sources: Sequence[np.ndarray], targets: Sequence[Sequence[int]]) -> list[Tensor]:
        """What each symbol attended to, for decoders that do not say so step by step: by reading whole targets, some at a time.

        Args:
            sources: ids of sentences.
            targets: what each was translated by.

        Returns:
            Weights `[target, source]` of the last layer, the mean over heads.

        Raises:
            ConfigurationError: several models, or one that does not attend to its source.
        """
        found: list[Tensor] = []
        model, longest = self.voices[0].model, max(map(len, sources), default=1) * max(map(len, targets), default=1)
        at_once = max(1, WEIGHTS_AT_ONCE // max(longest, 1))
        for first in range(0, len(sources), at_once):
            source, rows = padded_ids(sources[first : first + at_once]), targets[first : first + at_once]
            before = padded_ids([np.array([self.target.start, *ids[:-1]], dtype=np.int64) for ids in rows]).data
            _, looks = model.looks(Padded(source.data.to(self.device), source.lengths.to(self.device)), before.to(self.device))
            memory = [one.memory for one in looks.values() if one.memory is not None]
            if len(self.voices) > 1 or not memory:
                raise ConfigurationError("alignments need a single model whose decoder attends to its source; leave them out")
            mean = memory[-1].mean(1).float().cpu()
            found += [mean[i, : len(ids), : source.lengths[i]] for i, ids in enumerate(rows)]
        return found

    def render(self, hypothesis: Hypothesis, sentence: str, request: TranslationRequest) -> Translation:
        """A hypothesis as text.

        Args:
            hypothesis: of beam search, with its alignment where there is one.
            sentence: what it translates.
            request: whether unknown symbols are replaced.

        Returns:
            The translation.
        """
        alignment, text = hypothesis.alignment, self.target.decode(hypothesis.tokens)
        if request.replace_unknowns and self.target.unknown in hypothesis.tokens:
            text = self._replace(hypothesis.tokens, sentence, alignment)
        return Translation(
            text,
            hypothesis.score,
            hypothesis.log_probability,
            self.target.pieces(self.ids_of(hypothesis)),
            hypothesis.token_log_probabilities,
            None if alignment is None else alignment.tolist(),
            hypothesis.ended,
            hypothesis.met,
            None if alignment is None or not request.alignments else self._link(hypothesis.tokens, sentence, alignment),
        )

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
