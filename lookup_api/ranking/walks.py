"""Personalised PageRank over friends alone, or over friends and groups together, truncated to a budget of edges.

The scores are those of the power iteration x <- alpha e + (1 - alpha) P x, run `STEPS` times from e (Page et al.,
1999), with the walker's distribution P^t e pushed forward from the user instead: the sum over t < STEPS of
alpha (1 - alpha)^t P^t e, plus (1 - alpha)^STEPS P^STEPS e. Where a step would touch more edges than its share of the
budget, the rows that hold the least mass an edge are dropped. On dense graphs that is no loss: a walk that stays near
says more about friendship.
"""

from typing import Any

import numpy as np
from numba import njit

from infra.graph import Csr, Float32
from lookup_api.ranking.arrays import pair, readonly
from lookup_api.ranking.groups import Groups

ALPHA = 0.15
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
    """Working memory of `walk`: (score float32 [N], nodes int32 [N], and what stays inside)."""
    rows, groups = len(paths[4]), len(paths[3])
    return (
        np.zeros(rows, np.float32),
        np.empty(rows, np.int32),
        np.zeros((2, rows), np.float32),
        np.empty((2, rows), np.int32),
        np.zeros(groups, np.float32),
        np.empty(groups, np.int32),
        np.empty(max(rows, groups), np.uint8),
    )


@njit(cache=True, nogil=True)
def walk(user, paths, budget, scratch):  # type: ignore[no-untyped-def]
    """Walks from `user`; leaves scores at nodes[:count] of scratch's score (zero before) and returns count.

    paths: from `alone` or `together`. A row without friends and groups keeps its walker.
    """
    score, nodes, mass, lists, group_mass, group_list, levels = scratch
    members, spans = paths[2], paths[5]
    here, there, frontier, fresh = mass[0], mass[1], lists[0], lists[1]
    here[user] = 1.0
    frontier[0] = user
    size, count, decay, left = 1, 0, np.float32(1.0), budget
    for step in range(STEPS):
        count = _settle(frontier, size, here, np.float32(ALPHA) * decay, score, nodes, count)
        share = left // (STEPS - step) if step else spans[user + 1] - spans[user]
        cut, spare = _cut(frontier, size, here, spans, share, levels)
        arrived, listed, touched = _leave(
            paths, frontier, size, here, levels, cut, spare, there, fresh, group_mass, group_list
        )  # fmt: skip
        cut, spare = _cut(group_list, listed, group_mass, members[0], left // (STEPS - step), levels)
        arrived, more = _enter(members, group_list, listed, group_mass, levels, cut, spare, there, fresh, arrived)
        left = max(left - touched - more, 0)
        decay *= np.float32(1 - ALPHA)
        here, there = there, here
        frontier, fresh = fresh, frontier
        size = arrived
    count = _settle(frontier, size, here, decay, score, nodes, count)
    for i in range(size):
        here[frontier[i]] = 0
    return count


@njit(cache=True, nogil=True)
def _settle(frontier, size, here, factor, score, nodes, count):  # type: ignore[no-untyped-def]
    """Adds factor times the walker's distribution to the scores."""
    for i in range(size):
        count = _add(frontier[i], factor * here[frontier[i]], score, nodes, count)
    return count


@njit(cache=True, nogil=True)
def _leave(paths, frontier, size, here, levels, cut, spare, there, fresh, group_mass, group_list):  # type: ignore[no-untyped-def]
    """Moves the mass of the frontier's users on to their friends and into their groups."""
    friends, groups, _, draw, pull, spans = paths
    arrived, listed, touched = 0, 0, 0
    for i in range(size):
        node = frontier[i]
        amount = here[node]
        here[node] = 0
        span = spans[node + 1] - spans[node]
        if levels[i] > cut or (levels[i] == cut and span > spare):
            continue
        if levels[i] == cut:
            spare -= span
        total = np.float32(friends[0][node + 1] - friends[0][node]) + pull[node]
        if total == 0:
            arrived = _add(node, amount, there, fresh, arrived)
            continue
        touched += span
        amount /= total
        for at in range(friends[0][node], friends[0][node + 1]):
            arrived = _add(friends[1][at], amount, there, fresh, arrived)
        if pull[node] > 0:
            for at in range(groups[0][node], groups[0][node + 1]):
                group = groups[1][at]
                listed = _add(group, amount * draw[group], group_mass, group_list, listed)
    return arrived, listed, touched


@njit(cache=True, nogil=True)
def _enter(members, group_list, listed, group_mass, levels, cut, spare, there, fresh, arrived):  # type: ignore[no-untyped-def]
    """Spreads the mass inside groups over their members."""
    touched = 0
    for i in range(listed):
        group = group_list[i]
        amount = group_mass[group]
        group_mass[group] = 0
        span = members[0][group + 1] - members[0][group]
        if levels[i] > cut or (levels[i] == cut and span > spare):
            continue
        if levels[i] == cut:
            spare -= span
        touched += span
        amount /= np.float32(span)
        for at in range(members[0][group], members[0][group + 1]):
            arrived = _add(members[1][at], amount, there, fresh, arrived)
    return arrived, touched


@njit(cache=True, nogil=True, inline="always")
def _add(node, amount, mass, listed, count):  # type: ignore[no-untyped-def]
    """Adds mass to a node, and the node to the list if it had none."""
    if amount <= 0:
        return count
    held = mass[node]
    if held == 0:
        listed[count] = node
        count += 1
    mass[node] = held + amount
    return count


@njit(cache=True, nogil=True)
def _cut(listed, count, mass, spans, budget, levels):  # type: ignore[no-untyped-def]
    """Sorts rows into levels, powers of two of mass an edge, the most first, by writing levels uint8 [count].

    Returns the level that no longer fits the budget whole, and the edges left for it: lower levels are expanded.
    """
    edges = np.zeros(_LEVELS, np.int64)
    for i in range(count):
        node = listed[i]
        span = spans[node + 1] - spans[node]
        exponent: Any = np.float32(mass[node] / np.float32(max(span, 1))).view(np.int32) >> 23
        level: Any = min(max(127 - exponent, 0), _LEVELS - 1)
        levels[i] = level
        edges[level] += span
    for last in range(_LEVELS):
        if edges[last] > budget:
            return last, budget
        budget -= edges[last]
    return _LEVELS, budget
