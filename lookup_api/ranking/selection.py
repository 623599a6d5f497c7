"""The best few of many scored rows, and the union of ranked lists from several sources."""

import numpy as np
import numpy.typing as npt
from numba import njit

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]


@njit(cache=True, nogil=True)
def _worse(score_a, row_a, score_b, row_b):  # type: ignore[no-untyped-def]
    """Whether a ranks after b: a lower score, or the same score and a higher row."""
    return score_a < score_b or (score_a == score_b and row_a > row_b)


@njit(cache=True, nogil=True)
def _sift_down(rows, scores, root, size):  # type: ignore[no-untyped-def]
    while True:
        child = 2 * root + 1
        if child >= size:
            return
        if child + 1 < size and _worse(scores[child + 1], rows[child + 1], scores[child], rows[child]):
            child += 1
        if not _worse(scores[child], rows[child], scores[root], rows[root]):
            return
        rows[child], rows[root] = rows[root], rows[child]
        scores[child], scores[root] = scores[root], scores[child]
        root = child


@njit(cache=True, nogil=True)
def take_best(nodes, count, score, barred, rows, scores):  # type: ignore[no-untyped-def]
    """Writes the best of nodes[:count] with a positive score that are not barred; returns how many.

    score float32 [N], barred bool [N]; rows int32 [k] and scores float32 [k] are filled best first, equal scores by
    row, and padded with -1 and 0. A heap of k whose root is the worst kept, so that most nodes cost one comparison.
    """
    k, size = len(rows), 0
    for i in range(count):
        node = nodes[i]
        value = score[node]
        if value <= 0 or barred[node]:
            continue
        if size < k:
            rows[size], scores[size] = node, value
            size += 1
            if size == k:
                for root in range(k // 2 - 1, -1, -1):
                    _sift_down(rows, scores, root, k)
        elif _worse(scores[0], rows[0], value, node):
            rows[0], scores[0] = node, value
            _sift_down(rows, scores, 0, k)
    if size < k:
        for root in range(size // 2 - 1, -1, -1):
            _sift_down(rows, scores, root, size)
    for last in range(size - 1, 0, -1):
        rows[0], rows[last] = rows[last], rows[0]
        scores[0], scores[last] = scores[last], scores[0]
        _sift_down(rows, scores, 0, last)
    rows[size:] = -1
    scores[size:] = 0
    return size


@njit(cache=True, nogil=True)
def _merge(lists, bits, pace, users, reach, out_rows, out_bits):  # type: ignore[no-untyped-def]
    sources, block, depth = lists.shape
    k = out_rows.shape[1]
    nobody = np.zeros(reach, np.bool_)
    merit = np.zeros(reach, np.float32)
    seen = np.zeros(reach, np.uint8)
    nodes = np.empty(sources * depth, np.int32)
    scores = np.empty(k, np.float32)
    for i in range(block):
        count = 0
        nobody[users[i]] = True
        for s in range(sources):
            for rank in range(depth):
                row = lists[s, i, rank]
                if row < 0:
                    break
                if seen[row] == 0:
                    nodes[count] = row
                    count += 1
                seen[row] |= bits[s]
                merit[row] += pace[s] / (rank + MERGE_OFFSET)
        take_best(nodes, count, merit, nobody, out_rows[i], scores)
        for j in range(k):
            out_bits[i, j] = seen[out_rows[i, j]] if out_rows[i, j] >= 0 else 0
        for j in range(count):
            merit[nodes[j]] = 0
            seen[nodes[j]] = 0
        nobody[users[i]] = False


MERGE_OFFSET = 10.0
"""Offset of the reciprocal ranks: small lets each source's first few in, large rewards agreement between sources."""


def merge(
    lists: npt.NDArray[np.int32], bits: npt.NDArray[np.uint8], weights: Float32, users: Int32, reach: int, k: int
) -> tuple[Int32, npt.NDArray[np.uint8]]:
    """Union of ranked lists by weighted reciprocal rank (Cormack et al., SIGIR 2009): the best k a user.

    lists int32 [S, B, L], best first, -1 padded; bits uint8 [S]; weights float32 [S]; reach: number of rows N.
    Returns rows int32 [B, k], best first and -1 padded, and their source bits uint8 [B, k].
    """
    rows = np.empty((len(users), k), np.int32)
    found = np.empty((len(users), k), np.uint8)
    _merge(lists, bits, weights, users, reach, rows, found)
    return rows, found
