"""What a night's inputs, lists and scores look like in a few numbers, kept in the report's metrics for jobs.drift."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.graph import Csr, Graph, Int64
from jobs.entries import contains
from jobs.metrics import TOP, coverage, gini, top_share

DEGREE_EDGES = np.array([1, *(2**k + 1 for k in range(20))])
"""Friends from which on the next bin begins: 0, 1, 2, 3-4, 5-8, 9-16, …"""
WEDGES = 20_000
"""Pairs of friends of one person that are looked at, to see how many are friends themselves."""
RANKS = (1, TOP)
"""Places whose scores are kept."""
PERCENTS = np.arange(101)

Array = npt.NDArray[Any]


def input_profile(graph: Graph) -> dict[str, Any]:
    """{"counts": {name: number}, "rates": {name: [hits, of]}, "degrees": users by DEGREE_EDGES}, all of now."""
    now = graph.now
    bins = np.searchsorted(DEGREE_EDGES, now.connections.degrees(), "right")
    return {
        "counts": {
            "users": graph.users,
            "friendships": now.connections.entries // 2,
            "affiliations": now.affiliations.entries,
            "interactions": now.interactions.entries,
        },
        "rates": dict(_rates(graph)),
        "degrees": np.bincount(bins, minlength=len(DEGREE_EDGES) + 1).tolist(),
    }


def _rates(graph: Graph) -> Iterator[tuple[str, list[int]]]:
    for name, codes in zip(graph.attributes, np.asarray(graph.attribute_codes), strict=True):
        yield f"users with the attribute {name}", [int((codes >= 0).sum()), graph.users]
    if graph.now.affiliations.entries:
        yield "users with an affiliation", [int((graph.now.affiliations.degrees() > 0).sum()), graph.users]
    yield "pairs of friends of one person who are friends too", closed_wedges(graph.now.connections)


def closed_wedges(friends: Csr) -> list[int]:
    """[closed, looked at]: of WEDGES pairs of friends of one person, drawn evenly, those who are friends themselves.

    The share is the network's transitivity (Newman, SIAM Review 2003, eq. 3), which shuffled friendships destroy.
    """
    degree = friends.degrees()
    total = np.cumsum(degree.astype(np.float64) * (degree - 1))
    if not len(total) or total[-1] == 0:
        return [0, 0]
    draw = np.random.default_rng(np.random.SeedSequence([friends.rows, friends.entries])).random((3, WEDGES))
    middle = np.minimum(np.searchsorted(total, draw[0] * total[-1], "right"), len(degree) - 1)
    one = (draw[1] * degree[middle]).astype(np.int64)
    other = (one + 1 + (draw[2] * (degree[middle] - 1)).astype(np.int64)) % degree[middle]
    ends = (np.asarray(friends.indices[friends.indptr[middle] + at]) for at in (one, other))
    return [int(contains(friends, *ends).sum()), WEDGES]


@dataclass
class ShownProfile:
    """Who is shown, and with what scores, collected a part of the rankings at a time.

    shown: int64 [N], how often each row is among the first TOP of a list.
    """

    shown: Int64
    scores: dict[int, list[Array]] = field(default_factory=lambda: {rank: [] for rank in RANKS})

    def add(self, candidate: Int64, rank: Array, score: Array) -> None:
        """candidate: rows, -1 for somebody unknown."""
        first = (rank <= TOP) & (candidate >= 0)
        self.shown += np.bincount(candidate[first], minlength=len(self.shown))
        for place, kept in self.scores.items():
            kept.append(score[rank == place].astype(np.float64))

    def spread(self) -> dict[str, float | None]:
        """How evenly the first TOP places of all lists are spread over all users."""
        shown = self.shown
        return {"coverage": coverage(shown), "gini": gini(shown), "top_1_percent_share": top_share(shown)}

    def score_profile(self) -> dict[str, Any]:
        """For each of RANKS {"lists": how many have it, "percentiles": of their scores there, 101 values}."""
        return {str(rank): _percentiles(np.concatenate([np.empty(0), *kept])) for rank, kept in self.scores.items()}


def _percentiles(scores: Array) -> dict[str, Any]:
    sound = scores[np.isfinite(scores)]
    return {"lists": len(sound), "percentiles": np.percentile(sound, PERCENTS).tolist() if len(sound) else []}
