"""Waiting for a caller, a disk or a queue is no work, and no key takes all the threads that may wait."""

import io
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from benchmarks.serving_rows import FIRST_ID
from infra.events import Event
from infra.keys import EVENTS, READ, KeyStore, utc_now
from infra.request_threads import SPARE_VARIABLE
from infra.store import ObjectStore
from lookup_api.app import Parts

SPARE = 4
EVENT = {"type": "blocked", "user_id": str(FIRST_ID), "other_id": "9", "at": "2026-01-01T00:00:00Z", "event_id": "1"}
SCORE = b'{"user_id":"%d","candidate_ids":["9"],"models":["release"]}' % FIRST_ID


def parts_of(client: FlaskClient) -> Parts:
    found: Parts = client.application.extensions["pymk"]
    return found


class Told(io.BytesIO):
    """A body that notes what `look` says as it is read."""

    def __init__(self, body: bytes, look: Callable[[], Any]) -> None:
        super().__init__(body)
        self.seen: list[Any] = []
        self._look = look

    def readinto(self, buffer: Any) -> int:  # by which it is read
        self.seen.append(self._look())
        return super().readinto(buffer)


def sent(client: FlaskClient, path: str, body: io.BytesIO, size: int, key: str = "") -> int:
    headers = {"Content-Length": str(size)} | ({"X-Api-Key": key} if key else {})
    answer = client.post(path, input_stream=body, content_type="application/json", headers=headers)
    return int(answer.status_code)


def test_waiting_for_a_body_is_no_work(serve: Callable[..., FlaskClient]) -> None:
    client = serve()
    load = parts_of(client).load
    body = Told(SCORE, lambda: load._running)
    sent(client, "/v1/score", body, len(SCORE))
    assert set(body.seen) == {0}
    assert load._running == 0


def test_waiting_for_the_disk_is_no_work(serve: Callable[..., FlaskClient], monkeypatch: pytest.MonkeyPatch) -> None:
    client, seen = serve(), []
    parts = parts_of(client)
    record = parts.facts.record

    def noted(events: list[Event]) -> Any:
        seen.append(parts.load._running)
        return record(events)

    monkeypatch.setattr(parts.facts, "record", noted)
    assert client.post("/v1/events", json={"events": [EVENT]}).status_code == 202
    assert (seen, parts.load._running) == ([0], 0)


@pytest.fixture
def dribbling() -> Iterator[Callable[..., None]]:
    """Has so many bodies of a key wait until the test ends."""
    end, threads = threading.Event(), []

    def start(client: FlaskClient, key: str, count: int) -> None:
        waiting = threading.Semaphore(0)

        def look() -> None:
            waiting.release()
            end.wait()

        for _ in range(count):
            body = Told(SCORE, look)
            threads.append(threading.Thread(target=sent, args=(client, "/v1/score", body, len(SCORE), key)))
            threads[-1].start()
        for _ in range(count):
            assert waiting.acquire(timeout=60)

    yield start
    end.set()
    for thread in threads:
        thread.join()


def test_a_key_that_dribbles_leaves_room_for_the_bodies_of_others(
    store: ObjectStore,
    serve: Callable[..., FlaskClient],
    dribbling: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(SPARE_VARIABLE, str(SPARE))
    read, events = (KeyStore(store).create(scope, [scope], utc_now())[1] for scope in (READ, EVENTS))
    client = serve()
    dribbling(client, read, SPARE // 2)
    answer = client.post("/v1/score", data=SCORE, content_type="application/json", headers={"X-Api-Key": read})
    assert (answer.status_code, "bodies-late" in answer.json["type"]) == (503, True)
    answer = client.post("/v1/events", json={"events": [EVENT]}, headers={"X-Api-Key": events})
    assert answer.status_code == 202
