"""Candidate lists with their labels, and how well scores order them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.graph import Int64

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Lists:
    """Candidate lists of Q users.

    matrix float32 [n, F]; label bool [n]; offsets int64 [Q + 1]; held int64 [Q]: held-out friends of each user, in the
    list or not.
    """

    matrix: Float32
    label: Bools
    offsets: Int64
    held: Int64

    @property
    def query(self) -> Int64:
        return np.repeat(np.arange(len(self.held)), np.diff(self.offsets))

    def telling(self) -> "Lists":
        """Only the lists that hold both a held-out friend and someone else."""
        hits = np.diff(np.concatenate([[0], np.cumsum(self.label)])[self.offsets])
        return self.where((hits > 0) & (hits < np.diff(self.offsets)))

    def where(self, chosen: Bools) -> "Lists":
        sizes = np.diff(self.offsets)
        rows = np.repeat(chosen, sizes)
        offsets = np.concatenate([[0], np.cumsum(sizes[chosen])]).astype(np.int64)
        return Lists(self.matrix[rows], self.label[rows], offsets, self.held[chosen])


def ranks(lists: Lists, score: Float32) -> Int64:
    """Position of each row in its list by falling score, from 0, int64 [n]."""
    order = np.lexsort((-score, lists.query))
    out = np.empty(len(order), np.int64)
    out[order] = np.arange(len(order)) - lists.offsets[lists.query[order]]
    return out


def recall(lists: Lists, score: Float32, k: int = 20) -> float:
    """Mean over users of hits among the first k / min(k, held-out friends)."""
    hit = lists.label & (ranks(lists, score) < k)
    found = np.bincount(lists.query[hit], minlength=len(lists.held))
    return float((found / np.clip(lists.held, 1, k)).mean()) if len(lists.held) else 0.0


def ndcg(lists: Lists, score: Float32, k: int = 20) -> float:
    """Mean over users of binary nDCG at k, the ideal over all held-out friends."""
    return float(ndcgs(lists, score, k).mean()) if len(lists.held) else 0.0


def gain(lists: Lists, one: Float32, other: Float32) -> tuple[float, float]:
    """By how much nDCG by `one` is higher than by `other`, and the standard error of that; nan below two lists."""
    if len(lists.held) < 2:
        return float("nan"), float("nan")
    found = ndcgs(lists, one) - ndcgs(lists, other)
    return float(found.mean()), float(found.std(ddof=1) / np.sqrt(len(found)))


def clearly_better(lists: Lists, one: Float32, other: Float32) -> bool:
    """Whether nDCG by `one` is higher than by `other` by more than twice the standard error of the difference."""
    mean, error = gain(lists, one, other)
    return mean > 2 * error


def ndcgs(lists: Lists, score: Float32, k: int = 20) -> Float64:
    """nDCG at k of each list, float64 [Q]."""
    rank = ranks(lists, score)
    hit = lists.label & (rank < k)
    found = np.bincount(lists.query[hit], 1 / np.log2(rank[hit] + 2), minlength=len(lists.held))
    ideal = np.cumsum(1 / np.log2(np.arange(2, k + 2)))
    return np.asarray(found / ideal[np.clip(lists.held, 1, k) - 1])
