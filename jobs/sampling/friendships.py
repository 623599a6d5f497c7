"""Grows friendships in order of time: people meet in their foci, through friends, and now and then anywhere."""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from jobs.sampling.people import FOCI, People

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

FRIENDSHIP_GROWTH = 2.3
"""Friendships made by a share s of the network's life: s ** FRIENDSHIP_GROWTH of all."""

SHARES = (0.29, 0.13, 0.19, 0.04, 0.05, 0.03, 0.25, 0.02)
"""How people meet: the foci in the order of People.foci, then a friend's friend, then a friend of anyone."""

NEWCOMERS = 0.15
"""Share of friendships that start with one of the newest tenth of people."""

ATTEMPTS = 12
_EMPTY = -1


@dataclass(frozen=True)
class Friendships:
    """E friendships in order of time between people (indices in order of joining), and each person's friends.

    user, other: int32 [E]. at: float64 [E] ascending, share of the network's life.
    Friends of p: pool[start[p]:start[p] + degree[p]]. taken: open hash table of pair keys.
    """

    user: Int32
    other: Int32
    at: Float64
    start: Int64
    degree: Int32
    pool: Int32
    taken: Int64

    @property
    def count(self) -> int:
        return len(self.user)

    def are_friends(self, user: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Whether each pair was ever connected."""
        keys = np.minimum(user, other).astype(np.int64) * len(self.start) + np.maximum(user, other)
        found: npt.NDArray[np.bool_] = _contains_all(self.taken, keys)
        return found

    def friends_of_friends(self, users: npt.NDArray[Any], rng: np.random.Generator) -> Int32:
        """For each of the users a random friend of a random friend who is not one yet, or -1."""
        found: Int32 = _wander(rng, np.ascontiguousarray(users, np.int32), self.start, self.degree, self.pool)
        bad = (found == users) | (found < 0)
        bad[~bad] = self.are_friends(users[~bad], found[~bad])
        return np.where(bad, np.int32(-1), found)


def friendships_wanted(people: int) -> int:
    """About 10 friends a person in a network of hundreds, 20 at 2,000, 40 from 200,000 on (mean degree)."""
    mean_degree = float(np.clip(10 * np.log10(max(people, 1)) - 13, 4, 40))
    return int(people * min(mean_degree, 0.6 * (people - 1)) / 2)


def befriend(people: People, rng: np.random.Generator) -> Friendships:
    """Grows the network's friendships. Cost and memory are linear in them."""
    wanted = friendships_wanted(people.count)
    at = ((np.arange(wanted) + rng.random(wanted)) / max(wanted, 1)) ** (1 / FRIENDSHIP_GROWTH)
    joined = np.searchsorted(people.joined, at, side="right").astype(np.int64)
    focus_start, members, member_weights = _members(people)
    slots = 1 << int(np.ceil(np.log2(2.2 * wanted + 16)))
    user, other, kept, start, degree, pool, taken = _grow(
        rng,
        joined,
        _edges(people.sociability),
        people.foci,
        np.cumsum(SHARES),
        focus_start,
        members,
        member_weights,
        slots,
    )
    return Friendships(user[kept], other[kept], at[kept], start, degree, pool, taken)


def _edges(weights: Float64) -> Float64:
    return np.concatenate([[0.0], np.cumsum(weights)])


def _members(people: People) -> tuple[Int64, Int32, Float64]:
    """CSR of foci -> members in order of joining, with the running sum of their sociability."""
    focus = people.foci.ravel()
    person = np.repeat(np.arange(people.count, dtype=np.int32), FOCI)
    inside = focus >= 0
    focus, person = focus[inside], person[inside]
    order = np.argsort(focus, kind="stable")
    members = person[order]
    counts = np.bincount(focus, minlength=int(focus.max(initial=-1)) + 1)
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return start, members, _edges(people.sociability[members])


@numba.njit(cache=True, nogil=True)
def _slot(taken: Int64, key: int) -> int:
    """Where the key is in the table, or the free slot where it would go."""
    mask = len(taken) - 1
    at = ((key * 0x9E3779B97F4A7C1) >> 20) & mask
    while taken[at] != _EMPTY and taken[at] != key:
        at = (at + 1) & mask
    return at


@numba.njit(cache=True, nogil=True)
def _contains_all(taken: Int64, keys: Int64) -> Any:
    found = np.empty(len(keys), np.bool_)
    for i in range(len(keys)):
        found[i] = taken[_slot(taken, keys[i])] == keys[i]
    return found


@numba.njit(cache=True, nogil=True)
def _draw(rng: Any, edges: Float64, first: int, last: int) -> int:
    """An item of first .. last - 1, by weight; edges are running sums."""
    target = edges[first] + rng.random() * (edges[last] - edges[first])
    low, high = first, last - 1
    while low < high:
        middle = (low + high + 1) >> 1
        if edges[middle] <= target:
            low = middle
        else:
            high = middle - 1
    return low


@numba.njit(cache=True, nogil=True)
def _draw_member(rng: Any, focus: int, joined: int, focus_start: Int64, members: Int32, weights: Float64) -> int:
    """A member of the focus among the first `joined` people, or -1."""
    first, last = focus_start[focus], focus_start[focus + 1]
    last = first + np.searchsorted(members[first:last], joined)
    if last - first < 2:
        return -1
    return int(members[_draw(rng, weights, first, last)])


@numba.njit(cache=True, nogil=True)
def _friend(rng: Any, person: int, start: Int64, degree: Int32, pool: Int32) -> int:
    """A random friend of the person, or -1."""
    if person < 0 or degree[person] == 0:
        return -1
    return int(pool[start[person] + int(rng.random() * degree[person])])


@numba.njit(cache=True, nogil=True)
def _quiet_friend(rng: Any, person: int, start: Int64, degree: Int32, pool: Int32) -> int:
    """The less connected of two random friends, or -1: people are introduced by those who know few others."""
    one, two = _friend(rng, person, start, degree, pool), _friend(rng, person, start, degree, pool)
    return one if one < 0 or degree[one] <= degree[two] else two


@numba.njit(cache=True, nogil=True)
def _wander(rng: Any, users: Int32, start: Int64, degree: Int32, pool: Int32) -> Any:
    found = np.empty(len(users), np.int32)
    for i in range(len(users)):
        found[i] = _friend(rng, _friend(rng, users[i], start, degree, pool), start, degree, pool)
    return found


@numba.njit(cache=True, nogil=True)
def _append(person: int, friend: int, start: Int64, degree: Int32, room: Int32, pool: Int32, used: int) -> int:
    """Adds a friend; a full list moves to twice the room at the end of the pool. Returns the pool's new length."""
    if degree[person] == room[person]:
        room[person] = max(4, 2 * room[person])
        for i in range(int(degree[person])):
            pool[used + i] = pool[start[person] + i]
        start[person] = used
        used += room[person]
    pool[start[person] + degree[person]] = friend
    degree[person] += 1
    return used


@numba.njit(cache=True, nogil=True)
def _grow(
    rng: Any,
    joined: Int64,
    sociability: Float64,
    foci: Int32,
    shares: Float64,
    focus_start: Int64,
    members: Int32,
    member_weights: Float64,
    slots: int,
) -> Any:
    people, wanted = len(foci), len(joined)
    user, other = np.empty(wanted, np.int32), np.empty(wanted, np.int32)
    kept = np.zeros(wanted, np.bool_)
    start, degree, room = np.zeros(people, np.int64), np.zeros(people, np.int32), np.zeros(people, np.int32)
    pool = np.empty(8 * wanted + 8 * people + 8, np.int32)  # doubling lists fill at most 4 x 2 entries a friendship
    taken = np.full(slots, _EMPTY, np.int64)
    used = 0
    for k in range(wanted):
        n = int(joined[k])
        if n < 2:
            continue
        for _ in range(ATTEMPTS):
            one = (
                n - 1 - int(rng.random() * (n // 10 + 1)) if rng.random() < NEWCOMERS else _draw(rng, sociability, 0, n)
            )
            how = min(int(np.searchsorted(shares, rng.random() * shares[-1], side="right")), len(shares) - 1)
            if how < FOCI:
                focus = int(foci[one, how])
                two = -1 if focus < 0 else _draw_member(rng, focus, n, focus_start, members, member_weights)
            elif how == FOCI:
                two = _friend(rng, _quiet_friend(rng, one, start, degree, pool), start, degree, pool)
            else:
                two = _friend(rng, _draw(rng, sociability, 0, n), start, degree, pool)
            if two < 0 or two == one:
                continue
            key = min(one, two) * people + max(one, two)
            slot = _slot(taken, key)
            if taken[slot] == key:
                continue
            taken[slot] = key
            used = _append(one, two, start, degree, room, pool, used)
            used = _append(two, one, start, degree, room, pool, used)
            user[k], other[k], kept[k] = one, two, True
            break
    return user, other, kept, start, degree, pool[:used].copy(), taken
