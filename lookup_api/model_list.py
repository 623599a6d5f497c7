"""Where models are routed to and how they have done, for GET /v1/models. Knows nothing of HTTP."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import Metric

from infra.model_routes import CANARY, LOOKUP, RELEASE, SHADOW, STABLE, Routes, Surface

MOST_MODELS = 200
"""That are told of: those routed to, then those that were asked most."""
REQUESTS, SECONDS = "pymk_model_requests_total", "pymk_model_seconds_bucket"
VALUES, DEFAULTED = "pymk_model_values_total", "pymk_model_defaulted_total"
SCORE_DRIFT, INPUT_DRIFT = "pymk_model_score_psi", "pymk_model_input_psi"
UNSEEN = "pymk_shadow_requests_total"


@dataclass
class Done:
    """What became of a model's requests, and of those that it was to score unseen. seconds: how many took at most so
    long, by the bound."""

    outcomes: Counter[str] = field(default_factory=Counter)
    unseen: Counter[str] = field(default_factory=Counter)
    seconds: dict[float, float] = field(default_factory=dict)
    values: int = 0
    defaulted: Counter[str] = field(default_factory=Counter)
    score_drift: float | None = None
    input_drift: dict[str, float] = field(default_factory=dict)


def model_list(routes: Routes, metrics: Iterable[Metric]) -> dict[str, Any]:
    """{"surfaces", "models"} as JSON values; the lookup's own surface comes first. metrics: of all workers."""
    surfaces = {LOOKUP: routes.of(LOOKUP)} | dict(sorted(routes.surfaces.items()))
    roles, done = _roles(surfaces), _done(metrics)
    asked = sorted(done.keys() - roles.keys(), key=lambda one: (-done[one].outcomes.total(), one))
    named = [*roles, *asked][:MOST_MODELS]
    return {
        "surfaces": [_surface(name, surface) for name, surface in surfaces.items()],
        "models": [_told(name, roles.get(name, ()), done.get(name, Done())) for name in named],
    }


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """Below which a share of the observations is, as Prometheus' histogram_quantile tells it: evenly spread within a
    bucket. buckets: how many are at most the bound, by the bound, infinity included. None where there are none."""
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if not total:
        return None
    below, count = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= share * total and buckets[bound] > count:
            inside = (share * total - count) / (buckets[bound] - count)
            return below if math.isinf(bound) else below + (bound - below) * inside
        below, count = bound, buckets[bound]
    return below


def _roles(surfaces: Mapping[str, Surface]) -> dict[str, list[dict[str, str]]]:
    """What each model is routed to as; the ranker of the release is always there."""
    roles: dict[str, list[dict[str, str]]] = defaultdict(list)
    for name, surface in surfaces.items():
        route = surface.route
        parts = [(str(route.stable or RELEASE), STABLE)]
        parts += [(str(route.canary.model), CANARY)] if route.canary else []
        parts += [(str(model), SHADOW) for model in route.shadows]
        for model, role in parts:
            roles[model].append({"surface": name, "role": role})
    return {RELEASE: roles.pop(RELEASE, [])} | roles


def _done(metrics: Iterable[Metric]) -> dict[str, Done]:
    found: dict[str, Done] = defaultdict(Done)
    for metric in metrics:
        for sample in metric.samples:
            name, labels, value = sample.name, sample.labels, sample.value
            if name == REQUESTS:
                found[labels["model"]].outcomes[labels["outcome"]] += int(value)
            elif name == UNSEEN:
                found[labels["model"]].unseen[labels["outcome"]] += int(value)
            elif name == SECONDS:
                found[labels["model"]].seconds[float(labels["le"])] = value
            elif name == VALUES:
                found[labels["model"]].values = int(value)
            elif name == DEFAULTED:
                found[labels["model"]].defaulted[labels["why"]] += int(value)
            elif name == SCORE_DRIFT:
                found[labels["model"]].score_drift = value
            elif name == INPUT_DRIFT:
                found[labels["model"]].input_drift[labels["input"]] = value
    return found


def _surface(name: str, surface: Surface) -> dict[str, Any]:
    route, canary = surface.route, surface.route.canary
    told = {"model": str(canary.model), "share": canary.share, "sticky": canary.sticky} if canary else None
    return {
        "surface": name,
        "stable": str(route.stable or RELEASE),
        "canary": told,
        "shadows": [str(model) for model in route.shadows],
        "stopped": [{"model": str(one.model), "why": one.why, "at": one.at} for one in surface.stopped],
        "changed_at": surface.changed_at,
        "by": surface.by,
    }


def _told(name: str, roles: Sequence[dict[str, str]], done: Done) -> dict[str, Any]:
    p50, p99 = quantile(0.5, done.seconds), quantile(0.99, done.seconds)
    return {
        "model": name,
        "roles": list(roles),
        "requests": done.outcomes.total(),
        "outcomes": dict(done.outcomes),
        "unseen": dict(done.unseen),
        "p50_ms": None if p50 is None else round(p50 * 1e3, 3),
        "p99_ms": None if p99 is None else round(p99 * 1e3, 3),
        "values": done.values,
        "defaulted": dict(done.defaulted),
        "score_psi": done.score_drift,
        "input_psi": done.input_drift,
    }
