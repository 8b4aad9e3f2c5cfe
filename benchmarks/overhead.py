"""What the package costs beside a hand-written loop that does the same work: training and sampling, alternating, medians.

    .venv/bin/python benchmarks/overhead.py TEXT [--rounds 5] [--seconds 20]

Writes benchmarks/results/overhead.json.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from machine import describe_machine, write_result
from torch import nn
from torch.nn.functional import cross_entropy

import unrolled
from unrolled.decode.sampling import SamplingOptions, sample
from unrolled.models.stepper import LanguageModelStepper

HIDDEN, EMBEDDING, BATCH, WINDOW, RATE, DROPOUT = 512, 128, 32, 128, 3e-3, 0.25

arguments = argparse.ArgumentParser()
arguments.add_argument("text", type=Path)
arguments.add_argument("--rounds", type=int, default=5)
arguments.add_argument("--seconds", type=float, default=20)


class Plain(nn.Module):
    """The model anybody would write."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, EMBEDDING)
        self.lstm = nn.LSTM(EMBEDDING, HIDDEN, batch_first=True)
        self.dropout = nn.Dropout(DROPOUT)
        self.readout = nn.Linear(HIDDEN, vocabulary)

    def forward(self, x, state=None):
        y, state = self.lstm(self.embed(x), state)
        return self.readout(self.dropout(y)), state


def plain_training(ids: torch.Tensor, vocabulary: int, seconds: float) -> float:
    """Symbols a second of the loop anybody would write."""
    model = Plain(vocabulary)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    length = (len(ids) - 1) // BATCH
    x, y = ids[: length * BATCH].view(BATCH, length), ids[1 : length * BATCH + 1].view(BATCH, length)
    state, seen, position, start = None, 0, 0, time.perf_counter()
    while (used := time.perf_counter() - start) < seconds:
        if position + WINDOW > length:
            state, position = None, 0
        logits, state = model(x[:, position : position + WINDOW], state)
        loss = cross_entropy(logits.flatten(0, 1), y[:, position : position + WINDOW].flatten())
        state = tuple(part.detach() for part in state)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        position, seen = position + WINDOW, seen + BATCH * WINDOW
    return seen / used


def our_training(text: Path, seconds: float) -> float:
    """Symbols a second of `train lm` with the same model, as its own metrics count them."""
    differences = {
        "model": {"hidden_size": HIDDEN, "embedding_size": EMBEDDING, "output_dropout": DROPOUT, "input_dropout": 0.0},
        "train": {"minutes": seconds / 60, "batch_size": BATCH, "window": WINDOW, "evaluations": 0, "precision": "fp32"},
        "samples": {"length": 0},
    }
    with tempfile.TemporaryDirectory() as folder:
        summary = unrolled.train_language_model([text], out=Path(folder) / "run", differences=differences).summary()
    return summary["tokens"] / summary["seconds"]


@torch.inference_mode()
def plain_sampling(model: Plain, length: int, generator: torch.Generator) -> float:
    """Symbols a second of an honest loop: state kept, one token at a time through `nn.LSTM`."""
    token, state, start = torch.zeros(1, 1, dtype=torch.long), None, time.perf_counter()
    for _ in range(length):
        logits, state = model(token, state)
        token = torch.multinomial(logits[:, -1].softmax(-1), 1, generator=generator)
    return length / (time.perf_counter() - start)


def our_sampling(stepper: LanguageModelStepper, length: int, generator: torch.Generator) -> float:
    """Symbols a second of the sampler on the same sizes."""
    start = time.perf_counter()
    for _ in sample(stepper, torch.zeros(1, 1, dtype=torch.long), SamplingOptions(length=length), generator):
        pass
    return length / (time.perf_counter() - start)


def main() -> None:
    """Alternate, take medians, print ratios."""
    from unrolled.models.language_model import LanguageModel, LanguageModelSettings

    options = arguments.parse_args()
    text = options.text.read_text(encoding="utf-8")
    symbols = {symbol: index for index, symbol in enumerate(sorted(set(text)))}
    ids = torch.tensor([symbols[symbol] for symbol in text])[: int(0.9 * len(text))]
    plain = Plain(len(symbols)).eval()
    ours = LanguageModelStepper(LanguageModel(LanguageModelSettings(hidden_size=HIDDEN, embedding_size=EMBEDDING), len(symbols)))
    found: dict[str, list[float]] = {"plain training": [], "our training": [], "plain sampling": [], "our sampling": []}
    for round_number in range(options.rounds):
        generator = torch.Generator().manual_seed(round_number)
        found["plain training"].append(plain_training(ids, len(symbols), options.seconds))
        found["our training"].append(our_training(options.text, options.seconds))
        found["plain sampling"].append(plain_sampling(plain, 1000, generator))
        found["our sampling"].append(our_sampling(ours, 1000, generator))
        print({name: round(values[-1]) for name, values in found.items()}, flush=True)
    medians = {name: statistics.median(values) for name, values in found.items()}
    ratios = {what: medians[f"our {what}"] / medians[f"plain {what}"] for what in ("training", "sampling")}
    print(f"ratios (ours / plain): {ratios}")
    sizes = {"hidden": HIDDEN, "embedding": EMBEDDING, "batch": BATCH, "window": WINDOW, "precision": "fp32"}
    write_result(
        "overhead", {"machine": describe_machine(), "sizes": sizes, "symbols_per_second": found, "medians": medians, "ratios": ratios}
    )


if __name__ == "__main__":
    main()
