"""Answers one query from one release. Knows nothing of HTTP."""

import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Any

import orjson

from infra.settings import Settings
from infra.shared_cache import SharedCache
from lookup_api.bounded_cache import BoundedCache
from lookup_api.breaker import Breaker
from lookup_api.canary_guard import Bounds
from lookup_api.deadline import Deadline
from lookup_api.explain import add_explanations
from lookup_api.ladder import NO_CACHE, NOBODY, NOTHING, Ask, Facts, Ladder, NoFacts, Offer, Outcome, Query, RankedBy
from lookup_api.ladder_metrics import LadderMetrics
from lookup_api.live_rung import Live, LiveCaches, no_shadows, nobody_chosen
from lookup_api.load import FULL
from lookup_api.metrics import Metrics
from lookup_api.ranking.rules import caps_of
from lookup_api.root.opened import on_leaves, open_root, open_shadows
from lookup_api.root.root_metrics import RootMetrics
from lookup_api.root.scoring import Root
from lookup_api.routed_models import RoutedModels, in_process
from lookup_api.rungs import Heuristic, Kept, Popular, Precomputed, Stale, none_listed
from lookup_api.served_release import ServedRelease
from lookup_api.shadows import LookupShadows, Shadows

MIB = 1 << 20
LAST_GOOD_LIFE_S = 86_400.0
NIGHTLY = "precomputed"
ID_BYTES, TIRED_BYTES = 8, 100
NO_FACTS = NoFacts()
"""For whoever is sure that there are none, as tests and benchmarks are."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer's items as a JSON array, and their mark (see Told).

    made_of: release, version of the viewer's facts, stamp of the route of models, fatigue. hidden_version: of who is
    hidden. ids: whom it names. left_out: who is not in it as they are hidden; arrays, as the collector passes them by.
    """

    made_of: tuple[str, int, int, Mapping[int, int]]
    hidden_version: int
    ids: "array[int]"
    left_out: "array[int]"
    source: str
    items: bytes
    mark: bytes
    by: RankedBy | None

    def holds(self, facts: Facts) -> bool:
        """Whether it is as good as when it was made, of what others did meanwhile.

        In a large network somebody leaves or comes back every second, so an answer of the night is asked for the few
        whom it is about. The reasons of other answers count friends whom the viewer may see.
        """
        if self.hidden_version == facts.hidden_version:
            return True
        hidden = facts.hidden
        return (
            self.source == NIGHTLY
            and hidden.keys().isdisjoint(self.ids)
            and all(person in hidden for person in self.left_out)
        )


@dataclass(frozen=True, slots=True)
class Told:
    """An answer as values that orjson takes.

    mark: differs wherever a user is shown other people from the same source of the same release, in another order or
    with other reasons.
    """

    values: dict[str, Any]
    mark: bytes


