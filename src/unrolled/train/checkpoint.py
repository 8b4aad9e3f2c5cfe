"""A checkpoint is one safetensors file: tensors by name, and all counters as JSON in its header. No pickle, ever."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unrolled.core.errors import RunError
from unrolled.core.files import write_atomically


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: where it shall stand.
        tensors: by name.
        counters: what JSON can hold; floats keep every bit.
    """
    whole = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    write_atomically(path, lambda new: save_file(whole, new, {"counters": json.dumps(counters), "digest": digest_of(whole)}))


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names, types, shapes and every bit of tensors on the CPU.

    Args:
        tensors: by name.

    Returns:
        The hash in hexadecimal.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint.

    Args:
        path: the file.

    Returns:
        Tensors by name, and the counters.

    Raises:
        RunError: the file is missing, cut short or not a checkpoint.
    """
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            counters, digest = json.loads(header["counters"]), header["digest"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError:
        raise RunError(f"there is no file `{path}`; the run has not saved anything yet, or the file was removed") from None
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise RunError(
            f"`{path}` must be a whole safetensors file written by unrolled, but it is damaged ({error}); restore it or train again"
        ) from None
    if digest_of(tensors) != digest:
        raise RunError(f"`{path}` must hold the numbers that unrolled wrote, but some have been changed since; restore it or train again")
    return tensors, counters


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each shared tensor once.

    Args:
        module: any.

    Returns:
        Tensors by name.
    """
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


@torch.no_grad()
def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], origin: Path) -> None:
    """Put tensors into a module; names and shapes must all agree.

    Args:
        module: what `weights_of` was taken from, or one of the same form.
        tensors: by name.
        origin: named in the message.

    Raises:
        RunError: a tensor is missing, too many, or of another shape.
    """
    own = weights_of(module)
    for name in sorted(own.keys() ^ tensors.keys()):
        where = "is missing from" if name in own else "does not belong in"
        raise RunError(
            f"the tensor `{name}` {where} `{origin}`: the file and the run's configuration do not fit together; restore the file or train again"
        )
    for name, tensor in own.items():
        if tensors[name].shape != tensor.shape:
            raise RunError(
                f"the tensor `{name}` of `{origin}` must have shape {list(tensor.shape)} by the run's configuration, got {list(tensors[name].shape)}"
            )
        tensor.copy_(tensors[name])


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The memory of an optimiser as flat tensors; its rates follow from the configuration and are not stored.

    Args:
        optimizer: any whose memory is made of tensors.

    Returns:
        Tensors by `number.name`.
    """
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, memory in state.items() for name, value in memory.items() if isinstance(value, Tensor)}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`.

    Args:
        optimizer: fresh, over the same parameters.
        tensors: by `number.name`.
    """
    whole = optimizer.state_dict()
    memory: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        memory.setdefault(int(number), {})[name] = value
    whole["state"] = memory
    optimizer.load_state_dict(whole)
