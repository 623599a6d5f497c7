"""The optimiser of the encoder's tables: touches the rows of a mini-batch and no others."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class RowAdam(torch.optim.Optimizer):
    """Adam (Kingma and Ba, ICLR 2015) without momentum and with one second moment a row, on sparse gradients.

    A step costs three passes over the touched rows and the state is one number a row, where torch's SparseAdam takes
    some twenty passes and two tables. A row that a gradient names twice, as users who share one do, takes the sum.
    """

    def __init__(self, tables: Iterable[Tensor], lr: float, decay: float = 0.99, eps: float = 1e-8) -> None:
        super().__init__(list(tables), {"lr": lr, "decay": decay, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._update(table, group)

    def _update(self, table: Tensor, group: dict[str, Any]) -> None:
        rows, slope = summed_rows(table.grad._indices()[0], table.grad._values())  # type: ignore[union-attr]
        state = self.state[table]
        if not state:
            state["moment"] = table.new_zeros(len(table))
            state["steps"] = table.new_zeros(len(table))
        decay = group["decay"]
        steps = state["steps"][rows] + 1
        moment = decay * state["moment"][rows] + (1 - decay) * slope.pow(2).mean(1)
        state["steps"][rows], state["moment"][rows] = steps, moment
        unbiased = moment / (1 - decay**steps)
        table.index_add_(0, rows, slope * (-group["lr"] / (unbiased.sqrt() + group["eps"])).unsqueeze(1))


def summed_rows(rows: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """Each row once with the sum of its slopes: int64 [d], float32 [d, h]; rows that are distinct stay in their order.

    rows int64 [n], slopes float32 [n, h].
    """
    distinct, at = rows.unique(return_inverse=True)
    if len(distinct) == len(rows):
        return rows, slopes
    return distinct, slopes.new_zeros(len(distinct), slopes.shape[1]).index_add_(0, at, slopes)
