"""The only time loop: a cell unrolled over a sequence, stacks of such layers, and both directions."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from unrolled.core.errors import ConfigurationError, UserError
from unrolled.core.noise import Noise
from unrolled.core.padded import Padded, check_lengths, length_mask
from unrolled.core.state import State, map_state, named_leaves, where_state
from unrolled.kernels import has_bfloat16_products
from unrolled.nn.cell import Cell, Noisy
from unrolled.nn.compiled import run_compiled, tell_why, workload_of
from unrolled.nn.packing import unroll_packed
from unrolled.nn.parallel import run_parallel
from unrolled.nn.step_check import checked_once, checked_output_size
from unrolled.nn.stream import take_step
from unrolled.nn.unroll import Sequences, flip, flip_resets, run_steps, run_whole
from unrolled.nn.ways import WAYS, note_way, way_of


class Layer(nn.Module, ABC):
    """What maps a sequence to a sequence and can say with which state it ended: `Recurrence`, `Stacked`, `Bidirectional`."""

    input_size: int | None
    output_size: int

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """The state before the first step.

        Args:
            batch_size: rows of the batch.

        Returns:
            A tree with batch as axis 0.
        """

    @abstractmethod
    def forward(
        self,
        xs: Tensor | Padded,
        state: State = None,
        *,
        resets: Bool[Tensor, "batch time"] | None = None,
        noise: Noise | None = None,
    ) -> tuple[Any, State]:
        """Read whole sequences.

        Args:
            xs: `[batch, time, input]`, or `Padded` for unequal lengths.
            state: the state before the first step; the initial state when `None`.
            resets: true where a new document begins: the state starts afresh before that step.
            noise: where dropout takes its masks from in training; torch's own generator when `None`.

        Returns:
            Outputs in the form of `xs` (zero past a length), and the state after each row's last step.
        """

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of time without dropout, for streaming.

        Args:
            x: `[batch, input]`.
            state: the state after the step before.

        Returns:
            The output and the new state.

        Raises:
            UserError: the layer needs the whole sequence.
        """
        raise UserError(f"`{type(self).__name__}` needs the whole sequence and cannot be stepped; use layers of one direction to stream")

    def restart(self, state: State, rows: Bool[Tensor, " batch"]) -> State:
        """The initial state for the rows marked, the state as it is for the others.

        Args:
            state: of this layer.
            rows: true where a row starts afresh.

        Returns:
            A tree of the same form and types.
        """
        beginning = map_state(lambda new, old: new.to(old.dtype), self.initial_state(len(rows)), state)
        return where_state(rows, beginning, state)


