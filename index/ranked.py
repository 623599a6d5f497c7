"""Kernels over ranked lists: exact scores of given rows, a total order, and the merge of shards.

Libraries compute an inner product in a different order of additions for one query than for a batch. Scoring what they
return once more, pair by pair, makes a score a pure function of its two vectors.
"""

from dataclasses import dataclass
from typing import Any, Self

import numba
import numpy as np
import numpy.typing as npt

from index.backend import Float32, Hits, Int32

PAD_ROW = -1
PAD_SCORE = np.float32(-np.inf)


@dataclass(frozen=True)
class Kept:
    """The vectors an index keeps: row r is values[r] * scale + offset; values float32 or uint8 [n, d], the rest [d]."""

    values: npt.NDArray[Any]
    scale: Float32
    offset: Float32

    @classmethod
    def whole(cls, vectors: Float32) -> Self:
        """Vectors as they came, float32 [n, d]."""
        dimensions = vectors.shape[1]
        return cls(vectors, np.ones(dimensions, np.float32), np.zeros(dimensions, np.float32))


def rescored(kept: Kept, queries: Float32, rows: Int32, k: int) -> Hits:
    """Orders rows int32 [Q, m] (-1 where none) by inner product with what is kept, then by row; keeps k columns."""
    rows = np.ascontiguousarray(rows, np.int32)
    scores = np.full(rows.shape, PAD_SCORE, np.float32)
    _score_and_sort(kept.values, kept.scale, kept.offset, queries, rows, scores)
    return padded(rows, scores, k)


def padded(rows: Int32, scores: Float32, k: int) -> Hits:
    """Exactly k columns: cut, or filled with -1 and -inf."""
    missing = max(0, k - rows.shape[1])
    if missing:
        rows = np.pad(rows, ((0, 0), (0, missing)), constant_values=PAD_ROW)
        scores = np.pad(scores, ((0, 0), (0, missing)), constant_values=PAD_SCORE)
    return np.ascontiguousarray(rows[:, :k]), np.ascontiguousarray(scores[:, :k])


def merged(rows: Int32, scores: Float32, k: int) -> Hits:
    """Merges lists, int32 and float32 [shards, Q, m], each in order, into the k best of each query."""
    out_rows = np.full((rows.shape[1], k), PAD_ROW, np.int32)
    out_scores = np.full((rows.shape[1], k), PAD_SCORE, np.float32)
    _merge(rows, scores, out_rows, out_scores)
    return out_rows, out_scores


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _dot(a: npt.NDArray[Any], b: Float32) -> np.float32:
    total = np.float32(0)
    for i in range(len(a)):
        total += np.float32(a[i]) * b[i]
    return total


@numba.njit(cache=True, nogil=True)
def _before(score: np.float32, row: np.int32, other_score: np.float32, other_row: np.int32) -> bool:
    return bool(score > other_score or (score == other_score and row < other_row))


@numba.njit(cache=True, nogil=True)
def _score_and_sort(
    values: npt.NDArray[Any], scale: Float32, offset: Float32, queries: Float32, rows: Int32, scores: Float32
) -> None:
    """Fills scores and sorts each line in place by insertion: the lines come nearly sorted."""
    for q in range(rows.shape[0]):
        scaled, shift = queries[q] * scale, _dot(queries[q], offset)
        filled = 0
        for j in range(rows.shape[1]):
            row = rows[q, j]
            if row < 0:
                continue
            score = _dot(values[row], scaled) + shift
            at = filled
            while at > 0 and _before(score, row, scores[q, at - 1], rows[q, at - 1]):
                rows[q, at] = rows[q, at - 1]
                scores[q, at] = scores[q, at - 1]
                at -= 1
            rows[q, at] = row
            scores[q, at] = score
            filled += 1
        rows[q, filled:] = -1


@numba.njit(cache=True, nogil=True)
def _merge(rows: Int32, scores: Float32, out_rows: Int32, out_scores: Float32) -> None:
    shards, queries, width = rows.shape
    for q in range(queries):
        at = np.zeros(shards, np.int64)
        for j in range(out_rows.shape[1]):
            best = -1
            for s in range(shards):
                if at[s] == width or rows[s, q, at[s]] < 0:
                    continue
                if best < 0 or _before(
                    scores[s, q, at[s]], rows[s, q, at[s]], scores[best, q, at[best]], rows[best, q, at[best]]
                ):
                    best = s
            if best < 0:
                break
            out_rows[q, j] = rows[best, q, at[best]]
            out_scores[q, j] = scores[best, q, at[best]]
            at[best] += 1
