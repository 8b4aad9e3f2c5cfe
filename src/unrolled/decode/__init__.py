"""Repeat a model through its contract: steppers, logits processors, greedy decoding, sampling, beam search and ensembles."""

from unrolled.decode.beam import BeamOptions, beam_search, record_beam
from unrolled.decode.ensemble import Ensemble, mean_log_probability, mean_probability
from unrolled.decode.forbidding import Ban, ForbidBeginnings, ForbidWords
from unrolled.decode.hypotheses import BeamNode, BeamResult, BeamTree, Fate, Hypothesis, score_sequences
from unrolled.decode.phrases import Borders, Wording
from unrolled.decode.processors import (
    Forbid,
    ForbidPhrases,
    MinimumLength,
    MinP,
    NoRepeatNgram,
    Processor,
    RepetitionPenalty,
    Temperature,
    TopK,
    TopP,
)
from unrolled.decode.sampling import SampleStream, SamplingOptions, greedy, sample
from unrolled.decode.stepper import Aligns, Prefills, Reorders, Stepper, feed, reorder
from unrolled.decode.stops import StopStrings

__all__ = [
    "Aligns",
    "Ban",
    "BeamNode",
    "BeamOptions",
    "BeamResult",
    "BeamTree",
    "Borders",
    "Ensemble",
    "Fate",
    "Forbid",
    "ForbidBeginnings",
    "ForbidPhrases",
    "ForbidWords",
    "Hypothesis",
    "MinP",
    "MinimumLength",
    "NoRepeatNgram",
    "Prefills",
    "Processor",
    "Reorders",
    "RepetitionPenalty",
    "SampleStream",
    "SamplingOptions",
    "Stepper",
    "StopStrings",
    "Temperature",
    "TopK",
    "TopP",
    "Wording",
    "beam_search",
    "feed",
    "greedy",
    "mean_log_probability",
    "mean_probability",
    "record_beam",
    "reorder",
    "sample",
    "score_sequences",
]
