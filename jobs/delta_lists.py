"""Lists of some users of a merged graph: the nightly's candidates, features, ranker, prices and blend, on a subset."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from index.sharded import ShardedIndex
from infra.graph import Graph, Int32, Int64
from infra.settings import Settings
from jobs.candidates import as_table
from jobs.newcomer_towers import tell
from jobs.ordering import Ordering
from jobs.rank import DEPTH, Ranked, rank_scored, reordered, rows_of
from jobs.reason_rows import ReasonNames
from jobs.scoring import Pairs, Scorer
from lookup_api.ranking.candidates import block_candidates
from lookup_api.ranking.evidence import pair_features, user_features
from lookup_api.ranking.features import PROXIMITY
from lookup_api.ranking.groups import memberships
from lookup_api.ranking.network import Network
from lookup_api.ranking.popular import most_connected
from lookup_api.ranking.reasons import ReasonFinder
from lookup_api.ranking.scoring import RankingModel

Float32 = npt.NDArray[np.float32]
Search = Callable[[Int32], Int32]


@dataclass(frozen=True)
class Nearby:
    """Nearest neighbours in a graph merged since its index was built: the index, and a flat one of who joined.

    row_of_base int64: rows of the index as they are now, -1 of who left; joined int64 [J]: rows that it lacks.
    vectors float32 [N, D].
    """

    index: ShardedIndex
    row_of_base: Int64
    joined: Int64
    vectors: Float32
    k: int

    def __call__(self, users: Int32) -> Int32:
        """The k nearest of each, int32 [B, k], best first, equal scores by row, -1 padded."""
        asked = np.ascontiguousarray(self.vectors[users])
        found, scores = self.index.search(asked, self.k)
        rows = np.where(found >= 0, self.row_of_base[found], -1)
        recent = asked @ self.vectors[self.joined].T
        every = np.concatenate([rows, np.broadcast_to(self.joined, recent.shape)], axis=1)
        ranks = np.where(every >= 0, np.concatenate([scores, recent], axis=1), -np.inf)
        order = np.lexsort((every, -ranks), axis=1)[:, : self.k]
        best: Int32 = np.take_along_axis(every, order, axis=1).astype(np.int32)
        return best


@dataclass(frozen=True)
class Lists:
    """Of some users: their candidates with scores, and what is shown, in the order of users. rankings: RANKINGS."""

    pairs: Pairs
    scores: Float32
    rankings: pa.Table


@dataclass(frozen=True)
class ListMaker:
    """Everything that lists are made from. factors float32 [2, N, K]; towers the same or None; known float32 [N, U]."""

    graph: Graph
    network: Network
    search: Search | None
    vectors: Float32
    factors: Float32
    towers: Float32 | None
    scorer: Scorer
    ordering: Ordering
    names: ReasonNames
    settings: Settings

    @classmethod
    def of(
        cls,
        graph: Graph,
        search: Search | None,
        vectors: Float32,
        factors: Float32,
        towers: Float32 | None,
        model: RankingModel,
        price: Float32,
        names: ReasonNames,
        settings: Settings,
    ) -> "ListMaker":
        """price float32 [N]: what exposure takes of each person's score."""
        network = Network.build(graph, "now")
        settled = graph.now.connections.degrees() > 0
        groups = memberships(graph, graph.now)
        return cls(
            graph,
            network,
            search,
            vectors,
            factors,
            towers,
            Scorer(model, user_features(network)),
            Ordering(settings.rank, price, settled, vectors, groups),
            names,
            settings,
        )

    @cached_property
    def popular(self) -> Int32:
        return most_connected(self.graph.now.connections)

    @cached_property
    def finder(self) -> ReasonFinder:
        return ReasonFinder.of(self.graph, "now")

    def lists(self, users: Int32) -> Lists:
        """users int32 [B], ascending."""
        pairs = self._pairs(users)
        scores = self.scorer.score(pairs)
        depth = max(self.settings.rank.per_user, DEPTH)
        best: Ranked = rank_scored(self.graph, "now", self.popular, users, pairs, scores, depth)
        shown = reordered(best, self.ordering, self.settings.rank.per_user)
        return Lists(pairs, scores, rows_of(self.graph, shown, self.finder, self.names))

    def _pairs(self, users: Int32) -> Pairs:
        chosen, seed = self.settings.candidates, self.settings.run.seed
        named = as_table(users, block_candidates(self.network, users, chosen, seed, self.search))
        user, candidate = named["user_row"].to_numpy(), named["candidate_row"].to_numpy()
        able, first = np.unique(user, return_index=True)
        offsets = np.append(first, len(user)).astype(np.int64)
        near = np.stack([named[name].to_numpy() for name in PROXIMITY], axis=1)
        features = pair_features(self.network, able, offsets, candidate, near, self.vectors, self.factors)
        if self.towers is not None:
            tell(features, user, candidate, self.network.friends, self.towers)
        return Pairs(user, candidate, named["sources"].to_numpy(), features)
