"""What a user would run instead of a model: full-corpus lists by five heuristics, the baselines of the report.

Common neighbours, Adamic-Adar (Social Networks 2003) and resource allocation (Zhou, Lü and Zhang, EPJ B 2009) look at
every friend of every friend, uncapped. Personalised PageRank is six steps of power iteration from the user, alpha 0.15;
on a large graph, mass too thin to matter is not pushed on (Andersen, Chung and Lang, FOCS 2006).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from infra.graph import Csr, Int32, Int64
from lookup_api.ranking.features import ALPHA

COMMON_NEIGHBOURS, ADAMIC_ADAR, RESOURCE_ALLOCATION = "common neighbours", "Adamic-Adar", "resource allocation"
PAGERANK, POPULARITY = "personalised PageRank", "popularity"
NEIGHBOURHOOD = (COMMON_NEIGHBOURS, ADAMIC_ADAR, RESOURCE_ALLOCATION)
HEURISTICS = (*NEIGHBOURHOOD, PAGERANK, POPULARITY)

STEPS = 6
EDGES_A_STEP = 200_000
"""PageRank pushes along at most so many edges a step for one user; exact on a graph with no more entries."""

BLOCK = 128

Float64 = npt.NDArray[np.float64]


def heuristic_lists(friends: Csr, asked: npt.NDArray[Any], depth: int, threads: int) -> dict[str, Int32]:
    """The best `depth` people for each asked row by each heuristic, int32 [Q, depth], padded with -1.

    Equal scores go to the lower row. A list never names the row itself or a friend. People without a score are left
    out. Cost: the friends of friends of the asked, and at most STEPS x EDGES_A_STEP edges each.
    """
    indptr, indices = np.asarray(friends.indptr), np.asarray(friends.indices)
    rows = np.ascontiguousarray(asked, np.int64)
    degree = friends.degrees()
    weights = np.stack([np.ones(len(degree)), 1 / np.log(np.maximum(degree, 2)), 1 / np.maximum(degree, 1)], axis=1)
    thin = 0.0 if friends.entries <= EDGES_A_STEP else 1 / EDGES_A_STEP
    popular = np.argsort(-degree, kind="stable").astype(np.int32)
    found = {name: np.full((len(rows), depth), -1, np.int32) for name in HEURISTICS}

    def block(start: int) -> None:
        at = slice(start, start + BLOCK)
        hops = np.full((len(NEIGHBOURHOOD), len(rows[at]), depth), -1, np.int32)
        _by_neighbourhood(rows[at], indptr, indices, weights, hops)
        for name, lists in zip(NEIGHBOURHOOD, hops, strict=True):
            found[name][at] = lists
        _by_pagerank(rows[at], indptr, indices, thin, found[PAGERANK][at])
        _by_popularity(rows[at], indptr, indices, popular, found[POPULARITY][at])

    _in_threads(block, range(0, len(rows), BLOCK), threads)
    return found


def _in_threads(work: Callable[[int], None], starts: range, threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, starts):
            pass


@numba.njit(cache=True, nogil=True)
def _bar(user: int, indptr: Int64, indices: Int32, barred: Any, value: bool) -> None:
    barred[user] = value
    for at in range(indptr[user], indptr[user + 1]):
        barred[indices[at]] = value


@numba.njit(cache=True, nogil=True)
def _keep_best(nodes: Int32, count: int, scores: Float64, barred: Any, rows: Int32, best: Float64) -> None:
    """Fills rows with the best of nodes[:count] by (score descending, row ascending); best is scratch, [len(rows)]."""
    size, room = 0, len(rows)
    for i in range(count):
        node = nodes[i]
        score = scores[node]
        if barred[node] or score <= 0:
            continue
        if size == room and (score < best[room - 1] or (score == best[room - 1] and node > rows[room - 1])):
            continue
        size = min(size + 1, room)
        at = size - 1
        while at > 0 and (score > best[at - 1] or (score == best[at - 1] and node < rows[at - 1])):
            best[at], rows[at] = best[at - 1], rows[at - 1]
            at -= 1
        best[at], rows[at] = score, node


@numba.njit(cache=True, nogil=True)
def _by_neighbourhood(asked: Int64, indptr: Int64, indices: Int32, weights: Float64, out: Any) -> None:
    """out int32 [3, B, depth]; weights float64 [N, 3] of a common friend, by its row."""
    users = len(indptr) - 1
    scores, nodes = np.zeros((weights.shape[1], users)), np.empty(users, np.int32)
    seen, barred = np.zeros(users, np.bool_), np.zeros(users, np.bool_)
    best = np.empty(out.shape[2])
    for i in range(len(asked)):
        user, count = asked[i], 0
        for at in range(indptr[user], indptr[user + 1]):
            middle = indices[at]
            for far in range(indptr[middle], indptr[middle + 1]):
                node = indices[far]
                if not seen[node]:
                    seen[node] = True
                    nodes[count] = node
                    count += 1
                for w in range(weights.shape[1]):
                    scores[w, node] += weights[middle, w]
        _bar(user, indptr, indices, barred, True)
        for w in range(weights.shape[1]):
            _keep_best(nodes, count, scores[w], barred, out[w, i], best)
        _bar(user, indptr, indices, barred, False)
        for j in range(count):
            seen[nodes[j]] = False
            scores[:, nodes[j]] = 0


@numba.njit(cache=True, nogil=True)
def _by_pagerank(asked: Int64, indptr: Int64, indices: Int32, thin: float, out: Any) -> None:
    """x <- alpha e + (1 - alpha) P x, pushed from the rows whose mass an edge is at least `thin`."""
    users = len(indptr) - 1
    here, there = np.zeros(users), np.zeros(users)
    nodes, fresh = np.empty(users, np.int32), np.empty(users, np.int32)
    barred, best = np.zeros(users, np.bool_), np.empty(out.shape[1])
    for i in range(len(asked)):
        user = asked[i]
        here[user], nodes[0], count = 1.0, user, 1
        for _ in range(STEPS):
            there[user], fresh[0], arrived = ALPHA, user, 1
            for j in range(count):
                node = nodes[j]
                degree = indptr[node + 1] - indptr[node]
                if degree > 0 and here[node] >= thin * degree:
                    share = (1 - ALPHA) * here[node] / degree
                    for at in range(indptr[node], indptr[node + 1]):
                        other = indices[at]
                        if there[other] == 0:
                            fresh[arrived] = other
                            arrived += 1
                        there[other] += share
                here[node] = 0.0
            here, there = there, here
            nodes, fresh = fresh, nodes
            count = arrived
        _bar(user, indptr, indices, barred, True)
        _keep_best(nodes, count, here, barred, out[i], best)
        _bar(user, indptr, indices, barred, False)
        for j in range(count):
            here[nodes[j]] = 0.0


@numba.njit(cache=True, nogil=True)
def _by_popularity(asked: Int64, indptr: Int64, indices: Int32, popular: Int32, out: Any) -> None:
    barred = np.zeros(len(popular), np.bool_)
    for i in range(len(asked)):
        _bar(asked[i], indptr, indices, barred, True)
        size = 0
        for node in popular:
            if size == out.shape[1]:
                break
            if not barred[node]:
                out[i, size] = node
                size += 1
        _bar(asked[i], indptr, indices, barred, False)
