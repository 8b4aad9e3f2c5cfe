"""Device, number format and threads of a training, decided once and written into the run."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path
from typing import NamedTuple

import torch

from unrolled.core.errors import ConfigurationError
from unrolled.train.settings import TrainSettings


class Machine(NamedTuple):
    """Where and how a training computes."""

    device: torch.device
    precision: str
    threads: int
    processor: str

    def facts(self) -> dict[str, str | int]:
        """The machine as a run remembers it.

        Returns:
            Device, precision, threads, processor.
        """
        return {"device": self.device.type, "precision": self.precision, "threads": self.threads, "processor": self.processor}

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context in which the forward pass runs.

        Returns:
            bf16 autocast, or nothing in fp32.
        """
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


def has_native_bf16(device: torch.device) -> bool:
    """Whether products of bf16 numbers are faster than fp32 there.

    Args:
        device: CPU or GPU.

    Returns:
        True for AVX512-BF16, AMX, and GPUs from Ampere on.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    checks = (getattr(torch.cpu, "_is_avx512_bf16_supported", None), getattr(torch.cpu, "_is_amx_tile_supported", None))
    return device.type == "cpu" and any(check is not None and check() for check in checks)


def prepare_machine(settings: TrainSettings) -> Machine:
    """Choose device and precision, and set the number of threads.

    Args:
        settings: what was asked for.

    Returns:
        What will be used.

    Raises:
        ConfigurationError: a device that is not there, or bf16 where the kernels do not have it.
    """
    device = choose_device(settings.device, "train.device")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    native = has_native_bf16(device)
    if settings.precision == "bf16" and device.type == "cpu" and not native:
        raise ConfigurationError(
            "`train.precision=bf16` needs a processor with bf16 products (AVX512-BF16 or AMX), and this one has none; use fp32 or auto"
        )
    precision = ("bf16" if native else "fp32") if settings.precision == "auto" else settings.precision
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    return Machine(device, precision, torch.get_num_threads(), processor_name(device))


def choose_device(name: str, option: str = "device") -> torch.device:
    """The device of a name.

    Args:
        name: `cpu`, `cuda`, `cuda:1`, …; `auto` takes a GPU where there is one.
        option: how the option is called that said so.

    Returns:
        A device that is there.

    Raises:
        ConfigurationError: it is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        return torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"`{option}` must be a device of this machine, got `{name}` ({reason}); try `cpu` or `auto`") from None
    if name == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device


def processor_name(device: torch.device) -> str:
    """The name of what computes.

    Args:
        device: CPU or GPU.

    Returns:
        The model's name, as far as the system tells.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()} ({torch.backends.cpu.get_cpu_capability()})"
    return platform.processor() or platform.machine()
