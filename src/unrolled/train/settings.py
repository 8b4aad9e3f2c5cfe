"""Everything that shapes a training, apart from the model and the data."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from unrolled.core.settings import Settings

DEFAULT_MINUTES = 10.0


Share = Annotated[float, Field(ge=0, lt=1)]


class OptimizerSettings(Settings):
    """How weights follow their gradient."""

    name: Literal["adamw", "adam", "sgd", "asgd"] = "adamw"
    """AdamW, Adam, SGD, or SGD whose weights are averaged once validation stops falling (Merity et al. 2018)."""
    learning_rate: float = Field(5e-3, gt=0)
    """The peak of the schedule."""
    betas: tuple[Share, Share] = (0.9, 0.99)
    """Memory of Adam's two moments."""
    momentum: float = Field(0.0, ge=0, lt=1)
    """Momentum of SGD."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled for AdamW, L2 for the others; weights of two and more axes only."""


class ScheduleSettings(Settings):
    """How the learning rate moves from its peak."""

    name: Literal["constant", "cosine", "linear", "plateau"] = "cosine"
    """The form; `plateau` lowers the rate by `factor` whenever validation stops falling."""
    warmup_steps: int = Field(100, ge=0)
    """Updates over which the rate rises linearly to its peak; with `cosine` and `linear`, a tenth of the training at most."""
    final_share: float = Field(0.05, ge=0, le=1)
    """The rate at the end, as a share of the peak (cosine, linear)."""
    factor: float = Field(0.25, gt=0, lt=1)
    """What a plateau multiplies the rate by."""
    patience: int = Field(1, ge=1)
    """Evaluations without a better loss that make a plateau."""


class Carrying(NamedTuple):
    """How windows over parallel rows hang together."""

    rows: int
    """Rows of the global batch."""
    keeps: bool
    """Whether a window starts from the state in which the one before ended."""
    restart: float
    """Probability that a row starts a window afresh all the same."""


class TrainSettings(Settings):
    """How long, how fast, how carefully."""

    minutes: float | None = Field(None, gt=0)
    """End after so many minutes of training (set-up, evaluation and saving not counted); 10 when no other end is given."""
    epochs: float | None = Field(None, gt=0)
    """End after so many passes over the data."""
    steps: int | None = Field(None, ge=1)
    """End after so many updates."""
    accumulate: int = Field(1, ge=1)
    """Batches whose gradients are added up before an update."""
    clip_norm: float | None = Field(1.0, gt=0)
    """Scale gradients down to this global norm (the root of the sum of squares)."""
    clip_value: float | None = Field(None, gt=0)
    """Cut every gradient entry to ± this value, before the norm is taken."""
    evaluations: int = Field(10, ge=0)
    """How often the validation part is scored over the whole training."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many evaluations without a better loss."""
    save_seconds: float = Field(30.0, gt=0)
    """Seconds between checkpoints, besides one at every evaluation."""
    log_every: int = Field(10, ge=1)
    """Updates between two lines of the metrics file."""
    keep: int = Field(0, ge=0)
    """Keep the weights of the last so many evaluations besides the best ones, for `unrolled average`."""
    average: float | None = Field(None, gt=0, lt=1)
    """Keep an exponential moving average of the weights with this decay and evaluate that."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`bf16` autocast or `fp32`; `auto` takes bf16 where the processor multiplies it natively."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`; `auto` takes a GPU where there is one."""
    threads: int | None = Field(None, ge=1)
    """Processor threads; all cores when not given."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Where all random numbers of the run begin."""
    tensorboard: bool = False
    """Also write TensorBoard files (needs the `track` extra)."""
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()

    @model_validator(mode="before")
    @classmethod
    def _some_end(cls, given: Any) -> Any:
        # Written into the settings, and so into the run: a later version with another default goes on as this one began.
        if isinstance(given, dict) and all(given.get(end) is None for end in ("minutes", "epochs", "steps")):
            return {**given, "minutes": DEFAULT_MINUTES}
        return given

    @property
    def carrying(self) -> Carrying | None:
        """How a state is carried from window to window; `None` where every batch stands for itself."""
        return None


class StreamTrainSettings(TrainSettings):
    """Training on parallel streams of one long text, by truncated back-propagation through time."""

    batch_size: int = Field(16, ge=1)
    """Parallel streams of the text; the global batch when several processes share it."""
    window: int = Field(64, ge=1)
    """k1 of truncated back-propagation: time steps between updates."""
    backpropagate: int | None = Field(None, ge=1)
    """k2: time steps through which gradients flow back; `window` when not given, never less."""
    carry_state: bool = True
    """Start each window from the state in which the one before ended."""
    restart: float = Field(0.02, ge=0, le=1)
    """Probability that a stream starts a window afresh all the same: a model that only ever carried its state on does badly from the beginning."""
    activation_penalty: float = Field(0.0, ge=0)
    """Activation regularisation: weight of the mean square of the last layer's outputs after dropout (Merity et al. 2018)."""
    smoothness_penalty: float = Field(0.0, ge=0)
    """Temporal activation regularisation: weight of the mean squared change of the last layer's outputs."""
    sampled_softmax: int | None = Field(None, ge=1)
    """Train against so many sampled symbols a batch in place of the whole vocabulary (Jean et al. 2015); evaluation stays exact."""
    sparse_gradients: bool = False
    """With sampled softmax and AdamW: update only those rows of the vocabulary that a batch touches, so that a large one costs little."""
    evaluation_batch_size: int = Field(64, ge=1)
    """Parallel streams in evaluation; fewer is slower and, with less text read from a cold state, slightly better."""
    evaluation_symbols: int = Field(1_000_000, ge=2)
    """At most so many symbols of the validation part are scored during training; `unrolled eval` scores all of it."""

    @model_validator(mode="after")
    def _sparse_fits(self) -> StreamTrainSettings:
        if self.sparse_gradients and (self.sampled_softmax is None or self.optimizer.name != "adamw"):
            raise ValueError("`sparse_gradients` needs `sampled_softmax` and `optimizer.name=adamw`; set them, or leave it out")
        return self

    @property
    def carrying(self) -> Carrying:
        """The state of every stream is carried on, but for some that start afresh now and then."""
        return Carrying(self.batch_size, self.carry_state, self.restart)
