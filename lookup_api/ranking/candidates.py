"""Candidates of a block of users: several sources each name their best, and the union keeps the best of all."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from numba import njit

from infra.graph import Int32
from infra.settings import CandidateSettings
from lookup_api.ranking import sources
from lookup_api.ranking.arrays import pair, readonly
from lookup_api.ranking.neighbourhood import RA, clear, mix, two_hop
from lookup_api.ranking.network import Network
from lookup_api.ranking.selection import merge, take_best
from lookup_api.ranking.walks import alone, scratch_for, together, walk

Search = Callable[[Int32], Int32]
"""Nearest rows of each row, int32 [B, k] from int32 [B], best first, -1 padded."""

WEIGHTS = {
    sources.TWO_HOP: 1.0,
    sources.WALK: 1.0,
    sources.JOINT_WALK: 1.0,
    sources.ANN: 0.7,
    sources.AFFILIATION: 0.4,
    sources.POPULAR: 0.1,
}
"""Weight of each source's reciprocal rank in the union."""
POPULAR_DEPTH = 4
"""Popular people looked through for a user, as a multiple of the candidates wanted: friends among them are left out."""


def block_candidates(
    network: Network, users: Int32, settings: CandidateSettings, seed: int, search: Search | None
) -> tuple[Int32, npt.NDArray[np.uint8]]:
    """Candidates of each user, int32 [B, per_user], best first, -1 padded, and their source bits, uint8 alike.

    A list never holds the user, a friend or an excluded row. search: nearest neighbours by embedding, if there are any.
    """
    k, g = settings.per_user, network.groups
    lists = {bit: np.full((len(users), k), -1, np.int32) for bit in WEIGHTS}
    friends, barred = pair(network.friends), pair(network.excluded)
    asked = (readonly(users), friends, barred)
    known = (readonly(network.days), network.today)
    _two_hop_lists(*asked, *known, settings.hub_cap, seed, lists[sources.TWO_HOP])
    _walk_lists(*asked, alone(network.friends), settings.walk_budget, lists[sources.WALK])
    _walk_lists(*asked, together(network.friends, g), settings.walk_budget, lists[sources.JOINT_WALK])
    by_group = (pair(g.of_user), pair(g.members), readonly(g.draw))
    _group_lists(*asked, *by_group, settings.hub_cap, seed, lists[sources.AFFILIATION])
    depth = min(POPULAR_DEPTH * k, network.users)
    _drop_barred(*asked, np.tile(network.popular[:depth], (len(users), 1)), lists[sources.POPULAR])
    if search is not None:
        _drop_barred(*asked, search(users), lists[sources.ANN])
    return merge(
        np.stack(list(lists.values())),
        np.array(list(lists), np.uint8),
        np.array(list(WEIGHTS.values()), np.float32),
        users,
        network.users,
        k,
    )


@njit(cache=True, nogil=True)
def _bar(user, friends, excluded, barred, value):  # type: ignore[no-untyped-def]
    """Marks (or unmarks) those who must not be shown to the user: the user, friends, excluded rows."""
    barred[user] = value
    for at in range(friends[0][user], friends[0][user + 1]):
        barred[friends[1][at]] = value
    for at in range(excluded[0][user], excluded[0][user + 1]):
        barred[excluded[1][at]] = value


@njit(cache=True, nogil=True)
def _two_hop_lists(users, friends, excluded, days, today, cap, seed, out):  # type: ignore[no-untyped-def]
    reach = len(friends[0]) - 1
    barred = np.zeros(reach, np.bool_)
    scores = np.zeros((reach, 4), np.float32)
    nodes = np.empty(reach, np.int32)
    best = np.empty(out.shape[1], np.float32)
    for i in range(len(users)):
        _bar(users[i], friends, excluded, barred, True)
        count = two_hop(users[i], friends[0], friends[1], days, today, cap, seed, scores, nodes)
        take_best(nodes, count, scores[:, RA], barred, out[i], best)
        clear(scores, nodes, count)
        _bar(users[i], friends, excluded, barred, False)


@njit(cache=True, nogil=True)
def _walk_lists(users, friends, excluded, paths, budget, out):  # type: ignore[no-untyped-def]
    barred = np.zeros(len(friends[0]) - 1, np.bool_)
    scratch = scratch_for(paths)
    score, nodes = scratch[0], scratch[1]
    best = np.empty(out.shape[1], np.float32)
    for i in range(len(users)):
        _bar(users[i], friends, excluded, barred, True)
        count = walk(users[i], paths, budget, scratch)
        take_best(nodes, count, score, barred, out[i], best)
        clear(score, nodes, count)
        _bar(users[i], friends, excluded, barred, False)


@njit(cache=True, nogil=True)
def _group_lists(users, friends, excluded, groups, members, draw, cap, seed, out):  # type: ignore[no-untyped-def]
    """Those who share groups, by the sum of (friends a member has inside) / size; of a hub a seeded sample."""
    reach = len(friends[0]) - 1
    barred = np.zeros(reach, np.bool_)
    score, nodes = np.zeros(reach, np.float32), np.empty(reach, np.int32)
    best = np.empty(out.shape[1], np.float32)
    for i in range(len(users)):
        user, count = users[i], 0
        _bar(user, friends, excluded, barred, True)
        for at in range(groups[0][user], groups[0][user + 1]):
            group = groups[1][at]
            start, size = members[0][group], members[0][group + 1] - members[0][group]
            looked = min(size, cap)
            phase = mix(seed, user) if size > cap else 0.0
            for j in range(looked):
                node = members[1][start + int((j + phase) * size / looked)]
                if score[node] == 0:
                    nodes[count] = node
                    count += 1
                score[node] += (draw[group] + LEAST_DRAW) / size
        take_best(nodes, count, score, barred, out[i], best)
        clear(score, nodes, count)
        _bar(user, friends, excluded, barred, False)


LEAST_DRAW = 0.01
"""What sharing a group is worth where no friendship inside it tells: enough to order users without any."""


@njit(cache=True, nogil=True)
def _drop_barred(users, friends, excluded, named, out):  # type: ignore[no-untyped-def]
    barred = np.zeros(len(friends[0]) - 1, np.bool_)
    for i in range(len(users)):
        _bar(users[i], friends, excluded, barred, True)
        kept = 0
        for row in named[i]:
            if row >= 0 and not barred[row] and kept < out.shape[1]:
                out[i, kept] = row
                kept += 1
        _bar(users[i], friends, excluded, barred, False)
