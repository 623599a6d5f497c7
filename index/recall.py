"""recall@k of an index against exact search."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from index.backend import Float32, Hits

ROW_BLOCK = 16_384
QUERY_BLOCK = 256
TOLERANCE = 1e-5
"""Scores of unit vectors that differ by less count as equal: float32 sums differ by their order."""


class Searcher(Protocol):
    def search(self, queries: Float32, k: int) -> Hits: ...


def sampled_rows(rows: int, at_most: int, seed: int) -> npt.NDArray[np.int64]:
    """A seeded sample of rows without repetition, ascending."""
    chosen = np.random.default_rng(seed).choice(rows, min(rows, at_most), replace=False)
    return np.sort(chosen.astype(np.int64))


def kth_best(vectors: Float32, queries: Float32, k: int) -> Float32:
    """The exact k-th best inner product of each query, float32 [Q], in blocks of 16 MiB; k <= n."""
    best = np.full((len(queries), k), -np.inf, np.float32)
    for start in range(0, len(vectors), ROW_BLOCK):
        scores = queries @ np.asarray(vectors[start : start + ROW_BLOCK]).T  # [Q, block]
        both = np.concatenate([best, scores], axis=1)
        best = np.partition(both, both.shape[1] - k, axis=1)[:, -k:]
    return best.min(axis=1)


def recall_at(index: Searcher, vectors: Float32, query_rows: npt.NDArray[np.int64], k: int) -> float:
    """Share of the k best rows that the index finds, mean over queries taken from vectors float32 [n, d]; 1 for n = 0.

    A returned row counts if its true score reaches the exact k-th best: of many equal rows any k are right. k is at
    most n. A row that is returned twice counts once.
    """
    k = min(k, len(vectors))
    if not k or not len(query_rows):
        return 1.0
    hits = 0
    for start in range(0, len(query_rows), QUERY_BLOCK):
        queries = np.ascontiguousarray(vectors[query_rows[start : start + QUERY_BLOCK]])
        rows = np.sort(index.search(queries, k)[0], axis=1)
        valid = (rows >= 0) & np.diff(rows, axis=1, prepend=-1).astype(bool)
        scores = np.einsum("qd,qkd->qk", queries, vectors[np.maximum(rows, 0)])
        hits += int((valid & (scores >= kth_best(vectors, queries, k)[:, None] - TOLERANCE)).sum())
    return hits / (k * len(query_rows))
