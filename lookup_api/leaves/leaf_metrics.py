"""Metrics of leaves: of the models that are open here, and of what is sent to other processes and left out."""

from collections import Counter as Tally
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from infra.model_routes import ModelRef

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
ANSWERED, FAILED, LATE, OPEN, REFUSED = "answered", "failed", "late", "open", "refused"
"""Outcomes of asking a model. open: its breaker kept it from being asked; refused: its inputs were of no use."""
SENT, SAVED, DISCARDED = "sent", "saved", "discarded"


class HostMetrics:
    """Of the models that a process has open."""

    def __init__(self, registry: CollectorRegistry, prefix: str = "pymk_leaf") -> None:
        """prefix: another one for each leaf of a process, be the registries others too: workers share files of values
        by name."""

        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(f"{prefix}_{name}", says, list(labels), registry=registry)

        def gauge(name: str, says: str) -> Gauge:
            return Gauge(f"{prefix}_{name}", says, multiprocess_mode="livesum", registry=registry)

        self.requests = counter("requests", "Requests to score, by model and outcome.", "model", "outcome")
        self.rows = counter("rows", "Rows scored, by model.", "model")
        self.seconds = Histogram(
            f"{prefix}_seconds", "Time to score a request, waiting for its turn included.", ["model"],
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.together = Histogram(
            f"{prefix}_requests_together", "Requests scored in one call of a model.",
            buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry,
        )  # fmt: skip
        self.loads = counter("loads", "Models opened: loaded, failed or missing.", "outcome")
        self.load_seconds = Histogram(
            f"{prefix}_load_seconds", "Time to open a model.", buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10),
            registry=registry,
        )  # fmt: skip
        self.evicted = counter("evictions", "Models closed to make room for others.")
        self.cache = counter("cache_lookups", "Look-ups of identical requests: hit or miss.", "result")
        self.models = gauge("models", "Models that are open.")
        self.bytes = gauge("model_bytes", "Memory that open models say they take.")
        self._requests: dict[tuple[ModelRef, str], Any] = {}
        self._answered: dict[ModelRef, tuple[Any, Any]] = {}

    def asked(self, model: ModelRef, outcome: str) -> None:
        child = self._requests.get((model, outcome))
        if child is None:
            child = self._requests[model, outcome] = self.requests.labels(str(model), outcome)
        child.inc()

    def answered(self, model: ModelRef, rows: int, seconds: float) -> None:
        """Counts a request whose scores are given."""
        children = self._answered.get(model)
        if children is None:
            name = str(model)
            children = self._answered[model] = (self.rows.labels(name), self.seconds.labels(name))
        children[0].inc(rows)
        children[1].observe(seconds)
        self.asked(model, ANSWERED)


class SenderMetrics:
    """Of what is sent to leaves in other processes. told: the same figures, for whoever has no Prometheus."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(name, says, list(labels), registry=registry)

        self.bytes = counter(
            "pymk_leaf_bytes", "Bytes of columns: sent to leaves, saved by trimming, discarded by leaves.", "what"
        )
        self.untrimmed = counter(
            "pymk_leaf_untrimmed", "Requests that sent all columns, as a model's list was missing or corrupt.",
            "model", "why",
        )  # fmt: skip
        self.left_out = counter("pymk_leaf_left_out", "Times that a leaf did not answer, by address and why.",
                                "leaf", "why")  # fmt: skip
        self.moved = counter("pymk_leaf_moved", "Requests that another leaf of the model's shard answered.")
        self.told: Tally[str] = Tally()
        self._bytes = {what: self.bytes.labels(what) for what in (SENT, SAVED, DISCARDED)}

    def sent(self, sent: int, saved: int = 0, discarded: int = 0) -> None:
        """Counts the bytes of one request."""
        for what, size in ((SENT, sent), (SAVED, saved), (DISCARDED, discarded)):
            if size:
                self._bytes[what].inc(size)
                self.told[what] += size
