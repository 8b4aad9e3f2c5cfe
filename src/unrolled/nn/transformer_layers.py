"""The parts of a Transformer block: heads over a mask, attention to itself and to a memory, the inner network, what goes around them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import gelu, relu, scaled_dot_product_attention

from unrolled.core.settings import Settings
from unrolled.nn.attention_parts import join_heads, masked_softmax, split_heads
from unrolled.nn.sharing import Sharing
from unrolled.nn.transformer_dropout import Dropping

MANY = 16
"""Rows from which single queries are looked up by our own way."""
CACHED = 1 << 18
"""How many numbers of keys it multiplies at once: as many as stay in a processor's cache."""


class TransformerSettings(Settings):
    """What a stack of Transformer blocks is made of."""

    dim: int = Field(512, ge=1)
    """Features of every symbol, from the first block to the last."""
    heads: int = Field(8, ge=1)
    """Heads of attention, which share the features evenly."""
    layers: int = Field(6, ge=1)
    """Blocks on top of each other."""
    inner_size: int | None = Field(None, ge=1)
    """Units of each block's two-layer network; four times `dim` when not given."""
    norm: Literal["pre", "post"] = "pre"
    """Normalise before each part (steadier; Xiong et al. 2020) or after it, as first published."""
    activation: Literal["relu", "gelu"] = "relu"
    """Of the two-layer network."""
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    """Computed vectors for any length, or learned ones up to `longest`."""
    longest: int = Field(1024, ge=1)
    """How many places learned positions have."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """On what each part adds, and on the input."""
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    """On the weights of attention; leaves the fast way of computing it."""

    @model_validator(mode="after")
    def _heads_share(self) -> TransformerSettings:
        if self.dim % self.heads:
            raise ValueError(f"`heads` must share the {self.dim} features of `dim` evenly, got {self.heads}; use a divisor of {self.dim}")
        return self


class KeyValue(NamedTuple):
    """What attention in one layer looks up, heads side by side."""

    keys: Float[Tensor, "batch columns dim"]
    values: Float[Tensor, "batch columns dim"]


class LayerWeights(NamedTuple):
    """The weights of attention in one layer; rows sum to one."""

    own: Float[Tensor, "batch heads time columns"]
    """Over the layer's own columns: those in the state, then the new ones."""
    memory: Float[Tensor, "batch heads time source"] | None
    """Over the memory of a decoder."""


class Sight(NamedTuple):
    """Which columns each query sees: all, all up to its own, or those of a mask (true where seen; at least one a query)."""

    mask: Bool[Tensor, "batch 1 time columns"] | None = None
    causal: bool = False

    def full_mask(self, time: int, columns: int, device: torch.device) -> Bool[Tensor, "batch 1 time columns"]:
        """The same as a mask.

        Args:
            time: queries.
            columns: what they look at.
            device: of the mask.

        Returns:
            True where seen.
        """
        if self.mask is not None:
            return self.mask
        seen = torch.ones(1, 1, time, columns, dtype=torch.bool, device=device)
        return seen.tril(columns - time) if self.causal else seen


class Conditions(NamedTuple):
    """What holds for one pass through all blocks."""

    sight: Sight
    memory: dict[str, KeyValue] | None = None
    """Of a decoder, by block."""
    memory_sight: Sight | None = None
    sharing: Sharing | None = None
    """Which memory each row looks at, where several look at one."""
    drop: Dropping | None = None
    drop_weights: Dropping | None = None
    weigh: bool = False
    """Whether the weights of attention are wanted."""


def look_up(
    query: Float[Tensor, "batch time dim"], found: KeyValue, heads: int, sight: Sight, drop: Callable[[Tensor], Tensor] | None, weigh: bool
) -> tuple[Float[Tensor, "batch time dim"], Float[Tensor, "batch heads time columns"] | None]:
    """Scaled dot-product attention of several heads: `softmax(q kᵀ / √head) v` (Vaswani et al. 2017, section 3.2.1).

    Args:
        query: heads side by side.
        found: keys and values.
        heads: how many.
        sight: which columns each query sees.
        drop: of weights, or `None`.
        weigh: whether the weights are wanted.

    Returns:
        The heads' averages side by side, and the weights where wanted.
    """
    plain = drop is None and not weigh
    if plain and query.shape[1] == 1 and len(query) >= MANY and _reads_alone(query, *found):
        return _one_query(query, found, heads, sight), None
    q, k, v = (split_heads(part.to(query.dtype), heads) for part in (query, *found))
    if plain:
        return join_heads(_fast(q, k, v, sight)), None
    weights = masked_softmax(q @ k.transpose(2, 3) / math.sqrt(q.shape[-1]), sight.full_mask(q.shape[2], k.shape[2], q.device))
    dropped = weights if drop is None else drop(weights)
    return join_heads(dropped.to(v.dtype) @ v), weights if weigh else None


