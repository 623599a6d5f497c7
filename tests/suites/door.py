"""What tests of who comes in at the lookup API and of what leaves it share: keys, settings and problems."""

from typing import Any

import orjson

from benchmarks.serving_rows import FIRST_ID
from infra.keys import KeyStore, utc_now
from infra.settings import ApiSettings
from infra.store import ObjectStore

LIST = f"/v1/users/{FIRST_ID}/recommendations"
EVENT = {"event_id": "a", "type": "blocked", "user_id": str(FIRST_ID), "other_id": "7", "at": "2026-01-01T00:00:00Z"}


def api(**values: Any) -> dict[str, ApiSettings]:
    return {"api": ApiSettings(poll_s=3600, **values)}


def new_key(store: ObjectStore, *scopes: str) -> str:
    return KeyStore(store).create("test", scopes, utc_now())[1]


def with_key(key: str) -> dict[str, dict[str, str]]:
    return {"headers": {"Authorization": f"Bearer {key}"}}


def problem(answer: Any) -> str:
    assert answer.content_type == "application/problem+json", answer.data
    body: dict[str, Any] = orjson.loads(answer.data)
    assert set(body) == {"type", "title", "status", "detail", "instance", "request_id"}
    assert body["request_id"] == answer.headers["X-Request-Id"]
    assert body["status"] == answer.status_code
    return str(body["type"]).rpartition(":")[2]
