"""A recurrent decoder that attends to the source before or after each step, or not at all."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unrolled.core.errors import ConfigurationError
from unrolled.core.noise import Noise
from unrolled.core.padded import Padded
from unrolled.core.state import State, named_leaves, restore_state, select_state
from unrolled.models.cell_choice import find_cell
from unrolled.models.encoder_decoder_settings import EncoderDecoderSettings
from unrolled.models.encoders import Encoded, Look, with_recurrent_dropout
from unrolled.nn.attention import ATTENTIONS, Attended, Attention, Memory
from unrolled.nn.cell import Cell
from unrolled.nn.recurrence import Recurrence
from unrolled.nn.sharing import Sharing, select_shared
from unrolled.nn.step_check import checked_once
from unrolled.nn.stream import take_step


class Decoded(NamedTuple):
    """What a decoder makes of its input, before the read-out."""

    hidden: Float[Tensor, "batch *time dim"]
    weights: Float[Tensor, "batch *time heads source"] | None
    """What was attended to at each step; `None` without attention, or where nobody asked."""


class DecoderState(NamedTuple):
    """What changes from step to step."""

    layers: dict[str, State]
    """The state of each layer's cell by its name."""
    fed: Float[Tensor, "batch read"] | None
    """The attentional vector of the step before, where it is fed back."""
    coverage: Float[Tensor, "batch source"] | None
    """The sum of attention so far, where it is kept."""


class DecoderFixed(NamedTuple):
    """What holds for a whole target."""

    memory: Memory | None
    """The source with its projected keys."""
    summary: Float[Tensor, "batch hidden"] | None
    """The source in one vector, where every step reads it."""
    layers: dict[str, State] | None
    """What each layer's cell drew for this batch in training."""
    masks: dict[str, Float[Tensor, "batch hidden"]] | None
    """Locked dropout above each layer but the last, in training."""
    sharing: Sharing | None = None
    """In single steps: which memory each row of the batch looks at, where several look at one."""


