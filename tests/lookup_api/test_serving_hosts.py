"""Workers that read a release from Redis or DynamoDB answer as those that map its files, and follow what is loaded."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from infra.releases import Release
from infra.settings import ApiSettings, LadderSettings
from infra.store import ObjectStore
from infra.table_hosts import open_host
from jobs.release_load import load_release
from tests.suites.redis_server import RedisServer
from tests.suites.served_store import SETTINGS, app_on, new_store, publish_day, tag_of, watch_of

USERS = 60


@pytest.fixture(params=["redis", "dynamodb"])
def tables_uri(request: pytest.FixtureRequest) -> str:
    if request.param == "redis":
        return str(request.getfixturevalue("redis_uri"))
    return f"dynamodb://{request.getfixturevalue('s3_bucket')}"


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return new_store(tmp_path)


class Served:
    """Apps on hosts of tables, stopped at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._apps: list[Flask] = []

    def app(self, store: ObjectStore, tables_uri: str) -> Flask:
        api = ApiSettings(
            poll_s=3600,
            tables=tables_uri,
            tables_timeout_ms=60_000,
            facts=str(self._folder / f"facts{len(self._apps)}"),
        )
        ladder = LadderSettings(deadline_ms=60_000, l1_mib=0, last_good_mib=0, breaker_wait_s=0.01)
        self._apps.append(app_on(store, api=api, ladder=ladder))
        return self._apps[-1]

    def stop(self) -> None:
        for app in self._apps:
            app.extensions["pymk"].stop()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    yield made
    made.stop()


def load(store: ObjectStore, release: Release, tables_uri: str) -> None:
    host = open_host(tables_uri, 60)
    load_release(store, release, host, keep=2, switch=True, progress=lambda line: None)
    host.close()


def get(app: Flask, user_id: str, **parameters: Any) -> dict[str, Any]:
    answer = app.test_client().get(f"/v1/users/{user_id}/recommendations", query_string=parameters)
    assert answer.status_code == 200, answer.text
    values: dict[str, Any] = answer.get_json()
    return {key: value for key, value in values.items() if key not in ("request_id", "age_s", "explain")}


def someone(app: Flask) -> str:
    """A user of the release: the popular are."""
    return str(get(app, "-1")["items"][0]["user_id"])


def test_answers_are_those_of_the_files(store: ObjectStore, tables_uri: str, served: Served) -> None:
    load(store, publish_day(store, 1, USERS), tables_uri)
    hosted, mapped = served.app(store, tables_uri), served.app(store, "")
    user = someone(mapped)
    for parameters in ({}, {"limit": 3, "explain": 1}, {"exclude": user}):
        answer = get(hosted, user, **parameters)
        assert answer == get(mapped, user, **parameters)
        assert answer["source"] == "precomputed"
    assert get(hosted, "-1") == get(mapped, "-1")


def test_what_is_loaded_is_followed_and_what_is_published_alone_is_not(
    store: ObjectStore, tables_uri: str, served: Served
) -> None:
    first = publish_day(store, 1, USERS)
    load(store, first, tables_uri)
    app = served.app(store, tables_uri)
    second = publish_day(store, 2, USERS)
    watch_of(app).look()
    assert get(app, "-1")["release"] == first.release_id
    load(store, second, tables_uri)
    watch_of(app).look()
    user = someone(app)
    answer = get(app, user)
    assert (answer["release"], answer["degraded"]) == (second.release_id, False)
    assert tag_of(2) in str(answer["items"])
    load(store, first, tables_uri)
    watch_of(app).look()
    assert get(app, user)["release"] == first.release_id


def test_before_anything_is_loaded_no_release_is_served(store: ObjectStore, tables_uri: str, served: Served) -> None:
    release = publish_day(store, 1, USERS)
    app = served.app(store, tables_uri)
    assert app.test_client().get("/readyz").status_code == 503
    load(store, release, tables_uri)
    watch_of(app).look()
    assert app.test_client().get("/readyz").status_code == 200


def test_a_worker_starts_and_follows_without_the_object_store(
    store: ObjectStore, tables_uri: str, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lookup_api.app.KeyRing.empty", lambda ring: True)  # which the store would say, were it there
    releases = [publish_day(store, day, USERS) for day in (1, 2)]
    load(store, releases[0], tables_uri)
    away = shutil.move(store.uri, tmp_path / "away")
    app = served.app(store, tables_uri)
    assert get(app, someone(app))["source"] == "precomputed"
    shutil.move(away, store.uri)
    load(store, releases[1], tables_uri)
    shutil.move(store.uri, away)
    watch_of(app).look()
    answer = get(app, someone(app))
    assert (answer["release"], answer["source"]) == (releases[1].release_id, "precomputed")


def test_a_redis_that_is_killed_emptied_and_filled_again(store: ObjectStore, served: Served, tmp_path: Path) -> None:
    """Every request is answered; popular people, whom the worker holds itself, stand in."""
    server = RedisServer(tmp_path / "redis").start()
    try:
        release = publish_day(store, 1, USERS)
        load(store, release, server.uri)
        app = served.app(store, server.uri)
        user = someone(app)
        whole = get(app, user)
        server.kill()
        for _ in range(20):
            answer = get(app, user)
            assert (answer["source"], answer["degraded"]) in (("popular", True), ("none", True))
        server.start()
        assert get(app, user)["degraded"], "a row that went with its Redis is no unknown user"
        load(store, release, server.uri)
        watch_of(app)._swap(None)
        watch_of(app).look()
        assert whole in (get(app, user) for _ in range(10_000))
    finally:
        server.stop()


def test_what_is_no_host_is_a_setting_that_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"api\.tables|tables"):
        SETTINGS.api.model_validate({"tables": "/folder"})
