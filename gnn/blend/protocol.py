"""What every blend module takes and returns, and the checks at its door."""

from typing import Protocol

import torch
from torch import Tensor

NONE = -1
"""Fills a list of picks after its end, and a candidate's groups after the last."""


class Blend(Protocol):
    """Picks from each user's candidates, in order.

    relevance float32 [B, N]: higher is better, on a scale near [0, 1] (`gnn.blend.utility` brings it there).
    traits: what a module compares candidates by: embeddings float32 [B, N, D] of unit (or zero) rows, groups int64
    [B, N, G] padded with -1, or further objectives float32 [B, N, M]; each module says which.
    valid bool [B, N]: the candidates that may be picked; what the others hold does not matter, be it NaN.
    Returns int64 [B, picks]: positions in 0..N-1, none twice, -1 after a list's end. All valid candidates are picked
    before a list ends. Of equals, the lower position comes first.
    Raises ValueError where shapes, types or numbers are not as said.
    """

    def __call__(self, relevance: Tensor, traits: Tensor, valid: Tensor, picks: int) -> Tensor: ...


def check(relevance: Tensor, traits: Tensor, valid: Tensor, picks: int) -> None:
    """Raises ValueError for inputs that do not fit together."""
    if relevance.ndim != 2 or not relevance.is_floating_point():
        raise ValueError(f"relevance: {_described(relevance)} is not float [B, N]")
    if traits.ndim != 3 or traits.shape[:2] != relevance.shape:
        raise ValueError(f"traits: {_described(traits)} does not fit relevance {list(relevance.shape)}: want [B, N, …]")
    if valid.shape != relevance.shape or valid.dtype != torch.bool:
        raise ValueError(f"valid: {_described(valid)} is not bool {list(relevance.shape)}")
    if picks < 0:
        raise ValueError(f"picks: {picks} is negative")


def finite(name: str, values: Tensor, valid: Tensor) -> Tensor:
    """values in float64, zeros where not valid. Raises ValueError for NaN and infinity."""
    return all_finite(values.double().masked_fill(~valid, 0.0), f"{name}: a valid candidate holds NaN or infinity")


def all_finite(values: Tensor, otherwise: str) -> Tensor:
    """values. Raises ValueError saying `otherwise`, but not in a graph under export, which can't."""
    exported = torch.jit.is_tracing() or torch.compiler.is_compiling()
    if not exported and not bool(values.isfinite().all()):
        raise ValueError(otherwise)
    return values


def _described(values: Tensor) -> str:
    return f"{str(values.dtype).removeprefix('torch.')} {list(values.shape)}"
