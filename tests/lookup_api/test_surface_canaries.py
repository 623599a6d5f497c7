"""A canary of a surface that callers score for is taken off as that of the lookup is: by what it did to requests."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from benchmarks.serving_rows import FIRST_ID, STEP
from infra.errors import StoreError
from infra.model_golden import Golden
from infra.model_routes import Canary, ModelRef, Route, RouteStore, routed
from infra.model_spec import InputSpec
from infra.models import Registry
from infra.settings import ApiSettings, ModelSettings
from infra.store import ObjectStore
from lookup_api.leaves import batches
from lookup_api.model_marks import marks_of
from lookup_api.root.catalog import Catalog
from tests.infra.test_models import NOW
from tests.lookup_api.ranking.test_scorers import onnx_weights
from tests.lookup_api.test_score_routes import halted, later
from tests.suites.canaries import until_watched
from tests.suites.model_folders import columns_of, small_spec, write_folder
from tests.suites.served_store import publish_day

USER, *PEOPLE = (str(FIRST_ID + STEP * row) for row in (0, 200, 201))
HOME, ENOUGH = "home", 5
BODY = {"user_id": USER, "candidate_ids": PEOPLE, "models": [HOME, "sound@1"]}
NODES: dict[str, list[tuple[str, list[str], str]]] = {
    "sound": [("Identity", ["factors"], "score")],
    "slow": [("Identity", ["factors"], "score")],
    "biased": [("Identity", ["factors"], "score")],
    "nan": [("Neg", ["factors"], "no"), ("Sqrt", ["no"], "score")],
}
QUIET = {"api": ApiSettings(poll_s=3600), "models": ModelSettings(canary_requests=ENOUGH, canary_p95_ms=60_000)}
"""Nobody looks but the test, and no machine is too slow."""


def push(store: ObjectStore, folder: Path, name: str) -> ModelRef:
    """Of strangers all know no factors, for which stands 3. That is as usual but for the biased."""
    from onnx import TensorProto, helper

    spec = small_spec(name=name, version="1", kind="onnx", inputs=(InputSpec(name="factors", default=3),))
    nodes = [helper.make_node(op, inputs, [output]) for op, inputs, output in NODES[name]]
    columns = columns_of(spec)
    usual = np.tile(np.float32([0, 1, 2] if name == "biased" else [2, 3, 4]), len(columns["factors"]))
    golden = Golden(columns, usual[: len(columns["factors"])])
    made = write_folder(folder / name, spec, onnx_weights([("factors", TensorProto.FLOAT, ["n"])], nodes), golden)
    Registry(store).push(made, lambda folder, spec: {}, NOW, "a")
    return ModelRef(name=name, version="1")


@pytest.fixture
def store(store: ObjectStore, tmp_path: Path) -> ObjectStore:
    publish_day(store, 2)
    for name in NODES:
        push(store, tmp_path, name)
    return store


def route(store: ObjectStore, name: str, surface: str = HOME) -> None:
    route = Route(stable=ModelRef.parse("sound@1"), canary=Canary(model=ModelRef.parse(f"{name}@1"), share=1))
    RouteStore(store).change(surface, routed(route, force=True), "2026-01-01T00:00:00Z", "a")


def catalog_of(client: FlaskClient) -> Catalog:
    found: Catalog = client.application.extensions["pymk"].lookup.root.catalog
    return found


def who_scores(client: FlaskClient, surface: str = HOME, by_and_by: bool = False) -> str | None:
    """Of the surface; None where its model failed. by_and_by: the worker that took the request scores it then."""
    body = BODY | {"models": [surface, "sound@1"]}
    if by_and_by:
        halted(client)
        answer: Any = later(client, client.post("/v1/score?async=1", json=body).json["id"]).json["answer"]
    else:
        answer = client.post("/v1/score", json=body).json
    assert all(score == 3 for score in answer["scores"]["sound@1"]), "whatever becomes of the other"
    found: str | None = answer["models"].get(surface)
    return found


def stopped(store: ObjectStore) -> str | None:
    surface = RouteStore(store).read().of(HOME)
    return None if surface.route.canary else surface.stopped[0].why


@pytest.mark.parametrize(
    ("name", "why", "by_and_by"),
    [
        ("sound", None, False),
        ("nan", "requests failed", False),
        ("slow", "p95 of scoring", False),
        ("biased", "stability index", False),
        ("nan", "requests failed", True),
        ("biased", "stability index", True),
        ("slow", None, True),  # nobody waits for it
    ],
)
def test_a_bad_canary_of_a_surface_is_taken_off(
    name: str, why: str | None, by_and_by: bool, store: ObjectStore, serve: Callable[..., FlaskClient]
) -> None:
    route(store, name)
    bounds = ModelSettings(canary_requests=ENOUGH, canary_p95_ms=1e-3) if name == "slow" else QUIET["models"]
    client = serve(**QUIET | {"models": bounds})
    until_watched(catalog_of(client))
    seen = [who_scores(client, by_and_by=by_and_by) for _ in range(ENOUGH)]
    assert seen == ["sound@1" if name == "nan" else f"{name}@1"] * ENOUGH, "the stable model stands in"
    catalog_of(client).look_at_canaries()
    said = stopped(store)
    assert (said is None) == (why is None)
    assert why is None or why in str(said)
    assert who_scores(client) == ("sound@1" if why else f"{name}@1")
    if why:
        route(store, name)
        catalog_of(client).look()
        catalog_of(client).look_at_canaries()
        assert stopped(store) is None, "who routes to it again counts anew"


def test_who_asks_for_the_canary_is_told_that_it_failed(store: ObjectStore, serve: Callable[..., FlaskClient]) -> None:
    route(store, "nan")
    client = serve(**QUIET)
    until_watched(catalog_of(client))
    answer = client.post("/v1/score", json=BODY | {"variant": "canary"}).json
    assert (answer["failed"], answer["degraded"], list(answer["scores"])) == ({HOME: "failed"}, True, ["sound@1"])


def test_a_worker_leaves_it_out_before_the_store_can_be_written(
    store: ObjectStore, serve: Callable[..., FlaskClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    route(store, "nan")
    client = serve(**QUIET)
    until_watched(catalog_of(client))
    for _ in range(ENOUGH):
        who_scores(client)

    def away(*asked: object) -> None:
        raise StoreError("the store is away")

    route(store, "slow", "page")
    with monkeypatch.context() as patched:
        patched.setattr(RouteStore, "change", away)
        catalog_of(client).look()
        for _ in range(2):
            with pytest.raises(StoreError):
                catalog_of(client).look_at_canaries()
            assert who_scores(client) == "sound@1"
            assert who_scores(client, "page") == "slow@1", "a canary that comes meanwhile is watched"
    assert stopped(store) is None
    catalog_of(client).look_at_canaries()
    assert "requests failed" in str(stopped(store))


ENDS = """
import ctypes, sys
from prometheus_client import CollectorRegistry, Counter
from infra.model_routes import RouteStore
from infra.store import open_store
from lookup_api.canary_guard import Bounds
from lookup_api.root.canaries import Canaries

