"""Toy models: a fixed Markov chain whose state nests named tuples, and one that always gives the same logits."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.core.state import select_state


class Memory(NamedTuple):
    before: Tensor
    steps: Tensor


class ChainState(NamedTuple):
    memory: Memory


class Chain:
    """Second order: logits depend on the two tokens read last, so a lost state shows."""

    def __init__(self, vocabulary_size: int = 4, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.randn(vocabulary_size, vocabulary_size, vocabulary_size, generator=generator)
        self.steps = 0

    @property
    def vocabulary_size(self) -> int:
        return len(self.table)

    def start(self, source: int) -> ChainState:
        return ChainState(Memory(torch.zeros(source, dtype=torch.long), torch.zeros(source, 1)))

    def step(self, tokens: Tensor, state: ChainState) -> tuple[Tensor, ChainState]:
        assert torch.is_inference_mode_enabled()
        self.steps += 1
        memory = state.memory
        return self.table[memory.before, tokens], ChainState(Memory(tokens, memory.steps + 1))

    def select(self, state: ChainState, rows: Tensor) -> ChainState:
        chosen: ChainState = select_state(state, rows)
        return chosen


class PrefilledChain(Chain):
    """The same, which reads a prompt at once."""

    def prefill(self, tokens: Tensor, state: ChainState) -> tuple[Tensor, ChainState]:
        columns = torch.cat([state.memory.before.unsqueeze(1), tokens], 1)
        steps = state.memory.steps + tokens.shape[1]
        return self.table[columns[:, -2], columns[:, -1]], ChainState(Memory(tokens[:, -1], steps))


class Constant:
    """Gives the same logits whatever it reads."""

    def __init__(self, logits: list[float]) -> None:
        self.logits = torch.tensor(logits)

    @property
    def vocabulary_size(self) -> int:
        return len(self.logits)

    def start(self, source: int) -> None:
        return None

    def step(self, tokens: Tensor, state: None) -> tuple[Tensor, None]:
        return self.logits.expand(len(tokens), -1), None

    def select(self, state: None, rows: Tensor) -> None:
        return None
