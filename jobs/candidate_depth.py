"""How many of the hidden friendships a larger or smaller budget of candidates would hold, in all and by source."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from index.sharded import ShardedIndex
from infra.graph import Csr, Int32, Int64, open_array
from infra.settings import Settings
from jobs.entries import contains
from jobs.metrics import find_hits
from lookup_api.ranking.candidates import WEIGHTS, source_lists, united
from lookup_api.ranking.network import Network, open_network
from lookup_api.ranking.sources import ANN, NAMES

DEPTHS = (100, 300, 1000)
USERS = 500
"""Users asked at most: a budget of 1,000 is looked at for each."""
BLOCK = 100


def recall_by_depth(inputs: Mapping[str, Path], hidden: Csr, asked: Int64, settings: Settings) -> dict[str, Any]:
    """{"users", "depths", "recall": [of the union], "sources": {name: [of its own first]}}, shares of what is hidden.

    Candidates are made anew on the past view for a seeded sample of the asked, by the settings but the budget. For the
    union the index is asked for as many neighbours as `candidates.ann` says, friends among them; as a source, for all.
    inputs: data folders of graph, embeddings and index. Shares are None for nobody.
    """
    seed, options = settings.run.seed, settings.candidates
    rows = _sampled(asked, seed)
    held = int(hidden.degrees()[rows].sum())
    found: dict[str, list[int]] = {name: [0] * len(DEPTHS) for name in ("", *NAMES.values())}
    deep = options.model_copy(update={"per_user": max(DEPTHS)})
    index = Nearest(inputs) if options.ann else None
    network = open_network(inputs["graph"], "past")
    for start in range(0, len(rows), BLOCK):
        users = rows[start : start + BLOCK].astype(np.int32)
        search = partial(index.search, k=max(DEPTHS)) if index else None
        lists = source_lists(network, users, deep, seed, search)
        staged = with_nearest(lists, network, users, index.search(users, options.ann)) if index else lists
        for name, counts in _found(lists, staged, users, hidden, network).items():
            found[name] = [a + b for a, b in zip(found[name], counts, strict=True)]
    shares = {name: [count / held if held else None for count in counts] for name, counts in found.items()}
    return {"users": len(rows), "depths": list(DEPTHS), "recall": shares.pop(""), "sources": shares}


class Nearest:
    """The nearest rows by embedding in the past view."""

    def __init__(self, inputs: Mapping[str, Path]) -> None:
        self._vectors = open_array(inputs["embeddings"] / "past.npy")
        self._index = ShardedIndex.open(inputs["index"] / "past")

    def search(self, users: Int32, k: int) -> Int32:
        """Int32 [B, k], best first, -1 padded."""
        return np.asarray(self._index.search(np.ascontiguousarray(self._vectors[users]), k)[0], np.int32)


def with_nearest(lists: Int32, network: Network, users: Int32, nearest: Int32) -> Int32:
    """The lists of `source_lists` as they would be had the index named `nearest` int32 [B, k], and no more.

    Friends and others who must not be shown leave empty places, as they do in the stage. Who was named nobody by the
    index stays so.
    """
    at = list(WEIGHTS).index(ANN)
    user = np.repeat(users, nearest.shape[1])
    other = np.maximum(nearest, 0).reshape(-1)
    known = contains(network.friends, user, other) | contains(network.excluded, user, other) | (user == other)
    kept = (nearest >= 0) & ~known.reshape(nearest.shape) & (lists[:, at, :1] >= 0)
    order = np.argsort(~kept, axis=1, kind="stable")
    named = np.take_along_axis(np.where(kept, nearest, -1), order, axis=1)[:, : lists.shape[2]]
    out = lists.copy()
    out[:, at] = -1
    out[:, at, : named.shape[1]] = named
    return out


def _sampled(asked: Int64, seed: int) -> Int64:
    if len(asked) <= USERS:
        return asked
    rng = np.random.default_rng(np.random.SeedSequence([seed, USERS]))
    chosen: Int64 = np.sort(rng.choice(asked, USERS, replace=False))
    return chosen


def _found(lists: Int32, staged: Int32, users: Int32, hidden: Csr, network: Network) -> dict[str, list[int]]:
    """Hidden friendships of the users by source and, under "", of the union of `staged`, at each depth."""
    hits = [find_hits(np.ascontiguousarray(lists[:, at]), users, hidden) for at in range(len(WEIGHTS))]
    found = {NAMES[bit]: [int(hit[:, :k].sum()) for k in DEPTHS] for bit, hit in zip(WEIGHTS, hits, strict=True)}
    alone = network.friends.degrees()[users] == 0
    unions = (united(staged, alone, network.users, k) for k in DEPTHS)
    return found | {"": [int(find_hits(union, users, hidden).sum()) for union in unions]}
