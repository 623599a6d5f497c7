"""The lists that the release's models would have shown before the held-out friendships were made."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from infra.graph import REPORT, Csr, Graph, Int32, Int64
from infra.settings import RankSettings
from jobs.blocks import asked_users, parts_of
from jobs.entries import contains
from jobs.metrics import BY_SCORE, DEPTH, RANKER, TOP, UNBLENDED
from jobs.ordering import Ordering
from jobs.scoring import Pairs, Scorer
from lookup_api.ranking import sources
from lookup_api.ranking.exposure import Scored, prices
from lookup_api.ranking.popular import fill_popular, most_connected
from lookup_api.ranking.top import top_per_user

MAX_ASKED = 5_000

Bits = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]


@dataclass
class CandidateRecall:
    """What the candidates hold of the hidden friendships of the asked users, counted while their pairs pass by.

    named, found, found_alone: pairs by source, those that are hidden friendships, and those no other source named.
    best: hidden friendships that a perfect ranker would put into the first TOP places.
    """

    pairs: int = 0
    hits: int = 0
    best: int = 0
    named: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    found_alone: Counter[str] = field(default_factory=Counter)

    def count(self, user: Int32, bits: Bits, hit: npt.NDArray[np.bool_]) -> None:
        """Adds the pairs of one block, which holds all pairs of its users."""
        self.pairs += len(hit)
        self.hits += int(hit.sum())
        self.best += int(np.minimum(np.bincount(user[hit]), TOP).sum()) if hit.any() else 0
        for bit, name in sources.NAMES.items():
            inside = (bits & bit) > 0
            self.named[name] += int(inside.sum())
            self.found[name] += int((inside & hit).sum())
            self.found_alone[name] += int((hit & (bits == bit)).sum())


def choose_asked(graph: Graph, hidden: Csr, learn_users: int, seed: int) -> Int64:
    """Rows of at most MAX_ASKED users kept for the report who have candidates in the past view and a hidden friend."""
    listed = asked_users(graph, "past", learn_users, seed)
    able = (np.asarray(graph.split)[listed] == REPORT) & (hidden.degrees()[listed] > 0)
    rows: Int64 = listed[able].astype(np.int64)
    if len(rows) <= MAX_ASKED:
        return rows
    rng = np.random.default_rng(np.random.SeedSequence([seed, len(rows)]))
    chosen: Int64 = np.sort(rng.choice(rows, MAX_ASKED, replace=False))
    return chosen


@dataclass(frozen=True)
class PastLists:
    """Lists of the asked users in the past view, int32 [Q, DEPTH], best first, -1 padded.

    shown: as a release shows them; unblended: without its blend; by_score: without the price of exposure, too.
    sources: uint8 [Q, DEPTH], who named the people shown. recall: of the candidates they come from.
    """

    shown: Int32
    unblended: Int32
    by_score: Int32
    sources: Bits
    recall: CandidateRecall

    def lists(self) -> dict[str, Int32]:
        """By name; those before the blend only where there is one."""
        blended = {} if self.unblended is self.shown else {UNBLENDED: self.unblended}
        return {RANKER: self.shown, **blended, BY_SCORE: self.by_score}


def rank_past(
    graph: Graph,
    inputs: Mapping[str, Path],
    hidden: Csr,
    asked: Int64,
    settings: RankSettings,
    scorer: Scorer | None = None,
) -> PastLists:
    """Ranks the past candidates of the asked users, with prices of exposure from all who have candidates and friends.

    inputs: data folders of graph, embeddings, features and ranker. scorer: instead of the ranker's own. Users without
    candidates are shown the popular list, as they are when a release is served.
    """
    scores = scorer or Scorer.open(inputs["features"], inputs["ranker"], "past")
    wanted = np.zeros(graph.users, bool)
    wanted[asked] = True
    recall = CandidateRecall()
    best: list[Scored] = []
    named: list[_Named] = []
    for path in parts_of(inputs["features"] / "past"):
        pairs = Pairs.read(path)
        score = scores.score(pairs)
        top = top_per_user(pairs.user, pairs.candidate, score, DEPTH).order
        best.append(Scored(pairs.user[top], pairs.candidate[top], score[top]))
        mine = pairs.take(np.flatnonzero(wanted[pairs.user]))
        recall.count(mine.user, mine.sources, contains(hidden, mine.user, mine.candidate))
        named.append(_Named(mine.user.astype(np.int64) * graph.users + mine.candidate, mine.sources))
    settled = graph.past.connections.degrees() > 0
    paying = [scored.where(settled[scored.user]) for scored in best]
    listed = sum(len(np.unique(scored.user)) for scored in paying)
    price = prices(lambda: paying, graph.users, settings.exposure, listed / max(int(settled.sum()), 1))
    own = [scored.where(wanted[scored.user]) for scored in best]
    unblended = settings.model_copy(update={"blend": "none"})

    def lists(how: RankSettings, paid: Float32) -> Int32:
        return _lists(graph, asked, own, Ordering.of(how, paid, inputs["graph"], inputs["embeddings"], "past"))

    shown = lists(settings, price)
    plain = shown if settings.blend == "none" else lists(unblended, price)
    by_score = lists(unblended, np.zeros_like(price))
    return PastLists(shown, plain, by_score, _Named.of(named).sources(asked, shown, graph.users), recall)


@dataclass(frozen=True)
class _Named:
    """keys int64 [n], ascending: user x users + candidate; bits uint8 [n]: who named the candidate."""

    keys: Int64
    bits: Bits

    @classmethod
    def of(cls, parts: "list[_Named]") -> "_Named":
        """All parts, each of users after those of the one before."""
        keys, bits = [part.keys for part in parts], [part.bits for part in parts]
        return cls(np.concatenate([np.empty(0, np.int64), *keys]), np.concatenate([np.empty(0, np.uint8), *bits]))

    def sources(self, asked: Int64, lists: Int32, users: int) -> Bits:
        """Who named the people in the lists of the asked, uint8 [Q, K]; the popular list where no source did."""
        wanted = asked[:, None] * users + lists
        at = np.minimum(np.searchsorted(self.keys, wanted), max(len(self.keys) - 1, 0))
        there = self.keys[at] == wanted if len(self.keys) else np.zeros(lists.shape, bool)
        bits = np.where(there, self.bits[at] if len(self.bits) else 0, sources.POPULAR)
        return np.where(lists < 0, 0, bits).astype(np.uint8)


def _lists(graph: Graph, asked: Int64, best: list[Scored], ordering: Ordering) -> Int32:
    lists = np.full((len(asked), DEPTH), -1, np.int32)
    for scored in best:
        top = ordering.best(scored, DEPTH)
        user, candidate = scored.user[top.order], scored.candidate[top.order]
        lists[np.searchsorted(asked, user), top.rank - 1] = candidate
    _fill_empty(graph, asked, lists)
    return lists


def _fill_empty(graph: Graph, asked: Int64, lists: Int32) -> None:
    friends = graph.past.connections
    cold = np.flatnonzero((lists < 0).all(axis=1))
    none = Csr.empty(graph.users)
    user, candidate, rank = fill_popular(asked[cold].astype(np.int32), most_connected(friends), friends, none, DEPTH)
    lists[np.searchsorted(asked, user), rank - 1] = candidate
