"""Pair features and user features of a block, measured on one view of the network."""

import numpy as np
import numpy.typing as npt

from infra.graph import NO_DAY, Int32, Int64
from lookup_api.ranking.arrays import pair, readonly
from lookup_api.ranking.features import PAIR_FEATURES, PROXIMITY, USER_FEATURES
from lookup_api.ranking.kernels import njit
from lookup_api.ranking.network import Network

Float32 = npt.NDArray[np.float32]
Float16 = npt.NDArray[np.float16]
AFFINITY_PRIOR = 5.0
"""Friends' worth of the whole network's shares that are mixed into the shares among a user's friends."""
LOOKED_AT = 256
"""Friends of a candidate that are looked at for a viewer who has none, evenly spread over all."""


def pair_features(
    network: Network,
    users: Int32,
    offsets: Int64,
    candidates: Int32,
    near: Float16,
    embeddings: Float32,
    factors: Float32,
) -> Float16:
    """PAIR_FEATURES of candidates[offsets[i]:offsets[i + 1]] as seen by users[i], float16 [n, P].

    users int32 [B], offsets int64 [B + 1], candidates int32 [n]. near float16 [n, 5]: their PROXIMITY. embeddings
    float32 [N, D] unit rows; factors float32 [2, N, K]: users as viewers and as candidates.
    """
    out = np.zeros((len(candidates), len(PAIR_FEATURES)), np.float32)
    out[:, : len(PROXIMITY)] = near
    column = {name: out[:, at] for at, name in enumerate(PAIR_FEATURES)}
    asked = (readonly(users), readonly(offsets), readonly(candidates))
    vectors = readonly(embeddings)
    _dots(*asked, vectors, vectors, column["embedding_dot"])
    viewers, shown = readonly(factors[0]), readonly(factors[1])
    _dots(*asked, viewers, shown, column["factors"])
    _dots(*asked, shown, viewers, column["factors_back"])
    g = network.groups
    at = PAIR_FEATURES.index("shared_attributes")
    size = readonly(np.diff(g.members.indptr))
    tellings = (size, g.entities, readonly(g.lift), network.users)
    _group_evidence(*asked, pair(network.friends), pair(g.of_user), *tellings, out[:, at : at + 6])
    _acts(*asked, network.acted, column["acted"])
    _acts(*asked, network.acted_on, column["acted_on"])
    return out.astype(np.float16)


def _acts(users: Int32, offsets: Int64, candidates: Int32, rows, out: Float32) -> None:  # type: ignore[no-untyped-def]
    if rows.entries:
        values = rows.values if rows.values is not None else np.ones(rows.entries, np.float32)
        _looked_up(users, offsets, candidates, *pair(rows), readonly(values), out)
        np.log1p(out, out=out)


@njit(cache=True, nogil=True)
def _dots(users, offsets, candidates, viewers, shown, out):  # type: ignore[no-untyped-def]
    for i in range(len(users)):
        own = viewers[users[i]]
        for at in range(offsets[i], offsets[i + 1]):
            other = shown[candidates[at]]
            total = np.float32(0)
            for d in range(len(own)):
                total += own[d] * other[d]
            out[at] = total


@njit(cache=True, nogil=True)
def _looked_up(users, offsets, candidates, indptr, indices, values, out):  # type: ignore[no-untyped-def]
    for i in range(len(users)):
        begin, end = indptr[users[i]], indptr[users[i] + 1]
        if begin == end:
            continue
        for at in range(offsets[i], offsets[i + 1]):
            found = begin + np.searchsorted(indices[begin:end], candidates[at])
            if found < end and indices[found] == candidates[at]:
                out[at] = values[found]


@njit(cache=True, nogil=True)
def _group_evidence(users, offsets, candidates, friends, groups, size, entities, lift, reach, out):  # type: ignore[no-untyped-def]
    """Six columns: shared, lift and affinity of attributes, then of affiliations."""
    mine = np.zeros(len(size), np.bool_)
    among = np.zeros(len(size), np.float32)
    for i in range(len(users)):
        user = users[i]
        _count_groups(user, friends, groups, mine, among, True)
        known = friends[0][user + 1] - friends[0][user]
        for at in range(offsets[i], offsets[i + 1]):
            node = candidates[at]
            if known == 0:
                _count_back(node, friends, groups, mine, among)
                _take_back(user, node, friends, groups, size, entities, reach, among, out[at])
            for entry in range(groups[0][node], groups[0][node + 1]):
                group = groups[1][entry]
                like = _affinity(among[group], known, size[group] / reach) if known else 0.0
                if group >= entities:
                    out[at, 2] += like
                    if mine[group]:
                        out[at, 0] += 1
                        out[at, 1] += lift[group]
                else:
                    out[at, 5] += max(like, 0.0)
                    if mine[group]:
                        out[at, 3] += 1
                        out[at, 4] += lift[group]
        _count_groups(user, friends, groups, mine, among, False)


