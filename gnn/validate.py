"""The held-out metric that stops training early: full-corpus ranks of validation users' held-out friends."""

from dataclasses import dataclass

import numpy as np
import torch

from infra.graph import REPORT, VALIDATE, Csr, Float32, Graph, Int64

USERS_RANKED = 256
"""Validation users that are ranked, at most."""
BLOCK = 64
"""Users ranked at a time."""


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
        everyone = torch.from_numpy(embedded)
        ranks = []
        for start in range(0, len(self.users), BLOCK):
            block = self.users[start : start + BLOCK]
            scores = (everyone[block] @ everyone.T).numpy()  # [block, N]
            ranks += [self._ranks_of(start + i, user, scores[i]) for i, user in enumerate(block)]
        return np.concatenate(ranks) if ranks else np.empty(0, np.int64)

    def _ranks_of(self, i: int, user: int, scores: Float32) -> Int64:
        wanted = self.friends.row(i)
        targets = scores[wanted]
        for gone in (self.known.row(user), user, wanted):
            scores[gone] = -np.inf
        return 1 + (scores[None, :] >= targets[:, None]).sum(1)

    def measure(self, embedded: Float32) -> dict[str, float]:
        """Discounted gain 1 / log2(1 + rank) without cut-off (moves with every rank), and the share in the top 20."""
        ranks = self.ranks(embedded)
        return {
            "gain": float(np.mean(1 / np.log2(1 + ranks))),
            "hits20": float(np.mean(ranks <= 20)),
        }
