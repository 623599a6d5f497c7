"""Candidates of a block of users: several sources each name their best, and the union keeps the best of all."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.graph import Int32
from infra.settings import CandidateSettings
from lookup_api.ranking import sources
from lookup_api.ranking.arrays import pair, readonly
from lookup_api.ranking.features import PROXIMITY
from lookup_api.ranking.kernels import njit
from lookup_api.ranking.neighbourhood import RA, clear, mix
from lookup_api.ranking.network import Network
from lookup_api.ranking.proximity import MEASURED, Float16, as_features, forget, measure, reach, scratch_of, ways
from lookup_api.ranking.selection import take_best, unite

Search = Callable[[Int32], Int32]
"""Nearest rows of each row, int32 [B, k] from int32 [B], best first, -1 padded."""

WEIGHTS = {
    sources.TWO_HOP: 1.0,
    sources.WALK: 1.0,
    sources.JOINT_WALK: 1.0,
    sources.AFFILIATION: 0.4,
    sources.POPULAR: 0.1,
    sources.ANN: 0.7,
}
"""Weight of each source's reciprocal rank in the union, in the order in which `_choose` lists them."""
NEWCOMER_WEIGHTS = {
    sources.TWO_HOP: 0.0,
    sources.WALK: 0.0,
    sources.JOINT_WALK: 1.0,
    sources.AFFILIATION: 1.0,
    sources.POPULAR: 0.5,
    sources.ANN: 0.5,
}
"""The same for a user without friends: groups and popularity are what is known of whom they meet."""
POPULAR_DEPTH = 4
"""Popular people looked through for a user, as a multiple of the candidates wanted: friends among them are left out."""


@dataclass(frozen=True)
class Candidates:
    """Lists of B users with K places, -1 padded, ascending by row.

    rows int32 [B, K]; sources uint8 [B, K]: bits of who named them; near float16 [B, K, 5]: their PROXIMITY.
    """

    rows: Int32
    sources: npt.NDArray[np.uint8]
    near: Float16


def block_candidates(
    network: Network, users: Int32, settings: CandidateSettings, seed: int, search: Search | None
) -> Candidates:
    """Candidates of each of the users int32 [B], the best `per_user` of the union of all sources.

    A list never holds the user, a friend or an excluded row. search: nearest neighbours by embedding, if there are any.
    """
    k = settings.per_user
    rows, bits = np.full((len(users), k), -1, np.int32), np.zeros((len(users), k), np.uint8)
    measured = np.zeros((len(users), k, MEASURED), np.float32)
    _choose(rows, bits, measured, *_weighed(), *_asked(network, users, settings, seed, search))
    return Candidates(rows, bits, as_features(measured.reshape(-1, MEASURED)).reshape(len(users), k, len(PROXIMITY)))


def source_lists(
    network: Network, users: Int32, settings: CandidateSettings, seed: int, search: Search | None
) -> Int32:
    """Whom each source names by itself, int32 [B, S, `per_user`], best first, -1 padded; sources as in WEIGHTS."""
    out = np.empty((len(users), len(WEIGHTS), settings.per_user), np.int32)
    _name_all(out, *_asked(network, users, settings, seed, search))
    return out


def united(lists: Int32, alone: npt.NDArray[np.bool_], people: int, k: int) -> Int32:
    """The first k of each source together, the best k of them, int32 [B, k], ascending, -1 padded.

    lists: of `source_lists`, k or more deep; what `block_candidates` would choose with a budget of k. alone bool [B]:
    users without friends, whose sources weigh otherwise. people: N.
    """
    out = np.full((len(lists), k), -1, np.int32)
    _unite_all(np.ascontiguousarray(lists[:, :, :k]), np.ascontiguousarray(alone), people, *_weighed(), out)
    return out