@njit(cache=True, nogil=True)
def _affinity(found, known, share):  # type: ignore[no-untyped-def]
    """Log of how much more often a group is found among `known` friends than among everybody."""
    return np.log((found + AFFINITY_PRIOR * share) / (known + AFFINITY_PRIOR) / share)


@njit(cache=True, nogil=True)
def _count_back(node, friends, groups, mine, among):  # type: ignore[no-untyped-def]
    """Counts friends of a candidate in each of the viewer's groups, as if all had been looked at."""
    start, degree = friends[0][node], friends[0][node + 1] - friends[0][node]
    looked = min(degree, LOOKED_AT)
    for j in range(looked):
        friend = friends[1][start + j * degree // looked]
        for entry in range(groups[0][friend], groups[0][friend + 1]):
            if mine[groups[1][entry]]:
                among[groups[1][entry]] += np.float32(degree / looked)


@njit(cache=True, nogil=True)
def _take_back(user, node, friends, groups, size, entities, reach, among, out):  # type: ignore[no-untyped-def]
    """Adds the affinities of the candidate's friends to the viewer's groups, and clears their counts."""
    known = friends[0][node + 1] - friends[0][node]
    for entry in range(groups[0][user], groups[0][user + 1]):
        group = groups[1][entry]
        like = _affinity(among[group], known, size[group] / reach)
        among[group] = 0
        if group >= entities:
            out[2] += like
        else:
            out[5] += max(like, 0.0)


@njit(cache=True, nogil=True)
def _count_groups(user, friends, groups, mine, among, put):  # type: ignore[no-untyped-def]
    """Marks the user's groups and counts its friends in each group; put False: undoes it."""
    for entry in range(groups[0][user], groups[0][user + 1]):
        mine[groups[1][entry]] = put
    for at in range(friends[0][user], friends[0][user + 1]):
        friend = friends[1][at]
        for entry in range(groups[0][friend], groups[0][friend + 1]):
            if put:
                among[groups[1][entry]] += 1
            else:
                among[groups[1][entry]] = 0


def user_features(network: Network) -> Float32:
    """USER_FEATURES of every row, float32 [N, U]."""
    out = np.zeros((network.users, len(USER_FEATURES)), np.float32)
    degree = network.friends.degrees()
    indptr, indices = pair(network.friends)
    out[:, 0] = degree
    out[:, 1] = degree + network.groups.pull
    out[:, 2] = network.groups.of_user.degrees()
    out[:, 3] = _means(indptr, np.log1p(degree)[indices])
    joined = np.asarray(network.joined_day)
    since = network.today - joined.astype(np.int64)
    # Nobody who joined later exists for the view: a 0 here would mark in past who made friends after its end.
    out[:, 4] = np.where((joined == NO_DAY) | (since <= 0), -1, since)
    age = np.where(network.days == NO_DAY, -1, network.today - network.days.astype(np.int64))
    out[:, 5] = _youngest(indptr, readonly(age))
    for at, window in ((6, 90), (7, 365)):
        out[:, at] = _sums(indptr, (age >= 0) & (age <= window))
    return out


def _sums(indptr: Int64, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return np.asarray(total[indptr[1:]] - total[indptr[:-1]])


def _means(indptr: Int64, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return _sums(indptr, values) / np.maximum(np.diff(indptr), 1)


@njit(cache=True, nogil=True)
def _youngest(indptr, age):  # type: ignore[no-untyped-def]
    """Least known age of each row's entries, -1 where none is known."""
    out = np.full(len(indptr) - 1, -1.0)
    for row in range(len(out)):
        for at in range(indptr[row], indptr[row + 1]):
            if age[at] >= 0 and (out[row] < 0 or age[at] < out[row]):
                out[row] = age[at]
    return out
