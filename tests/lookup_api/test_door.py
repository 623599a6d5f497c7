"""Who comes in: keys and scopes, limits, sizes; and what is told to those who do not."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.serving_rows import FIRST_ID
from infra.keys import ADMIN, EVENTS, READ, KeyStore, utc_now
from infra.settings import EventSettings
from infra.store import ObjectStore
from lookup_api.app import is_loopback
from lookup_api.door import OPEN, from_this_machine, names_this_machine, scope_of
from tests.suites.door import EVENT, LIST, api, new_key, problem, with_key


def ask(client: FlaskClient, path: str, **more: Any) -> Any:
    if path == "/v1/events":
        return client.post(path, json={"events": [EVENT]}, **more)
    return client.get(path, **more)


PATHS = {READ: LIST, EVENTS: "/v1/events", ADMIN: "/v1/releases"}


@pytest.mark.parametrize("scope", [READ, EVENTS, ADMIN])
def test_a_key_opens_what_it_is_for_and_nothing_else(
    store: ObjectStore, serve: Callable[..., FlaskClient], scope: str
) -> None:
    key = new_key(store, scope)
    client = serve()
    for other, path in PATHS.items():
        answer = ask(client, path, **with_key(key))
        if other == scope:
            assert answer.status_code in (200, 202)
        else:
            assert answer.status_code == 403
            assert problem(answer) == "forbidden"
            assert other in answer.headers["WWW-Authenticate"]
    assert client.get("/metrics", **with_key(key)).status_code == 200
    assert client.get("/v1/users/5/mutual/6", **with_key(key)).status_code == (200 if scope == ADMIN else 403)


def test_a_read_key_stores_no_event(store: ObjectStore, serve: Callable[..., FlaskClient]) -> None:
    key = new_key(store, READ)
    client = serve()
    ask(client, "/v1/events", **with_key(key))
    facts = client.application.extensions["pymk"].facts.of(FIRST_ID)
    assert not facts.barred


def test_a_key_may_come_in_either_header(store: ObjectStore, serve: Callable[..., FlaskClient]) -> None:
    key = new_key(store, READ)
    client = serve()
    assert client.get(LIST, headers={"X-Api-Key": key}).status_code == 200
    assert client.get(LIST, headers={"Authorization": f"bearer  {key}"}).status_code == 200


@pytest.mark.parametrize(
    "path", [LIST, "/v1/events", "/v1/releases", "/metrics", "/v2", "//v1/events", "/v1/users/x/y"]
)
@pytest.mark.parametrize(
    "header", [{}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic eDp5"}, {"X-Api-Key": ""},
               {"X-Api-Key": "pymk_000000000000_" + "0" * 64}, {"X-Api-Key": "\xff" * 40}]
)  # fmt: skip
def test_without_a_key_nothing_is_told(
    store: ObjectStore, serve: Callable[..., FlaskClient], path: str, header: dict[str, str]
) -> None:
    new_key(store, READ, EVENTS, ADMIN)
    answer = ask(serve(), path, headers=header)
    assert answer.status_code == 401
    assert problem(answer) == "unauthorized"
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_revoked_key_opens_nothing_and_locks_nobody_else_in(
    store: ObjectStore, serve: Callable[..., FlaskClient]
) -> None:
    key = new_key(store, READ)
    client = serve()
    keys = client.application.extensions["pymk"].keys
    KeyStore(store).revoke(KeyStore(store).listed()[0].key_id, utc_now())
    keys.look()
    assert client.get(LIST, **with_key(key)).status_code == 401
    assert client.get(LIST).status_code == 401, "doors that had a lock stay locked"


def test_the_first_key_locks_a_running_server(store: ObjectStore, serve: Callable[..., FlaskClient]) -> None:
    client = serve()
    assert client.get(LIST).status_code == 200
    key = new_key(store, READ)
    client.application.extensions["pymk"].keys.look()
    assert client.get(LIST).status_code == 401
    assert client.get(LIST, **with_key(key)).status_code == 200


def test_pages_and_health_need_no_key(store: ObjectStore, serve: Callable[..., FlaskClient]) -> None:
    new_key(store, READ)
    client = serve()
    for path in OPEN:
        assert client.get(path).status_code == 200, path


def test_without_keys_only_this_machine_is_answered(serve: Callable[..., FlaskClient]) -> None:
    client = serve()
    assert client.get(LIST, environ_base={"REMOTE_ADDR": "127.0.0.1"}).status_code == 200
    far = client.get(LIST, environ_base={"REMOTE_ADDR": "192.0.2.7"})
    assert (far.status_code, problem(far)) == (401, "unauthorized")
    other = serve(**api(host="0.0.0.0"))
    assert other.get(LIST, environ_base={"REMOTE_ADDR": "127.0.0.1"}).status_code == 401, "it listens to everybody"


@pytest.mark.parametrize(
    ("address", "near"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True), ("", True), (None, True),
     ("10.0.0.1", False), ("::ffff:10.0.0.1", False), ("localhost.evil", False)],
)  # fmt: skip
def test_an_address_is_of_this_machine_or_not(address: str | None, near: bool) -> None:
    assert from_this_machine(address) is near


@pytest.mark.parametrize(
    ("host", "own"),
    [("localhost", True), ("localhost:8000", True), ("127.0.0.1:80", True), ("[::1]:8000", True), ("[::1]", True),
     ("a.localhost:1", True), ("", True), (None, True), ("evil.example:8000", False), ("evil.example", False),
     ("localhost.evil.example", False), ("10.0.0.1", False), (":80", False)],
)  # fmt: skip
def test_a_host_header_names_this_machine_or_not(host: str | None, own: bool) -> None:
    assert names_this_machine(host) is own


def test_a_page_that_has_its_own_name_lead_here_is_refused(serve: Callable[..., FlaskClient]) -> None:
    assert serve().get(LIST, headers={"Host": "evil.example:8000"}).status_code == 401


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("example.org", False)],
)
def test_a_host_is_loopback_or_not(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@given(st.text(max_size=30))
def test_a_path_that_is_not_known_needs_the_strongest_key(rest: str) -> None:
    for path in (f"/{rest}", f"//v1/{rest}", f"/V1/{rest}"):
        if path not in OPEN and not path.startswith(("/v1/users/", "/v1/events", "/metrics")):
            assert scope_of(path) == ADMIN


def test_unreadable_keys_keep_the_door_shut(store: ObjectStore, serve: Callable[..., FlaskClient]) -> None:
    key = new_key(store, READ)
    store.put("keys.json", b"damaged")
    answer = serve().get(LIST, **with_key(key))
    assert answer.status_code == 503
    assert problem(answer) == "keys-unknown"
    assert int(answer.headers["Retry-After"]) > 0


def unhurried(client: FlaskClient) -> FlaskClient:
    """For whose limits no time passes while the machine is busy."""
    parts = client.application.extensions["pymk"]
    for limit in (parts.key_limit, parts.user_limit):
        if limit is not None:
            limit._clock = lambda: 1000.0
    return client


def test_rates_hold_for_a_key_and_for_a_user(store: ObjectStore, serve: Callable[..., FlaskClient]) -> None:
    key, other = new_key(store, READ), new_key(store, READ)
    client = serve(**api(key_per_s=0.01))
    assert [client.get(LIST, **with_key(key)).status_code for _ in range(2)] == [200, 429], "one in a hundred seconds"
    client = unhurried(serve(**api(key_per_s=2)))
    assert [client.get(LIST, **with_key(key)).status_code for _ in range(3)] == [200, 200, 429]
    assert client.get(LIST, **with_key(other)).status_code == 200
    client = unhurried(serve(**api(user_per_s=2)))
    assert [client.get(LIST, **with_key(key)).status_code for _ in range(3)] == [200, 200, 429]
    late = client.get(LIST, **with_key(other))
    assert problem(late) == "too-many-requests"
    assert int(late.headers["Retry-After"]) >= 1
    assert client.get("/v1/users/8/recommendations", **with_key(key)).status_code == 200


def test_a_body_too_large_is_refused_unread(serve: Callable[..., FlaskClient]) -> None:
    client = serve(**api(max_body_kib=1))
    body = orjson.dumps({"events": [EVENT], "more": "x" * 1024})
    answer = client.post("/v1/events", data=body, content_type="application/json")
    assert (answer.status_code, problem(answer)) == (413, "body-too-large")
    for length in ("-1", "1e3", "٣", "9" * 30):
        environ = {"CONTENT_LENGTH": length, "CONTENT_TYPE": "application/json"}
        answer = client.post("/v1/events", data=b"{}", environ_overrides=environ)
        assert answer.status_code in (400, 413), length


def test_a_body_of_unknown_length_is_read_no_further_than_allowed(serve: Callable[..., FlaskClient]) -> None:
    client = serve(**api(max_body_kib=1))
    environ = {"CONTENT_LENGTH": "", "wsgi.input_terminated": True, "CONTENT_TYPE": "application/json"}
    for size in (1024, 1025, 2000):
        body = b'{"events":[]}'.ljust(size)
        answer = client.post("/v1/events", data=body, environ_overrides=environ)
        assert answer.status_code == (202 if size == 1024 else 413), "no rest is cut off without a word"
    assert problem(answer) == "body-too-large"


def test_events_of_another_type_are_refused(serve: Callable[..., FlaskClient]) -> None:
    client = serve()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"):
        answer = client.post("/v1/events", data=b'{"events":[]}', content_type=kind)
        assert (answer.status_code, problem(answer)) == (415, "not-json")
    kind = "Application/JSON; charset=utf-8"
    assert client.post("/v1/events", data=b'{"events":[]}', content_type=kind).status_code == 202


def test_too_many_events_are_refused(serve: Callable[..., FlaskClient]) -> None:
    answer = serve(events=EventSettings(batch=1)).post("/v1/events", json={"events": [EVENT, EVENT]})
    assert (answer.status_code, problem(answer)) == (400, "too-many-events")


def test_a_path_too_long_is_refused(serve: Callable[..., FlaskClient]) -> None:
    answer = serve().get("/v1/users/" + "1" * 3000)
    assert (answer.status_code, problem(answer)) == (400, "invalid-parameter")


def test_an_event_is_obeyed_by_the_next_answer(serve: Callable[..., FlaskClient]) -> None:
    client = serve()
    shown = client.get(LIST).json["items"][0]["user_id"]
    told = client.post("/v1/events", json={"events": [EVENT | {"other_id": shown}, {"type": "nonsense"}]})
    assert told.status_code == 202
    assert (told.json["accepted"], told.json["rejected"][0]["index"]) == (1, 1)
    assert shown not in [item["user_id"] for item in client.get(LIST).json["items"]]
    text = client.get("/metrics").text
    assert "pymk_events_accepted_total 1.0" in text
    assert 'pymk_events_rejected_total{code="invalid_event_id"} 1.0' in text
