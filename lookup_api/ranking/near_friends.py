"""Friends of friends from a few friend lists: how near each is to the viewer, by the lists alone.

The lists are those of the viewer's friends as the serving tables store them, so people with many friends count a little
less than at night. Pure numpy.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Near:
    """People found in friend lists, ascending. ids int64 [n]; common int64 [n]: lists that name each; allocation
    float32 [n]: the sum over them of 1 / friends (resource allocation; Zhou, Lü and Zhang, 2009)."""

    ids: Int64
    common: Int64
    allocation: Float32

    def without(self, barred: Int64) -> "Near":
        """Those not among barred int64 [m]."""
        return self.where(~among(self.ids, barred))

    def best(self, k: int) -> "Near":
        """The k with the highest allocation, best first; equals by id."""
        if len(self.ids) > k > 0:  # ordering what is far from the best would cost more than all the rest
            least = np.sort(self.allocation)[-k]  # of so many equal values, np.partition takes fifteen times as long
            few = np.flatnonzero(self.allocation >= least)
            return self.where(few[np.lexsort((self.ids[few], -self.allocation[few]))[:k]])
        return self.where(np.lexsort((self.ids, -self.allocation))[:k])

    def where(self, chosen: npt.NDArray[np.bool_] | Int64) -> "Near":
        return Near(self.ids[chosen], self.common[chosen], self.allocation[chosen])

    def of(self, ids: Int64) -> tuple[Int64, Float32]:
        """common and allocation of people int64 [n]; zeros for those not found."""
        if not len(self.ids):
            return np.zeros(len(ids), np.int64), np.zeros(len(ids), np.float32)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        found = self.ids[at] == ids
        return np.where(found, self.common[at], 0), np.where(found, self.allocation[at], np.float32(0))


def near_friends(ids: Int64, lengths: Int64, friends: Int64) -> Near:
    """Everybody whom n friend lists name: ids int64 [m] one list after the other, lengths int64 [n]; friends int64 [n]:
    how many friends each list's owner has, listed or not."""
    if not len(ids):
        return NOBODY
    order = np.argsort(ids, kind="stable")  # merges the lists, each of which ascends
    named = ids[order]
    starts = np.flatnonzero(np.concatenate([[True], named[1:] != named[:-1]]))
    share = np.repeat(1 / np.maximum(friends, 1), lengths)[order]
    common = np.diff(np.append(starts, len(named)))
    return Near(named[starts], common, np.add.reduceat(share, starts).astype(np.float32))


def among(ids: Int64, others: Int64) -> npt.NDArray[np.bool_]:
    """Which of ids int64 [n], ascending and distinct, are among a few others int64 [m]; bool [n]."""
    found = np.zeros(len(ids), bool)
    if len(ids) and len(others):
        at = np.minimum(np.searchsorted(ids, others), len(ids) - 1)
        found[at[ids[at] == others]] = True
    return found


NOBODY = Near(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
