"""Personalised PageRank over friends alone, or over friends and groups together, truncated to a budget of edges.

The scores are those of the power iteration x <- alpha e + (1 - alpha) P x, run `STEPS` times from e (Page et al.,
1999), with the walker's distribution P^t e pushed forward from the user instead: the sum over t < STEPS of
alpha (1 - alpha)^t P^t e, plus (1 - alpha)^STEPS P^STEPS e. Where a step would touch more edges than its share of the
budget, the rows that hold the least mass an edge are dropped. On dense graphs that is no loss: a walk that stays near
says more about friendship.
"""

from typing import Any

import numpy as np

from infra.graph import Csr, Float32
from lookup_api.ranking.arrays import pair, readonly
from lookup_api.ranking.features import ALPHA
from lookup_api.ranking.groups import Groups
from lookup_api.ranking.kernels import njit

STEPS = 6
_LEVELS = 80


def alone(friends: Csr) -> Any:
    """What `walk` needs to walk over friends alone."""
    nobody = Csr.empty(friends.rows)
    no_draw, no_pull = np.empty(0, np.float32), np.zeros(friends.rows, np.float32)
    return _paths(friends, nobody, Csr.empty(0), no_draw, no_pull)


def together(friends: Csr, groups: Groups) -> Any:
    """What `walk` needs to walk over friends and groups: a group draws a walker as `draw` friends would."""
    return _paths(friends, groups.of_user, groups.members, groups.draw, groups.pull)


def _paths(friends: Csr, of_user: Csr, members: Csr, draw: Float32, pull: Float32) -> Any:
    spans = np.asarray(friends.indptr) + np.asarray(of_user.indptr)
    return pair(friends), pair(of_user), pair(members), readonly(draw), readonly(pull), readonly(spans)


@njit(cache=True, nogil=True)
def scratch_for(paths):  # type: ignore[no-untyped-def]
    """Working memory of `walk`: (score float32 [N], nodes int32 [N + 1], and what stays inside)."""
    rows, groups = len(paths[4]), len(paths[3])
    widest = max(rows, groups)
    return (
        np.zeros(rows, np.float32),
        np.empty(rows + 1, np.int32),
        np.zeros(rows, np.float32),
        np.empty((2, rows + 1), np.int32),
        np.zeros(groups, np.float32),
        np.empty(groups + 1, np.int32),
        (np.empty(widest, np.float32), np.empty(widest, np.int64), np.empty(widest, np.uint8)),
    )