class Recurrence(Layer):
    """A cell unrolled over time, the same weights at every step.

    The plain loop over `cell.step` is the definition. Where the cell offers `whole` (a vendor kernel, a parallel form), that is
    used instead, in runs between the steps at which a row ends or restarts, unless the cell says that the compiled loop is faster;
    any other step is compiled where it can be.
    `Recurrence(cell)(xs)` returns `(outputs, final_state)`.
    """

    def __init__(self, cell: Cell, *, reverse: bool = False, plain: bool = False, outputs_only: bool = False) -> None:
        """Unroll `cell`.

        Args:
            cell: has `initial_state` and `step`.
            reverse: read each sequence from its end; outputs stay at the place of their input.
            plain: always take the plain loop, even where the cell offers a faster way.
            outputs_only: give no final state for unequal lengths: the faster way then runs once over all steps, with short sequences
                behind long ones in a row where the cell can, and what it makes of the padding is thrown away.
        """
        super().__init__()
        self.cell, self.reverse, self.plain, self.outputs_only = cell, reverse, plain, outputs_only
        self.input_size = getattr(cell, "input_size", None)
        self.output_size = checked_output_size(cell)

    def initial_state(self, batch_size: int) -> State:
        """The cell's initial state.

        Args:
            batch_size: rows of the batch.

        Returns:
            A tree with batch as axis 0.
        """
        return self.cell.initial_state(batch_size)

    def extra_repr(self) -> str:
        """Which way the cell was unrolled last.

        Returns:
            Such as `by a compiled loop`.
        """
        way = way_of(self.cell, training=self.cell.training)
        said = [name for name in ("reverse", "plain", "outputs_only") if getattr(self, name)]
        return ", ".join(said if way is None else [*said, f"by {WAYS[way]}"])

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of the cell, compiled where no gradient is wanted.

        Args:
            x: `[batch, input]`.
            state: the state after the step before.

        Returns:
            The output and the new state.

        Raises:
            UserError: the layer reads backwards.
        """
        if self.reverse:
            raise UserError("a layer that reads backwards needs the whole sequence and cannot be stepped")
        if self.plain:
            return checked_once(self.cell, state, self.cell.step(x, state))
        return take_step(self.cell, x, state)

    def forward(
        self,
        xs: Tensor | Padded,
        state: State = None,
        *,
        resets: Bool[Tensor, "batch time"] | None = None,
        noise: Noise | None = None,
        fixed: State = None,
    ) -> tuple[Any, State]:
        """Read whole sequences; see `Layer.forward`.

        Args:
            xs: `[batch, time, input]`, or `Padded` for unequal lengths.
            state: the state before the first step; the initial state when `None`.
            resets: true where a new document begins.
            noise: where dropout takes its masks from in training.
            fixed: what the cell keeps for the whole sequence; drawn by the cell in training when `None`.

        Returns:
            Outputs in the form of `xs`, and the state after each row's last step.
        """
        data, lengths = (xs.data, xs.lengths) if isinstance(xs, Padded) else (xs, None)
        batch, time = self._check(data, lengths, resets, state)
        lengths = None if lengths is None else lengths.to(data.device)
        if resets is not None and lengths is not None:
            resets = resets & length_mask(lengths, time)
        begins = state is None
        state = self.initial_state(batch) if state is None else state
        step_noise = None
        if self.cell.training:
            noise = noise or Noise()
            fixed = self.cell.fixed(batch, noise) if fixed is None else fixed
            step_noise = self.cell.step_noise(batch, time, noise)
        free = self.outputs_only and not self.plain and resets is None and step_noise is None and fixed is None
        if free and lengths is not None and begins:
            packed = None
            if self.cell.begins_anew or not self._prefers_whole(Sequences(data, None, None)):
                packed = unroll_packed(self._read, data, lengths, reverse=self.reverse, hidden_size=self.output_size)
            if packed is not None:
                return Padded(packed, lengths), None
        if self.reverse:
            data, resets = flip(data, lengths), flip_resets(resets, lengths)
        unrolled = self._unroll_padding(data, lengths, state) if free and lengths is not None else None
        outputs, final = unrolled or self._unroll(Sequences(data, lengths, resets), state, fixed, step_noise)
        if self.reverse:
            outputs = map_state(lambda leaf: flip(leaf, lengths), outputs)
        return (outputs if lengths is None else Padded(outputs, lengths)), final

    def _unroll(self, sequences: Sequences, state: State, fixed: State, step_noise: State) -> tuple[Any, State]:
        batch, time = sequences.data.shape[:2]
        if batch == 0 or time == 0:
            return self.cell.zeros(batch, time, self.output_size), state
        restart = None if sequences.resets is None else self.initial_state(batch)
        inputs = Noisy(sequences.data, step_noise) if step_noise is not None else sequences.data
        compiled = partial(run_compiled, self.cell, inputs, sequences, state, restart, fixed)
        whole = partial(run_whole, self.cell, sequences, state, restart)
        parallel = partial(run_parallel, self.cell, sequences, state, restart)
        ways: dict[str, Callable[[], tuple[Any, State] | None]] = {}
        if not self.plain:
            ways = {"compiled": compiled}
            if fixed is None and step_noise is None:
                first = {"whole": whole} if self.cell.offers_whole and self._prefers_whole(sequences) else {}
                ways = {**first, **ways, "whole": whole, "parallel": parallel}
        for name, way in ways.items():
            result = way()
            if result is not None:
                note_way(self.cell, name)
                return result
        result = run_steps(self.cell, inputs, sequences, state, restart, fixed)
        note_way(self.cell, "steps")
        tell_why(self.cell)
        return result

    def _prefers_whole(self, sequences: Sequences) -> bool:
        data, place = sequences.data, sequences.data.device.type
        if torch.is_autocast_enabled(place) and (
            place != "cpu" or torch.get_autocast_dtype(place) != torch.bfloat16 or not has_bfloat16_products()
        ):
            return True  # vendors have kernels of half precision
        work = workload_of(self.cell, data, sequences)
        return work is None or self.cell.prefers_whole(work)

    def _read(self, data: Tensor, between: Tensor) -> State:
        """Read sequences behind one another."""
        if self.cell.begins_anew and self._prefers_whole(Sequences(data, None, None)):
            return self._read_anew(data, between)
        return self._read_compiled(data, between)

    def _read_anew(self, data: Tensor, between: Tensor) -> Tensor | None:
        outputs = self.cell.whole_anew(data, between)
        if not math.isfinite(float(outputs.detach().sum())):
            return None  # a state is forgotten by a gate that is shut, which stops no NaN: neighbours must not get one
        note_way(self.cell, "whole")
        return outputs

    def _read_compiled(self, data: Tensor, between: Tensor) -> State:
        state = self.initial_state(len(data))
        if any(bool((leaf != leaf[:1]).any()) for _, leaf in named_leaves(state)):
            return None  # whose is whose is not known here
        # Behind each place where no sequence lies the state begins anew.
        result = run_compiled(self.cell, data, Sequences(data, None, between.roll(1, 1)), state, state, None)
        if result is None:
            return None
        note_way(self.cell, "compiled")
        return result[0]

    def _unroll_padding(self, data: Tensor, lengths: Tensor, state: State) -> tuple[Any, State] | None:
        """Over the padding as well: it lies behind each row, so that no output before it knows."""
        if 0 in data.shape[:2] or not self._prefers_whole(Sequences(data, None, None)):
            return None
        inside = length_mask(lengths, data.shape[1]).unsqueeze(-1)
        result = self.cell.whole(torch.where(inside, data, 0), state)
        if result is None:
            return None
        note_way(self.cell, "whole")
        return torch.where(inside, result[0], 0), None

    def _check(self, data: Tensor, lengths: Tensor | None, resets: Tensor | None, state: State) -> tuple[int, int]:
        if data.dim() < 3 or (self.input_size is not None and data.shape[2] != self.input_size):
            raise UserError(f"`xs` must be [batch, time, {self.input_size or 'input'}], got {list(data.shape)}")
        batch, time = data.shape[:2]
        if lengths is not None:
            check_lengths(lengths, batch, time)
        if resets is not None and (resets.shape != (batch, time) or resets.dtype != torch.bool):
            raise UserError(f"`resets` must be boolean [{batch}, {time}], one mark a step, got {resets.dtype} {list(resets.shape)}")
        for name, leaf in named_leaves(state):
            if leaf.shape[:1] != (batch,):
                raise UserError(f"`state` must have {batch} rows, one a row of `xs`, got {list(leaf.shape)} in `{name}`")
        return batch, time


class Stacked(Layer):
    """Layers on top of each other; the state is nested by the name of each layer, `{"0": …, "1": …}`."""

    def __init__(self, *layers: Layer) -> None:
        """Stack layers, the first reads the input.

        Args:
            layers: `Recurrence`, `Bidirectional`, `LockedDropout`, `Stacked`, …

        Raises:
            ConfigurationError: no layer, or sizes that do not meet.
        """
        super().__init__()
        if not layers:
            raise ConfigurationError("`Stacked` needs at least one layer, got none")
        self.layers = nn.ModuleList(layers)
        self.input_size = layers[0].input_size
        size: int | None = None
        for place, layer in enumerate(layers):
            if size is not None and layer.input_size not in (None, size):
                raise ConfigurationError(f"layer {place} of `Stacked` reads {layer.input_size} features, the layer below it gives {size}")
            size = layer.output_size or size
        self.output_size = size or 0

    def named_layers(self) -> Iterator[tuple[str, Layer]]:
        """The layers from below, each with its name in the state.

        Yields:
            Name and layer.
        """
        for name, layer in self.layers.named_children():
            assert isinstance(layer, Layer)
            yield name, layer

    def initial_state(self, batch_size: int) -> State:
        """The initial states of all layers.

        Args:
            batch_size: rows of the batch.

        Returns:
            States by layer.
        """
        return {name: layer.initial_state(batch_size) for name, layer in self.named_layers()}

    def forward(
        self,
        xs: Tensor | Padded,
        state: State = None,
        *,
        resets: Bool[Tensor, "batch time"] | None = None,
        noise: Noise | None = None,
    ) -> tuple[Any, State]:
        """Read whole sequences, layer by layer; see `Layer.forward`.

        Args:
            xs: `[batch, time, input]`, or `Padded`.
            state: states by layer.
            resets: true where a new document begins.
            noise: where dropout takes its masks from in training.

        Returns:
            The outputs of the last layer, and the states by layer.
        """
        final = {}
        for name, layer in self.named_layers():
            xs, final[name] = layer(xs, None if state is None else state[name], resets=resets, noise=noise)
        return xs, final

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step through all layers.

        Args:
            x: `[batch, input]`.
            state: states by layer.

        Returns:
            The output of the last layer, and the new states.
        """
        after = {}
        for name, layer in self.named_layers():
            x, after[name] = layer.step(x, state[name])
        return x, after

    def restart(self, state: State, rows: Bool[Tensor, " batch"]) -> State:
        """The initial states for the rows marked, layer by layer.

        Args:
            state: states by layer.
            rows: true where a row starts afresh.

        Returns:
            States by layer.
        """
        return {name: layer.restart(state[name], rows) for name, layer in self.named_layers()}


