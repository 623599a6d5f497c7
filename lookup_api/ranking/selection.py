"""The best few of many scored rows, and the union of ranked lists from several sources."""

from lookup_api.ranking.kernels import njit


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


MERGE_OFFSET = 10.0
"""Offset of the reciprocal ranks: small lets each source's first few in, large rewards agreement between sources."""


@njit(cache=True, nogil=True)
def unite(lists, bits, weights, merit, seen, nodes):  # type: ignore[no-untyped-def]
    """Union of ranked lists by weighted reciprocal rank (Cormack et al., SIGIR 2009); returns how many rows it has.

    lists int32 [S, L], best first, -1 padded; bits uint8 [S]; weights float32 [S]. merit float32 [N] and seen uint8 [N]
    must be zero and are left dirty at nodes[:count] (int32, at least S * L): the merit and the source bits of each row.
    """
    count = 0
    for s in range(len(lists)):
        for rank in range(lists.shape[1]):
            row = lists[s, rank]
            if row < 0:
                break
            if seen[row] == 0:
                nodes[count] = row
                count += 1
            seen[row] |= bits[s]
            merit[row] += weights[s] / (rank + MERGE_OFFSET)
    return count
