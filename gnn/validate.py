"""The held-out metric that stops training early: full-corpus ranks of validation users' held-out friends."""

from dataclasses import dataclass

import numpy as np

from infra.graph import REPORT, VALIDATE, Csr, Float32, Graph, Int64

USERS_RANKED = 512
"""Validation users that are ranked, at most."""


@dataclass(frozen=True)
class Validation:
    """Held-out friends of validation users. users int64 [V]; friends: V rows, held-out friends; known: past friends."""

    users: Int64
    friends: Csr
    known: Csr

    @classmethod
    def of(cls, graph: Graph, seed: int) -> "Validation":
        """Pairs with a VALIDATE end and no REPORT end, of at most USERS_RANKED users drawn by seed."""
        pairs = np.concatenate([graph.held_out, graph.held_out[:, ::-1]]).astype(np.int64)
        split = graph.split[pairs]
        pairs = pairs[(split[:, 0] == VALIDATE) & (split[:, 1] != REPORT)]
        users = np.unique(pairs[:, 0])
        if len(users) > USERS_RANKED:
            users = np.sort(np.random.default_rng([seed, 1]).choice(users, USERS_RANKED, replace=False))
        pairs = pairs[np.isin(pairs[:, 0], users)]
        friends = Csr.from_pairs(len(users), np.searchsorted(users, pairs[:, 0]), pairs[:, 1])
        return cls(users, friends, graph.past.connections)

    @property
    def pairs(self) -> int:
        return self.friends.entries

    def ranks(self, embedded: Float32) -> Int64:
        """Rank among all users who are not past friends (1 = best) of each held-out friend, int64 [pairs].

        Another held-out friend of the same user counts as no competitor. Ties count against us.
        """
        ranks = np.empty(self.pairs, np.int64)
        for i, user in enumerate(self.users):
            wanted = self.friends.row(i)
            scores = embedded @ embedded[user]
            targets = scores[wanted]
            scores[self.known.row(user)] = -np.inf
            scores[user] = -np.inf
            scores[wanted] = -np.inf
            better = np.sort(scores)
            ranks[self.friends.indptr[i] : self.friends.indptr[i + 1]] = (
                1 + len(better) - np.searchsorted(better, targets, side="left")
            )
        return ranks

    def measure(self, embedded: Float32) -> dict[str, float]:
        """Discounted gain 1 / log2(1 + rank) without cut-off (moves with every rank), and the share in the top 20."""
        ranks = self.ranks(embedded)
        return {
            "gain": float(np.mean(1 / np.log2(1 + ranks))),
            "hits20": float(np.mean(ranks <= 20)),
        }
