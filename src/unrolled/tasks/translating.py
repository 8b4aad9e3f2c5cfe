"""Sentences in, sentences out: how a trained encoder–decoder, or several together, translate."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.core.settings import Settings
from unrolled.core.state import State
from unrolled.data.batches import evaluation_batches, padded_ids
from unrolled.data.pairs import read_pairs
from unrolled.data.sentences import SentenceCodec
from unrolled.decode.beam import BeamOptions, beam_search
from unrolled.decode.ensemble import Ensemble
from unrolled.decode.hypotheses import Hypothesis
from unrolled.decode.processors import ForbidPhrases, Processor
from unrolled.decode.sampling import SamplingOptions, sample
from unrolled.decode.stepper import Aligns, Stepper
from unrolled.models.encoder_decoder import EncoderDecoder
from unrolled.models.stepper import stepper_of
from unrolled.models.transformer_parts import TransformerDecoder
from unrolled.tasks.alignment import Link, word_alignment, words_of_source, words_of_target
from unrolled.tasks.translation_data import Codecs

LINES_AT_ONCE = 1024
"""Sentences that are read before the first of them is put out: sorted by length they go faster than one by one."""


class TranslationRequest(Settings):
    """How sentences are translated."""

    beam: int = Field(5, ge=1)
    """Hypotheses kept for each sentence; 1 is greedy."""
    n_best: int = Field(1, ge=1)
    """Translations handed out for each sentence, at most `beam`."""
    normalisation: Literal["none", "average", "gnmt"] = "gnmt"
    """What the sum of log-probabilities is divided by: 1, `length^alpha`, or `((5 + length) / 6)^alpha` (Wu et al. 2016, eq. 14)."""
    alpha: float = 1.0
    """Exponent of the length normalisation."""
    coverage: float = Field(0.0, ge=0)
    """Weight of the coverage penalty (Wu et al. 2016, eq. 14), for decoders that attend step by step."""
    min_length: int = Field(0, ge=0)
    """The fewest symbols of a translation."""
    max_ratio: float = Field(2.0, ge=0)
    """The most symbols of a translation for each symbol of its source, plus `max_extra`."""
    max_extra: int = Field(20, ge=1)
    """Symbols that a translation may have besides."""
    no_repeat_ngram: int | None = Field(None, ge=1)
    """No run of this many symbols comes twice."""
    early_stopping: bool = True
    """Stop a sentence as soon as nothing can change its best translations; loses nothing."""
    sampling: bool = False
    """Draw `n_best` translations by chance instead of searching."""
    temperature: float = Field(1.0, ge=0)
    """How bold sampling is."""
    top_k: int | None = Field(None, ge=1)
    """Sample among so many likeliest symbols."""
    top_p: float | None = Field(None, ge=0, le=1)
    """Sample among the likeliest symbols that have this probability together."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Of sampling."""
    prefix: str = ""
    """What every translation begins with."""
    require: tuple[str, ...] = ()
    """Phrases that every translation must contain."""
    forbid: tuple[str, ...] = ()
    """Phrases that no translation may contain."""
    terminology: Path | None = None
    """A TSV file of terms: where a sentence has the first column as whole words, its translation must have the second."""
    alignments: bool = False
    """Say which word came from which, by attention (a Transformer's is that of its last layer)."""
    replace_unknowns: bool = False
    """Put the source word that was attended to most in the place of an unknown symbol."""
    batch_tokens: int = Field(4096, ge=1)
    """Source symbols of a batch, padding included; `beam` times as many rows are decoded side by side."""

    @model_validator(mode="after")
    def _fits(self) -> TranslationRequest:
        if self.n_best > self.beam and not self.sampling:
            raise ValueError(f"`n_best` must be at most `beam`, {self.beam}, got {self.n_best}; raise `beam`")
        if self.sampling and (self.prefix or self.require or self.terminology):
            raise ValueError("`prefix`, `require` and `terminology` are for searching; leave `sampling` out")
        return self


