"""Personalised PageRank over friends alone, or over friends and groups together, truncated to a budget of edges.

The scores are those of the power iteration x <- alpha e + (1 - alpha) P x, run `STEPS` times from e (Page et al.,
1999), with the walker's distribution P^t e pushed forward from the user instead: the sum over t < STEPS of
alpha (1 - alpha)^t P^t e, plus (1 - alpha)^STEPS P^STEPS e. Where a step would touch more edges than its share of the
budget, the rows that hold the least mass an edge are dropped. On dense graphs that is no loss: a walk that stays near
says more about friendship.
"""

import math
from typing import Any

import numpy as np
from numba import njit

from infra.graph import Csr, Float32
from lookup_api.ranking.arrays import pair, readonly
from lookup_api.ranking.groups import Groups

ALPHA = 0.15
STEPS = 6
_BINS = 80


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
    )


@njit(cache=True, nogil=True)
def walk(user, paths, budget, scratch):  # type: ignore[no-untyped-def]
    """Walks from `user`; leaves scores at nodes[:count] of scratch's score (zero before) and returns count.

    paths: from `alone` or `together`. A row without friends and groups keeps its walker.
    """
    score, nodes, mass, lists, group_mass, group_list = scratch
    members, spans = paths[2], paths[5]
    here, there, frontier, fresh = mass[0], mass[1], lists[0], lists[1]
    here[user] = 1.0
    frontier[0] = user
    size, count, decay, left = 1, 0, 1.0, budget
    for step in range(STEPS):
        for i in range(size):
            count = _add(frontier[i], ALPHA * decay * here[frontier[i]], score, nodes, count)
        share = left // (STEPS - step)
        cut, spare = _cut(frontier, size, here, spans, share) if step else (_BINS, share)
        arrived, listed, touched = _leave(
            paths, frontier, size, here, cut, spare, there, fresh, group_mass, group_list
        )  # fmt: skip
        cut, spare = _cut(group_list, listed, group_mass, members[0], share)
        arrived, more = _enter(members, group_list, listed, group_mass, cut, spare, there, fresh, arrived)
        left = max(left - touched - more, 0)
        decay *= 1 - ALPHA
        here, there = there, here
        frontier, fresh = fresh, frontier
        size = arrived
    for i in range(size):
        node = frontier[i]
        count = _add(node, decay * here[node], score, nodes, count)
        here[node] = 0.0
    return count


@njit(cache=True, nogil=True)
def _leave(paths, frontier, size, here, cut, spare, there, fresh, group_mass, group_list):  # type: ignore[no-untyped-def]
    """Moves the mass of the frontier's users on to their friends and into their groups."""
    friends, groups, _, draw, pull, spans = paths
    arrived, listed, touched = 0, 0, 0
    for i in range(size):
        node = frontier[i]
        amount = here[node]
        kept, spare = _keeps(node, here, spans, cut, spare)
        here[node] = 0.0
        if not kept:
            continue
        total = friends[0][node + 1] - friends[0][node] + pull[node]
        if total == 0:
            arrived = _add(node, amount, there, fresh, arrived)
            continue
        touched += spans[node + 1] - spans[node]
        for at in range(friends[0][node], friends[0][node + 1]):
            arrived = _add(friends[1][at], amount / total, there, fresh, arrived)
        if pull[node] > 0:
            for at in range(groups[0][node], groups[0][node + 1]):
                group = groups[1][at]
                listed = _add(group, amount * draw[group] / total, group_mass, group_list, listed)
    return arrived, listed, touched


@njit(cache=True, nogil=True)
def _enter(members, group_list, listed, group_mass, cut, spare, there, fresh, arrived):  # type: ignore[no-untyped-def]
    """Spreads the mass inside groups over their members."""
    touched = 0
    for i in range(listed):
        group = group_list[i]
        amount = group_mass[group]
        kept, spare = _keeps(group, group_mass, members[0], cut, spare)
        group_mass[group] = 0.0
        if kept:
            held = members[0][group + 1] - members[0][group]
            touched += held
            for at in range(members[0][group], members[0][group + 1]):
                arrived = _add(members[1][at], amount / held, there, fresh, arrived)
    return arrived, touched


@njit(cache=True, nogil=True)
def _add(node, amount, mass, listed, count):  # type: ignore[no-untyped-def]
    """Adds mass to a node, and the node to the list if it had none."""
    if amount <= 0:
        return count
    if mass[node] == 0:
        listed[count] = node
        count += 1
    mass[node] += amount
    return count


@njit(cache=True, nogil=True)
def _cut(listed, count, mass, spans, budget):  # type: ignore[no-untyped-def]
    """The bin of mass an edge that no longer fits the budget, and the edges left for it."""
    edges = np.zeros(_BINS, np.int64)
    for i in range(count):
        node = listed[i]
        size = spans[node + 1] - spans[node]
        edges[_bin(mass[node], size)] += size
    for b in range(_BINS):
        if edges[b] > budget:
            return b, budget
        budget -= edges[b]
    return _BINS, budget


@njit(cache=True, nogil=True)
def _bin(mass, size):  # type: ignore[no-untyped-def]
    """Powers of two of mass an edge, the most first."""
    _, exponent = math.frexp(mass / max(size, 1))
    return min(max(1 - exponent, 0), _BINS - 1)


@njit(cache=True, nogil=True)
def _keeps(node, mass, spans, cut, spare):  # type: ignore[no-untyped-def]
    """Whether the node is expanded, and the edges still free in the marginal bin."""
    size = spans[node + 1] - spans[node]
    b = _bin(mass[node], size)
    if b < cut:
        return True, spare
    if b == cut and size <= spare:
        return True, spare - size
    return False, spare
