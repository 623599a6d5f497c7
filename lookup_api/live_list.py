"""Ranks people for one user while the user waits: candidates, features in one batched read, the ranker, a list."""

import time
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from infra.blob_batches import Users
from infra.blobs import Ranking, decode_ranking
from infra.kv import RANKINGS
from lookup_api.ann import Found
from lookup_api.blends import blended
from lookup_api.deadline import Deadline
from lookup_api.ladder import Ask, Evidence
from lookup_api.ladder_metrics import LadderMetrics
from lookup_api.live_parts import LiveParts
from lookup_api.ranking.features import PAIR_FEATURES
from lookup_api.ranking.live import shown_order
from lookup_api.ranking.near_friends import NOBODY, among
from lookup_api.ranking.sources import ANN, TWO_HOP
from lookup_api.root.asked_models import ScoresGathered
from lookup_api.root.gathered import Gathered, gather
from lookup_api.root.listed import prices_of
from lookup_api.root.people import People, Viewer
from lookup_api.root.root_metrics import RootMetrics
from lookup_api.root.scoring import scored
from lookup_api.written_list import MUTUAL, NEAR, written_list

KEPT = 100
"""People of a live list."""
NEAR_SHARE = 0.25
"""Of the candidates, at most, friends of friends that the night did not store."""

Int64 = npt.NDArray[np.int64]
Float16 = npt.NDArray[np.float16]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LiveList:
    """blob: the list as it is stored. without: index shards that it was made without. evidence: for explain. gathered,
    scores float32 [n], scored_ms: what the model was told, what it said, in what time."""

    blob: bytes
    without: tuple[str, ...] = ()
    evidence: Evidence = field(default_factory=dict)
    gathered: Gathered | None = None
    scores: Float32 | None = None
    scored_ms: float = 0.0


@dataclass(frozen=True)
class Candidates:
    """People of whom a list may be made, and what is known of them. without: index shards that were not asked."""

    people: People
    gathered: Gathered
    without: tuple[str, ...]


