"""Hidden Markov models: inference, Baum–Welch, emissions, and one object that holds a model."""

from unrolled.ssm.hmm.baum_welch import BaumWelchSettings, Fit, Repair, baum_welch
from unrolled.ssm.hmm.chain import Chain, banded, check_chain, left_to_right, stationary
from unrolled.ssm.hmm.durations import ExplicitDurations
from unrolled.ssm.hmm.dynamics import Dynamics, Homogeneous, InputDriven
from unrolled.ssm.hmm.emissions import (
    COVARIANCES,
    DIAGONAL,
    FULL,
    SPHERICAL,
    TIED,
    Autoregressive,
    Bernoulli,
    Categorical,
    Covariance,
    Emission,
    Gaussian,
    GaussianMixture,
    NormalInverseWishart,
    Poisson,
)
from unrolled.ssm.hmm.inference import FORMS, filter, log_likelihood, posterior_decode, smooth, two_slice, viterbi
from unrolled.ssm.hmm.model import HiddenMarkovModel
from unrolled.ssm.hmm.prediction import HiddenMarkovStep, Prediction, StepOutput, StepState, predict
from unrolled.ssm.hmm.results import Filtered, Form, Paths, Smoothed
from unrolled.ssm.hmm.sampling import Sampled, sample
from unrolled.ssm.hmm.settings import HiddenMarkovSettings

__all__ = [
    "COVARIANCES",
    "DIAGONAL",
    "FORMS",
    "FULL",
    "SPHERICAL",
    "TIED",
    "Autoregressive",
    "BaumWelchSettings",
    "Bernoulli",
    "Categorical",
    "Chain",
    "Covariance",
    "Dynamics",
    "Emission",
    "ExplicitDurations",
    "Filtered",
    "Fit",
    "Form",
    "Gaussian",
    "GaussianMixture",
    "HiddenMarkovModel",
    "HiddenMarkovSettings",
    "HiddenMarkovStep",
    "Homogeneous",
    "InputDriven",
    "NormalInverseWishart",
    "Paths",
    "Poisson",
    "Prediction",
    "Repair",
    "Sampled",
    "Smoothed",
    "StepOutput",
    "StepState",
    "banded",
    "baum_welch",
    "check_chain",
    "filter",
    "left_to_right",
    "log_likelihood",
    "posterior_decode",
    "predict",
    "sample",
    "smooth",
    "stationary",
    "two_slice",
    "viterbi",
]
