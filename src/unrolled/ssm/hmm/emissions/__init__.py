"""The outputs of a hidden Markov model: each kind a file, all of one form."""

from unrolled.ssm.hmm.emissions.autoregressive import Autoregressive
from unrolled.ssm.hmm.emissions.base import Emission
from unrolled.ssm.hmm.emissions.bernoulli import Bernoulli
from unrolled.ssm.hmm.emissions.categorical import Categorical
from unrolled.ssm.hmm.emissions.covariance import COVARIANCES, DIAGONAL, FULL, SPHERICAL, TIED, Covariance, NormalInverseWishart
from unrolled.ssm.hmm.emissions.gaussian import Gaussian
from unrolled.ssm.hmm.emissions.mixture import GaussianMixture
from unrolled.ssm.hmm.emissions.poisson import Poisson

__all__ = [
    "COVARIANCES",
    "DIAGONAL",
    "FULL",
    "SPHERICAL",
    "TIED",
    "Autoregressive",
    "Bernoulli",
    "Categorical",
    "Covariance",
    "Emission",
    "Gaussian",
    "GaussianMixture",
    "NormalInverseWishart",
    "Poisson",
]
