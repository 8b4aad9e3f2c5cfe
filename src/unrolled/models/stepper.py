"""Models as decoding sees them."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from unrolled.core.padded import Padded
from unrolled.core.state import State, select_state
from unrolled.models.encoder_decoder import EncoderDecoder, Translating
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


class EncoderDecoderStepper:
    """Decodes with an encoder–decoder: the source is a batch of symbols with their lengths."""

    def __init__(self, model: EncoderDecoder) -> None:
        self.model = model.eval()

    @property
    def vocabulary_size(self) -> int:
        """How many target symbols there are, special ones included."""
        return self.model.sizes.target

    def start(self, source: Padded) -> Translating:
        """Read sources.

        Args:
            source: ids `[batch, time]` with their lengths.

        Returns:
            The state before the first target symbol.
        """
        return self.model.encode(source)

    def step(self, tokens: Int[Tensor, " batch"], state: Translating) -> tuple[Float[Tensor, "batch vocab"], Translating]:
        """Read one target symbol a row.

        Args:
            tokens: ids.
            state: the state after the symbol before.

        Returns:
            Logits of the next symbol, and the new state.
        """
        return self.model.step(tokens, state)

    def select(self, state: Translating, rows: Int[Tensor, " chosen"]) -> Translating:
        """The state of some rows.

        Args:
            state: a state of this model.
            rows: indices into the batch.

        Returns:
            Their state.
        """
        fixed = self.model.decoder.select(state.fixed, rows)
        return Translating(fixed, *(select_state(part, rows) for part in state[1:]))

    def reorder(self, state: Translating, rows: Int[Tensor, " batch"]) -> Translating:
        """Rows of the same source change places: what holds for the source need not be copied.

        Args:
            state: a state of this model.
            rows: for each row the one that it goes on from.

        Returns:
            The state.
        """
        return Translating(state.fixed, select_state(state.state, rows), state.source, select_state(state.weights, rows))


class AligningStepper(EncoderDecoderStepper):
    """The same for a model whose every step says what it attended to."""

    def alignment(self, state: Translating) -> Float[Tensor, "batch source"]:
        """What the last step attended to.

        Args:
            state: after a step.

        Returns:
            Weights, the mean over heads.
        """
        assert state.weights is not None
        return state.weights


def stepper_of(model: EncoderDecoder) -> EncoderDecoderStepper:
    """A model as decoding sees it.

    Args:
        model: an encoder–decoder.

    Returns:
        A stepper; with alignments where the decoder gives them.
    """
    return AligningStepper(model) if model.decoder.aligns else EncoderDecoderStepper(model)
