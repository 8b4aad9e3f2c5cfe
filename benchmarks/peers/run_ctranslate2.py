"""CTranslate2: decoding with our Transformer's weights; job `{"weights": FOLDER, …}`, candidates `{"batch": SENTENCES, "workers": …}`.

`workers` batches are translated at once, each on as many threads as that leaves it.
"""

from __future__ import annotations

import tempfile
from typing import Any

import ctranslate2
import numpy as np
from ctranslate2.specs import TransformerSpec
from timing import Output, Translate, read_job, time_decoding
from weights import END, IMPOSSIBLE, START, UNKNOWN, Exported

SPECIALS = [UNKNOWN, START, END]
PLACES = 1024


def set_linear(spec: Any, weights: Exported, name: str) -> None:
    spec.weight, spec.bias = weights[f"{name}.weight"], weights[f"{name}.bias"]


def set_norm(spec: Any, weights: Exported, name: str) -> None:
    spec.gamma, spec.beta = weights[f"{name}.weight"], weights[f"{name}.bias"]


def sinusoids(dim: int) -> np.ndarray:
    """Sines in the even columns, cosines in the odd ones (Vaswani et al. 2017, section 3.5)."""
    angles = np.arange(PLACES)[:, None] * 10000.0 ** (-np.arange(0, dim, 2) / dim)
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(PLACES, dim).astype(np.float32)


def set_stack(spec: Any, weights: Exported, name: str) -> None:
    """One of both stacks: its embedding's form, positions, blocks and last norm."""
    spec.scale_embeddings = True
    set_norm(spec.layer_norm, weights, f"{name}.norm")
    spec.position_encodings.encodings = sinusoids(len(weights[f"{name}.norm.weight"]))
    for place, layer in enumerate(spec.layer):
        block = f"{name}.blocks.{place}"
        set_linear(layer.self_attention.linear[0], weights, f"{block}.self_attention.to_queries_keys_values")
        set_linear(layer.self_attention.linear[1], weights, f"{block}.self_attention.to_output")
        set_norm(layer.self_attention.layer_norm, weights, f"{block}.around_self.norm")
        set_linear(layer.ffn.linear_0, weights, f"{block}.inner.into")
        set_linear(layer.ffn.linear_1, weights, f"{block}.inner.out_of")
        set_norm(layer.ffn.layer_norm, weights, f"{block}.around_inner.norm")
        if hasattr(layer, "attention"):
            for number, part in enumerate(("to_queries", "to_keys_values", "to_output")):
                set_linear(layer.attention.linear[number], weights, f"{block}.memory_attention.{part}")
            set_norm(layer.attention.layer_norm, weights, f"{block}.around_memory.norm")


def specify(weights: Exported, layers: int, heads: int) -> TransformerSpec:
    """Our model as CTranslate2 describes models."""
    spec = TransformerSpec.from_config((layers, layers), heads, pre_norm=True)
    spec.encoder.embeddings[0].weight = weights.rows("source_embedding.weight", SPECIALS)
    spec.decoder.embeddings.weight = weights.rows("target_embedding.weight", SPECIALS)
    set_stack(spec.encoder, weights, "encoder.stack")
    set_stack(spec.decoder, weights, "decoder.stack")
    spec.decoder.projection.weight = weights.rows("readout.weight", SPECIALS)
    spec.decoder.projection.bias = weights.rows("readout.bias", SPECIALS, IMPOSSIBLE)
    spec.register_source_vocabulary(SPECIALS + weights.symbols)
    spec.register_target_vocabulary(SPECIALS + weights.symbols)
    spec.config.decoder_start_token, spec.config.bos_token, spec.config.eos_token = START, START, END
    spec.config.add_source_bos = spec.config.add_source_eos = False
    return spec


def main() -> None:
    """Convert and load, then time."""
    job = read_job()
    weights = Exported(job["weights"])
    folder = tempfile.TemporaryDirectory()
    spec = specify(weights, job["layers"], job["heads"])
    spec.validate()
    spec.save(folder.name)

    def ready(candidate: dict[str, Any]) -> Translate:
        workers = candidate["workers"]
        threads = max(1, job["threads"] // workers)
        translator = ctranslate2.Translator(folder.name, compute_type="float32", inter_threads=workers, intra_threads=threads)
        # With the end symbol in the output, it counts in the length that scores are divided by, as ours does.
        asked = {"beam_size": job["beam"], "length_penalty": 1.0, "max_decoding_length": job["longest"], "return_end_token": True}

        def translate(lines: list[str]) -> list[Output]:
            pieces = [line.split(" ") for line in lines]
            found = translator.translate_batch(pieces, max_batch_size=candidate["batch"], **asked)
            best = [[piece for piece in one.hypotheses[0] if piece != END] for one in found]
            return [(" ".join(pieces), len(pieces)) for pieces in best]

        return translate

    time_decoding(job, ready, parameters=weights.parameters, threads=job["threads"])


if __name__ == "__main__":
    main()
