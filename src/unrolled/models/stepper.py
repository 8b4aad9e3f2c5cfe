"""A language model as decoding sees it."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from unrolled.core.state import State, select_state
from unrolled.models.language_model import LanguageModel


class LanguageModelStepper:
    """Decodes with a language model: the source is the number of rows."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model.eval()

    @property
    def vocabulary_size(self) -> int:
        """How many symbols there are."""
        return self.model.vocabulary

    def start(self, source: int) -> State:
        """The model's initial state.

        Args:
            source: rows of the batch.

        Returns:
            A tree with batch as axis 0.
        """
        return self.model.initial_state(source)

    def step(self, tokens: Int[Tensor, " batch"], state: State) -> tuple[Float[Tensor, "batch vocab"], State]:
        """Read one symbol a row.

        Args:
            tokens: ids.
            state: the state after the symbol before.

        Returns:
            Logits of the next symbol, and the new state.
        """
        return self.model.step(tokens, state)

    def prefill(self, tokens: Int[Tensor, "batch time"], state: State) -> tuple[Float[Tensor, "batch vocab"], State]:
        """Read a prompt at once.

        Args:
            tokens: ids, at least one column.
            state: the state before it.

        Returns:
            Logits of the symbol after it, and the new state.
        """
        reading = self.model.read(tokens, state)
        return self.model.readout(reading.hidden[:, -1]), reading.state

    def select(self, state: State, rows: Int[Tensor, " chosen"]) -> State:
        """The state of some rows.

        Args:
            state: a state of this model.
            rows: indices into the batch.

        Returns:
            Their state.
        """
        return select_state(state, rows)