class Translation(NamedTuple):
    """One translation of a sentence."""

    text: str
    score: float
    """What translations are ranked by."""
    log_probability: float
    """Nats of all symbols."""
    symbols: list[str]
    """The symbols as they are shown, the end symbol last where there is one."""
    token_log_probabilities: list[float]
    """Nats of each symbol."""
    alignment: list[list[float]] | None
    """Attention, a row a symbol; `None` where the decoder does not attend step by step."""
    met: bool
    """Whether all required phrases are in it."""
    words: list[Link] | None
    """Each word of the translation with the source word it looked at most, as (source, translation), where there is an alignment."""


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
        encoded = [voice.codecs.source.encode_all(sentences) for voice in self.voices]
        counted = [[len(ids) for ids in member] for member in encoded]
        lengths = np.array(counted, dtype=np.int64).reshape(len(encoded), len(sentences))
        found: list[list[Translation]] = [[empty()] for _ in sentences]
        real = np.flatnonzero(lengths.min(0) > 0) if len(sentences) else np.array([], dtype=np.int64)
        terms = read_terms(request.terminology)
        per_batch = max(1, request.batch_tokens)
        for rows in evaluation_batches([lengths.max(0)[real]], per_batch).batches:
            chosen = real[rows]
            batch = [sentences[i] for i in chosen]
            sources = [[member[i] for i in chosen] for member in encoded]
            for place, translations in zip(chosen, self._batch(batch, sources, request, terms), strict=True):
                found[place] = translations
        return found

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
        moved = [type(p)(p.data.to(self.device), p.lengths.to(self.device)) for p in padded]
        with torch.inference_mode():
            return self.stepper.start(moved[0] if len(moved) == 1 else moved)

    def options(self, request: TranslationRequest) -> BeamOptions:
        """What beam search is asked for.

        Args:
            request: how sentences are translated.

        Returns:
            The numbers of the search.
        """
        shared = ("beam", "n_best", "normalisation", "alpha", "coverage", "min_length", "no_repeat_ngram", "early_stopping")
        numbers = {name: getattr(request, name) for name in shared}
        aligns = isinstance(self.stepper, Aligns)
        return BeamOptions(start=self.target.start, end=self.target.end, alignments=aligns, **numbers)

    def processors(self, request: TranslationRequest) -> list[Processor]:
        """What is never written.

        Args:
            request: how sentences are translated.

        Returns:
            Processors of the logits.
        """
        forbidden = tuple(form for phrase in request.forbid for form in self.forms(phrase))
        return [ForbidPhrases(forbidden)] if forbidden else []

    def forms(self, phrase: str) -> list[tuple[int, ...]]:
        """The ids of a phrase at the beginning of a sentence and inside one, where a space comes before it.

        Args:
            phrase: some words.

        Returns:
            One or two lists of ids.
        """
        plain = tuple(int(i) for i in self.target.encode(phrase))
        inside = tuple(int(i) for i in self.target.encode(" " + phrase))
        return list(dict.fromkeys([plain, inside]))

    def _batch(
        self,
        sentences: Sequence[str],
        sources: Sequence[Sequence[np.ndarray]],
        request: TranslationRequest,
        terms: Sequence[tuple[str, str]],
    ) -> list[list[Translation]]:
        state = self.start(sources)
        longest = [max(len(member[i]) for member in sources) for i in range(len(sentences))]
        limits = [int(length * request.max_ratio) + request.max_extra for length in longest]
        if request.sampling:
            return self._sample(state, len(sentences), max(limits), request)
        prefix = [int(i) for i in self.target.encode(request.prefix)]
        wanted = [self._required(sentence, request, terms) for sentence in sentences]
        result = beam_search(
            self.stepper,
            state,
            len(sentences),
            self.options(request),
            processors=self.processors(request),
            prefix=[prefix] * len(sentences) if prefix else None,
            constraints=wanted if any(wanted) else None,
            max_lengths=torch.tensor(limits),
        )
        rows = zip(sentences, result.hypotheses, strict=True)
        return [[self.render(one, sentence, request) for one in hypotheses] or [empty()] for sentence, hypotheses in rows]

    def _required(self, sentence: str, request: TranslationRequest, terms: Sequence[tuple[str, str]]) -> list[list[int]]:
        phrases = [*request.require, *(target for source, target in terms if _has(sentence, source))]
        return [list(self.forms(phrase)[-1]) for phrase in phrases]

    def _sample(self, state: State, batch: int, length: int, request: TranslationRequest) -> list[list[Translation]]:
        n, end = request.n_best, self.target.end
        rows = torch.arange(batch, device=self.device).repeat_interleave(n)
        with torch.inference_mode():
            state = self.stepper.select(state, rows)
        options = SamplingOptions(temperature=request.temperature, top_k=request.top_k, top_p=request.top_p, length=length, stop_ids=(end,))
        prompt = torch.full((batch * n, 1), self.target.start, device=self.device)
        generator = torch.Generator(self.device).manual_seed(request.seed)
        drawn = sample(self.stepper, prompt, options, generator, state=state, processors=self.processors(request))
        columns = list(drawn)
        tokens = torch.stack(columns, 1).tolist() if columns else [[] for _ in range(batch * n)]
        texts = [self.target.decode(row[: row.index(end)] if end in row else row) for row in tokens]
        made = [Translation(text, float("nan"), float("nan"), [], [], None, True, None) for text in texts]
        return [made[i * n : (i + 1) * n] for i in range(batch)]

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
        if hypothesis.alignment is not None or not (request.alignments or request.replace_unknowns):
            return hypothesis.alignment
        model, codecs = self.voices[0]
        if len(self.voices) > 1 or not isinstance(model.decoder, TransformerDecoder) or model.encoder is None:
            raise ConfigurationError("alignments need a single model whose decoder attends to its source; leave them out")
        ids = [*hypothesis.tokens, *([self.target.end] if hypothesis.ended else [])]
        with torch.inference_mode():
            translating = model.encode(padded_ids([codecs.source.encode(sentence)]))
            read = torch.tensor([[self.target.start, *ids[:-1]]], device=self.device)
            layers = model.decoder.weights(model.target_embedding(read), translating.state, translating.fixed)
        weights: Tensor = layers[max(layers, key=int)].memory[0].mean(0)
        return weights

    def _link(self, tokens: Sequence[int], sentence: str, alignment: Tensor) -> list[Link]:
        source = words_of_source(self.voices[0].codecs.source, sentence)
        return word_alignment(alignment.tolist(), source, words_of_target(self.target, tokens))

    def _replace(self, tokens: Sequence[int], sentence: str, alignment: Tensor | None) -> str:
        if alignment is None:
            raise ConfigurationError("`replace_unknowns` needs a decoder that attends to its source, and this one does not; leave it out")
        spans = self.voices[0].codecs.source.spans(sentence)
        pieces = self.target.pieces(tokens)
        for i, token in enumerate(tokens):
            if token == self.target.unknown:
                begin, end = spans[int(alignment[i, : len(spans)].argmax())]
                pieces[i] = sentence[begin:end].strip()
        return (" " if self.target.tokenizer.kind == "words" else "").join(pieces)


def _has(sentence: str, term: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(term)}(?!\w)", sentence) is not None


def empty() -> Translation:
    """The translation of an empty sentence.

    Returns:
        Nothing, with certainty.
    """
    return Translation("", 0.0, 0.0, [], [], None, True, None)


def read_terms(path: Path | None) -> list[tuple[str, str]]:
    """The terms of a terminology file.

    Args:
        path: UTF-8, a term and its translation a line, a tab between them; `None` for none.

    Returns:
        Pairs of terms.

    Raises:
        DataError: the file cannot be read, or a line has not two columns.
    """
    if path is None:
        return []
    if not path.name.endswith((".tsv", ".tsv.gz")):
        raise DataError(f"a terminology must be a `.tsv` file, a term and its translation a line, got `{path}`; try renaming it")
    pairs = read_pairs([path])
    return list(zip(pairs.sources, pairs.targets, strict=True))