class Bidirectional(Layer):
    """Two layers over the same input, one from the front and one from the end: `h_t = [forward_t ; backward_t]` (Schuster & Paliwal 1997)."""

    def __init__(self, forwards: Cell, backwards: Cell, *, outputs_only: bool = False) -> None:
        """Read with one cell in each direction; each has weights of its own.

        Args:
            forwards: reads from the front.
            backwards: reads from the end.
            outputs_only: give no final states for unequal lengths, which is faster.
        """
        super().__init__()
        self.forwards = Recurrence(forwards, outputs_only=outputs_only)
        self.backwards = Recurrence(backwards, reverse=True, outputs_only=outputs_only)
        self.input_size = self.forwards.input_size
        self.output_size = self.forwards.output_size + self.backwards.output_size

    def initial_state(self, batch_size: int) -> State:
        """The initial states of both directions.

        Args:
            batch_size: rows of the batch.

        Returns:
            `{"forwards": …, "backwards": …}`.
        """
        return {"forwards": self.forwards.initial_state(batch_size), "backwards": self.backwards.initial_state(batch_size)}

    def forward(
        self,
        xs: Tensor | Padded,
        state: State = None,
        *,
        resets: Bool[Tensor, "batch time"] | None = None,
        noise: Noise | None = None,
    ) -> tuple[Any, State]:
        """Read whole sequences in both directions; see `Layer.forward`.

        Args:
            xs: `[batch, time, input]`, or `Padded`.
            state: states by direction.
            resets: true where a new document begins.
            noise: where dropout takes its masks from in training.

        Returns:
            Outputs `[batch, time, 2 * hidden]` and the states by direction (the backward one after its row's first step).
        """
        state = state or {"forwards": None, "backwards": None}
        ahead, ahead_state = self.forwards(xs, state["forwards"], resets=resets, noise=noise)
        back, back_state = self.backwards(xs, state["backwards"], resets=resets, noise=noise)
        both = {"forwards": ahead_state, "backwards": back_state}
        if isinstance(xs, Padded):
            return Padded(torch.cat([ahead.data, back.data], -1), xs.lengths), both
        return torch.cat([ahead, back], -1), both
