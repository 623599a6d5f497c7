"""Processes that train one encoder together, each on its share of every mini-batch.

Their gradients are summed, dense ones by an all-reduce and those of tables by exchanging the touched rows, so that
every process takes the step that one process alone would have taken. torch's DistributedDataParallel is not used: it
averages, and would exchange whole tables.
"""

from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from gnn.optimise import summed_rows

PATIENCE = timedelta(hours=12)
"""How long the others wait while the first process validates."""


@dataclass(frozen=True)
class Processes:
    """This process is `rank` of `count`, and its tensors are on `device`."""

    device: torch.device
    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls, device: torch.device, rank: int, count: int) -> "Processes":
        """Meets the others where torchrun says; `leave` at the end."""
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        return cls(device, rank, count)

    def leave(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum_gradients(self, dense: list[Tensor], tables: list[Tensor]) -> None:
        """Replaces every gradient by its sum over the processes; none counts as zero."""
        if self.count == 1:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in dense]
        summed = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(summed)
        parts = summed.split([p.numel() for p in dense])
        for parameter, part in zip(dense, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        for table in tables:
            table.grad = self._summed_rows(table)

    def sum(self, value: float) -> float:
        if self.count == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return float(total)

    def from_first(self, value: float) -> float:
        """What the first process has."""
        if self.count == 1:
            return value
        said = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.broadcast(said, src=0)
        return float(said)

    def _summed_rows(self, table: Tensor) -> Tensor:
        """The sparse gradient with each touched row once, added up in the order of the ranks."""
        rows, slopes = self._own_rows(table)
        counts = self._gathered(torch.tensor([len(rows)], device=self.device))
        longest = int(torch.cat(counts).max())
        all_rows = self._gathered(_padded(rows, longest))
        all_slopes = self._gathered(_padded(slopes, longest))
        kept = [int(count) for count in counts]
        rows = torch.cat([part[:n] for part, n in zip(all_rows, kept, strict=True)])
        slopes = torch.cat([part[:n] for part, n in zip(all_slopes, kept, strict=True)])
        rows, slopes = summed_rows(rows, slopes)
        return torch.sparse_coo_tensor(rows[None], slopes, table.shape, check_invariants=False)

    def _own_rows(self, table: Tensor) -> tuple[Tensor, Tensor]:
        if table.grad is None:
            return torch.empty(0, dtype=torch.int64, device=self.device), table.new_empty(0, table.shape[1])
        return table.grad._indices()[0], table.grad._values()

    def _gathered(self, own: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(own) for _ in range(self.count)]
        dist.all_gather(parts, own.contiguous())
        return parts


def _padded(values: Tensor, rows: int) -> Tensor:
    return torch.cat([values, values.new_zeros(rows - len(values), *values.shape[1:])])