class DecoderCell(Cell):
    """One step of the decoder.

    ::

        x_t = [y_{t-1} ; ã_{t-1} if fed ; summary if read at every step ; c_t if attended before]
        s_t = f(x_t, s_{t-1})                      layer by layer
        c_t = Σ_j α_tj h_j                         with s_{t-1} before the step, or with s_t after it
        ã_t = tanh(W_c [s_t ; c_t])                or [s_t ; c_t] itself; s_t without attention

    Before: Bahdanau et al. 2015, appendix A; after, and feeding: Luong et al. 2015, sections 3.1 and 3.3.
    """

    def __init__(self, settings: EncoderDecoderSettings, input_size: int, memory_size: int, *, trust: bool = False) -> None:
        super().__init__()
        wanted, hidden = settings.attention, settings.hidden_size
        attends = wanted.kind != "none"
        self.settings, self.before = wanted, attends and wanted.when == "before"
        self.every = settings.context == "every"
        self.hidden_size, self.memory_size = hidden, memory_size
        self.attention: Attention | None = self._attention(hidden, memory_size) if attends else None
        context = self.attention.context_size if self.attention is not None else 0
        self.input_size = input_size
        direct = attends and wanted.readout == "direct"
        self.read_out_size = hidden + context if direct else hidden
        first = input_size + self.read_out_size * wanted.input_feeding + memory_size * self.every + context * self.before
        cell = with_recurrent_dropout(find_cell(settings.decoder.cell, trust=trust), settings.recurrent_dropout)
        self.cells = nn.ModuleDict({str(i): cell(hidden if i else first, hidden) for i in range(settings.decoder.layers)})
        self.combine = nn.Linear(hidden + context, hidden, bias=False) if attends and not direct else None
        self.keep = 1 - settings.hidden_dropout
        if self.before and not hasattr(self._cell(str(len(self.cells) - 1)).initial_state(1), "h"):
            raise ConfigurationError(
                f"`attention.when=before` needs a cell whose state has `h` to attend with, and `{settings.decoder.cell}` has none; "
                "set `attention.when=after`"
            )

    def _attention(self, hidden: int, memory_size: int) -> Attention:
        wanted = self.settings
        made: Attention = ATTENTIONS[wanted.kind](hidden, memory_size, hidden_size=hidden, heads=wanted.heads, coverage=wanted.coverage)
        return made

    def _cell(self, name: str) -> Cell:
        cell = self.cells[name]
        assert isinstance(cell, Cell)
        return cell

    @property
    def unrolls_at_once(self) -> bool:
        """Whether a step needs nothing of the step before but the states of the layers: attention is then one product for all steps."""
        return not (self.before or self.settings.input_feeding or self.settings.coverage)

    def initial_state(self, batch_size: int) -> DecoderState:
        """The state before the first symbol where there is no source.

        Args:
            batch_size: rows of the batch.

        Returns:
            Initial states of the cells; what is fed back is zero; coverage grows with a source and is not there yet.
        """
        layers = {name: self._cell(name).initial_state(batch_size) for name in self.cells}
        fed = self.zeros(batch_size, self.read_out_size) if self.settings.input_feeding else None
        return DecoderState(layers, fed, None)

    def prepare(self, encoded: Encoded, noise: Noise | None = None) -> DecoderFixed:
        """What holds for a whole target: keys are projected here, once a source.

        Args:
            encoded: the source.
            noise: where masks come from in training.

        Returns:
            The third argument of `step`.
        """
        memory = None if self.attention is None else self.attention.prepare(encoded.memory)
        layers = masks = None
        if self.training:
            noise, batch = noise or Noise(), len(encoded.summary)
            layers = {name: self._cell(name).fixed(batch, noise) for name in self.cells}
            below_last = list(self.cells)[:-1] if self.keep < 1 else []
            like = encoded.summary if encoded.summary.numel() else encoded.memory.data
            masks = {name: noise.rows((batch, self.hidden_size), self.keep, like) / self.keep for name in below_last}
        return DecoderFixed(memory, encoded.summary if self.every else None, layers, masks)

    def step(self, x: Float[Tensor, "batch input"], state: DecoderState, fixed: DecoderFixed) -> tuple[Decoded, DecoderState]:  # type: ignore[override]
        """One symbol; see the equations of the class.

        Args:
            x: the embedded symbol before.
            state: the state after the step before.
            fixed: from `prepare`.

        Returns:
            `ã_t` with the attention weights, and the new state.
        """
        parts, attended = [x], None
        if state.fed is not None:
            parts.append(state.fed)
        if fixed.summary is not None:
            parts.append(fixed.summary if fixed.sharing is None else fixed.summary[fixed.sharing.owner])
        if self.before:
            top: Any = state.layers[str(len(self.cells) - 1)]
            attended = self._attend(top.h, state, fixed)
            parts.append(attended.context.squeeze(1))
        below = torch.cat(parts, -1) if len(parts) > 1 else x
        layers = {}
        for name in self.cells:
            below, layers[name] = self._layer(name, below, state.layers[name], fixed)
        if self.attention is not None and attended is None:
            attended = self._attend(below, state, fixed)
        if attended is None:
            return Decoded(below, None), DecoderState(layers, None, None)
        hidden = self.merge(below, attended.context.squeeze(1))
        weights = attended.weights.squeeze(2)
        coverage = None if state.coverage is None else state.coverage + weights.mean(1).to(state.coverage.dtype)
        return Decoded(hidden, weights), DecoderState(layers, None if state.fed is None else hidden, coverage)

    def _layer(self, name: str, below: Tensor, state: State, fixed: DecoderFixed) -> tuple[Tensor, State]:
        drawn = None if fixed.layers is None else fixed.layers[name]
        cell = self._cell(name)
        if self.training or drawn is not None:
            above, after = checked_once(cell, state, cell(below, state, drawn))
        else:
            above, after = take_step(cell, below, state)
        if fixed.masks and name in fixed.masks:
            above = above * fixed.masks[name]
        return above, after

    def _attend(self, query: Tensor, state: DecoderState, fixed: DecoderFixed) -> Attended:
        assert fixed.memory is not None
        queries = query.unsqueeze(1)
        if fixed.sharing is None:
            return self._look(queries, fixed.memory, state.coverage)
        found = self._look(fixed.sharing.fold(queries), fixed.memory, None)
        return Attended(fixed.sharing.unfold(found.context), fixed.sharing.unfold_weights(found.weights))

    def _look(self, queries: Tensor, memory: Memory, coverage: Tensor | None) -> Attended:
        assert self.attention is not None
        attended: Attended = self.attention(queries, memory, coverage)
        return attended

    def merge(self, outputs: Float[Tensor, "*rows hidden"], context: Float[Tensor, "*rows context"]) -> Float[Tensor, "*rows read"]:
        """`ã = tanh(W_c [s ; c])`, or `[s ; c]`.

        Args:
            outputs: s.
            context: c.

        Returns:
            The attentional vectors.
        """
        both = torch.cat([outputs, context], -1)
        return both if self.combine is None else torch.tanh(self.combine(both))


