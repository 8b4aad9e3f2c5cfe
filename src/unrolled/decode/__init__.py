"""Repeat a model through its contract: steppers, logits processors, greedy decoding and sampling."""

from unrolled.decode.processors import Forbid, MinP, Processor, RepetitionPenalty, Temperature, TopK, TopP
from unrolled.decode.sampling import SampleStream, SamplingOptions, greedy, sample
from unrolled.decode.stepper import Prefills, Stepper, feed
from unrolled.decode.stops import StopStrings

__all__ = [
    "Forbid",
    "MinP",
    "Prefills",
    "Processor",
    "RepetitionPenalty",
    "SampleStream",
    "SamplingOptions",
    "Stepper",
    "StopStrings",
    "Temperature",
    "TopK",
    "TopP",
    "feed",
    "greedy",
    "sample",
]
