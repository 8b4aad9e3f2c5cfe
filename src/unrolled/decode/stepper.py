"""What decoding needs of a model: a start, a step from tokens to logits, and a state whose rows can be chosen."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from unrolled.core.errors import DataError
from unrolled.core.state import State


@runtime_checkable
class Stepper(Protocol):
    """A model seen one token at a time; every method is pure, the state is passed and returned."""

    @property
    def vocabulary_size(self) -> int:
        """How many tokens there are; ids lie in `0..vocabulary_size-1`."""

    def start(self, source: Any) -> State:
        """The state before the first token.

        Args:
            source: what is decoded from; a language model takes the batch size.

        Returns:
            A state tree with batch as axis 0 of every leaf.
        """

    def step(self, tokens: Int[Tensor, " batch"], state: State) -> tuple[Float[Tensor, "batch vocab"], State]:
        """Read one token a row.

        Args:
            tokens: the token each row reads now.
            state: the state after the token before; it is not changed.

        Returns:
            Logits of the next token, and the new state.
        """

    def select(self, state: State, rows: Int[Tensor, " chosen"]) -> State:
        """The state of some rows, in the order given (`core.state.select_state` for every ordinary state).

        Args:
            state: a state of this stepper.
            rows: indices into the batch, repeats allowed.

        Returns:
            A state of `chosen` rows, for `step` and `select` of this stepper alone: what rows share may be there once.
        """


@runtime_checkable
class Prefills(Protocol):
    """What a stepper may offer besides: to read many tokens at once, with the same result as reading them in turn."""

    def prefill(self, tokens: Int[Tensor, "batch time"], state: State) -> tuple[Float[Tensor, "batch vocab"], State]:
        """Read `time` tokens a row.

        Args:
            tokens: at least one column.
            state: the state before the first column; it is not changed.

        Returns:
            Logits of the token after the last column, and the state there.
        """


@runtime_checkable
class Reorders(Protocol):
    """What a stepper may offer besides: to let rows of one source change places, without copying what such rows share."""

    def reorder(self, state: State, rows: Int[Tensor, " batch"]) -> State:
        """The state with its rows re-ordered, where row `i` and row `rows[i]` always belong to the same source.

        What depends on the source alone (a decoder's memory and its lengths) may stay where it is.

        Args:
            state: a state of this stepper.
            rows: as many indices as there are rows, repeats allowed.

        Returns:
            The same as `select(state, rows)`.
        """


@runtime_checkable
class Aligns(Protocol):
    """What a stepper may offer besides: where its last step looked in the source."""

    def alignment(self, state: State) -> Float[Tensor, "batch source"]:
        """The attention weights of the step that gave this state, the mean over the heads.

        Args:
            state: as `step` returned it.

        Returns:
            One distribution over the positions of the source a row, exactly 0 at padding.
        """


def reorder(stepper: Stepper, state: State, rows: Int[Tensor, " batch"]) -> State:
    """Let rows of one source change places: by the stepper's own way where it has one, else by `select`.

    Args:
        stepper: the model.
        state: a state of it.
        rows: as many indices as there are rows; row `i` and row `rows[i]` belong to the same source.

    Returns:
        The state of those rows.
    """
    if isinstance(stepper, Reorders):
        return stepper.reorder(state, rows)
    return stepper.select(state, rows)


def feed(stepper: Stepper, tokens: Int[Tensor, "batch time"], state: State) -> tuple[Float[Tensor, "batch vocab"], State]:
    """Read a prompt: at once where the stepper can, else token by token.

    Args:
        stepper: the model.
        tokens: the prompt, one row a stream, at least one column.
        state: the state before it.

    Returns:
        Logits of the token after the prompt, and the state there.
    """
    if isinstance(stepper, Prefills):
        return stepper.prefill(tokens, state)
    first, *rest = tokens.unbind(1)
    logits, state = stepper.step(first, state)
    for column in rest:
        logits, state = stepper.step(column, state)
    return logits, state


def check_prompt(tokens: Int[Tensor, "batch time"], vocabulary_size: int) -> None:
    """Refuse a prompt that no step could read.

    Args:
        tokens: the prompt.
        vocabulary_size: how many tokens there are.

    Raises:
        DataError: the prompt has no column, or an id outside the vocabulary.
    """
    if tokens.shape[1] == 0:
        raise DataError("a prompt must have at least one symbol, got an empty one; begin with a line break or the start symbol")
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocabulary_size:
        span = f"{int(tokens.min())}..{int(tokens.max())}"
        raise DataError(f"the ids of a prompt must lie in 0..{vocabulary_size - 1} (the vocabulary), got {span}")
