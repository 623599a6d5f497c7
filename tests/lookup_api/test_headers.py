"""Headers, in and out: an answer is safe in a browser, packed for who takes it, not sent again to who has it."""

import gzip
import json
from collections.abc import Callable, Iterator

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.store import ObjectStore
from lookup_api.door import OPEN
from lookup_api.headers import accepts_gzip, knows
from tests.suites.door import EVENT, LIST, api
from tests.suites.served_store import app_on, new_store, publish_day


def test_every_answer_is_safe_to_hand_to_a_browser(store: ObjectStore, serve: Callable[..., FlaskClient]) -> None:
    client = serve()
    answers = [client.get(path) for path in (*OPEN, LIST, "/nothing", "/v1/users/x/recommendations", "/metrics")]
    answers += [client.post(LIST), client.options(LIST), client.head(LIST)]
    for answer in answers:
        assert answer.headers["X-Content-Type-Options"] == "nosniff", answer.request.path
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Request-Id"]
        assert answer.headers["Cache-Control"] in ("no-store", "no-cache", "private, no-cache")
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Server" not in answer.headers


def test_a_list_that_the_caller_has_is_not_sent_again(serve: Callable[..., FlaskClient]) -> None:
    client = serve()
    first = client.get(LIST)
    tag = first.headers["ETag"]
    again = client.get(LIST, headers={"If-None-Match": f'"other", {tag}'})
    assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", tag)
    assert client.get(f"{LIST}?limit=3", headers={"If-None-Match": tag}).status_code == 200
    shown = first.json["items"][0]["user_id"]
    client.post("/v1/events", json={"events": [EVENT | {"other_id": shown}]})
    changed = client.get(LIST, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != tag


def test_a_long_list_is_compressed_for_whoever_takes_gzip(serve: Callable[..., FlaskClient]) -> None:
    client = serve(**api(gzip_bytes=256))
    plain = client.get(LIST)
    packed = client.get(LIST, headers={"Accept-Encoding": "br, gzip"})
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) == len(packed.data) < len(plain.data)
    assert json.loads(gzip.decompress(packed.data))["items"] == plain.json["items"]
    assert "Accept-Encoding" in packed.headers["Vary"]


@pytest.mark.parametrize(
    ("header", "taken"),
    [("gzip", True), ("GZIP;q=0.5", True), ("br,gzip", True), ("gzip;q=0", False), ("gzip; q=0.000", False),
     ("gzip;q=0.001", True), ("br", False), ("xgzip", False), (None, False)],
)  # fmt: skip
def test_gzip_is_taken_or_not(header: str | None, taken: bool) -> None:
    assert accepts_gzip({} if header is None else {"HTTP_ACCEPT_ENCODING": header}) is taken


def test_a_tag_is_known_in_either_strength() -> None:
    assert knows({"HTTP_IF_NONE_MATCH": '"a", W/"b"'}, 'W/"a"')
    assert knows({"HTTP_IF_NONE_MATCH": " * "}, '"a"')
    assert not knows({"HTTP_IF_NONE_MATCH": 'W/"ab"'}, '"a"')
    assert not knows({}, '"a"')


HEADERS = ["Authorization", "X-Api-Key", "Content-Type", "X-Request-Id", "Accept-Encoding", "If-None-Match"]
VALUES = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=40)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(HEADERS), VALUES))
def test_any_header_is_answered_or_a_problem(shared: FlaskClient, headers: dict[str, str]) -> None:
    for answer in (shared.get(LIST, headers=headers), shared.post("/v1/events", data=b"[]", headers=headers)):
        assert answer.status_code in (200, 304, 400, 415)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    store = new_store(tmp_path_factory.mktemp("door"))
    publish_day(store, 1, users=20)
    app = app_on(store)
    yield app.test_client()
    app.extensions["pymk"].stop()
