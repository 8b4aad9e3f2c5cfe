"""Linear dynamical systems: Kalman filter, smoothers, sampling, forecasts, fitting, and structural time-series models."""

from unrolled.ssm.kalman.components import ARMA, Component, LocalLevel, LocalTrend, Regression, Seasonal, TrigonometricSeasonal
from unrolled.ssm.kalman.dynamical import LinearDynamicalSystem
from unrolled.ssm.kalman.em import Structure
from unrolled.ssm.kalman.forecast import Forecast, forecast
from unrolled.ssm.kalman.inference import kalman_filter, kalman_filter_and_smoother, kalman_log_likelihood, kalman_smoother
from unrolled.ssm.kalman.optimise import Fitted, fit_by_gradient
from unrolled.ssm.kalman.parallel import parallel_filter, parallel_smoother
from unrolled.ssm.kalman.results import Filtered, Smoothed
from unrolled.ssm.kalman.rts import rts_smoother
from unrolled.ssm.kalman.sampling import Drawn, sample, sample_states
from unrolled.ssm.kalman.square_root import square_root_filter, square_root_smoother
from unrolled.ssm.kalman.step import KalmanOutput, KalmanState, KalmanStep
from unrolled.ssm.kalman.structural import Contribution, StructuralModel
from unrolled.ssm.kalman.system import LinearGaussian, check_system

__all__ = [
    "ARMA",
    "Component",
    "Contribution",
    "Drawn",
    "Filtered",
    "Fitted",
    "Forecast",
    "KalmanOutput",
    "KalmanState",
    "KalmanStep",
    "LinearDynamicalSystem",
    "LinearGaussian",
    "LocalLevel",
    "LocalTrend",
    "Regression",
    "Seasonal",
    "Smoothed",
    "StructuralModel",
    "Structure",
    "TrigonometricSeasonal",
    "check_system",
    "fit_by_gradient",
    "forecast",
    "kalman_filter",
    "kalman_filter_and_smoother",
    "kalman_log_likelihood",
    "kalman_smoother",
    "parallel_filter",
    "parallel_smoother",
    "rts_smoother",
    "sample",
    "sample_states",
    "square_root_filter",
    "square_root_smoother",
]
