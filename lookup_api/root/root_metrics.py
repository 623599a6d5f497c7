"""Metrics of models, by name and version: requests, time, what became of them, defaults, and drift."""

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from lookup_api.metrics import SECONDS
from lookup_api.ranking.scorers import Float32
from lookup_api.root.asked_models import ScoresGathered
from lookup_api.root.gathered import Defaulted, Gathered

ANSWERED, FAILED, LATE, UNKNOWN = "answered", "failed", "late", "unknown"
"""What becomes of asking a model. unknown: there is none of that name."""
NO_MODEL = "none"
"""In place of a name that no model has, as callers choose those."""


class RootMetrics:
    """Children are looked up once: a name of a model comes again and again. saw: told of every request that was scored,
    where somebody wants to know (lookup_api.root.drift)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "pymk_model_requests", "What became of asking a model for scores.", ["model", "outcome"], registry=registry
        )
        self.seconds = Histogram(
            "pymk_model_seconds", "Time to score, by model.", ["model"], buckets=SECONDS, registry=registry
        )
        self.values = Counter("pymk_model_values", "Values that models were given.", ["model"], registry=registry)
        self.defaulted = Counter(
            "pymk_model_defaulted", "Of them, those that took the model's default.", ["model", "why"], registry=registry
        )
        self.drift_requests = Counter(
            "pymk_model_drift_requests", "Requests that were counted for drift.", ["model"], registry=registry
        )
        self.score_drift = Gauge(
            "pymk_model_score_psi", "Stability index of a model's scores beside those where it learnt.",
            ["model"], multiprocess_mode="livemax", registry=registry,
        )  # fmt: skip
        self.input_drift = Gauge(
            "pymk_model_input_psi", "Stability index of what a model is given beside where it learnt.",
            ["model", "input"], multiprocess_mode="livemax", registry=registry,
        )  # fmt: skip
        self.saw: Callable[[ScoresGathered, Gathered, Float32], None] | None = None
        self._of: dict[str, tuple[Any, Any, Any]] = {}

    def answered(self, model: str, seconds: float, defaulted: Defaulted) -> None:
        requests, histogram, values = self._children(model)
        requests.inc()
        histogram.observe(seconds)
        values.inc(defaulted.values)
        for why, number in (("missing", defaulted.missing), ("stale", defaulted.stale)):
            if number:
                self.defaulted.labels(model, why).inc(number)

    def failed(self, model: str, outcome: str) -> None:
        self.requests.labels(model, outcome).inc()

    def _children(self, model: str) -> tuple[Any, Any, Any]:
        found = self._of.get(model)
        if found is None:
            found = self._of[model] = (
                self.requests.labels(model, ANSWERED),
                self.seconds.labels(model),
                self.values.labels(model),
            )
        return found
