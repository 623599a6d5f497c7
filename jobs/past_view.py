"""What the past view does not know: which friendships are held out of it."""

import numpy as np
import numpy.typing as npt

from infra.graph import NO_DAY, Csr, Int32, Int64
from jobs.seeded import seeded_uniform

MIN_DATED = 0.9
"""Share of friendships that must carry a time, for the newest to be held out."""
MIN_DAYS = 3
MAX_SHARE = 0.3
"""No more than this share is ever held out by time."""

PAIR_SALT, SPLIT_SALT = 1, 2


def choose_cutoff(days: Int32, share: float) -> int | None:
    """The day from which on friendships are held out, so that they are closest to `share` of all; None without times.

    days: int32, one a friendship. None when under MIN_DATED of them carry a time, when there are fewer than MIN_DAYS
    different days, or when even the newest day alone holds more than MAX_SHARE. Of equally close days the later.
    """
    dated = days[days != NO_DAY]
    found, counts = np.unique(dated, return_counts=True)
    if len(days) == 0 or len(dated) < MIN_DATED * len(days) or len(found) < MIN_DAYS:
        return None
    newest = np.cumsum(counts[::-1])  # friendships from a day on, the last day first
    allowed = newest <= MAX_SHARE * len(days)
    if not allowed.any():
        return None
    distance = np.where(allowed, np.abs(newest - share * len(days)), np.inf)
    return int(found[::-1][np.argmin(distance)])


def held_out_entries(
    connections: Csr, ids: Int64, cutoff_day: int | None, share: float, seed: int
) -> npt.NDArray[np.bool_]:
    """Whether each entry of the symmetric connections is held out, bool [entries]; both directions agree.

    By day where there is a cutoff, else by a seeded hash of the pair's ids, the smaller first.
    """
    if cutoff_day is not None:
        return np.asarray(connections.values) >= cutoff_day
    row = rows_of_entries(connections)
    first, second = np.minimum(row, connections.indices), np.maximum(row, connections.indices)
    return seeded_uniform(seed + PAIR_SALT, ids[first], ids[second]) < share


def rows_of_entries(csr: Csr) -> Int32:
    """The row of each entry, int32 [entries]."""
    return np.repeat(np.arange(csr.rows, dtype=np.int32), csr.degrees())


def keep_entries(csr: Csr, keep: npt.NDArray[np.bool_]) -> Csr:
    """The entries where `keep`, bool [entries], says so."""
    indptr = np.zeros(csr.rows + 1, np.int64)
    np.cumsum(np.bincount(rows_of_entries(csr)[keep], minlength=csr.rows), out=indptr[1:])
    return Csr(indptr, csr.indices[keep], None if csr.values is None else csr.values[keep])


def canonical_pairs(csr: Csr, keep: npt.NDArray[np.bool_] | None = None) -> tuple[Int32, Int32]:
    """Entries (those where `keep`) of symmetric connections, once each: rows int32 [H, 2], ascending, and days [H]."""
    row = rows_of_entries(csr)
    once = row < csr.indices
    once = once if keep is None else once & keep
    return np.stack([row[once], csr.indices[once]], axis=1), np.asarray(csr.values)[once]
