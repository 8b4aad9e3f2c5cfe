"""Everything that shapes a run of `unrolled fit`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from unrolled.core.errors import ConfigurationError, nearest
from unrolled.core.settings import Settings, resolve
from unrolled.ssm.hmm.settings import HiddenMarkovSettings
from unrolled.tasks.series_settings import LEVEL, SeriesDataSettings, listed

Sizes = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
"""One size, or several of which the Bayesian criterion chooses."""


def sizes(given: Any) -> Any:
    """One size, or several out of a text with commas.

    Args:
        given: the value of an option.

    Returns:
        Several, where it was one or a text; else what was given.
    """
    return tuple(listed(given)) if isinstance(given, str) else (given,) if isinstance(given, int) else given


class SymbolDataSettings(SeriesDataSettings):
    """How series of numbers or symbols are read that a model is fitted to."""

    format: Literal["csv", "text"] | None = None
    """`csv`; or `text`, in which every line is a sequence of symbols: so are files that end in .txt, when not given."""
    tokens: Literal["characters", "words"] = "characters"
    """What a symbol is in a text."""


class HiddenMarkovChoice(HiddenMarkovSettings):
    """What is fitted, and how."""

    states: Sizes = (2,)  # type: ignore[assignment]
    """How many hidden states there are; of several, with commas between them, BIC chooses."""
    emission: Literal["gaussian", "mixture", "autoregressive", "categorical", "poisson", "bernoulli"] | None = None  # type: ignore[assignment]
    """What each state's outputs are; `categorical` for a text of symbols and `gaussian` for all else when not given."""
    start: str | None = None
    """A JSON file of where to begin: some of `initial`, `transition` and the emission's own parameters, such as `means`."""

    @field_validator("states", mode="before")
    @classmethod
    def _states(cls, given: Any) -> Any:
        return sizes(given)


class HiddenMarkovRunSettings(Settings):
    """Everything that shapes the fit of a hidden Markov model."""

    task: Literal["hmm"] = "hmm"
    """What kind of run this is."""
    data: SymbolDataSettings = SymbolDataSettings()
    model: HiddenMarkovChoice = HiddenMarkovChoice()


class LinearSystemSettings(Settings):
    """What is fitted, and how."""

    state_size: Sizes = (2,)
    """Numbers in the hidden state; of several, with commas between them, BIC chooses."""
    method: Literal["em", "gradient"] = "em"
    """Expectation–maximisation, or L-BFGS up the gradient of the likelihood."""
    offset: bool = True
    """Whether outputs have a mean of their own."""
    covariances: dict[str, str] = {}
    """`full`, `diagonal` or `spherical`, by covariance: `transition_covariance`, `emission_covariance`, `initial_covariance`; `full` when not given."""
    frozen: tuple[str, ...] = ()
    """Parameters that stay as they begin, with commas between them."""
    start: str | None = None
    """A JSON file of where to begin: some of `transition`, `transition_covariance`, `emission`, `emission_covariance`, `initial_mean`, …"""
    iterations: int = Field(200, ge=1)
    """At most."""
    tolerance: float = Field(1e-6, ge=0)
    """Stop where an iteration gains less than this a number that was seen, in nats."""
    seed: int = Field(0, ge=0)
    """Of the small numbers in the beginning."""

    @field_validator("state_size", mode="before")
    @classmethod
    def _sizes(cls, given: Any) -> Any:
        return sizes(given)

    @field_validator("frozen", mode="before")
    @classmethod
    def _names(cls, given: Any) -> Any:
        return listed(given)


class LinearSystemRunSettings(Settings):
    """Everything that shapes the fit of a linear dynamical system."""

    task: Literal["lds"] = "lds"
    """What kind of run this is."""
    data: SeriesDataSettings = SeriesDataSettings()
    model: LinearSystemSettings = LinearSystemSettings()


COMPONENTS = ("level", "trend", "seasonal", "trigonometric", "arma")
"""What a structural model may be made of."""
ALTERNATIVES = (("level", "trend"), ("seasonal", "trigonometric"))
"""Components that explain the same thing: no series can tell how much is of which."""


class StructuralSettings(Settings):
    """What is fitted, and how."""

    components: tuple[str, ...] = ("level",)
    """`level`, `trend`, `seasonal`, `trigonometric` (a season of waves) and `arma`, with commas between them."""
    period: int | None = Field(None, ge=2)
    """Points of a season; the usual one of the times when not given."""
    harmonics: int | None = Field(None, ge=1)
    """Waves of a `trigonometric` season; all when not given."""
    damped: bool = False
    """Whether the slope of a `trend` fades."""
    smooth: bool = False
    """Whether only the slope of a `trend` wanders, and not its level as well."""
    autoregressive: int = Field(1, ge=0)
    """How many earlier values count in `arma`."""
    moving_average: int = Field(0, ge=0)
    """How many earlier shocks count in `arma`."""
    irregular: bool = True
    """Whether the series has noise of its own beside its components."""
    fixed: dict[str, float | tuple[float, ...]] = {}
    """Parameters that are known, by name, such as `level` (a variance), a list where one is several numbers; the others are fitted."""
    iterations: int = Field(500, ge=1)
    """At most, from each of three beginnings."""

    @field_validator("components", mode="before")
    @classmethod
    def _names(cls, given: Any) -> Any:
        return listed(given.replace("+", ",")) if isinstance(given, str) else given

    @field_validator("components", mode="after")
    @classmethod
    def _apart(cls, found: tuple[str, ...]) -> tuple[str, ...]:
        known = ", ".join(f"`{name}`" for name in COMPONENTS)
        wrong = next((name for name in found if name not in COMPONENTS), None)
        if wrong is not None or not found:
            got = "none" if wrong is None else f"`{wrong}`; {nearest(wrong, COMPONENTS)}"
            raise ValueError(f"components must be some of {known}, got {got}")
        twice = next((name for place, name in enumerate(found) if name in found[:place]), None)
        if twice is not None:
            raise ValueError(f"components must be different, got `{twice}` twice")
        for one, other in ALTERNATIVES:
            if one in found and other in found:
                raise ValueError(f"components must explain different things, got `{one}` and `{other}`; leave one of them out")
        return found


class StructuralRunSettings(Settings):
    """Everything that shapes the fit of a structural model."""

    task: Literal["structural"] = "structural"
    """What kind of run this is."""
    data: SeriesDataSettings = SeriesDataSettings()
    model: StructuralSettings = StructuralSettings()


class FitRequest(Settings):
    """What is asked of a fitted model."""

    horizon: int | None = Field(None, ge=1)
    """Points of the future; a season, or 12, when not given, and for a hidden Markov model the states of the past."""
    level: float = Field(LEVEL, gt=0, lt=1)
    """The share of values that shall fall into the band."""


def fit_request(task: str, wishes: dict[str, Any]) -> FitRequest:
    """Check what is asked of a fitted model.

    Args:
        task: of the run.
        wishes: options.

    Returns:
        The request.

    Raises:
        ConfigurationError: another option.
    """
    unknown = next((name for name in wishes if name not in FitRequest.model_fields), None)
    if unknown is not None:
        raise ConfigurationError(
            f"`{unknown}` is no option of predicting with a run of the task `{task}`; its options are `horizon` and `level`"
        )
    return resolve(FitRequest, wishes)