def _weighed() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Bits of the sources uint8 [S], and their weights float32 [2, S]: for users with friends, for users without."""
    weights = [[of[source] for source in WEIGHTS] for of in (WEIGHTS, NEWCOMER_WEIGHTS)]
    return np.array(list(WEIGHTS), np.uint8), np.array(weights, np.float32)


def _asked(network: Network, users: Int32, settings: CandidateSettings, seed: int, search: Search | None) -> Any:
    """The users and all that naming people for them needs, as the kernels take it."""
    g = network.groups
    nearest = search(users) if search is not None else np.empty((len(users), 0), np.int32)
    return (
        readonly(users),
        pair(network.excluded),
        ways(network),
        (settings.hub_cap, seed, settings.walk_budget),
        (pair(g.of_user), pair(g.members), readonly(g.draw), pair(network.leaders)),
        readonly(network.popular[: POPULAR_DEPTH * settings.per_user]),
        readonly(np.ascontiguousarray(nearest)),
    )


@njit(cache=True, nogil=True)
def _choose(  # type: ignore[no-untyped-def]
    out_rows, out_bits, out_measured, bits, weights, users, excluded, paths, limits, by_group, popular, nearest
):
    friends = paths[0]
    people, k = len(friends[0]) - 1, out_rows.shape[1]
    scratch, shared = scratch_of(paths), (np.zeros(people, np.float32), np.empty(people, np.int32))
    barred, seen, merit = np.zeros(people, np.bool_), np.zeros(people, np.uint8), np.zeros(people, np.float32)
    union = np.empty(len(bits) * k, np.int32)
    lists, best = np.empty((len(bits), k), np.int32), np.empty(k, np.float32)
    for i in range(len(users)):
        user = users[i]
        _bar(user, friends, excluded, barred, True)
        counts = _name(user, paths, limits, by_group, popular, nearest[i], barred, scratch, shared, lists, best)
        alone = friends[0][user] == friends[0][user + 1]
        count = unite(lists, bits, weights[int(alone)], merit, seen, union)
        size = take_best(union, count, merit, barred, out_rows[i], best)
        out_rows[i, :size].sort()
        for at in range(size):
            out_bits[i, at] = seen[out_rows[i, at]]
            measure(out_rows[i, at], scratch, out_measured[i, at])
        clear(merit, union, count)
        clear(seen, union, count)
        _forget_all(counts, scratch, shared)
        _bar(user, friends, excluded, barred, False)


@njit(cache=True, nogil=True)
def _name_all(out, users, excluded, paths, limits, by_group, popular, nearest):  # type: ignore[no-untyped-def]
    """Fills out int32 [B, S, k] with what each source names."""
    friends = paths[0]
    people = len(friends[0]) - 1
    scratch, shared = scratch_of(paths), (np.zeros(people, np.float32), np.empty(people, np.int32))
    barred, best = np.zeros(people, np.bool_), np.empty(out.shape[2], np.float32)
    for i in range(len(users)):
        user = users[i]
        _bar(user, friends, excluded, barred, True)
        counts = _name(user, paths, limits, by_group, popular, nearest[i], barred, scratch, shared, out[i], best)
        _forget_all(counts, scratch, shared)
        _bar(user, friends, excluded, barred, False)


@njit(cache=True, nogil=True)
def _unite_all(lists, alone, people, bits, weights, out):  # type: ignore[no-untyped-def]
    merit, seen, nobody = np.zeros(people, np.float32), np.zeros(people, np.uint8), np.zeros(people, np.bool_)
    union, best = np.empty(lists.shape[1] * lists.shape[2], np.int32), np.empty(out.shape[1], np.float32)
    for i in range(len(lists)):
        count = unite(lists[i], bits, weights[int(alone[i])], merit, seen, union)
        size = take_best(union, count, merit, nobody, out[i], best)
        out[i, :size].sort()
        clear(merit, union, count)
        clear(seen, union, count)


@njit(cache=True, nogil=True)
def _name(  # type: ignore[no-untyped-def]
    user, paths, limits, by_group, popular, nearest, barred, scratch, shared, lists, best
):
    """The best of each source for one user, into lists int32 [S, k]; returns what `_forget_all` needs."""
    cap, seed, budget = limits
    counts = reach(user, paths, cap, seed, budget, scratch)
    take_best(scratch[1], counts[0], scratch[0][:, RA], barred, lists[0], best)
    take_best(scratch[2][1], counts[1], scratch[2][0], barred, lists[1], best)
    take_best(scratch[3][1], counts[2], scratch[3][0], barred, lists[2], best)
    alone = paths[0][0][user] == paths[0][0][user + 1]
    if alone:
        sharing = _lead_groups(user, by_group, paths[0][0], shared[0], shared[1])
    else:
        sharing = _share_groups(user, by_group, cap, seed, shared[0], shared[1])
    take_best(shared[1], sharing, shared[0], barred, lists[3], best)
    _take_first(popular, barred, lists[4])
    _take_first(nearest, barred, lists[5])
    if alone and sharing == 0:
        lists[5] = -1  # the embedding of who has neither friends nor groups says nothing
    return counts, sharing


@njit(cache=True, nogil=True)
def _forget_all(counts, scratch, shared):  # type: ignore[no-untyped-def]
    clear(shared[0], shared[1], counts[1])
    forget(counts[0], scratch)


@njit(cache=True, nogil=True)
def _bar(user, friends, excluded, barred, value):  # type: ignore[no-untyped-def]
    """Marks (or unmarks) those who must not be shown to the user: the user, friends, excluded rows."""
    barred[user] = value
    for at in range(friends[0][user], friends[0][user + 1]):
        barred[friends[1][at]] = value
    for at in range(excluded[0][user], excluded[0][user + 1]):
        barred[excluded[1][at]] = value


@njit(cache=True, nogil=True)
def _share_groups(user, by_group, cap, seed, score, nodes):  # type: ignore[no-untyped-def]
    """Adds up, for those who share groups, (friends a member has inside) / size; of a hub a seeded sample.

    score float32 [N] must be zero and is left dirty at nodes[:count]; returns count.
    """
    groups, members, draw, _ = by_group
    count = 0
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
    return count


@njit(cache=True, nogil=True)
def _lead_groups(user, by_group, degree_of, score, nodes):  # type: ignore[no-untyped-def]
    """For a user without friends, who meets the most connected first: as `_share_groups`, times 1 + friends.

    Of a large group only its leaders are looked at. Whoever only the user is in a group with is nobody: 0 is returned
    where no group has another member.
    """
    groups, members, draw, leaders = by_group
    count = 0
    for at in range(groups[0][user], groups[0][user + 1]):
        group = groups[1][at]
        size = members[0][group + 1] - members[0][group]
        if size < 2:
            continue
        looked = leaders if leaders[0][group] < leaders[0][group + 1] else members
        weight = (draw[group] + LEAST_DRAW) / size
        for entry in range(looked[0][group], looked[0][group + 1]):
            node = looked[1][entry]
            if score[node] == 0:
                nodes[count] = node
                count += 1
            score[node] += weight * (1 + degree_of[node + 1] - degree_of[node])
    return count


LEAST_DRAW = 0.01
"""What sharing a group is worth where no friendship inside it tells: enough to order users without any."""


@njit(cache=True, nogil=True)
def _take_first(named, barred, out):  # type: ignore[no-untyped-def]
    """The first of the named rows that are not barred, -1 padded."""
    kept = 0
    for row in named:
        if row >= 0 and not barred[row] and kept < len(out):
            out[kept] = row
            kept += 1
    out[kept:] = -1