@dataclass(frozen=True)
class LiveRanker:
    """ann_budget_s: of the deadline. old_after_s: age of a release from which what changes by the day is forgotten."""

    parts: LiveParts
    counts: LadderMetrics
    models: RootMetrics
    ann_budget_s: float
    old_after_s: float

    def candidates(self, ask: Ask, viewer: Viewer, wanted: int, deadline: Deadline) -> Candidates | None:
        """At most `wanted`, None where there is nobody. Raises TooLate."""
        vector = viewer.vector(ask.release)
        found = self._nearest(viewer, vector, wanted, deadline)
        people = self._candidates(ask, viewer, found, wanted)
        if not len(people):
            return None
        deadline.check("features")
        gathered = gather(ask, viewer, vector, people, self.old_after_s, self.counts)
        return Candidates(people, gathered, found.left_out)

    def rank(
        self, model: ScoresGathered, ask: Ask, viewer: Viewer, candidates: Candidates, deadline: Deadline
    ) -> LiveList:
        """A list of those whom the model likes best. Raises TooLate and ModelFailed."""
        people, gathered = candidates.people, candidates.gathered
        deadline.check("the ranker")
        start = time.perf_counter()
        scores = scored(model, gathered, deadline, self.models).scores
        scored_ms = (time.perf_counter() - start) * 1e3
        self.counts.ranked_live.inc(len(people))
        users = gathered.users
        prices, settled = prices_of(ask.release.head, users), bool(gathered.viewer[0] > 0)
        order = self._blended(users, scores - prices * settled, shown_order(people.ids, scores, prices, settled, KEPT))
        made = self._written(ask, viewer, people, users, gathered.pairs, scores, order, candidates.without)
        return replace(made, gathered=gathered, scores=scores, scored_ms=scored_ms)

    def _nearest(self, viewer: Viewer, vector: Float32, wanted: int, deadline: Deadline) -> Found:
        nobody = Found(np.zeros(0, np.int64), np.zeros(0, np.float32))
        nearest, circle = self.parts.nearest, viewer.circle
        if circle is None or not circle.complete or not vector.any():
            return nobody
        if nearest is None:
            return Found(nobody.ids, nobody.scores, ("index",)) if self.parts.has_index else nobody
        found = nearest.find(vector, wanted, deadline.within(self.ann_budget_s))
        for shard in found.left_out:
            self.counts.late_shards.labels(shard).inc()
        return found

    def _candidates(self, ask: Ask, viewer: Viewer, found: Found, wanted: int) -> People:
        """Stored candidates, then friends of friends, then the nearest by embedding, without those barred."""
        stored = np.array(viewer.stored.ids if viewer.stored else [], np.int64)
        circle = viewer.circle
        near = circle.near.best(int(wanted * NEAR_SHARE)).ids if circle and circle.complete else stored[:0]
        ids = np.concatenate([stored, near, found.ids])
        first, last = _occurrences(ids)
        allowed = np.flatnonzero(~among(ids[first], viewer.barred(ask)))
        chosen = allowed[np.argsort(first[allowed])][:wanted]
        first, nearest = first[chosen], last[chosen] - (len(ids) - len(found.ids))
        kept = ids[first]
        cosine = np.full(len(kept), np.nan, np.float32)
        bits = np.zeros(len(kept), np.uint8)
        place = np.where(first < len(stored), first, -1)
        if viewer.stored:
            own = np.frombuffer(viewer.stored.sources, np.uint8)
            bits[place >= 0] = own[place[place >= 0]]
        named = nearest >= 0
        cosine[named] = found.scores[nearest[named]]
        bits[named] |= ANN
        common, allocation = (circle.near if circle is not None else NOBODY).of(kept)
        bits[common > 0] |= TWO_HOP
        return People(kept, bits, place, cosine, common, allocation)

    def _blended(self, users: Users, adjusted: Float32, order: Int64) -> Int64:
        """The order once diversity counts, as at night; apart are those of one company, school or attribute value."""
        name, diversity = self.parts.blend
        if name == "none":
            return order
        groups = [
            [
                *users.groups(place),
                *(-(1 + code * users.codes.shape[1] + at) for at, code in enumerate(codes) if code >= 0),
            ]
            for place, codes in zip(order.tolist(), users.codes[order].tolist(), strict=True)
        ]
        return order[blended(name, diversity, adjusted[order], users.embeddings(order), groups)]

    def _written(
        self,
        ask: Ask,
        viewer: Viewer,
        people: People,
        users: Users,
        pairs: Float16,
        scores: Float32,
        order: Int64,
        without: tuple[str, ...],
    ) -> LiveList:
        ids = people.ids[order]
        reasons, counts = _reasons(ask, ids, people.common[order])
        groups = [users.groups(place) for place in order.tolist()]
        listed, rules = ids.tolist(), ask.release.group_rules
        blob = written_list(listed, scores[order].tolist(), reasons, counts, groups, rules)
        evidence: Evidence = {}
        if ask.query.explain:
            rows = zip(listed, people.sources[order].tolist(), pairs[order].tolist(), strict=True)
            evidence = {p: (bits, dict(zip(PAIR_FEATURES, row, strict=True))) for p, bits, row in rows}
        return LiveList(blob, without, evidence)


def _occurrences(ids: Int64) -> tuple[Int64, Int64]:
    """Places at which each of the distinct ids comes first and last, int64 [m] each, in the order of the ids."""
    order = np.argsort(ids, kind="stable")
    differs = ids[order][1:] != ids[order][:-1]
    some = [True] * bool(len(ids))
    return order[np.concatenate([some, differs]).astype(bool)], order[np.concatenate([differs, some]).astype(bool)]


def _reasons(ask: Ask, ids: Int64, common: Int64) -> tuple[list[tuple[str, ...]], list[int]]:
    """Those that the night found, where it ranked the person for this user; else shared friends, or nearness."""
    blob = ask.release.tables.get(RANKINGS, ask.query.user_id)
    nightly = _nightly_reasons(decode_ranking(blob)) if blob is not None else {}
    found = [
        nightly.get(person) or (((MUTUAL,), many) if many else ((NEAR,), 0))
        for person, many in zip(ids.tolist(), common.tolist(), strict=True)
    ]
    return [texts for texts, _ in found], [count for _, count in found]


def _nightly_reasons(ranking: Ranking) -> dict[int, tuple[tuple[str, ...], int]]:
    base, texts = ranking.base, ranking.shape_texts()
    return {base + record[0]: (texts[record[2]], record[3]) for record in ranking.items()}
