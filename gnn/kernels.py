"""Numba kernels over CSR rows: sampling hops, hard negatives, who in a batch are friends, and transposition.

Random numbers are a hash of (key, counter), so a kernel's draws depend on its arguments alone.
"""

import numpy as np
from numba import njit

_TRIES = 8
"""Walks tried for a hard negative before any user that is not a friend will do."""


@njit(cache=True, nogil=True, inline="always")
def _mix(key, counter):
    """SplitMix64 (Steele et al., OOPSLA 2014) of key + counter: uint64."""
    z = np.uint64(key) + np.uint64(counter) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True, inline="always")
def _below(key, counter, bound):
    """A draw from 0 .. bound - 1."""
    return np.int64(_mix(key, counter) % np.uint64(bound))


@njit(cache=True, nogil=True)
def _contains(values, start, end, wanted):
    """Whether the ascending values[start:end] hold `wanted`."""
    while start < end:
        middle = (start + end) // 2
        if values[middle] < wanted:
            start = middle + 1
        else:
            end = middle
    return start < len(values) and values[start] == wanted


@njit(cache=True, nogil=True)
def _is_row_entry(indptr, indices, row, column):
    start, end = indptr[row], indptr[row + 1]
    while start < end:
        middle = (start + end) // 2
        if indices[middle] < column:
            start = middle + 1
        else:
            end = middle
    return start < indptr[row + 1] and indices[start] == column


@njit(cache=True, nogil=True)
def _sample_hop(indptr, indices, nodes, frontier, total, fanouts, key, hidden, is_target, local, row, col, edge):
    """Fills row/col/edge with one hop from nodes[frontier:total]; returns (edges, nodes so far).

    fanouts: of targets, of others. A row longer than the fanout is cut into `fanout` strata that start at a random
    entry, and one entry is drawn of each: distinct entries, each with the same chance, in O(fanout).
    """
    edges = 0
    users = len(indptr) - 1
    known = total
    for at in range(frontier, total):
        node = nodes[at]
        first = indptr[node]
        degree = indptr[node + 1] - first
        fanout = fanouts[0] if is_target[node] else fanouts[1]
        take = degree if fanout < 0 or degree <= fanout else np.int64(fanout)
        own = _mix(key, node)
        turn = np.int64(0)
        if take < degree:
            turn = _below(own, 0, degree)
        for i in range(take):
            position = first + i
            if take < degree:
                low, high = i * degree // take, (i + 1) * degree // take
                position = first + (low + _below(own, i + 1, high - low) + turn) % degree
            other = np.int64(indices[position])
            if is_target[node] and is_target[other]:
                wanted = min(node, other) * users + max(node, other)
                if _contains(hidden, 0, len(hidden), wanted):
                    continue
            if local[other] < 0:
                local[other] = known
                nodes[known] = other
                known += 1
            row[edges], col[edges], edge[edges] = local[other], at, position
            edges += 1
    return edges, known


@njit(cache=True, nogil=True)
def sample_hops(indptr, indices, seeds, targets, fanouts, key, hidden, is_target, local):
    """Neighbours of `seeds` hop by hop, each node expanded once, with draws that follow from (key, node) alone: what
    a node hears does not depend on which other seeds are asked for.

    seeds int64 [S]; targets int64 [T], users who are heard by fanouts[0] wherever they are met; fanouts int64 [hops],
    -1 = all; hidden int64, sorted keys min * users + max of friendships between targets that must not appear;
    is_target uint8 [users] of zeros and local int32 [users] of -1 are scratch and are handed back so.
    Returns node int64 [n] (the seeds first, then hop by hop), row int64 [m] (local, who is heard), col int64 [m]
    (local, who hears, ascending), edge int64 [m] (entry of the Csr), and nodes and edges of each hop.
    """
    users = len(indptr) - 1
    hops = len(fanouts)
    nodes_a_hop, edges_a_hop = np.zeros(hops + 1, np.int64), np.zeros(hops, np.int64)
    nodes = seeds.astype(np.int64)
    for target in targets:
        is_target[target] = 1
    for i in range(len(seeds)):
        if local[seeds[i]] < 0:
            local[seeds[i]] = i
    nodes_a_hop[0] = len(seeds)
    rows, cols, edges = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64)
    frontier, total = 0, len(seeds)
    fanout = np.empty(2, np.int64)
    for hop in range(hops):
        fanout[0], fanout[1] = fanouts[0], fanouts[hop]
        bound = 0
        for at in range(frontier, total):
            degree = indptr[nodes[at] + 1] - indptr[nodes[at]]
            most = fanout[0] if is_target[nodes[at]] else fanout[1]
            bound += degree if most < 0 or degree <= most else most
        grown = np.empty(total + min(bound, users), np.int64)
        grown[:total] = nodes[:total]
        nodes = grown
        row, col, edge = np.empty(bound, np.int64), np.empty(bound, np.int64), np.empty(bound, np.int64)
        found, known = _sample_hop(
            indptr, indices, nodes, frontier, total, fanout, key, hidden, is_target, local, row, col, edge
        )
        rows = np.concatenate((rows, row[:found]))
        cols = np.concatenate((cols, col[:found]))
        edges = np.concatenate((edges, edge[:found]))
        nodes_a_hop[hop + 1], edges_a_hop[hop] = known - total, found
        frontier, total = total, known
    for i in range(total):
        local[nodes[i]] = -1
    for target in targets:
        is_target[target] = 0
    return nodes[:total], rows, cols, edges, nodes_a_hop, edges_a_hop


