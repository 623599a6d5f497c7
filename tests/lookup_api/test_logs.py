"""Log lines: JSON that programs read, without keys, and never more than a caller may cause."""

import logging
from collections.abc import Callable

import orjson
import pytest
from flask.testing import FlaskClient

from infra.keys import READ
from infra.store import ObjectStore
from lookup_api.logs import JsonLines, PlainLines, Sparing, without_secrets
from tests.suites.door import LIST, api, new_key, with_key

KEY = "pymk_0123456789ab_" + "f" * 64


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    return logging.getLogger("test").makeRecord("test", logging.WARNING, "f", 1, message, args, None, extra=extra)


def test_a_line_is_one_object_with_what_was_given() -> None:
    line = JsonLines().format(record("said %s\nthis", "x", request_id="r1", ms=1.5, odd={1, 2}))
    assert "\n" not in line
    said = orjson.loads(line)
    assert (said["message"], said["level"], said["logger"]) == ("said x\nthis", "WARNING", "test")
    assert (said["request_id"], said["ms"]) == ("r1", 1.5)
    assert said["time"].endswith("+00:00")


def test_a_failure_comes_with_its_trace() -> None:
    try:
        raise ValueError(KEY)
    except ValueError as error:
        found = record("failed")
        found.exc_info = (type(error), error, error.__traceback__)
    said = orjson.loads(JsonLines().format(found))
    assert "ValueError" in said["trace"]
    assert KEY not in said["trace"]


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"Authorization: Bearer {KEY}",
        "authorization: bearer abc.def-ghi",
        f"X-Api-Key: {KEY}",
        f"{{'k': '{KEY}'}}",
    ],
)
@pytest.mark.parametrize("lines", [JsonLines(), PlainLines()])
def test_no_key_is_written_whoever_writes_it(text: str, lines: logging.Formatter) -> None:
    for told in (record(text), record("%s", text), record("x", header=text)):
        written = lines.format(told)
        assert KEY not in written
        assert "abc.def-ghi" not in written


def test_what_is_no_key_stays() -> None:
    for text in ("pymk_requests 5", "bearer of news", "/v1/users/5/recommendations"):
        assert without_secrets(text).split()[-1] == text.split()[-1] or text.startswith("bearer")
    assert without_secrets("pymk serve --store /pymk_runs/x") == "pymk serve --store /pymk_runs/x"


def test_a_flood_of_refusals_is_not_a_flood_of_lines(caplog: pytest.LogCaptureFixture) -> None:
    now = [5.0]
    sparing = Sparing(logging.getLogger("flood"), most=3, clock=lambda: now[0])
    for _ in range(100):
        sparing.warning("turned away", path="/")
    assert len(caplog.records) == 3
    now[0] += 1
    sparing.warning("turned away", path="/")
    assert caplog.records[-1].left_out == 97  # type: ignore[attr-defined]


@pytest.mark.parametrize("log_requests", ["failed", "all"])
def test_no_key_reaches_the_log(
    store: ObjectStore, serve: Callable[..., FlaskClient], caplog: pytest.LogCaptureFixture, log_requests: str
) -> None:
    key = new_key(store, READ)
    client = serve(**api(log_requests=log_requests))
    with caplog.at_level(logging.DEBUG):
        client.get(LIST, **with_key(key))
        client.get(LIST, **with_key(key[:-1] + ("1" if key.endswith("0") else "0")))
        client.get("/v1/releases", **with_key(key))
    told = " ".join(str(vars(record)) for record in caplog.records)
    assert key[-20:-1] not in told
    turned = [record for record in caplog.records if record.message == "turned away"]
    assert [record.status for record in turned] == [401, 403]
    assert ("answered" in [record.message for record in caplog.records]) is (log_requests == "all")


def test_what_a_caller_did_wrong_is_logged_under_its_request_id_and_without_what_was_sent(
    serve: Callable[..., FlaskClient], caplog: pytest.LogCaptureFixture
) -> None:
    client = serve(**api())
    with caplog.at_level(logging.INFO):
        answers = [
            client.get("/v1/users/x/recommendations"),
            client.get("/nowhere?secret=1"),
            client.delete(LIST),
            client.post("/v1/events", data=b"secret", content_type="text/plain"),
            client.post("/v1/events", data=b"secret", content_type="application/json"),
            client.get(LIST),
        ]
    refused = [record for record in caplog.records if record.message == "refused"]
    assert [record.status for record in refused] == [400, 404, 405, 415, 400]
    assert [record.request_id for record in refused] == [answer.headers["X-Request-Id"] for answer in answers[:-1]]
    assert {record.levelname for record in refused} == {"INFO"}
    assert (refused[0].why, refused[0].path) == ("invalid-parameter", "/v1/users/x/recommendations")
    assert "secret" not in " ".join(str(vars(record)) for record in refused)


def test_an_answer_in_the_log_names_route_source_and_time(
    serve: Callable[..., FlaskClient], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        serve(**api(log_requests="all")).get(LIST, headers={"X-Request-Id": "mine"})
    record = next(record for record in caplog.records if record.message == "answered")
    assert (record.request_id, record.status, record.method) == ("mine", 200, "GET")
    assert (record.route, record.source) == ("/v1/users/<user_id>/recommendations", "precomputed")
    assert record.ms > 0