class RecurrentDecoder(nn.Module):
    """The decoder over whole targets (teacher forcing) and step by step; the two agree."""

    reach: int | None = None
    """The most symbols that positions exist for."""

    def __init__(self, settings: EncoderDecoderSettings, input_size: int, memory_size: int, *, trust: bool = False) -> None:
        super().__init__()
        self.cell = DecoderCell(settings, input_size, memory_size, trust=trust)
        self.output_size = self.cell.read_out_size
        like = [leaf for _, leaf in named_leaves(self.cell.initial_state(1).layers)]
        # In the separator form the decoder's own layers read the source, and there is nothing to bridge.
        self.bridge = nn.Linear(memory_size, sum(leaf.shape[1] for leaf in like)) if memory_size else None

    @property
    def aligns(self) -> bool:
        """Whether every step says what it attended to."""
        return self.cell.attention is not None

    def looks(self, xs: Float[Tensor, "batch time input"], state: DecoderState, fixed: DecoderFixed) -> dict[str, Look]:
        """What is attended to over a whole target.

        Args:
            xs: the embedded symbols before each step.
            state: from `start`.
            fixed: from `prepare`.

        Returns:
            The weights over the source; nothing without attention.
        """
        weights = self.read(xs, state, fixed)[0].weights
        return {} if weights is None else {"1": Look(None, weights.transpose(1, 2))}

    def start(self, encoded: Encoded) -> DecoderState:
        """The state before the first symbol: every part of every layer's state is `tanh(W summary + b)`.

        Args:
            encoded: the source.

        Returns:
            The state.
        """
        assert self.bridge is not None
        batch = len(encoded.summary)
        empty = self.cell.initial_state(batch)
        leaves = dict(named_leaves(empty.layers))
        parts = torch.tanh(self.bridge(encoded.summary)).split([leaf.shape[1] for leaf in leaves.values()], -1)
        layers = restore_state(empty.layers, dict(zip(leaves, parts, strict=True)))
        coverage = self._no_coverage(encoded.memory.data) if self.cell.settings.coverage else None
        return DecoderState(layers, empty.fed, coverage)

    def _no_coverage(self, memory: Tensor) -> Tensor:
        # A sum of many small numbers: bf16 would lose them.
        return memory.new_zeros(memory.shape[:2], dtype=torch.promote_types(memory.dtype, torch.float32))

    def prepare(self, encoded: Encoded, noise: Noise | None = None) -> DecoderFixed:
        """What holds for a whole target.

        Args:
            encoded: the source.
            noise: where masks come from in training.

        Returns:
            The memory with its projected keys, and masks.
        """
        return self.cell.prepare(encoded, noise)

    def select(self, fixed: DecoderFixed, rows: Int[Tensor, " chosen"]) -> DecoderFixed:
        """What holds for the sources of some rows; several rows may be of one.

        Args:
            fixed: from `prepare`.
            rows: indices into the batch.

        Returns:
            The same for those rows; for single steps only.
        """
        shares = fixed.memory is not None and not self.cell.settings.coverage
        chosen: DecoderFixed = select_shared(fixed, rows) if shares else select_state(fixed, rows)
        return chosen

    def absorb(self, vectors: Padded, fixed: DecoderFixed, noise: Noise | None = None) -> DecoderState:
        """Read a source with the decoder's own layers (separator form), under the masks of the target.

        Args:
            vectors: the embedded source.
            fixed: from `prepare`.
            noise: where masks come from in training.

        Returns:
            The state after each row's last symbol.
        """
        below: Any = vectors
        layers = {}
        for name in self.cell.cells:
            drawn = None if fixed.layers is None else fixed.layers[name]
            below, layers[name] = Recurrence(self.cell._cell(name))(below, noise=noise, fixed=drawn)
            if fixed.masks and name in fixed.masks:
                below = Padded(below.data * fixed.masks[name].unsqueeze(1), below.lengths)
        return DecoderState(layers, None, None)

    def step(self, x: Float[Tensor, "batch input"], state: DecoderState, fixed: DecoderFixed) -> tuple[Decoded, DecoderState]:
        """One symbol.

        Args:
            x: the embedded symbol before.
            state: the state after the step before.
            fixed: from `prepare`.

        Returns:
            The vector to read out, and the new state.
        """
        return self.cell.step(x, state, fixed)

    def read(
        self, xs: Float[Tensor, "batch time input"], state: DecoderState, fixed: DecoderFixed, noise: Noise | None = None
    ) -> tuple[Decoded, DecoderState]:
        """A whole target at once.

        Args:
            xs: the embedded symbols before each step.
            state: from `start`.
            fixed: from `prepare`.
            noise: where masks come from in training.

        Returns:
            One vector a step, and the state after the last.
        """
        if not self.cell.unrolls_at_once:
            decoded, after = Recurrence(self.cell, plain=True)(xs, state, fixed=fixed)
            return decoded, after
        below = xs if fixed.summary is None else torch.cat([xs, fixed.summary.unsqueeze(1).expand(-1, xs.shape[1], -1)], -1)
        layers = {}
        for name in self.cell.cells:
            drawn = None if fixed.layers is None else fixed.layers[name]
            below, layers[name] = Recurrence(self.cell._cell(name))(below, state.layers[name], noise=noise, fixed=drawn)
            if fixed.masks and name in fixed.masks:
                below = below * fixed.masks[name].unsqueeze(1)
        after = DecoderState(layers, None, None)
        if self.cell.attention is None:
            return Decoded(below, None), after
        attended = self.cell.attention(below, fixed.memory)
        return Decoded(self.cell.merge(below, attended.context), attended.weights.transpose(1, 2)), after
