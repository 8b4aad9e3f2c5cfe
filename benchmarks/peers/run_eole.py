"""eole: decoding with our weights; job `{"weights": FOLDER, …}`, candidates `{"batch": SENTENCES}`. What is patched is said in README.md."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from eole.config.run import PredictConfig
from eole.inference_engine import InferenceEnginePY
from safetensors.numpy import save_file
from timing import Output, Translate, read_job, time_decoding
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from weights import END, IMPOSSIBLE, START, UNKNOWN, Arrays, Exported

PAD = "<blank>"
SPECIALS = [UNKNOWN, PAD, START, END]


def converted(weights: Exported) -> Arrays:
    """Our weights by eole's names."""
    inside = dict(zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), weights.gru("decoder.cell.cells.0"), strict=True))
    state_part, context_part = weights["decoder.cell.combine.weight"].T.reshape(2, -1, 512)
    zeros = 0 * weights["decoder.bridge.bias"]
    found = {f"encoder.rnn.{name}": array for name, array in weights.encoder().items()}
    found |= {f"decoder.rnn.layers.0.{name}": array for name, array in inside.items()}
    found |= {
        "src_emb.embeddings.weight": weights.rows("source_embedding.weight", SPECIALS),
        "tgt_emb.embeddings.weight": weights.rows("target_embedding.weight", SPECIALS),
        "decoder.attn.linear_query.weight": weights["decoder.cell.attention.from_query.weight"],
        "decoder.attn.linear_query.bias": zeros,
        "decoder.attn.linear_context.weight": weights["decoder.cell.attention.from_memory.weight"],
        "decoder.attn.v.weight": weights["decoder.cell.attention.score"][None],
        "decoder.attn.linear_out.weight": torch.cat([torch.tensor(context_part.T), torch.tensor(state_part.T)], 1).numpy(),
        "decoder.attn.linear_out.bias": zeros,
        "generator.weight": weights.rows("readout.weight", SPECIALS),
        "generator.bias": weights.rows("readout.bias", SPECIALS, IMPOSSIBLE),
    }
    return found


class BridgedEncoder(nn.Module):
    """eole's recurrent encoder as our weights need it: padding is not read, and the decoder begins with `tanh(W summary + b)`."""

    def __init__(self, encoder: nn.Module, bridge: nn.Linear, padding: int) -> None:
        super().__init__()
        self.rnn, self.bridge, self.padding = encoder.rnn, bridge, padding

    def forward(self, emb: torch.Tensor, pad_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        lengths = (~pad_mask[:, 0]).sum(1)
        outputs, last = self.rnn(pack_padded_sequence(emb, lengths.cpu(), batch_first=True, enforce_sorted=False))
        summary = torch.tanh(self.bridge(torch.cat([last[0], last[1]], -1)))
        # The decoder puts both halves together again.
        return pad_packed_sequence(outputs, batch_first=True)[0], torch.stack(summary.chunk(2, -1))


def store(folder: Path, weights: Exported) -> None:
    """A model folder as eole loads it."""
    tokens = SPECIALS + weights.symbols
    specials = {"unk_token": UNKNOWN, "pad_token": PAD, "bos_token": START, "eos_token": END}
    vocabulary = {"src": tokens, "tgt": tokens, "decoder_start_token": START, "specials": specials}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "config.json").write_text(Path(__file__).with_name("eole.json").read_text(encoding="utf-8"), encoding="utf-8")
    save_file({name: array.copy() for name, array in converted(weights).items()}, folder / "model.00.safetensors")


def load(job: dict[str, Any]) -> InferenceEnginePY:
    """The engine with our weights."""
    weights = Exported(job["weights"])
    with tempfile.TemporaryDirectory() as folder:
        store(Path(folder), weights)
        options = {"beam_size": job["beam"], "length_penalty": "wu", "alpha": 1.0, "max_length": job["longest"], "max_length_ratio": 0}
        engine = InferenceEnginePY(PredictConfig(model_path=folder, src="", compute_dtype="fp32", **options))
    model = engine.predictor.model
    bridge = nn.Linear(512, 512)
    bridge.load_state_dict({part: torch.from_numpy(weights[f"decoder.bridge.{part}"]) for part in ("weight", "bias")})
    model.encoder = BridgedEncoder(model.encoder, bridge, SPECIALS.index(PAD)).eval()
    model.decoder.attn.linear_out = nn.Sequential(model.decoder.attn.linear_out, nn.Tanh())
    return engine


def main() -> None:
    """Load, then time."""
    job = read_job()
    engine = load(job)

    def ready(candidate: dict[str, Any]) -> Translate:
        engine.config.batch_size = candidate["batch"]

        def translate(lines: list[str]) -> list[Output]:
            texts = [found[0] for found in engine.infer_list(lines)[2]]
            return [(text, len(text.split(" "))) for text in texts]

        return translate

    parameters = sum(weight.numel() for weight in engine.predictor.model.parameters())
    time_decoding(job, ready, parameters=parameters, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