@njit(cache=True, nogil=True)
def walk(user, paths, budget, scratch):  # type: ignore[no-untyped-def]
    """Walks from `user`; leaves scores at nodes[:count] of scratch's score (zero before) and returns count.

    paths: from `alone` or `together`. A row without friends and groups keeps its walker.
    """
    score, nodes, mass, lists, group_mass, group_list, step_of = scratch
    members, spans = paths[2], paths[5]
    frontier, fresh = lists[0], lists[1]
    mass[user] = 1.0
    frontier[0] = user
    size, count, decay, left = 1, 0, np.float32(1.0), budget
    for step in range(STEPS):
        share = left // (STEPS - step) if step else spans[user + 1] - spans[user]
        count = _settle(frontier, size, mass, np.float32(ALPHA) * decay, score, nodes, count, step_of[0])
        cut, spare = _cut(frontier, size, spans, share, step_of)
        arrived, listed, touched = _leave(
            paths, frontier, size, step_of, cut, spare, mass, fresh, group_mass, group_list
        )  # fmt: skip
        _take(group_list, listed, group_mass, step_of[0])
        cut, spare = _cut(group_list, listed, members[0], left // (STEPS - step), step_of)
        arrived, more = _enter(members, group_list, listed, step_of, cut, spare, mass, fresh, arrived)
        left = max(left - touched - more, 0)
        decay *= np.float32(1 - ALPHA)
        frontier, fresh = fresh, frontier
        size = arrived
    return _settle(frontier, size, mass, decay, score, nodes, count, step_of[0])


@njit(cache=True, nogil=True)
def _settle(frontier, size, mass, factor, score, nodes, count, amounts):  # type: ignore[no-untyped-def]
    """Moves the walker's distribution from mass to amounts[:size], and adds factor times it to the scores."""
    for i in range(size):
        node = frontier[i]
        amount = mass[node]
        mass[node] = 0
        amounts[i] = amount
        count = _add(node, factor * amount, score, nodes, count)
    return count


@njit(cache=True, nogil=True)
def _take(listed, size, mass, amounts):  # type: ignore[no-untyped-def]
    """Moves mass to amounts[:size]."""
    for i in range(size):
        amounts[i] = mass[listed[i]]
        mass[listed[i]] = 0


@njit(cache=True, nogil=True)
def _leave(paths, frontier, size, step_of, cut, spare, mass, fresh, group_mass, group_list):  # type: ignore[no-untyped-def]
    """Moves the amounts of the frontier's users on to their friends and into their groups."""
    friends, groups, _, draw, pull, _ = paths
    amounts, sizes, levels = step_of
    arrived, listed, touched = 0, 0, 0
    for i in range(size):
        if levels[i] > cut or (levels[i] == cut and sizes[i] > spare):
            continue
        if levels[i] == cut:
            spare -= sizes[i]
        node, amount = frontier[i], amounts[i]
        first, last = friends[0][node], friends[0][node + 1]
        total = np.float32(last - first) + pull[node]
        if total == 0:
            arrived = _add(node, amount, mass, fresh, arrived)
            continue
        touched += sizes[i]
        amount /= total
        if amount <= 0:
            continue
        for at in range(first, last):
            arrived = _add(friends[1][at], amount, mass, fresh, arrived)
        if pull[node] > 0:
            for at in range(groups[0][node], groups[0][node + 1]):
                group = groups[1][at]
                listed = _add(group, amount * draw[group], group_mass, group_list, listed)
    return arrived, listed, touched


@njit(cache=True, nogil=True)
def _enter(members, group_list, listed, step_of, cut, spare, mass, fresh, arrived):  # type: ignore[no-untyped-def]
    """Spreads the amounts inside groups over their members."""
    amounts, sizes, levels = step_of
    touched = 0
    for i in range(listed):
        if levels[i] > cut or (levels[i] == cut and sizes[i] > spare):
            continue
        if levels[i] == cut:
            spare -= sizes[i]
        touched += sizes[i]
        group = group_list[i]
        amount = amounts[i] / np.float32(sizes[i])
        for at in range(members[0][group], members[0][group + 1]):
            arrived = _add(members[1][at], amount, mass, fresh, arrived)
    return arrived, touched


@njit(cache=True, nogil=True, inline="always")
def _add(node, amount, mass, listed, count):  # type: ignore[no-untyped-def]
    """Adds mass to a node, and the node to the list if it had none. No branch: half the nodes are new, at random."""
    held = mass[node]
    listed[count] = node
    mass[node] = held + amount
    return count + np.int64((held == 0) & (amount > 0))


@njit(cache=True, nogil=True)
def _cut(listed, count, spans, budget, step_of):  # type: ignore[no-untyped-def]
    """Sorts rows into levels, powers of two of mass an edge, the most first, by writing sizes and levels [count].

    Returns the level that no longer fits the budget whole, and the edges left for it: lower levels are expanded.
    """
    amounts, sizes, levels = step_of
    edges = np.zeros(_LEVELS, np.int64)
    for i in range(count):
        node = listed[i]
        span = spans[node + 1] - spans[node]
        exponent: Any = np.float32(amounts[i] / np.float32(max(span, 1))).view(np.int32) >> 23
        level: Any = min(max(127 - exponent, 0), _LEVELS - 1)
        sizes[i], levels[i] = span, level
        edges[level] += span
    for last in range(_LEVELS):
        if edges[last] > budget:
            return last, budget
        budget -= edges[last]
    return _LEVELS, budget
