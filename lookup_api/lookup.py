"""Answers one query from one release. Knows nothing of HTTP."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infra.blobs import Candidates, Ranking, decode_candidates
from infra.errors import PymkError
from infra.kv import CANDIDATES
from lookup_api.fallback import LADDER, Outcome, Query, Rung, climb
from lookup_api.metrics import Metrics
from lookup_api.ranking.sources import POPULAR, names_of
from lookup_api.served_release import ServedRelease

log = logging.getLogger(__name__)

DECIMALS = 6
"""Of an answered score: finer than the 1e-5 to which scores are held."""


@dataclass(frozen=True)
class Lookup:
    """The policy of answering: the ladder, and how many of one group may be shown (in the order of rules.CAPPED)."""

    caps: Sequence[int]
    metrics: Metrics
    ladder: Sequence[Rung] = LADDER

    def answer(self, query: Query, release: ServedRelease) -> dict[str, Any]:
        """The answer as JSON values, all of it from this one release; the caller adds its request id."""
        outcome = climb(self.ladder, query, release, self.caps, self.metrics)
        items = _items(outcome)
        degraded = outcome.degraded
        if query.explain:
            degraded |= not _explain(items, outcome, query, release, self.metrics)
        if degraded:
            self.metrics.degraded.inc()
        return {
            "user_id": str(query.user_id),
            "items": items,
            "source": outcome.source,
            "cache": "none",
            "degraded": degraded,
            "release": release.release_id,
            "as_of": release.as_of,
            "age_s": max(0, int(time.time() - release.as_of_s)),
        }


def _items(outcome: Outcome) -> list[dict[str, Any]]:
    ranking = outcome.ranking
    if ranking is None:
        return []
    ids, scores, reasons = ranking.ids, ranking.scores, ranking.reasons
    return [
        {"user_id": str(ids[place]), "rank": rank, "score": round(scores[place], DECIMALS), "reasons": reasons(place)}
        for rank, place in enumerate(outcome.picked.places, 1)
    ]


def _explain(
    items: list[dict[str, Any]], outcome: Outcome, query: Query, release: ServedRelease, metrics: Metrics
) -> bool:
    """Adds sources and pair features to each item; false when the stored candidates could not be read."""
    try:
        blob = release.tables.get(CANDIDATES, query.user_id)
        stored = decode_candidates(blob) if blob is not None else None
    except PymkError as error:
        metrics.rung_failures.labels("explain").inc()
        log.error("cannot explain in release %s: %s", release.release_id, error)
        stored = None
        known = False
    else:
        known = True
    places = {candidate: place for place, candidate in enumerate(stored.ids)} if stored else {}
    for item, place in zip(items, _shown(outcome), strict=True):
        item["explain"] = _evidence(stored, places.get(place), release.head.pair_features)
    return known


def _shown(outcome: Outcome) -> list[int]:
    ranking: Ranking | None = outcome.ranking
    return [ranking.ids[place] for place in outcome.picked.places] if ranking else []


def _evidence(stored: Candidates | None, place: int | None, names: Sequence[str]) -> dict[str, Any]:
    """Where a candidate came from and what the ranker saw; a popular person outside the candidates has no features."""
    if stored is None or place is None:
        return {"sources": list(names_of(POPULAR)), "features": {}}
    features = dict(zip(names, stored.features[place].tolist(), strict=False))
    return {"sources": list(names_of(stored.sources[place])), "features": features}
