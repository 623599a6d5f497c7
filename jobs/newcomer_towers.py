"""Two towers beside the newcomers' model, where `newcomers.kind` asks for them: what they say of a pair.

A viewer without friends has no factors, so the columns of the factors are free: `factors` then holds the dot product of
the towers, learnt on the past view without those whom the newcomers' model is learnt on.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from infra.graph import Csr, Float32, Graph, Int32
from jobs.newcomer_lists import choose_newcomers, without_friendships_of
from lookup_api.ranking.features import PAIR_FEATURES

if TYPE_CHECKING:
    from gnn.two_tower import TrainedTowers

TOWERS = "towers.npy"
"""Everyone's vectors as viewer and as candidate, float32 [2, N, D], beside the features of a view."""
COLUMN = PAIR_FEATURES.index("factors")
CHUNK = 65_536


def learn_towers(graph: Graph, seed: int) -> "TrainedTowers":
    """On past friendships but those of the seeded newcomers, which say when to stop."""
    from gnn.runtime import prepare
    from gnn.two_tower import train_towers

    prepare(1, seed)  # the products are small: threads would wait for each other longer than they work
    friends, users = graph.past.connections, choose_newcomers(graph, seed)
    pairs = np.stack([np.repeat(users, friends.degrees()[users]), friends.indices[friends.entries_of(users)]], axis=1)
    apart = pairs[~np.isin(pairs[:, 1], users)].astype(np.int64)
    return train_towers(graph, graph.past, without_friendships_of(friends, users), apart, seed)


def tell(pair: npt.NDArray[np.float16], viewer: Int32, candidate: Int32, friends: Csr, towers: Float32) -> None:
    """Writes the towers' dot products into pair features float16 [n, P], for viewers without a friend in `friends`."""
    alone = np.flatnonzero(friends.degrees()[viewer] == 0)
    for at in range(0, len(alone), CHUNK):
        rows = alone[at : at + CHUNK]
        pair[rows, COLUMN] = np.einsum("nd,nd->n", towers[0][viewer[rows]], towers[1][candidate[rows]])
