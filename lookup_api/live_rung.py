"""The live rung: a list made while the user waits, for whom the night left none that can be used.

A list is kept by this worker (L1) and, where there is a Redis for it, by all (L2), under the release and the version of
the viewer's facts: a new fact or a new release leaves it behind. Rules run on it each time it is shown.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

from infra.errors import StoreError
from infra.settings import LadderSettings
from infra.shared_cache import SharedCache
from lookup_api.bounded_cache import BoundedCache
from lookup_api.breaker import Breaker, retried
from lookup_api.circle import circle_of
from lookup_api.deadline import Deadline, TooLate
from lookup_api.ladder import Ask, NoFacts, Offer, Query, RankedBy, Spared
from lookup_api.ladder_metrics import ANSWERED, FAILED, LadderMetrics
from lookup_api.leaves.protocol import ENOUGH_S
from lookup_api.live_list import KEPT, LiveList, LiveRanker
from lookup_api.live_parts import LiveParts
from lookup_api.load import FULL, NO_LIVE
from lookup_api.root.asked_models import ModelFailed, OwnRanker, Routed
from lookup_api.root.people import Viewer
from lookup_api.root.root_metrics import RootMetrics
from lookup_api.routed_models import Chosen
from lookup_api.served_release import ServedRelease

log = logging.getLogger(__name__)

FEWER = 4
"""A busy worker looks at the settings' number of candidates divided by this."""
ROUTED_SHARE = 0.75
"""Of the time that is left once the features are read, what a routed model has; the rest is for the release's own
ranker, should that one fail."""
REHEARSED, REHEARSAL_S = 5, 30.0
DAY_S = 86_400.0


@dataclass(frozen=True)
class LiveCaches:
    """l1: by user, (what it was made of, blob). l2: shared, or None. by: who ranked, where not the release's ranker.

    Their reasons count friends whom the viewer may see: no list outlives that anybody is hidden, or hidden no longer.
    """

    l1: BoundedCache[tuple[tuple[str, int, int], bytes]]
    l2: SharedCache | None
    l2_breaker: Breaker
    counts: LadderMetrics

    def l1_get(self, ask: Ask, by: str = "") -> bytes | None:
        found = self.l1.get(ask.query.user_id)
        hit = found is not None and found[0] == _made_of(ask, by)
        self.counts.cache("l1", hit)
        return found[1] if hit and found is not None else None

    def l2_get(self, ask: Ask, deadline: Deadline, by: str = "") -> bytes | None:
        l2 = self.l2
        if l2 is None or not self.l2_breaker.allows():
            return None
        try:
            found = retried(lambda: l2.get(_name(ask, by)), deadline, (StoreError,))
        except StoreError as error:
            self._l2_failed(error)
            return None
        self.l2_breaker.succeeded()
        self.counts.cache("l2", found is not None)
        return found

    def put_l1(self, ask: Ask, blob: bytes, by: str = "") -> None:
        self.l1.put(ask.query.user_id, (_made_of(ask, by), blob), len(blob))

    def put(self, ask: Ask, blob: bytes, by: str = "") -> None:
        self.put_l1(ask, blob, by)
        if self.l2 is None or not self.l2_breaker.allows():
            return
        try:
            self.l2.put(_name(ask, by), blob)
        except StoreError as error:
            self._l2_failed(error)
        else:
            self.l2_breaker.succeeded()

    def _l2_failed(self, error: StoreError) -> None:
        if not self.l2_breaker.open:
            log.warning("the shared cache is passed over: %s", error)
        self.l2_breaker.failed()


def _made_of(ask: Ask, by: str) -> tuple[str, int, int]:
    return (ask.release.release_id + by, ask.facts.version, ask.facts.hidden_version)


def _name(ask: Ask, by: str) -> str:
    facts = ask.facts
    return f"{ask.release.release_id}{by}:{ask.query.user_id}:{facts.version}:{facts.hidden_version}"


def nobody_chosen(user_id: int) -> None:
    """The ranker of the release ranks for all."""


def no_shadows(ask: Ask, made: LiveList, by: RankedBy | None) -> None:
    """Nobody ranks unseen."""


