"""Attention of a decoder over a memory (Bahdanau et al. 2015; Luong et al. 2015; Vaswani et al. 2017): `α = softmax(e)`, `c = Σ_j α_j h_j`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from unrolled.core.errors import ConfigurationError, UserError
from unrolled.core.padded import Padded
from unrolled.nn.attention_parts import check_heads, checked_memory, join_heads, masked_softmax, split_heads

CACHED = 1 << 20
"""How many numbers additive attention makes at once on a CPU: a stretch of query steps that its cache holds takes less than half the time."""

Query = Float[Tensor, "batch time query"]
Places = Float[Tensor, "batch source memory"]
Keys = Float[Tensor, "batch source key"]
Values = Float[Tensor, "batch source value"]
Coverage = Float[Tensor, "batch source"]
Weights = Float[Tensor, "batch heads time source"]
Context = Float[Tensor, "batch time context"]


class Memory(NamedTuple):
    """What is attended to, prepared once for each source; a state tree, so that rows can be chosen."""

    keys: Keys
    """What queries are compared with."""
    values: Values
    """What is averaged."""
    mask: Bool[Tensor, "batch source"]
    """True where there is something."""


class Attended(NamedTuple):
    """What attention found."""

    context: Context
    """The averaged values."""
    weights: Weights
    """How much of each place; rows sum to one, padding has exactly zero. One head for all kinds but multi-head."""


class Attention(nn.Module, ABC):
    """Compares queries with the places of a memory and averages what is there; a kind gives `keys`, `scores` and its sizes."""

    query_size: int
    memory_size: int
    context_size: int
    coverage: bool = False
    """Whether `forward` takes the coverage of the places."""

    def prepare(self, memory: Padded) -> Memory:
        """Project a memory once for all queries.

        Args:
            memory: `[batch, source, memory]`; a row of length 0 is a `DataError`.

        Returns:
            Keys, values and mask.
        """
        data, mask = checked_memory(memory, self.memory_size)
        return Memory(self.keys(data), self.values(data), mask)

    @abstractmethod
    def keys(self, memory: Places) -> Keys:
        """What queries are compared with.

        Args:
            memory: the places.

        Returns:
            A key for each place.
        """

    def values(self, memory: Places) -> Values:
        """What is averaged: the memory itself unless a kind says otherwise.

        Args:
            memory: the places.

        Returns:
            A value for each place.
        """
        return memory

    @abstractmethod
    def scores(self, query: Query, keys: Keys, coverage: Coverage | None) -> Weights:
        """How well each place fits each query, before the softmax.

        Args:
            query: what is looked for.
            keys: of the places.
            coverage: for the kinds that take it.

        Returns:
            The scores `e`.
        """

    def combine(self, weights: Weights, values: Values) -> Context:
        """The averaged values `c_i = Σ_j α_ij h_j`.

        Args:
            weights: of one head.
            values: of the places.

        Returns:
            The context of each query.
        """
        return torch.bmm(weights.squeeze(1), values)

    def forward(self, query: Query, memory: Memory, coverage: Coverage | None = None) -> Attended:
        """Look a memory up.

        Args:
            query: decoder states, one or many steps.
            memory: what `prepare` made.
            coverage: the sum of the weights that each place has had so far (See et al. 2017), the same for all steps of `query`.

        Returns:
            Contexts and weights.

        Raises:
            UserError: coverage given to a kind without it, or not given to one with it.
        """
        if (coverage is not None) != self.coverage:
            wanted, found = ("with", "none") if self.coverage else ("without", "some")
            raise UserError(
                f"`{type(self).__name__}` was built {wanted} coverage, got {found}; build `AdditiveAttention(…, coverage=True)` for it"
            )
        weights = masked_softmax(self.scores(query, memory.keys, coverage), memory.mask[:, None, None])
        return Attended(self.combine(weights, memory.values.to(weights.dtype)), weights)


class _AdditiveScores(torch.autograd.Function):
    """`tanh(query + key) · score` for all pairs; the backward pass makes the tanh again, stretch by stretch, which is cheaper than to keep it."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, score: Tensor, at_once: int) -> Tensor:
        ctx.save_for_backward(query, keys, score)
        ctx.at_once = at_once
        places = keys.unsqueeze(1)
        parts = [(steps.unsqueeze(2) + places).tanh_() @ score for steps in query.split(at_once, 1)]
        return torch.cat(parts, 1) if parts else query.new_zeros((*query.shape[:2], keys.shape[1]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, keys, score = ctx.saved_tensors
        places, precision = keys.unsqueeze(1), torch.promote_types(score.dtype, torch.float32)
        # With t the tanh, Σ g (1 - t²) = Σ g - Σ g t², over places for a query and over queries for a place.
        of_query = gradient.sum(2, keepdim=True).expand_as(query).to(query.dtype, copy=True)
        of_keys = gradient.sum(1).unsqueeze(2).expand_as(keys).to(precision, copy=True)
        of_score = torch.zeros_like(score, dtype=precision)
        for begin in range(0, query.shape[1], ctx.at_once):
            some = slice(begin, begin + ctx.at_once)
            tanh, weight = (query[:, some].unsqueeze(2) + places).tanh_(), gradient[:, some].unsqueeze(3)
            of_score += tanh.flatten(0, 2).t() @ weight.flatten().to(tanh.dtype)
            weighed = tanh.square_().mul_(weight)
            of_query[:, some] -= weighed.sum(2)
            of_keys -= weighed.sum(1)
        return of_query.mul_(score), of_keys.mul_(score).to(keys.dtype), of_score.to(score.dtype), None


class AdditiveAttention(Attention):
    """`e_ij = vᵀ tanh(W s_i + U h_j)` (Bahdanau et al. 2015, appendix A.1.2), with coverage `vᵀ tanh(W s_i + U h_j + w_c cov_j)`.

    Coverage after See et al. 2017, section 2.3.
    """

    def __init__(self, query_size: int, memory_size: int, hidden_size: int, *, coverage: bool = False) -> None:
        """Compare by a small network.

        Args:
            query_size: features of a query `s`.
            memory_size: features of a place `h`.
            hidden_size: units of the comparison.
            coverage: whether the attention that places have had enters.
        """
        super().__init__()
        self.query_size, self.memory_size, self.context_size, self.coverage = query_size, memory_size, memory_size, coverage
        self.from_query = nn.Linear(query_size, hidden_size, bias=False)  # W
        self.from_memory = nn.Linear(memory_size, hidden_size, bias=False)  # U
        bound = 1 / math.sqrt(hidden_size)
        self.score = nn.Parameter(torch.empty(hidden_size).uniform_(-bound, bound))  # v
        self.from_coverage = nn.Parameter(torch.empty(hidden_size).uniform_(-bound, bound)) if coverage else None  # w_c

    def keys(self, memory: Places) -> Keys:
        """`U h`."""
        return self.from_memory(memory)

    def scores(self, query: Query, keys: Keys, coverage: Coverage | None) -> Weights:
        """`vᵀ tanh(W s + U h)`, a stretch of query steps at a time."""
        if coverage is not None and self.from_coverage is not None:
            keys = keys + coverage.unsqueeze(-1).to(keys.dtype) * self.from_coverage.to(keys.dtype)
        query = self.from_query(query)
        score = self.score.to(torch.promote_types(query.dtype, keys.dtype))
        time = query.shape[1]
        if time == 1 and query.is_cpu:  # one step of decoding: a stretch of rows at a time
            rows = max(1, CACHED // max(1, keys[:1].numel()))
            pieces = zip(query.split(rows), keys.split(rows), strict=True)
            return torch.cat([(step + some).tanh_() @ score for step, some in pieces])[:, None, None]
        at_once = max(1, CACHED // max(1, keys.numel())) if query.is_cpu else max(1, time)
        scores: Weights = _AdditiveScores.apply(query, keys, score, at_once)
        return scores.unsqueeze(1)


class DotAttention(Attention):
    """`e_ij = s_i · h_j` (Luong et al. 2015, section 3.1, "dot"); both must have one size."""

    def __init__(self, query_size: int, memory_size: int) -> None:
        """Compare by the product itself, without weights.

        Args:
            query_size: features of a query.
            memory_size: features of a place; the same.
        """
        super().__init__()
        self.query_size = self.memory_size = self.context_size = one_size(query_size, memory_size)

    def keys(self, memory: Places) -> Keys:
        """The memory itself."""
        return memory

    def scores(self, query: Query, keys: Keys, coverage: Coverage | None) -> Weights:
        """`s · h`."""
        return dot(query, keys)


class ScaledDotAttention(Attention):
    """`e_ij = s_i · h_j / √size` (Vaswani et al. 2017, section 3.2.1); both must have one size."""

    def __init__(self, query_size: int, memory_size: int) -> None:
        """Compare by the scaled product, without weights.

        Args:
            query_size: features of a query.
            memory_size: features of a place; the same.
        """
        super().__init__()
        self.query_size = self.memory_size = self.context_size = one_size(query_size, memory_size)

    def keys(self, memory: Places) -> Keys:
        """The memory itself."""
        return memory

    def scores(self, query: Query, keys: Keys, coverage: Coverage | None) -> Weights:
        """`s · h / √size`."""
        return dot(query / math.sqrt(self.query_size), keys)


class BilinearAttention(Attention):
    """`e_ij = s_iᵀ W h_j` (Luong et al. 2015, section 3.1, "general")."""

    def __init__(self, query_size: int, memory_size: int) -> None:
        """Compare by a matrix.

        Args:
            query_size: features of a query `s`.
            memory_size: features of a place `h`.
        """
        super().__init__()
        self.query_size, self.memory_size, self.context_size = query_size, memory_size, memory_size
        self.from_memory = nn.Linear(memory_size, query_size, bias=False)  # W

    def keys(self, memory: Places) -> Keys:
        """`W h`."""
        return self.from_memory(memory)

    def scores(self, query: Query, keys: Keys, coverage: Coverage | None) -> Weights:
        """`s · (W h)`."""
        return dot(query, keys)


class MultiHeadAttention(Attention):
    """`Concat(head_1, …, head_h) W^O`, `head_i` the scaled dot attention of `s W_i^Q` over `h W_i^K` with values `h W_i^V`.

    Vaswani et al. 2017, section 3.2.2; the projections have biases, as those of `torch.nn.MultiheadAttention`.
    """

    def __init__(self, query_size: int, memory_size: int, hidden_size: int, heads: int) -> None:
        """Attend with several heads.

        Args:
            query_size: features of a query.
            memory_size: features of a place.
            hidden_size: features of all heads together, and of the context.
            heads: how many; they share `hidden_size` evenly.
        """
        super().__init__()
        self.query_size, self.memory_size, self.context_size = query_size, memory_size, hidden_size
        self.heads = check_heads(hidden_size, heads)
        self.from_query, self.to_context = nn.Linear(query_size, hidden_size), nn.Linear(hidden_size, hidden_size)
        self.to_keys, self.to_values = nn.Linear(memory_size, hidden_size), nn.Linear(memory_size, hidden_size)
        for projection in (self.from_query, self.to_keys, self.to_values, self.to_context):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def keys(self, memory: Places) -> Keys:
        """`h W^K`, heads side by side."""
        return self.to_keys(memory)

    def values(self, memory: Places) -> Values:
        """`h W^V`, heads side by side."""
        return self.to_values(memory)

    def scores(self, query: Query, keys: Keys, coverage: Coverage | None) -> Weights:
        """The scaled products of each head."""
        queries = split_heads(self.from_query(query), self.heads) / math.sqrt(self.context_size // self.heads)
        return queries @ split_heads(keys, self.heads).to(queries.dtype).transpose(2, 3)

    def combine(self, weights: Weights, values: Values) -> Context:
        """The heads' averages side by side, then `W^O`."""
        return self.to_context(join_heads(weights @ split_heads(values, self.heads)))


def dot(query: Float[Tensor, "batch time size"], keys: Float[Tensor, "batch source size"]) -> Float[Tensor, "batch 1 time source"]:
    """Products of every query with every key, as one head.

    Args:
        query: what is looked for.
        keys: of the places.

    Returns:
        `query · key`.
    """
    return torch.bmm(query, keys.to(query.dtype).transpose(1, 2)).unsqueeze(1)


def one_size(query_size: int, memory_size: int) -> int:
    """Refuse queries and a memory that cannot be multiplied.

    Args:
        query_size: features of a query.
        memory_size: features of a place.

    Returns:
        The size of both.

    Raises:
        ConfigurationError: the two differ.
    """
    if query_size != memory_size:
        raise ConfigurationError(
            f"dot attention needs queries and memory of one size, got {query_size} and {memory_size}; use bilinear or additive attention"
        )
    return query_size


class AttentionKind(NamedTuple):
    """One line of the table of attentions: a class, and what it takes besides the sizes of query and memory."""

    make: Callable[..., Attention]
    takes: tuple[str, ...] = ()
    """Which of `hidden_size`, `heads` and `coverage`."""

    def __call__(self, query_size: int, memory_size: int, hidden_size: int, heads: int = 1, coverage: bool = False) -> Attention:
        """Make attention of this kind from what any kind could need; what it does not take is left out.

        Args:
            query_size: features of a query.
            memory_size: features of a place.
            hidden_size: units of the comparison (additive), or features of all heads together (multi-head).
            heads: of multi-head attention.
            coverage: whether the attention that places have had enters (additive).

        Returns:
            The module.

        Raises:
            ConfigurationError: coverage of a kind that has none.
        """
        if coverage and "coverage" not in self.takes:
            raise ConfigurationError(f"`{self.make.__name__}` has no coverage; use additive attention, or leave coverage out")
        given = {"hidden_size": hidden_size, "heads": heads, "coverage": coverage}
        return self.make(query_size, memory_size, **{name: given[name] for name in self.takes})


ATTENTIONS: dict[str, AttentionKind] = {
    "additive": AttentionKind(AdditiveAttention, ("hidden_size", "coverage")),
    "dot": AttentionKind(DotAttention),
    "scaled_dot": AttentionKind(ScaledDotAttention),
    "bilinear": AttentionKind(BilinearAttention),
    "multi_head": AttentionKind(MultiHeadAttention, ("hidden_size", "heads")),
}
"""Every kind of attention by name."""
