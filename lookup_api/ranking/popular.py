"""The popular list: who is shown to somebody about whom nothing is known."""

import numpy as np
import numpy.typing as npt

from infra.graph import Csr
from lookup_api.ranking.kernels import njit

Int32 = npt.NDArray[np.int32]


def most_connected(connections: Csr) -> Int32:
    """Rows of everybody with a friend, most friends first, equals by row."""
    degrees = connections.degrees()
    order = np.argsort(-degrees, kind="stable")
    return order[: int((degrees > 0).sum())].astype(np.int32)


def fill_popular(
    users: Int32, popular: Int32, connections: Csr, excluded: Csr, per_user: int
) -> tuple[Int32, Int32, Int32]:
    """The first `per_user` of the popular list for each user, without itself, its friends and those excluded.

    Returns user, candidate and rank (1 = best), int32 [n], in the order of users, then rank.
    """
    rows = np.full((len(users), min(per_user, len(popular))), -1, np.int32)
    _fill(users, popular, connections.indptr, connections.indices, excluded.indptr, excluded.indices, rows)
    found = rows >= 0
    rank = np.broadcast_to(np.arange(1, rows.shape[1] + 1, dtype=np.int32), rows.shape)
    return np.repeat(users, found.sum(axis=1)), rows[found], rank[found]


def barred_places(users: Int32, popular: Int32, connections: Csr, excluded: Csr) -> tuple[Int32, npt.NDArray[np.int64]]:
    """Places of a popular list that a user must not be shown: itself, friends, excluded. -1 in it stands for nobody.

    Returns the places of all users one after the other, ascending within a user, and how many each has, int64 [users].
    """
    place_of = np.full(connections.rows, -1, np.int32)
    there = np.flatnonzero(popular >= 0).astype(np.int32)
    place_of[popular[there]] = there
    who = np.concatenate([_entries_of(users, connections), _entries_of(users, excluded), _themselves(users)], axis=1)
    place = place_of[who[1]]
    keys = np.unique(who[0][place >= 0] * max(len(popular), 1) + place[place >= 0])
    counts = np.bincount(keys // max(len(popular), 1), minlength=len(users)).astype(np.int64)
    return (keys % max(len(popular), 1)).astype(np.int32), counts


def _entries_of(users: Int32, rows: Csr) -> npt.NDArray[np.int64]:
    """int64 [2, m]: place in `users`, entry of its row."""
    owner = np.repeat(np.arange(len(users)), rows.indptr[users + 1] - rows.indptr[users])
    return np.stack([owner, rows.indices[rows.entries_of(users)].astype(np.int64)])


def _themselves(users: Int32) -> npt.NDArray[np.int64]:
    return np.stack([np.arange(len(users)), users.astype(np.int64)])


@njit(cache=True, nogil=True)
def _fill(users, popular, f_ptr, f_idx, x_ptr, x_idx, rows):  # type: ignore[no-untyped-def]
    for i in range(len(users)):
        user = users[i]
        found = 0
        for row in popular:
            if found == rows.shape[1]:
                break
            if row == user or _has(f_ptr, f_idx, user, row) or _has(x_ptr, x_idx, user, row):
                continue
            rows[i, found] = row
            found += 1


@njit(cache=True, nogil=True)
def _has(ptr, idx, row, wanted):  # type: ignore[no-untyped-def]
    low, high = ptr[row], ptr[row + 1]
    while low < high:
        middle = (low + high) // 2
        if idx[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low < ptr[row + 1] and idx[low] == wanted
