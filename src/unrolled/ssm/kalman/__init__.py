"""Linear dynamical systems: Kalman filter, smoothers, sampling, forecasts, fitting, and structural time-series models."""

from unrolled.ssm.kalman.inference import kalman_filter, kalman_log_likelihood, kalman_smoother
from unrolled.ssm.kalman.results import Filtered, Smoothed
from unrolled.ssm.kalman.system import LinearGaussian, check_system

__all__ = [
    "Filtered",
    "LinearGaussian",
    "Smoothed",
    "check_system",
    "kalman_filter",
    "kalman_log_likelihood",
    "kalman_smoother",
]
