"""One process or several under `torchrun`: who this one is, and how sums are shared."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from unrolled.core.errors import ConfigurationError


@dataclass(frozen=True)
class Group:
    """The processes that train one model together; a single one unless started by `torchrun`."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def rows(self, total: int) -> slice:
        """This process's share of the rows of a global batch.

        Args:
            total: rows of the global batch.

        Returns:
            A slice of them.

        Raises:
            ConfigurationError: the rows cannot be shared evenly.
        """
        if total % self.size:
            raise ConfigurationError(f"`train.batch_size` must be a multiple of the {self.size} processes that share it, got {total}")
        share = total // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def sum(self, value: Tensor) -> Tensor:
        """Add a tensor up over all processes.

        Args:
            value: this process's part; left as it is.

        Returns:
            The sum, the same everywhere.
        """
        if self.size == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total

    def gather(self, rows: Tensor) -> Tensor:
        """Put the rows of all processes together.

        Args:
            rows: this process's rows of a global batch, as many as every other has.

        Returns:
            All rows, in order.
        """
        if self.size == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def share(self, text: str) -> str:
        """The leading process's text, everywhere.

        Args:
            text: this process's own.

        Returns:
            The leader's.
        """
        if self.size == 1:
            return text
        holder = [text]
        dist.broadcast_object_list(holder, 0)
        return holder[0]

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier()


def join_group(device: torch.device) -> Group:
    """Join the processes that `torchrun` started, over gloo on a CPU and NCCL on a GPU.

    Args:
        device: what this process computes on.

    Returns:
        The group; of one where there is no `torchrun`.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Group()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Group(dist.get_rank(), size)


def leave_group(group: Group) -> None:
    """Leave together: without the barrier, gloo may abort at exit after a training that went well.

    Args:
        group: what `join_group` returned.
    """
    if group.size > 1:
        dist.barrier()
        dist.destroy_process_group()
