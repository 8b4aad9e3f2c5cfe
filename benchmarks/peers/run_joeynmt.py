"""Joey NMT 2.3.0: training for some seconds, or decoding with our weights.

Jobs: `{"task": "train", "text": FOLDER, "seconds": …, "warm_updates": …}` and `{"task": "decode", "weights": FOLDER, …}` with candidates
`{"batch": SENTENCES}`. What is patched, and why, is said in README.md.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import joeynmt.builders
import joeynmt.prediction
import joeynmt.training
import torch
import yaml
from joeynmt.config import parse_global_args
from timing import Output, Translate, read_job, time_decoding, write
from torch import nn
from weights import END, IMPOSSIBLE, PAD, START, UNKNOWN, Exported

SPECIALS = [UNKNOWN, PAD, START, END]
"""The first symbols of Joey NMT's vocabularies."""


def config(work: Path, symbols: str) -> dict[str, Any]:
    """The settings beside this file, with the places of this run."""
    found = yaml.safe_load(Path(__file__).with_name("joeynmt.yaml").read_text(encoding="utf-8"))
    for side in ("src", "trg"):
        found["data"][side]["voc_file"] = symbols
    return found | {"model_dir": str(work)}


def metered(seconds: float, warm_updates: int, rows: list[tuple[int, int, float]]) -> type:
    """Joey NMT's trainer, which writes down update, target symbols and seconds where it would log them, and ends when there is enough."""

    class Metered(joeynmt.training.TrainManager):
        def _log_scores(self, epoch: int, elapsed: float, start_tokens: int, *others: Any) -> None:
            rows.append((self.stats.steps, self.stats.total_tokens - start_tokens, elapsed))
            if sum(row[2] for row in rows if row[0] > warm_updates) >= seconds:
                self.stats.is_max_update = True

    return Metered


def train(job: dict[str, Any]) -> None:
    """Train until the seconds after warming up are over."""
    plateau = joeynmt.builders.ReduceLROnPlateau
    joeynmt.builders.ReduceLROnPlateau = lambda verbose, **kwargs: plateau(**kwargs)
    warm, rows, text = job["warm_updates"], [], Path(job["text"])
    joeynmt.training.TrainManager = metered(job["seconds"], warm, rows)
    with tempfile.TemporaryDirectory() as folder:
        wanted = config(Path(folder), str(text / "symbols.txt"))
        wanted["data"] |= {"train": str(text / "train"), "dev": str(text / "val")}
        joeynmt.training.train(rank=0, world_size=1, cfg=wanted, skip_test=True)
    counted = [row for row in rows if row[0] > warm]
    symbols, seconds = (sum(row[place] for row in counted) for place in (1, 2))
    write(job, {"updates": counted[-1][0] - warm, "symbols": symbols, "seconds": seconds, "threads": torch.get_num_threads()})


def converted(weights: Exported) -> dict[str, torch.Tensor]:
    """Our weights by Joey NMT's names."""
    inside = dict(zip(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"), weights.gru("decoder.cell.cells.0"), strict=True))
    found = {f"encoder.rnn.{name}": array for name, array in weights.encoder().items()}
    found |= {f"decoder.rnn.{name}": array for name, array in inside.items()}
    found |= {
        "src_embed.lut.weight": weights.rows("source_embedding.weight", SPECIALS),
        "trg_embed.lut.weight": weights.rows("target_embedding.weight", SPECIALS),
        "decoder.bridge_layer.weight": weights["decoder.bridge.weight"],
        "decoder.bridge_layer.bias": weights["decoder.bridge.bias"],
        "decoder.attention.query_layer.weight": weights["decoder.cell.attention.from_query.weight"],
        "decoder.attention.key_layer.weight": weights["decoder.cell.attention.from_memory.weight"],
        "decoder.attention.energy_layer.weight": weights["decoder.cell.attention.score"][None],
        "decoder.att_vector_layer.weight": weights["decoder.cell.combine.weight"],
        "decoder.att_vector_layer.bias": 0 * weights["decoder.bridge.bias"],
        "decoder.output_layer.weight": weights.rows("readout.weight", SPECIALS),
        "decoder.output_layer.bias": weights.rows("readout.bias", SPECIALS, IMPOSSIBLE),
    }
    return {name: torch.from_numpy(array) for name, array in found.items()}


def build_with_bias(build: Any, *given: Any, **named: Any) -> Any:
    """A model whose read-out has a bias, as ours has."""
    model = build(*given, **named)
    layer = model.decoder.output_layer
    model.decoder.output_layer = nn.Linear(layer.in_features, layer.out_features)
    return model


def decode(job: dict[str, Any]) -> None:
    """Load our weights through a checkpoint, then time."""
    joeynmt.prediction.build_model = partial(build_with_bias, joeynmt.prediction.build_model)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "best.ckpt"
        torch.save({"model_state": converted(Exported(job["weights"]))}, checkpoint)
        wanted = config(Path(folder), str(Path(job["weights"]) / "symbols.txt"))
        wanted["data"]["test"] = folder  # not read: lines come one by one
        wanted["testing"] |= {"load_model": str(checkpoint), "beam_size": job["beam"], "max_output_length": job["longest"]}
        settings = parse_global_args(wanted, rank=0, mode="translate")
        model, _, _, stream = joeynmt.prediction.prepare(settings, rank=0, mode="translate")
    # Our sources have no end symbol.
    stream.sequence_encoder["de"] = lambda lines, bos, eos: model.src_vocab.sentences_to_ids(lines, bos=bos, eos=False)

    def ready(candidate: dict[str, Any]) -> Translate:
        asked = settings.test._replace(batch_size=candidate["batch"])

        def translate(lines: list[str]) -> list[Output]:
            stream.reset_cache()
            for line in lines:
                stream.set_item(line)
            found = joeynmt.prediction.predict(
                model=model, data=stream, device=settings.device, n_gpu=0, normalization="none", args=asked, autocast=settings.autocast
            )
            return [(text, len(text.split(" "))) for text in found[2]]

        return translate

    time_decoding(job, ready, parameters=sum(weight.numel() for weight in model.parameters()), threads=torch.get_num_threads())


if __name__ == "__main__":
    given = read_job()
    {"train": train, "decode": decode}[given["task"]](given)
