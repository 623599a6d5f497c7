"""Metrics of the ladder: what became of each rung, how often caches hit, what was missing, how busy the worker is."""

from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from lookup_api.breaker import Breaker

ANSWERED, EMPTY, FAILED, LATE, OPEN, SPARED = "answered", "empty", "failed", "late", "open", "spared"
"""Outcomes of a rung. late: out of time; open: its breaker kept it from being asked; spared: too much load for it."""
CACHES = ("l1", "l2", "last_good")


class LadderMetrics:
    """Children that every request touches are looked up once."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(name, says, list(labels), registry=registry)

        self.rungs = counter("pymk_rung_outcomes", "What became of asking a rung.", "rung", "outcome")
        self.caches = counter("pymk_cache_lookups", "Look-ups in a cache: hit or miss.", "cache", "result")
        self.defaulted = counter(
            "pymk_features_defaulted", "People of live rankings for whom features took their default.", "feature", "why"
        )
        self.late_shards = counter("pymk_ann_shards_left_out", "Index shards that did not answer in time.", "shard")
        self.ranked_live = counter("pymk_live_people", "People scored by live rankings.")
        self.models = counter(
            "pymk_model_lists", "Lists ranked live by a routed model, and what became of it.",
            "model", "variant", "outcome",
        )  # fmt: skip
        self.models_refused = counter("pymk_model_refused", "Routed models that could not be opened.", "model")
        self.lists_refused = counter(
            "pymk_model_lists_refused", "Nightly lists of routed models that could not be opened.", "model"
        )
        self.canaries_stopped = counter("pymk_canary_stopped", "Canaries that this worker took off.", "model")
        self.route_failures = counter("pymk_route_poll_failures", "Looks at the routes of models that failed.")
        self.level = Gauge(
            "pymk_load_level", "0 all, 1 fewer live candidates, 2 no live ranking.",
            multiprocess_mode="livemax", registry=registry,
        )  # fmt: skip
        self.share = Gauge(
            "pymk_load_share", "Share of their time that request threads work.",
            multiprocess_mode="livemax", registry=registry,
        )  # fmt: skip
        self.breakers = Gauge(
            "pymk_breaker_open", "1 while a breaker is open.", ["part"], multiprocess_mode="livemax", registry=registry
        )
        self._rung: dict[tuple[str, str], Any] = {}
        self._cache = {
            (c, hit): self.caches.labels(c, "hit" if hit else "miss") for c in CACHES for hit in (True, False)
        }

    def rung(self, name: str, outcome: str) -> None:
        child = self._rung.get((name, outcome))
        if child is None:
            child = self._rung[name, outcome] = self.rungs.labels(name, outcome)
        child.inc()

    def cache(self, name: str, hit: bool) -> None:
        self._cache[name, hit].inc()

    def watch(self, breakers: Iterable[Breaker]) -> None:
        """Shows each breaker as it changes."""
        for breaker in breakers:
            gauge = self.breakers.labels(breaker.name)
            gauge.set(0)
            breaker.told = gauge.set

    def busy(self, level: int, share: float) -> None:
        """Notes how busy the worker is."""
        self.level.set(level)
        self.share.set(share)
