"""A store with generated serving tables, for tests of the lookup API."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flask import Flask

from benchmarks.serving_rows import publish
from infra.releases import Release, ReleaseStore
from infra.settings import ApiSettings, EventSettings, LadderSettings, Settings
from infra.store import ObjectStore, open_store
from lookup_api.app import create_app
from lookup_api.release_watch import ReleaseWatch
from lookup_api.served_release import ServedRelease

USERS = 300
AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
NEVER_BUSY = {"fewer_at": 2.0, "no_live_at": 2.0}
"""For model_copy, which checks no bounds: at 1, the most that can be set, one slow request has a worker of one thread
busy."""
SETTINGS = Settings(
    api=ApiSettings(poll_s=3600),
    ladder=LadderSettings(deadline_ms=60_000).model_copy(update=NEVER_BUSY),
    events=EventSettings(redis_timeout_ms=60_000),
)
"""So long between looks that a test decides when to look, times that a busy machine keeps, and a worker at its ease."""


def new_store(folder: Path) -> ObjectStore:
    return open_store(str(folder / "store"), create=True)


def publish_day(store: ObjectStore, day: int, users: int = USERS) -> Release:
    """The release of the day-th night, whose items all carry the tag `day-<day>`."""
    return publish(store, users, AS_OF + timedelta(days=day), tag_of(day), seed=day)


def tag_of(day: int) -> str:
    return f"day-{day}"


@contextmanager
def current_release(store: ObjectStore) -> Iterator[ServedRelease]:
    """What the store serves, open for a block."""
    current = ReleaseStore(store).current()
    assert current is not None
    opened = ServedRelease.open(store, current, LadderSettings())
    try:
        yield opened
    finally:
        opened.give_back()


def app_on(store: ObjectStore, **settings: Any) -> Flask:
    """settings: sections instead of those of SETTINGS."""
    return create_app(store.uri, SETTINGS.model_copy(update=settings))


def watch_of(app: Flask) -> ReleaseWatch:
    watch: ReleaseWatch = app.extensions["release_watch"]
    return watch