def opened(model):
    if sys.argv[2] == "as it is opened":
        ctypes.string_at(0)

counter = Counter("stopped", "", ["model"], registry=CollectorRegistry())
canaries, routes = Canaries(sys.argv[1], Bounds(), counter, opened), RouteStore(open_store(sys.argv[1])).read()
surface, one = sorted(routes.surfaces.items())[0]
assert canaries.is_off(surface, one.route.canary.model), "nobody has it before it is watched"
canaries.look(routes)
with canaries.watched(surface, one.route.canary.model).scoring():
    ctypes.string_at(0)
"""


@pytest.mark.parametrize("when", ["as it is opened", "as it scores"])
def test_one_that_ends_a_server_is_not_asked_by_the_next(
    when: str, store: ObjectStore, serve: Callable[..., FlaskClient]
) -> None:
    for surface in (HOME, "page"):  # the mark of one canary is the mark of the other too
        route(store, "slow", surface)
    assert subprocess.run([sys.executable, "-c", ENDS, store.uri, when], check=False).returncode == -11
    client = serve(**QUIET)
    canaries = catalog_of(client).canaries
    assert who_scores(client) == "sound@1"
    until = time.monotonic() + 60
    while stopped(store) is None or canaries._off:  # until then the background look goes on
        assert time.monotonic() < until
        time.sleep(0.01)
    assert "ended while it scored" in str(stopped(store))
    assert who_scores(client) == "sound@1"
    route(store, "slow")
    catalog_of(client).look()
    catalog_of(client).look_at_canaries()
    assert (stopped(store), who_scores(client)) == (None, "slow@1"), "what was known against it is forgotten"


def test_its_mark_is_set_while_it_scores_by_and_by_on_a_leaf_apart(
    store: ObjectStore, serve: Callable[..., FlaskClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    route(store, "slow")
    client = serve(**QUIET)
    until_watched(catalog_of(client))
    timed, folder, seen = batches._timed, marks_of(store.uri, "surfaces"), []

    def noted(resident: Any, inputs: Any) -> Any:
        in_hand = {json.loads(file[1:])[1]: file[0] for file in (path.read_bytes() for path in folder.iterdir())}
        seen.append((len(inputs), in_hand))
        return timed(resident, inputs)

    monkeypatch.setattr(batches, "_timed", noted)
    people = [str(FIRST_ID + STEP * row) for row in range(200, 220)]
    found = halted(client)
    taken = client.post("/v1/score?async=1", json=BODY | {"candidate_ids": people, "models": [HOME]}).json
    assert later(client, taken["id"]).json["answer"]["scores"] == {HOME: [3.0] * 20}
    assert seen == [(20, {"slow@1": 1})]
    leaves = [client.application.extensions["pymk"].scoring.root.leaf, found._scoring.root.leaf]
    assert [{str(model) for model, _ in leaf.counts._requests} for leaf in leaves] == [set(), {"slow@1"}]


def test_requests_that_name_the_model_itself_say_nothing_of_the_surface(
    store: ObjectStore, serve: Callable[..., FlaskClient]
) -> None:
    route(store, "nan")
    client = serve(**QUIET)
    until_watched(catalog_of(client))
    for _ in range(ENOUGH):
        client.post("/v1/score", json=BODY | {"models": ["nan@1"]})
    catalog_of(client).look_at_canaries()
    assert stopped(store) is None
