"""Metrics of shadows: what became of the requests they were to score, how long it took, and what is kept of it."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

from lookup_api.metrics import SECONDS


class ShadowMetrics:
    """Children are looked up once. One is made for each worker."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "pymk_shadow_requests", "Requests for shadows: answered, failed, late, or why they were dropped.",
            ["model", "outcome"], registry=registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "pymk_shadow_seconds", "Time of a shadow to score.", ["model"], buckets=SECONDS, registry=registry
        )
        self.stored_bytes = Counter("pymk_shadow_stored_bytes", "Bytes of files that were stored.", registry=registry)
        self.lost = Counter(
            "pymk_shadow_lost", "Requests that shadows scored and the store could not take.", registry=registry
        )
        self.stopped = Counter(
            "pymk_shadow_stopped",
            "Workers that had ended while a shadow scored, as this one found.",
            ["model"],
            registry=registry,
        )
        self._requests: dict[tuple[str, str], Any] = {}

    def asked(self, model: str, outcome: str) -> None:
        child = self._requests.get((model, outcome))
        if child is None:
            child = self._requests[model, outcome] = self.requests.labels(model, outcome)
        child.inc()
