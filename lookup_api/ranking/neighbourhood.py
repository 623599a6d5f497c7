"""Friends of friends: common neighbours and their weighted kin, counted for a block of users.

Adamic-Adar: Adamic and Adar, Social Networks 2003. Resource allocation: Zhou, Lü and Zhang, EPJ B 2009.
"""

import numpy as np

from lookup_api.ranking.kernels import njit

HALF_LIFE_DAYS = 365.0
"""Age at which a path of two friendships counts half in `fresh`."""

CN, AA, RA, FRESH = 0, 1, 2, 3
"""Columns of the two-hop scores."""


@njit(cache=True, nogil=True)
def mix(seed, row):  # type: ignore[no-untyped-def]
    """A number in [0, 1) from a seed and a row (splitmix64's finaliser), the same in every process."""
    x = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(row) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit(cache=True, nogil=True)
def freshness(day_a, day_b, today):  # type: ignore[no-untyped-def]
    """Halves each HALF_LIFE_DAYS since the later of two friendships; 1 where a day is unknown."""
    age = today - max(day_a, day_b)
    return 2.0 ** (-max(age, 0) / HALF_LIFE_DAYS) if age < 1_000_000 else 1.0


@njit(cache=True, nogil=True)
def two_hop(user, indptr, indices, days, today, cap, seed, scores, nodes):  # type: ignore[no-untyped-def]
    """Adds up scores[row] = (CN, AA, RA, FRESH) over the friends of `user`; returns how many nodes were reached.

    scores float32 [N, 4] must be zero and is left dirty at nodes[:count] (int32 [N]). The friends of a friend with
    more than `cap` are a systematic sample of `cap`, whose phase depends on the seed and that friend alone.
    """
    count = 0
    for at in range(indptr[user], indptr[user + 1]):
        middle = indices[at]
        start, degree = indptr[middle], indptr[middle + 1] - indptr[middle]
        adamic_adar = 1.0 / np.log(max(degree, 2))
        allocated = 1.0 / degree
        looked, phase = degree, 0.0
        if degree > cap:
            looked, phase = cap, mix(seed, middle)
        for i in range(looked):
            entry = start + (i if looked == degree else int((i + phase) * degree / looked))
            node = indices[entry]
            if scores[node, 0] == 0:
                nodes[count] = node
                count += 1
            scores[node, 0] += 1
            scores[node, 1] += adamic_adar
            scores[node, 2] += allocated
            scores[node, 3] += allocated * freshness(days[at], days[entry], today)
    return count


@njit(cache=True, nogil=True)
def clear(scores, nodes, count):  # type: ignore[no-untyped-def]
    """Zeroes scores at nodes[:count]."""
    for i in range(count):
        scores[nodes[i]] = 0
