"""POST /v1/score and GET /v1/scores over HTTP: keys, bodies, metrics, and requests that are answered later."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from flask.testing import FlaskClient

from benchmarks.serving_rows import FIRST_ID, STEP
from infra.keys import EVENTS, READ, KeyStore, utc_now
from infra.model_golden import Golden
from infra.model_routes import Canary, ModelRef, Route, RouteStore, routed
from infra.model_spec import InputSpec
from infra.models import Registry
from infra.settings import ApiSettings
from infra.store import ObjectStore
from lookup_api.app import Parts
from lookup_api.later_scores import LaterScores, room_of
from lookup_api.ranking.model_check import check_model
from lookup_api.score_request import ScoreQuery
from tests.infra.test_models import NOW
from tests.lookup_api.ranking.test_scorers import onnx_weights
from tests.suites.canaries import until_watched
from tests.suites.model_folders import columns_of, small_spec, write_folder
from tests.suites.served_store import publish_day

USER, OTHER, THIRD = (str(FIRST_ID + STEP * row) for row in (0, 200, 201))
"""A user, and two who are neither friends nor stored candidates of theirs."""
BODY = {"user_id": USER, "candidate_ids": [OTHER, THIRD], "models": ["fits"]}


def push(store: ObjectStore, folder: Path, version: str) -> ModelRef:
    """A model that says how well the friendship factors of a pair fit, 3 where that is not known."""
    from onnx import TensorProto, helper

    inputs = (InputSpec(name="factors", default=3),)
    spec = small_spec(name="fits", version=version, kind="onnx", inputs=inputs)
    columns = columns_of(spec)
    weights = onnx_weights(
        [("factors", TensorProto.FLOAT, ["n"])],
        [helper.make_node("Identity", ["factors"], ["score"])],
    )
    Registry(store).push(
        write_folder(folder, spec, weights, Golden(columns, columns["factors"])), check_model, NOW, "a"
    )
    return ModelRef(name="fits", version=version)


@pytest.fixture
def store(store: ObjectStore, tmp_path: Path) -> ObjectStore:
    publish_day(store, 2)
    push(store, tmp_path / "fits", "1")
    return store


def parts_of(client: FlaskClient) -> Parts:
    parts: Parts = client.application.extensions["pymk"]
    return parts


def halted(client: FlaskClient) -> LaterScores:
    """Of a worker that takes requests and scores none of those that wait."""
    found = parts_of(client).later
    assert found is not None
    found._stop.set()
    found._wake.set()
    found._thread.join()
    return found


def later(client: FlaskClient, work_id: str) -> Any:
    """What is told of a queued request once its worker has scored what waits."""
    found = halted(client)
    while found.step():
        pass
    return client.get(f"/v1/scores/{work_id}")


def test_scores_are_answered_with_who_gave_them(serve: Callable[..., FlaskClient]) -> None:
    client = serve()
    answer = client.post("/v1/score", json=BODY)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    told = answer.json
    assert told["scores"] == {"fits": [3.0, 3.0]}
    assert told["defaulted"] == {"fits@1": {"missing": 2, "stale": 0, "values": 2}}
    assert told["models"] == {"fits": "fits@1"}
    assert (told["user_id"], told["failed"], told["barred"], told["degraded"]) == (USER, {}, [], False)
    assert told["request_id"] == answer.headers["X-Request-Id"]
    text = client.get("/metrics").text
    assert 'pymk_model_requests_total{model="fits@1",outcome="answered"} 1.0' in text
    assert 'pymk_model_values_total{model="fits@1"} 2.0' in text
    assert 'pymk_requests_total{source="score",status="200"} 1.0' in text


def test_an_event_takes_the_score_at_once(serve: Callable[..., FlaskClient]) -> None:
    client = serve()
    event = {"event_id": "1", "type": "blocked", "user_id": OTHER, "other_id": USER, "at": "2026-01-01T00:00:00Z"}
    assert client.post("/v1/events", json={"events": [event]}).status_code == 202
    told = client.post("/v1/score", json=BODY).json
    assert told["barred"] == [OTHER]
    assert told["scores"]["fits"] == [None, 3.0]


def test_a_canary_that_clients_choose_is_had_by_who_asks_for_it_now_and_later(
    store: ObjectStore, tmp_path: Path, serve: Callable[..., FlaskClient]
) -> None:
    canary = Canary(model=push(store, tmp_path / "2", "2"), share=1, sticky="client")
    route = Route(stable=ModelRef(name="fits", version="1"), canary=canary)
    RouteStore(store).change("feed", routed(route), "2026-01-01T00:00:00Z", "a")
    client = serve()
    until_watched(parts_of(client).lookup.root.catalog)  # type: ignore[union-attr]

    def scored_by(**wanted: str) -> str:
        body = BODY | {"models": ["feed"]} | wanted
        now = client.post("/v1/score", json=body).json["models"]["feed"]
        queued = client.post("/v1/score?async=1", json=body).json["id"]
        assert later(client, queued).json["answer"]["models"]["feed"] == now
        return str(now)

    assert [scored_by(), scored_by(variant="stable"), scored_by(variant="canary")] == ["fits@1", "fits@1", "fits@2"]


@pytest.mark.parametrize(
    ("query", "status", "name"),
    [("?async=2", 400, "invalid-parameter"), ("?later=1", 400, "invalid-parameter"), ("?async=1&async=1", 400, "")],
)
def test_a_parameter_that_there_is_not_is_refused(
    serve: Callable[..., FlaskClient], query: str, status: int, name: str
) -> None:
    answer = serve().post(f"/v1/score{query}", json=BODY)
    assert answer.status_code == status
    assert name in answer.json["type"]


def test_bodies_are_json_and_name_no_more_people_than_may_be(serve: Callable[..., FlaskClient]) -> None:
    client = serve(api=ApiSettings(poll_s=3600, score_candidates=1))
    assert client.post("/v1/score", data="{}", content_type="text/plain").status_code == 415
    answer = client.post("/v1/score", json=BODY)
    assert (answer.status_code, "1 to 1 are taken" in answer.json["detail"]) == (400, True)


def test_scores_need_a_key_for_reading(store: ObjectStore, serve: Callable[..., FlaskClient]) -> None:
    read, events = (KeyStore(store).create(scope, [scope], utc_now())[1] for scope in (READ, EVENTS))
    client = serve()
    for path, method in (("/v1/score", "POST"), (f"/v1/scores/{'0' * 32}", "GET")):
        assert client.open(path, method=method, json=BODY).status_code == 401
        assert client.open(path, method=method, json=BODY, headers={"X-Api-Key": events}).status_code == 403
        assert client.open(path, method=method, json=BODY, headers={"X-Api-Key": read}).status_code in (200, 404)


def test_a_queued_request_has_the_same_scores_later(serve: Callable[..., FlaskClient]) -> None:
    client = serve()
    now = client.post("/v1/score", json=BODY).json
    taken = client.post("/v1/score?async=1", json=BODY)
    assert (taken.status_code, taken.json["status"], taken.json["kept_s"]) == (202, "queued", 600)
    assert taken.headers["Location"] == f"/v1/scores/{taken.json['id']}"
    found = later(client, taken.json["id"])
    assert (found.status_code, found.json["status"]) == (200, "done")
    for name in ("scores", "models", "barred", "release", "failed"):
        assert found.json["answer"][name] == now[name]


def test_a_worker_scores_what_waits_by_itself(
    serve: Callable[..., FlaskClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, done = serve(), threading.Event()
    found = parts_of(client).later
    assert found is not None
    finish = found._queue.finish

    def noted(work_id: str, result: bytes) -> None:
        finish(work_id, result)
        done.set()

    monkeypatch.setattr(found._queue, "finish", noted)
    taken = client.post("/v1/score?async=1", json=BODY).json
    assert done.wait(60)
    assert client.get(f"/v1/scores/{taken['id']}").json["status"] == "done"


def test_servers_of_a_fleet_queue_where_their_live_facts_are(
    serve: Callable[..., FlaskClient], redis_uri: str, tmp_path: Path
) -> None:
    one, other = (serve(api=ApiSettings(poll_s=3600, facts=redis_uri)) for _ in range(2))
    halted(one)
    taken = one.post("/v1/score?async=1", json=BODY).json
    assert later(other, taken["id"]).json["status"] == "done"
    assert not (tmp_path / "store" / "live").exists()


def test_a_queued_request_that_fails_says_so(serve: Callable[..., FlaskClient]) -> None:
    client = serve()
    taken = client.post("/v1/score?async=1", json=BODY | {"models": ["none"]}).json
    found = later(client, taken["id"]).json
    assert (found["status"], "none" in found["why"]) == ("failed", True)


def test_a_queued_request_that_comes_too_late_is_tried_once_more(
    serve: Callable[..., FlaskClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve()
    found = halted(client)
    for too_late, status in ((1, "done"), (2, "failed")):
        taken = client.post("/v1/score?async=1", json=BODY).json["id"]
        with monkeypatch.context() as patched:
            patched.setattr("lookup_api.later_scores.TIME_S", 0.0)
            for _ in range(too_late):
                assert client.get(f"/v1/scores/{taken}").json["status"] == "queued"
                found.step()
        assert later(client, taken).json["status"] == status


@pytest.mark.parametrize("data", [b"{}", b"no JSON", b'{"user_id":"x","candidate_ids":3,"models":[]}'])
def test_what_cannot_be_read_fails_alone(serve: Callable[..., FlaskClient], data: bytes) -> None:
    client = serve()
    queue = halted(client)._queue
    broken = queue.put(data) or ""
    taken = client.post("/v1/score?async=1", json=BODY).json
    assert later(client, taken["id"]).json["status"] == "done"
    assert client.get(f"/v1/scores/{broken}").json["status"] == "failed"


def test_a_worker_goes_on_after_a_step_that_raised(
    serve: Callable[..., FlaskClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, raised, done = serve(), threading.Event(), threading.Event()
    found = parts_of(client).later
    assert found is not None
    take, finish = found._queue.take, found._queue.finish

    def raising() -> Any:
        if not raised.is_set():
            raised.set()
            raise KeyError("x")
        return take()

    def noted(work_id: str, result: bytes) -> None:
        finish(work_id, result)
        done.set()

    monkeypatch.setattr(found._queue, "take", raising)
    monkeypatch.setattr(found._queue, "finish", noted)
    assert raised.wait(60)
    client.post("/v1/score?async=1", json=BODY)
    assert done.wait(60)


def test_waiting_for_the_queue_is_no_work(serve: Callable[..., FlaskClient], monkeypatch: pytest.MonkeyPatch) -> None:
    client = serve()
    parts, found, seen = parts_of(client), halted(client), []
    put, get = found._queue.put, found._queue.get

    def noted_put(data: bytes, room_bytes: int = 0) -> str | None:
        seen.append(parts.load._running)
        return put(data, room_bytes)

    def noted_get(work_id: str) -> Any:
        seen.append(parts.load._running)
        return get(work_id)

    monkeypatch.setattr(found._queue, "put", noted_put)
    monkeypatch.setattr(found._queue, "get", noted_get)
    taken = client.post("/v1/score?async=1", json=BODY).json
    assert client.get(f"/v1/scores/{taken['id']}").status_code == 202
    assert (seen, parts.load._running) == ([0, 0], 0)


def test_results_take_no_more_than_may_be_kept(serve: Callable[..., FlaskClient]) -> None:
    """However few wait: results stay for minutes."""
    people = [str(number) for number in range(1, 1001)]
    body = BODY | {"candidate_ids": people, "models": ["fits", "release", "fits@1"]}
    client = serve(api=ApiSettings(poll_s=3600, score_queue_mib=1))
    found, statuses = halted(client), []
    while len(statuses) < 200 and 503 not in statuses:
        statuses.append(client.post("/v1/score?async=1", json=body).status_code)
        found.step()
    assert statuses[-1] == 503
    assert 5 < len(statuses) < 200


def test_a_result_takes_no_more_room_than_was_asked_for() -> None:
    name = "\x01\u20ac" * 100
    query = ScoreQuery(2**62, tuple(range(2**62, 2**62 + 50)), (name, "b"))
    told = {"user_id": str(query.user_id), "scores": {one: [-1.1754944e-38] * 50 for one in query.models}}
    told |= {"models": {one: one for one in query.models}, "barred": [str(one) for one in query.candidate_ids]}
    told |= {"failed": {name: "unknown"}, "defaulted": {name: {"missing": 50, "stale": 0, "values": 50}}}
    size = len(orjson.dumps({"query": orjson.loads(query.to_json()), "answer": told}))
    assert size + 200 < room_of(query) < 10 * size


def test_a_user_is_scored_for_no_more_often_than_asked_for_lists(serve: Callable[..., FlaskClient]) -> None:
    client = serve(api=ApiSettings(poll_s=3600, user_per_s=0.001))
    assert client.post("/v1/score", json=BODY).status_code == 200
    for path in ("/v1/score", "/v1/score?async=1"):
        answer = client.post(path, json=BODY)
        assert (answer.status_code, "Retry-After" in answer.headers) == (429, True)
    assert client.get(f"/v1/users/{USER}/recommendations").status_code == 429
    assert client.post("/v1/score", json=BODY | {"user_id": str(FIRST_ID + 1)}).status_code == 200


def test_requests_for_later_are_counted_apart(serve: Callable[..., FlaskClient]) -> None:
    client = serve()
    taken = client.post("/v1/score?async=1", json=BODY).json
    later(client, taken["id"])
    text = client.get("/metrics").text
    assert 'pymk_requests_total{source="score_later",status="202"} 1.0' in text
    assert 'pymk_requests_total{source="score_later",status="200"} 1.0' in text
    assert 'pymk_request_seconds_count{source="score"}' not in text


def test_another_worker_does_what_a_worker_left_waiting(serve: Callable[..., FlaskClient]) -> None:
    queue = halted(serve())._queue
    work_id = queue.put(b'{"user_id":%s,"candidate_ids":[%s],"models":["fits"]}' % (USER.encode(), OTHER.encode()))
    assert work_id is not None
    assert later(serve(), work_id).json["status"] == "done"


def test_what_a_worker_took_and_never_finished_is_said_to_be_lost(
    serve: Callable[..., FlaskClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve()
    halted(client)
    taken = client.post("/v1/score?async=1", json=BODY).json
    halted(client)._queue.take()
    assert client.get(f"/v1/scores/{taken['id']}").json["status"] == "running"
    monkeypatch.setattr("lookup_api.later_scores.LOST_S", 0.0)
    lost = client.get(f"/v1/scores/{taken['id']}")
    assert (lost.status_code, lost.json["status"]) == (200, "failed")
    assert "Send it again" in lost.json["why"]


def test_a_full_queue_takes_no_more(serve: Callable[..., FlaskClient]) -> None:
    client = serve(api=ApiSettings(poll_s=3600, score_queue=1))
    halted(client)
    assert client.post("/v1/score?async=1", json=BODY).status_code == 202
    answer = client.post("/v1/score?async=1", json=BODY)
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
    assert client.post("/v1/score", json=BODY).status_code == 200
    none = serve(api=ApiSettings(poll_s=3600, score_queue=0))
    assert none.post("/v1/score?async=1", json=BODY).status_code == 503
    assert none.get(f"/v1/scores/{'0' * 32}").status_code == 404