@njit(cache=True, nogil=True)
def drawn_nodes(nodes, key, share):
    """Whether each node is in a random share of all, which follows from (key, node) alone: bool [len(nodes)]."""
    drawn = np.empty(len(nodes), np.bool_)
    for i in range(len(nodes)):
        drawn[i] = np.float64(_mix(key, nodes[i]) >> np.uint64(11)) * 2.0**-53 < share
    return drawn


@njit(cache=True, nogil=True)
def draw_hard_negatives(indptr, indices, users, key):
    """For each user a friend of a random friend who is neither a friend nor the user, int64 [len(users)].

    Where no walk finds one, a random user who is not a friend; where there is none either, the user itself.
    """
    rows = len(indptr) - 1
    found = np.empty(len(users), np.int64)
    for i in range(len(users)):
        user = users[i]
        found[i] = user
        degree = indptr[user + 1] - indptr[user]
        for attempt in range(2 * _TRIES):
            counter = (i * 2 * _TRIES + attempt) * 2
            if attempt < _TRIES and degree > 0:
                friend = indices[indptr[user] + _below(key, counter, degree)]
                reach = indptr[friend + 1] - indptr[friend]
                other = np.int64(indices[indptr[friend] + _below(key, counter + 1, reach)])
            else:
                other = _below(key, counter, rows)
            if other != user and not _is_row_entry(indptr, indices, user, other):
                found[i] = other
                break
    return found


@njit(cache=True, nogil=True)
def friends_within(indptr, indices, left, right, right_order):
    """Which of left x right are friends or the same user: bool [len(left), len(right)].

    right_order: argsort of right.
    """
    known = np.zeros((len(left), len(right)), np.bool_)
    ordered = right[right_order]
    for i in range(len(left)):
        user = left[i]
        _mark(known[i], ordered, right_order, user)
        for position in range(indptr[user], indptr[user + 1]):
            _mark(known[i], ordered, right_order, indices[position])
    return known


@njit(cache=True, nogil=True)
def _mark(flags, ordered, order, wanted):
    at = np.searchsorted(ordered, wanted)
    while at < len(ordered) and ordered[at] == wanted:
        flags[order[at]] = True
        at += 1


@njit(cache=True, nogil=True)
def transpose(indptr, indices, weights, columns):
    """Transpose of a CSR matrix with `columns` columns by counting: (indptr, indices, weights), rows ascending."""
    starts = np.zeros(columns + 1, np.int64)
    for column in indices:
        starts[column + 1] += 1
    for column in range(columns):
        starts[column + 1] += starts[column]
    filled = starts[:-1].copy()
    rows = np.empty(len(indices), np.int64)
    kept = np.empty(len(indices), np.float32)
    for row in range(len(indptr) - 1):
        for position in range(indptr[row], indptr[row + 1]):
            to = filled[indices[position]]
            rows[to] = row
            kept[to] = weights[position]
            filled[indices[position]] += 1
    return starts, rows, kept
