"""The weights of a trained run of ours, as the driver wrote them, in the forms that other systems take."""

from __future__ import annotations

from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]
UNKNOWN, PAD, START, END = "<unk>", "<pad>", "<s>", "</s>"
IMPOSSIBLE = -1e4
"""The logit of a symbol that our models do not have: its probability is zero."""


class Exported:
    """Parameters by our names, and the vocabulary of both sides: its symbols, then the end symbol, then the start symbol."""

    def __init__(self, folder: str) -> None:
        path = Path(folder)
        with np.load(path / "weights.npz") as stored:
            self.arrays: Arrays = {name: stored[name] for name in stored.files}
        self.symbols = (path / "symbols.txt").read_text(encoding="utf-8").split("\n")

    @property
    def parameters(self) -> int:
        """How many numbers were learnt, tied ones counted once."""
        return sum(array.size for array in {array.tobytes(): array for array in self.arrays.values()}.values())

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def rows(self, name: str, specials: list[str], missing: float = 0.0) -> np.ndarray:
        """A table or a bias with one row a symbol, for a vocabulary that begins with special symbols.

        Args:
            name: of the parameter.
            specials: the first symbols; those that we do not have get rows of `missing`.
            missing: a number.

        Returns:
            The rows in the order of that vocabulary.
        """
        ours = self.arrays[name]
        own = {END: ours[-2], START: ours[-1]}
        head = [own.get(special, np.full(ours.shape[1:], missing)) for special in specials]
        return np.concatenate([np.stack(head), ours[:-2]]).astype(np.float32)

    def gru(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """A reset-after GRU cell as torch has it: weights of input and state, biases of input and state."""
        hidden_bias = self[f"{name}.candidate_bias"]
        biases = self[f"{name}.from_input.bias"], np.concatenate([np.zeros(2 * len(hidden_bias), np.float32), hidden_bias])
        return self[f"{name}.from_input.weight"], self[f"{name}.from_hidden.weight"], *biases

    def encoder(self) -> Arrays:
        """The bidirectional GRU of the encoder by the names of `torch.nn.GRU`."""
        found = {}
        for ours, suffix in (("forwards", "l0"), ("backwards", "l0_reverse")):
            parts = self.gru(f"encoder.layers.layers.0.{ours}.cell")
            found |= dict(zip((f"{part}_{suffix}" for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")), parts, strict=True))
        return found
