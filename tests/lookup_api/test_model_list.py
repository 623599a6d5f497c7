"""What GET /v1/models tells: routes as they are, and of each model what /metrics counts."""

from pathlib import Path

import numpy as np
import pytest
from openapi_schema_validator import OAS31Validator

from infra.keys import KeyStore, utc_now
from infra.model_routes import LOOKUP, Canary, ModelRef, Route, Routes, RouteStore, Stopped, Surface, routed
from infra.store import ObjectStore
from lookup_api.metrics import Metrics
from lookup_api.model_list import MOST_MODELS, model_list, quantile
from lookup_api.openapi import document
from lookup_api.root.gathered import Defaulted
from lookup_api.root.root_metrics import FAILED, RootMetrics
from lookup_api.shadow_metrics import ShadowMetrics
from tests.suites.served_store import app_on, new_store, publish_day

ONE, TWO, THREE = (ModelRef(name="small", version=version) for version in "123")
ROUTE = Route(stable=ONE, canary=Canary(model=TWO, share=0.1), shadows=(THREE,))


def test_quantiles_are_those_of_prometheus() -> None:
    """Of the documentation of histogram_quantile: linear within a bucket, and the highest bound where it is endless."""
    buckets = {0.1: 10.0, 0.2: 30.0, 0.5: 40.0, np.inf: 41.0}
    assert quantile(0.5, buckets) == pytest.approx(0.1 + 0.1 * (20.5 - 10) / 20)
    assert quantile(0.1, buckets) == pytest.approx(0.1 * 4.1 / 10)
    assert quantile(1.0, buckets) == 0.5
    assert quantile(0.99, {0.1: 0.0, 0.2: 0.0, 0.4: 5.0, np.inf: 5.0}) == pytest.approx(0.2 + 0.2 * 0.99)
    assert quantile(0.5, {0.1: 0.0, np.inf: 0.0}) is None
    assert quantile(0.5, {}) is None


def test_models_are_told_with_what_became_of_their_requests() -> None:
    metrics = Metrics()
    counts = RootMetrics(metrics.registry)
    for _ in range(99):
        counts.answered(str(ONE), 0.0007, Defaulted(missing=2, stale=1, values=10))
    counts.answered(str(ONE), 0.06, Defaulted(values=10))
    counts.failed(str(ONE), FAILED)
    counts.answered("other@1", 0.003, Defaulted())
    unseen = ShadowMetrics(metrics.registry)
    for outcome in ("answered", "answered", "busy"):
        unseen.asked(str(THREE), outcome)
    counts.score_drift.labels(str(ONE)).set(0.4)
    counts.input_drift.labels(str(ONE), "walk").set(0.2)
    told = model_list(Routes(surfaces={LOOKUP: Surface(route=ROUTE)}), metrics.collected())
    assert [one["model"] for one in told["models"]] == ["release", "small@1", "small@2", "small@3", "other@1"]
    assert [one["roles"] for one in told["models"]] == [
        [],
        [{"surface": LOOKUP, "role": "stable"}],
        [{"surface": LOOKUP, "role": "canary"}],
        [{"surface": LOOKUP, "role": "shadow"}],
        [],
    ]
    first = told["models"][1]
    assert (first["requests"], first["outcomes"]) == (101, {"answered": 100, "failed": 1})
    assert (first["values"], first["defaulted"]) == (1000, {"missing": 198, "stale": 99})
    assert (first["score_psi"], first["input_psi"]) == (0.4, {"walk": 0.2})
    assert told["models"][3]["unseen"] == {"answered": 2, "busy": 1}
    assert 0.5 < first["p50_ms"] < 1 <= first["p99_ms"] <= 100
    nothing = told["models"][2]
    assert (nothing["requests"], nothing["p50_ms"], nothing["score_psi"]) == (0, None, None)


def test_surfaces_are_told_with_who_changed_them_and_what_was_stopped() -> None:
    gone = Stopped(model=TWO, why="3 of 3 requests failed", at="2026-01-02T00:00:00Z")
    feed = Surface(route=Route(stable=ONE), stopped=(gone,), changed_at="2026-01-03T00:00:00Z", by="a")
    told = model_list(Routes(surfaces={"feed": feed}), ())["surfaces"]
    assert [one["surface"] for one in told] == [LOOKUP, "feed"]
    assert (told[0]["stable"], told[0]["canary"], told[0]["shadows"]) == ("release", None, [])
    assert told[1]["stopped"] == [{"model": "small@2", "why": gone.why, "at": gone.at}]
    assert (told[1]["changed_at"], told[1]["by"]) == (feed.changed_at, "a")


def test_so_many_models_are_told_of_and_those_routed_to_are_among_them() -> None:
    metrics = Metrics()
    counts = RootMetrics(metrics.registry)
    for number in range(MOST_MODELS + 9):
        counts.failed(f"a@{number}", FAILED)
    told = model_list(Routes(surfaces={LOOKUP: Surface(route=ROUTE)}), metrics.collected())["models"]
    assert len(told) == MOST_MODELS
    assert {"release", "small@1", "small@2", "small@3"} <= {one["model"] for one in told}


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    store = new_store(tmp_path)
    publish_day(store, 1, users=30)
    return store


def test_it_is_answered_to_who_may_know(store: ObjectStore) -> None:
    RouteStore(store).change(LOOKUP, routed(ROUTE), "2026-01-01T00:00:00Z", "a")
    keys = {scope: KeyStore(store).create(scope, (scope,), utc_now())[1] for scope in ("read", "admin")}
    app = app_on(store)
    client = app.test_client()
    answers = {
        scope: client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}) for scope, key in keys.items()
    }
    assert (answers["read"].status_code, answers["admin"].status_code) == (403, 200)
    api = document("0", 1)
    OAS31Validator(api["components"]["schemas"]["Models"] | {"components": api["components"]}).validate(
        answers["admin"].json
    )
    assert answers["admin"].json["surfaces"][0]["canary"] == {"model": "small@2", "share": 0.1, "sticky": "user"}
    app.extensions["pymk"].stop()


def test_routes_that_cannot_be_read_are_a_problem_and_no_more(store: ObjectStore) -> None:
    store.put("routes.json", b"{")
    app = app_on(store)
    answer = app.test_client().get("/v1/models")
    assert (answer.status_code, answer.json["type"]) == (503, "urn:pymk:problem:store-unreadable")
    assert answer.headers["Retry-After"]
    assert app.test_client().get("/healthz").status_code == 200
    app.extensions["pymk"].stop()
