"""The best few candidates of every user of a block, in one segmented sort."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.errors import PymkError

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Top:
    """Chosen pairs, users ascending and best first. order int64 [n]: places in the input; rank int32 [n]: 1 = best."""

    order: Int64
    rank: Int32


def top_per_user(user: Int32, candidate: Int32, scores: npt.NDArray[np.float32], k: int) -> Top:
    """The best k of each user by (score descending, candidate row ascending); users int32 [n] in ascending order.

    Rows and ids ascend together, so the order is also by candidate id. Raises PymkError for scores that are not finite.
    """
    if not np.isfinite(scores).all():
        raise PymkError("the ranker gave scores that are not finite", "Train it again; the model may be damaged.")
    order = np.lexsort((candidate, -scores, user))
    starts = np.flatnonzero(np.concatenate([[True], user[1:] != user[:-1]])) if len(user) else np.zeros(0, np.int64)
    lengths = np.diff(np.append(starts, len(user)))
    rank = np.arange(len(user), dtype=np.int64) - np.repeat(starts, lengths)
    kept = rank < k
    return Top(order[kept], (rank[kept] + 1).astype(np.int32))