@dataclass(frozen=True)
class Lookup:
    """The policy of answering: the ladder, and answers and lists kept for a while. Thread-safe."""

    ladder: Ladder
    metrics: Metrics
    counts: LadderMetrics
    answers: BoundedCache[Answered]
    last_good: BoundedCache[Kept]
    caches: LiveCaches
    breakers: tuple[Breaker, ...] = field(default=())
    models: RoutedModels | None = None
    root: Root | None = None
    shadows: Shadows | None = None
    asked: RootMetrics | None = None

    @classmethod
    def of(cls, settings: Settings, metrics: Metrics, store_uri: str = "") -> "Lookup":
        """One worker's lookup, by its settings. store_uri: of the models and their routes, which are not followed
        without."""
        own, counts = settings.ladder, LadderMetrics(metrics.registry)

        def breaker(name: str) -> Breaker:
            return Breaker(name, own.breaker_failures, own.breaker_wait_s)

        shared = SharedCache(own.l2, own.l2_timeout_ms / 1e3, own.l2_life_s) if own.l2 else None
        l1_bytes = own.l1_mib * MIB
        caches = LiveCaches(BoundedCache(l1_bytes // 4, own.l1_life_s), shared, breaker("the shared cache"), counts)
        last_good: BoundedCache[Kept] = BoundedCache(own.last_good_mib * MIB, LAST_GOOD_LIFE_S)
        asked = RootMetrics(metrics.registry)
        root = open_root(store_uri, settings, asked, metrics.registry, counts.canaries_stopped) if store_uri else None
        opened = on_leaves(root, settings) if root and settings.leaves.addresses else in_process
        every_s, bounds = settings.api.poll_s, Bounds.of(settings.models)
        models = RoutedModels(store_uri, every_s, counts, breaker, opened=opened, bounds=bounds) if root else None
        shadows = open_shadows(store_uri, settings, root, metrics.registry) if root else None
        unseen = LookupShadows(shadows, models) if shadows and models else no_shadows
        chosen = models.chosen if models else nobody_chosen
        live = Live(breaker("live"), own, caches, counts, asked, chosen=chosen, shadow=unseen)
        rungs = (
            Precomputed(breaker("precomputed"), own.new_friends, listed=models.listed if models else none_listed),
            live,
            Heuristic(breaker("heuristic")),
            Stale(breaker("stale"), last_good, counts),
            Popular(breaker("popular")),
        )
        ladder = Ladder(rungs, caps_of(settings.rules), settings.rules.fatigue_places, metrics, counts)
        breakers = (*(rung.breaker for rung in rungs), caches.l2_breaker)
        counts.watch(breakers)
        answers: BoundedCache[Answered] = BoundedCache(l1_bytes * 3 // 4, own.l1_life_s)
        return cls(ladder, metrics, counts, answers, last_good, caches, breakers, models, root, shadows, asked)

    def answer(
        self, query: Query, release: ServedRelease, facts: Facts | None, deadline: Deadline, level: int = FULL
    ) -> Told:
        """The answer, all of it from this one release; the caller adds its request id.

        facts: None where they cannot be read: then nobody is shown. level: what it may cost (lookup_api.load).
        """
        if facts is None or facts.viewer_hidden:
            return self._told(query, release, NOBODY, NOTHING.items, NOBODY.encode(), facts is None)
        if query.exclude or query.explain or not self.answers:
            return self._climbed(query, release, facts, deadline, level)
        key = (query.user_id, query.limit)
        kept = self.answers.get(key)
        made_of = (release.release_id, facts.version, self._stamp(), facts.fatigue)
        hit = kept is not None and kept.made_of == made_of and kept.holds(facts)
        self.counts.cache("l1", hit)
        if hit and kept is not None:
            return self._told(query, release, kept.source, kept.items, kept.mark, False, "l1", kept.by)
        return self._climbed(query, release, facts, deadline, level)

    def rehearse(self, release: ServedRelease) -> None:
        """Has everything that the first live ranking would wait for happen before it."""
        for rung in self.ladder.rungs:
            if isinstance(rung, Live):
                rung.rehearse(release)

    def _climbed(self, query: Query, release: ServedRelease, facts: Facts, deadline: Deadline, level: int) -> Told:
        ask = Ask(query, release, facts, deadline, level)
        stamp = self._stamp()  # before: who is ranked by an earlier route is not kept as ranked by this one
        outcome = self.ladder.climb(ask)
        offer, degraded = outcome.offer, outcome.degraded
        items = outcome.shown.items
        mark = b"%d" % query.limit if outcome.shown.untouched else sha1(items, usedforsecurity=False).digest()
        by = offer.by if offer else None
        if by:
            mark += by[0].encode()
        if offer is not None and not degraded:
            self._keep(ask, outcome, offer, mark, stamp)
        if not query.explain:
            cache = offer.cache if offer else NO_CACHE
            return self._told(query, release, outcome.source, items, mark, degraded, cache, by)
        listed = orjson.loads(items)
        degraded |= not add_explanations(listed, query.user_id, release, offer.evidence if offer else None)
        told = self._told(query, release, outcome.source, orjson.dumps(listed), mark, degraded, by=by)
        tried = [
            {"rung": one.rung, "outcome": one.outcome, "ms": round(one.ms, 3), "without": list(one.without)}
            for one in outcome.tried
        ]
        return Told(told.values | {"explain": {"rungs": tried}}, mark)

    def _keep(self, ask: Ask, outcome: Outcome, offer: Offer, mark: bytes, stamp: int) -> None:
        """What answered well may answer again, and in need where reading or ranking it again may fail."""
        query, release = ask.query, ask.release
        if outcome.source == "live" or (outcome.source == NIGHTLY and not release.mapped):
            self.last_good.put(query.user_id, Kept(release.release_id, offer.blob), len(offer.blob))
        if self.answers and not (offer.passing or query.exclude or query.explain):
            facts, shown = ask.facts, outcome.shown
            made_of = (release.release_id, facts.version, stamp, facts.fatigue)
            left_out = array("q", [person for person in shown.barred if person in facts.hidden])
            seen = (facts.hidden_version, array("q", shown.ids), left_out)
            answered = Answered(made_of, *seen, outcome.source, shown.items, mark, offer.by)
            size = len(shown.items) + ID_BYTES * (len(shown.ids) + len(left_out)) + TIRED_BYTES * len(facts.fatigue)
            self.answers.put((query.user_id, query.limit), answered, size, cheap=outcome.source == NIGHTLY)

    def _stamp(self) -> int:
        return self.models.stamp if self.models else 0

    def _told(
        self,
        query: Query,
        release: ServedRelease,
        source: str,
        items: bytes,
        mark: bytes,
        degraded: bool,
        cache: str = NO_CACHE,
        by: RankedBy | None = None,
    ) -> Told:
        if degraded:
            self.metrics.degraded.inc()
        values = {
            "user_id": str(query.user_id),
            "items": orjson.Fragment(items),
            "source": source,
            "cache": cache,
            "degraded": degraded,
            "release": release.release_id,
            "as_of": release.as_of,
            "age_s": max(0, int(time.time() - release.as_of_s)),
        }
        if by:
            values |= {"model": by[0], "variant": by[1]}
        return Told(values, mark)
