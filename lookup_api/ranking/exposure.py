"""Exposure: who is near the top of many lists sinks a little, since nobody befriends everybody who is shown them.

adjusted = score - weight * log(1 + lists / SHOWN), where `lists` counts the lists that show the person among their
first SHOWN. A score is a log-odds within one list and knows nothing of the other lists; the term is the congestion of
the person in the whole network, as a price is in an auction (Bertsekas, 1988). Counted again in ROUNDS under the prices
so far, and averaged over them (fictitious play; Brown, 1951), since all at once people would leave and come back.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lookup_api.ranking.top import top_per_user

SHOWN = 20
"""First places of a list that count: a page or two of what a person looks at."""
ROUNDS = 4

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scored:
    """The best of some users' candidates. user, candidate int32 [n], users ascending; score float32 [n]."""

    user: Int32
    candidate: Int32
    score: Float32

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Scored":
        return Scored(self.user[chosen], self.candidate[chosen], self.score[chosen])

    def adjusted(self, price: Float32) -> Float32:
        """Scores less the price float32 [N] of each candidate, float32 [n]."""
        return self.score - price[self.candidate]


def prices(read: Callable[[], Iterable[Scored]], people: int, weight: float, share: float = 1.0) -> Float32:
    """What being shown takes from each person's score, float32 [N].

    read: goes through all lists, once a round. share: of all users whose lists these are; counts are scaled up by it.
    """
    found, lists = np.zeros(people, np.float32), np.zeros(people, np.int64)
    for number in range(1, ROUNDS + 1 if weight and share else 1):
        for scored in read():
            top = top_per_user(scored.user, scored.candidate, scored.adjusted(found), SHOWN)
            lists += np.bincount(scored.candidate[top.order], minlength=people)
        found = (weight * np.log1p(lists / (number * share * SHOWN))).astype(np.float32)
    return found
