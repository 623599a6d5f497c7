"""Sparse rows times a dense matrix, differentiable, deterministic, and without torch-sparse.

embedding_bag sums rows in order with a fused kernel; its own gradient is a slow scatter, so the gradient here is the
same kernel over the transposed rows.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gnn.kernels import transpose


class _SparseProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, indptr: Tensor, indices: Tensor, weights: Tensor, dense: Tensor) -> Tensor:
        ctx.save_for_backward(indptr, indices, weights)
        ctx.rows = len(dense)
        return _bag(indptr, indices, weights, dense)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, None, Tensor]:
        transposed: Any = _sorted_transpose if grads[0].is_cuda else _counted_transpose
        indptr, indices, weights = transposed(*ctx.saved_tensors, ctx.rows)
        return None, None, None, _bag(indptr, indices, weights, grads[0].contiguous())


def sparse_product(indptr: Tensor, indices: Tensor, weights: Tensor, dense: Tensor) -> Tensor:
    """Rows (indptr int64 [n + 1], indices int64 [m], weights float32 [m]) times dense [k, h]: [n, h].

    Differentiable in `dense` alone.
    """
    return _SparseProduct.apply(indptr, indices, weights, dense)


def _counted_transpose(indptr: Tensor, indices: Tensor, weights: Tensor, columns: int) -> tuple[Tensor, ...]:
    flipped = transpose(indptr.numpy(), indices.numpy(), weights.numpy(), columns)
    return tuple(torch.from_numpy(array) for array in flipped)


def _sorted_transpose(indptr: Tensor, indices: Tensor, weights: Tensor, columns: int) -> tuple[Tensor, ...]:
    """The same where sorting is quicker than a way to the CPU and back."""
    rows = torch.arange(len(indptr) - 1, device=indices.device)
    rows = rows.repeat_interleave(indptr.diff(), output_size=len(indices))
    column, order = indices.sort(stable=True)
    starts = torch.searchsorted(column, torch.arange(columns + 1, device=indices.device))
    return starts, rows[order], weights[order]


def _bag(indptr: Tensor, indices: Tensor, weights: Tensor, dense: Tensor) -> Tensor:
    if not len(indices):
        return dense.new_zeros(len(indptr) - 1, dense.shape[1])
    return F.embedding_bag(indices, dense, indptr, mode="sum", per_sample_weights=weights, include_last_offset=True)