def _reads_alone(query: Tensor, *found: Tensor) -> bool:
    """Whether this is decoding on a processor in single precision: nothing asks for a gradient."""
    wanted = torch.is_grad_enabled() and any(part.requires_grad for part in (query, *found))
    return query.is_cpu and query.dtype == torch.float32 and not wanted


def _one_query(query: Tensor, found: KeyValue, heads: int, sight: Sight) -> Tensor:
    """The same for a step of decoding on a processor, some rows at a time: torch's way makes a small product of every row and head."""
    rows, columns, dim = found.keys.shape
    at_once = max(1, CACHED // (columns * dim))
    query = query / math.sqrt(dim // heads)
    hidden = None if sight.mask is None else ~sight.mask.expand(rows, 1, 1, columns).reshape(rows, columns, 1)
    averages = torch.empty_like(query)
    for begin in range(0, rows, at_once):
        some = slice(begin, begin + at_once)
        scores = (found.keys[some].to(query.dtype) * query[some]).unflatten(2, (heads, -1)).sum(3)
        if hidden is not None:
            scores = scores.masked_fill_(hidden[some], -torch.inf)
        weighed = scores.softmax(1).unsqueeze(3) * found.values[some].to(query.dtype).unflatten(2, (heads, -1))
        torch.sum(weighed.flatten(2), 1, keepdim=True, out=averages[some])
    return averages


def _fast(q: Tensor, k: Tensor, v: Tensor, sight: Sight) -> Tensor:
    if q.is_cpu and q.requires_grad and q.dtype in (torch.bfloat16, torch.float16):
        # On a CPU the gradient of attention takes up to four times as long in half precision as in single.
        with torch.autocast("cpu", enabled=False):
            return scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=sight.mask, is_causal=sight.causal).to(q.dtype)
    return scaled_dot_product_attention(q, k, v, attn_mask=sight.mask, is_causal=sight.causal)


def start_projection(linear: nn.Linear, parts: int = 1) -> nn.Linear:
    """Begin with Glorot & Bengio's (2010) uniform weights, each of several fused projections by itself, and biases at zero.

    Args:
        linear: weight `[parts * size, input]`.
        parts: how many projections are in one.

    Returns:
        `linear`.
    """
    with torch.no_grad():
        for part in linear.weight.chunk(parts):
            nn.init.xavier_uniform_(part)
        nn.init.zeros_(linear.bias)
    return linear


class SelfAttention(nn.Module):
    """Attention of a sequence to itself; queries, keys and values come from one product."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_queries_keys_values = start_projection(nn.Linear(dim, 3 * dim), 3)
        self.to_output = start_projection(nn.Linear(dim, dim))

    def forward(
        self, x: Float[Tensor, "batch time dim"], past: KeyValue | None, conditions: Conditions
    ) -> tuple[Float[Tensor, "batch time dim"], KeyValue, Tensor | None]:
        """Attend.

        Args:
            x: the new symbols.
            past: the columns before them.
            conditions: what holds for the pass.

        Returns:
            What was found, all columns, and the weights where wanted.
        """
        query, keys, values = self.to_queries_keys_values(x).chunk(3, -1)
        if past is not None and past.keys.shape[1]:
            keys, values = (torch.cat([old.to(new.dtype), new], 1) for old, new in zip(past, (keys, values), strict=True))
        columns = KeyValue(keys, values)
        drop = None if conditions.drop_weights is None else conditions.drop_weights.own_weights
        found, weights = look_up(query, columns, self.heads, conditions.sight, drop, conditions.weigh)
        return self.to_output(found), columns, weights


class MemoryAttention(nn.Module):
    """Attention of a decoder to its memory, whose keys and values were prepared once for the source."""

    def __init__(self, dim: int, heads: int, memory_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_queries = start_projection(nn.Linear(dim, dim))
        self.to_keys_values = start_projection(nn.Linear(memory_size, 2 * dim), 2)
        self.to_output = start_projection(nn.Linear(dim, dim))

    def prepare(self, memory: Float[Tensor, "batch source memory"]) -> KeyValue:
        """Project a memory.

        Args:
            memory: the places.

        Returns:
            Its keys and values in this layer.
        """
        return KeyValue(*(part.contiguous() for part in self.to_keys_values(memory).chunk(2, -1)))

    def forward(
        self, x: Float[Tensor, "batch time dim"], memory: KeyValue, conditions: Conditions
    ) -> tuple[Float[Tensor, "batch time dim"], Tensor | None]:
        """Attend.

        Args:
            x: the new symbols.
            memory: what `prepare` made.
            conditions: what holds for the pass.

        Returns:
            What was found, and the weights where wanted.
        """
        assert conditions.memory_sight is not None
        drop = None if conditions.drop_weights is None else conditions.drop_weights.memory_weights
        queries = self.to_queries(x)
        if conditions.sharing is not None:
            queries = conditions.sharing.fold(queries)
        found, weights = look_up(queries, memory, self.heads, conditions.memory_sight, drop, conditions.weigh)
        if conditions.sharing is not None:
            found = conditions.sharing.unfold(found)
            weights = None if weights is None else conditions.sharing.unfold_weights(weights)
        return self.to_output(found), weights


class InnerNetwork(nn.Module):
    """`W_2 f(W_1 x + b_1) + b_2` at each place by itself (Vaswani et al. 2017, section 3.3)."""

    def __init__(self, dim: int, size: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.activation = activation
        self.into, self.out_of = start_projection(nn.Linear(dim, size)), start_projection(nn.Linear(size, dim))

    def forward(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        """Apply it.

        Args:
            x: the places.

        Returns:
            A new vector for each.
        """
        return self.out_of(self.activation(self.into(x)))


class Around(nn.Module, ABC):
    """The residual connection and normalisation around one part of a block."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)

    @abstractmethod
    def enter(self, x: Tensor) -> Tensor:
        """What the part reads.

        Args:
            x: what came from below.

        Returns:
            The input of the part.
        """

    @abstractmethod
    def leave(self, x: Tensor, added: Tensor) -> Tensor:
        """What goes on.

        Args:
            x: what came from below.
            added: what the part gave.

        Returns:
            The input of what is above.
        """


class PreNorm(Around):
    """`x + part(norm(x))`; the whole stack ends in a norm of its own."""

    def enter(self, x: Tensor) -> Tensor:
        """The normalised input."""
        return self.norm(x)

    def leave(self, x: Tensor, added: Tensor) -> Tensor:
        """The plain sum."""
        return x + added


class PostNorm(Around):
    """`norm(x + part(x))`, as first published (Vaswani et al. 2017, section 3.1)."""

    def enter(self, x: Tensor) -> Tensor:
        """The input itself."""
        return x

    def leave(self, x: Tensor, added: Tensor) -> Tensor:
        """The normalised sum."""
        return self.norm(x + added)


class NormKind(NamedTuple):
    """Where a stack normalises: around each part, and at its end."""

    around: Callable[[int], Around]
    final: Callable[[int], nn.Module]


NORMS: dict[str, NormKind] = {"pre": NormKind(PreNorm, nn.LayerNorm), "post": NormKind(PostNorm, lambda dim: nn.Identity())}
"""Both arrangements by name."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": relu, "gelu": gelu}
"""What the inner network may apply, by name."""


class Block(nn.Module):
    """Attention to itself, attention to a memory where there is one, and the inner network (Vaswani et al. 2017, section 3.1)."""

    def __init__(self, settings: TransformerSettings, memory_size: int | None) -> None:
        super().__init__()
        dim, around = settings.dim, NORMS[settings.norm].around
        self.self_attention, self.around_self = SelfAttention(dim, settings.heads), around(dim)
        self.memory_attention = None if memory_size is None else MemoryAttention(dim, settings.heads, memory_size)
        self.around_memory = None if memory_size is None else around(dim)
        self.inner = InnerNetwork(dim, settings.inner_size or 4 * dim, ACTIVATIONS[settings.activation])
        self.around_inner = around(dim)

    def forward(
        self, x: Float[Tensor, "batch time dim"], past: KeyValue | None, memory: KeyValue | None, conditions: Conditions
    ) -> tuple[Float[Tensor, "batch time dim"], KeyValue, LayerWeights | None]:
        """Read new symbols.

        Args:
            x: what came from below.
            past: the columns before them in this layer.
            memory: of a decoder.
            conditions: what holds for the pass.

        Returns:
            What goes on, all columns of this layer, and the weights where wanted.
        """
        drop = conditions.drop or torch.nn.Identity()
        added, columns, own = self.self_attention(self.around_self.enter(x), past, conditions)
        x = self.around_self.leave(x, drop(added))
        looked = None
        if self.memory_attention is not None and self.around_memory is not None and memory is not None:
            added, looked = self.memory_attention(self.around_memory.enter(x), memory, conditions)
            x = self.around_memory.leave(x, drop(added))
        x = self.around_inner.leave(x, drop(self.inner(self.around_inner.enter(x))))
        return x, columns, None if own is None else LayerWeights(own, looked)