@dataclass(frozen=True)
class Live:
    breaker: Breaker
    settings: LadderSettings
    caches: LiveCaches
    counts: LadderMetrics
    models: RootMetrics
    source: str = "live"
    chosen: Callable[[int], Chosen | None] = nobody_chosen
    """The routed model that ranks for a user."""
    shadow: Callable[[Ask, LiveList, RankedBy | None], None] = no_shadows
    """Has others rank the same people unseen, without waiting for them. by: None for the ranker of the release."""

    def offer(self, ask: Ask) -> Offer | None:
        if not ask.release.ranks_live:
            return None
        chosen = self.chosen(ask.query.user_id)
        by, ranked_by = (f"+{chosen.name}", (chosen.name, chosen.variant)) if chosen else ("", None)
        if not ask.query.explain and (kept := self.caches.l1_get(ask, by)) is not None:
            return Offer(kept, cache="l1", by=ranked_by)
        circle = circle_of(ask)
        viewer = Viewer.of(ask, circle)
        if circle is None and viewer.stored is None:
            return None
        deadline = ask.deadline.within(self.settings.live_budget_ms / 1e3)
        if not ask.query.explain and (shared := self.caches.l2_get(ask, deadline, by)) is not None:
            self.caches.put_l1(ask, shared, by)
            return Offer(shared, cache="l2", by=ranked_by)
        if ask.level >= NO_LIVE:
            raise Spared
        ranked, as_chosen = self._ranked(ask, viewer, deadline, chosen)
        if ranked is None:
            return None
        passing = ask.level != FULL or not as_chosen
        if not passing and not ranked.without:
            self.caches.put(ask, ranked.blob, by)
        self.shadow(ask, ranked, ranked_by if as_chosen else None)
        return Offer(
            ranked.blob,
            degraded=bool(ranked.without),
            passing=passing,
            without=ranked.without,
            evidence=ranked.evidence,
            by=ranked_by if as_chosen else None,
        )

    def rehearse(self, release: ServedRelease) -> None:
        """Ranks some popular people's lists for nobody: what runs first is loaded, compiled or fetched then."""
        for user_id in release.popular.ids()[:REHEARSED]:
            ask = Ask(Query(user_id, KEPT, frozenset(), False), release, NoFacts(), Deadline.after(REHEARSAL_S))
            try:
                if release.ranks_live:
                    self._ranked(ask, Viewer.of(ask, circle_of(ask)), ask.deadline, None)
            except Exception as error:  # nobody waits for it, and nothing may die of it
                log.warning("live ranking could not be rehearsed: %s", error)
                return

    def _ranked(
        self, ask: Ask, viewer: Viewer, deadline: Deadline, chosen: Chosen | None
    ) -> tuple[LiveList | None, bool]:
        """The list, and whether the chosen model made it: where that one fails, the release's own ranker does."""
        deadline.check("live ranking")
        parts = ask.release.live
        if parts is None or (parts.model is None and chosen is None):
            raise self._not_open(ask)
        ranker = self._ranker(parts)
        wanted = self.settings.live_candidates
        wanted = wanted if ask.level == FULL else max(1, wanted // FEWER)
        found = ranker.candidates(ask, viewer, wanted, deadline)
        if found is None:
            return None, True
        if chosen is not None and chosen.breaker.allows():
            own_s = ROUTED_SHARE * deadline.left_s
            try:
                made = ranker.rank(Routed(chosen.name, chosen.model), ask, viewer, found, deadline.within(own_s))
            except ModelFailed as error:
                self.counts.models.labels(chosen.name, chosen.variant, FAILED).inc()
                if not chosen.breaker.open:
                    log.error("model %s failed, the release's own ranks: %s", chosen.name, error)
                if own_s >= ENOUGH_S or not isinstance(error.__cause__, TooLate):
                    chosen.breaker.failed()
            else:
                chosen.breaker.succeeded()
                self.counts.models.labels(chosen.name, chosen.variant, ANSWERED).inc()
                return made, True
        if parts.model is None:
            raise self._not_open(ask)
        return ranker.rank(OwnRanker(parts.model), ask, viewer, found, deadline), chosen is None

    def _ranker(self, parts: LiveParts) -> LiveRanker:
        settings = self.settings
        old_after_s = settings.features_life_days * DAY_S or math.inf
        return LiveRanker(parts, self.counts, self.models, settings.ann_budget_ms / 1e3, old_after_s)

    def _not_open(self, ask: Ask) -> StoreError:
        return StoreError(f"release {ask.release.release_id}: its ranking model could not be opened yet")
