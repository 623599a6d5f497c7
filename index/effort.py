"""How wide a built index must be searched: widened on its own rows until recall@100 is what was asked for.

The same settings find nearly everything among well parted clusters and four fifths in a cloud without structure, and
what an encoder learns is known only after the night has begun.
"""

import math
from collections.abc import Mapping
from typing import Protocol

from index.backend import Float32, Hits
from index.recall import recall_at, sampled_rows

QUERIES = 256
RECALL_K = 100
STEP = 1.5
STEPS = 12
"""Widenings at most; 1.5 ** 12 is 130 times."""


class Tunable(Protocol):
    parameters: dict[str, int | float]

    def search(self, queries: Float32, k: int) -> Hits: ...


def widen_search(index: Tunable, vectors: Float32, limits: Mapping[str, float], target: float, seed: int) -> None:
    """Raises the search parameters named in limits, at most to the limits, until recall reaches the target.

    vectors: the index's rows float32 [n, d]; queries are a seeded sample of them. Each step raises the parameter that
    gains more recall, so that little is searched in vain.
    """
    queries = sampled_rows(len(vectors), QUERIES, seed)
    recall = recall_at(index, vectors, queries, RECALL_K)
    for _ in range(STEPS):
        if recall >= target:
            return
        tried = []
        for name in [name for name, limit in limits.items() if index.parameters[name] < limit]:
            before = index.parameters[name]
            index.parameters[name] = wider = _wider(before, limits[name])
            tried.append((recall_at(index, vectors, queries, RECALL_K), name, wider))
            index.parameters[name] = before
        if not tried:
            return
        recall, name, value = max(tried, key=lambda attempt: attempt[0])
        index.parameters[name] = value


def _wider(value: int | float, limit: float) -> int | float:
    more = min(limit, value * STEP)
    return math.ceil(more) if isinstance(value, int) else more
