"""How many of the hidden friendships a larger or smaller budget of candidates would hold, in all and by source."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from index.sharded import ShardedIndex
from infra.graph import Csr, Int32, Int64, open_array
from infra.settings import Settings
from jobs.metrics import find_hits
from lookup_api.ranking.candidates import WEIGHTS, source_lists, united
from lookup_api.ranking.network import open_network
from lookup_api.ranking.sources import ANN, NAMES

DEPTHS = (100, 300, 1000)
USERS = 500
"""Users asked at most: a budget of 1,000 is looked at for each."""
BLOCK = 100


def recall_by_depth(inputs: Mapping[str, Path], hidden: Csr, asked: Int64, settings: Settings) -> dict[str, Any]:
    """{"users", "depths", "recall": [of the union], "sources": {name: [of its own first]}}, shares of what is hidden.

    Candidates are made anew on the past view for a seeded sample of the asked, by the settings but the budget. The
    union takes as many neighbours from the index as `candidates.ann` says; the source itself is asked for all.
    inputs: data folders of graph, embeddings and index. Shares are None for nobody.
    """
    seed, options = settings.run.seed, settings.candidates
    rows = _sampled(asked, seed)
    held = int(hidden.degrees()[rows].sum())
    found: dict[str, list[int]] = {name: [0] * len(DEPTHS) for name in ("", *NAMES.values())}
    deep = options.model_copy(update={"per_user": max(DEPTHS)})
    search = Nearest(inputs, max(DEPTHS) if options.ann else 0)
    for start in range(0, len(rows), BLOCK):
        users = rows[start : start + BLOCK].astype(np.int32)
        network = open_network(inputs["graph"], "past")
        lists = source_lists(network, users, deep, seed, search if options.ann else None)
        for name, counts in _found(lists, users, hidden, options.ann, network.users).items():
            found[name] = [a + b for a, b in zip(found[name], counts, strict=True)]
    shares = {name: [count / held if held else None for count in counts] for name, counts in found.items()}
    return {"users": len(rows), "depths": list(DEPTHS), "recall": shares.pop(""), "sources": shares}


class Nearest:
    """The k nearest rows by embedding in the past view."""

    def __init__(self, inputs: Mapping[str, Path], k: int) -> None:
        self._k = k
        if k:
            self._vectors = open_array(inputs["embeddings"] / "past.npy")
            self._index = ShardedIndex.open(inputs["index"] / "past")

    def __call__(self, users: Int32) -> Int32:
        return np.asarray(self._index.search(np.ascontiguousarray(self._vectors[users]), self._k)[0], np.int32)


def _sampled(asked: Int64, seed: int) -> Int64:
    if len(asked) <= USERS:
        return asked
    rng = np.random.default_rng(np.random.SeedSequence([seed, USERS]))
    chosen: Int64 = np.sort(rng.choice(asked, USERS, replace=False))
    return chosen


def _found(lists: Int32, users: Int32, hidden: Csr, ann: int, people: int) -> dict[str, list[int]]:
    """Hidden friendships of the users by source and, under "", of the union, at each depth."""
    hits = [find_hits(np.ascontiguousarray(lists[:, at]), users, hidden) for at in range(len(WEIGHTS))]
    found = {NAMES[bit]: [int(hit[:, :k].sum()) for k in DEPTHS] for bit, hit in zip(WEIGHTS, hits, strict=True)}
    used = lists.copy()
    used[:, list(WEIGHTS).index(ANN), ann:] = -1
    unions = (united(used, people, k) for k in DEPTHS)
    return found | {"": [int(find_hits(union, users, hidden).sum()) for union in unions]}
