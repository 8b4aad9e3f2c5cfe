"""The Transformer as a layer (Vaswani et al. 2017): an encoder, a causal stack, a decoder over a memory; its state keeps the step contract."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn.functional import pad

from unrolled.core.errors import ConfigurationError, UserError
from unrolled.core.noise import Noise
from unrolled.core.padded import Padded, check_lengths
from unrolled.core.state import State, map_state, named_leaves
from unrolled.nn.attention_parts import checked_memory
from unrolled.nn.positions import POSITIONS
from unrolled.nn.recurrence import Layer
from unrolled.nn.sharing import Sharing
from unrolled.nn.transformer_context import Plan, find_starts, make_plan
from unrolled.nn.transformer_dropout import Dropping, branch
from unrolled.nn.transformer_layers import NORMS, Block, Conditions, KeyValue, LayerWeights, Sight, TransformerSettings
from unrolled.nn.transformer_state import Reading, Symbols, TransformerState, join_readings, pad_weights, see_columns


class DecoderMemory(NamedTuple):
    """The `fixed` of a decoder: the keys and values of a source in every block, projected once."""

    layers: dict[str, KeyValue]
    mask: Bool[Tensor, "batch source"]
    sharing: Sharing | None = None
    """Which of these rows each row of the batch looks at, where several look at one (`nn.sharing.select_shared`)."""


class Work(NamedTuple):
    """What holds for all passes of one reading."""

    memory: DecoderMemory | None
    noise: Noise | None = None
    noise_again: Noise | None = None
    """Of what is read again."""
    weigh: bool = False


class Transformer(Layer):
    """A stack of blocks of attention and feed-forward networks; input and output have the same size.

    Bidirectional (an encoder) unless `causal`; with `memory_size` a decoder that attends to what `prepare` made of its source.
    """

    def __init__(
        self,
        settings: TransformerSettings,
        *,
        causal: bool = False,
        memory_size: int | None = None,
        scale_input: bool = False,
        context: int | None = None,
    ) -> None:
        """Build a stack.

        Args:
            settings: sizes, norm, positions, dropout.
            causal: whether a symbol sees only itself and what came before it.
            memory_size: features of the memory of a decoder; no attention to a memory when `None`.
            scale_input: multiply the input by √dim, as where embedding and read-out share weights (Vaswani et al. 2017, section 3.4).
            context: the most columns that a causal stack remembers. A row that remembers as many and reads one more keeps the last
                `context // 2`, reads them again as the beginning of a text, and goes on.

        Raises:
            ConfigurationError: a bound on a stack that is not causal or has a memory.
        """
        super().__init__()
        if context is not None and (not causal or memory_size is not None or context < 1):
            raise ConfigurationError(
                f"`context` must be at least 1, of a causal stack without a memory, got {context}; leave it out elsewhere"
            )
        self.settings, self.causal, self.memory_size, self.context = settings, causal, memory_size, context
        self.input_size = self.output_size = settings.dim
        self.input_scale = math.sqrt(settings.dim) if scale_input else 1.0
        self.positions = POSITIONS[settings.positions](settings.dim, context or settings.longest)
        self.blocks = nn.ModuleList(Block(settings, memory_size) for _ in range(settings.layers))
        self.norm = NORMS[settings.norm].final(settings.dim)

    def named_blocks(self) -> Iterator[tuple[str, Block]]:
        """The blocks from below, each with its name in the state.

        Yields:
            Name and block.
        """
        for name, block in self.blocks.named_children():
            assert isinstance(block, Block)
            yield name, block

    def initial_state(self, batch_size: int) -> TransformerState | None:
        """No column yet; `None` for an encoder, which remembers nothing.

        Args:
            batch_size: rows of the batch.

        Returns:
            A tree with batch as axis 0.
        """
        if not self.causal:
            return None
        like = next(self.parameters())
        empty = like.new_zeros(batch_size, 0, self.output_size)
        layers = {name: KeyValue(empty, empty) for name, _ in self.named_blocks()}
        begin = torch.zeros(batch_size, dtype=torch.int64, device=like.device)
        return TransformerState(begin, layers, None if self.context is None else empty)

    def restart(self, state: State, rows: Bool[Tensor, " batch"]) -> State:
        """The initial state for the rows marked: what they remember is hidden.

        Args:
            state: of this stack.
            rows: true where a row starts afresh.

        Returns:
            The state.
        """
        if state is None:
            return None
        return state._replace(begin=torch.where(rows, state.layers["0"].keys.shape[1], state.begin))

    def prepare(self, memory: Padded) -> DecoderMemory:
        """Project a source once for all steps of decoding.

        Args:
            memory: `[batch, source, memory]`; a row of length 0 is a `DataError`.

        Returns:
            The `fixed` of `forward` and `step`.

        Raises:
            UserError: a stack without attention to a memory.
        """
        if self.memory_size is None:
            raise UserError("a Transformer without `memory_size` attends to no memory and has nothing to prepare")
        data, mask = checked_memory(memory, self.memory_size)
        layers = {name: block.memory_attention.prepare(data) for name, block in self.named_blocks() if block.memory_attention is not None}
        return DecoderMemory(layers, mask)

    def forward(
        self,
        xs: Tensor | Padded,
        state: State = None,
        *,
        resets: Bool[Tensor, "batch time"] | None = None,
        noise: Noise | None = None,
        fixed: DecoderMemory | None = None,
    ) -> tuple[Any, State]:
        """Read whole sequences; see `Layer.forward`.

        Args:
            xs: `[batch, time, dim]`, or `Padded` for unequal lengths.
            state: the state before the first step; the initial state when `None`.
            resets: true where a new document begins: nothing before it is seen, and places are counted from it.
            noise: where dropout takes its masks from in training.
            fixed: what `prepare` made of a decoder's source.

        Returns:
            Outputs in the form of `xs` (zero past a length), and the state after each row's last step.
        """
        work = Work(fixed)
        if self.training:
            source, device = noise or Noise(), next(self.parameters()).device
            work = Work(fixed, branch(source, device), branch(source, device))
        outputs, state, _ = self._read(xs, state, resets, work)
        return outputs, state

    def step(self, x: Tensor, state: State, fixed: DecoderMemory | None = None) -> tuple[Tensor, State]:
        """One step of time without dropout.

        Args:
            x: `[batch, dim]`.
            state: the state after the step before.
            fixed: what `prepare` made of a decoder's source.

        Returns:
            The output and the new state.

        Raises:
            UserError: the stack is bidirectional.
        """
        if not self.causal:
            raise UserError(
                "a bidirectional Transformer needs the whole sequence and cannot be stepped; build it with causal=True to stream"
            )
        outputs, state, _ = self._read(x.unsqueeze(1), state, None, Work(fixed))
        return outputs.squeeze(1), state

    def attention_weights(
        self,
        xs: Tensor | Padded,
        state: State = None,
        *,
        resets: Bool[Tensor, "batch time"] | None = None,
        fixed: DecoderMemory | None = None,
    ) -> tuple[Any, dict[str, LayerWeights]]:
        """Read whole sequences without dropout and show what every head looks at.

        Args:
            xs: `[batch, time, dim]`, or `Padded`; more than a bounded context holds is a `UserError`.
            state: the state before the first step; its columns come before the new ones in the weights.
            resets: true where a new document begins.
            fixed: what `prepare` made of a decoder's source.

        Returns:
            The outputs of `forward`, and by block the weights `[batch, heads, time, columns]`, zero past a length.
        """
        outputs, _, weights = self._read(xs, state, resets, Work(fixed, weigh=True))
        return outputs, weights

    def _read(self, xs: Tensor | Padded, state: State, resets: Tensor | None, work: Work) -> tuple[Any, State, dict[str, LayerWeights]]:
        data, lengths = (xs.data, xs.lengths) if isinstance(xs, Padded) else (xs, None)
        batch, time = self._check(data, lengths, resets, state)
        self._check_memory(work.memory, batch)
        state = self.initial_state(batch) if state is None else state
        symbols = Symbols.of(data, lengths, resets)
        if symbols.data.numel():
            read = self._read_causal if self.causal else self._read_both_ways
            outputs, state, weights = read(symbols, state, work)
        else:
            outputs, weights = symbols.data, {}
        if not isinstance(xs, Padded):
            return outputs, state, weights
        past = time - outputs.shape[1]
        if symbols.valid is not None:
            outputs = torch.where(symbols.valid.unsqueeze(-1), outputs, 0)
            weights = {name: pad_weights(layer, symbols.valid, past) for name, layer in weights.items()}
        return Padded(pad(outputs, (0, 0, 0, past)), xs.lengths), state, weights

    def _read_both_ways(self, symbols: Symbols, state: State, work: Work) -> tuple[Tensor, State, dict[str, LayerWeights]]:
        data, valid, resets = symbols.data, symbols.valid, symbols.resets
        places, mask = torch.arange(data.shape[1], device=data.device).unsqueeze(0), None
        if resets is not None:
            documents = resets.cumsum(1)
            mask = (documents.unsqueeze(2) == documents.unsqueeze(1)).unsqueeze(1)
            places = places - torch.where(resets, places, 0).cummax(1).values
        if valid is not None:
            places = torch.where(valid, places, 0)
            # An empty row sees its padding, so that its averages, which nobody reads, are numbers.
            seen = (valid | (symbols.lengths == 0).unsqueeze(1))[:, None, None]
            mask = seen if mask is None else mask & seen
        reading = self._run(data, places, None, self._conditions(Sight(mask), work, (len(data), symbols.width)))
        return reading.outputs, state, reading.weights

    def _read_causal(self, symbols: Symbols, state: TransformerState, work: Work) -> tuple[Tensor, State, dict[str, LayerWeights]]:
        data, valid, resets = symbols.data, symbols.valid, symbols.resets
        (batch, time), columns = data.shape[:2], state.layers["0"].keys.shape[1]
        inputs = None if state.inputs is None else torch.cat([state.inputs.to(data.dtype), data], 1)
        bound = self.context if self.context is not None and columns + time > self.context else None
        starts = find_starts(state.begin, columns, resets, time)
        plan = make_plan(starts, columns, valid, bound)
        going_on = plan.stretch < 0 if valid is None else (plan.stretch < 0) & valid
        first = time if bound is None else int((going_on.any(0) * torch.arange(1, time + 1, device=data.device)).max())
        if len(plan.rows) and work.weigh:
            raise UserError(f"attention can be shown over at most {bound} symbols, the context, got {columns + time}; show a shorter text")

        went_on, stretches = Reading(data[:, :0], state.layers, {}), None
        if first:
            sight = Sight(causal=True) if columns == 0 and resets is None else Sight(see_columns(starts[:, :first], columns))
            conditions = self._conditions(sight, work, (batch, symbols.width), before=self.context or columns)
            went_on = self._run(data[:, :first], plan.place[:, :first], state.layers, conditions)
        if len(plan.rows):
            assert inputs is not None
            stretches = self._read_again(inputs, plan, work._replace(noise=work.noise_again), symbols.width)
        if valid is None and resets is None and bound is None:
            after = TransformerState(state.begin, map_state(Tensor.contiguous, went_on.layers), inputs)
            return went_on.outputs, after, went_on.weights
        outputs, after = join_readings(went_on, stretches, plan, symbols, state.begin, inputs)
        return outputs, after, went_on.weights

    def _read_again(self, inputs: Tensor, plan: Plan, work: Work, width: int) -> Reading:
        """Read every stretch that does not go on from the state, as a text of its own."""
        assert self.context is not None
        device = inputs.device
        longest = int(plan.place[plan.stretch >= 0].max()) + 1
        places = torch.arange(longest, device=device).unsqueeze(0)
        columns = (plan.begins.unsqueeze(1) + places).clamp(max=inputs.shape[1] - 1)
        # Of a row, so many at most: the first may begin at once, each frees room for as many symbols.
        most = width // (self.context - self.context // 2) + 1
        shape = (len(plan.place), most, self.context)
        conditions = self._conditions(Sight(causal=True), work, shape, (plan.rows, plan.turns))
        return self._run(inputs[plan.rows.unsqueeze(1), columns], places, None, conditions)

    def _conditions(
        self, sight: Sight, work: Work, shape: tuple[int, ...], chosen: tuple[Tensor, Tensor] | None = None, before: int = 0
    ) -> Conditions:
        """What holds for a pass; `shape` is that of its dropout masks, of which those of `chosen` are taken."""

        def drop(probability: float) -> Dropping | None:
            return Dropping(probability, work.noise, shape, chosen, before) if work.noise is not None and probability else None

        memory = work.memory
        memory_sight = None if memory is None else Sight(memory.mask[:, None, None])
        dropping = drop(self.settings.dropout), drop(self.settings.attention_dropout)
        layers, sharing = (None, None) if memory is None else (memory.layers, memory.sharing)
        return Conditions(sight, layers, memory_sight, sharing, *dropping, work.weigh)

    def _run(self, xs: Tensor, places: Tensor, past: dict[str, KeyValue] | None, conditions: Conditions) -> Reading:
        """One pass through all blocks."""
        x = xs * self.input_scale + self.positions(places, torch.promote_types(xs.dtype, torch.float32))
        if conditions.drop is not None:
            x = conditions.drop(x)
        layers, weights = {}, {}
        for name, block in self.named_blocks():
            memory = None if conditions.memory is None else conditions.memory[name]
            x, layers[name], looked = block(x, None if past is None else past[name], memory, conditions)
            if looked is not None:
                weights[name] = looked
        return Reading(self.norm(x), layers, weights)

    def _check(self, data: Tensor, lengths: Tensor | None, resets: Tensor | None, state: State) -> tuple[int, int]:
        if data.dim() != 3 or data.shape[2] != self.input_size:
            raise UserError(f"`xs` must be [batch, time, {self.input_size}], got {list(data.shape)}")
        batch, time = data.shape[:2]
        if lengths is not None:
            check_lengths(lengths, batch, time)
        if resets is not None and (resets.shape != (batch, time) or resets.dtype != torch.bool):
            raise UserError(f"`resets` must be boolean [{batch}, {time}], one mark a step, got {resets.dtype} {list(resets.shape)}")
        if state is not None and not self.causal:
            raise UserError(
                "a bidirectional Transformer remembers nothing between sequences and takes no `state`, got one; build it with causal=True"
            )
        for name, leaf in named_leaves(state):
            if leaf.shape[:1] != (batch,):
                raise UserError(f"`state` must have {batch} rows, one a row of `xs`, got {list(leaf.shape)} in `{name}`")
        return batch, time

    def _check_memory(self, memory: DecoderMemory | None, batch: int) -> None:
        if (memory is None) != (self.memory_size is None):
            found = (
                "got none; pass what `prepare` made of the source"
                if memory is None
                else "got one; build the Transformer with `memory_size`"
            )
            raise UserError(f"`fixed` is the memory of a decoder and must be given to one, and to no other stack, {found}")
        rows = batch if memory is None else len(memory.mask if memory.sharing is None else memory.sharing.owner)
        if rows != batch:
            raise UserError(f"`fixed` must have {batch} rows, one a row of `xs`, got {rows}; select its rows as those of the state")
