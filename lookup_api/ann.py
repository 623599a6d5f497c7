"""Nearest neighbours for live ranking: the shards of one release's index, asked until a deadline and merged.

The shards are in this process (lookup_api.ann_local) or in others (lookup_api.ann_remote); both leave out what is
missing or late, name it, and answer from the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lookup_api.deadline import Deadline

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """ids int64 [n] and scores float32 [n], inner products, best first, equal scores by id. left_out: shards that did
    not answer, by name."""

    ids: Int64
    scores: Float32
    left_out: tuple[str, ...] = ()


class Nearest(Protocol):
    """Thread-safe. missing: shards that are known not to answer, by name."""

    @property
    def missing(self) -> tuple[str, ...]: ...

    def find(self, query: Float32, k: int, deadline: Deadline) -> Found:
        """Up to k people nearest to a query float32 [D]; what comes after the deadline is left out."""
        ...

    def close(self) -> None: ...


def name_of(shard: int) -> str:
    return f"shard {shard}"


def merged(parts: Sequence[tuple[Int64, Float32]], k: int, left_out: Sequence[str]) -> Found:
    """The k best of what shards found; whoever two shards name is there once."""
    if not parts:
        return Found(np.zeros(0, np.int64), np.zeros(0, np.float32), tuple(left_out))
    ids, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(-scores, kind="stable")  # what each shard found is in order: merging it is cheap
    if _repeats(scores[order]):
        order = np.lexsort((ids, -scores))
    if _repeats(np.sort(ids)):
        _, first = np.unique(ids[order], return_index=True)
        order = order[np.sort(first)]
    best = order[:k]
    return Found(ids[best], scores[best], tuple(left_out))


def _repeats(ordered: Int64 | Float32) -> bool:
    return bool((ordered[1:] == ordered[:-1]).any())
