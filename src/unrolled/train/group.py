"""One process or several under `torchrun`: who this one is, and how sums are shared."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from unrolled.core.errors import ConfigurationError, UserError


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

    def agree(self, numbers: list[int], device: torch.device) -> bool:
        """Whether all processes have the same numbers.

        Args:
            numbers: of this process, equally many everywhere.
            device: where they are exchanged.

        Returns:
            The same answer everywhere.
        """
        if self.size == 1:
            return True
        mine = torch.tensor(numbers, dtype=torch.int64, device=device)
        largest, smallest = mine.clone(), mine.clone()
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        dist.all_reduce(smallest, dist.ReduceOp.MIN)
        return bool(torch.equal(largest, smallest))

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

    def lead(self, action: Callable[[], str]) -> str:
        """Let the leading process do something; its result, or its error, reaches every process.

        Args:
            action: done by the leader alone.

        Returns:
            What the action returned.

        Raises:
            UserError: the action failed with one.
        """
        if self.size == 1:
            return action()
        holder: list[tuple[str, str] | None] = [None]
        if self.leads:
            try:
                holder = [("done", action())]
            except UserError as error:
                holder = [("failed", str(error))]
        dist.broadcast_object_list(holder, 0)
        assert holder[0] is not None
        outcome, text = holder[0]
        if outcome == "failed":
            raise UserError(text)
        return text


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Group]:
    """Join the processes that `torchrun` started, over gloo on a CPU and NCCL on a GPU, and leave together.

    Args:
        device: what this process computes on.

    Yields:
        The group; of one where there is no `torchrun`.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group()
        return
    if device.type == "cuda":
        dist.init_process_group("nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    yield Group(dist.get_rank(), size)
    # Only where all went well: after an error the others may never come, and torchrun ends them. Without the barrier, gloo
    # may abort at exit after a training that ended well.
    dist.barrier()
    dist.destroy_process_group()
