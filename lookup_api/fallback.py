"""The ladder: where an answer can come from, best first. The first rung that has somebody to show answers.

A rung that fails is left out and the answer is marked degraded. Rules run last, on every rung: a rung offers a ranking
and the people this user must not see in it, and nothing is shown that did not pass them.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from infra.blobs import Ranking, decode_neighbours, decode_ranking
from infra.kv import NEIGHBOURS, RANKINGS
from lookup_api.metrics import Metrics
from lookup_api.ranking.rules import EXCLUDE_PARAMETER, NOT_FOR_USER, SELF, Bar, Picked, pick
from lookup_api.served_release import ServedRelease

log = logging.getLogger(__name__)

NOBODY = "none"


@dataclass(slots=True)
class Query:
    """A parsed request. limit: 1 .. 100."""

    user_id: int
    limit: int
    exclude: frozenset[int]
    explain: bool


@dataclass(slots=True)
class Offer:
    """What a rung would show, before the rules. bars: people this rung knows must not be shown to the user."""

    ranking: Ranking
    bars: tuple[Bar, ...] = ()


@dataclass(slots=True)
class Outcome:
    """source: the rung that answered, or none. degraded: a rung above it failed."""

    source: str
    ranking: Ranking | None
    picked: Picked
    degraded: bool


class Rung(Protocol):
    source: str

    def offer(self, query: Query, release: ServedRelease) -> Offer | None:
        """A ranking, or None where this rung has nothing for the user. Raises when it fails."""
        ...


class Precomputed:
    """The nightly ranking of a user the release knows."""

    source = "precomputed"

    def offer(self, query: Query, release: ServedRelease) -> Offer | None:
        blob = release.tables.get(RANKINGS, query.user_id)
        return None if blob is None else Offer(decode_ranking(blob))


class Popular:
    """The most connected people, for a user the release does not know or has nobody left for."""

    source = "popular"

    def offer(self, query: Query, release: ServedRelease) -> Offer | None:
        blob = release.tables.get(NEIGHBOURS, query.user_id)
        if blob is None:
            return Offer(release.popular)
        popular = release.popular
        barred = {popular.id_at(place) for place in decode_neighbours(blob).barred if place < len(popular)}
        return Offer(popular, (Bar(NOT_FOR_USER, barred),))


LADDER: tuple[Rung, ...] = (Precomputed(), Popular())


def climb(
    ladder: Sequence[Rung], query: Query, release: ServedRelease, caps: Sequence[int], metrics: Metrics
) -> Outcome:
    """The answer of the first rung that has somebody to show; source none when no rung has."""
    own: tuple[Bar, ...] = (Bar(SELF, (query.user_id,)),)
    if query.exclude:
        own += (Bar(EXCLUDE_PARAMETER, query.exclude),)
    degraded = False
    for rung in ladder:
        try:
            offer = rung.offer(query, release)
        except Exception as error:  # whatever a rung died of, the next one may still answer
            degraded = True
            metrics.rung_failures.labels(rung.source).inc()
            log.error("rung %s failed in release %s: %s", rung.source, release.release_id, error, exc_info=error)
            continue
        if offer is None:
            continue
        picked = pick(offer.ranking, query.limit, own + offer.bars, caps)
        _count(metrics, picked)
        if picked.records:
            return Outcome(rung.source, offer.ranking, picked, degraded)
    return Outcome(NOBODY, None, Picked([], {}, 0), degraded)


def _count(metrics: Metrics, picked: Picked) -> None:
    for rule, number in picked.dropped.items():
        metrics.excluded.labels(rule).inc(number)
    if picked.demoted:
        metrics.demoted.inc(picked.demoted)
